"""A link starts nothing costly, and no study runs without end: press, budget, making way."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
import torch

from dashboard import jobs, state, tables
from pruning import registry, studies
from pruning.analysis import criterion_check as check
from pruning.errors import RunError
from pruning.events import Halted
from pruning.recipe import Recipe
from pruning.runs import handlers, pool, shipped, supervisor, waits
from pruning.runs.memory_limit import limited_memory
from pruning.runs.store import UNWATCHED, Job, Store
from pruning.runs.supervisor import WorkerPool
from pruning.sensitivity_map import estimate, sensitivity
from pruning.training import reconstruct
from tests.pages import opened, settle, settled, texts

COSTLY = Recipe(model="digits-cnn", criterion="hutchinson", options={"probes": 1000})
CARD = {"what": "card", "model": "digits-cnn"}


@pytest.fixture(autouse=True)
def no_pool(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "ensure", lambda *_: False)
    jobs._pressed.clear()


@pytest.fixture
def store(home: Path) -> Store:
    return Store()


def waiting(what: str) -> list[Job]:
    return [job for job in Store().jobs("study", ("queued",)) if job.spec["what"] == what]


# ---------------------------------------------------------------- how long it takes


def test_every_criterion_says_how_many_gradients_it_takes() -> None:
    for name, entry in registry.entries("criterion").items():
        factor, *options = entry.tags.get("gradients", (0,))
        assert set(options) <= {option.name for option in entry.options}, name
        if entry.tags.get("needs") == "data":
            assert factor > 0, f"{name} looks at data: tag it with gradients"
    assert registry.gradients("criterion", "hutchinson", {"probes": 1000}) == 1000 * 1536
    assert registry.gradients("criterion", "movement", {"steps": 10}) == 10 * 64
    assert registry.gradients("criterion", "magnitude", {}) == 0
    measured = {"criterion": "magnitude", "scope": "by_sensitivity"}
    assert waits.gradients(measured) == registry.gradients("scope", "by_sensitivity", {}) > 0


def test_a_few_probes_say_how_long_a_thousand_take(store: Store) -> None:
    spec = tables.scores_spec(Recipe(model="digits-cnn", criterion="hutchinson"))
    few = {"what": "scores", **spec, "options": {"probes": 2}}
    assert waits.study_seconds(store, {"what": "scores", "model": "m"}, waits.Size()) is None
    size = waits.Size(macs=10**6)
    by_gradients = waits.study_seconds(store, few, size)
    assert by_gradients == pytest.approx(2 * 1536 * (waits.GRADIENT + 6e6 / waits.FLOPS))
    store.submit("study", few)
    job = store.claim()
    assert job is not None
    store.finish(job, "finished")
    took = waits.study_seconds(store, few, size)
    assert took is not None and took < 5
    many = waits.study_seconds(store, {**few, "options": {"probes": 1000}}, size)
    assert many == pytest.approx(500 * took)


def test_what_is_estimated_counts_as_the_engine_does() -> None:
    """The estimates know no torch, so that they repeat some of its numbers."""
    assert (waits.CHECKED, waits.CHECK_UNITS) == (check.EXAMPLES, check.UNITS)
    assert (waits.ESTIMATED, waits.REPAIRED) == (estimate.EXAMPLES, sensitivity.REPAIRED)
    assert len(sensitivity.LEVELS) == waits.MAP_LEVELS
    assert reconstruct.EXAMPLES == waits.FITTED


# ---------------------------------------------------------------- a press


@pytest.mark.parametrize("view", ["prune", "inspect", "sensitivity"])
def test_what_takes_long_waits_for_a_press(view: str) -> None:
    page = opened(view, r=state.encode(COSTLY))
    assert not page.exception and "part of the page failed" not in texts(page)
    assert waiting("scores") == [] and waiting("map") == []
    assert "Scoring units by Hutchinson takes about" in texts(page)
    page.button(key=next(b.key for b in page.button if b.label == "Start")).click().run()
    (scores,) = waiting("scores")
    assert scores.spec["options"] == {"probes": 1000}
    assert "Start" not in [button.label for button in page.button]


HUGE = waits.Size(macs=10**10, parameters=10**9, layers=1000, validation=5000, test=5000)
TRAINED = {"criterion": "taylor", "options": {}}
STARTED = {
    "scores": TRAINED,
    "units": TRAINED,
    "criterion_check": {"layer": "conv1.weight"},
    "map": {**TRAINED, "tier": "progressive"},
    "weights": {},
    "structure": {},
    "pair": {"run": "aa", "other": "bb"},
    "profiles": {"layer": "conv2.weight", "granularity": "channel"},
    "surgery": {"granularity": "channel", "scope": "manual", "removed": {"conv2.weight": [1]}},
}


def test_every_study_says_how_it_starts() -> None:
    """A new one that a page or a link could start must say so, or it is refused."""
    known = {*studies.kinds(), *handlers.STUDIES}
    ways = [set(jobs.WAIT_FOR_A_PRESS), set(jobs.START_IN_ANY_CASE), set(jobs.HAVE_A_BUTTON)]
    assert set().union(*ways) == known and sum(map(len, ways)) == len(known)
    assert set(STARTED) == set(jobs.WAIT_FOR_A_PRESS) <= set(waits.ESTIMATES)
    with pytest.raises(AssertionError, match="Say how a study 'new' starts"):
        jobs.request("new", model="digits-cnn")


@pytest.mark.parametrize("what", jobs.WAIT_FOR_A_PRESS)
def test_every_study_that_a_link_starts_waits_where_it_takes_long(
    what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"model": "digits-cnn", "seed": 1, **STARTED[what]}
    with monkeypatch.context() as patched:
        patched.setattr(jobs, "_size", lambda model: HUGE)
        with pytest.raises(jobs.Costly) as costly:
            jobs.request(what, **spec)
        assert costly.value.doing and waiting(what) == []
        jobs.press({"what": what, **spec})
        assert jobs.request(what, **spec).spec["what"] == what
    # The same of a small model needs no press.
    jobs._pressed.clear()
    jobs.request(what, **spec | {"seed": 2})
    assert len(waiting(what)) == 2


def test_what_may_take_long_waits_for_the_card_that_says_how_long() -> None:
    spec = {"model": "torchvision:resnet18", **TRAINED}
    assert jobs.request("units", **spec).spec["what"] == "card"
    assert waiting("units") == []
    # Ranking by weights alone is fast whatever the model.
    assert jobs.request("units", **spec | {"criterion": "magnitude"}).spec["what"] == "units"


@pytest.mark.parametrize("model", shipped.CARDS)
def test_a_samples_map_starts_by_itself(model: str) -> None:
    spec = {"what": "map", "model": model, "criterion": "magnitude", "options": {}, "tier": "exact"}
    size = jobs._size(model)
    assert 0 < waits.ESTIMATES["map"](spec, size) < jobs.STARTS_BY_ITSELF / 2


def test_a_map_that_takes_long_is_an_estimate_until_somebody_starts_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def long(spec: dict[str, object], size: waits.Size) -> float:
        return 1.0 if spec["tier"] == "estimate" else 70.0

    monkeypatch.setitem(waits.ESTIMATES, "map", long)
    link = state.encode(Recipe(model="digits-mlp"))
    page = settled("sensitivity", r=link)
    assert not page.exception
    assert "Measuring the map takes about 1 min 10 s on this machine" in texts(page)
    (first,) = maps()
    assert first.spec["tier"] == "estimate" and len(jobs.points(first)) == 27
    page.button(key="map-start-magnitude").click().run()
    page = settle(page)
    exact, _ = maps()
    assert (exact.spec["tier"], exact.state) == ("exact", "finished")
    # What was measured is shown, also where nobody of this server pressed.
    jobs._pressed.clear()
    jobs._ids().clear()
    page = settled("sensitivity", r=link)
    assert "Every validation image was asked" in texts(page) and len(maps()) == 2


def maps() -> list[Job]:
    return [job for job in Store().jobs("study") if job.spec["what"] == "map"]


def test_what_is_fast_starts_by_itself() -> None:
    opened("prune", r=state.encode(Recipe(model="digits-cnn", criterion="hutchinson")))
    assert len(waiting("scores")) == 1


def test_a_study_has_a_stop_and_can_be_tried_again() -> None:
    page = opened("prune", r=state.encode(Recipe(model="digits-cnn", criterion="taylor")))
    (scores,) = waiting("scores")
    page.button(key=f"stop-study-{scores.id}").click().run()
    assert Store().job(scores.id).state == "stopped"
    assert waiting("scores") == []  # nothing starts it again by itself
    again = next(button for button in page.button if button.label == "Try again")
    again.click().run()
    assert len(waiting("scores")) == 1


# ---------------------------------------------------------------- no end


def test_a_study_that_takes_too_long_fails_in_a_sentence(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it was begun: else the pool would begin it again."""
    monkeypatch.setattr(supervisor, "STUDY_BUDGET", 100.0)
    study = store.submit("study", CARD)
    long = store.submit("study", {"what": "map", "model": "digits-cnn"}, priority=-1)
    run = store.submit("run", {"model": "digits-cnn"})
    for _ in range(3):
        store.claim(queues=("study", "long", "run"))
    running = store.jobs(states=("running",))
    assert {job.id for job in running} == {study, long, run}
    workers = WorkerPool(store, slots=1)
    workers._note_seen(running)
    workers._end_over_budget(running)
    assert store.job(study).state == "running"
    later = time.monotonic() + 101.0
    monkeypatch.setattr(time, "monotonic", lambda: later)
    workers._end_over_budget(running)
    ended = store.job(study)
    assert ended.state == "failed" and "longer than the 2 minutes" in str(ended.message)
    # Runs may take as long as they need; maps, whose cells are kept, take longer.
    assert {store.job(id).state for id in (long, run)} == {"running"}


