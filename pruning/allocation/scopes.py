"""How the budget is spent over the layers. Numpy only: a page asks the same functions as the engine.

A scope says how many units each layer loses: the ones lost are the lowest by (score, flat index), so a number
says it all. By rank and never by threshold: ties never overspend, and equal scores fall by layer, then flat index,
lowest first. No layer is ever emptied: `floor` units of each stay whatever is asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pruning.allocation.path import AllocationPath
from pruning.errors import OutOfRange, RecipeError, UnknownName
from pruning.metrics import sparse_bytes
from pruning.registry import scope

Array = NDArray[Any]


@dataclass(frozen=True)
class Ranked:
    """The layers a budget is spent on.

    units: layer -> scores of its units, ascending, -inf for what has gone before; sizes: weights that go with one unit of the
    layer; floor: units that stay; ratios: for by_hand, layer -> share; shapes: of the weights, for scopes that look at them.
    totals: weights of the layer, where that is not units times size; costs: weights that go with each unit, in the order of
    `units`, where they differ; output: the layer that gives the model's answers, if it is among them. macs: of one example in the
    layer, dense; route: for by_sensitivity.
    shared: where units of several layers share weights (groups of channels: a weight goes with its row or its column), the weights
    that go when layers lose so many units; worth: then, the share of "macs" or "bytes" that goes; whole: then, all weights there are.
    """

    units: dict[str, Array]
    sizes: dict[str, int]
    min_units: int = 1
    ratios: dict[str, float] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    costs: dict[str, Array] = field(default_factory=dict)
    output: str | None = None
    macs: dict[str, int] = field(default_factory=dict)
    route: AllocationPath | None = None
    shared: Callable[[Mapping[str, int]], int] | None = None
    worth: Callable[[Mapping[str, int], str], float] | None = None
    whole: int = 0

    def spent(self, drops: Mapping[str, int]) -> int:
        """Weights that go in all when layers lose so many of their lowest units."""
        return (
            self.shared(drops)
            if self.shared
            else sum(self.gone(name, drops.get(name, 0)) for name in self.units)
        )

    def total(self, name: str) -> int:
        """Weights of the layer, those that go with no unit too."""
        return self.totals.get(name, len(self.units[name]) * self.sizes[name])

    def gone(self, name: str, dropped: int) -> int:
        """Weights that go with the `dropped` lowest units."""
        return (
            int(self.costs[name][:dropped].sum())
            if name in self.costs
            else dropped * self.sizes[name]
        )

    def spare(self, name: str) -> int:
        """Units the layer can lose: all but the floor, or all where no unit takes the last of its weights along (2 of 4 stay)."""
        count = len(self.units[name])
        return (
            count if self.gone(name, count) < self.total(name) else max(0, count - self.min_units)
        )

    def lost(self, name: str) -> int:
        """Units that went before."""
        return min(int(np.searchsorted(self.units[name], -np.inf, "right")), self.spare(name))

    def nearest(self, name: str, share: float) -> int:
        """Units whose weights come nearest to a share of the layer's, the spare ones at most."""
        wanted = share * (self.total(name) / self.sizes[name])  # in units
        if name in self.costs:
            spent = np.concatenate([[0], self.costs[name].cumsum()])
            wanted = int(np.abs(spent - share * self.total(name)).argmin())
        return min(round(wanted), self.spare(name))

    @property
    def weights(self) -> int:
        return self.whole or sum(map(self.total, self.units))


@scope(compares="units inside one layer")
def per_layer(layers: Ranked, sparsity: float, *, output: float = 1.0) -> dict[str, int]:
    """The same share from each layer.

    output: how fast the output layer is pruned beside the others, of which s goes: it keeps (1 - s) ** output.
        1 treats all alike, 0 leaves it dense; at 0.47 it loses 10 % where the others lose 20 %, as in lottery tickets.
    """
    if not 0 <= output <= 1:
        raise OutOfRange("Option output of per_layer", output, "a number from 0 to 1")
    slow = sparsity if output == 1 else 1 - (1 - sparsity) ** output
    return {
        name: layers.nearest(name, slow if name == layers.output else sparsity)
        for name in layers.units
    }


