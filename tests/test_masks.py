"""Masks by hand, and against torch.nn.utils.prune."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as some
from torch import nn
from torch.nn.utils import prune

import pruning
from pruning.allocation.layers import RankedLayers
from pruning.allocation.ranked import rank
from pruning.allocation.ranking import Ranking
from pruning.allocation.scopes import lowest
from pruning.errors import (
    ModelError,
    NotFinite,
    NothingToPrune,
    OutOfRange,
    RecipeError,
    UnknownName,
)
from pruning.recipe import Recipe
from pruning.types import Workpiece, prunable
from pruning.units.layout import lay_out
from tests.toys import same, toy

TENTHS = [n / 10 for n in range(10)]


def by_hand_model(*values: float) -> Workpiece:
    """One linear layer with these weights, in two rows, and an output layer of large ones."""
    model = nn.Sequential(nn.Linear(len(values) // 2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor(values).reshape(2, -1))
        model[1].weight.fill_(100.0)
    return Workpiece("by hand", model, example=torch.zeros(1, len(values) // 2))


def kept(work: Workpiece, recipe: Recipe) -> list[int]:
    return pruning.choose(recipe, work)["0.weight"].flatten().int().tolist()


def test_magnitude_by_hand() -> None:
    # |w|: 3 1 2 / 0.5 4 1. Half of six is three: 0.5 and both 1s.
    work = by_hand_model(3, -1, 2, 0.5, -4, 1)
    assert kept(work, Recipe(scope="manual", ratios={"0.weight": 0.5})) == [1, 0, 1, 0, 1, 0]


def test_ties_are_pruned_by_flat_index_lowest_first() -> None:
    work = by_hand_model(1, -1, 1, 1, -1, 1)
    assert kept(work, Recipe(scope="manual", ratios={"0.weight": 0.5})) == [0, 0, 0, 1, 1, 1]


HALF_OF_CHANNELS = Recipe(granularity="channel", scope="manual", ratios={"0.weight": 0.5})


def test_channels_by_hand_are_pruned_with_their_bias() -> None:
    # Mean |w| of the rows: 2 and 1.8. The second neuron is removed, with its bias and the weights
    # that read it.
    work = by_hand_model(3, -1, 2, 0.4, -4, 1)
    keep = pruning.choose(HALF_OF_CHANNELS, work)
    assert keep["0.weight"].int().tolist() == [[1, 1, 1], [0, 0, 0]]
    assert keep["0.bias"].tolist() == [True, False]
    assert keep["1.weight"].int().tolist() == [[1, 0], [1, 0]]


def test_channels_without_an_example_are_pruned_layer_by_layer() -> None:
    work = replace(by_hand_model(3, -1, 2, 0.4, -4, 1), example=None)
    keep = pruning.choose(HALF_OF_CHANNELS, work)
    assert keep["0.weight"].int().tolist() == [[1, 1, 1], [0, 0, 0]]
    assert keep["0.bias"].tolist() == [True, False]
    assert keep["1.weight"].all()
    reason = "the model has no example input to follow through it."
    assert lay_out(HALF_OF_CHANNELS, work).why_by_layer == reason


def test_the_output_layer_keeps_its_channels_and_says_why() -> None:
    work = by_hand_model(3, -1, 2, 0.4, -4, 1)
    recipe = replace(HALF_OF_CHANNELS, ratios={"1.weight": 0.5})
    with pytest.raises(OutOfRange, match=r"ratio of 1.weight is 0.5.*answers, one for each class"):
        pruning.choose(recipe, work)


def test_a_layer_of_small_weights_keeps_min_units_under_global() -> None:
    work = toy("mlp")
    with torch.no_grad():
        work.model[2].weight.mul_(1e-6)
    keep = pruning.choose(Recipe(sparsity=0.9, min_units=5), work)
    assert int(keep["2.weight"].sum()) == 5
    total = sum(mask.numel() for mask in keep.values())
    assert sum(int((~mask).sum()) for mask in keep.values()) == round(0.9 * total)


@pytest.mark.parametrize("amount", TENTHS)
@pytest.mark.parametrize("name", ["mlp", "residual", "depthwise"])
def test_equal_to_torch_per_layer_and_global(name: str, amount: float) -> None:
    work = toy(name)
    per_layer = pruning.choose(Recipe(scope="per_layer", sparsity=amount), work)
    ours = pruning.choose(Recipe(scope="global", sparsity=amount), work)
    paths = [name.removesuffix(".weight") for name in prunable(work.model)]
    for path in paths:
        module = work.model.get_submodule(path)
        prune.l1_unstructured(module, "weight", amount)
        assert torch.equal(module.weight_mask.bool(), per_layer[f"{path}.weight"])
    modules = {path: toy(name).model.get_submodule(path) for path in paths}
    pairs = [(module, "weight") for module in modules.values()]
    prune.global_unstructured(pairs, prune.L1Unstructured, amount=amount)
    theirs = {f"{path}.weight": module.weight_mask.bool() for path, module in modules.items()}
    if all(mask.any() for mask in theirs.values()):
        assert same(theirs, ours)
    else:  # torch empties a layer here; ours keeps one weight of it, and spends as much in all
        assert amount == 0.9
        assert all(mask.any() for mask in ours.values())
        assert sum(int(mask.sum()) for mask in ours.values()) == sum(
            int(mask.sum()) for mask in theirs.values()
        )


@pytest.mark.parametrize("amount", TENTHS)
@pytest.mark.parametrize(("norm", "pool", "n"), [("l1", "sum", 1), ("l2", "sum", 2)])
def test_equal_to_torch_by_channel(norm: str, pool: str, n: int, amount: float) -> None:
    work = toy("residual")
    recipe = Recipe(
        options={"norm": norm},
        granularity="row",
        granularity_options={"pool": pool},
        scope="per_layer",
        sparsity=amount,
    )
    ours = pruning.choose(recipe, work)
    for path in ("first", "second"):
        module = work.model.get_submodule(path)
        prune.ln_structured(module, "weight", amount, n=n, dim=0)
        if round(amount * 6) < 6:  # torch empties the layer; here it keeps min_units
            assert torch.equal(module.weight_mask.bool(), ours[f"{path}.weight"])


scores = some.lists(
    some.sampled_from([-np.inf, -1.5, 0.0, -0.0, 0.25, 1.0, 1.0, 3.0])
    | some.floats(-2, 2, width=32),
    min_size=1,
    max_size=9,
)


@given(some.lists(scores, min_size=1, max_size=4), some.integers(0, 40), some.integers(1, 3))
def test_the_lowest_of_several_arrays_equal_one_stable_sort(
    values: list[list[float]], count: int, min_units: int
) -> None:
    units = {str(i): np.sort(np.array(v, np.float32)) for i, v in enumerate(values)}
    layers = RankedLayers(units, dict.fromkeys(units, 1), min_units)
    removable = [scores[: max(0, len(scores) - min_units)] for scores in units.values()]
    layer_of = np.repeat(np.arange(len(removable)), [len(scores) for scores in removable])
    order = np.concatenate(removable).argsort(kind="stable")[:count]
    wanted = np.bincount(layer_of[order], minlength=len(removable)).tolist()
    assert list(lowest(layers, units, count).values()) == wanted


@given(
    some.lists(some.tuples(some.integers(1, 6), some.integers(1, 8)), min_size=1, max_size=4),
    some.floats(0, 0.99),
    some.integers(0, 9),
)
def test_units_of_different_sizes_never_overspend(
    layers: list[tuple[int, int]], sparsity: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    units = {}
    sizes = {}
    for i, (count, size) in enumerate(layers):
        units[str(i)] = np.sort(generator.integers(0, 3, count).astype(np.float32))
        sizes[str(i)] = size
    ranked = RankedLayers(units, sizes)
    budget = round(sparsity * ranked.weights)
    drops = lowest(ranked, units, budget)
    assert sum(drops[n] * sizes[n] for n in drops) <= budget
    assert all(drops[n] < len(units[n]) for n in drops)


def test_ranking_survives_its_file(tmp_path: Path) -> None:
    recipe = Recipe(granularity="channel", sparsity=0.5)
    ranking = rank(recipe, toy("residual")).ranking
    ranking.save(tmp_path / "ranking.npz")
    loaded = Ranking.load(tmp_path / "ranking.npz")
    assert loaded.preview(recipe) == ranking.preview(recipe)
    shares = [0.0, 0.3, 0.9]
    previews = [ranking.preview(recipe, share) for share in shares]
    table = [[layer.kept for layer in preview.layers] for preview in previews]
    assert loaded.table(recipe, shares).tolist() == table


def test_half_precision_is_ranked_exactly() -> None:
    work = toy("mlp")
    work.model.bfloat16()
    keep = pruning.choose(Recipe(sparsity=0.5), work)
    total = sum(mask.numel() for mask in keep.values())
    assert sum(int(mask.sum()) for mask in keep.values()) == total - round(0.5 * total)


def test_masks_of_another_model_are_refused() -> None:
    keep = pruning.choose(Recipe(), toy("mlp"))
    with pytest.raises(UnknownName, match=r"no parameter to mask called '0.weight'"):
        pruning.apply(keep, toy("residual").model)
    with pytest.raises(ModelError, match="it is for another model"):
        pruning.apply({"0.weight": torch.ones(2, 2, dtype=torch.bool)}, toy("mlp").model)


def test_nan_weights_and_empty_models_are_refused() -> None:
    work = toy("mlp")
    with torch.no_grad():
        work.model[0].weight[0, :2] = torch.nan
    with pytest.raises(NotFinite, match=r"0.weight holds 2 weights that are NaN"):
        pruning.choose(Recipe(), work)
    with pytest.raises(NothingToPrune):
        prunable(nn.ReLU())


def test_excluding_everything_is_refused() -> None:
    work = toy("mlp")
    with pytest.raises(RecipeError, match="Every layer is excluded"):
        pruning.choose(Recipe(exclude=tuple(prunable(work.model))), work)
    with pytest.raises(UnknownName, match="no layer called 'nope'"):
        pruning.choose(Recipe(exclude=("nope",)), work)