def test_what_nobody_looks_at_makes_way(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    left, looked_at = (store.submit("study", {**CARD, "seed": seed}) for seed in range(2))
    store.claim(queues=("study",))
    workers = WorkerPool(store, slots=1)

    def tick() -> None:
        workers._end_unwatched(store.jobs(states=("running",)))

    tick()
    assert store.job(left).state == "running"  # requested a moment ago
    later = time.time() + supervisor.UNWATCHED_AFTER + 1
    monkeypatch.setattr(time, "time", lambda: later)
    tick()
    assert store.job(left).state == "running"  # nobody looks at what waits, either
    jobs.states([looked_at])  # as the browser asks while a page waits
    watched = store.job(looked_at)
    assert store.watched(watched) >= watched.submitted
    (watched.folder / "watched").touch()
    os.utime(watched.folder / "watched", (later, later))
    tick()
    ended = store.job(left)
    assert (ended.state, ended.message) == ("stopped", UNWATCHED)
    assert store.job(looked_at).state == "queued"


def test_a_request_that_another_tab_forgets_meanwhile_is_answered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Shared(dict[str, str]):
        """Each look at a key is followed by another tab that takes it away."""

        def __contains__(self, key: object) -> bool:
            there = super().__contains__(key)
            self.pop(str(key), None)
            return there

        def __setitem__(self, key: str, value: str) -> None:
            """Taken away as soon as it was put there."""

    first = jobs.request("structure", model="digits-mlp")
    monkeypatch.setattr(jobs, "_ids", lambda: Shared({jobs._key(first.spec): first.id}))
    assert jobs.request("structure", model="digits-mlp").id == first.id
    monkeypatch.setattr(jobs, "_ids", Shared)
    assert jobs.request("structure", model="digits-cnn").spec["model"] == "digits-cnn"


def test_who_comes_back_to_what_made_way_has_it_again() -> None:
    page = opened("prune", r=state.encode(Recipe(model="digits-cnn", criterion="taylor")))
    (scores,) = waiting("scores")
    assert Store().end(scores, "stopped", UNWATCHED, Halted(0, 0))
    assert not Store().end(scores, "stopped", UNWATCHED, Halted(0, 0))
    page.run()
    (again,) = waiting("scores")
    assert again.id != scores.id


def test_a_study_that_takes_too_much_memory_fails_in_a_sentence() -> None:
    """The process lives, and may take as much as before."""
    message = r"more than the 0\.2 GiB of memory"
    with pytest.raises(RunError, match=message), limited_memory(1 << 28):
        bytearray(1 << 30)
    with pytest.raises(RunError, match=message), limited_memory(1 << 28):
        torch.ones(1 << 28)
    with limited_memory(1 << 28):
        torch.ones(1 << 20)
    with pytest.raises(RuntimeError, match="own"), limited_memory(1 << 28):
        raise RuntimeError("its own")
    assert len(bytearray(1 << 29)) == 1 << 29
