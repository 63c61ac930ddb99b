"""A stopped run keeps what it had reached: measured, comparable, and to be continued from."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch
from torch import nn

import pruning
from dashboard import words
from dashboard.charts import prune
from dashboard.charts import results as charts
from pruning import Workpiece, measurement
from pruning.errors import RecipeError
from pruning.events import Epoch, Event, Halted, Halting, Measured, Pruned, from_json
from pruning.measurement import quality, remembered
from pruning.recipe import Recipe
from pruning.runs import resolve, results, worker
from pruning.runs.store import Job, Store
from pruning.types import Batches, Masks
from tests.toys import toy


def stopped_after(count: int, recipe: Recipe, work: Workpiece) -> tuple[list[Event], dict]:
    """The events of a run that is stopped after `count` epochs or steps, and what it kept."""
    events: list[Event] = []
    kept: dict[str, object] = {}

    def stop() -> bool:
        unit = Epoch if recipe.epochs else Pruned
        return sum(isinstance(event, unit) for event in events) >= count

    def keep(model: nn.Module, masks: Masks) -> None:
        state = {name: value.clone() for name, value in model.state_dict().items()}
        kept.update(state=state, masks=masks)

    for event in pruning.run(recipe, work, stop=stop, keep=keep):
        events.append(event)
    return events, kept


@pytest.mark.parametrize(
    "fields",
    [
        {"epochs": 3, "steps": 2},
        {"epochs": 3, "granularity": "channel", "finetune_compact": True, "recalibrate": True},
        {"epochs": 0, "steps": 5},
        {"epochs": 0, "steps": 5, "recalibrate": True},
        {"epochs": 3, "start": "random", "rewind": "init", "controls": ("reinit",)},
    ],
)
def test_a_stopped_run_keeps_its_last_whole_epoch_or_step(fields: dict[str, object]) -> None:
    recipe = Recipe(sparsity=0.5, batch=8, **fields)
    work = toy("residual")
    before = {name: value.clone() for name, value in work.model.state_dict().items()}
    events, kept = stopped_after(2, recipe, work)
    halted = events[-1]
    assert isinstance(halted, Halted) and halted.result is not None
    # One step is pruned before the stop is heard where each is one breath: whole ones all the same.
    planned = recipe.epochs * (recipe.steps + (recipe.rewind != "none")) or recipe.steps
    assert halted.done == 2 and halted.planned == planned
    final = halted.result.final
    assert final.paired is not None and final.latency is None and not final.timings
    measured_last = [event for event in events if isinstance(event, Measured)][-1]
    assert (measured_last.stage, measured_last.measurement) == ("final", final)
    state, masks = kept["state"], kept["masks"]
    assert all(not state[name][~keep].any() for name, keep in masks.items())
    # Measured on test data of the very weights that were kept.
    again = copy.deepcopy(work.model)
    again.load_state_dict(state)
    measured = pruning.measure(dataclasses.replace(work, model=again), latency=False)
    assert (measured.accuracy, measured.loss) == (final.accuracy, final.loss)
    assert all(before[name].equal(value) for name, value in work.model.state_dict().items())


def test_the_weights_kept_are_those_of_the_epoch_not_of_the_batch_it_was_stopped_in() -> None:
    recipe = Recipe(sparsity=0.5, epochs=1, batch=4, decay="constant")
    whole: dict[str, object] = {}
    work = toy("mlp")
    list(pruning.run(recipe, work, keep=lambda model, masks: whole.update(model.state_dict())))
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        batches = -(-len(work.train.x) // 4)  # type: ignore[union-attr]
        return asked > batches + 4  # in the second epoch: each batch asks once, the step too

    stopped: dict[str, object] = {}
    longer = dataclasses.replace(recipe, epochs=5)
    events = list(
        pruning.run(
            longer, work, stop=stop, keep=lambda model, masks: stopped.update(model.state_dict())
        )
    )
    assert isinstance(events[-1], Halted) and (events[-1].done, events[-1].planned) == (1, 5)
    assert all(torch.equal(stopped[name], value) for name, value in whole.items())


@pytest.mark.parametrize("compact", [False, True])
def test_after_a_stop_nothing_is_measured_that_is_known(
    compact: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody waits: one pass over the test data, said before it begins, and no other."""
    work = toy("residual")
    passes: list[object] = []
    heard = False

    def counted(model: nn.Module, data: Batches) -> torch.Tensor:
        if heard:
            passes.append(data)
        return logits(model, data)

    logits = quality.logits
    monkeypatch.setattr(quality, "logits", counted)
    monkeypatch.setattr(measurement, "logits", counted)
    monkeypatch.setattr(remembered, "logits", counted)
    recipe = Recipe(granularity="channel", sparsity=0.5, epochs=4, finetune_compact=compact)
    events: list[Event] = []

    def stop() -> bool:
        nonlocal heard
        heard = sum(isinstance(event, Epoch) for event in events) >= 2
        return heard

    for event in pruning.run(recipe, work, stop=stop):
        if isinstance(event, Halting):
            assert not passes, "what is reached is said before anything is measured"
        events.append(event)
    *_, halting, final, halted = events
    assert isinstance(halting, Halting) and isinstance(halted, Halted)
    assert (halting.done, halting.planned, halting.where) == (2, 4, halted.where)
    assert passes == [work.test]
    # What was known is what would be measured.
    epoch = [event for event in events if isinstance(event, Epoch)][-1]
    assert isinstance(final, Measured)
    assert (final.validation, final.validation_loss) == (epoch.accuracy, epoch.loss)
    history = prune.history(events[:-2])
    assert history.seconds is not None
    about = words.seconds(history.seconds)
    assert charts.stopping(history) == (
        f"stopped after epoch 2 of 4; measuring what it reached on test data, about {about}"
    )
    assert charts.stopping(prune.history(events[:-3])).startswith("stopping with the batch")


