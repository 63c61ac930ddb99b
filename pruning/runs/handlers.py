"""What a worker does for each kind of job: a pruning run, or a study. Imports torch."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import torch
from safetensors.torch import save_model
from torch import nn

from pruning import studies
from pruning.devices import on_cpu, on_device
from pruning.errors import DataError, DiskFull, OutOfRange, PruningError, Stopped
from pruning.events import Certificate, Event, Finished, Halted, Notice
from pruning.measurement import Snapshot, classes_predicted
from pruning.metrics import Histogram, bin_counts, bin_edges
from pruning.pipeline import machine, run
from pruning.prepare import plain
from pruning.recipe import Recipe
from pruning.recorded import check
from pruning.runs import checkpoints, server_device
from pruning.runs.map_study import measure_map
from pruning.runs.memory_limit import limited_memory, study_memory
from pruning.runs.resolve import recipe_of, resolve
from pruning.runs.results import (
    Answers,
    load_run,
    save_answers,
    save_histograms,
    save_masks,
    save_result,
    save_study,
)
from pruning.runs.store import Fenced, Job, Store, reason
from pruning.runs.take_home import COMPACT, take_home
from pruning.selection import choose
from pruning.sensitivity_map.sensitivity import sensitivity
from pruning.storage import whole, write_json
from pruning.studies.alternatives import alternatives
from pruning.training.checkpoint import Checkpoint
from pruning.types import Batches, Masks, Workpiece, prunable

Stop = Callable[[], bool]

T = TypeVar("T")

ROOM = 60.0
"""Seconds that work waits for room on a full disk before it fails: what it has is worth more."""


def do(store: Store, job: Job, stop: Stop) -> None:
    """Do the job and end it as finished. Raises what went wrong; Stopped once `stop()` is true."""
    torch.set_num_threads(_threads(job.spec))
    if job.kind == "run":
        _run(store, job, stop)
    else:
        STUDIES.get(job.spec.get("what"), _study)(store, job, stop)


def _run(store: Store, job: Job, stop: Stop) -> None:
    """Prune as the recipe says, and append the run's events to the store."""
    recipe = recipe_of(job.spec)
    check(recipe)
    # First of all: a page that looks at the run is to go on with its curves at once.
    checkpoint, reached = _go_on(store, job)
    work, missing = _with_data(store, job, recipe.model)
    work = on_device(work, server_device.name())

    def keep(model: nn.Module, masks: Masks) -> None:
        # Raises Fenced: files of a job that was given up are not touched.
        if not store.stopping(job) and stop():
            raise Stopped("This process has to end: another one resumes from the checkpoint.")
        before = on_cpu(work.reference.model)
        when_there_is_room(partial(save, job, before, model, masks))

    def keep_compact(model: nn.Module, certificate: Certificate) -> None:
        store.stopping(job)
        when_there_is_room(partial(save_compact, job, model, certificate))

    def keep_answers(dense: Snapshot, final: Snapshot) -> None:
        answers = answers_of(dense, final)
        if answers is not None:
            store.stopping(job)
            when_there_is_room(partial(save_answers, job.folder, answers))

    def record(event: Event) -> None:
        if isinstance(event, Finished):
            # The files come first, then the row that says they are there.
            save_result(job.folder, event)
            store.finish(job, "finished", event=event)
        elif isinstance(event, Halted):
            _halt(store, job, event)
        else:
            writer.event = store.append(job, event)

    def save_checkpoint(checkpoint: Checkpoint) -> None:
        if writer.due():
            store.stopping(job)
            file = writer.write(checkpoint)
            try:
                store.stopping(job)
            except Fenced:
                # Given up while it was written: who ended the job could not delete it.
                if file is not None:
                    file.unlink(missing_ok=True)
                raise

    writer = checkpoints.Writer(job.folder, job.attempt, reached)
    events = run(
        recipe,
        work,
        stop=stop,
        keep=keep,
        keep_compact=keep_compact,
        keep_answers=keep_answers,
        cache=store.workspace / "maps",
        save=save_checkpoint,
        resume=checkpoint,
    )
    try:
        for event in events:
            when_there_is_room(partial(record, event))
    except DataError as error:
        # Why there is no data says more than that there is none.
        raise (missing or error) from None


