"""by_sensitivity: a measured allocation path, followed as far as the budget allows."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pruning
import sample_models
from pruning import events
from pruning.allocation.layers import RankedLayers, Traced
from pruning.allocation.path import AllocationPath, PathStep
from pruning.allocation.ranked import rank
from pruning.allocation.ranking import Ranking
from pruning.allocation.scopes import allocate
from pruning.errors import DataError, OutOfRange, RecipeError, Stopped
from pruning.recipe import Recipe
from pruning.selection import rank_with_path
from pruning.sensitivity_map import netadapt
from pruning.types import Workpiece
from pruning.units.layout import lay_out
from tests.toys import toy

# Two layers of 4 and 8 weights. Step 1 removes 2 of a, then 1 of b; step 2 removes 4 of b.
# Of 10 images 9, 9 and 7 are correct.
STEPS = (
    PathStep((), 0, 1.0, 9),
    PathStep((("a", 2), ("b", 1)), 3, 1.2, 9),
    PathStep((("b", 4),), 7, 2.0, 7),
)
PATH = AllocationPath(STEPS, 10)


def two(**fields: object) -> RankedLayers:
    scores = {"a": np.arange(4.0), "b": np.arange(8.0) - 10}
    return RankedLayers(scores, {"a": 1, "b": 1}, path=PATH, **fields)


@pytest.mark.parametrize(
    ("share", "drops"),
    [
        (0, {"a": 0, "b": 0}),
        (1 / 12, {"a": 1, "b": 0}),  # half of the first step
        (3 / 12, {"a": 2, "b": 1}),  # step 1 whole
        (5 / 12, {"a": 2, "b": 3}),  # and half of step 2
        (8 / 12, {"a": 2, "b": 6}),  # one beyond the path: the lowest score anywhere is b's
        (0.99, {"a": 3, "b": 7}),  # both keep min_units
    ],
)
def test_the_path_is_followed_as_far_as_the_budget(share: float, drops: dict[str, int]) -> None:
    assert allocate("by_sensitivity", two(), share, {}) == drops


def test_predictions_are_interpolated_between_the_steps() -> None:
    assert PATH.predicted(3) == (pytest.approx(0.2), 0.0)
    # Half-way between 9 and 7 correct of 10.
    assert PATH.predicted(5) == (pytest.approx(0.6), pytest.approx(0.1))
    assert PATH.within(0.1) == pytest.approx(5)
    assert PATH.within(0.5) == 7
    assert AllocationPath.from_dict(json.loads(json.dumps(PATH.to_dict()))) == PATH


def test_a_tolerated_drop_stops_earlier() -> None:
    assert allocate("by_sensitivity", two(), 0.9, {"tolerate": 10.0}) == {"a": 2, "b": 3}
    # The share asked for comes first.
    assert allocate("by_sensitivity", two(), 0.1, {"tolerate": 10.0}) == {"a": 1, "b": 0}
    with pytest.raises(OutOfRange, match="from 0, up to 100"):
        allocate("by_sensitivity", two(), 0.9, {"tolerate": -1.0})


def test_a_share_of_macs_or_bytes_is_reached_and_never_passed() -> None:
    # b's weights are used 9 times, a's once: 76 MACs. Without 3 weights (a: 2, b: 1) 11 fewer,
    # without 4 (b: 2) 20 fewer.
    layers = two(trace=lambda: Traced({"a": 4, "b": 72}, None), budget="macs")
    assert allocate("by_sensitivity", layers, 15 / 76, {}) == {"a": 2, "b": 1}
    # A bit for each weight (1 byte a layer) and 4 bytes for each kept, of 48: without 5 they are
    # 1+8 and 1+20, without 6 they are 1+8 and 1+16.
    assert allocate("by_sensitivity", two(budget="bytes"), 18 / 48, {}) == {"a": 2, "b": 3}
    bare = Workpiece("bare", toy("mlp").model)
    with pytest.raises(RecipeError, match="no example input"):
        pruning.choose(Recipe(budget="macs"), bare)


def test_scores_without_measurements_are_refused() -> None:
    with pytest.raises(RecipeError, match="hold no measurements"):
        allocate("by_sensitivity", replace(two(), path=None), 0.5, {})
    with pytest.raises(DataError, match="by_sensitivity needs validation data"):
        pruning.choose(Recipe(scope="by_sensitivity"), replace(toy("mlp"), validation=None))


@pytest.mark.parametrize("name", ["mlp", "residual", "attention"])
def test_a_longer_path_continues_a_shorter_one(name: str, tmp_path: Path) -> None:
    work = toy(name)
    far = Recipe(scope="by_sensitivity", sparsity=0.9)
    netadapt._paths.clear()
    whole = rank_with_path(far, work, lay_out(far, work)).ranking.path
    netadapt._paths.clear()
    half = netadapt.search(replace(far, sparsity=0.5), work, rank(Recipe(), work), cache=tmp_path)
    netadapt._paths.clear()
    assert (
        whole
        and len(half.steps) < len(whole.steps)
        and half.steps == whole.steps[: len(half.steps)]
    )
    assert netadapt.search(far, work, rank(Recipe(), work), cache=tmp_path) == whole


def test_it_can_be_stopped() -> None:
    netadapt._paths.clear()
    with pytest.raises(Stopped):
        netadapt.search(
            Recipe(sparsity=0.9), toy("mlp"), rank(Recipe(), toy("mlp")), stop=lambda: True
        )


@pytest.mark.parametrize("granularity", ["weight", "channel"])
def test_the_preview_survives_the_disk_and_says_what_pruning_does(
    granularity: str, tmp_path: Path
) -> None:
    work = sample_models.load("digits-mlp")
    recipe = Recipe(scope="by_sensitivity", sparsity=0.95, granularity=granularity)
    rank_with_path(recipe, work, lay_out(recipe, work)).ranking.save(tmp_path / "ranking.npz")
    ranking = Ranking.load(tmp_path / "ranking.npz")
    for share in (0.3, 0.8, 0.95):
        less = replace(recipe, sparsity=share)
        keep = pruning.choose(less, work)
        kept = {name: int(mask.sum()) for name, mask in keep.items() if mask.dim() > 1}
        assert {layer.name: layer.kept for layer in ranking.preview(less).layers} == kept


def test_it_finds_what_uniform_pruning_misses_and_predicts_it() -> None:
    work = sample_models.load("digits-mlp")
    history = list(pruning.run(Recipe(scope="by_sensitivity", sparsity=0.9), work))
    *_, uniform = pruning.run(Recipe(scope="per_layer", sparsity=0.9), work)
    predicted = next(event for event in history if isinstance(event, events.Forecast))
    finished = history[-1]
    assert isinstance(finished, events.Finished) and isinstance(uniform, events.Finished)
    assert finished.final.accuracy and uniform.final.accuracy
    assert finished.final.accuracy.correct > uniform.final.accuracy.correct + 50
    assert predicted.accuracy
    assert predicted.drop_achieved == pytest.approx(predicted.drop, abs=0.02)
    assert predicted.loss_achieved == pytest.approx(predicted.loss, abs=0.05)
    assert events.from_json(events.to_json(predicted)) == predicted


def test_excluded_layers_stay_whole() -> None:
    work = toy("mlp")
    keep = pruning.choose(Recipe(scope="by_sensitivity", sparsity=0.8, exclude=("2.weight",)), work)
    assert keep["2.weight"].all()
    removed = sum(int((~mask).sum()) for name, mask in keep.items() if name != "2.weight")
    assert removed == round(0.8 * (60 + 21))
