"""Inside compared runs: by-layer sparsity, overlap, classes and flips, each on a toy."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from dashboard import example
from dashboard.charts import compare, compare_improvements, compare_inside
from dashboard.charts.compare import ComparedRun
from dashboard.charts.compare_improvements import RunImprovements
from dashboard.charts.compare_inside import AnsweredRun
from dashboard.charts.improvements import against_dense
from pruning.events import Finished, from_json
from pruning.metrics import Accuracy, Histogram, Layer, Score, bin_edges
from pruning.recipe import Recipe
from pruning.runs.results import Answers, PackedMask, load_run, overlap_of
from pruning.stats import Overlap

TARGETS = np.array([0, 0, 0, 1, 1, 2])
A = Answers(TARGETS, TARGETS, np.array([0, 0, 1, 1, 1, 2]))  # one of class 0 wrong
B = Answers(TARGETS, TARGETS, np.array([0, 2, 0, 1, 0, 0]))  # gains one of 0; loses 0, 1 and 2


def ended() -> Finished:
    lines = (example.EXAMPLE / "events.jsonl").read_text(encoding="utf-8").splitlines()
    end = from_json(lines[-1])
    assert isinstance(end, Finished)
    return end


def run(letter: str, **more: Any) -> ComparedRun:
    return ComparedRun(letter, letter, letter, Recipe(model="digits-cnn"), ended(), **more)


def with_layers(letter: str, **kept: int) -> ComparedRun:
    layers = tuple(Layer(f"{name}.weight", 10, n, 0, 0) for name, n in kept.items())
    end = ended()
    return replace(run(letter), end=replace(end, final=replace(end.final, layers=layers)))


def test_the_shares_of_layers_stand_on_one_scale() -> None:
    runs = [with_layers("A", one=10, two=5), with_layers("B", one=2, two=4, three=0)]
    figure = compare_inside.layers(runs, dark=False)
    trace, numbers = figure["data"]
    assert numbers["text"] == ["0", "80", "50", "60", "100"]  # none where a run has no such layer
    assert (trace["zmin"], trace["zmax"]) == (0, 100)
    assert trace["z"] == [[0, 80], [50, 60], [None, 100]]
    assert figure["layout"]["yaxis"]["ticktext"] == ["one", "two", "three"]
    assert figure["layout"]["title"]["text"].endswith("one differs most, 0 in A and 80 in B")
    assert "three: no such layer" in trace["hovertext"][2][0]
    table = compare_inside.layer_table(runs)
    assert list(table.columns) == ["layer", "A", "B"] and table["B"].tolist() == [80, 60, 100]
    same = compare_inside.layers([with_layers("A", one=5), with_layers("B", one=5)], dark=True)
    assert same["layout"]["title"]["text"].endswith("the same in all runs")


def test_a_hundred_layers_have_no_numbers_and_stay_on_the_page() -> None:
    many = with_layers("A", **{f"layer{i}": i % 10 for i in range(100)})
    figure = compare_inside.layers([many, many], dark=False)
    assert len(figure["data"]) == 1 and figure["layout"]["height"] < 1600


def test_overlap_is_below_the_diagonal_and_random_masks_above() -> None:
    overlaps = {("A", "B"): Overlap(0.5, 0.1), ("A", "C"): None, ("B", "C"): Overlap(0.9, 0.8)}
    figure = compare_inside.overlap("ABC", overlaps, dark=False)
    assert figure["data"][0]["z"] == [[None, 0.1, None], [0.5, None, 0.8], [None, 0.9, None]]
    # Not the highest, which random masks have too, but the furthest from random.
    assert figure["layout"]["title"]["text"].startswith("A and B keep the most")
    assert compare_inside.overlap_table(overlaps)["kept by both"].tolist() == [0.5, 0.9]


def test_packed_masks_overlap_as_the_plain_ones() -> None:
    generator = np.random.default_rng(0)
    one, other = generator.random((2, 3, 7, 5)) < 0.4  # 105 weights: no whole number of bytes
    packed = [{"w": PackedMask(np.packbits(keep), (3, 7, 5))} for keep in (one, other)]
    value = overlap_of(*packed)
    assert value is not None
    assert value.value == pytest.approx((one & other).sum() / (one | other).sum())
    assert overlap_of(packed[0], {"v": packed[1]["w"]}) is None
    assert overlap_of(packed[0], {"w": PackedMask(packed[1]["w"].bits, (105,))}) is None
    assert overlap_of({}, {}) is None
    # Of layers that only one of them may prune nothing is said.
    more = {**packed[1], "bias": PackedMask(np.packbits([True] * 3), (3,))}
    assert overlap_of(packed[0], more) == value


def test_classes_lose_and_gain_against_the_reference() -> None:
    a, b = AnsweredRun("A", A), AnsweredRun("B", B)
    table = compare_inside.class_table([b], a, ["zero", "one"])
    assert table["class"].tolist() == ["zero", "one", "2"]
    assert table["examples"].tolist() == [3, 2, 1] and table["A right"].tolist() == [2, 2, 1]
    assert table["B"].tolist() == [0, -1, -1]
    figure = compare_inside.classes([b], a, ["zero", "one"], dark=False)
    assert figure["data"][0]["z"] == [[0], [-1], [-1]]
    assert figure["layout"]["title"]["text"].endswith("B lost 1 of 2 examples of class one")
    better = compare_inside.classes([a], AnsweredRun("B", B), [], dark=False)
    assert better["layout"]["title"]["text"].endswith("no class lost any")


def test_of_many_classes_those_that_changed_most_are_drawn() -> None:
    targets = np.arange(300)
    right = Answers(targets, targets, targets)
    wrong = Answers(targets, targets, np.where(targets == 250, 0, targets))
    runs = [AnsweredRun("B", wrong)]
    figure = compare_inside.classes(runs, AnsweredRun("A", right), [], dark=False)
    names = figure["layout"]["yaxis"]["ticktext"]
    assert names[0] == "250" and len(names) == compare_inside.MOST_CLASSES


def test_flipped_examples_come_in_turn_by_class() -> None:
    assert compare_inside.flips(B, A).gained == 1 and compare_inside.flips(B, A).lost == 3
    gained, lost = compare_inside.flipped(B, A, 12)
    assert (gained, lost) == ([2], [1, 4, 5])
    targets = np.array([0, 0, 0, 1])
    wrong = Answers(targets, targets, 1 - targets)
    right = Answers(targets, targets, targets)
    assert compare_inside.flipped(wrong, right, 2) == ([], [0, 3])


def test_runs_of_unlike_data_or_metric_are_refused_with_the_reason() -> None:
    a = run("A", data="digits", answers=A)
    assert compare.unlike(run("B", data="digits", answers=B), a) == ""
    assert compare.unlike(run("B"), a) == ""  # not known to be others
    other = compare.unlike(run("B", data="MNIST"), a)
    assert other == "it was measured on MNIST, A on digits"
    moved = replace(A, targets=TARGETS[::-1])
    assert "test examples are others" in compare.unlike(run("B", answers=moved), a)

    def judged(**quality: Any) -> ComparedRun:
        end = ended()
        final = replace(end.final, **quality)
        return replace(run("B"), end=replace(end, final=final, compact=None))

    fewer = judged(accuracy=Accuracy(90, 100))
    assert "100 test examples" in compare.unlike(fewer, run("A"))
    score = judged(accuracy=None, score=Score("f1", 0.9, 360))
    assert compare.unlike(score, run("A")) == "it is judged by f1, A by accuracy"
    assert compare.unlike(judged(accuracy=None), run("A")) == ""


def test_a_difference_is_judged_on_the_same_examples_where_answers_are_there() -> None:
    n = 1000
    targets = np.zeros(n, int)
    worse = np.where(np.arange(n) < 12, 1, 0)  # 12 more wrong, and none gained
    a = run("A", answers=Answers(targets, targets, targets))
    b = run("B", answers=Answers(targets, targets, worse))
    assert compare.verdict(run("B"), run("A")) == compare.SAME
    assert compare.verdict(b, a) == "lower" and compare.verdict(a, b) == "higher"
    few = replace(b, answers=Answers(targets, targets, np.where(np.arange(n) < 2, 1, 0)))
    assert compare.verdict(few, a) == compare.SAME
    change = compare.paired_change(b, a)
    assert change is not None and change.value == pytest.approx(-0.012)
    table = compare.run_table([a, b], a)
    assert table["against reference"][1].startswith("−1.2 points (")


def test_the_shipped_example_has_its_answers() -> None:
    result = load_run(example.EXAMPLE)
    assert result.answers is not None and result.finished.deliverable.accuracy
    assert result.answers.right.sum() == result.finished.deliverable.accuracy.correct


def test_ratios_of_many_runs_are_cells_and_of_few_are_marks() -> None:
    panel = against_dense(ended(), structured=False)
    runs = [RunImprovements(letter, "magnitude", panel) for letter in "ABCDEFGHIJKL"]
    few = compare_improvements.chart(runs[:6], dark=False)
    assert len(few["data"]) == 6
    many = compare_improvements.chart(runs, dark=False)
    trace, numbers = many["data"]
    assert trace["type"] == "heatmap" and many["layout"]["height"] < 700
    names = compare_improvements.figure_names(runs)
    assert many["layout"]["yaxis"]["ticktext"] == names
    kept = names.index("weights that are not zero")
    assert trace["z"][kept][0] > 3
    places = [at for at, y in enumerate(numbers["y"]) if y == trace["y"][kept]]
    assert [numbers["text"][at] for at in places] == ["10×"] * 12


def test_the_whole_models_weights_stand_in_the_same_bins_and_none_is_lost() -> None:
    wide, narrow = bin_edges(np.array([2.0])), bin_edges(np.array([0.3]))
    counts = np.arange(256)
    layers = {
        "first": Histogram(wide, counts, counts // 2),
        "second": Histogram(narrow, counts[::-1].copy(), counts * 0),
    }
    one, other = compare.whole_model([(run("A"), layers), (run("B"), {"first": layers["first"]})])
    assert np.array_equal(one[1].edges, other[1].edges) and one[1].edges[-1] == 2.0
    assert one[1].dense.sum() == 2 * counts.sum() and one[1].dense.min() >= 0
    assert np.array_equal(other[1].dense, counts), "what has these bins already is as it was"
    # The narrow layer's weights lie where it has them.
    inside = np.abs(one[1].edges[:-1]) <= 0.32
    assert (one[1].dense - other[1].dense)[~inside].sum() == 0
    table = compare.magnitudes([one, other])
    assert list(table["kept, weights"]) == [int((counts // 2).sum())] * 2
    assert table["dense, 50% below |w|"][0] < table["dense, 50% below |w|"][1]
    assert compare.whole_model([(run("A"), {})]) == []
