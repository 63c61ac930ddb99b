"""A measured path from dense to sparse: which layer loses how many units next, and what the model
does by then.

Data alone, numpy only. `pruning.sensitivity_map.netadapt` measures a path, the scope by_sensitivity
follows it as far as its budget goes, and the Prune page holds its prediction against what came.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

import numpy as np


@dataclass(frozen=True)
class PathStep:
    """One step. removals: (layer, units) in order; weights: removed by then, in all.

    loss (mean) and correct (answers): of the model by then, on the path's validation images.
    """

    removals: tuple[tuple[str, int], ...]
    weights: int
    loss: float
    correct: int


@dataclass(frozen=True)
class AllocationPath:
    """Steps from the model as it is (which removes nothing) on.

    examples: validation images that every step was measured on.
    """

    steps: tuple[PathStep, ...]
    examples: int

    def predicted(self, weights: float) -> tuple[float, float]:
        """(change of the mean loss, fall of accuracy as a share) once so many weights are removed.

        Between two steps in proportion.
        """
        # Steps are coarse, and budgets fall between them.
        at = [step.weights for step in self.steps]
        loss = np.interp(weights, at, [step.loss for step in self.steps]) - self.steps[0].loss
        return float(loss), float(np.interp(weights, at, self._falls()))

    def within(self, fall: float) -> float:
        """Weights that may be removed before accuracy has fallen by more than `fall`, a share."""
        # Accuracy may recover by luck further down: what counts is the worst so far.
        falls = np.maximum.accumulate(self._falls())
        for (before, x), (after, y) in pairwise(zip(self.steps, falls, strict=True)):
            if y > fall:
                share = float((fall - x) / (y - x))
                return before.weights + (after.weights - before.weights) * share
        return float(self.steps[-1].weights)

    def _falls(self) -> list[float]:
        # Against the first step, which is the model as it is, on the same images.
        return [(self.steps[0].correct - step.correct) / self.examples for step in self.steps]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> AllocationPath:
        """What `to_dict` gave, after JSON has made lists of its tuples."""
        steps = []
        for step in data["steps"]:
            removals = tuple((str(name), int(count)) for name, count in step["removals"])
            steps.append(PathStep(**{**step, "removals": removals}))
        return cls(tuple(steps), data["examples"])
