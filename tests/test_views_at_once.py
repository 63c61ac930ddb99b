"""Prune's accuracies right after pruning: measured by a study, of the recipe as it is now."""

from __future__ import annotations

from dataclasses import replace

import pytest

from dashboard import jobs, state, tables, words
from dashboard.views import _at_once
from pruning.metrics import Accuracy
from pruning.recipe import ONE_STEP, Recipe
from pruning.runs import pool
from pruning.runs.store import Store
from tests.pages import opened, settle, settled

CHANNELS = Recipe(
    model="digits-resnet",
    granularity="channel",
    scope="per_layer",
    sparsity=0.5,
    reconstruct=True,
)


@pytest.fixture
def no_pool(home, monkeypatch):
    monkeypatch.setattr(pool, "ensure", lambda *_: False)


def metric(page, label):
    return next((m.value for m in page.metric if m.label == label), None)


def waiting() -> list[str]:
    """The reconstructions that wait, by their sparsity."""
    jobs_of_store = Store().jobs("study", ("queued",))
    return [j.spec["sparsity"] for j in jobs_of_store if j.spec["what"] == "reconstruction"]


def test_the_page_asks_for_what_the_study_depends_on() -> None:
    spec = tables.reconstruction_spec(CHANNELS)
    assert set(spec) == {"model", *ONE_STEP}


def test_three_accuracies_stand_beside_the_dial(no_pool) -> None:
    page = settled("prune", r=state.encode(CHANNELS))
    assert not page.exception
    study = jobs.study("reconstruction", **tables.reconstruction_spec(CHANNELS))
    assert study is not None
    for name in _at_once.STAGES:
        shown = words.percent(Accuracy(**study.data[name])).partition(" ± ")[0]
        assert metric(page, _at_once.LABELS[name]) == shown
    reconstructed, pruned = (study.data[name]["correct"] for name in ("reconstructed", "pruned"))
    assert reconstructed > 3 * pruned
    assert any("Run reconstructs, too" in caption.value for caption in page.caption)


def test_an_older_question_that_still_waits_makes_way(no_pool) -> None:
    page = settled("prune", r=state.encode(replace(CHANNELS, reconstruct=False)))
    page.number_input(key="form-sparsity").set_value(60.0).run()
    assert waiting() == [0.6] and metric(page, "Reconstructed") is None
    page.number_input(key="form-sparsity").set_value(70.0).run()
    assert waiting() == [0.7]
    # Back again: what made way is asked for anew.
    page.number_input(key="form-sparsity").set_value(60.0).run()
    assert waiting() == [0.6]
    page = settle(page)
    assert metric(page, "Reconstructed") is not None
    assert any("Run does not" in caption.value for caption in page.caption)


def test_what_takes_long_waits_for_a_press(no_pool, monkeypatch) -> None:
    monkeypatch.setattr(_at_once, "AT_ONCE", 0.0)
    page = settled("prune", r=state.encode(CHANNELS))
    assert metric(page, "Reconstructed") is None
    page.button(key="at-once-measure").click().run()
    page = settle(page)
    assert metric(page, "Reconstructed") is not None


def test_channels_are_reconstructed_by_default_and_weights_are_not(no_pool) -> None:
    page = settled("sensitivity", r=state.encode(Recipe(model="digits-resnet")))
    assert not page.session_state["recipe"].reconstruct
    page.selectbox(key="map-granularity").set_value("channel").run()
    assert page.session_state["recipe"].reconstruct
    page.selectbox(key="map-granularity").set_value("weight").run()
    assert not page.session_state["recipe"].reconstruct


def test_a_better_choice_of_channels_is_named_where_much_is_lost(no_pool) -> None:
    page = settled("prune", r=state.encode(replace(CHANNELS, scope="global")))
    captions = [caption.value for caption in page.caption]
    assert any("criterion reconstruction" in text for text in captions)


def test_without_data_there_is_nothing_to_measure(no_pool) -> None:
    recipe = replace(CHANNELS, model="torchvision:resnet18")
    page = opened("prune", r=state.encode(recipe))
    assert metric(page, "Reconstructed") is None and not waiting()
