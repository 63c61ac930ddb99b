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

from pruning.errors import RecipeError


@dataclass(frozen=True)
class PathStep:
    """One step. removals: (layer, units) in order; weights: removed by then, in all.

    loss (mean) and correct (answers, None where targets are no classes): of the model by then, on
    the path's validation images.
    """

    removals: tuple[tuple[str, int], ...]
    weights: int
    loss: float
    correct: int | None


@dataclass(frozen=True)
class AllocationPath:
    """Steps from the model as it is (which removes nothing) on.

    examples: validation images that every step was measured on.
    """

    steps: tuple[PathStep, ...]
    examples: int

    def predicted(self, weights: float) -> tuple[float, float | None]:
        """(change of the mean loss, fall of accuracy as a share) once so many weights are removed.

        Between two steps in proportion. The fall is None where targets are no classes.
        """
        # Steps are coarse, and budgets fall between them.
        at = [step.weights for step in self.steps]
        loss = np.interp(weights, at, [step.loss for step in self.steps]) - self.steps[0].loss
        falls = self._falls()
        return float(loss), None if falls is None else float(np.interp(weights, at, falls))

    def within(self, fall: float) -> float:
        """Weights that may be removed before accuracy has fallen by more than `fall`, a share.

        Raises RecipeError where targets are no classes.
        """
        # Accuracy may recover by luck further down: what counts is the worst so far.
        measured = self._falls()
        if measured is None:
            raise RecipeError(
                "by_sensitivity's `tolerate` is a fall of accuracy, and these targets are not one "
                "class for each example: leave it at 100."
            )
        falls = np.maximum.accumulate(measured)
        for (before, x), (after, y) in pairwise(zip(self.steps, falls, strict=True)):
            if y > fall:
                share = float((fall - x) / (y - x))
                return before.weights + (after.weights - before.weights) * share
        return float(self.steps[-1].weights)

    def _falls(self) -> list[float] | None:
        # Against the first step, which is the model as it is, on the same images.
        correct = [step.correct for step in self.steps if step.correct is not None]
        if len(correct) < len(self.steps):
            return None
        return [(correct[0] - after) / self.examples for after in correct]

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
