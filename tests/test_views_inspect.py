"""Inspect: the pictures say what the engine would do, exactly."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from dashboard import jobs, state, tables, words
from dashboard.charts import base, layers, one_layer
from pruning.allocation.ranking import Preview
from pruning.recipe import Recipe
from pruning.runs import pool
from tests.pages import figures, opened, settle, settled, texts


@pytest.fixture(autouse=True)
def no_pool(home, monkeypatch):
    monkeypatch.setattr(pool, "ensure", lambda *_: False)


def preview(recipe: Recipe) -> Preview:
    """What the engine would keep, from the same study that the page asked for."""
    study = jobs.study("scores", **tables.scores_spec(recipe))
    assert study is not None
    return study.ranking.preview(recipe)


def lines(figure: dict) -> list[float]:
    return [shape["x0"] for shape in figure["layout"]["shapes"] if shape["type"] == "line"]


def test_while_it_reads_it_says_what_it_waits_for():
    other = state.encode(replace(state.HOME, model="digits-mlp"))  # whose weights are not shipped
    assert "Reading every weight of digits-mlp" in texts(opened("inspect", r=other))


def test_nothing_is_called_kept_before_its_units_are_scored(monkeypatch):
    """Where scoring waited for Start, 90 % was asked and "all kept" stood there."""
    known = jobs.study

    def unscored(what, **spec):
        return None if what == "scores" else known(what, **spec)

    monkeypatch.setattr(jobs, "study", unscored)
    page = opened("inspect")
    assert not page.exception
    (panels,) = [
        figure
        for figure in figures(page).values()
        if figure["layout"]["meta"]["title"].startswith("All layers")
    ]
    assert panels["layout"]["meta"]["title"].endswith("known once their units are scored")
    labels = [note["text"] for note in panels["layout"]["annotations"]]
    assert labels and all("not scored yet" in label for label in labels)
    assert [trace["name"] for trace in panels["data"] if trace["x"]] == ["before pruning"]
    assert "waits for its scores" in texts(page)


def handle_of(page) -> dict:
    """The data of the threshold's handle."""
    protos = [element.proto for element in page.get("bidi_component")]
    (data,) = (
        json.loads(proto.json or proto.mixed.json)
        for proto in protos
        if proto.component_name == "threshold"
    )
    return data


def test_the_largest_layer_comes_first_with_the_exact_threshold():
    page = settled("inspect")
    assert not page.exception and not page.error
    data, expected = handle_of(page), preview(state.HOME)
    assert data["name"] == "conv3" and data["stops"][data["index"]] == state.HOME.sparsity
    threshold = expected.thresholds["conv3.weight"]
    assert data["thresholds"][data["index"]] == pytest.approx(threshold, rel=1e-4)
    kept = {layer.name: layer.kept for layer in expected.layers}
    names = [name for name, _ in data["names"]]
    assert dict(zip(names, data["kept"][data["index"]], strict=True)) == kept


def test_the_squared_norm_has_its_threshold_on_the_weights():
    recipe = replace(state.HOME, options={"norm": "l2"})
    data = handle_of(settled("inspect", r=state.encode(recipe)))
    assert data["thresholds"][data["index"]] == pytest.approx(
        preview(recipe).thresholds["conv3.weight"] ** 0.5, rel=1e-4
    )


@pytest.mark.parametrize("scope", ["global", "per_layer", "erk", "lamp"])
def test_the_handle_says_at_every_stop_what_the_recipe_would_keep_there(scope):
    recipe = replace(state.HOME, scope=scope)
    data = handle_of(settled("inspect", r=state.encode(recipe), layer="fc1.weight"))
    assert data["name"] == "fc1" and sum(data["counts"]) == data["totals"][data["at"]]
    assert data["thresholds"] == sorted(data["thresholds"])  # a handle moves one way
    for at in (1, 37, 50, 90, len(data["stops"]) - 1):
        expected = preview(replace(recipe, sparsity=data["stops"][at]))
        assert data["kept"][at] == [layer.kept for layer in expected.layers]
        threshold = expected.thresholds["fc1.weight"] or 0.0
        assert data["thresholds"][at] == pytest.approx(threshold, rel=1e-4)
        assert data["labels"]["bytes"][at] == words.size(expected.bytes_sparse)
    assert data["thresholds"][0] == 0 and data["kept"][0] == data["totals"]


def test_a_threshold_that_no_share_moves_is_a_picture():
    """Ratios by hand and a threshold by hand leave nothing for a handle to change."""
    recipe = replace(state.HOME, scope="manual", ratios={"fc1.weight": 0.5})
    page = settled("inspect", r=state.encode(recipe), layer="fc1.weight")
    title = next(title for title in figures(page) if title.startswith("fc1:"))
    threshold = preview(recipe).thresholds["fc1.weight"]
    assert lines(figures(page)[title]) == pytest.approx([-threshold, threshold])
    kept_dense = replace(state.HOME, exclude=("fc1.weight",))
    page = settled("inspect", r=state.encode(kept_dense), layer="fc1.weight")
    assert "fc1: nothing is pruned, 16,384 weights kept" in figures(page)


def test_every_layer_has_its_panel_and_share():
    page = settled("inspect")
    title = next(title for title in figures(page) if title.startswith("All layers"))
    notes = " ".join(note["text"] for note in figures(page)[title]["layout"]["annotations"])
    for layer in preview(state.HOME).layers:
        assert f"−{(1 - layer.kept / layer.total) * 100:.1f} %" in notes


