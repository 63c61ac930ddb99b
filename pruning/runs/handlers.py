"""What a worker does for each kind of job. Imports torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any

import torch
from safetensors.torch import save_model
from torch import nn

from pruning import studies
from pruning.errors import DataError, OutOfRange, PruningError, Stopped
from pruning.events import Certificate, Finished, Notice
from pruning.masks import choose
from pruning.metrics import Histogram, bin_counts, bin_edges
from pruning.pipeline import run
from pruning.recipe import Recipe
from pruning.runs import mapping
from pruning.runs.resolve import resolve
from pruning.runs.results import (
    load_run,
    save_histograms,
    save_masks,
    save_result,
    save_study,
)
from pruning.runs.store import Job, Store
from pruning.sensitivity_map.measure import sensitivity
from pruning.storage import whole, write_json
from pruning.types import Batches, Masks, Workpiece, prunable

Stop = Callable[[], bool]


def do(store: Store, job: Job, stop: Stop) -> None:
    """Do the job and end it as finished. Raises what went wrong instead, Stopped when `stop` said so."""
    torch.set_num_threads(_threads(job.spec))
    {"run": _run, "study": _study}[job.kind](store, job, stop)


def _run(store: Store, job: Job, stop: Stop) -> None:
    """Drain the engine into the store. The files come first, then the row that says they are there."""
    recipe = Recipe.from_dict(
        {name: value for name, value in job.spec.items() if name != "threads"}
    )
    work, missing = _bench(store, job, recipe.model)

    def keep(model: nn.Module, masks: Masks) -> None:
        store.stopping(job)  # raises Fenced: files of a job that was given up are not touched
        save(job, work.model, model, masks)

    def keep_compact(model: nn.Module, certificate: Certificate) -> None:
        store.stopping(job)
        save_compact(job, model, certificate)

    try:
        for event in run(recipe, work, stop=stop, keep=keep, keep_compact=keep_compact):
            if isinstance(event, Finished):
                save_result(job.folder, event)
                store.finish(job, "finished", event=event)
                return
            store.append(job, event)
            if stop():
                raise Stopped("Stopped.")
    except DataError as error:  # why there is no data says more than that there is none
        raise (missing or error) from None


def _bench(store: Store, job: Job, model: str) -> tuple[Workpiece, DataError | None]:
    """The model with its data, downloaded if need be; without, and why, when it cannot be had: some recipes need none."""

    def said(what: str, done: int, of: int) -> None:
        store.append(job, Notice(f"Downloading {what} ({done} of {of} done)."))

    try:
        return resolve(model, store.workspace, progress=said), None
    except DataError as error:
        store.append(job, Notice(str(error)))
        return resolve(model, store.workspace, fetch=False), error


def _study(store: Store, job: Job, stop: Stop) -> None:
    if job.spec.get("what") == "map":
        mapping.draw(store, job, stop)
        return
    work = resolve(job.spec["model"], store.workspace, fetch=False)
    finished = partial(finished_run, store, job.spec.get("run", ""))
    data, arrays = studies.make(job.spec, work, finished)
    if stop():
        raise Stopped("Stopped.")
    save_study(job.folder, data, arrays)
    store.finish(job, "finished")


def finished_run(store: Store, id: str) -> tuple[Workpiece, Masks | None]:
    """The model that a run ended with, and its masks where it left a compact model too."""
    final = resolve(f"run:{id}", store.workspace, fetch=False)
    folder = store.folder(id)
    if not (folder / "slim.safetensors").is_file():
        return final, None
    masks = load_run(folder).masks()
    return final, {name: torch.from_numpy(keep) for name, keep in masks.items()}


def rehearse(*, train: bool) -> None:
    """Do a small job for nobody, so that the first real one finds everything imported (the optimizers alone take seconds)."""
    import sample_models

    torch.set_num_threads(1)
    with suppress(PruningError):  # without data, or without shipped weights, the first job says so
        resolve(sample_models.names()[0])
    chance = torch.Generator().manual_seed(0)
    data = Batches(torch.randn(8, 4, generator=chance), torch.tensor([0, 1] * 4), batch=4)
    work = Workpiece(
        "rehearsal", nn.Linear(4, 2), train=data, validation=data, test=data, example=data.x[:1]
    )
    recipe = Recipe(criterion="taylor", epochs=1)
    for _ in run(recipe, work) if train else choose(recipe, work):
        pass
    for tier in ("estimate", "exact"):
        list(sensitivity(work, levels=(0.5,), tier=tier, keep=None))


def save(job: Job, found: nn.Module, final: nn.Module, masks: Masks) -> None:
    """The weights a run ended with, its masks, and histograms of both models. found: the model as it was."""
    with whole(job.folder / "final.safetensors") as draft:
        save_model(final, str(draft), metadata={"format": "pt"})
    save_masks(job.folder, {name: keep.numpy() for name, keep in masks.items()})
    before, after = prunable(found), prunable(final)
    save_histograms(
        job.folder, {name: _histogram(before[name], after[name], masks.get(name)) for name in after}
    )


def save_compact(job: Job, model: nn.Module, certificate: Certificate) -> None:
    """The slim weights, under the names of the masked ones, and their certificate. Shapes follow from the masks beside them."""
    with whole(job.folder / "slim.safetensors") as draft:
        save_model(model, str(draft), metadata={"format": "pt"})
    write_json(job.folder / "certificate.json", certificate.to_dict())


def _histogram(before: torch.Tensor, after: torch.Tensor, keep: torch.Tensor | None) -> Histogram:
    dense = before.detach().float().numpy()
    kept = (after.detach() if keep is None else after.detach()[keep]).float().numpy()
    edges = bin_edges(dense, kept)
    return Histogram(edges, bin_counts(dense, edges), bin_counts(kept, edges))


def _threads(spec: dict[str, Any]) -> int:
    """One, unless the job asks for more: two runs at once then give the numbers that each gives alone."""
    wanted, most = spec.get("threads", 1), os.cpu_count() or 1
    if not isinstance(wanted, int) or isinstance(wanted, bool) or not 1 <= wanted <= most:
        raise OutOfRange(
            "threads", wanted, f"a whole number from 1 to {most}, the processor's cores"
        )
    return wanted
