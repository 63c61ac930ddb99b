"""What pages say while they wait: this machine's own times, a bar, the place in the queue."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from pages import awaited, opened, texts, walked_to

import pruning
from dashboard import jobs, middleware, waits
from dashboard.charts import prune
from dashboard.components import base, wait
from dashboard.views import _frame
from pruning.events import Epoch, Halting, Measured, Pruned
from pruning.recipe import Recipe
from pruning.runs import engines, pool
from pruning.runs.store import Store
from pruning.runs.waits import Expected, Wait
from tests.test_runs_waits import timed
from tests.toys import toy

DASHBOARD = Path(__file__).parents[1] / "dashboard"
FORTY = Expected(40.0, 30.0, 70.0, 3, True)


@pytest.mark.parametrize(
    "waiting, said, bar",
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
def test_a_wait_in_words(waiting: Wait, said: str, bar: float | None) -> None:
    assert waits.in_words(waiting) == said
    assert waits.share_done(waiting) == (None if bar is None else pytest.approx(bar))


def test_sentences_of_a_wait_go_on_by_themselves() -> None:
    times = waits.times(Wait(FORTY, 12.0))
    assert times[0] == (0.0, "About 40 s, 12 s done.", pytest.approx(0.3))
    ats = [at for at, *_ in times]
    assert ats == sorted(ats) and ats[:3] == [0, 1, 2] and ats[-1] > 300
    assert len(times) < 25  # sent once, whatever comes of it
    for at, text, share in times:
        then = replace(Wait(FORTY, 12.0), done=12.0 + at)
        assert text[1:] == waits.in_words(then)[1:] + "." and share == waits.share_done(then)
    # One that waits for its turn has one sentence: when that comes, the page is drawn anew.
    assert len(waits.times(Wait(FORTY, place=2, begins=25.0))) == 1
    # Where a worker is free it begins before anybody has read that it will.
    assert waits.times(Wait(FORTY, place=1, begins=0.0))[0][1] == "About 40 s, 0.0 s done."


# ---------------------------------------------------------------- one question, not many looks


def answered(known: dict[str, str], states: Callable[[Iterable[str]], dict[str, str]]) -> int:
    """The status that a page waiting for these jobs is answered with."""
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    async def elsewhere(*_: Any) -> None:
        raise AssertionError("the question went on to the page")

    path, _, query = wait.question(known).partition("?")
    scope = {"type": "http", "path": path, "query_string": query.encode(), "method": "GET"}
    changed = middleware.ChangedMiddleware(elsewhere, states)
    awaited(changed(scope, receive, send))
    return int(sent[0]["status"])


def test_a_question_is_answered_when_a_job_ends(monkeypatch) -> None:
    looks = iter([{"a": "running"}] * 3 + [{"a": "finished"}])
    assert answered({"a": "running"}, lambda _: next(looks)) == 200
    assert next(looks, None) is None


def test_a_job_that_begins_at_once_is_nothing_to_draw_anew(monkeypatch) -> None:
    monkeypatch.setattr(middleware, "FIRST_PAUSE", 0.0)
    looks = iter([{"a": "queued"}, {"a": "running"}, {"a": "running"}, {"a": "failed"}])
    assert answered({"a": "queued"}, lambda _: next(looks)) == 200
    assert next(looks, None) is None
    monkeypatch.setattr(middleware, "SOON", 0.0)  # the page said that it has to wait for its turn
    looks = iter([{"a": "queued"}, {"a": "running"}, {"a": "never asked"}])
    assert answered({"a": "queued"}, lambda _: next(looks)) == 200
    assert next(looks) == {"a": "never asked"}


def test_a_question_nothing_comes_of_is_asked_again(monkeypatch) -> None:
    monkeypatch.setattr(middleware, "PATIENCE", 0.1)
    assert answered({"a": "running", "b": "queued"}, dict.fromkeys) == 200  # other states
    assert answered({"a": "running"}, lambda ids: {"a": "running"}) == 204


def test_a_question_is_read_as_it_was_asked() -> None:
    states = {"ab12": "queued", "cd34": "running"}
    assert wait.asked(parse_qs(wait.question(states).partition("?")[2])[wait.JOBS][0]) == states
    assert wait.asked(",,:x,y,z:") == {"z": ""}
    assert len(wait.asked(",".join(f"{i}:queued" for i in range(10_000)))) == wait.MOST


def test_what_ended_while_the_page_was_made_is_answered_at_once(home) -> None:
    """Else the page would wait for a change that has happened."""
    store = Store()
    id = store.submit("run", Recipe(model="tiny").to_dict())
    job = store.claim(queues=("run",))
    assert job is not None
    store.finish(job, "stopped")
    known = _frame._live([id])
    assert known[id] in jobs.LIVE
    assert answered(known, jobs.states) == 200
    assert jobs.states(["nowhere"]) == {"nowhere": "deleted"}


def test_scripts_of_components_are_served_under_names_that_change_with_them() -> None:
    path = f"{base.PATH}dial-{base.digest('dial')}.js"
    text = base.served(path)
    assert text is not None and "export default" in text and "function element" in text
    for wrong in (
        f"{base.PATH}dial-000000000000.js",
        f"{base.PATH}nothing-{base.digest('dial')}.js",
        f"{base.PATH}../base-x.js",
        "/elsewhere/dial-x.js",
        base.PATH,
    ):
        assert base.served(wrong) is None


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
    model = "mnist-lenet5"  # whose card is not shipped
    # An earlier study of the same kind and model, under another key.
    timed(Store(), "study", {"what": "card", "model": model, "earlier": 1}, 70.0)
    recipe = Recipe(model=model)
    from dashboard import state

    page = opened("model", r=state.encode(recipe))
    assert not page.exception
    assert "About 1 min 10 s" in texts(page).replace("\\", "")


def test_a_queued_run_says_its_place(no_pool, monkeypatch) -> None:
    monkeypatch.setattr(jobs, "slots", lambda: 1)
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


def test_a_queued_run_says_why_its_cluster_begins_nothing(no_pool, monkeypatch) -> None:
    away = "The Dask scheduler at dask://node:8786 does not answer: runs wait."
    cluster = engines.Cluster("dask://node:8786")
    monkeypatch.setenv(engines.VARIABLE, "")
    engines.use(cluster)
    walked_to("model")  # an empty workspace is given the example
    store = Store()
    engines.keep(store.workspace)
    engines.tell(store.workspace, engines.now(cluster, 3, away))
    run = store.submit("run", Recipe(model="digits-mlp", epochs=2).to_dict())
    assert jobs.slots() == 3
    page = walked_to("prune", run=run)
    assert not page.exception
    # Its address is no link, and nothing in it is Markdown.
    warnings = "".join(warning.value for warning in page.warning)
    assert away in warnings.replace("\u2060", "").replace("\\", "")
    store.claim(queues=("run",))
    assert not walked_to("prune", run=run).warning, "it works"


def test_a_run_says_what_it_does_from_its_first_to_its_last_event() -> None:
    """A large model was `running` without a word while it was measured, and at its end `about 0 s`
    stood for as long as timing takes.
    """
    recipe = Recipe(sparsity=0.5, epochs=2)
    events = list(pruning.run(recipe, toy("mlp")))
    said = [_frame._reached(prune.history(events[:count])) for count in range(len(events) + 1)]
    assert all(said)
    first = next(i for i, event in enumerate(events) if isinstance(event, Measured))
    assert all(parts == ["measuring the dense model"] for parts in said[: first + 1])
    last = max(i for i, event in enumerate(events) if isinstance(event, Epoch))
    for parts in said[last + 1 :]:
        assert parts == ["step 1 of 1", "trained; measuring and timing the result"]
    untrained = list(pruning.run(Recipe(sparsity=0.5), toy("mlp")))
    pruned = next(i for i, event in enumerate(untrained) if isinstance(event, Pruned))
    assert _frame._reached(prune.history(untrained[: pruned + 1])) == [
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
