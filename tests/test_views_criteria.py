"""The Criteria page: what the engine measured is drawn, and the finding keeps to intervals."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import sample_models
from dashboard import state
from dashboard.charts import criteria as charts
from dashboard.charts.criteria import LayerCheck
from pruning import describe
from pruning.analysis import criterion_check
from pruning.recipe import Recipe
from pruning.runs import pool
from pruning.stats import Correlation, random_band, spearman
from tests.pages import figures, opened, settle, settled, texts


@pytest.fixture(autouse=True)
def no_pool(home, monkeypatch):

    monkeypatch.setattr(pool, "ensure", lambda *_: False)


CHANNELS = state.encode(replace(state.HOME, granularity="channel"))


def figure_with(page, part: str):
    """The figure whose title holds `part`."""
    return next(figure for title, figure in figures(page).items() if part in title)


def test_the_page_shows_what_the_engine_measured():
    page = settled("criteria", r=CHANNELS, layer="conv2.weight")
    assert not page.exception and not page.error
    work = sample_models.load("digits-cnn")
    _, *points, end = criterion_check.criterion_check(
        work,
        criterion_check.Check(("conv2.weight",), "channel"),
        {"magnitude": {}, "taylor": {}},
    )
    expected = end.layers[0].absolute
    order = sorted(expected, key=lambda name: expected[name].value, reverse=True)
    assert order[0] in texts(page).lower()
    assert charts.rho(expected[order[0]].value) in texts(page)
    scatter = figure_with(page, f"{order[0].capitalize()} on conv2")["data"]
    heights = [y for trace in scatter if trace["mode"] == "markers" for y in trace["y"]]
    assert sorted(heights) == pytest.approx(sorted(abs(point.change) for point in points))
    grid = figure_with(page, "Most alike")["data"][0]
    assert grid["x"] == [charts.LOSS_CHANGE, *map(describe.display_name, order)]
    assert grid["z"][0][1:] == pytest.approx([expected[name].value for name in order])
    assert "32 of 32 channels" in texts(page)


def test_against_the_rise_of_the_loss_the_signed_change_is_drawn_and_correlated():
    page = settled("criteria", r=CHANNELS, layer="conv3.weight")
    page.segmented_control(key="criteria-reference").set_value("signed").run()
    figure = figure_with(page, " on conv3: ρ")
    assert figure["layout"]["yaxis"]["title"]["text"] == "change in loss without it, signed"
    assert any(y < 0 for trace in figure["data"] for y in trace["y"])
    page.toggle(key="criteria-ranks").set_value(False).run()
    figure = figure_with(page, " on conv3: ρ")
    modes = {trace["mode"] for trace in figure["data"]}
    assert modes == {"markers"}, "the line of the loss change's order is for ranks alone"


def test_every_layer_is_measured_when_asked_for():
    page = settled("criteria", r=CHANNELS, layer="conv1.weight")
    assert not any("Better than random, of 4 layers" in title for title in figures(page))
    page.toggle(key="criteria-every-layer").set_value(True).run()
    settle(page)
    figure = figure_with(page, "Better than random, of 4 layers")
    assert figure["layout"]["yaxis"]["ticktext"] == ["<b>conv1</b>", "conv2", "conv3", "fc1"]
    assert not page.exception and not page.error


def test_what_has_no_units_or_no_meaning_is_named():
    page = settled("criteria", r=CHANNELS, layer="fc2.weight")
    expected = "fc2 has no units to remove by channel: its outputs are the model"
    assert any(expected in info.value.replace("\\", "") for info in page.info)
    recipe = replace(state.HOME, criterion="geometric_median", granularity="channel")
    page = settled("criteria", r=state.encode(recipe))
    picked = page.multiselect(key="criteria-picked-digits-cnn-channel").value
    assert "geometric_median" in picked
    page.selectbox(key="criteria-unit-digits-cnn").set_value("weight").run()
    settle(page)
    offered = page.multiselect(key="criteria-picked-digits-cnn-weight").options
    assert "geometric_median" not in offered
    assert not page.exception and not page.error


def test_nothing_picked_and_nothing_there_yet():
    page = opened("criteria", r=state.encode(Recipe(model="mnist1d-cnn")))  # none is shipped
    assert "Scoring the weight units of mnist1d-cnn" in texts(page)
    page.multiselect(key="criteria-picked-mnist1d-cnn-weight").set_value([]).run()
    assert any("Pick one or more criteria" in info.value for info in page.info)


# ---------------------------------------------------------------- the charts themselves


def layer_check(n: int = 40, **scores: np.ndarray) -> LayerCheck:
    change = np.random.default_rng(0).normal(size=n)
    change[0] = 0
    return LayerCheck(
        layer="conv.weight",
        noun="channel",
        total=n,
        loss=0.1,
        examples=100,
        units=np.arange(n),
        weights=np.full(n, 9),
        change=change,
        scores=scores or {"taylor": np.abs(change)},
    )


def correlation(value: float, half: float = 0.1) -> Correlation:
    return Correlation(value, value - half, value + half)


def test_the_finding_is_honest_about_intervals():
    check = layer_check()
    apart = {"magnitude": correlation(0.55), "taylor": correlation(0.91, 0.05)}
    assert charts.finding(check, apart) == (
        "Taylor ranks the channels of conv nearly as the loss change does (ρ = 0.91); "
        "magnitude (0.55) ranks them less well"
    )
    near = {"magnitude": correlation(0.6, 0.2), "taylor": correlation(0.7, 0.15)}
    assert charts.finding(check, near) == (
        "Taylor ranks the channels of conv partly as the loss change does (ρ = 0.70); "
        "magnitude (0.60) cannot be told from it"
    )
    assert "apart" in charts.finding(check, {"magnitude": Correlation(None)})


def test_what_reaches_into_the_band_of_random_orders_is_no_better_than_random():
    check = layer_check()  # 40 units: random orders reach ρ = 0.31
    assert check.band is not None and check.band.high == pytest.approx(0.31, abs=0.01)
    # Clear of 0, as one lucky random order is, and yet inside the band.
    lucky = {"magnitude": correlation(0.38, 0.2)}
    assert charts.finding(check, lucky).startswith("No criterion here ranks the channels of conv")
    beside = {"taylor": correlation(0.9, 0.05), **lucky}
    assert "magnitude (0.38) is no better than random here" in charts.finding(check, beside)
    few = layer_check(5)
    assert "too few for a verdict" in charts.finding(few, {"taylor": Correlation(0.9)})


def test_random_is_drawn_as_a_band_and_never_as_a_criterion():
    page = settled("criteria", r=CHANNELS, layer="conv3.weight")
    assert page.selectbox(key="criteria-units").value == 256
    picked = page.multiselect(key="criteria-picked-digits-cnn-channel")
    assert "random" not in [*picked.value, *picked.options]
    (band,) = figure_with(page, "Better than random orders on conv3")["layout"]["shapes"]
    expected = random_band(64)  # conv3 has 64 channels
    assert expected is not None
    assert (band["x0"], band["x1"]) == (expected.low, expected.high)
    assert charts.rho(expected.high) in texts(page)


def test_eighteen_criteria_are_drawn():
    generator = np.random.default_rng(1)
    scores = {f"criterion_{i}": generator.normal(size=40) for i in range(18)}
    check = layer_check(**scores)
    change = check.reference("absolute")
    rho = {name: Correlation(spearman(values, change)) for name, values in scores.items()}
    names, values = charts.agreement(check, rho, "absolute")
    assert len(names) == 19
    assert len(charts.grid(names, values, dark=True)["data"][0]["z"]) == 19
    units = {"a.weight": 40, "b.weight": 40}
    cells = charts.by_layer({"a.weight": rho, "b.weight": rho}, units, "a.weight", dark=False)[
        "data"
    ]
    assert len(cells[0]["z"]) == 2 and len(cells[0]["z"][0]) == 18
    few = {name: rho[name] for name in list(rho)[:3]}
    whiskers = charts.by_layer({"a.weight": few, "b.weight": few}, units, "a.weight", dark=False)
    assert len(whiskers["data"]) == 3
    bands = [shape for shape in whiskers["layout"]["shapes"] if shape["type"] == "rect"]
    assert len(bands) == 2
    ladder = charts.ladder(check, rho, dark=True)["data"]
    highest_first = sorted(([value.value] for value in rho.values()), reverse=True)
    assert [trace["x"] for trace in ladder] == highest_first
    assert [trace["y"] for trace in ladder] == [[i] for i in range(18)]
    assert all(" on conv: " in trace["text"][0] for trace in ladder)
    assert len(charts.correlation_table({"a.weight": rho}, units)) == 18
    assert list(charts.pair_table(names, values))[1] == charts.LOSS_CHANGE


def test_odd_numbers_draw():
    check = layer_check(3, taylor=np.ones(3))
    none = Correlation(None)
    for ranked in (True, False):
        for reference in charts.REFERENCES:
            figure = charts.scatter(check, "taylor", none, reference, ranked=ranked, dark=False)
            assert figure["data"]
    still = replace(check, change=np.zeros(3))
    assert charts.scatter(still, "taylor", none, "absolute", ranked=True, dark=True)["data"]
    empty = [[None, None], [None, None]]
    assert charts.grid([charts.LOSS_CHANGE, "taylor"], empty, dark=True)["data"]
    assert (
        charts.layer_verdict({"a": {"taylor": none}}, {"a": 3})
        == "No layer has an order to compare"
    )
