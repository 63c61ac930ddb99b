"""Checkpoints as files: which is the newest, and whether it is whole. No torch."""

from __future__ import annotations

import hashlib
from pathlib import Path

from pruning.runs.log import log
from pruning.runs.store import CHECKPOINTS

KEPT = 2
"""Checkpoints of a run that are kept: one which the disk has torn is not to be the only one."""

DIGEST = hashlib.sha256().digest_size
"""Bytes at the beginning of a file: the digest of what follows."""


def name(attempt: int, event: int) -> str:
    """In the order of names: later attempts, and later moments of one, come last."""
    return f"{attempt:06}-{event:09}.checkpoint"


def numbers(file: Path) -> tuple[int, int]:
    """The attempt and the number of its event that a file is named by."""
    attempt, event = file.stem.split("-")
    return int(attempt), int(event)


def oldest_first(folder: Path) -> list[Path]:
    return sorted(folder.glob(CHECKPOINTS))


def delete_older(folder: Path) -> None:
    for older in oldest_first(folder)[:-KEPT]:
        older.unlink(missing_ok=True)


def content(file: Path) -> bytes | None:
    """What follows the digest; None where it cannot be read, or is not what was written."""
    try:
        everything = file.read_bytes()
    except OSError:
        return None
    kept = everything[DIGEST:]
    return kept if hashlib.sha256(kept).digest() == everything[:DIGEST] else None


def newest_whole(folder: Path) -> Path | None:
    for file in reversed(oldest_first(folder)):
        if content(file) is not None:
            return file
        log(f"{file.name} of job {folder.name} is torn: the checkpoint before it counts")
    return None
