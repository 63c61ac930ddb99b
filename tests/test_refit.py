"""A manual recipe on another model keeps the share that it pruned, says so, and has an Undo."""

from __future__ import annotations

from dataclasses import replace

import pytest
from streamlit.testing.v1 import AppTest

import sample_models
from dashboard import models, refit, state
from pruning.recipe import Recipe
from pruning.runs import pool
from pruning.types import prunable
from tests.pages import opened, settle, texts

BY_LAYER = {"conv1.weight": 0.1, "conv2.weight": 0.5, "conv3.weight": 0.8, "fc2.weight": 0.3}
MANUAL = replace(state.HOME, scope="manual", ratios=BY_LAYER)


@pytest.fixture(autouse=True)
def no_pool(home: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "ensure", lambda *_: False)


def recipe_of(page: AppTest) -> Recipe:
    link = page.query_params["r"]
    return state.decode(link if isinstance(link, str) else link[0])


def share(recipe: Recipe) -> float:
    weights = models.layer_weights(recipe.model)
    assert weights is not None
    removed = sum(weights[name] * ratio for name, ratio in recipe.ratios.items())
    return removed / sum(weights.values())


def test_another_model_keeps_how_much_a_manual_recipe_prunes_and_says_so() -> None:
    """page.md, fault 3: it became `Train all weights for 2 epochs` without a word."""
    page = opened("model", r=state.encode(MANUAL))
    page.button(key="choose-digits-mlp").click().run()
    recipe = recipe_of(page)
    assert (recipe.model, recipe.scope, recipe.ratios) == ("digits-mlp", "global", {})
    assert recipe.prunes and recipe.sparsity == pytest.approx(share(MANUAL), abs=0.0006)
    said = next(box.value for box in page.info if "conv1" in box.value).replace("\u00a0", " ")
    assert f"{100 * recipe.sparsity:.1f} %" in said and "global" in said
    page.button(key="adjustment-undo").click().run()
    assert recipe_of(page) == MANUAL
    assert not any("conv1" in box.value for box in page.info)


def test_it_falls_back_to_the_scope_that_it_had_before() -> None:
    page = opened("model", r=state.encode(replace(state.HOME, scope="lamp")))
    page.query_params["r"] = state.encode(MANUAL)  # as a click on the map writes it
    page.run()
    page.button(key="choose-digits-mlp").click().run()
    assert recipe_of(page).scope == "lamp"


def test_a_fallback_says_where_its_share_is_from() -> None:
    """A link's model is not at hand: its ratios' mean was called what they came to."""
    page = opened("model", r=state.encode(replace(MANUAL, model="digits-mlp")))
    said = next(box.value for box in page.info if "conv1" in box.value).replace("\u00a0", " ")
    assert recipe_of(page).sparsity == pytest.approx(sum(BY_LAYER.values()) / len(BY_LAYER))
    assert "42.5 % of the weights, scope global" in said and "the mean of the ratios" in said
    page = opened("model", r=state.encode(MANUAL))
    page.button(key="choose-digits-mlp").click().run()
    said = next(box.value for box in page.info if "conv1" in box.value)
    assert refit.AS_MUCH in said and "mean" not in said


def test_another_granularity_keeps_the_share_of_the_weights_and_says_of_what() -> None:
    """A share of the weights became one of the channels, which is another amount."""
    page = settle(opened("sensitivity", r=state.encode(MANUAL)))
    page.selectbox(key="map-granularity").set_value("channel").run()
    recipe = recipe_of(page)
    assert (recipe.granularity, recipe.counted) == ("channel", "weights")
    assert recipe.sparsity == pytest.approx(share(MANUAL), abs=0.002)
    said = next(box.value for box in page.info if "ratios by layer" in box.value)
    assert "of the weights" in said and refit.AS_MUCH in said


def test_weights_of_your_own_in_the_same_architecture_keep_the_ratios() -> None:
    outputs = models.layer_outputs("digits-cnn")
    assert outputs is not None
    assert refit.refitted(MANUAL, outputs) == (MANUAL, "")


def test_a_link_whose_layers_do_not_fit_is_one_sentence_too() -> None:
    page = opened("prune", r=state.encode(replace(MANUAL, model="digits-mlp")))
    settle(page)
    assert not page.exception and not page.error
    recipe = recipe_of(page)
    assert (recipe.scope, recipe.ratios, recipe.prunes) == ("global", {}, True)
    assert sum("conv1" in box.value for box in page.info) == 1


def test_layers_to_leave_dense_that_are_not_there_are_said_and_the_others_stay() -> None:
    recipe = replace(state.HOME, exclude=("nowhere.weight", "fc2.weight"))
    page = opened("model", r=state.encode(recipe))
    assert recipe_of(page).exclude == ("fc2.weight",)
    assert any("nowhere" in box.value for box in page.info)


def test_another_granularity_keeps_how_much_is_pruned() -> None:
    page = settle(opened("sensitivity", r=state.encode(MANUAL)))
    page.selectbox(key="map-granularity").set_value("row").run()
    recipe = recipe_of(page)
    assert (recipe.granularity, recipe.scope, recipe.ratios) == ("row", "global", {})
    assert recipe.sparsity == pytest.approx(share(MANUAL), abs=0.002)
    assert "The ratios by layer" in texts(page)


def test_the_layers_that_a_card_names_are_those_that_may_be_pruned() -> None:
    """Else a recipe that fits would be changed: a sample's layers are known from its card alone."""
    for name in sample_models.names():
        model = sample_models.load(name, data=False).model
        assert set(models.layer_outputs(name) or ()) == set(prunable(model)), name
