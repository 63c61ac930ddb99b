"""Weights people brought, kept: checked, re-saved as safetensors, and from then on read from there alone.

    <workspace>/uploads/<id>/model.safetensors   float32 weights under the architecture's own names
    <workspace>/uploads/<id>/upload.json         which architecture, what the file was called, how it was matched

The id is of the original bytes and the architecture, so the same file for the same architecture is checked once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pruning.errors import FileRefused, UnknownName
from pruning.formats import architecture, guard, safe, sandbox
from pruning.formats.types import Expected, Listed, Reading, file_name
from pruning.storage import default_workspace

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS, ABOUT = "model.safetensors", "upload.json"
HOUR = 3600.0
RULES = 1
"""Raised when what is accepted changes: older uploads are then checked again when they are brought again."""


@dataclass(frozen=True)
class Upload:
    """Weights that fit an architecture. name: the original file's, made safe to show; tensors and numbers: how many;
    bytes: of the safetensors file; notes: how they were matched, a sentence each; accepted: Unix seconds; digest: SHA-256 of it."""

    id: str
    architecture: str
    name: str
    format: str
    tensors: int
    numbers: int
    bytes: int
    notes: tuple[str, ...]
    accepted: float
    digest: str
    rules: int = RULES

    @property
    def model(self) -> str:
        """What a recipe calls it."""
        return f"upload:{self.id}"


def inspect(path: str | Path) -> Reading:
    """What a reading of the file says, without trusting it and without running anything in it. Never raises for what is in the file."""
    path, name = Path(path), file_name(Path(path).name)
    try:
        with (
            sandbox.opened(path, name) as file,
            tempfile.TemporaryDirectory(prefix="pruning-reading-") as folder,
        ):
            length = os.fstat(file.fileno()).st_size
            return _reading(
                name, length, _asked(file, name, length, Path(folder), {"numbers": True})
            )
    except FileRefused as refused:
        return Reading(name, path.stat().st_size if path.is_file() else 0, refusal=str(refused))


def accept(
    path: str | Path, model: str, workspace: Path | None = None, filename: str = ""
) -> Upload:
    """Checks the file, matches it with the architecture `model` (a sample's or torchvision's name), and keeps it.

    filename: what its owner calls it, where `path` is a spooled copy. Raises FileRefused in one sentence with the way out;
    UnknownName for an architecture that is not known.
    """
    name = file_name(filename or Path(path).name)
    with sandbox.opened(Path(path), name) as file, _scratch(workspace, name) as folder:
        length = os.fstat(file.fileno()).st_size
        with guard.guarded(name):
            guard.kind(file, length)  # too large, or nothing of ours: before all of it is read
            id = _id(file, model)
        kept = _kept(folder.parent / id)
        if kept is not None:
            return kept
        if not architecture.ready(model):
            _refuse(
                _asked(file, name, length, folder, {})
            )  # no weights at all: said before an architecture is built
        expected = architecture.expected(model)
        question = {"model": model, "shapes": expected.shapes, "whole": sorted(expected.whole)}
        said = _asked(file, name, length, folder, question)
        _refuse(said)
        with guard.guarded(name):
            return _keep(folder, _upload(id, model, said, name, folder / WEIGHTS, expected))
    raise AssertionError("guarded either returns or raises")


def uploads(workspace: Path | None = None) -> list[Upload]:
    """All that are kept, the newest first."""
    found = [_kept(folder) for folder in _folder(workspace).glob("*") if _ID.fullmatch(folder.name)]
    return sorted(
        (upload for upload in found if upload is not None),
        key=lambda upload: upload.accepted,
        reverse=True,
    )


def load_upload(id: str, workspace: Path | None = None) -> tuple[str, dict[str, Tensor]]:
    """(architecture, its state_dict: every name it expects, float32 on the CPU). UnknownName for an id that is not kept."""
    upload = _kept(_folder(workspace) / id) if _ID.fullmatch(id) else None
    if upload is None:
        raise UnknownName("upload", id, [kept.id for kept in uploads(workspace)])
    from safetensors.torch import load_file

    path = _folder(workspace) / id / WEIGHTS
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != upload.digest:
            raise FileRefused(
                f"The kept weights of {upload.name} have changed on disk: bring the original file again."
            )
    return upload.architecture, load_file(path)


_ID = re.compile(r"[0-9a-f]{16}")


def _folder(workspace: Path | None) -> Path:
    """Where uploads lie: in `workspace`, else where the job store lies."""
    return (workspace or default_workspace()) / "uploads"


def _kept(folder: Path) -> Upload | None:
    """The upload in a folder, None where there is none that is whole."""
    try:
        about = json.loads((folder / ABOUT).read_bytes())
        upload = Upload(**{**about, "notes": tuple(about["notes"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return (
        upload
        if upload.rules == RULES and upload.id == folder.name and (folder / WEIGHTS).is_file()
        else None
    )


def _id(file: BinaryIO, model: str) -> str:
    digest = hashlib.sha256(model.encode() + b"\0")
    file.seek(0)
    while piece := file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()[:16]


def _asked(
    file: BinaryIO, name: str, length: int, folder: Path, question: dict[str, Any]
) -> dict[str, Any]:
    """The reading process's answer, for a file whose first bytes are those of weights."""
    with guard.guarded(name):
        guard.kind(file, length)
    return sandbox.ask(file, name, folder, question)


