"""Scores sorted on demand read as the sorted array, wherever they are looked at."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import pruning
from pruning import types
from pruning.allocation import ranked as ranked_module
from pruning.allocation.ascending import SMALL, Ascending, ascending
from pruning.allocation.layers import Array, RankedLayers
from pruning.allocation.scopes import allocate
from pruning.recipe import Recipe
from pruning.types import Workpiece, named_weights
from tests.toys import toy

RANDOM = np.random.default_rng(0)
COUNT = 5000
SETS: dict[str, NDArray[np.float32]] = {
    "normal": RANDOM.standard_normal(COUNT),
    "magnitudes": np.abs(RANDOM.standard_normal(COUNT)),
    "all equal": np.full(COUNT, 0.25),
    "zeros of both signs": np.where(RANDOM.random(COUNT) < 0.5, -0.0, 0.0),
    "few values": RANDOM.integers(-3, 4, COUNT) / 8,
    "removed before": np.where(RANDOM.random(COUNT) < 0.3, -np.inf, RANDOM.random(COUNT)),
    "all scales": RANDOM.choice([-1, 1], COUNT) * 10.0 ** RANDOM.uniform(-44, 38, COUNT),
    "rounded": np.round(RANDOM.standard_normal(COUNT), 2),
}
SETS = {name: values.astype(np.float32) for name, values in SETS.items()}


@pytest.mark.parametrize("name", SETS)
def test_reads_as_the_sorted_array(name: str) -> None:
    values = SETS[name]
    expected, lazy = np.sort(values), Ascending(values)
    assert len(lazy) == len(expected)
    places = [0, 1, COUNT // 3, COUNT - 1, -1]
    assert [lazy[i] for i in places] == [expected[i] for i in places]
    for start, stop in ((0, 0), (0, 3), (10, 700), (COUNT - 2, None), (None, COUNT // 2), (9, 3)):
        assert np.array_equal(lazy[start:stop], expected[start:stop])
    around = [*expected[::97], 0.0, -0.0, 1e-45, -1e-45, np.inf, -np.inf, 1e300, -1e300, 0.1, 1 / 3]
    # Between two floats, and on the edges of buckets.
    edges = (np.arange(-500, 500) << 17).astype(np.int32)
    around += [float(x) for x in edges.view(np.float32) if np.isfinite(x)]
    around += [float(x) for x in (edges - 1).view(np.float32) if np.isfinite(x)]
    around += [(float(a) + float(b)) / 2 for a, b in pairwise(expected[:51])]
    for value in around:
        for side in ("left", "right"):
            # As float64, so that the array and not the number gives way.
            place = expected.astype(np.float64).searchsorted(float(value), side)
            assert lazy.searchsorted(value, side) == place, (value, side)
            assert np.searchsorted(lazy, value, side) == place
    with pytest.raises(IndexError):
        lazy[COUNT]
    assert np.array_equal(np.asarray(lazy), expected)


def test_only_what_is_looked_at_is_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    lazy = Ascending(SETS["magnitudes"])
    sizes = []
    sort = np.sort
    monkeypatch.setattr(np, "sort", lambda values: sizes.append(len(values)) or sort(values))
    lazy.searchsorted(float(lazy[COUNT // 2]))
    assert len(sizes) == 1 and sizes[0] < COUNT / 20


def test_short_and_double_ones_are_sorted_at_once() -> None:
    assert isinstance(ascending(np.ones(SMALL, np.float32)), np.ndarray)
    assert isinstance(ascending(np.ones(SMALL + 1, np.float64)), np.ndarray)
    assert isinstance(ascending(np.ones(SMALL + 1, np.float32)), Ascending)


@pytest.mark.parametrize("scope", ["global", "per_layer", "lamp", "erk", "threshold"])
@pytest.mark.parametrize("min_units", [1, 4000])
@pytest.mark.parametrize("budget", ["weights", "bytes"])
def test_every_scope_decides_alike(scope: str, min_units: int, budget: str) -> None:
    names = list(SETS)[:6]
    shapes = {name: (50, 100) for name in names}

    def layers(make: type[Ascending] | None) -> RankedLayers:
        units: dict[str, Array] = {}
        for name in names:
            units[name] = make(SETS[name]) if make else np.sort(SETS[name])  # type: ignore[assignment]
        sizes = dict.fromkeys(names, 1)
        return RankedLayers(units, sizes, min_units, shapes=shapes, budget=budget)

    for share in (0.0, 1e-4, 0.2, 0.31, 0.5, 0.77, 0.999, 1.0):
        expected = allocate(scope, layers(None), share, {})
        assert allocate(scope, layers(Ascending), share, {}) == expected, share


def test_the_lowest_anywhere_are_exactly_the_lowest() -> None:
    # Against one merged, stable sort, with ties everywhere.
    units = {name: np.sort(SETS[name]) for name in ("few values", "rounded", "removed before")}
    layers = RankedLayers(units, dict.fromkeys(units, 1), shapes=dict.fromkeys(units, (50, 100)))
    owner = np.repeat(np.arange(3), COUNT)
    order = np.concatenate(list(units.values())).argsort(kind="stable")
    for share in np.linspace(0, 0.7, 40):
        by_layer = np.bincount(owner[order[: round(share * 3 * COUNT)]], minlength=3)
        drops = allocate("global", layers, float(share), {})
        assert list(drops.values()) == by_layer.tolist()


# ---------------------------------------------------------------- work that is done once


def test_choose_looks_at_each_weight_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []

    def noted(name: str, values: torch.Tensor) -> None:
        looked.append(name)

    monkeypatch.setattr(types, "check_finite", noted)
    for granularity in ("weight", "channel", "row", "kernel"):
        work = toy("residual")
        looked.clear()
        pruning.choose(Recipe(granularity=granularity), work)
        assert looked == list(named_weights(work.model))


def test_the_model_is_run_once_and_only_for_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[str] = []
    count = ranked_module.count_uses

    def counted(*arguments: object) -> object:
        passes.append("pass")
        return count(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(ranked_module, "count_uses", counted)
    work = toy("residual")
    for granularity in ("weight", "channel"):
        for scope in ("global", "per_layer", "erk", "lamp"):
            pruning.choose(Recipe(granularity=granularity, scope=scope), work)
    assert not passes
    pruning.choose(Recipe(budget="macs"), work)
    assert len(passes) == 1
    pruning.choose(Recipe(scope="per_layer", scope_options={"output": 0.5}), work)
    assert len(passes) == 2
    ranking = pruning.allocation.ranked.rank(Recipe(), work).ranking
    assert len(passes) == 2
    assert ranking.macs and ranking.output and ranking.macs
    assert len(passes) == 3


def test_a_weight_that_is_not_finite_is_named_whatever_its_place() -> None:
    for value in (torch.nan, torch.inf, -torch.inf):
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            weights = torch.zeros(3, 4, dtype=dtype)
            assert types.all_finite(weights)
            weights[1, 2] = value
            assert not types.all_finite(weights)


def test_ties_at_the_threshold_are_found_only_where_some_are_kept() -> None:
    scores = torch.tensor([0.5, 0.1, 0.5, 0.9, 0.5])
    in_order = np.sort(scores.numpy())
    kept = [ranked_module._kept(scores, in_order, count).tolist() for count in range(1, 5)]
    assert kept == [
        [True, False, True, True, True],
        [False, False, True, True, True],
        [False, False, False, True, True],
        [False, False, False, True, False],
    ]


def test_a_large_layer_is_pruned_as_a_plain_sort_has_it() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(300, 200)
    with torch.no_grad():
        model.weight.copy_((model.weight * 400).round() / 400)  # ties
    work = Workpiece("one", model)
    for share in (0.1, 0.5, 0.93):
        keep = pruning.choose(Recipe(sparsity=share), work)["weight"].flatten()
        order = model.weight.detach().abs().flatten().argsort(stable=True)
        expected = torch.ones(len(order), dtype=torch.bool)
        expected[order[: round(share * len(order))]] = False
        assert torch.equal(keep, expected)
