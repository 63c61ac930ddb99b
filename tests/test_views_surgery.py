"""Surgery on Inspect: a click removes a unit, and the page shows what the engine measures then."""

from __future__ import annotations

import copy
import json
import threading
import time
from dataclasses import replace

import numpy as np
import pytest

import pruning
import sample_models
from dashboard import jobs, refit, state, surgery, words
from pruning.analysis.criterion_check import Check, LeaveOneOut
from pruning.events import Finished
from pruning.masks import apply
from pruning.recipe import Recipe
from pruning.runs import pool
from pruning.runs.waits import ESTIMATES, Size
from tests.pages import opened, settle, settled, texts, work_off

LAYER = "conv2.weight"


@pytest.fixture(autouse=True)
def no_pool(home, monkeypatch):
    monkeypatch.setattr(pool, "ensure", lambda *_: False)


def sparks_of(page) -> dict:
    """The data of the matrix of sparklines."""
    protos = [element.proto for element in page.get("bidi_component")]
    (data,) = (
        json.loads(proto.json or proto.mixed.json)
        for proto in protos
        if proto.component_name == "sparks"
    )
    return data


def recipe_of(page) -> Recipe:
    return page.session_state["recipe"]


def accuracy_shown(page) -> str:
    return next(m.value for m in page.metric if m.label == "Accuracy")


def accuracy_of(recipe: Recipe) -> str:
    """What the engine measures on test data of the model under the recipe's masks."""
    work = sample_models.load(recipe.model)
    model = copy.deepcopy(work.model)
    apply(pruning.choose(recipe, work), model)
    return words.percent(pruning.measure(replace(work, model=model), latency=False).accuracy)


def test_the_worst_and_the_best_filter_show_the_measured_change_and_undo_restores() -> None:
    page = settled("inspect", layer=LAYER, unit="first")
    assert not page.exception and not page.error
    units = sparks_of(page)["units"]
    work = sample_models.load("digits-cnn")
    measurer = LeaveOneOut(work, Check(layers=(LAYER,), granularity="channel"))
    changes = {unit: change for unit, _, change in measurer.changes(LAYER, range(32))}
    assert [unit["id"] for unit in units] == sorted(changes, key=lambda unit: -changes[unit])
    assert surgery.loss(changes[units[0]["id"]]) in texts(page)
    best = units[0]["id"]
    settle(page.button(key="surgery-remove").click().run())
    assert recipe_of(page).removed == {LAYER: [best]}
    assert accuracy_shown(page) == accuracy_of(recipe_of(page)) != words.percent(0.0)
    assert sparks_of(page)["units"][0]["removed"]
    page.button(key="surgery-undo").click().run()
    assert recipe_of(page) == state.HOME
    assert not any(unit["removed"] for unit in sparks_of(page)["units"])
    worst = units[-1]["id"]
    page.session_state["unit"] = worst
    page.run()
    settle(page.button(key="surgery-remove").click().run())
    assert recipe_of(page).removed == {LAYER: [worst]}
    assert accuracy_shown(page) == accuracy_of(recipe_of(page))
    settle(page.button(key="surgery-put-back").click().run())
    assert not recipe_of(page).removed and not page.exception


def test_ten_removals_make_a_recipe_that_runs_to_the_end() -> None:
    recipe = state.HOME
    for number in range(10):
        recipe = surgery.with_unit(recipe, "channel", LAYER, 3 * number)
    assert recipe == state.decode(state.encode(recipe))
    assert len(surgery.listed(recipe)) == 10 and recipe.epochs == state.HOME.epochs
    work = sample_models.load(recipe.model)
    keep: dict = {}
    events = list(
        pruning.run(replace(recipe, epochs=0), work, keep=lambda model, masks: keep.update(masks))
    )
    assert isinstance(events[-1], Finished) and events[-1].compact is not None
    chosen = pruning.choose(recipe, work)
    assert all((keep[name] == chosen[name]).all() for name in chosen)
    assert surgery.without_unit(recipe, LAYER, 27).removed == {LAYER: [*range(0, 27, 3)]}