def _go_on(store: Store, job: Job) -> tuple[Checkpoint | None, int]:
    """The checkpoint that this attempt goes on from, and how many events it begins with.

    None: it begins at the beginning.
    """
    saved = checkpoints.newest(job.folder)
    events = 0
    if saved is not None:
        store.carry_over(job, saved.attempt, saved.event)
        events = saved.event
    if job.message:  # why the attempt before this one ended
        why = reason(job.message)
        began = "Began anew" if saved is None else f"Resumed from {_where(saved.checkpoint)}"
        events = store.append(job, Notice(f"{began} after {why}."))
    return saved.checkpoint if saved else None, events


def _where(checkpoint: Checkpoint) -> str:
    """`epoch 3 of step 2`: the last whole epoch, or the step that was pruned."""
    training = checkpoint.training
    if training is None:
        return f"step {checkpoint.step}"
    if checkpoint.step == 0:
        return f"epoch {training.epoch}"
    return f"epoch {training.epoch} of step {checkpoint.step}"


def when_there_is_room(action: Callable[[], T]) -> T:
    """Do it; where the disk is full, again and again for a while. Raises DiskFull after that.

    A run of an hour must not end because of a minute in which somebody else filled the disk.
    """
    until = time.monotonic() + ROOM
    while True:
        try:
            return action()
        except DiskFull:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


def _halt(store: Store, job: Job, event: Halted) -> None:
    """End a run that was stopped, with what it had reached."""
    # Not asked to stop: this process has to end, and the run failed with it.
    if not store.stopping(job):
        raise Stopped("Stopped.")
    if event.result is not None:
        save_result(job.folder, event.result)
    store.finish(job, "stopped", f"Stopped {event.where}.", event)


def _with_data(store: Store, job: Job, model: str) -> tuple[Workpiece, DataError | None]:
    """The model with its data, downloaded if need be; else without data, and why it is missing."""

    def progress(what: str, done: int, of: int) -> None:
        store.append(job, Notice(f"Downloading {what} ({done} of {of} done)."))

    try:
        return resolve(model, store.workspace, progress=progress), None
    except DataError as error:
        # No failure yet: some recipes need no data.
        store.append(job, Notice(str(error)))
        return resolve(model, store.workspace, fetch=False), error


def _study(store: Store, job: Job, stop: Stop) -> None:
    work = resolve(job.spec["model"], store.workspace, fetch=False)
    finished = partial(finished_run, store)
    with limited_memory(study_memory()):
        data, arrays = studies.make(job.spec, work, finished, store.workspace / "maps")
    if stop():
        raise Stopped("Stopped.")
    when_there_is_room(partial(save_study, job.folder, data, arrays))
    store.finish(job, "finished")


def _map(store: Store, job: Job, stop: Stop) -> None:
    with limited_memory(study_memory()):
        measure_map(store, job, stop)


def _take_home(store: Store, job: Job, stop: Stop) -> None:
    with limited_memory(study_memory()):
        data = when_there_is_room(partial(take_home, store, job.spec, job.folder))
    when_there_is_room(partial(save_study, job.folder, data, {}))
    store.finish(job, "finished")


def _alternatives(store: Store, job: Job, stop: Stop) -> None:
    """It trains for minutes, and is asked whether to stop on the way."""
    work = resolve(job.spec["model"], store.workspace)
    data, arrays = alternatives(job.spec, work, stop)
    data = {"what": "alternatives", "model": job.spec["model"], "machine": machine(), **data}
    when_there_is_room(partial(save_study, job.folder, data, arrays))
    store.finish(job, "finished")


