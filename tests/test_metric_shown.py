"""A metric of the task's own is shown by its name and in its unit wherever accuracy would be."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import pruning
from dashboard import tables, words
from dashboard.charts import compare, comparison_runs, improvements, prune, results, sensitivity
from pruning import Batches, Recipe, Workpiece
from pruning.cli import text
from pruning.events import Epoch, Event, Finished, Measured
from pruning.metrics import Score
from pruning.tasks import MEAN_ABSOLUTE_ERROR, PIXEL_ACCURACY

RECIPE = Recipe(sparsity=0.5, epochs=1, batch=8)


def regression() -> Workpiece:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    data = Batches(torch.randn(16, 4), torch.randn(16, 1))
    return Workpiece("r", model, data, data, data, loss=F.mse_loss, metric=MEAN_ABSOLUTE_ERROR)


def segmentation() -> Workpiece:
    torch.manual_seed(0)
    data = Batches(torch.randn(16, 3, 4, 4), torch.randint(0, 2, (16, 4, 4)))
    return Workpiece("s", nn.Conv2d(3, 2, 1), data, data, data, metric=PIXEL_ACCURACY)


@pytest.fixture(scope="module")
def events() -> list[Event]:
    return list(pruning.run(RECIPE, regression()))


@pytest.fixture(scope="module")
def end(events: list[Event]) -> Finished:
    assert isinstance(events[-1], Finished)
    return events[-1]


def test_words_of_a_metric() -> None:
    error = Score("error", 0.1312, 360, 0.1211, 0.1413, False, "mm")
    assert words.percent(error) == "0.1312 mm ± 0.0101"
    assert words.points(replace(error, value=0.1212), error) == "−0.01 mm"
    share = Score("mean IoU", 0.875, 10, 0.8, 0.95, unit="%")
    assert words.percent(share) == "87.5 % ± 7.5"
    assert words.points(replace(share, value=0.86), share) == "−1.5 points"
    assert words.percent(Score("R²", 0.5, 10)) == "0.5"
    assert words.heading("mean IoU") == "Mean IoU"


def test_the_shell_names_the_metric(events: list[Event], end: Finished) -> None:
    for event in events:
        line = text.event(event)
        if isinstance(event, Measured | Epoch):
            assert "mean absolute error 0." in line and "accuracy" not in line
    assert "note     accuracy is not measured: targets are not one class" in text.event(end)
    flat = text.flat(end.final)
    assert flat["metric"]["name"] == "mean absolute error" and "calibration" in flat["not_measured"]


def test_the_page_names_the_metric(events: list[Event], end: Finished) -> None:
    history = prune.history(events)
    table = results.stage_table(end, RECIPE, history.validation)
    first, second = table["measured"][:2]
    assert (first, second) == ("mean absolute error (test)", "mean absolute error (validation)")
    score = end.final.score
    assert score is not None
    assert table["after fine-tuning"][0] == words.percent(score)
    label, value, _ = results.tiles(history)[0]
    assert (label, value) == ("Mean absolute error, test", words.percent(score))
    sentence = results.verdict(end, RECIPE, None)
    assert f"Mean absolute error is {words.percent(score)}" in sentence
    assert tables.headline(end)[0][0] == "mean absolute error"
    panel = prune.curves(history, "id", "magnitude", dark=False)["panels"][0]
    assert panel["kind"] == "number" and panel["title"].startswith("Mean absolute error, test")
    epoch = next(event for event in events if isinstance(event, Epoch))
    assert epoch.score is not None
    assert panel["lines"][0]["points"][0][1] == epoch.score.value
    assert "mean absolute error, validation" in prune.epochs_table(history)


def test_improvements_of_an_error_are_where_it_falls(end: Finished) -> None:
    score = end.dense.score
    assert score is not None
    lower = replace(score, value=score.value - 0.1)
    better = replace(end.final, score=lower, score_change=improvements.Spread(-0.12, -0.1, -0.08))
    panel = improvements.against_dense(replace(end, final=better), structured=False)
    row = panel.rows[0]
    assert row.name == "mean absolute error on test data"
    improvement = row.improvements["masked"]
    assert improvement.verdict == "better"
    assert improvements.amount(row, improvement) == "−0.1 (−0.12 to −0.08)"
    calibration = next(row for row in panel.rows if row.name == "calibration error")
    assert "not one class" in calibration.improvements["masked"].why


def test_a_map_without_accuracy_says_that_the_loss_was_measured() -> None:
    points = list(pruning.sensitivity(regression(), levels=(0.5,)))
    assert sensitivity.progress(points, len(points)).endswith("measured")
    view = sensitivity.MapView("map", "", "map", "weights", 1.0, 16, False, None, False)
    cell = sensitivity._cell(points[0], 1.0, view)
    assert cell["say"].endswith("measured on validation data.")


def compared(letter: str, end: Finished, recipe: Recipe = RECIPE) -> compare.ComparedRun:
    return compare.ComparedRun(id=letter, letter=letter, label=letter, recipe=recipe, end=end)


def test_runs_of_one_metric_are_compared_and_those_of_two_are_not(end: Finished) -> None:
    pixels = list(pruning.run(replace(RECIPE, epochs=0), segmentation()))[-1]
    assert isinstance(pixels, Finished)
    a, b, c = compared("A", end), compared("B", end), compared("C", pixels)
    assert compare.verdict(b, a) == compare.SAME
    assert compare.verdict(c, a) == "another metric"
    assert "mean absolute error does not tell them apart" in compare.finding([a, b], a)
    figure = compare.scatter([a, b, c], a, "weights", dark=False)
    assert figure["layout"]["yaxis"]["title"]["text"] == "mean absolute error on test data"
    low, high = figure["layout"]["yaxis"]["range"]
    assert end.final.score is not None and low < end.final.score.value < high
    assert "mean absolute error" in compare.run_table([a, c], a)
    assert "metric value" in compare.csv([a, c], a).decode().splitlines()[0]
    assert compare.scatter([c], c, "weights", dark=False)["layout"]["yaxis"]["title"]["text"] == (
        "pixel accuracy on test data, %"
    )
    rows = comparison_runs.table(end, [])
    assert "mean absolute error, test" in rows