def _refuse(said: dict[str, Any]) -> None:
    if said.get("refusal"):
        raise FileRefused(str(said["refusal"]))


def _reading(name: str, length: int, said: dict[str, Any]) -> Reading:
    tensors = tuple(
        Listed(n, tuple(shape), dtype, size) for n, shape, dtype, size in said.get("tensors", ())
    )
    wrappers, notes = tuple(said.get("wrappers", ())), tuple(said.get("notes", ()))
    return Reading(name, length, said.get("format"), tensors, wrappers, notes, said.get("refusal"))


def _upload(
    id: str, model: str, said: dict[str, Any], name: str, weights: Path, expected: Expected
) -> Upload:
    """What is known of `weights`, which our own process wrote and which is judged again, by the same reader."""
    length = weights.stat().st_size
    with weights.open("rb") as file:
        entries = safe.contents(file, length).entries
        if {entry.name: entry.shape for entry in entries} != expected.shapes:
            raise ValueError("what was written is not what was asked for")
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    numbers = sum(entry.numbers for entry in entries)
    return Upload(
        id,
        model,
        name,
        said["format"],
        len(entries),
        numbers,
        length,
        tuple(said["notes"]),
        time.time(),
        digest,
    )


def _keep(folder: Path, upload: Upload) -> Upload:
    """Puts a finished folder in its place, whole or not at all."""
    for left in folder.iterdir():
        if left.name != WEIGHTS:
            left.unlink()
    with (folder / ABOUT).open("w") as file:
        json.dump(asdict(upload), file)
        file.flush()
        os.fsync(file.fileno())
    place = folder.parent / upload.id
    shutil.rmtree(place, ignore_errors=True)  # only what _kept would not have
    try:
        folder.rename(place)
    except OSError:  # somebody brought the same file at the same moment
        return _kept(place) or upload
    _sync(place.parent)
    return upload


def _sync(folder: Path) -> None:
    """The rename itself on disk, where the system can say so."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextmanager
def _scratch(workspace: Path | None, name: str) -> Iterator[Path]:
    """A folder beside the uploads for one reading; gone afterwards unless it was put in its place. Sweeps up after killed ones."""
    base = _folder(workspace)
    with guard.guarded(name):
        base.mkdir(parents=True, exist_ok=True)
        for old in base.glob(".reading-*"):
            if time.time() - old.stat().st_mtime > HOUR:
                shutil.rmtree(old, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix=".reading-", dir=base))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
