"""A measured way from dense to sparse: which layer gives how many units next, and what the model answers by then. Numpy only.

Made where torch lives (`pruning.sensitivity_map.netadapt`); followed here, as far as a budget goes.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pruning.allocation.scopes import Ranked


@dataclass(frozen=True)
class PathStep:
    """One step of a route. taken: (layer, units) in order; weights: gone by then; loss (mean), correct: of the model by then."""

    taken: tuple[tuple[str, int], ...]
    weights: int
    loss: float
    correct: int


@dataclass(frozen=True)
class AllocationPath:
    """Legs from the model as it is (which takes nothing) on. examples: validation images that it was measured on."""

    legs: tuple[PathStep, ...]
    examples: int

    def walk(self, layers: Ranked, budget: int) -> dict[str, int]:
        """Units that each layer loses when `budget` weights may go. A layer that cannot give all that is asked gives no more."""
        drops = {name: layers.lost(name) for name in layers.units}
        left = budget - layers.spent(drops)
        closed = set()
        for name, count in (step for leg in self.legs for step in leg.taken):
            if name not in drops or name in closed or left <= 0:
                continue
            given = min(
                fitting(layers, name, drops[name], left), count, layers.spare(name) - drops[name]
            )
            left -= layers.gone(name, drops[name] + given) - layers.gone(name, drops[name])
            drops[name] += given
            left = budget - layers.spent(drops) if layers.shared else left
            if given < count:
                closed.add(name)
        return drops

    def predicted(self, weights: float) -> tuple[float, float]:
        """(change of the mean loss, fall of accuracy as a share) by the time so many weights are gone; between legs in proportion."""
        at = [leg.weights for leg in self.legs]
        loss = np.interp(weights, at, [leg.loss for leg in self.legs]) - self.legs[0].loss
        return float(loss), float(np.interp(weights, at, self._falls()))

    def within(self, fall: float) -> float:
        """Weights that may go before accuracy has fallen by more than `fall`, a share."""
        falls = np.maximum.accumulate(self._falls())
        for (a, x), (b, y) in pairwise(zip(self.legs, falls, strict=True)):
            if y > fall:
                return a.weights + (b.weights - a.weights) * float((fall - x) / (y - x))
        return float(self.legs[-1].weights)

    def _falls(self) -> list[float]:
        return [(self.legs[0].correct - leg.correct) / self.examples for leg in self.legs]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> AllocationPath:
        legs = [
            PathStep(
                **{**leg, "taken": tuple((str(name), int(count)) for name, count in leg["taken"])}
            )
            for leg in data["legs"]
        ]
        return cls(tuple(legs), data["examples"])


def fitting(layers: Ranked, name: str, at: int, budget: float) -> int:
    """How many more units the layer can lose, from `at` on, within a budget of weights; floors not counted."""
    if name not in layers.costs:
        return max(0, int(budget // layers.sizes[name]))
    return int(np.searchsorted(layers.costs[name][at:].cumsum(), budget, "right"))
