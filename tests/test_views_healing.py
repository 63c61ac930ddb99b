"""Recalibration and distillation on the page: the controls edit the recipe, and the stages are told."""

from __future__ import annotations

from dataclasses import replace

import pytest

import pruning
from dashboard import state, words
from dashboard.charts import prune, results
from pruning.events import Event, Finished
from pruning.recipe import Recipe
from pruning.runs import pool
from tests.pages import said, settled
from tests.toys import toy


@pytest.fixture
def no_pool(home, monkeypatch):

    monkeypatch.setattr(pool, "ensure", lambda *_: False)


def told(**fields: object) -> tuple[list[Event], Finished]:
    events = list(pruning.run(Recipe(sparsity=0.6, **fields), toy("residual")))
    assert isinstance(events[-1], Finished)
    return events, events[-1]


def test_the_controls_edit_the_recipe(no_pool):
    page = settled("prune", r=state.encode(replace(state.HOME, model="digits-resnet")))
    assert not page.exception and not page.toggle(key="form-recalibrate").disabled
    page.toggle(key="form-recalibrate").set_value(True).run()
    page.number_input(key="form-distill").set_value(70.0).run()
    page.number_input(key="form-temperature").set_value(2.0).run()
    recipe = page.session_state["recipe"]
    assert (recipe.recalibrate, recipe.distill, recipe.temperature) == (True, 0.7, 2.0)
    assert "recalibrating BatchNorm, healing 2 epochs each with the dense model as teacher" in said(
        page
    )
    assert any("weight of the teacher 70 %" in box.label for box in page.expander)


def test_a_model_without_batchnorm_offers_no_recalibration(no_pool):
    page = settled("prune", r=state.encode(replace(state.HOME, model="digits-mlp", epochs=0)))
    assert not page.exception and page.toggle(key="form-recalibrate").disabled
    assert (
        page.number_input(key="form-distill").disabled
        and page.number_input(key="form-temperature").disabled
    )


def test_the_result_has_a_column_for_each_stage():
    _, end = told(epochs=1, recalibrate=True)
    table = results.result(end)
    assert list(table) == ["measured", "dense", "pruned", "recalibrated", "after healing", "change"]
    assert end.recalibrated and table["recalibrated"][0] == words.percent(end.recalibrated.accuracy)
    assert f"{words.percent(end.recalibrated.accuracy)} recalibrated" in results.verdict(end)
    _, bare = told(recalibrate=True)
    assert list(results.result(bare, healed=False)) == [
        "measured",
        "dense",
        "pruned",
        "recalibrated",
        "change",
    ]
    _, plain = told(epochs=1)
    assert list(results.result(plain)) == [
        "measured",
        "dense",
        "pruned, before healing",
        "after healing",
        "change",
    ]
    assert "before healing)" in results.verdict(plain)
    assert list(results.result(told()[1], healed=False)) == [
        "measured",
        "dense",
        "pruned",
        "change",
    ]


def test_the_curves_mark_what_recalibration_brought_and_the_table_has_the_teacher():
    events, _ = told(epochs=2, recalibrate=True, distill=0.5)
    history = prune.history(events)
    tested = prune.curves(history, "id", "magnitude", dark=False)["panels"][0]["lines"][1]["points"]
    assert [point[4].split(":")[0] for point in tested] == [
        "Pruned",
        "BatchNorm recalibrated",
        "At the end",
    ]
    assert "loss, teacher" in prune.rows(history) and "loss, teacher" not in prune.rows(
        prune.history(told(epochs=1)[0])
    )
