"""Searches that a page asked for: on disk, driven by a process that may end at any time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from pruning.recipe import Recipe
from pruning.runs.store import Store
from pruning.sweeps import driver, sweeps
from pruning.sweeps.driver import Asked, Driver
from pruning.sweeps.plan import RANDOM_SEARCH, SEARCH
from tests.test_search import GOAL, store, work

__all__ = ["store"]  # a fixture

ANNA, BEN = "anna", "ben"


@pytest.fixture(autouse=True)
def every_look(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A look advances a search whether or not there is news of it."""
    monkeypatch.setattr(driver, "UNCHANGED", 0.0)
    yield


def asked_of(store: Store, sweep: str) -> Asked:
    asked = driver.read(store.workspace, sweep)
    assert asked is not None
    return asked


def to_its_end(store: Store, sweep: str, **how: Any) -> Asked:
    one = Driver(store)
    while one.tick():
        work(store, **how)
    return asked_of(store, sweep)


def test_a_search_is_on_disk_once_it_was_asked_for_and_survives_its_driver(store: Store) -> None:
    sweep = driver.ask(store, GOAL, 3, visitor=ANNA)
    asked = asked_of(store, sweep)
    assert (asked.goal, asked.trials, asked.over, asked.lines) == (GOAL, 3, False, ())
    assert sweeps.state(store, sweep).waiting == 7, "the default technique and its controls"
    assert store.sweep(sweep).visitor == ANNA
    halfway = Driver(store)
    for count in (1000, 1000, 1):
        assert halfway.tick()
        work(store, count)
    before = asked_of(store, sweep)
    assert not before.over and 0 < before.lines[0].done < 3
    # Its process is killed; the next server's goes on.
    asked = to_its_end(Store(store.workspace), sweep)
    assert asked.over and not asked.why
    assert [(line.name, line.tried, line.done) for line in asked.lines] == [
        (SEARCH, 3, 3),
        (RANDOM_SEARCH, 3, 3),
    ]
    best = next(found for found in asked.answers if found.line == SEARCH)
    assert best.mean.points <= 2 and store.job(best.run or "").spec == best.recipe.to_dict()
    assert any(found.line == "magnitude" for found in asked.answers), "the default beside it"
    assert Asked.from_dict(asked.to_dict()) == asked
    # Asked for once more, nothing is left to do; with more trials it goes on.
    runs = len(store.jobs("run"))
    assert driver.ask(store, GOAL, 2, visitor=ANNA) == sweep
    assert to_its_end(store, sweep).over and len(store.jobs("run")) == runs
    assert driver.ask(store, GOAL, 4, visitor=ANNA) == sweep
    assert to_its_end(store, sweep).lines[0].done == 4


def test_nothing_is_proposed_while_it_is_paused_or_cancelled(store: Store) -> None:
    sweep = driver.ask(store, GOAL, 3)
    one = Driver(store)
    one.tick()
    work(store)
    one.tick()
    sweeps.pause(store, sweep)
    runs = len(store.jobs("run"))
    assert not one.tick() and not one.open and len(store.jobs("run")) == runs
    assert store.sweep(sweep).state == "paused" and not asked_of(store, sweep).over
    driver.resume(store, sweep)
    assert one.tick()
    sweeps.cancel(store, sweep)
    assert not one.tick() and sweeps.state(store, sweep).waiting == 0
    driver.resume(store, sweep)
    asked = to_its_end(store, sweep)
    assert asked.over and [line.failed for line in asked.lines] == [0, 0]


def test_what_is_proposed_while_somebody_pauses_wakes_nothing(store: Store) -> None:
    sweep = driver.ask(store, GOAL, 3)
    plan = sweeps.plan_of(store, sweep)
    sweeps.pause(store, sweep)
    runs = len(store.jobs("run"))
    wider = replace(plan, singles=({"name": SEARCH, "sparsity": 0.77},))
    assert not sweeps.extend(store, sweep, wider, wake=False)
    assert store.sweep(sweep).state == "paused" and len(store.jobs("run")) == runs


def test_two_people_with_one_goal_have_a_search_each_and_no_run_twice(store: Store) -> None:
    first = driver.ask(store, GOAL, 2, visitor=ANNA)
    second = driver.ask(store, GOAL, 2, visitor=BEN)
    third = driver.ask(store, replace(GOAL, within_points=3), 1, visitor=ANNA)
    assert len({first, second, third}) == 3, "also of a plan that begins alike"
    one = Driver(store)
    while one.tick():
        work(store)
    assert all(asked_of(store, id).over for id in (first, second, third))
    specs = [str(job.spec) for job in store.jobs("run", limit=1000)]
    assert len(specs) == len(set(specs))


def test_why_a_search_cannot_go_on_is_kept(store: Store) -> None:
    sweep = driver.ask(store, GOAL, 2)
    asked = to_its_end(store, sweep, validation=False)
    assert asked.over and "validation data" in asked.why
    driver.resume(store, sweep)
    assert not asked_of(store, sweep).why


def test_a_file_that_says_nothing_sensible_is_no_search(store: Store) -> None:
    sweep = driver.ask(store, GOAL, 2)
    file = store.workspace / driver.FOLDER / f"{sweep}.json"
    for text in ("", "[]", "{}", '{"goal": 3}', file.read_text().replace("digits-mlp", "no/such")):
        file.write_text(text)
        assert driver.read(store.workspace, sweep) is None or "no/such" in text
    for name in ("../runs", "0" * 11, "", "x" * 12):
        assert driver.read(store.workspace, name) is None
        assert driver.changed(store.workspace, name) == 0


def test_how_many_runs_a_search_comes_to(store: Store) -> None:
    goal = replace(GOAL, confirm=2)
    sweep = driver.ask(store, goal, 2)
    to_its_end(store, sweep)
    most = driver.expected_runs(goal, 2, True)
    plan = sweeps.plan_of(store, sweep)
    assert most == 7 + 2 * (2 + 2) == len(plan.points())
    assert driver.expected(store, goal, 2, True) is not None
    assert driver.expected(store, replace(goal, model="mnist1d-mlp"), 2, True) is None
    assert Recipe.from_dict(store.jobs("run")[0].spec).model == goal.model