def test_the_address_selects_a_layer_and_an_unknown_one_is_reported():
    assert handle_of(settled("inspect", layer="fc1.weight"))["name"] == "fc1"
    page = settled("inspect", layer="<b>nowhere</b>")
    assert not page.exception
    assert handle_of(page)["name"] == "conv3"


def test_a_criterion_with_its_own_score_shows_that_score():
    recipe = replace(state.HOME, criterion="taylor")
    page = settled("inspect", r=state.encode(recipe), layer="fc1.weight")
    title = next(title for title in figures(page) if title.startswith("fc1:"))
    assert "score at most" in title and "by taylor" in title
    assert "judges by its own score" in texts(page)
    assert "is seen after a run" in texts(page)  # no mask is claimed over the matrix


def test_channels_stand_in_line_and_the_pruned_ones_are_pale():
    recipe = replace(state.HOME, granularity="channel", sparsity=0.5)
    page = settled("inspect", r=state.encode(recipe), layer="conv2.weight")
    drops = preview(recipe).drops["conv2.weight"]
    figure = figures(page)[f"conv2: {drops} of 32 channels removed"]
    assert [len(bars["x"]) for bars in figure["data"]] == [drops, 32 - drops]
    page = settled("inspect", r=state.encode(recipe), layer="fc2.weight")
    assert any(box.value.startswith("fc2") for box in page.info)


def test_before_and_after_shows_the_finished_example():
    page = settled("inspect", layer="conv3.weight")
    page.segmented_control(key="side").set_value("Before and after").run()
    assert "conv3: 1,250 of 18,432 weights kept by the run" in figures(page)


def test_a_model_without_finished_runs_says_where_to_start_one():
    page = settled("inspect", r=state.encode(replace(state.HOME, model="digits-mlp")))
    page.segmented_control(key="side").set_value("Before and after").run()
    assert any("No finished run of this model yet" in box.value for box in page.info)


def test_units_and_filters():
    page = settled("inspect", layer="conv1.weight")
    page.segmented_control(key="behind").set_value("Units").run()
    assert "conv1: 16 outputs by mean |w|" in figures(page)
    page.segmented_control(key="behind").set_value("Filters").run()
    assert "16 filters of the first convolution" in figures(page)


def test_a_recipe_for_layers_of_another_model_is_one_sentence():
    page = settled("inspect", r=state.encode(replace(state.HOME, exclude=("nowhere.weight",))))
    assert not page.exception
    assert not page.error and sum("nowhere" in box.value for box in page.info) == 1
    settle(page.switch_page("views/model.py").run())
    assert len(page.dataframe) and not page.exception


# ---------------------------------------------------------------- the charts themselves


@pytest.mark.parametrize("total", [10, 144, 5_000, 10_000_000])
def test_joined_bins_keep_every_weight_and_the_reach(total):
    counts, edges = np.histogram(
        np.random.default_rng(0).normal(size=min(total, 5000)), 256, (-4, 4)
    )
    counts = counts * (total // counts.sum() or 1)
    wide, fewer = base.rebin(edges, counts, base.readable_bins(int(counts.sum())))
    assert fewer.sum() == counts.sum() and (wide[0], wide[-1]) == (edges[0], edges[-1])
    assert len(fewer) >= 32 and len(wide) == len(fewer) + 1


def test_no_weight_is_called_kept_where_whole_units_go() -> None:
    edges, counts = np.linspace(-1, 1, 257), np.arange(256)
    panels = [
        layers.Panel("a", edges, counts, None, 0.9),
        layers.Panel("b", edges, counts, None, 0.0),
    ]
    figure = layers.multiples(panels, "a", title="", dark=False)
    bars = {trace["name"]: trace["x"] for trace in figure["data"]}
    assert max(bars["before pruning"]) < 1 < min(bars["kept"])  # the first panel, the second
    assert not bars["removed"]


def test_sixty_layers_are_two_traces():
    edges, counts = np.linspace(-1, 1, 257), np.arange(256)
    panels = [layers.Panel(f"layer{i}.weight", edges, counts, 0.3, 0.5) for i in range(60)]
    figure = layers.multiples(panels, "layer3.weight", title="", dark=False)
    assert len(figure["data"]) == 2 and len(figure["layout"]["annotations"]) == 60


def test_a_layer_without_any_weight_or_spread_draws():
    assert one_layer.matrix(np.zeros((4, 4)), None, title="", dark=True, rows=4, columns=4)["data"]
    assert one_layer.filters(np.zeros((3, 2, 2)), title="", dark=False)["data"]
    assert one_layer.scores(np.zeros(5), title="", dark=False, threshold=0.0, log=False, x="score")[
        "data"
    ]
    assert one_layer.scores(
        np.array([0.0, 1e-9, 1.0]), title="", dark=False, threshold=0.0, log=True, x="score"
    )["data"]


@pytest.mark.parametrize(
    ("granularity", "layer", "noun"),
    [("n_of_m", "fc1.weight", "group"), ("kernel", "conv3.weight", "kernel")],
)
def test_units_that_come_in_thousands_are_drawn_as_a_spread(granularity, layer, noun):
    recipe = replace(state.HOME, granularity=granularity)
    page = settled("inspect", r=state.encode(recipe), layer=layer)
    assert not page.exception and not page.error
    title = next(title for title in figures(page) if f"{noun}s removed" in title)
    expected = preview(recipe)
    assert f"{expected.drops[layer]:,} of {expected.units[layer]:,}" in title
    assert sum(len(trace["x"]) for trace in figures(page)[title]["data"]) <= 256
