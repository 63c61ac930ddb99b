"""A run's own page: what opens it, what it says of splits, stopped runs and unknown ones."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pages import opened, settle, settled, texts, walked_to
from streamlit.testing.v1 import AppTest

import pruning
import sample_models
from dashboard import example, state
from dashboard.charts import prune, results
from dashboard.charts.prune import RunHistory
from pruning.events import Epoch, Event, Measured, from_json, to_json
from pruning.recipe import Recipe
from pruning.runs import pool
from pruning.runs.store import Job, Store
from tests.toys import toy


@pytest.fixture
def shipped(home: Path, monkeypatch: pytest.MonkeyPatch) -> Job:
    """The run that an empty workspace is given."""
    monkeypatch.setattr(pool, "ensure", lambda *_: False)
    opened("model")
    return Store().jobs("run")[0]


def question(page: AppTest) -> str:
    (text,) = (str(element.value) for element in page.title[:1])
    return text


# ---------------------------------------------------------------- what opens it


def test_a_link_to_a_run_opens_its_page(shipped: Job) -> None:
    for address in ({"run": shipped.id}, {"run": shipped.id, "room": "prune", "r": "x"}):
        page = opened("model", **address)
        assert not page.exception
        assert shipped.id[:6] in question(page)


def test_a_page_that_was_loaded_anew_stays_itself(shipped: Job) -> None:
    """Every page's address carries the run that is open; only a link to the run goes there."""
    recipe = state.encode(state.HOME)
    for room in ("compare", "inspect"):
        page = opened("model", run=shipped.id, room=room, r=recipe)
        assert shipped.id[:6] not in question(page)
    assert shipped.id[:6] not in question(opened("model", run=shipped.id, r=recipe))


def test_an_unknown_run_is_said_at_the_top(shipped: Job) -> None:
    page = opened("model", run="nope")
    assert question(page) == "This run cannot be shown"
    assert "nope" in page.error[0].value
    links = [link.label for link in page.get("page_link")]
    assert any(shipped.id[:6] in label for label in links)


def test_prune_has_the_headline_of_a_finished_run_and_the_way_to_it(shipped: Job) -> None:
    page = settle(walked_to("prune", run=shipped.id))
    assert not page.exception and shipped.id[:6] in texts(page)
    assert "Accuracy is 98.6" in texts(page)
    assert "Open result" in [link.label for link in page.get("page_link")]
    assert not page.get("plotly_chart"), "the result itself has a page of its own"


def test_a_run_is_used_from_its_page(shipped: Job) -> None:
    page = settled("run", run=shipped.id, r=state.encode(replace(state.HOME, sparsity=0.5)))
    page.button(key=f"use-{shipped.id}").click().run()
    assert page.session_state["recipe"] == Recipe.from_dict(shipped.spec)
    assert question(page).startswith("How much can be pruned")


# ---------------------------------------------------------------- which split a line is


@pytest.fixture(scope="module")
def history() -> RunHistory:
    recipe = Recipe(sparsity=0.6, epochs=2, steps=2, schedule="linear")
    events = list(pruning.run(recipe, toy("residual")))
    read = [from_json(to_json(event)) for event in events]
    assert read == events
    return prune.history(read)


def panels(history: RunHistory) -> dict[str, dict[str, Any]]:
    data = prune.curves(history, "id", "magnitude", dark=False)
    return {panel["id"]: panel for panel in data["panels"]}


def test_the_dense_line_of_a_curve_is_of_the_curve_s_own_split(history: RunHistory) -> None:
    work = toy("residual")
    on_validation = pruning.measure(work, "validation", latency=False)
    assert history.dense_validation == on_validation.accuracy
    assert history.dense_validation_loss == pytest.approx(on_validation.loss)
    accuracy, loss = panels(history)["accuracy"], panels(history)["loss"]
    assert on_validation.accuracy and history.dense
    assert accuracy["dense"][0] == pytest.approx(100 * on_validation.accuracy.value)
    assert loss["dense"][0] == pytest.approx(on_validation.loss)
    assert "validation" in accuracy["dense"][1] and "validation" in loss["dense"][1]
    lines = {line["name"]: line["points"] for line in accuracy["lines"]}
    assert history.dense.accuracy
    assert lines["dense, test"][0][1] == pytest.approx(100 * history.dense.accuracy.value)
    assert set(lines) == {"validation", "test", "dense, test"}


def test_the_large_accuracy_stands_beside_dense_of_its_split(history: RunHistory) -> None:
    assert history.dense and history.dense_validation and history.dense.accuracy
    newest = prune.newest_accuracy(history)
    assert newest and newest.split == "test" and newest.dense == history.dense.accuracy
    under_way = replace(history, finished=None)
    newest = prune.newest_accuracy(under_way)
    assert newest and newest.split == "validation" and newest.dense == history.dense_validation
    label, _, beside = results.tiles(under_way)[0]
    assert label.endswith("validation") and "test" not in beside


def test_a_forecast_is_held_against_validation_data(history: RunHistory) -> None:
    measured = prune.as_pruned(history)
    assert measured and measured.split == "validation"
    assert measured.dense == history.dense_validation


def test_the_shipped_run_has_both_splits() -> None:
    lines = (example.EXAMPLE / "events.jsonl").read_text(encoding="utf-8").splitlines()
    history = prune.history(from_json(line) for line in lines)
    work = sample_models.load("digits-cnn")
    assert work.validation is not None
    assert history.dense_validation == pruning.measure(work, "validation", latency=False).accuracy


def test_runs_stored_before_dense_was_measured_on_validation_data_have_no_such_line() -> None:
    lines = (example.EXAMPLE / "events.jsonl").read_text(encoding="utf-8").splitlines()
    events = [from_json(line) for line in lines]
    bare = [
        replace(event, validation=None, validation_loss=None)
        if isinstance(event, Measured)
        else event
        for event in events
    ]
    history = prune.history(bare)
    shown = panels(history)
    assert shown["accuracy"]["dense"] is None and shown["loss"]["dense"] is None
    measured = prune.as_pruned(history)
    assert measured and measured.split == "test"


# ---------------------------------------------------------------- stopped


def test_a_stopped_run_shows_what_it_reached() -> None:
    recipe = Recipe(sparsity=0.6, epochs=4)
    events: list[Event] = []

    def stop() -> bool:
        return any(isinstance(event, Epoch) for event in events)

    for event in pruning.run(recipe, toy("residual"), stop=stop):
        events.append(event)
    history = prune.history(events)
    assert history.halted and history.result is history.halted.result
    assert results.tiles(history)[0][0] == "Accuracy, test"
    said = results.stopped(history)
    assert said.startswith("Stopped after epoch 1 of 4") and "kept" in said
    history = replace(history, halted=None)
    assert "nothing of it is kept" in results.stopped(history)