@scope(compares="units of all layers")
def global_(layers: Ranked, sparsity: float) -> dict[str, int]:
    """The lowest scores anywhere in the model: layers that matter little give more."""
    return lowest(layers, layers.units, round(sparsity * layers.weights))


@scope(compares="units of all layers, each beside the larger ones of its layer")
def lamp(layers: Ranked, sparsity: float, *, power: float = 2.0) -> dict[str, int]:
    """The lowest scores anywhere, each as a share of what its layer would still hold: no layer runs dry, and no rate is set by hand.

    score² / Σ score² of all at or above it in the layer, Lee et al., 2021, https://arxiv.org/abs/2010.07611

    power: to which scores are raised: 2 for |w|, as in the paper; 1 for scores that are squares already.
    """
    if not 0 < power <= 8:
        raise OutOfRange("Option power of lamp", power, "a number above 0, up to 8")
    return lowest(
        layers,
        {name: _lamp(units, power) for name, units in layers.units.items()},
        round(sparsity * layers.weights),
    )


def _lamp(units: Array, power: float) -> Array:
    """Ascending scores -> ascending shares of what is left of the layer; -inf stays. Negative scores count from the lowest."""
    gone = int(np.searchsorted(units, -np.inf, "right"))
    alive = units[gone:].astype(np.float64)
    alive = (alive - min(0.0, float(alive[0]) if len(alive) else 0.0)) / (
        float(np.abs(alive).max(initial=0)) or 1.0
    )
    powers = alive**power
    left = powers[::-1].cumsum()[::-1]
    shares = np.divide(powers, left, out=np.zeros_like(powers), where=left > 0)
    return np.concatenate(
        [np.full(gone, -np.inf), np.maximum.accumulate(shares) if len(shares) else shares]
    )


@scope(compares="units inside one layer")
def erk(layers: Ranked, sparsity: float) -> dict[str, int]:
    """Large layers lose more than small ones, by their width alone: what is kept is in proportion to a layer's inputs and outputs.

    density ∝ (in + out + k + k) / (in · out · k · k), the Erdős-Rényi-kernel of Evci et al., 2020, https://arxiv.org/abs/1911.11134
    """
    density = {
        name: sum(layers.shapes[name]) / math.prod(layers.shapes[name]) for name in layers.units
    }
    budget = round(sparsity * layers.weights)
    if layers.shared:  # in the order in which units go as the scale falls
        return lowest(
            layers,
            {name: _falling(units, density[name]) for name, units in layers.units.items()},
            budget,
        )
    limits = {
        name: (layers.gone(name, layers.lost(name)), layers.gone(name, layers.spare(name)))
        for name in layers.units
    }

    def wanted(scale: float) -> dict[str, float]:
        """Weights that each layer loses at densities times `scale`: none where that is above 1, no more than it can spare."""
        return {
            n: float(np.clip((1 - scale * d) * layers.total(n), *limits[n]))
            for n, d in density.items()
        }

    low, high = 0.0, 1 / min(density.values())
    for _ in range(100):  # what goes falls as the scale grows
        middle = (low + high) / 2
        low, high = (middle, high) if sum(wanted(middle).values()) > budget else (low, middle)
    return handed_out(layers, wanted(high), budget)


def _falling(units: Array, density: float) -> Array:
    """(units,) ascending: the scale below which a layer of this density has lost so many units, negated; -inf for what went before."""
    falling = -(1 - np.arange(1, len(units) + 1) / len(units)) / density
    falling[: int(np.searchsorted(units, -np.inf, "right"))] = -np.inf
    return falling


