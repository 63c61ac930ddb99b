"""Scopes, the sparsity allocation: how a budget is spread over the layers. Numpy only: a page asks
the same functions as the engine.

A scope says how many units each layer loses. Those are its lowest by (score, flat index), so one
number a layer says it all. By rank and never by threshold: ties never overspend, and equal scores
fall by layer, then flat index, lowest first. No layer is ever emptied: `min_units` of each are kept
whatever is asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np

from pruning import registry
from pruning.allocation.layers import Array, RankedLayers
from pruning.allocation.path import AllocationPath
from pruning.errors import RecipeError, UnknownName
from pruning.ranges import Range
from pruning.registry import scope


def allocate(
    name: str, layers: RankedLayers, sparsity: float, options: dict[str, Any]
) -> dict[str, int]:
    """Units that each layer loses under the scope called `name`.

    Raises RecipeError when there is no layer to prune.
    """
    if not layers.units:
        raise RecipeError("Every layer is excluded: leave at least one layer to prune.")
    # A scope added from outside is called just as ours are.
    registry.check_options("scope", name, options)
    drops: dict[str, int] = registry.get("scope", name)(layers, sparsity, **options)
    return drops


@scope(compares="units inside one layer")
def per_layer(
    layers: RankedLayers, sparsity: float, *, output: Annotated[float, Range(0, 1)] = 1.0
) -> dict[str, int]:
    """The same share from each layer.

    output: how fast the output layer is pruned beside the others, of which s is pruned: it keeps
        (1 - s) ** output. 1 treats all alike, 0 leaves it dense; at 0.47 it loses 10 % where the
        others lose 20 %, as in lottery tickets.
    """
    # Asked only where it matters: it may take a pass of the model.
    slower = layers.output if output != 1 else None
    if layers.additive:
        # 1 - (1 - s) ** 1 is not s to the last bit.
        slow = sparsity if output == 1 else 1 - (1 - sparsity) ** output
        return {
            name: layers.nearest(name, slow if name == slower else sparsity)
            for name in layers.units
        }
    # What a share of each layer costs in all is no sum over layers. So units are removed in the
    # order in which a rising share would remove them, as far as the budget goes.
    scores = {}
    for name, units in layers.units.items():
        share = (np.arange(len(units)) + 0.5) / len(units)
        if name == slower:
            share = 1 - (1 - share) ** (1 / output) if output else np.full(len(units), np.inf)
        scores[name] = _after_removed(units, share)
    return lowest(layers, scores, layers.spend(sparsity))


@scope(compares="units of all layers")
def global_(layers: RankedLayers, sparsity: float) -> dict[str, int]:
    """The lowest scores anywhere in the model: layers that matter little give more."""
    return lowest(layers, layers.units, layers.spend(sparsity))


@scope(compares="units of all layers, each beside the larger ones of its layer")
def lamp(
    layers: RankedLayers, sparsity: float, *, power: Annotated[float, Range(0, 8, above=True)] = 2.0
) -> dict[str, int]:
    """The lowest scores anywhere, each as a share of what its layer would still hold: no layer
    runs dry, and no rate is set for a layer.

    score² / Σ score² of all at or above it in the layer, Lee et al., 2021,
    https://arxiv.org/abs/2010.07611

    power: to which scores are raised: 2 for |w|, as in the paper; 1 for scores that are squares
        already.
    """
    scores = {name: _lamp(units, power) for name, units in layers.units.items()}
    return lowest(layers, scores, layers.spend(sparsity))


def _lamp(units: Array, power: float) -> Array:
    """Ascending scores -> ascending LAMP scores; -inf stays -inf.

    Some criteria give negative scores: those count from the lowest. Dividing by the largest first
    keeps the squares of small weights from vanishing.
    """
    removed_before = int(np.searchsorted(units, -np.inf, "right"))
    kept = units[removed_before:].astype(np.float64)
    lowest_score = float(kept[0]) if len(kept) else 0.0
    largest = float(np.abs(kept).max(initial=0)) or 1.0
    powers = ((kept - min(0.0, lowest_score)) / largest) ** power
    at_or_above = powers[::-1].cumsum()[::-1]
    shares = np.divide(powers, at_or_above, out=np.zeros_like(powers), where=at_or_above > 0)
    if len(shares):
        shares = np.maximum.accumulate(shares)  # rounding may break the order by one last bit
    return np.concatenate([np.full(removed_before, -np.inf), shares])


@scope(compares="units inside one layer")
def erk(layers: RankedLayers, sparsity: float) -> dict[str, int]:
    """Large layers lose more than small ones, by their width alone: what is kept is in proportion
    to a layer's inputs and outputs.

    density ∝ (in + out + k + k) / (in · out · k · k), the Erdős-Rényi-kernel of Evci et al., 2020,
    https://arxiv.org/abs/1911.11134
    """
    density = {
        name: sum(layers.shapes[name]) / math.prod(layers.shapes[name]) for name in layers.units
    }
    budget = layers.spend(sparsity)
    if not layers.additive:  # by the order in which units are removed as the scale falls
        scores = {name: _falling(units, density[name]) for name, units in layers.units.items()}
        return lowest(layers, scores, budget)
    # No layer gives back what it lost in an earlier step, nor more than min_units allow.
    amounts, limits = {}, {}
    for name in layers.units:
        cost = layers.cost(name)
        least, most = layers.removed_before(name), layers.removable(name)
        limits[name] = (cost[:least].sum(), cost[:most].sum())
        amounts[name] = layers.total(name) if layers.budget == "weights" else cost.sum()

    def wanted(scale: float) -> dict[str, float]:
        """What each layer should spend at densities times `scale`, within its limits."""
        return {
            name: float(np.clip((1 - scale * d) * amounts[name], *limits[name]))
            for name, d in density.items()
        }

    # At the upper end every layer's density is 1 or more: nothing is removed.
    low, high = 0.0, 1 / min(density.values())
    for _ in range(100):  # what is removed falls as the scale grows
        middle = (low + high) / 2
        if sum(wanted(middle).values()) > budget:
            low = middle
        else:
            high = middle
    return whole_units(layers, wanted(high), budget)


def _falling(units: Array, density: float) -> Array:
    """(units,) ascending: minus the scale below which a layer of this density lost each unit."""
    kept = 1 - np.arange(1, len(units) + 1) / len(units)
    return _after_removed(units, -kept / density)


def _after_removed(units: Array, scores: Array) -> Array:
    """The scores, -inf for units that were removed before, which come first."""
    removed_before = int(np.searchsorted(units, -np.inf, "right"))
    return np.concatenate([np.full(removed_before, -np.inf), scores[removed_before:]])


@scope(
    compares="layers, by how far the answers move without part of them",
    needs="data",
    gradients=(8000,),
    cost="each layer is tried before each step",
)
def by_sensitivity(
    layers: RankedLayers, sparsity: float, *, tolerate: Annotated[float, Range(0, 100)] = 100.0
) -> dict[str, int]:
    """Layers that the model can do without give most, as measured on validation data, and measured
    anew as more is pruned.

    Greedy in the manner of NetAdapt, Yang et al., 2018, https://arxiv.org/abs/1804.03230

    tolerate: stop earlier, where accuracy is predicted to have fallen by more than so many points;
        100 never does.
    """
    path = layers.path
    if path is None:
        raise RecipeError(
            "by_sensitivity follows what was measured of the layers, and these scores hold no "
            "measurements: score again."
        )
    # The path was measured in weights, so that one path serves every budget.
    in_weights = replace(layers, budget="weights")
    most = path.within(tolerate / 100) if tolerate < 100 else layers.weights
    if layers.budget == "weights":
        return _along(in_weights, path, min(round(sparsity * layers.weights), int(most)))
    budget = layers.spend(sparsity)

    def fits(weights: int) -> bool:
        return layers.spent(_along(in_weights, path, weights)) <= budget

    drops = _along(in_weights, path, _last(int(most), fits))
    if tolerate < 100:
        return drops
    # Weights are spent in whole units, so that part of the budget may not be spent yet.
    return lowest(layers, layers.without(drops), budget)


def follow(path: AllocationPath, layers: RankedLayers, budget: int) -> dict[str, int]:
    """Units that each layer loses along the path when `budget` weights may be removed.

    A layer that cannot give all that a step asks gives no more after that.
    """
    drops = {name: layers.removed_before(name) for name in layers.units}
    remaining = budget - int(layers.spent(drops))
    closed = set()
    for name, count in (removal for step in path.steps for removal in step.removals):
        if name not in drops or name in closed or remaining <= 0:
            continue
        affordable = layers.affordable(name, drops[name], remaining)
        more = min(affordable, count, layers.removable(name) - drops[name])
        cost = layers.removed(name, drops[name] + more) - layers.removed(name, drops[name])
        drops[name] += more
        remaining = remaining - cost if layers.additive else budget - int(layers.spent(drops))
        # Out of proportion from here on: later steps were measured with all of this one.
        if more < count:
            closed.add(name)
    return drops


def _along(layers: RankedLayers, path: AllocationPath, budget: int) -> dict[str, int]:
    """Along the path as far as the budget goes; the lowest scores anywhere spend the rest."""
    # A path ends, and its steps are coarse: without this, part of the budget would not be spent.
    drops = follow(path, layers, budget)
    return lowest(layers, layers.without(drops), budget)


@scope(compares="units inside one layer", budget=False)
def manual(layers: RankedLayers, sparsity: float) -> dict[str, int]:
    """A share for each layer, set by you; layers without one stay dense."""
    for name in layers.ratios:
        if name not in layers.units:
            raise UnknownName("layer to prune", name, layers.units)
    return {name: layers.nearest(name, layers.ratios.get(name, 0.0)) for name in layers.units}


@scope(compares="each unit with a fixed number", budget=False)
def threshold(
    layers: RankedLayers, sparsity: float, *, value: Annotated[float, Range(-1e9, 1e9)] = 0.05
) -> dict[str, int]:
    """Every unit that scores below a number you set, wherever it is: what share that comes to is
    seen, not asked for.

    Han et al., 2015, https://arxiv.org/abs/1506.02626

    value: units with a lower score are pruned. With magnitude it is a weight's size, or that in
        standard deviations of its layer.
    """
    drops = {}
    for name, units in layers.units.items():
        below = int(np.searchsorted(units, value, "left"))
        drops[name] = min(below, layers.removable(name))
    return drops


# ---------------------------------------------------------------- spending a budget

EDGE = 2**17
"""Floats between two of the thresholds that a bisection looks at: the width of a bucket of
`pruning.allocation.ascending`, whose edges cost nothing to look at."""


def whole_units(layers: RankedLayers, wanted: dict[str, float], budget: float) -> dict[str, int]:
    """Whole units for what each layer should spend.

    Rounded down first; then the rest of `budget` by the largest remainder.
    """
    spent = {name: np.concatenate([[0], layers.cost(name).cumsum()]) for name in wanted}
    drops = {}
    for name in wanted:
        # A hair more than wanted: 0.3 of 10 weights is 2.9999… in binary.
        fitting = int(np.searchsorted(spent[name], wanted[name] + 1e-6, "right")) - 1
        drops[name] = max(layers.removed_before(name), fitting)
    remaining = budget - sum(spent[name][drop] for name, drop in drops.items())
    # Most still wanted first.
    for name in sorted(wanted, key=lambda name: spent[name][drops[name]] - wanted[name]):
        while drops[name] < layers.removable(name):
            cost = spent[name][drops[name] + 1] - spent[name][drops[name]]
            if cost > remaining:
                break
            drops[name] += 1
            remaining -= cost
            if spent[name][drops[name]] >= wanted[name]:
                break
    return drops


def lowest(layers: RankedLayers, scores: dict[str, Array], budget: float) -> dict[str, int]:
    """Remove units of all layers, lowest score first, while what they cost stays within `budget`.

    scores: layer -> ascending scores that compare between layers, in the order of `layers.units`.
    """
    limits = {name: min(len(values), layers.removable(name)) for name, values in scores.items()}
    if layers.budget == "units":
        return _lowest_of_equal_size(scores, limits, int(budget))
    if layers.budget == "weights" and layers.additive and not layers.costs:
        if len(set(layers.sizes.values())) == 1:
            size = next(iter(layers.sizes.values()))
            return _lowest_of_equal_size(scores, limits, int(budget) // size)
    scores = {name: values[: limits[name]] for name, values in scores.items()}
    owner = np.repeat(np.arange(len(scores)), [len(values) for values in scores.values()])
    # Stable: equal scores are removed in the order of layers, then of flat index.
    order = np.concatenate(list(scores.values())).argsort(kind="stable")
    owner = owner[order]  # (units,) the layer of each unit, in the order they are removed

    def drops(count: int) -> dict[str, int]:
        by_layer = np.bincount(owner[:count], minlength=len(scores)).tolist()
        return dict(zip(scores, by_layer, strict=True))

    if not layers.additive:  # what a unit costs depends on those before it
        return drops(_last(len(owner), lambda count: layers.spent(drops(count)) <= budget))
    costs = [layers.cost(name)[: len(values)] for name, values in scores.items()]
    spent = np.concatenate(costs)[order].cumsum()
    # A hair more: sums of MACs as shares are not exact to the last bit.
    return drops(int(np.searchsorted(spent, budget * (1 + 1e-12), "right")))


def _last(high: int, fits: Callable[[int], bool]) -> int:
    """The largest number up to `high` that fits, by bisection; 0 fits, and none above a misfit."""
    low = 0
    while low < high:
        middle = (low + high + 1) // 2
        if fits(middle):
            low = middle
        else:
            high = middle - 1
    return low


def _lowest_of_equal_size(
    scores: dict[str, Array], limits: dict[str, int], count: int
) -> dict[str, int]:
    """The `count` lowest of several ascending arrays, by bisection on the bits of the threshold.

    No merge and no copy: this answers a slider over 25 million weights in milliseconds.
    limits: how many each array may lose.
    """
    if count >= sum(limits.values()):
        return limits
    if count <= 0:
        return dict.fromkeys(scores, 0)

    def up_to(threshold: Any, side: Literal["left", "right"]) -> dict[str, int]:
        """How many of each array lie below a threshold; right: or at it."""
        return {
            name: min(limits[name], int(values.searchsorted(threshold, side)))
            for name, values in scores.items()
        }

    # Over the integers that order as floats do. Halved at the edges of `Ascending`'s buckets, so
    # that none is sorted until the threshold is known to lie in it.
    dtype = next(iter(scores.values())).dtype
    low, high = _order_key(dtype.type(-np.inf)), _order_key(dtype.type(np.inf))
    below = dict.fromkeys(scores, 0)  # scores at or below the key before `low`
    while high - low >= 2 * EDGE:
        edge = (low + high) // 2 | (EDGE - 1)
        at_or_below = up_to(_from_order_key(edge, dtype), "right")
        if sum(at_or_below.values()) >= count:
            high = edge
        else:
            low = edge + 1
            below = at_or_below
    # What is in question now fits into one short array.
    ends = up_to(_from_order_key(high, dtype), "right")
    parts = [values[below[name] : ends[name]] for name, values in scores.items()]
    remaining = count - sum(below.values())
    threshold = np.partition(np.concatenate(parts), remaining - 1)[remaining - 1]
    drops = up_to(threshold, "left")
    through_ties = up_to(threshold, "right")
    remaining = count - sum(drops.values())
    for name in scores:  # ties at the threshold, in the order of layers
        taken = min(remaining, through_ties[name] - drops[name])
        drops[name] += taken
        remaining -= taken
    return drops


def _order_key(value: Any) -> int:
    """An integer that orders as the float does: its bits, turned round where it is negative."""
    single = value.dtype == np.float32
    bits = int(value.view(np.int32 if single else np.int64))
    return bits if bits >= 0 else -(bits & (2**31 - 1 if single else 2**63 - 1)) - 1


def _from_order_key(key: int, dtype: Any) -> Any:
    kind = np.int64 if dtype == np.float64 else np.int32
    magnitude = kind(key if key >= 0 else -key - 1).view(dtype)
    return magnitude if key >= 0 else -magnitude
