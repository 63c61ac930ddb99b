"""Waits from past times on this machine, and places in the queue. No torch here."""

from __future__ import annotations

import sqlite3
import time
from typing import Any

import pytest

from pruning.recipe import Recipe
from pruning.runs.store import Store
from pruning.runs.waits import Expected, expected_seconds, wait_of

SCORES = {"what": "scores", "model": "a", "criterion": "taylor"}


@pytest.fixture
def store(home) -> Store:
    return Store()


def timed(store: Store, kind: str, spec: dict[str, Any], seconds: float, **more: Any) -> None:
    """A job that finished after so many seconds."""
    id = store.submit(kind, spec, **more)
    job = store.claim(queues=(kind,))
    assert job is not None and job.id == id
    store.finish(job, "finished")
    with sqlite3.connect(store.file) as db:
        db.execute("UPDATE jobs SET started = ended - ? WHERE id = ?", (seconds, id))


def test_a_study_takes_the_median_of_its_like(store: Store) -> None:
    assert expected_seconds(store, "study", SCORES) is None
    for number, seconds in enumerate((2.0, 70.0, 4.0)):
        timed(store, "study", {**SCORES, "granularity": str(number)}, seconds)
    timed(store, "study", {**SCORES, "what": "card"}, 500.0)
    timed(store, "study", {**SCORES, "criterion": "random"}, 500.0)
    found = expected_seconds(store, "study", {**SCORES, "granularity": "new"})
    assert found == Expected(pytest.approx(4), pytest.approx(2), pytest.approx(70), 3, True)
    elsewhere = expected_seconds(store, "study", {**SCORES, "model": "vit"})
    assert elsewhere and not elsewhere.same_model, "of another model, and said to be"


def test_a_run_takes_as_long_as_its_epochs(store: Store) -> None:
    recipe = Recipe(model="a", epochs=4)
    timed(store, "run", recipe.to_dict(), 8.0)
    timed(store, "run", Recipe(model="b", epochs=4).to_dict(), 800.0)
    timed(store, "run", Recipe(model="a", epochs=4, batch=2).to_dict(), 80.0)
    timed(store, "run", recipe.to_dict(), 300.0, batch="a set")

    def seconds(**fields: Any) -> float | None:
        found = expected_seconds(store, "run", Recipe(**fields).to_dict())
        return found and found.seconds

    assert seconds(model="a", epochs=10) == pytest.approx(20)
    assert seconds(model="a", epochs=2, steps=4) == pytest.approx(16)
    assert seconds(model="b", epochs=1) == pytest.approx(200)
    assert seconds(model="a", epochs=0) is None and seconds(model="c", epochs=4) is None


def test_a_queue_says_place_and_time(store: Store) -> None:
    spec = Recipe(model="a", epochs=4).to_dict()
    timed(store, "run", spec, 100.0)
    ids = [store.submit("run", spec) for _ in range(4)]
    working = [store.claim(), store.claim()]
    assert [job.id for job in working if job] == ids[:2]
    for number, id in enumerate(ids[2:]):
        found = wait_of(store, store.job(id), slots=2)
        assert found.place == number + 1 and found.done == 0
        assert found.begins == pytest.approx(100, abs=2), "either worker is free by then"
    first = wait_of(store, store.job(ids[0]), slots=2)
    assert first.place is None and first.done < 5 and first.expected
    assert wait_of(store, store.job(ids[3]), slots=1).begins == pytest.approx(300, abs=2)
    assert wait_of(store, store.job(ids[2]), slots=3).begins == 0, "a worker is free"


def test_a_queue_behind_what_was_never_timed_promises_nothing(store: Store) -> None:
    store.submit("run", Recipe(model="a", epochs=4).to_dict())
    store.claim()
    id = store.submit("run", Recipe(model="a").to_dict())
    found = wait_of(store, store.job(id), slots=1)
    assert found.place == 1 and found.begins is None and found.expected is None


def test_studies_wait_for_studies_and_are_taken_in_the_order_said(store: Store) -> None:
    store.submit("run", Recipe(model="a", epochs=4).to_dict())
    maps = [
        store.submit("study", {"what": "map", "model": str(i)}, key=str(i), priority=-1)
        for i in range(2)
    ]
    time.sleep(0.01)
    cards = [store.submit("study", {"what": "card", "model": str(i)}, key=str(i)) for i in range(2)]
    assert wait_of(store, store.job(cards[1]), slots=2).place == 2
    assert store.ahead(cards[0]) == ("study", [])
    queue, ahead = store.ahead(maps[0])
    assert queue == "long" and [job.spec["model"] for job in ahead] == ["a", "1"]
    taken = [job.id for _ in range(3) if (job := store.claim())]
    assert taken[:2] == cards
    assert store.ahead("0123456789ab") == ("", [])
