"""What pages say while they wait: this machine's own times, a bar, the place in the queue."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from pages import opened, texts

import pruning
from dashboard import waits
from dashboard.views import _frame
from pruning.events import Epoch, Halting, Measured, Pruned
from pruning.recipe import Recipe
from pruning.runs import pool
from pruning.runs.store import Store
from pruning.runs.waits import Expected, Wait
from tests.test_runs_waits import timed
from tests.toys import toy

DASHBOARD = Path(__file__).parents[1] / "dashboard"
FORTY = Expected(40.0, 30.0, 70.0, 3, True)


@pytest.mark.parametrize(
    "wait, said, bar",
    [
        (Wait(FORTY, 12.0), "about 40 s, 12 s done", 0.3),
        (
            Wait(FORTY, 60.0),
            "longer than before on this machine: 1 min 0 s so far, 40 s then",
            0.97,
        ),
        (Wait(None, 3.0), "not timed on this machine yet, 3.0 s done", None),
        (
            Wait(Expected(2.0, 1.0, 70.0, 9, False), 3.0),
            "not timed on this machine yet for this model; others took 1.0 s to 1 min 10 s, "
            "3.0 s done",
            None,
        ),
        (
            Wait(FORTY, place=1, begins=25.0),
            "next in the queue, its turn in about 25 s; then about 40 s",
            None,
        ),
        (
            Wait(None, place=3, begins=None),
            "number 3 in the queue, waiting time not timed on this machine yet; then not timed on "
            "this machine yet",
            None,
        ),
    ],
)
def test_a_wait_in_words(wait: Wait, said: str, bar: float | None) -> None:
    assert waits.in_words(wait) == said
    assert waits.share_done(wait) == (None if bar is None else pytest.approx(bar))


def test_no_page_promises_a_time_that_was_not_measured() -> None:
    promise = re.compile(r"usually[^\"]{0,40}(second|minute)|takes a (second|minute)", re.I)
    promising = [
        f"{file.name}: {line.strip()}"
        for file in DASHBOARD.rglob("*.py")
        for line in file.read_text(encoding="utf-8").splitlines()
        if promise.search(line)
    ]
    assert not promising


@pytest.fixture
def no_pool(home, monkeypatch):
    monkeypatch.setattr(pool, "ensure", lambda *_: False)


def test_a_page_waits_with_the_time_of_this_machine(no_pool) -> None:
    model = "digits-depthwise"
    # An earlier study of the same kind and model, under another key.
    timed(Store(), "study", {"what": "card", "model": model, "earlier": 1}, 70.0)
    recipe = Recipe(model=model)
    from dashboard import state

    page = opened("model", r=state.encode(recipe))
    assert not page.exception
    assert "about 1 min 10 s" in texts(page).replace("\\", "")


def test_a_queued_run_says_its_place(no_pool, monkeypatch) -> None:
    from dashboard import jobs

    monkeypatch.setattr(jobs, "SLOTS", 1)
    store = Store()
    opened("model")  # an empty workspace is given the example
    spec = Recipe(model="digits-mlp", epochs=2).to_dict()
    timed(store, "run", spec, 100.0)
    first, second = (store.submit("run", spec) for _ in range(2))
    while (job := store.claim(queues=("run",))) is not None and job.id != first:
        store.finish(job, "stopped")
    page = opened("prune", run=second)
    text = texts(page).replace("\\", "")
    assert not page.exception
    assert re.search(r"next in the queue, its turn in about (1 min 40|9\d|1 min 3\d)", text)


def test_a_run_says_what_it_does_from_its_first_to_its_last_event() -> None:
    """A large model was `running` without a word while it was measured, and at its end `about 0 s`
    stood for as long as timing takes.
    """
    recipe = Recipe(sparsity=0.5, epochs=2)
    events = list(pruning.run(recipe, toy("mlp")))
    said = [_frame._reached(events[:count]) for count in range(len(events) + 1)]
    assert all(said)
    first = next(i for i, event in enumerate(events) if isinstance(event, Measured))
    assert all(parts == ["measuring the dense model"] for parts in said[: first + 1])
    last = max(i for i, event in enumerate(events) if isinstance(event, Epoch))
    for parts in said[last + 1 :]:
        assert parts == ["step 1 of 1", "trained; measuring and timing the result"]
    untrained = list(pruning.run(Recipe(sparsity=0.5), toy("mlp")))
    pruned = next(i for i, event in enumerate(untrained) if isinstance(event, Pruned))
    assert _frame._reached(untrained[: pruned + 1]) == [
        "step 1 of 1",
        "measuring and timing the result",
    ]


def test_a_run_that_was_asked_to_stop_says_so_until_it_has_ended(home: Path) -> None:
    store = Store()
    id = store.submit("run", Recipe(model="tiny", epochs=4).to_dict())
    job = store.claim()
    assert job is not None
    store.append(job, Epoch(1, 1, 4, 0.1, None, None, 0.5, 0.02, 1.0))
    assert _frame.progress(store.job(id)).startswith("running")
    store.stop(id)
    assert _frame.progress(store.job(id)) == "stopping with the batch that is under way"
    store.append(job, Halting(1, 1, 1, 4))
    assert _frame.progress(store.job(id)).startswith("stopped after epoch 1 of 4; measuring")
