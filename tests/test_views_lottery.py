"""The Lottery page: one button starts a set, the page fills in, a link finds it again."""

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
from pruning.runs.results import PackedMask
from pruning.runs.store import Store

QUICK = replace(state.LOTTERY_RECIPE, steps=2, epochs=1, sparsity=0.5)
DIGITS = state.encode(Recipe(model="digits-mlp"))


def ticket(kind: str, step: int, correct: int, sparsity: float, **overlaps: Any) -> Ticket:
    kept = int(100 * (1 - sparsity))
    return Ticket(step, 2, kind, sparsity, kept, Accuracy(correct, 100), 0.1, **overlaps)


TICKETS = [
    [
        ticket("dense", 0, 98, 0.0),
        ticket("ticket", 1, 98, 0.5, overlap=0.5, shared=1.0, shared_at_random=0.3),
        ticket("reinit", 1, 80, 0.5),
    ],
    [
        ticket("dense", 0, 96, 0.0),
        ticket("ticket", 1, 96, 0.5, overlap=0.5, shared=0.8, shared_at_random=0.4),
        ticket("reinit", 1, 90, 0.5),
    ],
]


def do_waiting_runs() -> None:
    """Do the runs that wait, as a worker does."""
    from pruning.runs.handlers import do

    store = Store()
    while (job := store.claim(queues=("run",))) is not None:
        do(store, job, lambda: False)


def test_rounds_are_means_over_seeds_with_the_lowest_and_the_highest() -> None:
    rounds = lottery.rounds(TICKETS)
    assert [(r.kind, r.step, r.mean, r.low, r.high, r.seeds) for r in rounds] == [
        ("dense", 0, pytest.approx(0.97), 0.96, 0.98, 2),
        ("ticket", 1, pytest.approx(0.97), 0.96, 0.98, 2),
        ("reinit", 1, pytest.approx(0.85), 0.8, 0.9, 2),
    ]
    assert rounds[1].shared == pytest.approx(0.9) and rounds[2].shared is None
    assert lottery.finding(rounds) == (
        "With 50 % of the weights, tickets reach 97.0 % (±0.0 points from dense), "
        "re-initialised 85.0 %"
    )
    assert lottery.finding(lottery.rounds([])) == "Accuracy on test data over the rounds"
    networks = list(lottery.round_table(rounds)["network"])
    assert networks == ["dense", "tickets", "re-initialised"]


@pytest.mark.parametrize("dark", [False, True])
def test_charts_draw_every_kind_that_is_there_and_the_dense_line(dark: bool) -> None:
    rounds = lottery.rounds(TICKETS)
    spec = lottery.accuracy(rounds, dark=dark)
    values = spec["data"]["values"]
    assert {row["kind"] for row in values} == {"tickets", "re-initialised"}
    first = {name: value for name, value in values[0].items() if name != "tooltip"}
    assert first == {"kind": "tickets", "kept": 50.0, "mean": 97.0, "low": 96.0, "high": 98.0}
    marks = [layer["mark"]["type"] for layer in spec["layer"]]
    assert marks == ["area", "line", "point", "rule", "text"]
    shared = lottery.overlaps(rounds, dark=dark)["data"]["values"]
    assert {row["line"]: row["share"] for row in shared} == {
        "with one shot's mask": pytest.approx(90),
        "random masks": pytest.approx(35),
    }
    # Of runs of earlier versions it is not known.
    older = [replace(row, at_random=None) for row in rounds]
    drawn = lottery.overlaps(older, dark=dark)["data"]["values"]
    assert {row["line"] for row in drawn} == {"with one shot's mask"}


def test_overlap_of_seeds_by_hand() -> None:
    a, b = (
        {"w": PackedMask(np.packbits(keep), (1, 4))}
        for keep in ([True, True, False, False], [True, False, True, False])
    )
    text = lottery.seed_overlap([a, b])
    assert text is not None and text.count("33.3 %") == 2  # theirs, and that of random masks
    assert lottery.seed_overlap([a]) is None


def test_runs_of_a_set_differ_in_their_seed_alone() -> None:
    runs = lottery.recipes(replace(QUICK, seed=4), 3)
    assert [recipe.seed for recipe in runs] == [4, 5, 6]
    assert len({replace(recipe, seed=0) for recipe in runs}) == 1
    assert QUICK.training_epochs() == 1 + 2 * 4
    assert Recipe(steps=3, epochs=2).training_epochs() == 6


def test_a_set_is_started_and_found_again(home: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "ensure", lambda: None)
    page = opened("lottery", t=state.encode(QUICK), r=DIGITS)
    assert not page.exception
    assert "each time rewinding to the first weights and training 1 epoch" in texts(page)
    page.number_input(key="lottery-seeds").set_value(2).run()
    page.button(key="lottery-run").click().run()
    assert "The dense networks are being trained" in texts(page)
    id = page.query_params["set"]
    id = id[0] if isinstance(id, list) else id
    assert [job.spec["seed"] for job in jobs.runs_of_set(id)] == [0, 1]
    do_waiting_runs()
    again = opened("lottery", set=id)
    assert not again.exception and not again.error
    text = texts(again)
    assert "With 50 % of the weights, tickets reach" in text
    assert "Tickets of different seeds keep" in text
    assert len(again.get("vega_lite_chart")) == 2
    assert again.dataframe


def test_a_set_that_is_not_there_is_an_error(home: object) -> None:
    page = opened("lottery", set="0123456789")
    assert "no set of runs '0123456789' in this workspace" in texts(page)
    assert not opened("lottery", set="<script>").error  # no name of a set: it is not looked for


def test_settings_follow_each_other(home: object) -> None:
    page = opened("lottery", r=DIGITS)
    assert not [slider for slider in page.slider if slider.label == "Rewind to step"]
    early = state.encode(replace(QUICK, rewind="early", rewind_step=5))
    page = opened("lottery", t=early, r=DIGITS)
    slider = page.slider(key="lottery-step")
    assert (slider.value, slider.max) == (5, 19)  # 1,257 examples in batches of 64: 20 steps
    slider.set_value(7).run()
    assert "rewinding to the weights after step 7" in texts(page)
    page.toggle(key="lottery-layers").set_value(True).run()
    assert "less in the output layer" in texts(page)
