"""Uploads: weights people brought, checked and re-saved, and from then on read from there alone.

    <workspace>/uploads/<id>/model.safetensors   float32 weights under the architecture's own names
                                                 (of an ONNX file: its own, and its graph as data)
    <workspace>/uploads/<id>/upload.json         which architecture, the file's name, how it matched

The id is of the original bytes and the architecture, so that the same file for the same
architecture is checked once.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from pruning.errors import FileRefused, FitsAnother, RecipeError, UnknownName
from pruning.formats import architecture, fingerprints, guard, limits, magic, safe, sandbox, shards
from pruning.formats.onnx import kept
from pruning.formats.turns import Turn, Turns
from pruning.formats.types import Expected, Listed, Reading, Shape, file_name
from pruning.storage import default_workspace, put_in_place

if TYPE_CHECKING:
    from torch import Tensor

ONNX = "onnx"
"""What stands for the architecture of a file that brings its own: ONNX's, or Keras's."""

WEIGHTS = "model.safetensors"
ABOUT = "upload.json"

SPOOL, READING = "pruning-upload-", ".reading-"
"""How temporary folders begin; then come the machine and the process that they belong to."""

HOUR = 3600.0
"""Seconds after which a temporary folder is left behind in any case: no reading takes so long."""

RULES = 1
"""Raised when what is accepted changes: older uploads are then checked again when they return."""

Shapes = Mapping[str, Shape]

_ID = re.compile(r"[0-9a-f]{16}")


@dataclass(frozen=True)
class Upload:
    """Weights that fit an architecture.

    name: the original file's, made safe to show; tensors and numbers: how many; bytes: of the
    safetensors file; notes: how they were matched, a sentence each; accepted: Unix seconds;
    digest: SHA-256 of the safetensors file; classes: how many they tell apart, where the
    architecture may have any number.
    """

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
    classes: int | None = None

    @property
    def model(self) -> str:
        """The name that a recipe has for it."""
        return f"upload:{self.id}"


_turns = Turns(limits.READERS)


def turn(since: float | None = None) -> AbstractContextManager[Turn]:
    """A place in this process's queue of readers, for whoever shows how long it takes.

    Each reader may take a processor and a gigabyte: thirty at once would end the server. since: as
    `Turns.turn` has it.
    """
    return _turns.turn(since)


class Spooled:
    """The bytes of an upload in a temporary file, which goes with this object at the latest.

    name: the owner's; path: of the copy, of which only the ending is the owner's; arrived:
    monotonic seconds. Raises FileRefused where there is no room.
    """

    def __init__(self, data: bytes | memoryview, name: str) -> None:
        self.name = name
        self.arrived = time.monotonic()
        with guard.guarded(name):
            self._folder = tempfile.TemporaryDirectory(
                prefix=_prefix(SPOOL), ignore_cleanup_errors=True
            )
            self.path = Path(self._folder.name) / f"weights{Path(file_name(name)).suffix.lower()}"
            try:
                self.path.write_bytes(data)
            except OSError:
                self.remove()
                raise

    def remove(self) -> None:
        self._folder.cleanup()


def sweep(workspace: Path | None = None) -> None:
    """Remove what processes that were killed in the middle of a reading left behind."""
    spools = Path(tempfile.gettempdir()).glob(f"{SPOOL}*")
    readings = _folder(workspace).glob(f"{READING}*")
    for folder in [*spools, *readings]:
        with suppress(OSError):
            if _is_left_behind(folder):
                shutil.rmtree(folder, ignore_errors=True)


def _prefix(kind: str) -> str:
    """How a temporary folder of this process begins."""
    return f"{kind}{socket.gethostname()}-{os.getpid()}-"


def _is_left_behind(folder: Path) -> bool:
    """Whether the process that a temporary folder belongs to has ended, or must have."""
    if time.time() - folder.stat().st_mtime > HOUR:
        return True
    owner = folder.name.removeprefix(SPOOL).removeprefix(READING)
    host, _, process = owner.rpartition("-")[0].rpartition("-")
    # Of other machines' processes nothing is known here, and Windows has no question like this.
    if host != socket.gethostname() or not process.isdecimal() or os.name == "nt":
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    return False


def inspect(path: str | Path) -> Reading:
    """What a reading of the file finds, without trusting it and without running anything in it.

    path: a file, or a folder with a model's weights or all its shards. Never raises for what is in
    the file.
    """
    path = Path(path)
    name = file_name(path.name)
    size = path.stat().st_size if path.is_file() else 0
    try:
        with (
            tempfile.TemporaryDirectory(prefix="pruning-reading-") as folder,
            _source([path], [name], Path(folder)) as source,
        ):
            name, size = source.name, source.length
            answer = _ask(source, Path(folder), {"numbers": True})
    except FileRefused as refused:
        return Reading(name, size, refusal=str(refused))
    return Reading(
        name,
        size,
        answer.get("format"),
        tuple(Listed(n, tuple(shape), *rest) for n, shape, *rest in answer.get("tensors", ())),
        tuple(answer.get("wrappers", ())),
        tuple(answer.get("notes", ())),
        answer.get("refusal"),
    )


def accept(
    path: str | Path | Sequence[Path],
    model: str,
    workspace: Path | None = None,
    filename: str | Sequence[str] = "",
    expected: Expected | None = None,
) -> Upload:
    """Checks the file, matches it with an architecture, and keeps it.

    path: a file, all shards of one model, or a folder with either; model: a sample's or
    torchvision's name, ONNX for a file of that kind, which brings its own architecture; filename:
    what the owner calls the file (or each of them), where `path` is a spooled copy; expected: what
    the architecture's state_dict holds, where its name is neither: weights that were checked
    against another content of it are checked anew.
    Raises FileRefused in one sentence with the way out, FitsAnother where they fit
    others; UnknownName for an unknown architecture.
    """
    paths = [Path(path)] if isinstance(path, str | Path) else list(path)
    owners = [filename] if isinstance(filename, str) else list(filename)
    names = [file_name(own or path.name) for own, path in zip_longest(owners, paths)]
    with _scratch(workspace, names[0]) as folder, _source(paths, names, folder) as source:
        name = source.name
        with guard.guarded(name):
            # Too large, or no weights at all: refused before all of it is read for its id.
            kind = guard.kind(source.file, source.length)
            if model == ONNX and kind not in magic.NETWORKS:
                raise FileRefused(
                    "is no ONNX or Keras file: choose the architecture that its weights fit."
                )
            # A graph brings its own architecture.
            model = ONNX if kind in magic.NETWORKS else model
            id = _id(source, model, expected)
        known = _load(folder.parent / id)
        if known is not None:
            return known
        if model == ONNX:
            answer = _ask(source, folder, {"network": True})
            _raise_refusal(answer)
            with guard.guarded(name):
                wanted = _network(folder / WEIGHTS)[1]
                return _keep(folder, _upload(id, model, answer, name, folder / WEIGHTS, wanted))
        if expected is None and not architecture.ready(model):
            # A file without weights is refused before an architecture is built, which takes long.
            _raise_refusal(_ask(source, folder, {}))
        expected = expected or architecture.expected(model)
        answer = _ask(source, folder, _question(model, expected))
        _raise_refusal(answer)
        with guard.guarded(name):
            wanted = expected.of_classes(answer["classes"]).shapes
            upload = _upload(id, model, answer, name, folder / WEIGHTS, wanted)
            return _keep(folder, upload)
    raise AssertionError("guarded either returns or raises")


def architectures_of(path: Path) -> list[str]:
    """The samples and torchvision architectures that a file's names and shapes are of.

    [ONNX] for a network, whatever it is called. Raises FileRefused for what is no file of weights,
    or of weights that no architecture takes.
    """
    name = file_name(path.name)
    with (
        tempfile.TemporaryDirectory(prefix="pruning-reading-") as folder,
        _source([path], [name], Path(folder)) as source,
    ):
        answer = _ask(source, Path(folder), _others(""))
    if answer.get("refusal"):
        raise FileRefused(str(answer["refusal"]))
    return [str(name) for name in answer.get("fits", [ONNX])]


def _question(model: str, expected: Expected) -> dict[str, Any]:
    """What the reading process is asked: whether the file fits, and what else it would fit."""
    return {**_others(model), **expected.to_json()}


def _others(model: str) -> dict[str, Any]:
    """What the reading process compares a file with: all that is known but the model."""
    others = {
        other: shapes.to_json()
        for other, shapes in architecture.samples().items()
        if other != model
    }
    known = [(one.name, one.head, one.digest) for one in fingerprints.table()]
    return {"model": model, "others": others, "known": known}


def uploads(workspace: Path | None = None) -> list[Upload]:
    """All that are kept, the newest first."""
    folders = [folder for folder in _folder(workspace).glob("*") if _ID.fullmatch(folder.name)]
    kept = [upload for upload in map(_load, folders) if upload is not None]
    return sorted(kept, key=lambda upload: upload.accepted, reverse=True)


def load_upload(id: str, workspace: Path | None = None) -> tuple[str, dict[str, Tensor]]:
    """(architecture, its state_dict: every name it expects, float32 on the CPU).

    Raises UnknownName for an id that is not kept, FileRefused where its file was changed.
    """
    upload = _known(id, workspace)
    from safetensors.torch import load_file

    return upload.architecture, load_file(_judged(upload, workspace))


def load_network(id: str, workspace: Path | None = None) -> dict[str, Any]:
    """The program of a network that came as ONNX; its weights are those of `load_upload`.

    Raises RecipeError for an upload that is none, or what `load_upload` raises.
    """
    upload = _known(id, workspace)
    if upload.architecture != ONNX:
        raise RecipeError(f"{upload.name} holds weights alone, for {upload.architecture}.")
    with guard.guarded(upload.name):
        return _network(_judged(upload, workspace))[0]
    raise AssertionError("guarded either returns or raises")


def _known(id: str, workspace: Path | None) -> Upload:
    """The upload of that id. Raises UnknownName."""
    # The id may come from an address: only a plain one becomes a path.
    upload = _load(_folder(workspace) / id) if _ID.fullmatch(id) else None
    if upload is None:
        raise UnknownName("upload", id, [upload.id for upload in uploads(workspace)])
    return upload


def _network(weights: Path) -> tuple[dict[str, Any], Shapes]:
    """The program and the shapes that lie in a kept file."""
    with weights.open("rb") as file:
        return kept.read(file, os.fstat(file.fileno()).st_size)


def _judged(upload: Upload, workspace: Path | None) -> Path:
    """The file that is kept of an upload. FileRefused where it was changed."""
    path = _folder(workspace) / upload.id / WEIGHTS
    with path.open("rb") as file:
        if hashlib.file_digest(file, "sha256").hexdigest() != upload.digest:
            raise FileRefused(
                f"The kept weights of {upload.name} have changed on disk: "
                "bring the original file again."
            )
    return path


# ---------------------------------------------------------------- reading


@dataclass(frozen=True)
class Source:
    """What is read. parts: the length of each file of a set, empty for a single one."""

    file: BinaryIO
    name: str
    length: int
    parts: tuple[int, ...] = ()


@contextmanager
def _source(paths: list[Path], names: list[str], folder: Path) -> Iterator[Source]:
    """The one file, or the shards of a set laid end to end in the folder. Raises FileRefused."""
    if len(paths) == 1 and paths[0].is_dir():
        paths = shards.files(paths[0])
        names = [file_name(path.name) for path in paths]
    # The table that lists the shards is brought along with them, and needed by nobody.
    kept = [pair for pair in zip(paths, names, strict=True) if not pair[1].endswith(shards.INDEX)]
    if len(paths) == 1 or not kept:
        with sandbox.opened(paths[0], names[0]) as file:
            yield Source(file, names[0], os.fstat(file.fileno()).st_size)
        return
    paths, names = [path for path, _ in kept], [name for _, name in kept]
    name = shards.judge_names(names)
    joined = folder / "set"
    parts = shards.join(paths, names, joined)
    with joined.open("rb") as file:
        yield Source(file, name, sum(parts), tuple(parts))


def _id(source: Source, model: str, expected: Expected | None) -> str:
    digest = hashlib.sha256(model.encode() + b"\0")
    if expected is not None and model != ONNX:
        digest.update(json.dumps(expected.to_json(), sort_keys=True).encode() + b"\0")
    source.file.seek(0)
    while piece := source.file.read(1 << 20):
        digest.update(piece)
    return digest.hexdigest()[:16]


def _ask(source: Source, folder: Path, question: dict[str, Any]) -> dict[str, Any]:
    """The reading process's answer, for a file whose first bytes are those of weights."""
    with guard.guarded(source.name):
        guard.kind(source.file, source.length)
    return sandbox.ask(source.file, source.name, folder, {**question, "parts": source.parts})


