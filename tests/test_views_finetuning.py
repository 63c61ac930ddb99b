"""Fine-tuning, recalibration and distillation on Prune: controls edit the recipe, stages show."""

from __future__ import annotations

from dataclasses import replace

import pytest
from streamlit.testing.v1 import AppTest

import pruning
from dashboard import models, state, words
from dashboard.charts import prune, results
from dashboard.components.strip import Block
from pruning.events import Event, Finished, Measured
from pruning.recipe import Recipe
from pruning.runs import pool
from tests.pages import settle, settled
from tests.toys import toy


@pytest.fixture
def no_pool(home, monkeypatch):
    monkeypatch.setattr(pool, "ensure", lambda *_: False)


def run_toy(**fields: object) -> tuple[list[Event], Finished, Recipe]:
    recipe = Recipe(sparsity=0.6, **fields)
    events = list(pruning.run(recipe, toy("residual")))
    assert isinstance(events[-1], Finished)
    return events, events[-1], recipe


def advanced(model: str, **fields: object) -> AppTest:
    """Prune, with the advanced options open."""
    page = settled("prune", r=state.encode(replace(state.HOME, model=model, **fields)))
    page.session_state[state.ADVANCED_OPEN] = True
    return page.run()


def test_advanced_options_are_drawn_once_they_are_open(no_pool):
    page = settled("prune", r=state.encode(replace(state.HOME, model="digits-mlp", epochs=0)))
    keys = {one.key for one in page.number_input}
    assert "form-epochs" in keys and not {"form-seed", "form-distill"} & keys
    page.session_state[state.ADVANCED_OPEN] = True
    assert {"form-seed", "form-distill"} <= {one.key for one in page.run().number_input}
    # Of a recipe that has some they stand open from the start.
    page = settled("prune", r=state.encode(replace(state.HOME, model="digits-mlp", seed=3)))
    assert page.number_input(key="form-seed").value == 3


def test_the_controls_edit_the_recipe(no_pool):
    page = advanced("digits-resnet")
    assert not page.exception and not page.toggle(key="form-recalibrate").disabled
    page.toggle(key="form-recalibrate").set_value(True).run()
    page.number_input(key="form-distill").set_value(70.0).run()
    page.number_input(key="form-temperature").set_value(2.0).run()
    recipe = page.session_state["recipe"]
    assert (recipe.recalibrate, recipe.distill, recipe.temperature) == (True, 0.7, 2.0)
    label = next(box.label for box in page.expander if box.label.startswith("Advanced"))
    assert words.FIELDS["recalibrate"] in label
    assert f"{words.FIELDS['distill']} 70\u00a0%" in label  # a line never breaks there


def test_a_model_without_batchnorm_offers_no_recalibration(no_pool):
    page = advanced("digits-mlp", epochs=0)
    assert not page.exception and page.toggle(key="form-recalibrate").disabled
    assert page.number_input(key="form-distill").disabled
    assert page.number_input(key="form-temperature").disabled


def test_reconstruction_and_recalibration_exclude_each_other(no_pool):
    page = advanced("digits-resnet")
    page.toggle(key="form-reconstruct").set_value(True).run()
    assert page.session_state["recipe"].reconstruct
    assert page.toggle(key="form-recalibrate").disabled
    page.toggle(key="form-reconstruct").set_value(False).run()
    page.toggle(key="form-recalibrate").set_value(True).run()
    assert page.session_state["recipe"].recalibrate
    assert page.toggle(key="form-reconstruct").disabled