@scope(
    compares="layers, by how far the answers move without part of them",
    needs="data",
    cost="each layer is tried before each leg",
)
def by_sensitivity(
    layers: Ranked,
    sparsity: float,
    *,
    of: Literal["weights", "macs", "bytes"] = "weights",
    tolerate: float = 100.0,
) -> dict[str, int]:
    """Layers that the model can do without give most, as measured on validation data, and measured anew as more is gone.

    Greedy in the manner of NetAdapt, Yang et al., 2018, https://arxiv.org/abs/1804.03230

    of: what the share is a share of: weights, multiply-accumulates, or bytes of a sparse file.
    tolerate: stop earlier, where accuracy is foretold to have fallen by more than so many points; 100 never does.
    """
    if layers.route is None:
        raise RecipeError(
            "by_sensitivity follows what was measured of the layers, and these scores hold no measurements: score again."
        )
    if not 0 <= tolerate <= 100:
        raise OutOfRange(
            "Option tolerate of by_sensitivity", tolerate, "a number of points from 0 to 100"
        )
    budget = (
        round(sparsity * layers.weights)
        if of == "weights"
        else _worth(layers, layers.route, sparsity, of)
    )
    budget = min(budget, int(layers.route.within(tolerate / 100))) if tolerate < 100 else budget
    return _along(layers, layers.route, budget)


def _along(layers: Ranked, route: AllocationPath, budget: int) -> dict[str, int]:
    """Along the route as far as the budget goes; the lowest scores anywhere make up what is left of it."""
    drops = route.walk(layers, budget)
    scores = {
        n: np.concatenate([np.full(drops[n], -np.inf, units.dtype), units[drops[n] :]])
        for n, units in layers.units.items()
    }
    return lowest(layers, scores, budget)


def _worth(layers: Ranked, route: AllocationPath, share: float, of: str) -> int:
    """The most weights whose going takes no more than a share of the MACs, or of the bytes."""
    if of == "macs" and not layers.worth and not any(layers.macs.values()):
        raise RecipeError(
            "The MACs of this model are not known, for it has no example input: let by_sensitivity count weights."
        )

    def taken(budget: int) -> float:
        if layers.worth:
            return layers.worth(_along(layers, route, budget), of)
        gone = {
            name: layers.gone(name, count) / layers.total(name)
            for name, count in _along(layers, route, budget).items()
        }
        if of == "macs":
            return sum(layers.macs[name] * part for name, part in gone.items()) / sum(
                layers.macs.values()
            )
        left = sum(
            sparse_bytes(layers.total(name), layers.total(name) - round(part * layers.total(name)))
            for name, part in gone.items()
        )
        return 1 - left / (4 * layers.weights)

    low, high = 0, layers.weights
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if taken(middle) <= share else (low, middle - 1)
    return low


@scope(compares="units inside one layer", budget=False)
def manual(layers: Ranked, sparsity: float) -> dict[str, int]:
    """A share for each layer, set by you; layers without one stay dense."""
    for name in layers.ratios:
        if name not in layers.units:
            raise UnknownName("layer to prune", name, layers.units)
    return {name: layers.nearest(name, layers.ratios.get(name, 0.0)) for name in layers.units}


@scope(compares="each unit with a fixed number", budget=False)
def threshold(layers: Ranked, sparsity: float, *, value: float = 0.05) -> dict[str, int]:
    """Every unit that scores below a number you set, wherever it is: what share that comes to is seen, not asked for.

    Han et al., 2015, https://arxiv.org/abs/1506.02626

    value: units with a lower score go. With magnitude it is a weight's size, or that in standard deviations of its layer.
    """
    if not math.isfinite(value):
        raise OutOfRange("Option value of threshold", value, "a finite number")
    return {
        name: min(int(np.searchsorted(units, value, "left")), layers.spare(name))
        for name, units in layers.units.items()
    }


def handed_out(layers: Ranked, wanted: dict[str, float], budget: int) -> dict[str, int]:
    """Whole units for the weights that each layer should lose: rounded down, then the rest of `budget` by the largest remainder."""
    spent = {name: np.concatenate([[0], _costs(layers, name).cumsum()]) for name in wanted}
    drops = {
        name: max(
            layers.lost(name), int(np.searchsorted(spent[name], wanted[name] + 1e-6, "right")) - 1
        )
        for name in wanted
    }
    left = budget - sum(int(spent[name][count]) for name, count in drops.items())
    for name in sorted(wanted, key=lambda name: spent[name][drops[name]] - wanted[name]):
        while (
            drops[name] < layers.spare(name)
            and (cost := int(spent[name][drops[name] + 1] - spent[name][drops[name]])) <= left
        ):
            drops[name], left = drops[name] + 1, left - cost
            if spent[name][drops[name]] >= wanted[name]:
                break
    return drops


