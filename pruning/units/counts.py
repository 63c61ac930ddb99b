"""Which indices of which weights go with the units of each group: enough to count what is left, exactly, without the model. Numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class UnitCounts:
    """A weight is left while its index lives in every dimension: what is left of a tensor is the product of what lives in each.

    groups: names; tensors: names of weights; owner: (sides,) the tensor that each side, a dimension of a tensor, belongs to, ascending;
    sizes: (sides,) its length; each: (sides, groups) indices of the side that go with a unit of the group; totals: (tensors,) weights.
    """

    groups: tuple[str, ...]
    tensors: tuple[str, ...]
    owner: Array
    sizes: Array
    each: Array
    totals: Array

    def kept(self, drops: Array) -> Array:
        """(tensors,) weights left of each when groups lose (groups,) units."""
        live = self.sizes - self.each @ drops
        starts = np.searchsorted(self.owner, np.arange(len(self.tensors)))
        left: Array = np.multiply.reduceat(live, starts) * (
            self.totals // np.multiply.reduceat(self.sizes, starts)
        )
        return left

    def gone(self, drops: Mapping[str, int], covered: Array) -> int:
        """Weights that go in all from the `covered` tensors, (tensors,) bool, when groups lose so many units."""
        counts = np.array([drops.get(name, 0) for name in self.groups], np.int64)
        return int((self.totals - self.kept(counts))[covered].sum())

    def alone(self) -> Array:
        """(groups,) weights that go with one unit of a group while all others are in place."""
        return np.array(
            [
                int((self.totals - self.kept(one)).sum())
                for one in np.eye(len(self.groups), dtype=np.int64)
            ],
            np.int64,
        )

    def touches(self) -> Array:
        """(tensors, groups) bool."""
        found = np.zeros((len(self.tensors), len(self.groups)), bool)
        np.logical_or.at(found, self.owner, self.each > 0)
        return found

    def arrays(self) -> dict[str, Array]:
        """What a file holds of it beside the names."""
        return {name: getattr(self, name) for name in ("owner", "sizes", "each", "totals")}