STUDIES: dict[str | None, Callable[[Store, Job, Stop], None]] = {
    "map": _map,
    "take_home": _take_home,
    "alternatives": _alternatives,
}
"""Studies that write files or events of their own as they go; `studies.kinds` has the others."""


def finished_run(store: Store, id: str) -> tuple[Workpiece, Masks | None]:
    """The model that a run ended with, and its masks where it left a compact model too."""
    final = resolve(f"run:{id}", store.workspace, fetch=False)
    folder = store.folder(id)
    if not (folder / COMPACT).is_file():
        return final, None
    masks = load_run(folder).masks()
    return final, {name: torch.from_numpy(keep) for name, keep in masks.items()}


def warm_up(*, train: bool) -> None:
    """Do a small job for nobody, so that the first real one finds everything imported."""
    import sample_models

    torch.set_num_threads(1)
    # Without data, or without shipped weights, the first job says so.
    with suppress(PruningError):
        resolve(sample_models.names()[0])
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(8, 4, generator=generator)
    data = Batches(x, torch.tensor([0, 1] * 4), batch=4)
    work = Workpiece(
        "warm-up", nn.Linear(4, 2), train=data, validation=data, test=data, example=x[:1]
    )
    recipe = Recipe(criterion="taylor", epochs=1)
    if train:
        list(run(recipe, work))  # importing the optimizers alone takes seconds
    else:
        choose(recipe, work)
    for tier in ("estimate", "exact"):
        list(sensitivity(work, levels=(0.5,), tier=tier, keep=None))


def save(job: Job, dense: nn.Module, final: nn.Module, masks: Masks) -> None:
    """The weights a run ended with, its masks, and histograms of both models."""
    with whole(job.folder / "final.safetensors") as draft:
        save_model(final, str(draft), metadata={"format": "pt"})
    save_masks(job.folder, {name: keep.numpy() for name, keep in masks.items()})
    # The dense model with plain weights, as the run pruned it: parametrised ones are no parameters.
    before = prunable(plain(dense))
    histograms = {
        name: _histogram(before[name], weight, masks.get(name))
        for name, weight in prunable(final).items()
    }
    save_histograms(job.folder, histograms)


def answers_of(dense: Snapshot, final: Snapshot) -> Answers | None:
    """Both models' answers to the test examples; None where answers are no classes."""
    test, metric = final.work.test, final.work.metric
    before = classes_predicted(dense.logits, test, metric)
    after = classes_predicted(final.logits, test, metric)
    if test is None or before is None or after is None:
        return None
    return Answers(test.y.cpu().numpy(), before.numpy(), after.numpy())


def save_compact(job: Job, model: nn.Module, certificate: Certificate) -> None:
    """The compact model's weights, under the masked one's names, and their certificate."""
    # Shapes follow from the masks beside them: shrinking again makes the module to load into.
    with whole(job.folder / COMPACT) as draft:
        save_model(model, str(draft), metadata={"format": "pt"})
    write_json(job.folder / "certificate.json", certificate.to_dict())


def _histogram(before: torch.Tensor, after: torch.Tensor, keep: torch.Tensor | None) -> Histogram:
    dense = before.detach().float().numpy()
    kept = after.detach() if keep is None else after.detach()[keep]
    final = kept.float().numpy()
    edges = bin_edges(dense, final)
    return Histogram(edges, bin_counts(dense, edges), bin_counts(final, edges))


def _threads(spec: dict[str, Any]) -> int:
    """How many threads torch may use."""
    # One unless more is asked for: two runs at once then give the numbers that each gives alone.
    threads = spec.get("threads", 1)
    most = os.cpu_count() or 1
    # True is an int in Python, and no number of threads.
    if not isinstance(threads, int) or isinstance(threads, bool) or not 1 <= threads <= most:
        allowed = f"a whole number from 1 to {most}, the processor's cores"
        raise OutOfRange("threads", threads, allowed)
    return threads