def _costs(layers: Ranked, name: str) -> Array:
    """(units,) weights that go with each."""
    return (
        layers.costs[name]
        if name in layers.costs
        else np.full(len(layers.units[name]), layers.sizes[name], np.int64)
    )


def lowest(layers: Ranked, scores: dict[str, Array], budget: int) -> dict[str, int]:
    """Drop units of all layers, lowest score first, while the weights dropped stay within `budget`.

    scores: layer -> ascending scores that can be compared between layers, in the order of `layers.units`.
    """
    scores = {name: values[: layers.spare(name)] for name, values in scores.items()}
    if len(set(layers.sizes.values())) == 1 and not layers.costs and not layers.shared:
        size = next(iter(layers.sizes.values()))
        return _lowest_of_equal_size(scores, budget // size)
    owner = np.repeat(np.arange(len(scores)), [len(values) for values in scores.values()])
    order = np.concatenate(list(scores.values())).argsort(kind="stable")
    if layers.shared:
        return _lowest_of_shared(layers, list(scores), owner[order], budget)
    spent = np.concatenate(
        [_costs(layers, name)[: len(values)] for name, values in scores.items()]
    )[order].cumsum()
    dropped = np.bincount(owner[order][spent <= budget], minlength=len(scores))
    return dict(zip(scores, dropped.tolist(), strict=True))


def _lowest_of_shared(
    layers: Ranked, names: list[str], owner: Array, budget: int
) -> dict[str, int]:
    """The longest prefix of the sorted units whose weights stay within `budget`, by bisection: what goes grows with it.

    owner: (units,) the layer of each unit, in the order they go.
    """

    def drops(count: int) -> dict[str, int]:
        return dict(
            zip(names, np.bincount(owner[:count], minlength=len(names)).tolist(), strict=True)
        )

    low, high = 0, len(owner)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if layers.spent(drops(middle)) <= budget else (low, middle - 1)
    return drops(low)


def _lowest_of_equal_size(scores: dict[str, Array], count: int) -> dict[str, int]:
    """The `count` lowest of several ascending arrays, by bisection on the bits of the threshold: no merge, no copy."""
    if count >= sum(map(len, scores.values())):
        return {name: len(values) for name, values in scores.items()}
    dtype = next(iter(scores.values())).dtype
    low, high = _key(dtype.type(-np.inf)), _key(dtype.type(np.inf))
    while low < high:  # the lowest threshold with at least `count` scores at or below it
        middle = (low + high) // 2
        threshold = _unkey(middle, dtype)
        if sum(int(values.searchsorted(threshold, "right")) for values in scores.values()) >= count:
            high = middle
        else:
            low = middle + 1
    threshold = _unkey(low, dtype)
    below = {name: int(values.searchsorted(threshold, "left")) for name, values in scores.items()}
    left = count - sum(below.values())
    for name, values in scores.items():  # ties at the threshold, in the order of layers
        tied = min(left, int(values.searchsorted(threshold, "right")) - below[name])
        below[name] += tied
        left -= tied
    return below


def _key(value: Any) -> int:
    """An integer that orders as the float does."""
    bits = int(value.view(np.int32 if value.dtype == np.float32 else np.int64))
    return (
        bits if bits >= 0 else -(bits & (2**31 - 1 if value.dtype == np.float32 else 2**63 - 1)) - 1
    )


def _unkey(key: int, dtype: Any) -> Any:
    wide = dtype == np.float64
    magnitude = key if key >= 0 else -key - 1
    kind = np.int64 if wide else np.int32
    value = kind(magnitude).view(dtype)
    return value if key >= 0 else -value


def spend(name: str, layers: Ranked, sparsity: float, options: dict[str, Any]) -> dict[str, int]:
    """Units that each layer loses under the scope called `name`. Raises RecipeError when there is no layer to spend on."""
    from pruning import registry

    if not layers.units:
        raise RecipeError("Every layer is excluded: leave at least one layer to prune.")
    drops: dict[str, int] = registry.get("scope", name)(layers, sparsity, **options)
    return drops
