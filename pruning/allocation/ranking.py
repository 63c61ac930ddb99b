"""The ranking that answers a slider without touching the weights again: every set's unit scores,
sorted once.

Numpy only. Made where torch lives (`pruning.allocation.ranked`), saved as .npz, read by pages.
Answers are exact, not estimated: the same scopes that prune decide here.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruning.allocation.layers import RankedLayers, Traced
from pruning.allocation.path import AllocationPath
from pruning.allocation.scopes import allocate
from pruning.errors import OutOfRange, RecipeError, UnknownName
from pruning.events import Layer
from pruning.metrics import sparse_bytes, sparse_head
from pruning.recipe import Recipe
from pruning.units.counts import UnitCounts


@dataclass(frozen=True)
class Preview:
    """What one shot of a recipe would keep.

    sparsity: share pruned of the covered weights (layers not excluded); share: of what the recipe's
    budget counts; weights, kept, macs: of all prunable layers; covered: weights of the covered
    ones; bytes: of the whole model; thresholds: set -> the score at or below which units are
    pruned, None if none are; drops: units that each set loses; units: units that it has.
    """

    sparsity: float
    share: float
    weights: int
    covered: int
    kept: int
    macs: int
    macs_kept: int
    bytes_dense: int
    bytes_sparse: int
    layers: tuple[Layer, ...]
    thresholds: dict[str, float | None]
    drops: dict[str, int]
    units: dict[str, int]


@dataclass(frozen=True)
class Ranking:
    """Sorted unit scores of one model under one criterion and granularity.

    units: set of units -> (units,) ascending scores; sizes: weights that one unit takes along while
    all others are in place; counts: what units take along together; costs: (units,) weights of each
    unit, in the order of `units`, where they differ; shapes: of every prunable weight; trace: gives
    what a pass of the model tells, once it is asked; other: bytes of the file that are not prunable
    weights (biases, norms, header); fixed: layers that this granularity leaves dense -> why;
    leaders: layer -> the set that its outputs are pruned with; path: measured, for by_sensitivity;
    multiple: sets keep a multiple of so many units.

    A set is named after a layer: the one it tiles, or one whose outputs it holds.
    """

    units: dict[str, NDArray[Any]]
    sizes: dict[str, int]
    counts: UnitCounts
    shapes: dict[str, tuple[int, ...]]
    trace: Callable[[], Traced]
    other: int
    fixed: dict[str, str]
    costs: dict[str, NDArray[Any]] = field(default_factory=dict)
    leaders: dict[str, str] = field(default_factory=dict)
    path: AllocationPath | None = None
    multiple: int = 1

    @property
    def macs(self) -> dict[str, int]:
        """Of one example in each layer, dense; empty where there is no example."""
        # Masks need none of it, and a pass takes longer than most of what they need.
        return self.trace().macs

    @property
    def output(self) -> str | None:
        """The layer that gives the model's answers."""
        return self.trace().output

    @property
    def names(self) -> list[str]:
        """The layers."""
        return list(self.shapes)

    @property
    def every(self) -> list[str]:
        """The layers, and the sets that are not named as any layer is."""
        return list(dict.fromkeys((*self.shapes, *self.units)))

    def total(self, name: str) -> int:
        """Weights of a layer."""
        return int(np.prod(self.shapes[name]))

    def group(self, name: str) -> list[str]:
        """A layer and those whose outputs are pruned with its own."""
        return [name, *(other for other, leader in self.leaders.items() if leader == name)]

    # ------------------------------------------------------------ what a recipe may prune

    def open(self, recipe: Recipe) -> list[str]:
        """The sets that a recipe may prune: not fixed, and touching no excluded layer.

        Raises UnknownName for a layer there is none of, RecipeError where nothing fits.
        """
        for name in (*recipe.exclude, *recipe.ratios):
            if name not in self.every:
                raise UnknownName("layer", name, self.every)
        # A set is open as a whole: one excluded layer closes all that share its units.
        excluded = [i for i, name in enumerate(self.counts.tensors) if name in recipe.exclude]
        closed = np.any(self.counts.touches()[excluded], axis=0)
        names = [
            name
            for i, name in enumerate(self.counts.sets)
            if name in self.units and name not in self.fixed and not closed[i]
        ]
        # With layers excluded, people know why nothing remains: the scope says it shorter.
        if not names and not recipe.exclude:
            reasons = "; ".join(f"{name}: {why}" for name, why in list(self.fixed.items())[:3])
            raise RecipeError(
                f"{recipe.granularity} fits no layer of this model ({reasons.rstrip('.')}): "
                "choose another granularity or criterion."
            )
        return names

    def covered(self, recipe: Recipe) -> list[str]:
        """The layers that the recipe may prune: its sparsity is a share of their weights."""
        covered = self._covered(recipe)
        return [name for name, ours in zip(self.counts.tensors, covered, strict=True) if ours]

    def _covered(self, recipe: Recipe) -> NDArray[np.bool_]:
        """(tensors,) whether any open set touches it."""
        # A layer counts as covered as soon as one open set owns any part of it.
        names = set(self.open(recipe))
        columns = [i for i, name in enumerate(self.counts.sets) if name in names]
        covered: NDArray[np.bool_] = np.any(self.counts.touches()[:, columns], axis=1)
        return covered

    def layers_of(self, recipe: Recipe, share: float = 1.0) -> RankedLayers:
        """What the recipe's scope sees: the open sets, its ratios times `share` (of a schedule).

        Raises OutOfRange for a ratio of a layer that stays dense or follows another, RecipeError
        for a budget of MACs where they are not known.
        """
        if recipe.scope == "manual":
            self._check_ratios(recipe)
        if recipe.counted == "macs" and not any(self.macs.values()):
            raise RecipeError(
                "The MACs of this model are not known, for it has no example input: "
                "let the budget count weights."
            )
        names = self.open(recipe)
        covered = self._covered(recipe)
        # Where no weight is shared, removals add up and each layer has its own total.
        shared = self.counts.shared
        return RankedLayers(
            units={name: self.units[name] for name in names},
            sizes={name: self.sizes[name] for name in names},
            min_units=recipe.min_units,
            ratios={name: r * share for name, r in recipe.ratios.items() if name in names},
            shapes={name: self._shape(name) for name in names},
            totals={} if shared else {name: int(np.prod(self._shape(name))) for name in names},
            costs={name: self.costs[name] for name in names if name in self.costs},
            trace=self.trace,
            path=self.path,
            budget=recipe.counted,
            spent_by=partial(self._spent, covered) if shared else None,
            amount=partial(self._amount, covered) if shared else None,
        )

    def _shape(self, name: str) -> tuple[int, ...]:
        """The shape of the layer that a set is named after, or else of the first that it touches.

        A set may be named after a parameter that is used outside of any layer.
        """
        layer = _layer_of(name)
        if layer in self.shapes:
            return self.shapes[layer]
        touched = self.counts.touches()[:, self.counts.sets.index(name)]
        return self.shapes[self.counts.tensors[int(np.argmax(touched))]]

    def _amount(self, covered: NDArray[np.bool_], budget: str) -> float:
        """All weights, MACs or bytes of the covered layers."""
        names = [name for name, ours in zip(self.counts.tensors, covered, strict=True) if ours]
        if budget == "macs":
            return sum(self.macs.get(name, 0) for name in names)
        weights = sum(self.total(name) for name in names)
        return 4 * weights if budget == "bytes" else weights

    def _spent(self, covered: NDArray[np.bool_], drops: Mapping[str, int], budget: str) -> float:
        """Weights, MACs or bytes of the covered layers removed when sets lose so many units."""
        by_set = np.array([drops.get(name, 0) for name in self.counts.sets], np.int64)
        removed = (self.counts.totals - self.counts.kept(by_set)) * covered
        if budget == "macs":
            macs = np.array([self.macs.get(name, 0) for name in self.counts.tensors])
            return float((macs * (removed / self.counts.totals)).sum())
        # Whole channels and heads are left out of the file: what they took is saved in full.
        weights = int(removed.sum())
        return 4 * weights if budget == "bytes" else weights

    def _check_ratios(self, recipe: Recipe) -> None:
        for name, ratio in recipe.ratios.items():
            if ratio > 0 and name in self.fixed:
                raise OutOfRange(f"The ratio of {name}", ratio, f"0: {self.fixed[name]}")
            if ratio > 0 and name in self.leaders:
                leader = self.leaders[name]
                raise OutOfRange(
                    f"The ratio of {name}",
                    ratio,
                    f"0: its units are pruned with those of {leader}, set it there.",
                )

    # ------------------------------------------------------------ what a recipe prunes

    def drops(
        self, recipe: Recipe, sparsity: float | None = None, share: float = 1.0
    ) -> dict[str, int]:
        """Units that each layer and set loses, at `share` of the recipe's sparsity and ratios."""
        layers = self.layers_of(recipe, share)
        wanted = (recipe.sparsity if sparsity is None else sparsity) * share
        drops = allocate(recipe.scope, layers, wanted, recipe.scope_options)
        # Rounded after the budget is spent: rounding to more kept never overspends.
        if self.multiple > 1:
            drops = {
                name: _rounded(len(self.units[name]), drop, self.multiple)
                for name, drop in drops.items()
            }
        if recipe.removed:
            # Units that are named are removed whatever the budget, which may be less than they are.
            drops = {name: max(drop, layers.removed_before(name)) for name, drop in drops.items()}
        # Layers that follow another show its count: pages ask by layer.
        return {name: drops.get(self.leaders.get(name, name), 0) for name in self.every}

    def share(self, recipe: Recipe, drops: Mapping[str, int]) -> float:
        """The share of what the recipe's budget counts that is pruned with these units."""
        layers = self.layers_of(recipe)
        return layers.spent(drops) / layers.whole

    def by_position(self, drops: Mapping[str, int]) -> dict[str, tuple[int, int]]:
        """Set -> (units pruned for their place alone, units pruned), where there are any.

        They score the same as units of the set that are kept, and flat order decided.
        """
        decided = {}
        for name, scores in self.units.items():
            drop = drops.get(name, 0)
            if not 0 < drop < len(scores) or scores[drop - 1] != scores[drop]:
                continue
            first = int(scores.searchsorted(scores[drop], "left"))
            before = int(scores.searchsorted(-np.inf, "right"))  # by earlier steps
            decided[name] = (drop - first, drop - before)
        return decided

    def preview(self, recipe: Recipe, sparsity: float | None = None) -> Preview:
        """What one shot at the recipe's final sparsity keeps, exactly."""
        drops = self.drops(recipe, sparsity)
        layers = self.layers(drops)
        covered = set(self.covered(recipe))
        covered_total = sum(layer.total for layer in layers if layer.name in covered)
        covered_kept = sum(layer.kept for layer in layers if layer.name in covered)
        thresholds: dict[str, float | None] = dict.fromkeys(drops)
        for name, drop in drops.items():
            # No score decided where all that is removed was named.
            if drop and name in self.units and np.isfinite(self.units[name][drop - 1]):
                thresholds[name] = float(self.units[name][drop - 1])
        weights = sum(layer.total for layer in layers)
        kept_bytes = sum(sparse_bytes(layer.total, layer.kept) for layer in layers)
        dense = 4 * weights + self.other
        return Preview(
            sparsity=(covered_total - covered_kept) / covered_total,
            share=self.share(recipe, drops),
            weights=weights,
            covered=covered_total,
            kept=sum(layer.kept for layer in layers),
            macs=sum(layer.macs for layer in layers),
            macs_kept=sum(layer.macs_kept for layer in layers),
            bytes_dense=dense,
            bytes_sparse=min(dense, self.other + self.head + kept_bytes),
            layers=layers,
            thresholds=thresholds,
            drops=drops,
            units={name: len(values) for name, values in self.units.items()},
        )

    @property
    def head(self) -> int:
        """Bytes that a sparse file's head is longer than the dense file's."""
        return sparse_head(self.names)

    def predicted(self, recipe: Recipe, share: float = 1.0) -> tuple[float, float | None] | None:
        """(change of the mean loss, fall of accuracy as a share) that the path predicts.

        Of one shot at `share` of the recipe's sparsity; None without a path.
        """
        if self.path is None:
            return None
        layers, drops = self.layers_of(recipe), self.drops(recipe, share=share)
        return self.path.predicted(sum(layers.removed(name, drops[name]) for name in layers.units))

    def layers(self, drops: Mapping[str, int]) -> tuple[Layer, ...]:
        """What is kept of every layer when sets lose so many units."""
        by_set = np.array([drops.get(name, 0) for name in self.counts.sets], np.int64)
        kept = dict(zip(self.counts.tensors, self.counts.kept(by_set).tolist(), strict=True))
        for name, costs in self.costs.items():  # units that differ are counted one by one
            kept[name] = self.total(name) - int(costs[: drops.get(name, 0)].sum())
        layers = []
        for name in self.names:
            total, macs = self.total(name), self.macs.get(name, 0)
            kept_here = kept.get(name, total)  # a layer that no unit touches keeps all
            # Every weight of a layer is used equally often, so MACs fall as weights do.
            layers.append(Layer(name, total, kept_here, macs, macs * kept_here // total))
        return tuple(layers)

    def table(self, recipe: Recipe, stops: Sequence[float]) -> NDArray[np.int64]:
        """(stops, layers) weights kept at each sparsity: what a control answers a drag with."""
        rows = [[layer.kept for layer in self.layers(self.drops(recipe, s))] for s in stops]
        return np.array(rows, np.int64).reshape(len(stops), len(self.names))

    # ------------------------------------------------------------ files

    def save(self, file: Path) -> None:
        plain = ("sizes", "shapes", "macs", "other", "fixed", "leaders", "output", "multiple")
        # Names are JSON in one string: npz holds arrays alone, and pickles are refused on reading.
        head: dict[str, Any] = {name: getattr(self, name) for name in plain}
        head |= {"order": list(self.units), "uneven": list(self.costs)}
        head |= {"sets": self.counts.sets, "tensors": self.counts.tensors}
        head["path"] = self.path.to_dict() if self.path else None
        arrays = {f"units_{i}": values for i, values in enumerate(self.units.values())}
        arrays |= {f"costs_{i}": values for i, values in enumerate(self.costs.values())}
        arrays |= self.counts.arrays()
        np.savez(file, allow_pickle=False, head=np.array(json.dumps(head)), **arrays)

    @classmethod
    def load(cls, file: Path) -> Ranking:
        with np.load(file, allow_pickle=False) as arrays:
            head = json.loads(str(arrays["head"]))
            units = {name: arrays[f"units_{i}"] for i, name in enumerate(head.pop("order"))}
            costs = {name: arrays[f"costs_{i}"] for i, name in enumerate(head.pop("uneven"))}
            sides = [arrays[name] for name in ("owner", "sizes", "each", "totals")]
        counts = UnitCounts(tuple(head.pop("sets")), tuple(head.pop("tensors")), *sides)
        shapes = {name: tuple(shape) for name, shape in head.pop("shapes").items()}
        path = head.pop("path")
        traced = Traced(head.pop("macs"), head.pop("output"))
        return cls(
            units=units,
            shapes=shapes,
            costs=costs,
            counts=counts,
            path=AllocationPath.from_dict(path) if path else None,
            trace=lambda: traced,
            **head,
        )


def _layer_of(name: str) -> str:
    """The layer that a set is named after: "a.weight" for "a.weight (2)"."""
    return name.partition(" (")[0]


def _rounded(units: int, drop: int, multiple: int) -> int:
    """Fewer units than asked, so that a multiple is kept; none where there is less than one."""
    kept = -(-(units - drop) // multiple) * multiple
    return units - min(units, kept)
