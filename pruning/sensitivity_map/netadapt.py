"""From dense to sparse, leg by leg: each layer gives where the model's answers move least, measured on the model as it is by then.

A map of the dense model alone promises too much: layers that are harmless one at a time are not harmless together. So each layer is
tried anew before each leg, with all that went before gone. How far answers move is the Kullback-Leibler divergence from those of the
dense model: like the loss, but never below 0 and not misled by single labels. Taking the lowest scores anywhere stands as one more
offer, and the better of the two is taken. Greedy in the manner of Yang et al., 2018 (NetAdapt), https://arxiv.org/abs/1804.03230
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pruning.allocation.path import AllocationPath, PathStep, fitting
from pruning.allocation.scopes import Ranked, lowest
from pruning.errors import Stopped
from pruning.masks import Units, verdict
from pruning.recipe import Recipe
from pruning.sensitivity_map.cells import Cell, key
from pruning.sensitivity_map.evaluator import PART, Evaluator
from pruning.stats import lower_hull
from pruning.storage import write_json
from pruning.types import Batches, Masks, Workpiece

EXAMPLES = 256
"""Validation images looked at, at most."""

KEPT = (0.8, 0.65, 0.5, 0.4, 0.32, 0.25, 0.2, 0.16, 0.13, 0.1, 0.075, 0.05, 0.035, 0.02)
"""Shares of the weights that are left after each leg."""

TRIED = (0.25, 0.5, 1.0)
"""What each layer is asked to give in a leg, as shares of the most that it may."""

MOST = 0.5
"""Of its units left, that a layer gives in one leg at most."""

HELD = 64
_held: dict[str, AllocationPath] = {}


def route(
    recipe: Recipe,
    work: Workpiece,
    units: Units,
    *,
    folder: Path | None = None,
    stop: Callable[[], bool] | None = None,
) -> AllocationPath:
    """The way down to the recipe's sparsity, in weights; what was worked out before is gone on from.

    Raises DataError without validation data, Stopped.
    """
    data = work.need("validation", "by_sensitivity").head(EXAMPLES)
    layers = units.ranking.ranked(recipe)
    gone = [layers.lost(name) for name in layers.units]
    asked = key(recipe, work, data, f"route {gone} {recipe.min_units} {sorted(recipe.exclude)}")
    known = _held.get(asked) or _read(folder, asked)
    descent = _Descent(work, units, layers, replace(data, batch=len(data.x)))
    found = descent.on(known, recipe.sparsity * layers.weights, stop)
    while len(_held) >= HELD:
        _held.pop(next(iter(_held)))
    _held[asked] = found
    if folder is not None and found != known:
        write_json(folder / f"{asked}.json", found.to_dict())
    return found


def _read(folder: Path | None, asked: str) -> AllocationPath | None:
    try:
        return (
            AllocationPath.from_dict(
                json.loads((folder / f"{asked}.json").read_text(encoding="utf-8"))
            )
            if folder
            else None
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None


class _Descent:
    """One model on its way down. A class because it holds the bench and the dense model's answers; both are made when first needed."""

    def __init__(self, work: Workpiece, units: Units, layers: Ranked, data: Batches) -> None:
        self.work, self.units, self.layers, self.data = work, units, layers, data

    def on(
        self, known: AllocationPath | None, until: float, stop: Callable[[], bool] | None
    ) -> AllocationPath:
        """Legs beyond those known, until so many weights are gone."""
        layers = self.layers
        drops = {name: layers.lost(name) for name in layers.units}
        legs = list(known.legs) if known else []
        for name, count in (step for leg in legs for step in leg.taken):
            drops[name] += count
        if legs and legs[-1].weights >= until:
            return AllocationPath(tuple(legs), len(self.data.x))
        self.bench = Evaluator(self.work, self.units, self.data.x[:PART])
        with torch.inference_mode():
            self.answers = self.work.model(self.data.x).log_softmax(1)
        legs = legs or [self._leg(drops, [])[1]]
        for kept in KEPT:
            budget = round((1 - kept) * layers.weights)
            if legs[-1].weights >= until:
                break
            if budget <= legs[-1].weights:
                continue
            if stop is not None and stop():
                raise Stopped("Stopped while the layers' sensitivity was measured.")
            ways = [
                self._by_layers(drops, budget - legs[-1].weights),
                self._by_scores(drops, budget),
            ]
            _, leg = min(
                (self._leg(drops, taken) for taken in ways if taken),
                key=lambda tried: tried[0],
                default=(0.0, None),
            )
            if leg is None:
                break
            for name, count in leg.taken:
                drops[name] += count
            legs.append(leg)
        return AllocationPath(tuple(legs), len(self.data.x))

    def _leg(self, drops: dict[str, int], taken: list[tuple[str, int]]) -> tuple[float, PathStep]:
        """How far the answers have moved after a leg, and the leg, measured."""
        after = dict(drops)
        for name, count in taken:
            after[name] += count
        with self.bench.sandbox.without(self._masks(after)), torch.inference_mode():
            out = self.bench.sandbox.model(self.data.x)
        weights = sum(self.layers.gone(name, count) for name, count in after.items())
        right, loss = (
            int((out.argmax(1) == self.data.y).sum()),
            float(self.work.loss(out, self.data.y)),
        )
        return self._moved(out), PathStep(tuple(taken), weights, loss, right)

    def _by_layers(self, drops: dict[str, int], budget: int) -> list[tuple[str, int]]:
        """Steps by how far a weight moves the answers, lowest first, along the lower convex hull of each layer's offers."""
        pieces: list[tuple[float, int, str, int]] = []
        for place, (name, row) in enumerate(self._offers(drops, budget).items()):
            before = self.layers.gone(name, drops[name])
            corners = [(0.0, 0.0, 0)] + [
                (self.layers.gone(name, drops[name] + count) - before, moved, count)
                for count, moved in row
            ]
            hull = lower_hull(corners)
            pieces += [
                ((b[1] - a[1]) / (b[0] - a[0]), place, name, b[2] - a[2]) for a, b in pairwise(hull)
            ]
        return self._within(
            [(name, count) for _, _, name, count in sorted(pieces, key=lambda piece: piece[0])],
            drops,
            budget,
        )

    def _within(
        self, steps: list[tuple[str, int]], drops: dict[str, int], budget: float
    ) -> list[tuple[str, int]]:
        """As many of the steps as the budget pays for; a layer that cannot give all that is asked gives no more."""
        after, taken, closed = dict(drops), [], set()
        for name, count in steps:
            given = (
                min(count, fitting(self.layers, name, after[name], budget))
                if name not in closed
                else 0
            )
            if given < count:
                closed.add(name)
            if given:
                budget -= self.layers.gone(name, after[name] + given) - self.layers.gone(
                    name, after[name]
                )
                after[name] += given
                taken.append((name, given))
        return taken

    def _offers(self, drops: dict[str, int], budget: int) -> dict[str, list[tuple[int, float]]]:
        """Layer -> (units more, how much further the answers move) for what it may give in this leg."""
        asked = []
        for name, units in self.layers.units.items():
            left = min(
                self.layers.spare(name) - drops[name],
                fitting(self.layers, name, drops[name], budget),
            )
            most = min(left, max(1, round(MOST * (len(units) - drops[name]))))
            counts = sorted({max(1, round(most * share)) for share in TRIED}) if most > 0 else []
            asked += [Cell(name, drops[name] + count, len(units), 0) for count in counts]
        found: dict[str, list[tuple[int, float]]] = {}
        with self.bench.sandbox.without(self._masks(drops)):
            with torch.inference_mode():
                base = self._moved(self.bench.sandbox.model(self.data.x))
            for cell, out in self.bench.outputs(self.data.x, asked):
                found.setdefault(cell.layer, []).append(
                    (cell.drop - drops[cell.layer], self._moved(out) - base)
                )
        return {name: sorted(found[name]) for name in self.layers.units if name in found}

    def _by_scores(self, drops: dict[str, int], budget: int) -> list[tuple[str, int]]:
        """The lowest scores anywhere, with all that is gone gone."""
        scores = {
            name: np.concatenate(
                [np.full(drops[name], -np.inf, values.dtype), values[drops[name] :]]
            )
            for name, values in self.layers.units.items()
        }
        return [
            (name, count - drops[name])
            for name, count in lowest(self.layers, scores, budget).items()
            if count > drops[name]
        ]

    def _moved(self, out: Tensor) -> float:
        return float(
            torch.nn.functional.kl_div(
                out.log_softmax(1), self.answers, log_target=True, reduction="batchmean"
            )
        )

    def _masks(self, drops: dict[str, int]) -> Masks:
        leaders = self.units.ranking.leaders
        every = {name: drops.get(leaders.get(name, name), 0) for name in self.units.ranking.every}
        return {
            name: keep
            for name, keep in verdict(self.units, every, self.work.model).items()
            if not bool(keep.all())
        }