def _raise_refusal(answer: dict[str, Any]) -> None:
    if answer.get("refusal") and answer.get("fits"):
        raise FitsAnother(str(answer["refusal"]), [str(name) for name in answer["fits"]])
    if answer.get("refusal"):
        raise FileRefused(str(answer["refusal"]))


# ---------------------------------------------------------------- keeping


def _folder(workspace: Path | None) -> Path:
    return (workspace or default_workspace()) / "uploads"


def _load(folder: Path) -> Upload | None:
    """The upload in a folder, None where there is none that is whole."""
    try:
        about = json.loads((folder / ABOUT).read_bytes())
        upload = Upload(**{**about, "notes": tuple(about["notes"])})
    except (OSError, ValueError, TypeError, KeyError):
        return None
    valid = upload.rules == RULES and upload.id == folder.name and (folder / WEIGHTS).is_file()
    return upload if valid else None


def _upload(
    id: str, model: str, answer: dict[str, Any], name: str, weights: Path, wanted: Shapes
) -> Upload:
    """What is known of `weights`, which our own process wrote."""
    length = weights.stat().st_size
    with weights.open("rb") as file:
        # Judged again by the same reader: the process had an untrusted file in its memory.
        entries = safe.contents(file, length).entries
        if {entry.name: entry.shape for entry in entries} != wanted:
            raise ValueError("what was written is not what was asked for")
        file.seek(0)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return Upload(
        id=id,
        architecture=model,
        name=name,
        format=answer["format"],
        tensors=len(entries),
        numbers=sum(entry.numbers for entry in entries),
        bytes=length,
        notes=tuple(answer["notes"]),
        accepted=time.time(),
        digest=digest,
        classes=answer["classes"],
    )


def _keep(folder: Path, upload: Upload) -> Upload:
    """Puts a finished folder in its place, whole or not at all."""
    for file in folder.iterdir():
        if file.name != WEIGHTS:
            file.unlink()
    with (folder / ABOUT).open("w") as about:
        json.dump(asdict(upload), about)
        about.flush()
        os.fsync(about.fileno())
    place = folder.parent / upload.id
    if put_in_place(folder, place):  # of what `_load` refuses, if anything
        return upload
    return _load(place) or upload


@contextmanager
def _scratch(workspace: Path | None, name: str) -> Iterator[Path]:
    """A folder beside the uploads for one reading, removed afterwards unless it was renamed."""
    base = _folder(workspace)
    with guard.guarded(name):
        base.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=_prefix(READING), dir=base))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
