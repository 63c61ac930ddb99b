"""Data sets that people brought, read once in a process of its own and kept as plain numbers.

    <workspace>/datasets/<id>/x.bin y.npy part.npy   what writer.py writes
    <workspace>/datasets/<id>/data.json              what it is, and its settings

The id is of the original bytes; with other settings it is another one, whose folder holds only
data.json and names the folder that has the numbers.
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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pruning.errors import FileRefused, RecipeError, shown
from pruning.formats import guard, limits, sandbox
from pruning.formats.datasets.division import Indices, divided
from pruning.formats.datasets.reader_process import MODULE
from pruning.formats.datasets.types import LESS, DataSet, Settings
from pruning.formats.datasets.writer import PART, X, Y
from pruning.formats.types import file_name
from pruning.formats.uploads import READING
from pruning.storage import default_workspace, put_in_place, whole

ABOUT = "data.json"
RULES = 1
"""Raised when what is read changes: older data sets are then read again when they return."""

_ID = re.compile(r"[0-9a-f]{16}")


def accept(
    path: str | Path,
    workspace: Path | None = None,
    filename: str = "",
    settings: Settings | None = None,
    *,
    named: bool = False,
) -> DataSet:
    """Read a file or folder, and keep what was read.

    filename: what its owner calls it, where `path` is a spooled copy; named: whether whoever
    started this process named the path: then folders are read, and far more of them. Raises
    FileRefused in one sentence with the way out.
    """
    path = Path(path)
    name = file_name(filename or path.resolve().name)
    settings = settings or Settings()
    with _source(path, name, named) as (file, source), _scratch(workspace, name) as folder:
        with guard.guarded(name, LESS):
            id = _id(file, source, settings.target)
        base = _load(folder.parent.parent / "datasets" / id)
        if base is None:
            base = _read(file, source, name, folder, id, settings.target, named)
    # Outside of the guard: what is wrong with settings is no fault of the file.
    return adjusted(base.id, settings, workspace)


def get(id: str, workspace: Path | None = None) -> DataSet:
    """What is known of a data set. Raises RecipeError where it is not kept here."""
    # The id may come from an address: only a plain one becomes a path.
    data = _load(_folder(workspace) / id) if _ID.fullmatch(id) else None
    if data is None:
        raise RecipeError(
            f"There is no data set {shown(id)} in this workspace: bring its file again on the "
            "Model page, or name it with --data."
        )
    return data


def kept(workspace: Path | None = None) -> list[DataSet]:
    """All that are kept, the newest first."""
    folders = [folder for folder in _folder(workspace).glob("*") if _ID.fullmatch(folder.name)]
    data_sets = [data for data in map(_load, folders) if data is not None]
    return sorted(data_sets, key=lambda data: data.accepted, reverse=True)


def adjusted(id: str, settings: Settings, workspace: Path | None = None) -> DataSet:
    """The same examples with other settings. Raises RecipeError, OutOfRange, UnknownName."""
    data = get(id, workspace)
    base = get(data.arrays, workspace)
    if settings.target != base.settings.target:
        raise RecipeError(
            "Another column to predict needs the table itself: bring its file again with it."
        )
    if settings == base.settings:
        return base
    digest = hashlib.sha256(json.dumps([base.id, asdict(settings)]).encode())
    other = digest.hexdigest()[:16]
    known = _load(_folder(workspace) / other)
    if known is not None:
        return known
    counts = _counts(_folder(workspace) / base.id, settings)
    changed = replace(base, id=other, counts=counts, accepted=time.time(), settings=settings)
    with whole(_folder(workspace) / other / ABOUT) as draft:
        draft.write_text(_json(changed))
    return changed


# ---------------------------------------------------------------- numbers


def inputs(data: DataSet, workspace: Path | None = None) -> NDArray[Any]:
    """(examples, *shape), mapped from the disk: only what is looked at is read.

    Raises FileRefused where it was changed.
    """
    path = _folder(workspace) / data.arrays / X
    wanted = data.examples * prod(data.shape) * np.dtype(data.dtype).itemsize
    if not path.is_file() or path.stat().st_size != wanted:
        raise FileRefused(
            f"The kept examples of {data.name} have changed on disk: bring the original again."
        )
    return np.memmap(path, data.dtype, "r", shape=(data.examples, *data.shape))


def targets(data: DataSet, workspace: Path | None = None) -> NDArray[Any]:
    """(n,) int64 class indices, or (n, outputs) float32."""
    values: NDArray[Any] = np.load(
        _folder(workspace) / data.arrays / Y, mmap_mode="r", allow_pickle=False
    )
    return values


def split_of(data: DataSet, workspace: Path | None = None) -> tuple[Indices, Indices, Indices]:
    """Indices of train, validation and test."""
    return _split(_folder(workspace) / data.arrays, data.settings)


def examples(
    data: DataSet, most: int, workspace: Path | None = None
) -> tuple[NDArray[Any], list[str]]:
    """Some training examples, one of each class in turn, and what each is.

    (n, high, wide) or (n, high, wide, 3) uint8 of pictures, (n, *shape) of others.
    """
    train, _, _ = split_of(data, workspace)
    wanted = targets(data, workspace)[train]
    order = np.arange(len(train))
    if data.classes:
        turn = np.empty(len(train), np.int64)
        for label in np.unique(wanted):
            members = np.flatnonzero(wanted == label)
            turn[members] = np.arange(len(members))
        order = np.argsort(turn, kind="stable")
    chosen = order[:most]
    values = np.array(inputs(data, workspace)[train[chosen]])
    if data.classes:
        labels = [data.classes[number] for number in wanted[chosen]]
    else:
        labels = [f"{row[0]:g}" for row in wanted[chosen]]
    return (_shown(values) if data.pictures else values), labels


def _shown(values: NDArray[Any]) -> NDArray[np.uint8]:
    """(n, C, H, W) of any range -> (n, H, W) or (n, H, W, 3) uint8."""
    pictures = values if values.shape[1] == 3 else values[:, :1]
    if pictures.dtype != np.uint8:
        low, high = float(pictures.min()), float(pictures.max())
        pictures = ((pictures - low) * (255 / ((high - low) or 1.0))).astype(np.uint8)
    return pictures.transpose(0, 2, 3, 1) if pictures.shape[1] == 3 else pictures[:, 0]


def _split(folder: Path, settings: Settings) -> tuple[Indices, Indices, Indices]:
    parts = folder / PART
    own = np.load(parts, allow_pickle=False) if parts.is_file() else None
    return divided(np.load(folder / Y, allow_pickle=False), own, settings)


def _counts(folder: Path, settings: Settings) -> tuple[int, int, int]:
    train, validation, test = _split(folder, settings)
    if not len(validation) or not len(test):
        raise RecipeError(
            "The split leaves no examples for validation or test: give them larger shares."
        )
    return len(train), len(validation), len(test)


# ---------------------------------------------------------------- reading and keeping


def _folder(workspace: Path | None) -> Path:
    return (workspace or default_workspace()) / "datasets"


def _load(folder: Path) -> DataSet | None:
    """The data set in a folder, None where there is none that is whole."""
    try:
        about = json.loads((folder / ABOUT).read_bytes())
        if about.pop("rules") != RULES:
            return None
        data = DataSet.from_json(about)
    except (OSError, ValueError, TypeError, KeyError):
        return None
    numbers = folder.parent / data.arrays / X
    return data if data.id == folder.name and numbers.is_file() else None


def _json(data: DataSet) -> str:
    return json.dumps({**data.to_json(), "rules": RULES})


@contextmanager
def _source(path: Path, name: str, named: bool) -> Iterator[tuple[BinaryIO | None, Path | None]]:
    """(the open file, None), or (None, the folder). Raises FileRefused."""
    if named and path.is_dir():
        yield None, path.resolve()
        return
    with sandbox.opened(path, name) as file:
        if not named and os.fstat(file.fileno()).st_size > limits.LARGEST:
            raise FileRefused(
                f"{name} is larger than the {limits.LARGEST >> 20:,} MiB that are read: {LESS}."
            )
        yield file, None


def _id(file: BinaryIO | None, source: Path | None, target: str) -> str:
    digest = hashlib.sha256(json.dumps([RULES, target]).encode())
    if source is not None:
        # Names, sizes and times: to read every picture twice would take as long again.
        for place, inner, names in os.walk(source):
            inner.sort()
            for name in sorted(names):
                stat = Path(place, name).lstat()
                inside = os.path.relpath(os.path.join(place, name), source)
                digest.update(f"{inside}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
    if file is not None:
        file.seek(0)
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()[:16]


def _read(
    file: BinaryIO | None,
    source: Path | None,
    name: str,
    folder: Path,
    id: str,
    target: str,
    named: bool,
) -> DataSet:
    _, cpu = limits.NAMED if named else limits.UPLOADED
    question = {"target": target, "named": named, "source": str(source) if source else None}
    (folder / "nothing").touch()
    with (folder / "nothing").open("rb") as nothing:
        answer = sandbox.ask(
            file or nothing, name, folder, question, module=MODULE, wall=2 * cpu, less=LESS
        )
    if answer.get("refusal"):
        raise FileRefused(str(answer["refusal"]))
    with guard.guarded(name, LESS):
        data = _described(answer, folder, id, name, target)
        return _keep(folder, data)
    raise AssertionError("guarded either returns or raises")


def _described(answer: dict[str, Any], folder: Path, id: str, name: str, target: str) -> DataSet:
    """What is known of the numbers, judged again: that process had an untrusted file in memory."""
    shape = tuple(int(size) for size in answer["shape"])
    count, dtype = int(answer["examples"]), str(answer["dtype"])
    classes = tuple(str(label) for label in answer["classes"])
    wanted = np.load(folder / Y, allow_pickle=False)
    numbers = count * prod(shape)
    sizes = {"uint8": numbers, "float32": 4 * numbers}
    whole_y = len(wanted) == count and wanted.dtype == (np.int64 if classes else np.float32)
    if (folder / X).stat().st_size != sizes[dtype] or min(shape) < 1 or not whole_y:
        raise ValueError("what was written is not what was answered")
    if classes and not 0 <= wanted.min() <= wanted.max() < len(classes):
        raise ValueError("classes without names")
    by_class = np.bincount(wanted, minlength=len(classes)).tolist() if classes else ()
    settings = Settings(target=target)
    return DataSet(
        id=id,
        name=name,
        kind=str(answer["kind"]),
        examples=count,
        shape=shape,
        dtype=dtype,
        classes=classes,
        counts=_counts(folder, settings),
        by_class=tuple(by_class),
        notes=tuple(str(note) for note in answer["notes"]),
        divided=(folder / PART).is_file(),
        accepted=time.time(),
        arrays=id,
        settings=settings,
    )


def _keep(folder: Path, data: DataSet) -> DataSet:
    """Puts a finished folder in its place, whole or not at all."""
    for file in folder.iterdir():
        if file.name not in (X, Y, PART):
            file.unlink()
    with (folder / ABOUT).open("w") as about:
        about.write(_json(data))
        about.flush()
        os.fsync(about.fileno())
    place = folder.parent.parent / "datasets" / data.id
    if put_in_place(folder, place):  # of what `_load` refuses, if anything
        return data
    return _load(place) or data


@contextmanager
def _scratch(workspace: Path | None, name: str) -> Iterator[Path]:
    """A folder for one reading, removed afterwards unless it was renamed.

    Beside those of uploads, so that `sweep` finds what a killed process leaves behind.
    """
    base = (workspace or default_workspace()) / "uploads"
    with guard.guarded(name, LESS):
        base.mkdir(parents=True, exist_ok=True)
        prefix = f"{READING}{socket.gethostname()}-{os.getpid()}-"
        folder = Path(tempfile.mkdtemp(prefix=prefix, dir=base))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
