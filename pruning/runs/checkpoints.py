"""Checkpoints of runs on disk, in their folders: each appears whole, and proves that it is.

A file is the digest of what follows, and what `torch.save` makes of a checkpoint. Of a run the two
newest are kept, so that one which the disk has torn is not the only one.
"""

from __future__ import annotations

import hashlib
import io
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from pruning.errors import StoreError
from pruning.runs import checkpoint_files
from pruning.runs.log import log
from pruning.storage import whole
from pruning.training.checkpoint import Checkpoint, from_plain, to_plain

VERSION = 1
"""Of what is in a file: one of another version is none."""

SHARE = 0.02
"""Of a run's time that may go into its checkpoints: where epochs are short, not each has one."""

APART = 1.0
"""Seconds after which there is one whatever it costs: more work than that is not to be lost."""


@dataclass(frozen=True)
class Saved:
    """A checkpoint, and the last event before it: its attempt at the run, and its number there."""

    checkpoint: Checkpoint
    attempt: int
    event: int


class Writer:
    """Writes a run's checkpoints. A class because it keeps what the last one cost, and when.

    folder: the run's; attempt: at it; event: the number of its last one.
    """

    def __init__(self, folder: Path, attempt: int, event: int = 0) -> None:
        self.folder = folder
        self.attempt = attempt
        self.event = event
        # Seconds that the last one took, and monotonic seconds at which it was there.
        self.cost = 0.0
        self.ended = time.monotonic()

    def due(self) -> bool:
        """Whether another one costs no more than it may, or the last one is long ago."""
        since = time.monotonic() - self.ended
        return since >= APART or self.cost <= SHARE * since

    def write(self, checkpoint: Checkpoint) -> Path | None:
        """On disk when this returns; its file.

        One that finds no room is left out: the run can go on from the one before.
        """
        began = time.monotonic()
        file = None
        try:
            file = write(self.folder, Saved(checkpoint, self.attempt, self.event))
        except StoreError as error:
            log(f"job {self.folder.name} has no new checkpoint: {error}")
        self.ended = time.monotonic()
        self.cost = self.ended - began
        return file


def write(folder: Path, saved: Saved) -> Path:
    """The file of a checkpoint, whole. Raises StoreError."""
    content = io.BytesIO()
    data: dict[str, Any] = {
        "version": VERSION,
        "attempt": saved.attempt,
        "event": saved.event,
        "checkpoint": to_plain(saved.checkpoint),
    }
    torch.save(data, content)
    file = folder / checkpoint_files.name(saved.attempt, saved.event)
    with whole(file) as draft, open(draft, "wb") as out:
        out.write(hashlib.sha256(content.getbuffer()).digest())
        out.write(content.getbuffer())
    checkpoint_files.delete_older(folder)
    return file


def newest(folder: Path) -> Saved | None:
    """The newest checkpoint that is whole; None where a run has none."""
    for file in reversed(checkpoint_files.oldest_first(folder)):
        saved = _read(file)
        if saved is not None:
            return saved
        log(f"{file.name} of job {folder.name} is torn: the checkpoint before it counts")
    return None


def _read(file: Path) -> Saved | None:
    content = checkpoint_files.content(file)
    if content is None:
        return None
    # As data alone, though the file is our own: a workspace may come from elsewhere.
    data = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    if data["version"] != VERSION:
        return None
    return Saved(from_plain(data["checkpoint"]), data["attempt"], data["event"])