def test_embeddings_have_a_switch_where_the_model_has_some(no_pool, monkeypatch):
    page = advanced("digits-mlp", epochs=0)
    assert not [toggle for toggle in page.toggle if toggle.key == "form-embeddings"]
    plain = models.blocks_of
    words_of = Block("words.weight", "embedding", (30, 8), 240)
    monkeypatch.setattr(models, "blocks_of", lambda *given: [*plain(*given), words_of])
    page = settle(page.run())
    assert not page.toggle(key="form-embeddings").value
    page.toggle(key="form-embeddings").set_value(True).run()
    assert not page.exception and page.session_state["recipe"].embeddings
    # A link may ask for it where there are none: then it can be switched off.
    monkeypatch.setattr(models, "blocks_of", plain)
    page = settle(page.run())
    page.toggle(key="form-embeddings").set_value(False).run()
    assert not page.exception and not page.session_state["recipe"].embeddings


def stage_names(end: Finished, recipe: Recipe) -> list[str]:
    names = list(results.stage_table(end, recipe))
    assert names[0] == "measured" and names[-1] == "change"
    return names[1:-1]


def test_the_result_has_a_column_for_each_stage():
    once = "right after one-shot pruning"
    _, end, recipe = run_toy(epochs=1, recalibrate=True)
    assert stage_names(end, recipe) == ["dense", once, "recalibrated", "after fine-tuning"]
    assert end.recalibrated
    recalibrated = words.percent(end.recalibrated.accuracy)
    assert results.stage_table(end, recipe)["recalibrated"][0] == recalibrated
    assert f"{recalibrated} recalibrated" in results.verdict(end, recipe, None)
    _, untrained, recipe = run_toy(recalibrate=True)
    assert stage_names(untrained, recipe) == ["dense", once, "recalibrated"]
    _, finetuned, recipe = run_toy(epochs=1)
    assert stage_names(finetuned, recipe) == ["dense", once, "after fine-tuning"]
    assert finetuned.pruned
    before = words.percent(finetuned.pruned.accuracy)
    assert f"({before} {once})" in results.verdict(finetuned, recipe, None)
    _, end, recipe = run_toy()
    assert stage_names(end, recipe) == ["dense", "pruned"]


def test_after_several_steps_nothing_is_said_to_be_before_fine_tuning():
    """What was measured last had been fine-tuned: "before fine-tuning" would hide what that did."""
    _, end, recipe = run_toy(epochs=1, steps=3, schedule="cubic")
    assert stage_names(end, recipe) == ["dense", "after the last pruning step", "after fine-tuning"]
    assert "after the last pruning step" in results.verdict(end, recipe, None)
    assert results.pruned_stage(replace(recipe, schedule="one_shot")) == (
        "before the last fine-tuning"
    )


REPAIRS = {"recalibrate": "recalibrated", "reconstruct": "reconstructed"}


def test_every_stage_stands_with_its_accuracy_on_validation_data():
    events, end, recipe = run_toy(epochs=1, recalibrate=True)
    history = prune.history(events)
    table = results.stage_table(end, recipe, history.validation).set_index("measured")
    measured = {e.stage: e.validation for e in events if isinstance(e, Measured)}
    row = [words.percent(accuracy) for accuracy in measured.values()]
    assert list(measured) == ["dense", "pruned", "recalibrated", "final"]
    assert list(table.loc["accuracy (validation)"])[:-1] == row
    assert list(results.stage_table(end, recipe)["measured"]) == [
        name for name in table.index if name != "accuracy (validation)"
    ]


@pytest.mark.parametrize("repair", REPAIRS)
def test_the_curves_mark_what_repaired_and_the_table_has_the_teacher(repair):
    events, *_ = run_toy(epochs=2, distill=0.5, **{repair: True})
    history = prune.history(events)
    curves = prune.curves(history, "id", "magnitude", dark=False)
    (tested,) = [line["points"] for line in curves["panels"][0]["lines"] if line["name"] == "test"]
    stages = [prune.STAGES[name] for name in ("pruned", REPAIRS[repair], "final")]
    assert [point[4].split(":")[0] for point in tested] == stages
    assert "loss, teacher" in prune.epochs_table(history)
    alone = prune.history(run_toy(epochs=1)[0])
    assert "loss, teacher" not in prune.epochs_table(alone)
