"""Fine-tuning, recalibration and distillation on Prune: controls edit the recipe, stages show."""

from __future__ import annotations

from dataclasses import replace

import pytest

import pruning
from dashboard import state, words
from dashboard.charts import prune, results
from pruning.events import Event, Finished
from pruning.recipe import Recipe
from pruning.runs import pool
from tests.pages import settled
from tests.toys import toy


@pytest.fixture
def no_pool(home, monkeypatch):
    monkeypatch.setattr(pool, "ensure", lambda *_: False)


def run_toy(**fields: object) -> tuple[list[Event], Finished]:
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
    advanced = next(box.label for box in page.expander if box.label.startswith("Advanced"))
    assert words.FIELDS["recalibrate"] in advanced
    assert f"{words.FIELDS['distill']} 70 %" in advanced


def test_a_model_without_batchnorm_offers_no_recalibration(no_pool):
    page = settled("prune", r=state.encode(replace(state.HOME, model="digits-mlp", epochs=0)))
    assert not page.exception and page.toggle(key="form-recalibrate").disabled
    assert page.number_input(key="form-distill").disabled
    assert page.number_input(key="form-temperature").disabled


def stage_names(end: Finished, finetuned: bool = True) -> list[str]:
    names = list(results.stage_table(end, finetuned))
    assert names[0] == "measured" and names[-1] == "change"
    return names[1:-1]


def test_the_result_has_a_column_for_each_stage():
    _, end = run_toy(epochs=1, recalibrate=True)
    assert stage_names(end) == ["dense", "pruned", "recalibrated", "after fine-tuning"]
    assert end.recalibrated
    recalibrated = words.percent(end.recalibrated.accuracy)
    assert results.stage_table(end)["recalibrated"][0] == recalibrated
    assert f"{recalibrated} recalibrated" in results.verdict(end)
    _, untrained = run_toy(recalibrate=True)
    assert stage_names(untrained, finetuned=False) == ["dense", "pruned", "recalibrated"]
    _, finetuned = run_toy(epochs=1)
    assert stage_names(finetuned) == ["dense", "pruned, before fine-tuning", "after fine-tuning"]
    assert finetuned.pruned
    before = words.percent(finetuned.pruned.accuracy)
    assert f"({before} before fine-tuning)" in results.verdict(finetuned)
    assert stage_names(run_toy()[1], finetuned=False) == ["dense", "pruned"]


def test_the_curves_mark_recalibration_and_the_table_has_the_teacher():
    events, _ = run_toy(epochs=2, recalibrate=True, distill=0.5)
    history = prune.history(events)
    curves = prune.curves(history, "id", "magnitude", dark=False)
    tested = curves["panels"][0]["lines"][1]["points"]
    assert [point[4].split(":")[0] for point in tested] == list(prune.STAGES.values())
    assert "loss, teacher" in prune.epochs_table(history)
    alone = prune.history(run_toy(epochs=1)[0])
    assert "loss, teacher" not in prune.epochs_table(alone)
