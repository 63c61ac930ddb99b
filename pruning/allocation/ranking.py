"""The index that answers a slider without touching the weights again: every layer's unit scores, sorted once.

Numpy only. Built where torch lives (`pruning.masks.rank`), saved as .npz, read by pages. Answers are exact, not estimated:
the same scope functions that prune decide here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruning.allocation.path import AllocationPath
from pruning.allocation.scopes import Ranked, spend
from pruning.errors import OutOfRange, RecipeError, UnknownName
from pruning.events import Layer
from pruning.metrics import sparse_bytes
from pruning.recipe import Recipe
from pruning.units.counts import UnitCounts


@dataclass(frozen=True)
class Preview:
    """What one shot of a recipe would leave. thresholds: layer -> the score at or below which units go, None if none go.

    sparsity: share gone of the covered weights (layers not excluded). weights, kept, macs: of all prunable layers.
    bytes: of the whole model. drops: units that each layer loses; units: units that it has.
    """

    sparsity: float
    weights: int
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

    units: layer -> (units,) ascending; sizes: weights that go with a unit; shapes: of the weights; macs: of one example in the
    layer, dense; other: bytes of the file that are not covered weights (biases, norms, header); fixed: layers that this
    granularity leaves alone (the output layer, when units are whole outputs), with the reason.
    costs: weights that go with each unit, in the order of `units`, where they differ; leaders: layer -> the layer whose units
    its own go with (keys with their queries); output: the layer that gives the model's answers; route: measured, for by_sensitivity.
    touching: where units are coupled groups, what they touch: `units` are then by group, named after a layer whose outputs it holds,
    and `sizes` what goes with one unit alone; multiple: groups keep a multiple of so many units.
    """

    units: dict[str, NDArray[Any]]
    sizes: dict[str, int]
    shapes: dict[str, tuple[int, ...]]
    macs: dict[str, int]
    other: int
    fixed: dict[str, str]
    costs: dict[str, NDArray[Any]] = field(default_factory=dict)
    leaders: dict[str, str] = field(default_factory=dict)
    output: str | None = None
    route: AllocationPath | None = None

    touching: UnitCounts | None = None
    multiple: int = 1

    @property
    def names(self) -> list[str]:
        return list(self.shapes)

    @property
    def every(self) -> list[str]:
        """The layers, and the groups that are not named as any layer is."""
        return list(dict.fromkeys((*self.shapes, *self.units)))

    def total(self, name: str) -> int:
        """Weights of a layer."""
        return int(np.prod(self.shapes[name]))

    def gone(self, name: str, dropped: int) -> int:
        """Weights of a layer that go with its `dropped` lowest units."""
        return (
            int(self.costs[name][:dropped].sum())
            if name in self.costs
            else dropped * self.sizes.get(name, 0)
        )

    def group(self, name: str) -> list[str]:
        """A layer and those whose units go with its own."""
        return [name, *(other for other, leader in self.leaders.items() if leader == name)]

    def open(self, recipe: Recipe) -> list[str]:
        """The layers that the recipe may take from; one that is excluded keeps its group. Raises RecipeError where there is none."""
        for name in (*recipe.exclude, *recipe.ratios):
            if name not in self.every:
                raise UnknownName("layer", name, self.every)
        closed = {*self.fixed, *recipe.exclude}
        closed |= {self.leaders.get(name, name) for name in closed}
        if self.touching is not None:
            return self._open_groups(recipe)
        found = [name for name in self.units if self.leaders.get(name, name) not in closed]
        if not found and not recipe.exclude:
            raise RecipeError(self._nothing(recipe))
        return found

    def _open_groups(self, recipe: Recipe) -> list[str]:
        """The groups that touch no layer that is left dense."""
        assert self.touching is not None
        dense = [i for i, name in enumerate(self.touching.tensors) if name in recipe.exclude]
        shut = np.any(self.touching.touches()[dense], axis=0).reshape(-1)
        found = [
            g
            for i, g in enumerate(self.touching.groups)
            if g in self.units and g not in self.fixed and not shut[i]
        ]
        if not found and not recipe.exclude:
            raise RecipeError(self._nothing(recipe))
        return found

    def _nothing(self, recipe: Recipe) -> str:
        told = "; ".join(f"{name}: {why}" for name, why in list(self.fixed.items())[:3])
        return f"{recipe.granularity} fits no layer of this model ({told.rstrip('.')}): choose another granularity."

    def covered(self, recipe: Recipe) -> list[str]:
        """The layers that the recipe may take from: its sparsity is a share of their weights."""
        if self.touching is None:
            return self.open(recipe)
        return [
            name
            for name, ours in zip(self.touching.tensors, self._covered(recipe), strict=True)
            if ours
        ]

    def _covered(self, recipe: Recipe) -> NDArray[np.bool_]:
        """(tensors,) whether any open group touches it."""
        assert self.touching is not None
        ours = set(self._open_groups(recipe))
        columns = [i for i, g in enumerate(self.touching.groups) if g in ours]
        touched: NDArray[np.bool_] = np.any(self.touching.touches()[:, columns], axis=1).reshape(-1)
        return touched

    def ranked(self, recipe: Recipe, share: float = 1.0) -> Ranked:
        """The layers that the recipe may take from, its ratios times `share`. Raises UnknownName for a layer the model does not have."""
        pick = [name for name in self.open(recipe) if name not in self.leaders]
        if recipe.scope == "manual":
            for name, ratio in recipe.ratios.items():
                if ratio > 0 and name in self.fixed:
                    raise OutOfRange(f"The ratio of {name}", ratio, f"0: {self.fixed[name]}")
                if ratio > 0 and name in self.leaders:
                    raise OutOfRange(
                        f"The ratio of {name}",
                        ratio,
                        f"0: its units go with those of {self.leaders[name]}, set it there.",
                    )
        if self.touching is not None:
            return self._ranked_groups(recipe, pick, share)
        groups = {name: self.group(name) for name in pick}
        return Ranked(
            units={name: self.units[name] for name in pick},
            sizes={name: sum(self.sizes[part] for part in group) for name, group in groups.items()},
            min_units=recipe.min_units,
            ratios={name: ratio * share for name, ratio in recipe.ratios.items() if name in pick},
            shapes={name: self.shapes[name] for name in pick},
            totals={name: sum(map(self.total, group)) for name, group in groups.items()},
            costs={name: self.costs[name] for name in pick if name in self.costs},
            output=self.output,
            macs={
                name: sum(self.macs.get(part, 0) for part in group)
                for name, group in groups.items()
            },
            route=self.route,
        )

    def _ranked_groups(self, recipe: Recipe, pick: list[str], share: float) -> Ranked:
        touching, covered = self.touching, self._covered(recipe)
        assert touching is not None
        return Ranked(
            units={name: self.units[name] for name in pick},
            sizes={name: self.sizes[name] for name in pick},
            min_units=recipe.min_units,
            ratios={name: ratio * share for name, ratio in recipe.ratios.items() if name in pick},
            shapes={name: self.shapes[_layer_of(name)] for name in pick},
            route=self.route,
            shared=lambda drops: touching.gone(drops, covered),
            worth=self._worth,
            whole=int(touching.totals[covered].sum()),
        )

    def _worth(self, drops: Mapping[str, int], of: str) -> float:
        """The share of all layers' "macs" or "bytes" that goes when groups lose so many units."""
        layers = self.layers(drops)
        if of == "macs":
            return 1 - sum(layer.macs_kept for layer in layers) / sum(
                layer.macs for layer in layers
            )
        return 1 - sum(sparse_bytes(layer.total, layer.kept) for layer in layers) / sum(
            4 * layer.total for layer in layers
        )

    def drops(
        self, recipe: Recipe, sparsity: float | None = None, share: float = 1.0
    ) -> dict[str, int]:
        """Units that each layer loses, at `share` (of a schedule) of the recipe's sparsity and ratios."""
        layers = self.ranked(recipe, share)
        wanted = (recipe.sparsity if sparsity is None else sparsity) * share
        taken = spend(recipe.scope, layers, wanted, recipe.scope_options)
        if self.multiple > 1:
            taken = {
                name: _rounded(len(self.units[name]), count, self.multiple)
                for name, count in taken.items()
            }
        return {name: taken.get(self.leaders.get(name, name), 0) for name in self.every}

    def preview(self, recipe: Recipe, sparsity: float | None = None) -> Preview:
        """What one shot at the recipe's final sparsity leaves, exactly."""
        drops = self.drops(recipe, sparsity)
        layers = self.layers(drops)
        covered = set(self.covered(recipe))
        total = sum(layer.total for layer in layers if layer.name in covered)
        gone = total - sum(layer.kept for layer in layers if layer.name in covered)
        weights = sum(layer.total for layer in layers)
        return Preview(
            sparsity=gone / total,
            weights=weights,
            kept=sum(layer.kept for layer in layers),
            macs=sum(layer.macs for layer in layers),
            macs_kept=sum(layer.macs_kept for layer in layers),
            bytes_dense=4 * weights + self.other,
            bytes_sparse=self.other
            + sum(sparse_bytes(layer.total, layer.kept) for layer in layers),
            layers=layers,
            thresholds={
                n: float(self.units[n][d - 1]) if (d := drops[n]) and n in self.units else None
                for n in drops
            },
            drops=drops,
            units={name: len(values) for name, values in self.units.items()},
        )

    def predicted(self, recipe: Recipe, share: float = 1.0) -> tuple[float, float] | None:
        """(change of the mean loss, fall of accuracy as a share) that the route foretells of one shot; None without a route."""
        if self.route is None:
            return None
        layers, drops = self.ranked(recipe), self.drops(recipe, share=share)
        return self.route.predicted(sum(layers.gone(name, drops[name]) for name in layers.units))

    def layers(self, drops: Mapping[str, int]) -> tuple[Layer, ...]:
        """What is left of every layer when so many units go."""
        if self.touching is None:
            kept = {
                name: self.total(name) - self.gone(name, drops.get(name, 0)) for name in self.names
            }
        else:
            counts = np.array([drops.get(name, 0) for name in self.touching.groups], np.int64)
            kept = dict(
                zip(self.touching.tensors, self.touching.kept(counts).tolist(), strict=True)
            )
        return tuple(self._layer(name, kept.get(name, self.total(name))) for name in self.names)

    def _layer(self, name: str, kept: int) -> Layer:
        total, macs = self.total(name), self.macs.get(name, 0)
        return Layer(name, total, kept, macs, macs * kept // total)

    def table(self, recipe: Recipe, stops: Sequence[float]) -> NDArray[np.int64]:
        """Weights kept, (stops, layers), at each sparsity: what a control needs to answer a drag on its own."""
        rows = []
        for stop in stops:
            rows.append([layer.kept for layer in self.layers(self.drops(recipe, stop))])
        return np.array(rows, np.int64).reshape(len(stops), len(self.names))

    def save(self, file: Path) -> None:
        plain = ("sizes", "shapes", "macs", "other", "fixed", "leaders", "output", "multiple")
        head = {
            **{name: getattr(self, name) for name in plain},
            "order": list(self.units),
            "uneven": list(self.costs),
        }
        head["route"] = self.route.to_dict() if self.route else None
        arrays = {f"units_{i}": values for i, values in enumerate(self.units.values())}
        arrays |= {f"costs_{i}": values for i, values in enumerate(self.costs.values())}
        if self.touching is not None:
            head |= {"groups": self.touching.groups, "tensors": self.touching.tensors}
            arrays |= self.touching.arrays()
        np.savez(file, allow_pickle=False, head=np.array(json.dumps(head)), **arrays)

    @classmethod
    def load(cls, file: Path) -> Ranking:
        with np.load(file, allow_pickle=False) as held:
            head = json.loads(str(held["head"]))
            units = {name: held[f"units_{i}"] for i, name in enumerate(head.pop("order"))}
            costs = {name: held[f"costs_{i}"] for i, name in enumerate(head.pop("uneven", []))}
            groups, tensors = head.pop("groups", None), head.pop("tensors", ())
            sides = ("owner", "sizes", "each", "totals")
            touching = (
                UnitCounts(tuple(groups), tuple(tensors), *(held[side] for side in sides))
                if groups is not None
                else None
            )
        shapes = {name: tuple(shape) for name, shape in head.pop("shapes").items()}
        route = head.pop("route", None)
        return cls(
            units=units,
            shapes=shapes,
            costs=costs,
            touching=touching,
            route=AllocationPath.from_dict(route) if route else None,
            **head,
        )


def _layer_of(group: str) -> str:
    """The layer that a group is named after: "a.weight" for "a.weight (2)"."""
    return group.partition(" (")[0]


def _rounded(units: int, dropped: int, multiple: int) -> int:
    """Fewer units than asked, so that a multiple stays, or all where the group is smaller than one."""
    return units - min(units, -(-(units - dropped) // multiple) * multiple)
