"""What a run needs on a machine that does not see this workspace: files by content, and rows.

Each file has a place: below the workspace as it is here, in a folder of downloaded data (`data/`),
or among torch's downloaded weights (`hub/`). Its digest is its name on the way, so that no worker
gets the same bytes twice. No torch.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path

import sample_models
from pruning.errors import RecipeError
from pruning.formats import datasets
from pruning.runs import cache_keys, own_models
from pruning.runs.checkpoint_files import newest_whole, numbers
from pruning.runs.resolve import describe, recipe_of, split
from pruning.runs.store import Job, Recorded, Store
from sample_models.catalogue import FOLDERS

RESULTS = ("result.json", "final.safetensors", "masks.npz")
"""Of a run that another one begins from."""

OWN = (
    "{model} is a model of somebody's own, whose files stay on this machine: run it with --engine "
    "local, or bring its weights as a file."
)


@dataclass(frozen=True)
class Parcel:
    """A run on its way to another machine.

    job: as it works here; files: place -> digest; results: runs that its model begins from;
    attempt, records: of the checkpoint among the files, and the events behind it.
    """

    job: Job
    files: dict[str, str]
    results: list[Job] = field(default_factory=list)
    attempt: int = 0
    records: list[Recorded] = field(default_factory=list)


@dataclass(frozen=True)
class Packed:
    """A parcel, and where its files lie here: digest -> path."""

    parcel: Parcel
    paths: dict[str, Path]


def pack(store: Store, job: Job) -> Packed:
    """Raises RecipeError for a model that stays here, and what looking for its files raises."""
    paths: dict[str, Path] = {}
    results: list[Job] = []
    for place, what in _needs(store, str(job.spec.get("model", ""))):
        if isinstance(what, Job):
            results.append(what)
        else:
            paths[place] = what
    checkpoint = newest_whole(job.folder)
    attempt, records = 0, []
    if checkpoint is not None:
        attempt, last = numbers(checkpoint)
        records = store.hand_out(job, attempt, last)
        paths[_within(checkpoint, store.workspace)] = checkpoint
    digests = {place: digest(path) for place, path in paths.items()}
    parcel = Parcel(job, digests, results, attempt, records)
    return Packed(parcel, {digests[place]: path for place, path in paths.items()})


def _needs(store: Store, model: str) -> Iterator[tuple[str, Path | Job]]:
    """(place, file) of all that a model is made of, and ("", run) of runs that it begins from."""
    own, data = datasets.parted(model)
    workspace = store.workspace
    if data is not None:
        known = datasets.get(data, workspace)
        for id in {data, known.arrays}:
            yield from _folder(workspace / "datasets" / id, workspace)
    kind, id = split(own)
    if own_models.is_own(own):
        raise RecipeError(OWN.format(model=own))
    if kind == "run":
        job = store.job(id)
        for name in RESULTS:
            file = job.folder / name
            if file.is_file():
                yield _within(file, workspace), file
        yield "", job
        yield from _needs(store, recipe_of(job.spec).model)
    elif kind == "upload":
        yield from _folder(workspace / "uploads" / id, workspace)
        architecture = str(describe(own, workspace)["architecture"])
        if own_models.is_own(architecture):
            raise RecipeError(OWN.format(model=architecture))
        yield from _needs(store, architecture) if _is_model(architecture) else ()
    elif kind == "torchvision":
        for file in cache_keys.hub().glob(f"{id}-*") if id.isidentifier() else ():
            yield f"hub/{file.name}", file
    elif own in sample_models.names() and sample_models.card(own).data in FOLDERS:
        yield from _downloaded(FOLDERS[sample_models.card(own).data])


def _is_model(architecture: str) -> bool:
    """Whether it is a name by itself: of a network that came as ONNX the file has it all."""
    return ":" in architecture or architecture in sample_models.names()


def _downloaded(name: str) -> Iterator[tuple[str, Path]]:
    """The files of a data set that was downloaded; none where it was not: the worker fetches it."""
    for root in cache_keys.data_folders():
        files = sorted((root / name / "raw").glob("*-ubyte"))
        if files:
            yield from ((f"data/{name}/raw/{file.name}", file) for file in files)
            return


def _folder(folder: Path, workspace: Path) -> Iterator[tuple[str, Path]]:
    for file in sorted(folder.glob("*")):
        if file.is_file() and not file.name.startswith("."):
            yield _within(file, workspace), file


def _within(file: Path, workspace: Path) -> str:
    return file.relative_to(workspace).as_posix()


def digest(file: Path) -> str:
    """Of its content; what has not changed is not read again."""
    state = file.stat()
    return _digest(file, state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=4096)
def _digest(file: Path, size: int, changed: int) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def here(job: Job, workspace: Path) -> Job:
    """A job of a parcel as it is in this workspace."""
    return replace(job, folder=workspace / "jobs" / job.id)
