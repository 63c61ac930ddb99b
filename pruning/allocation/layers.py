"""What a scope sees: the layers that a budget is spent on, each with its units in order of
score. Numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from pruning.allocation.path import AllocationPath
from pruning.metrics import sparse_bytes

Array = NDArray[Any]


class Traced(NamedTuple):
    """What one pass of the model tells. macs: layer -> of one example, dense; output: the layer
    that gives the model's answers.
    """

    macs: dict[str, int]
    output: str | None


def untraced() -> Traced:
    """Of a model that has no example to run."""
    return Traced({}, None)


@dataclass(frozen=True)
class RankedLayers:
    """Layers (or dependency groups) with their units, ascending by score, and what units cost.

    units: layer -> (units,) scores, ascending, -inf for units removed before; sizes: weights that
    one unit takes along; min_units: units that every layer keeps; ratios: layer -> share, for scope
    manual; shapes: of the weights, for scopes that look at them; totals: weights of the layer,
    where that is not units times size; costs: (units,) weights of each unit, in the order of
    `units`, where they differ; trace: gives each layer's MACs and the output layer, asked when a
    scope or a budget looks at them; path: for by_sensitivity.

    budget: what is spent: "weights", "units", "macs" or "bytes". Removals may not add up: a weight
    that units of several layers share is removed once, and the bytes of a sparse file are no sum
    over its weights. Then spent_by gives what is spent when layers lose so many units, and amount
    all that there is.
    """

    units: dict[str, Array]
    sizes: dict[str, int]
    min_units: int = 1
    ratios: dict[str, float] = field(default_factory=dict)
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    totals: dict[str, int] = field(default_factory=dict)
    costs: dict[str, Array] = field(default_factory=dict)
    trace: Callable[[], Traced] = untraced
    path: AllocationPath | None = None
    budget: str = "weights"
    spent_by: Callable[[Mapping[str, int], str], float] | None = None
    amount: Callable[[str], float] | None = None

    @property
    def output(self) -> str | None:
        """The layer that gives the model's outputs, if it is among them."""
        return self.trace().output

    @property
    def macs(self) -> dict[str, int]:
        """Of one example in each layer, dense."""
        macs = self.trace().macs
        return {name: macs.get(name, 0) for name in self.units}

    # ------------------------------------------------------------ weights of a layer

    def total(self, name: str) -> int:
        """Weights of the layer, those that no unit takes along too."""
        return self.totals.get(name, len(self.units[name]) * self.sizes[name])

    def removed(self, name: str, drop: int) -> int:
        """Weights removed with the `drop` lowest units of a layer."""
        if name in self.costs:  # blocks at an edge are smaller than the others
            return int(self.costs[name][:drop].sum())
        return drop * self.sizes[name]

    def removable(self, name: str) -> int:
        """Units that the layer can lose.

        All but min_units; all where even then weights are kept (of 2 of 4, two are).
        """
        count = len(self.units[name])
        if self.removed(name, count) < self.total(name):
            return count
        return max(0, count - self.min_units)

    def removed_before(self, name: str) -> int:
        """Units that earlier steps have removed."""
        # They score -inf, the lowest there is, so they come first.
        lowest = int(np.searchsorted(self.units[name], -np.inf, "right"))
        return min(lowest, self.removable(name))

    def affordable(self, name: str, drop: int, weights: float) -> int:
        """How many more units so many weights pay for, from `drop` on; min_units not counted."""
        if name not in self.costs:
            return max(0, int(weights // self.sizes[name]))
        spent = self.costs[name][drop:].cumsum()
        return int(np.searchsorted(spent, weights, "right"))

    def nearest(self, name: str, share: float) -> int:
        """Units nearest to a share of the layer, as far as removable, none given back."""
        if self.budget == "units":
            return self._possible(name, round(share * len(self.units[name])))
        # Rounded to the nearest unit, half to even, as torch.nn.utils.prune rounds.
        wanted = share * (self.total(name) / self.sizes[name])  # in units
        if name in self.costs:
            spent = np.concatenate([[0], self.costs[name].cumsum()])
            wanted = int(np.abs(spent - share * self.total(name)).argmin())
        return self._possible(name, round(wanted))

    def _possible(self, name: str, drop: int) -> int:
        """`drop`, but no more than is removable, and no fewer than were removed before."""
        # Units of an edge are smaller: in a new order, fewer of them may come nearest.
        return max(self.removed_before(name), min(drop, self.removable(name)))

    def without(self, drops: Mapping[str, int]) -> dict[str, Array]:
        """The scores, -inf for the `drops` lowest units of each layer."""
        # As arrays of the same length, so that counts of units stay counts from the dense model.
        scores = {}
        for name, units in self.units.items():
            first = np.full(drops[name], -np.inf, units.dtype)
            scores[name] = np.concatenate([first, units[drops[name] :]])
        return scores

    # ------------------------------------------------------------ the budget of all layers

    @property
    def additive(self) -> bool:
        """Whether what units cost is a sum over them."""
        return self.budget == "units" or (self.spent_by is None and self.budget != "bytes")

    @property
    def weights(self) -> int:
        """Weights of all layers."""
        return int(replace(self, budget="weights").whole)

    @property
    def whole(self) -> float:
        """All that there is of what the budget counts."""
        if self.budget == "units":
            return sum(map(len, self.units.values()))
        if self.amount is not None:
            return self.amount(self.budget)
        if self.budget == "macs":
            return sum(self.macs.values())
        weights = sum(map(self.total, self.units))
        return 4 * weights if self.budget == "bytes" else weights

    def spend(self, share: float) -> float:
        """What may be spent for a share: whole weights and units, to the nearest."""
        amount = share * self.whole
        return round(amount) if self.budget in ("weights", "units") else amount

    def cost(self, name: str) -> Array:
        """(units,) what each unit costs, lowest score first; only where costs add up."""
        count = len(self.units[name])
        if self.budget == "units":
            return np.ones(count, np.int64)
        weights = self.costs.get(name, np.full(count, self.sizes[name], np.int64))
        if self.budget == "macs":  # every weight of a layer is used equally often
            return weights * (self.macs[name] / self.total(name))
        return weights

    def spent(self, drops: Mapping[str, int]) -> float:
        """What is spent when layers lose so many of their lowest units."""
        if self.budget == "units":
            return sum(drops.get(name, 0) for name in self.units)
        # Shared weights must not be counted twice: only the whole model's count is right.
        if self.spent_by is not None:
            return self.spent_by(drops, self.budget)
        removed = {name: self.removed(name, drops.get(name, 0)) for name in self.units}
        if self.budget == "macs":
            return sum(self.macs[name] * (n / self.total(name)) for name, n in removed.items())
        if self.budget == "bytes":
            saved = 0
            for name, count in removed.items():
                total = self.total(name)
                saved += 4 * total - sparse_bytes(total, total - count)
            return saved
        return sum(removed.values())
