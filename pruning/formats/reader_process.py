"""The reading process: `python -m pruning.formats.reader_process FOLDER NAME`, the file as standard input, limits on itself first.

FOLDER/ask.json says what to do: {} describes; {"numbers": true} also judges every number; {"model", "shapes", "whole"} matches,
judges and writes FOLDER/model.safetensors.
The answer is FOLDER/answer.json: plain JSON, never a pickle. Nothing of torch is imported: it would not be used.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any, BinaryIO

from pruning.errors import FileRefused
from pruning.formats import limits
from pruning.formats.types import Contents, Expected, Listed


def bind() -> None:
    """Limits on this process: memory, processor time, time on the clock, what it may write. Without them the parent's clock is left."""
    if hasattr(signal, "alarm"):
        signal.alarm(int(limits.WALL) + 5)
    with contextlib.suppress(ImportError):
        import resource

        bounds = (
            (resource.RLIMIT_AS, limits.MEMORY),
            (resource.RLIMIT_CPU, limits.CPU),
            (resource.RLIMIT_FSIZE, 4 * limits.LARGEST),
        )
        for what, most in (*bounds, (resource.RLIMIT_CORE, 0)):
            with contextlib.suppress(ValueError, OSError):  # macOS refuses some
                resource.setrlimit(what, (most, most))


def answer(file: BinaryIO, name: str, folder: Path) -> dict[str, Any]:
    """What was found, as plain data; a refusal is an answer too."""
    ask = json.loads((folder / "ask.json").read_bytes())
    said: dict[str, Any] = {}
    try:
        _read(file, name, folder, ask, said)
    except FileRefused as refused:
        said["refusal"] = str(refused)
    return said


def _read(
    file: BinaryIO, name: str, folder: Path, ask: dict[str, Any], said: dict[str, Any]
) -> None:
    from pruning.formats import guard

    found = guard.contents(file, os.fstat(file.fileno()).st_size, name)
    said |= _said(found)
    with guard.guarded(name):
        if "shapes" in ask:
            _convert(file, found, ask, folder, said)
        elif ask.get("numbers"):
            _judge(file, found)


def _said(found: Contents) -> dict[str, Any]:
    from pruning.formats.names import prefixes

    shared = prefixes([entry.name for entry in found.entries])
    cut = len("".join(shared))
    listed = [
        Listed(entry.name[cut:], entry.shape, entry.dtype, entry.bytes) for entry in found.entries
    ]
    tensors = [[t.name, t.shape, t.dtype, t.bytes] for t in listed]
    return {
        "format": found.format,
        "tensors": tensors,
        "wrappers": [*found.wrappers, *shared],
        "notes": found.notes,
    }


def _judge(file: BinaryIO, found: Contents) -> None:
    from pruning.formats import numbers

    numbers.judge(file, found.entries)


def _convert(
    file: BinaryIO, found: Contents, ask: dict[str, Any], folder: Path, said: dict[str, Any]
) -> None:
    from pruning.formats import numbers
    from pruning.formats.match import match

    expected = Expected(
        {name: tuple(shape) for name, shape in ask["shapes"].items()}, frozenset(ask["whole"])
    )
    fit = match(found, expected, ask["model"])
    with (folder / "model.safetensors").open("wb") as out:
        numbers.write(file, fit.takes, out)
        out.flush()
        os.fsync(out.fileno())
    said["notes"] = fit.notes


def main() -> None:
    bind()
    folder, name = Path(sys.argv[1]), sys.argv[2]
    (folder / "answer.json").write_text(json.dumps(answer(sys.stdin.buffer, name, folder)))


if __name__ == "__main__":
    main()
