"""Files on disk: the workspace folder, whole-file writes, and the header of a safetensors file."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

from pruning.errors import DiskFull, StoreError

PACKAGE = Path(__file__).resolve().parent
SAMPLES = PACKAGE.parent / "sample_models"


@cache
def source_hash() -> str:
    """A hash of the sources that results rest on, so that a new version asks anew.

    Read once by each process.
    """
    digest = hashlib.sha256()
    engine = [file for file in PACKAGE.rglob("*.py") if file.parent.name not in ("runs", "formats")]
    for file in sorted([*engine, *SAMPLES.glob("*.py")]):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def default_workspace() -> Path:
    """The folder of runs, uploads and maps: $PRUNING_HOME, else `workspace` in the current one."""
    return _resolved(os.environ.get("PRUNING_HOME") or "workspace", os.getcwd())


@lru_cache(maxsize=8)
def _resolved(place: str, current: str) -> Path:
    """Asked for at every step of a page: each time it would ask the disk for every folder of it."""
    return Path(current, place).resolve()


OTHERS = 0o007
"""The rights of those who are neither the owner nor of his group."""


def private_folder(folder: Path, holds: Path) -> None:
    """Make a folder that its owner alone may enter; of one that is there, others no longer may.

    holds: the file by which a folder is known as ours. One that holds only something else stays as
    it is: it may be somebody's home.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if holds.exists() or not any(folder.iterdir()):
        _close_to_others(folder)


def private_file(file: Path) -> None:
    """Make an empty file that its owner alone may read; one that is there loses others' rights.

    What SQLite writes beside its file has the same rights.
    """
    try:
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    except FileExistsError:
        _close_to_others(file)


def _close_to_others(path: Path) -> None:
    # The group keeps what it has: some share a workspace on purpose. Somebody else's cannot be.
    with suppress(OSError):
        mode = path.stat().st_mode
        if mode & OTHERS:
            path.chmod(stat.S_IMODE(mode) & ~OTHERS)


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A temporary name to write to; the file appears as `file` when the block succeeds, else never.

    Both the content and the name are on the disk before this returns. Raises DiskFull,
    or StoreError when the folder cannot be written.
    """
    # In the same folder, because a rename is atomic only inside one file system; the process id
    # keeps two writers of one file apart.
    draft = file.with_name(f".{os.getpid()}-{file.name}")
    try:
        with disk_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            yield draft
            # Content before name: after a power cut a name must not stand for half a file.
            sync(draft)
            os.replace(draft, file)
            sync(file.parent)
    finally:
        # Where the folder itself may not be written there is no draft either.
        with suppress(OSError):
            draft.unlink(missing_ok=True)


@contextmanager
def disk_errors(file: Path) -> Iterator[None]:
    """Errors of the disk while a file or folder is written, as DiskFull or StoreError."""
    try:
        yield
    except Exception as error:
        # Some libraries report a failed write as errors of their own, with the system's words.
        if is_full(error):
            raise DiskFull(
                f"The disk is full: {file.name} could not be written. "
                "Free some space and start again."
            ) from error
        if not isinstance(error, OSError):
            raise
        raise StoreError(
            f"{file} could not be written ({error.strerror or error}): "
            "check the folder and its permissions."
        ) from error


def is_full(error: Exception) -> bool:
    """Whether an error says that the disk, a quota or the largest size of a file is used up."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return "No space left on device" in str(error) or "disk is full" in str(error)


def write_json(file: Path, data: Any) -> None:
    """Plain data as JSON, whole or not at all. Raises RunError as `whole` does."""
    with whole(file) as draft:
        draft.write_text(json.dumps(data), encoding="utf-8")


def delete_oldest(files: Iterable[Path], most: int, most_bytes: int) -> None:
    """Keep a cache's files within both bounds: the ones read last stay. Raises OSError."""
    total = 0
    newest_first = sorted(files, key=lambda file: file.stat().st_mtime, reverse=True)
    for number, file in enumerate(newest_first):
        total += file.stat().st_size
        if number >= most or total > most_bytes:
            file.unlink(missing_ok=True)


def put_in_place(folder: Path, place: Path) -> bool:
    """Rename a finished folder, whole or not at all; False where somebody was quicker.

    What stands in its place already is replaced: callers have found it damaged.
    """
    place.parent.mkdir(exist_ok=True)
    shutil.rmtree(place, ignore_errors=True)
    try:
        folder.rename(place)
    except OSError:  # somebody brought the same file at the same moment
        return False
    # The rename itself on disk, where the system can say so.
    with suppress(OSError):
        sync(place.parent)
    return True


def sync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def safetensors_header(
    tensors: Iterable[tuple[str, str, Sequence[int], int]],
    metadata: dict[str, str] | None = None,
    *,
    least: int = 0,
) -> bytes:
    """The start of a safetensors file of these (name, dtype, shape, bytes).

    least: bytes that it has at least, a multiple of eight; spaces fill it.

    The tensors' data must follow in this order, without gaps:
    https://huggingface.co/docs/safetensors/index#format.
    """
    table: dict[str, Any] = {} if metadata is None else {"__metadata__": metadata}
    end = 0
    for name, dtype, shape, size in tensors:
        start, end = end, end + size
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(table, separators=(",", ":")).encode()
    # Padded to eight bytes, as the library does, so that the data starts aligned.
    text += b" " * (-len(text) % 8)
    text = text.ljust(least - 8)
    return len(text).to_bytes(8, "little") + text
