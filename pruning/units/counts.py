"""How many weights units take along: counted exactly, without the model. Numpy only.

A weight is kept while its index is kept in every dimension, so what is kept of a tensor is the
product of what is kept along each. That holds for rows (one dimension), for dependency groups (a
convolution loses output channels to one group and input channels to another) and, with the flat
tensor as its one dimension, for single weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Side = tuple[str, int]
"""(weight, dimension); dimension -1 is the flat tensor, which single weights are indices of."""


@dataclass(frozen=True, eq=False)
class UnitCounts:
    """Which dimensions of which weights the units of each set take indices from.

    sets: their names; tensors: names of weights. A side is one dimension of one weight:
    owner: (sides,) the tensor that each side belongs to, ascending; sizes: (sides,) its length;
    each: (sides, sets) indices of the side that one unit of a set owns; totals: (tensors,) weights.
    """

    sets: tuple[str, ...]
    tensors: tuple[str, ...]
    owner: Array
    sizes: Array
    each: Array
    totals: Array

    def kept(self, removed: Array) -> Array:
        """(tensors,) weights kept of each when the sets lose (sets,) units."""
        kept_indices = self.sizes - self.each @ removed
        # Sides of one tensor lie side by side, so that a product over them is one reduceat.
        first_sides = np.searchsorted(self.owner, np.arange(len(self.tensors)))
        # Weights per index: what the dimensions that no unit touches multiply by (k·k of a kernel).
        dense_sides = np.multiply.reduceat(self.sizes, first_sides)
        kept: Array = np.multiply.reduceat(kept_indices, first_sides)
        kept *= self.totals // dense_sides
        return kept

    def alone(self) -> Array:
        """(sets,) weights that one unit of a set takes along while all others are in place."""
        # One unit of each set in turn; the sets' units are all of one size.
        one_of_each = np.eye(len(self.sets), dtype=np.int64)
        return np.array(
            [int((self.totals - self.kept(one)).sum()) for one in one_of_each], np.int64
        )

    def touches(self) -> Array:
        """(tensors, sets) bool: whether a unit of the set owns any weight of the tensor."""
        touched = np.zeros((len(self.tensors), len(self.sets)), bool)
        # `.at` and not fancy indexing: two sides of one tensor would overwrite each other.
        np.logical_or.at(touched, self.owner, self.each > 0)
        return touched

    @property
    def shared(self) -> bool:
        """Whether removals interact: a set owns parts of several weights, or sets share one."""
        touched = self.touches()
        sides_per_tensor = np.bincount(self.owner, minlength=len(self.tensors))
        return bool((touched.sum(0) > 1).any() or (sides_per_tensor > 1).any())

    def arrays(self) -> dict[str, Array]:
        """What a file holds of it beside the names."""
        return {name: getattr(self, name) for name in ("owner", "sizes", "each", "totals")}


def count_units(
    sets: Sequence[str],
    shapes: Mapping[str, Sequence[int]],
    owned: Mapping[Side, Mapping[str, int]],
) -> UnitCounts:
    """The counts of sets of units in weights of these shapes.

    owned: side -> set -> how many of the side's indices one of its units owns.
    """
    order = {name: place for place, name in enumerate(shapes)}
    sides = sorted((side for side in owned if side[0] in shapes), key=lambda s: (order[s[0]], s[1]))
    tensors = list(dict.fromkeys(name for name, _ in sides))
    sizes = []
    for name, dim in sides:
        sizes.append(math.prod(shapes[name]) if dim < 0 else shapes[name][dim])
    each = [[owned[side].get(name, 0) for name in sets] for side in sides]
    return UnitCounts(
        sets=tuple(sets),
        tensors=tuple(tensors),
        owner=np.array([tensors.index(name) for name, _ in sides], np.int64),
        sizes=np.array(sizes, np.int64),
        each=np.array(each, np.int64).reshape(len(sides), len(sets)),
        totals=np.array([math.prod(shapes[name]) for name in tensors], np.int64),
    )
