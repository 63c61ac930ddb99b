"""The Lottery page: one button draws a set, the page fills in, and a link finds it again; the pictures are plain data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pages import opened, texts

from dashboard import jobs, state
from dashboard.charts import lottery
from pruning.events import Accuracy, Ticket
from pruning.recipe import Recipe
from pruning.runs.store import Store

QUICK = replace(state.LOTTERY_RECIPE, steps=2, epochs=1, sparsity=0.5)


def ticket(kind: str, step: int, right: int, sparsity: float, **more: Any) -> Ticket:
    return Ticket(
        step, 2, kind, sparsity, int(100 * (1 - sparsity)), Accuracy(right, 100), 0.1, **more
    )


DRAWN = [
    [
        ticket("dense", 0, 98, 0.0),
        ticket("ticket", 1, 98, 0.5, overlap=0.5, shared=1.0),
        ticket("reinit", 1, 80, 0.5),
    ],
    [
        ticket("dense", 0, 96, 0.0),
        ticket("ticket", 1, 96, 0.5, overlap=0.5, shared=0.8),
        ticket("reinit", 1, 90, 0.5),
    ],
]


def work_off_runs() -> None:
    """Do the runs that wait, as a worker does."""
    from pruning.runs.handlers import do

    store = Store()
    while (job := store.claim(queues=("run",))) is not None:
        do(store, job, lambda: False)


def test_rounds_are_means_over_seeds_with_the_lowest_and_the_highest() -> None:
    found = lottery.rounds(DRAWN)
    assert [
        (held.kind, held.step, held.mean, held.low, held.high, held.seeds) for held in found
    ] == [
        ("dense", 0, pytest.approx(0.97), 0.96, 0.98, 2),
        ("ticket", 1, pytest.approx(0.97), 0.96, 0.98, 2),
        ("reinit", 1, pytest.approx(0.85), 0.8, 0.9, 2),
    ]
    assert found[1].shared == pytest.approx(0.9) and found[2].shared is None
    assert (
        lottery.finding(found)
        == "With 50 % of the weights, tickets reach 97.0 % (±0.0 points from dense), re-initialised 85.0 %"
    )
    assert lottery.finding(lottery.rounds([])) == "Accuracy on test data over the rounds"
    assert list(lottery.table(found)["network"]) == ["dense", "tickets", "re-initialised"]


@pytest.mark.parametrize("dark", [False, True])
def test_pictures_draw_every_kind_that_is_there_and_the_dense_line(dark: bool) -> None:
    found = lottery.rounds(DRAWN)
    picture = lottery.accuracy(found, dark=dark)
    assert {row["kind"] for row in picture["data"]["values"]} == {"tickets", "re-initialised"}
    first = {**picture["data"]["values"][0], "said": ""}
    assert first == {
        "kind": "tickets",
        "kept": 50.0,
        "mean": 97.0,
        "low": 96.0,
        "high": 98.0,
        "said": "",
    }
    marks = [layer["mark"]["type"] for layer in picture["layer"]]
    assert marks == ["area", "line", "point", "rule", "text"]
    shared = lottery.overlaps(found, dark=dark)["data"]["values"]
    assert {row["line"]: row["share"] for row in shared} == {
        "with one shot's mask": pytest.approx(90),
        "by chance": pytest.approx(100 / 3),
    }


def test_agreement_of_seeds_by_hand() -> None:
    a, b = np.array([[True, True, False, False]]), np.array([[True, False, True, False]])
    told = lottery.agreement({"0": {"w": a}, "1": {"w": b}})
    assert (
        told is not None
        and "keep 33.3 % of their weights in the same places" in told
        and "chance alone would give 33.3 %" in told
    )
    assert lottery.agreement({"0": {"w": a}}) is None


def test_runs_of_a_set_differ_in_their_seed_alone() -> None:
    runs = lottery.recipes(replace(QUICK, seed=4), 3)
    assert [recipe.seed for recipe in runs] == [4, 5, 6] and len(
        {replace(recipe, seed=0) for recipe in runs}
    ) == 1
    assert QUICK.training_epochs() == 1 + 2 * 4
    assert Recipe(steps=3, epochs=2).training_epochs() == 6


def test_a_set_is_drawn_and_found_again(home: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "ensure", lambda: None)
    page = opened("lottery", t=state.encode(QUICK), r=state.encode(Recipe(model="digits-mlp")))
    assert (
        not page.exception
        and "each time going back to the first weights and training 1 epoch" in texts(page)
    )
    page.number_input(key="lottery-seeds").set_value(2).run()
    page.button(key="lottery-draw").click().run()
    assert "The dense networks are being trained" in texts(page)
    id = page.query_params["set"]
    id = id[0] if isinstance(id, list) else id
    assert [job.spec["seed"] for job in jobs.runs_of_set(id)] == [0, 1]
    work_off_runs()
    again = opened("lottery", set=id)
    assert not again.exception and not again.error
    told = texts(again)
    assert (
        "With 50 % of the weights, tickets reach" in told
        and "Tickets of different seeds keep" in told
    )
    assert len(again.get("vega_lite_chart")) == 2
    assert again.dataframe


def test_a_set_that_is_not_there_is_told(home: object) -> None:
    page = opened("lottery", set="0123456789")
    assert "no set of runs '0123456789' in this workspace" in texts(page)
    assert not opened("lottery", set="<script>").error  # no name of a set: it is not looked for


def test_settings_follow_each_other(home: object) -> None:
    page = opened("lottery", r=state.encode(Recipe(model="digits-mlp")))
    assert not [slider for slider in page.slider if slider.label == "Rewind to step"]
    page.get("button_group")
    page = opened(
        "lottery",
        t=state.encode(replace(QUICK, rewind="early", rewind_step=5)),
        r=state.encode(Recipe(model="digits-mlp")),
    )
    slider = next(slider for slider in page.slider if slider.label == "Rewind to step")
    assert (slider.value, slider.max) == (5, 19)  # 1,257 examples in batches of 64: 20 steps
    slider.set_value(7).run()
    assert "going back to the weights after step 7" in texts(page)
    page.toggle(key="lottery-layers").set_value(True).run()
    assert "less in the output layer" in texts(page)
