"""What a finished run is taken home as, made when somebody asks: the files of `pruning.export`."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from pruning.errors import RecipeError
from pruning.export import bundle
from pruning.export.result import Result
from pruning.formats import datasets
from pruning.formats.uploads import ONNX
from pruning.measurement import measure
from pruning.prepare import plain, ready
from pruning.runs.records import record_of
from pruning.runs.resolve import recipe_of, resolve, split, upload_architecture
from pruning.runs.results import load_run
from pruning.runs.store import Store
from pruning.types import Workpiece

FILES = "files"
"""The folder of a job that holds what was made."""

COMPACT = "slim.safetensors"
"""The compact model's weights in a run's folder, under the name that stored runs have them by."""


def result_of(store: Store, id: str) -> Result:
    """A run that ended with a model, and all that is known of it.

    Raises RecipeError for a run that has none, or what loading its model raises.
    """
    model = f"run:{id}"
    work = resolve(model, store.workspace, fetch=False)
    job = store.job(id)
    files = load_run(job.folder)
    recipe = recipe_of(job.spec)
    masks = {name: torch.from_numpy(keep) for name, keep in files.masks().items()}
    kind, _ = split(recipe.model)
    start, base = None, ""
    # Of others the name is enough: it gives the same weights wherever the workbench is.
    if kind in ("upload", "run"):
        start = resolve(recipe.model, store.workspace, fetch=False)
        base = base_of(recipe.model, store)
        if base and not _same_shapes(base, start):
            base = ""
    return Result(
        **vars(record_of(store, id)),
        work=work,
        # What is pruned in part has no compact model: its zeros stay.
        masks=masks if (job.folder / COMPACT).is_file() else {},
        start=start,
        base=base,
    )


def base_of(model: str, store: Store) -> str:
    """A name that gives an upload's or a run's architecture and data in any workspace.

    "" where there is none: of data and of networks that somebody brought.
    """
    own, data = datasets.parted(model)
    kind, id = split(own)
    if data is not None:
        return ""
    if kind == "run":
        return base_of(recipe_of(store.job(id).spec).model, store)
    if kind == "upload":
        architecture = upload_architecture(id, store.workspace)
        return "" if architecture == ONNX else base_of(architecture, store)
    return model if kind in ("sample", "torchvision") else ""


def _same_shapes(base: str, start: Workpiece) -> bool:
    """Whether weights fit the architecture of that name: a new head has other classes."""
    shapes = [
        {name: value.shape for name, value in model.state_dict().items()}
        for model in (plain(resolve(base, fetch=False).model), plain(start.model))
    ]
    return shapes[0] == shapes[1]


def take_home(store: Store, spec: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Write the files of the run `spec["run"]` into a study's folder.

    json: run, files (name -> bytes), notes.
    """
    contents = bundle.write(result_of(store, spec["run"]), folder / FILES)
    return {**spec, "files": contents.files, "notes": contents.notes}


def find_run(store: Store, text: str) -> str:
    """The id of the run that a text begins, as the page shows ids. Raises RecipeError."""
    ids = [job.id for job in store.jobs("run", limit=100_000) if text and job.id.startswith(text)]
    if len(ids) == 1:
        return ids[0]
    if not ids:
        raise RecipeError(
            f"There is neither a file nor a run called {text!r} in {store.workspace}: give a "
            "weights file, or the id at the start of a run's name on its page."
        )
    raise RecipeError(f"{text!r} begins the ids of {len(ids)} runs: give more of it.")


def of_weights(work: Workpiece, name: str) -> Result:
    """Weights of a file in their architecture, with what can be measured of them."""
    model = plain(work.model)
    zeros = {n: p.detach() != 0 for n, p in model.named_parameters()}
    prepared = ready(replace(work, model=model))
    return Result(
        name=name,
        work=replace(work, model=model),
        masks=zeros,
        measured=measure(prepared),
        date=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    )