def test_neurons_and_what_a_link_opens() -> None:
    recipe = replace(surgery.operated(state.HOME, "row"), removed={"fc1.weight": [5]})
    page = settled("inspect", r=state.encode(recipe), layer="fc1.weight", unit="5")
    assert not page.exception and not page.error
    assert "Neuron 5 of fc1" in texts(page) and accuracy_shown(page) == accuracy_of(recipe)
    odd = opened("model", layer="fc2.weight", unit="no number")
    assert any("no number" in box.value for box in odd.warning)
    settle(odd.switch_page("views/inspect.py").run())
    assert not odd.exception and not odd.error
    assert any("fc2 is kept whole" in box.value for box in odd.info)


def test_units_that_another_model_does_not_have_are_said(monkeypatch) -> None:
    recipe = Recipe(
        model="digits-mlp", scope="manual", granularity="channel", removed={"conv2.weight": [3]}
    )
    monkeypatch.setattr(state, "before_manual", lambda: None)
    monkeypatch.setattr(state, "remembered_share", lambda ratios: None)
    fitted, sentence = refit.refitted(recipe, {"fc1.weight": 300})
    assert not fitted.removed and fitted.scope == "global" and fitted.prunes
    assert "conv2 3" in sentence and "scope global" in sentence
    named = replace(recipe, removed={"fc1.weight": [3, 300], "conv2.weight": [1]})
    fitted, sentence = refit.refitted(named, {"fc1.weight": 300})
    assert fitted.removed == {"fc1.weight": [3]} and fitted.scope == "manual"
    assert "fc1 300" in sentence and "conv2 1" in sentence
    assert refit.refitted(fitted, {"fc1.weight": 300}) == (fitted, "")


def test_what_takes_long_waits_for_a_press() -> None:
    spec = {"what": "profiles", "units": 512, "seconds": surgery.SECONDS}
    resnet = Size(macs=1_800_000_000, validation=5_000, test=5_000)
    assert ESTIMATES["profiles"](spec, resnet) > jobs.STARTS_BY_ITSELF
    assert surgery.SECONDS > jobs.STARTS_BY_ITSELF  # the whole budget is asked for
    small = Size(macs=300_000, validation=180, test=360)
    assert ESTIMATES["profiles"](spec, small) < jobs.STARTS_BY_ITSELF


def test_sorted_by_a_class_the_unit_that_it_needs_most_comes_first() -> None:
    data = {"classes": ["a", "b"], "examples": 9}
    arrays = {
        "units": np.arange(3),
        "of_set": np.arange(3),
        "norms": np.array([3.0, 1.0, 2.0]),
        "change": np.array([0.1, np.nan, 0.2]),
        "weights": np.array([4, 4, 4]),
        "right": np.array([[4, 5], [-1, -1], [5, 2]]),
        "dense": np.array([5, 4]),
        "total": np.array([5, 4]),
    }
    study = type("Study", (), {"data": data, "arrays": arrays})()
    shown = surgery.Profiles(study, "Filter", frozenset({1}))
    assert shown.order(surgery.BY_LOSS, surgery.RIGHT) == [2, 0, 1]
    assert shown.order(surgery.BY_NORM, surgery.RIGHT) == [1, 2, 0]
    assert shown.order("a", surgery.RIGHT) == [0, 2, 1]
    assert shown.order("b", surgery.RIGHT) == [2, 0, 1]
    assert shown.views() == [surgery.RIGHT] and shown.spark(1, surgery.RIGHT) == []
    assert shown.most_felt(2) == (
        "Right without it: 2 fewer of 9 answers, most lost of class b: 2 of 4."
    )
    assert shown.sentence(1) == "Filter 1: not left out yet, removed"


def test_a_warm_worker_answers_within_the_press(monkeypatch) -> None:
    """The page is drawn once, with the accuracy; it does not wait where no worker begins."""
    page = settled("inspect", layer=LAYER, unit="first")
    monkeypatch.setattr(jobs, "BEGINS", 30.0)
    monkeypatch.setattr(jobs, "ENDS", 30.0)
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            work_off()
            time.sleep(0.01)

    worker = threading.Thread(target=work)
    worker.start()
    try:
        page.button(key="surgery-remove").click().run()
    finally:
        over.set()
        worker.join()
    assert accuracy_shown(page) == accuracy_of(recipe_of(page))
    assert not page.session_state["expected"]
    monkeypatch.setattr(jobs, "BEGINS", 0.0)
    page.session_state["unit"] = 5
    page.run()
    page.button(key="surgery-remove").click().run()
    assert not [m for m in page.metric if m.label == "Accuracy"]
    settle(page)
    assert accuracy_shown(page) == accuracy_of(recipe_of(page))