# ---------------------------------------------------------------- in the store


@pytest.fixture
def tiny_store(home, tiny, monkeypatch):
    """A store whose every model is the tiny one."""
    monkeypatch.setattr("pruning.runs.handlers.resolve", lambda model, place, **ways: tiny)
    monkeypatch.setattr("sample_models.load", lambda name, **ways: tiny)
    return Store()


def attend(store: Store, recipe: Recipe, monkeypatch: pytest.MonkeyPatch, heard) -> Job:
    """The job of a run whose worker asks `heard(epochs so far)` whether to stop, at each batch.

    Without the heartbeat, which looks only twenty times a second: a toy's epoch is shorter.
    """
    job = store.job(store.submit("run", recipe.to_dict()))

    def should_stop(_: worker.Heartbeat) -> bool:
        epochs = sum(isinstance(event, Epoch) for _, event in store.events(job.id))
        return heard(job.id, epochs)

    monkeypatch.setattr(worker.Heartbeat, "should_stop", should_stop)
    assert worker.attend(store, store.claim(), worker.Shutdown())
    return store.job(job.id)


def press_stop_after(store: Store, epochs: int):
    def heard(id: str, done: int) -> bool:
        if done >= epochs:
            store.stop(id)
        return done >= epochs

    return heard


@pytest.fixture
def reason(monkeypatch):
    """What the heartbeat would have found out by looking."""
    record = worker._record

    def recorded(store, job, shutdown, _, error):
        reason = "stop" if store.stopping(job) else "shutdown"
        return record(store, job, shutdown, reason, error)

    monkeypatch.setattr(worker, "_record", recorded)


@pytest.mark.usefixtures("reason")
def test_a_stopped_run_leaves_a_result_to_compare_and_to_continue(
    tiny_store: Store, tiny: Workpiece, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(model="tiny", sparsity=0.5, epochs=10)
    job = attend(tiny_store, recipe, monkeypatch, press_stop_after(tiny_store, 3))
    last = tiny_store.events(job.id)[-1][1]
    assert job.state == "stopped" and isinstance(last, Halted)
    assert (last.done, last.planned) == (3, 10)
    result = results.load_run(job.folder)
    assert result.finished == last.result
    assert result.finished.final.kept == 24 and result.histograms
    work = resolve.resolve(f"run:{job.id}")
    assert sum(int((p == 0).sum()) for n, p in work.model.named_parameters() if "weight" in n) == 24
    assert resolve.describe(f"run:{job.id}")["recipe"]["epochs"] == 10
    measured = pruning.measure(work, latency=False)
    assert measured.accuracy == result.finished.final.accuracy


@pytest.mark.usefixtures("reason")
def test_a_run_that_was_stopped_in_its_first_epoch_keeps_nothing(
    tiny_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(model="tiny", epochs=10)
    job = attend(tiny_store, recipe, monkeypatch, press_stop_after(tiny_store, 0))
    last = tiny_store.events(job.id)[-1][1]
    assert job.state == "stopped" and isinstance(last, Halted)
    assert last.result is None and not results.has_result(job.folder)
    with pytest.raises(RecipeError, match="cancelled"):
        resolve.resolve(f"run:{job.id}")


@pytest.mark.usefixtures("reason")
def test_a_run_whose_worker_has_to_end_is_no_stopped_one(
    tiny_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = Recipe(model="tiny", epochs=10)
    job = attend(tiny_store, recipe, monkeypatch, lambda id, epochs: epochs >= 3)
    assert (job.state, job.message) == ("queued", worker.WORKERS_STOPPED)
    assert not results.has_result(job.folder)


def test_halted_events_of_earlier_versions_still_read() -> None:
    assert from_json('{"event":"halted","step":2,"epoch":3}') == Halted(2, 3)
