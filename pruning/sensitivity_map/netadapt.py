"""From dense to sparse, step by step: each layer gives where the model's answers move least,
measured on the model as it is by then.

A map of the dense model alone promises too much: layers that are harmless one at a time are not
harmless together. So each layer is tried anew before each step, with all that was removed before it
removed. How far answers move is the Kullback-Leibler divergence from those of the dense model: like
the loss, but never below 0 and not misled by single labels. Where outputs are no scores of classes,
it is their mean squared change over their variance. Taking the lowest scores anywhere stands as one
more offer, and the better of the two is taken.
Greedy in the manner of Yang et al., 2018 (NetAdapt), https://arxiv.org/abs/1804.03230
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from pruning.allocation.layers import RankedLayers
from pruning.allocation.path import AllocationPath, PathStep
from pruning.allocation.ranked import RankedUnits
from pruning.allocation.scopes import lowest
from pruning.errors import Stopped
from pruning.measurement import correct
from pruning.recipe import Recipe
from pruning.sensitivity_map.cells import Cell, cache_key
from pruning.sensitivity_map.evaluator import PART, Evaluator
from pruning.stats import lower_hull
from pruning.storage import write_json
from pruning.tasks import classifies
from pruning.types import Batches, Masks, Workpiece, take

EXAMPLES = 256
"""Validation images looked at, at most."""

KEPT = (0.8, 0.65, 0.5, 0.4, 0.32, 0.25, 0.2, 0.16, 0.13, 0.1, 0.075, 0.05, 0.035, 0.02)
"""Shares of the weights that are kept after each step."""

TRIED = (0.25, 0.5, 1.0)
"""What each layer is asked to give in a step, as shares of the most that it may."""

MOST = 0.5
"""Of its units kept so far, that a layer gives in one step at most."""

Drops = dict[str, int]
"""Layer -> units removed."""

Removals = list[tuple[str, int]]
"""(layer, units more), in order."""

REMEMBERED = 64
_paths: dict[str, AllocationPath] = {}


def search(
    recipe: Recipe,
    work: Workpiece,
    ranked: RankedUnits,
    *,
    cache: Path | None = None,
    stop: Callable[[], bool] | None = None,
) -> AllocationPath:
    """The path down to the recipe's sparsity, in weights; what was measured before is continued.

    cache: the folder where paths are kept from one process to the next.
    Raises DataError without validation data, Stopped.
    """
    data = work.need("validation", "by_sensitivity").sample(EXAMPLES)
    layers = ranked.ranking.layers_of(recipe)
    before = [layers.removed_before(name) for name in layers.units]
    parts = f"path {before} {recipe.min_units} {sorted(recipe.exclude)}"
    if recipe.removed:  # which units those are that were removed before, and not only how many
        parts += f" {sorted(recipe.removed.items())}"
    key = cache_key(recipe, work, data, parts)
    known = _paths.get(key) or _read(cache, key)
    search = _Search(work, ranked, layers, replace(data, batch=data.examples))
    # A farther budget continues a nearer one: the first steps are the same.
    path = search.extend(known, recipe.sparsity * layers.weights, stop)
    # In memory too, for tests and scripts without a workspace; the oldest make room.
    while len(_paths) >= REMEMBERED:
        _paths.pop(next(iter(_paths)))
    _paths[key] = path
    if cache is not None and path != known:
        write_json(cache / f"{key}.json", path.to_dict())
    return path


def _read(cache: Path | None, key: str) -> AllocationPath | None:
    if cache is None:
        return None
    try:
        return AllocationPath.from_dict(json.loads((cache / f"{key}.json").read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError):  # none yet, or torn: it is measured anew
        return None


class _Search:
    """One model on its way down.

    A class because it holds the evaluator and the dense model's answers, made when first needed: a
    path that is known already costs nothing.
    """

    def __init__(
        self, work: Workpiece, ranked: RankedUnits, layers: RankedLayers, data: Batches
    ) -> None:
        self.work = work
        self.ranked = ranked
        self.layers = layers
        self.data = data.loaded()

    def extend(
        self, known: AllocationPath | None, until: float, stop: Callable[[], bool] | None
    ) -> AllocationPath:
        """Steps beyond those known, until so many weights are removed."""
        layers = self.layers
        drops = {name: layers.removed_before(name) for name in layers.units}
        steps = list(known.steps) if known else []
        for step in steps:
            _add(drops, step.removals)
        if steps and steps[-1].weights >= until:
            return AllocationPath(tuple(steps), self.data.examples)
        self.evaluator = Evaluator(self.work, self.ranked, take(self.data.x, slice(PART)))
        with torch.inference_mode():
            self.dense_outputs = self.work.model(self.data.x)
        if not steps:
            steps.append(self._measured(drops, [])[1])
        # Ever finer towards the end, where each weight matters more.
        for kept in KEPT:
            budget = round((1 - kept) * layers.weights)
            if steps[-1].weights >= until:
                break
            if budget <= steps[-1].weights:  # taken already, with units of many weights
                continue
            if stop is not None and stop():
                raise Stopped("Stopped while the layers' sensitivity was measured.")
            offers = [
                self._by_layer(drops, budget - steps[-1].weights),
                self._by_score(drops, budget),
            ]
            # Both ways are measured as a whole: pieces that are harmless alone may not be together.
            tried = [self._measured(drops, removals) for removals in offers if removals]
            if not tried:
                break
            _, best = min(tried, key=lambda moved_and_step: moved_and_step[0])
            _add(drops, best.removals)
            steps.append(best)
        return AllocationPath(tuple(steps), self.data.examples)

    def _measured(self, drops: Drops, removals: Removals) -> tuple[float, PathStep]:
        """How far the answers have moved after a step, and the step."""
        after = dict(drops)
        _add(after, removals)
        sandbox = self.evaluator.sandbox
        with sandbox.without(self._masks(after)), torch.inference_mode():
            logits = sandbox.model(self.data.x)
        weights = sum(self.layers.removed(name, count) for name, count in after.items())
        right = correct(logits.cpu(), self.data, self.work.metric)
        loss = float(self.work.loss(logits, self.data.y))
        return self._moved(logits), PathStep(
            tuple(removals), weights, loss, right.correct if right else None
        )

    def _by_layer(self, drops: Drops, budget: int) -> Removals:
        """Removals by how far each weight moves the answers, the least first.

        Along the lower convex hull of each layer's offers, so that a later piece of a layer never
        moves the answers less than an earlier one.
        """
        pieces: list[tuple[float, str, int]] = []  # (answers moved for each weight, layer, units)
        for name, offers in self._offers(drops, budget).items():
            before = self.layers.removed(name, drops[name])
            corners = [(0.0, 0.0, 0)]
            for count, moved in offers:
                weights = self.layers.removed(name, drops[name] + count) - before
                corners.append((weights, moved, count))
            for (x, y, units), (next_x, next_y, next_units) in pairwise(lower_hull(corners)):
                pieces.append(((next_y - y) / (next_x - x), name, next_units - units))
        # A stable sort: pieces that cost the same stay in the order of layers.
        pieces.sort(key=lambda piece: piece[0])
        return self._affordable([(name, units) for _, name, units in pieces], drops, budget)

    def _affordable(self, wanted: Removals, drops: Drops, budget: float) -> Removals:
        """As many removals as the budget pays for.

        A layer that cannot give all that is asked gives no more.
        """
        after = dict(drops)
        removals: Removals = []
        closed = set()
        for name, count in wanted:
            if name in closed:
                continue
            more = min(count, self.layers.affordable(name, after[name], budget))
            if more < count:
                closed.add(name)
            if more:
                before = self.layers.removed(name, after[name])
                budget -= self.layers.removed(name, after[name] + more) - before
                after[name] += more
                removals.append((name, more))
        return removals

    def _offers(self, drops: Drops, budget: int) -> dict[str, list[tuple[int, float]]]:
        """Layer -> (units more, how much further the answers move) for what it may give now."""
        cells = []
        for name, units in self.layers.units.items():
            removable = self.layers.removable(name) - drops[name]
            affordable = self.layers.affordable(name, drops[name], budget)
            share = max(1, round(MOST * (len(units) - drops[name])))
            most = min(removable, affordable, share)
            if most > 0:
                # Several sizes, since a layer may be harmless for a little and not for more.
                for count in sorted({max(1, round(most * part)) for part in TRIED}):
                    cells.append(Cell(name, drops[name] + count, len(units), 0))
        offers: dict[str, list[tuple[int, float]]] = {}
        sandbox = self.evaluator.sandbox
        with sandbox.without(self._masks(drops)):
            with torch.inference_mode():
                base = self._moved(sandbox.model(self.data.x))
            for cell, logits in self.evaluator.outputs(self.data.x, cells):
                count = cell.drop - drops[cell.layer]
                offers.setdefault(cell.layer, []).append((count, self._moved(logits) - base))
        return {name: sorted(offers[name]) for name in self.layers.units if name in offers}

    def _by_score(self, drops: Drops, budget: int) -> Removals:
        """The lowest scores anywhere, with all that was removed before removed."""
        wanted = lowest(self.layers, self.layers.without(drops), budget)
        return [
            (name, count - drops[name]) for name, count in wanted.items() if count > drops[name]
        ]

    def _moved(self, logits: Tensor) -> float:
        """KL divergence of the answers from the dense model's, mean over the images.

        Of outputs that are no scores of classes, their squared change over their variance.
        """
        dense = self.dense_outputs
        if not classifies(dense, self.data.y):
            spread = float(dense.var(correction=0)) or 1.0
            return float((logits - dense).square().mean()) / spread
        divergence = torch.nn.functional.kl_div(
            logits.log_softmax(1), dense.log_softmax(1), log_target=True, reduction="batchmean"
        )
        return float(divergence)

    def _masks(self, drops: Drops) -> Masks:
        """Masks of the tensors that lose something."""
        masks = self.ranked.masks(drops, self.work.model)
        return {name: keep for name, keep in masks.items() if not bool(keep.all())}


def _add(drops: Drops, removals: Removals | tuple[tuple[str, int], ...]) -> None:
    for name, count in removals:
        drops[name] += count
