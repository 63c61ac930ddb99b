"""Scores: the page says what the engine measured, and what it cannot say it says so."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import sample_models
from dashboard import state
from dashboard.charts import criteria as charts
from dashboard.charts.criteria import Judged
from pruning.analysis import criterion_check
from pruning.runs import pool
from pruning.stats import Correlation, spearman
from tests.pages import figures, opened, settle, settled, texts


@pytest.fixture(autouse=True)
def no_pool(home, monkeypatch):

    monkeypatch.setattr(pool, "ensure", lambda *_: False)


def shown(page, start: str):
    """The figure whose title starts so."""
    return next(figure for title, figure in figures(page).items() if title.startswith(start))


CHANNELS = replace(state.HOME, granularity="channel")


def test_the_page_shows_what_the_engine_measured():
    page = settled("criteria", r=state.encode(CHANNELS), layer="conv2.weight")
    assert not page.exception and not page.error
    work = sample_models.load("digits-cnn")
    _, *points, end = criterion_check.truth(
        work,
        criterion_check.Question(("conv2.weight",), "channel"),
        {"magnitude": {}, "taylor": {}, "random": {}},
    )
    expected = end.layers[0].size
    order = sorted(expected, key=lambda name: expected[name].value, reverse=True)
    assert order[0].capitalize() in texts(page) and charts.rho(expected[order[0]].value) in texts(
        page
    )
    figure = shown(page, f"{order[0].capitalize()} on conv2")
    drawn = sorted(y for marks in figure["data"] if marks["mode"] == "markers" for y in marks["y"])
    assert drawn == pytest.approx(sorted(abs(p.change) for p in points))
    grid = shown(page, "Most alike")["data"][0]
    assert grid["x"] == ["true change", *order]
    assert grid["z"][0][1:] == pytest.approx([expected[name].value for name in order])
    assert "32 of 32 channels, each removed alone" in texts(page)


def test_held_against_harm_the_signed_change_is_drawn_and_correlated():
    page = settled("criteria", r=state.encode(CHANNELS), layer="conv3.weight")
    page.segmented_control(key="truth-against").set_value("harm").run()
    figure = next(f for title, f in figures(page).items() if " on conv3" in title)
    assert figure["layout"]["yaxis"]["title"]["text"] == "change in loss without it, signed"
    assert any(y < 0 for marks in figure["data"] for y in marks["y"])
    page.toggle(key="truth-ranks").set_value(False).run()
    figure = next(f for title, f in figures(page).items() if " on conv3" in title)
    assert all(marks["mode"] == "markers" for marks in figure["data"]), (
        "a line of the true order is for ranks alone"
    )


def test_every_layer_is_measured_when_asked_for():
    page = settled("criteria", r=state.encode(CHANNELS), layer="conv1.weight")
    assert not any("is nearest to the truth in" in title for title in figures(page))
    page.toggle(key="truth-all").set_value(True).run()
    settle(page)
    figure = next(
        f
        for title, f in figures(page).items()
        if "is nearest to the truth in" in title and "of 4 layers" in title
    )
    assert figure["layout"]["yaxis"]["ticktext"] == ["<b>conv1</b>", "conv2", "conv3", "fc1"]
    assert not page.exception and not page.error


def test_what_has_no_units_or_no_meaning_is_said():
    page = settled("criteria", r=state.encode(CHANNELS), layer="fc2.weight")
    assert any(
        "fc2 has no units to remove by channel: its outputs are the model"
        in told.value.replace("\\", "")
        for told in page.info
    )
    page = settled(
        "criteria",
        r=state.encode(replace(state.HOME, criterion="geometric_median", granularity="channel")),
    )
    assert "geometric_median" in page.multiselect(key="truth-criteria-digits-cnn-channel").value
    page.selectbox(key="truth-unit-digits-cnn").set_value("weight").run()
    settle(page)
    assert (
        "geometric_median" not in page.multiselect(key="truth-criteria-digits-cnn-weight").options
    )
    assert not page.exception and not page.error


def test_nothing_picked_and_nothing_there_yet():
    page = opened("criteria")
    assert "Scoring the weight units of digits-cnn" in texts(page)
    page.multiselect(key="truth-criteria-digits-cnn-weight").set_value([]).run()
    assert any("Pick one or more criteria" in told.value for told in page.info)


# ---------------------------------------------------------------- the charts themselves


def held(n: int = 40, **scores: np.ndarray) -> Judged:
    change = np.random.default_rng(0).normal(size=n)
    change[0] = 0
    return Judged(
        "conv.weight",
        "channel",
        n,
        0.1,
        100,
        np.arange(n),
        np.full(n, 9),
        change,
        scores or {"taylor": np.abs(change)},
    )


def found(value: float, half: float = 0.1) -> Correlation:
    return Correlation(value, value - half, value + half)


def test_the_finding_is_honest_about_intervals():
    unit = held()
    both = charts.finding(unit, {"magnitude": found(0.34), "taylor": found(0.91, 0.05)}, "size")
    assert (
        both
        == "Taylor orders the channels of conv nearly as the true loss does (ρ = 0.91); magnitude does not (0.34)"
    )
    near = charts.finding(unit, {"magnitude": found(0.6, 0.2), "taylor": found(0.7, 0.2)}, "size")
    assert (
        near
        == "Taylor orders the channels of conv partly as the true loss does (ρ = 0.70); magnitude cannot be told from it (0.60)"
    )
    none = charts.finding(unit, {"random": found(0.05)}, "size")
    assert none.startswith(
        "No criterion here orders the channels of conv as the true loss does: the best, random, has ρ = 0.05"
    )
    assert "apart" in charts.finding(unit, {"magnitude": Correlation(None)}, "size")


def test_eighteen_criteria_are_drawn():
    chance = np.random.default_rng(1)
    unit = held(**{f"criterion_{i}": chance.normal(size=40) for i in range(18)})
    rho = {
        name: Correlation(spearman(values, unit.true("size")))
        for name, values in unit.scores.items()
    }
    names, values = charts.agreement(unit, rho, "size")
    assert len(names) == 19 and len(charts.grid(names, values, dark=True)["data"][0]["z"]) == 19
    layers = charts.by_layer({"a.weight": rho, "b.weight": rho}, "a.weight", dark=False)["data"]
    assert len(layers[0]["z"]) == 2 and len(layers[0]["z"][0]) == 18
    few = {name: rho[name] for name in list(rho)[:3]}
    assert (
        len(charts.by_layer({"a.weight": few, "b.weight": few}, "a.weight", dark=False)["data"])
        == 3
    )
    steps = charts.ladder(unit, rho, dark=True)
    assert [marks["x"] for marks in steps["data"]] == sorted(
        ([value.value] for value in rho.values()), reverse=True
    )
    assert [marks["y"] for marks in steps["data"]] == [[i] for i in range(18)]
    assert (
        len(charts.table({"a.weight": rho})) == 18
        and list(charts.pairs(names, values))[1] == "true change"
    )


def test_odd_numbers_draw():
    unit = held(3, taylor=np.ones(3))
    for ranked in (True, False):
        for against in charts.AGAINST:
            assert charts.scatter(
                unit, "taylor", Correlation(None), against, ranked=ranked, dark=False
            )["data"]
    still = replace(unit, change=np.zeros(3))
    assert charts.scatter(still, "taylor", Correlation(None), "size", ranked=True, dark=True)[
        "data"
    ]
    assert charts.grid(["true change", "taylor"], [[None, None], [None, None]], dark=True)["data"]
    assert (
        charts.nearest({"a": {"taylor": Correlation(None)}}) == "No layer has an order to compare"
    )
