"""Several files that are one model's weights: Hugging Face's shards, read as a set.

They are laid end to end in one file, which the reading process gets like any other: each shard is
judged by itself, in the window that it fills.
"""

from __future__ import annotations

import io
import shutil
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from pruning.errors import FileRefused
from pruning.formats import diagnosis, guard, limits, sandbox
from pruning.formats.types import Contents, file_name

MOST = 64
"""Files of a set."""

INDEX = ".json"
"""How the table ends that says which shard holds what: the shards themselves say it too."""

WEIGHTS = ("*.safetensors", "*.bin")
"""What a folder's weights are called, the first kind that there is."""


class Window(io.RawIOBase):
    """A part of a file, as a file of its own. length: bytes from `start` on."""

    def __init__(self, file: BinaryIO, start: int, length: int) -> None:
        super().__init__()
        self.file, self.start, self.length, self.at = file, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self.at, io.SEEK_END: self.length}[whence]
        if base + offset < 0:
            raise ValueError("before the beginning")
        self.at = base + offset
        return self.at

    def read(self, size: int = -1) -> bytes:
        rest = max(0, self.length - self.at)
        self.file.seek(self.start + self.at)
        content = self.file.read(rest if size is None or size < 0 else min(size, rest))
        self.at += len(content)
        return content


def files(path: Path) -> list[Path]:
    """The weights that a path leads to: itself, or those of a folder. Raises FileRefused."""
    if not path.is_dir():
        return [path]
    for pattern in WEIGHTS:
        # A training run's optimizer and the like lie beside the weights.
        inside = sorted(file for file in path.glob(pattern) if file.is_file())
        shards = [file for file in inside if diagnosis.shard(file.name)]
        if shards or len(inside) == 1:
            return shards or inside
    raise FileRefused(
        f"{file_name(path.name)} is a folder without one model's weights: choose a file, or a "
        "folder that holds a .safetensors file or all of its shards (-00001-of-00003)."
    )


def judge_names(names: Sequence[str]) -> str:
    """What the set is called. FileRefused for files that are not all the shards of one model."""
    if len(names) > MOST:
        raise FileRefused(
            f"{file_name(names[0])} and {len(names) - 1:,} more are too many files, over the "
            f"{MOST} that are read together: bring one model's weights."
        )
    first = file_name(names[0])
    numbers = [diagnosis.shard(name) for name in names]
    stems = {name.partition("-of-")[0].rstrip("0123456789") for name in names}
    counts = {pair[1] for pair in numbers if pair}
    if None in numbers or len(stems) > 1 or len(counts) > 1:
        raise FileRefused(
            f"{first} and the other files are not shards of one model "
            "(model-00001-of-00003.safetensors and so on): bring one file, or all shards of one."
        )
    count = counts.pop()
    missing = sorted({*range(1, count + 1)} - {pair[0] for pair in numbers if pair})
    if missing or len(names) != count:
        listed = ", ".join(map(str, missing[:5])) or "none twice"
        raise FileRefused(
            f"{first} and the other files are {len(names)} of {count} shards: bring all {count} "
            f"together (missing: {listed})."
        )
    stem = stems.pop().rstrip("-_.")
    return f"{stem or 'weights'} ({count} shards)"


def join(paths: Sequence[Path], names: Sequence[str], out: Path) -> list[int]:
    """Lays the files end to end in `out`; returns the bytes of each. Raises FileRefused."""
    lengths: list[int] = []
    with ExitStack() as stack:
        opened = [
            stack.enter_context(sandbox.opened(path, file_name(name)))
            for path, name in zip(paths, names, strict=True)
        ]
        with guard.guarded(names[0]):
            # All of them before any is copied: a set may be as large as one file.
            if sum(path.stat().st_size for path in paths) > limits.LARGEST:
                raise FileRefused(guard.TOO_LARGE)
            with out.open("wb") as joined:
                for file in opened:
                    before = joined.tell()
                    shutil.copyfileobj(file, joined, 1 << 20)
                    lengths.append(joined.tell() - before)
    return lengths


def contents(file: BinaryIO, lengths: Sequence[int], name: str) -> Contents:
    """What the shards of a joined file hold together. Raises nothing but FileRefused."""
    read: list[Contents] = []
    start = 0
    for number, length in enumerate(lengths, 1):
        window = Window(file, start, length)
        one = guard.contents(window, length, name)  # type: ignore[arg-type]
        read.append(one.moved(start))
        start += length
        with guard.guarded(name):
            names = [entry.name for part in read for entry in part.entries]
            if len(set(names)) < len(names):
                raise FileRefused(
                    f"names a tensor again in shard {number} that another shard holds: "
                    "bring the shards of one model."
                )
            if len(names) > limits.TENSORS:
                raise FileRefused(
                    f"holds {len(names):,} tensors, over the {limits.TENSORS:,} that are read: "
                    "keep the model's own weights only."
                )
    entries = tuple(entry for part in read for entry in part.entries)
    return Contents(read[0].format, entries, read[0].wrappers, (f"Read from {len(read)} shards.",))
