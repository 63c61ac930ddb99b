"""Scopes: how a budget is allocated, by hand and against the papers' formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from pruning import registry
from pruning.allocation.layers import RankedLayers, Traced
from pruning.allocation.schedules import grow
from pruning.allocation.scopes import _lamp, allocate
from pruning.errors import OutOfRange

TOGETHER = ("global", "erk", "lamp")


def ranked(shapes: dict[str, tuple[int, ...]], seed: int = 0, **fields: object) -> RankedLayers:
    """Random scores of single weights."""
    generator = np.random.default_rng(seed)
    units = {}
    for name, shape in shapes.items():
        units[name] = np.sort(generator.random(int(np.prod(shape))).astype(np.float32))
    return RankedLayers(units, dict.fromkeys(shapes, 1), shapes=shapes, **fields)


def test_lamp_by_hand() -> None:
    # |w| 1 2 3, squares 1 4 9: 1/14, 4/13, 9/9
    scores = _lamp(np.array([1, 2, 3], np.float32), 2.0)
    assert scores.tolist() == pytest.approx([1 / 14, 4 / 13, 1])
    assert _lamp(np.array([-np.inf, 1, 3], np.float32), 1.0).tolist() == [-np.inf, 0.25, 1]
    assert _lamp(np.array([0, 0, 0], np.float32), 2.0).tolist() == [0, 0, 0]


def test_lamp_keeps_a_layer_of_small_weights_that_global_magnitude_would_empty() -> None:
    scores = np.arange(1, 11, dtype=np.float32)
    layers = RankedLayers({"small": scores / 1000, "large": scores}, {"small": 1, "large": 1})
    assert allocate("global", layers, 0.5, {}) == {"small": 9, "large": 1}  # all but min_units
    # The scale of a layer does not matter.
    assert allocate("lamp", layers, 0.5, {}) == {"small": 5, "large": 5}


@given(
    some.lists(some.floats(-2, 2, width=32), min_size=1, max_size=20),
    some.sampled_from([1.0, 2.0]),
    some.integers(0, 3),
)
def test_lamp_keeps_the_order_within_a_layer(
    scores: list[float], power: float, removed: int
) -> None:
    """Units removed before stand first, at minus infinity, and stay there."""
    before = np.concatenate([np.full(removed, -np.inf), np.sort(scores)]).astype(np.float32)
    after = _lamp(before, power)
    assert (after[:removed] == -np.inf).all()
    assert (np.diff(after[removed:]) >= 0).all()
    assert not np.isnan(after).any()


def test_erk_keeps_in_proportion_to_inputs_and_outputs() -> None:
    # 100×300 and 10×100: the sums of sides are 400 and 110; with 90 % of 31,000 removed, 3,100 are
    # kept: ε · (400 + 110), ε = 6.08.
    layers = ranked({"a": (100, 300), "b": (10, 100)})
    drops = allocate("erk", layers, 0.9, {})
    assert (30_000 - drops["a"], 1000 - drops["b"]) == (2431, 669)
    assert drops["a"] + drops["b"] == round(0.9 * 31_000)


def test_erk_leaves_a_layer_dense_that_would_need_more_than_all() -> None:
    layers = ranked({"first": (8, 1, 3, 3), "wide": (200, 200)})
    assert allocate("erk", layers, 0.3, {})["first"] == 0


matrices = some.tuples(some.integers(1, 9), some.integers(1, 9))


@given(
    some.dictionaries(some.sampled_from("abcd"), matrices, min_size=1),
    some.floats(0, 0.999),
    some.integers(1, 3),
    some.sampled_from(TOGETHER),
)
def test_one_budget_is_met_to_the_weight(
    shapes: dict[str, tuple[int, int]], sparsity: float, min_units: int, scope: str
) -> None:
    layers = ranked(shapes, min_units=min_units)
    drops = allocate(scope, layers, sparsity, {})
    assert all(0 <= drops[n] <= layers.removable(n) for n in drops)
    most = sum(layers.removable(name) for name in shapes)
    assert sum(drops.values()) == min(round(sparsity * layers.weights), most)


# by_sensitivity follows a path; test_by_sensitivity has it.
UNMEASURED = [name for name in registry.names("scope") if name != "by_sensitivity"]


@given(some.sampled_from(UNMEASURED), some.integers(2, 9), some.floats(0.1, 0.99))
def test_more_sparsity_never_revives_a_unit(scope: str, steps: int, sparsity: float) -> None:
    """Over the steps of a schedule no layer gets a unit back: its mask cannot."""
    shapes = {"a": (7, 5), "b": (3, 7), "c": (4, 3)}
    layers = ranked(shapes)
    before = dict.fromkeys(shapes, 0)
    for step in range(1, steps + 1):
        scores = {name: units.copy() for name, units in layers.units.items()}
        for name, removed in before.items():
            scores[name][:removed] = -np.inf
        now = RankedLayers(scores, layers.sizes, shapes=shapes)
        drops = allocate(scope, now, sparsity * step / steps, {})
        assert all(drops[name] >= before[name] for name in shapes)
        before = drops
    if scope in TOGETHER:
        assert sum(before.values()) == min(round(sparsity * layers.weights), layers.weights - 3)


def test_the_output_layer_loses_less_at_the_lottery_rate() -> None:
    layers = ranked({"hidden": (10, 100), "out": (10, 100)}, trace=lambda: Traced({}, "out"))
    slow = {"output": float(np.log(0.9) / np.log(0.8))}
    assert allocate("per_layer", layers, 0.2, slow) == {"hidden": 200, "out": 100}
    assert allocate("per_layer", layers, 1 - 0.8**3, slow) == {"hidden": 488, "out": 271}
    assert allocate("per_layer", layers, 0.5, {}) == {"hidden": 500, "out": 500}
    assert allocate("per_layer", layers, 0.5, {"output": 0.0}) == {"hidden": 500, "out": 0}
    with pytest.raises(OutOfRange, match="Option output of per_layer is -1"):
        allocate("per_layer", layers, 0.5, {"output": -1.0})


def test_a_threshold_removes_what_lies_below_whatever_the_sparsity() -> None:
    scores = {"a": np.array([0.1, 0.2, 0.3], np.float32), "b": np.array([0.01, 0.02], np.float32)}
    layers = RankedLayers(scores, {"a": 1, "b": 1})
    for sparsity in (0.0, 0.9):
        assert allocate("threshold", layers, sparsity, {"value": 0.2}) == {"a": 1, "b": 1}


def test_a_geometric_schedule_removes_the_same_share_of_what_remains() -> None:
    remaining = [1 - 0.488 * grow("geometric", t / 3, 0.488) for t in (1, 2, 3)]
    assert remaining == pytest.approx([0.8, 0.64, 0.512])
