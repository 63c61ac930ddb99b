"""What a scope sees: the layers that a budget is spent on, each with its units in order of
score. Numpy only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruning.allocation.path import AllocationPath

Array = NDArray[Any]


@dataclass(frozen=True)
class RankedLayers:
    """Layers (or dependency groups) with their units, ascending by score.

    units: layer -> (units,) scores, ascending, -inf for units removed before; sizes: weights that
    one unit takes along. min_units: units that every layer keeps; ratios: layer -> share, for scope
    manual; shapes: of the weights, for scopes that look at them; totals: weights of the layer,
    where that is not units times size; costs: (units,) weights of each unit, in the order of
    `units`, where they differ; output: the layer that gives the model's answers, if it is among
    them; macs: of one example in the layer, dense; path: for by_sensitivity.

    Units of several layers may share weights (a weight is removed with its row or with its column),
    so that removals do not add up. Then removed_weights gives the weights removed when layers lose
    so many units, removed_share the share of "macs" or "bytes", and all_weights how many there are.
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
    path: AllocationPath | None = None
    removed_weights: Callable[[Mapping[str, int]], int] | None = None
    removed_share: Callable[[Mapping[str, int], str], float] | None = None
    all_weights: int = 0

    @property
    def shared(self) -> bool:
        """Whether units share weights."""
        return self.removed_weights is not None

    @property
    def weights(self) -> int:
        """Weights of all layers."""
        return self.all_weights or sum(map(self.total, self.units))

    def total(self, name: str) -> int:
        """Weights of the layer, those that no unit takes along too."""
        return self.totals.get(name, len(self.units[name]) * self.sizes[name])

    def cost(self, name: str) -> Array:
        """(units,) weights removed with each unit, lowest score first."""
        if name in self.costs:
            return self.costs[name]
        return np.full(len(self.units[name]), self.sizes[name], np.int64)

    def removed(self, name: str, drop: int) -> int:
        """Weights removed with the `drop` lowest units of a layer."""
        if name in self.costs:  # blocks at an edge are smaller than the others
            return int(self.costs[name][:drop].sum())
        return drop * self.sizes[name]

    def spent(self, drops: Mapping[str, int]) -> int:
        """Weights removed in all when layers lose so many of their lowest units."""
        # Shared weights must not be counted twice: only the whole model's count is right.
        if self.removed_weights is not None:
            return self.removed_weights(drops)
        return sum(self.removed(name, drops.get(name, 0)) for name in self.units)

    def removable(self, name: str) -> int:
        """Units that the layer can lose.

        All but min_units; all where even then weights are left (of 2 of 4, two are kept).
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

    def affordable(self, name: str, drop: int, budget: float) -> int:
        """How many more units fit a budget of weights, from `drop` on; min_units not counted."""
        if name not in self.costs:
            return max(0, int(budget // self.sizes[name]))
        spent = self.costs[name][drop:].cumsum()
        return int(np.searchsorted(spent, budget, "right"))

    def nearest(self, name: str, share: float) -> int:
        """Units whose weights come nearest to a share of the layer's, as far as removable."""
        # Rounded to the nearest unit, half to even, as torch.nn.utils.prune rounds.
        wanted = share * (self.total(name) / self.sizes[name])  # in units
        if name in self.costs:
            spent = np.concatenate([[0], self.costs[name].cumsum()])
            wanted = int(np.abs(spent - share * self.total(name)).argmin())
        return min(round(wanted), self.removable(name))

    def without(self, drops: Mapping[str, int]) -> dict[str, Array]:
        """The scores, -inf for the `drops` lowest units of each layer."""
        scores = {}
        # As arrays of the same length, so that counts of units stay counts from the dense model.
        for name, units in self.units.items():
            first = np.full(drops[name], -np.inf, units.dtype)
            scores[name] = np.concatenate([first, units[drops[name] :]])
        return scores
