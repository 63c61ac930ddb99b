"""Scores of single weights -> one score for each unit, pooled over the weights that are pruned
with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pruning.structure.groups import Group


class Pooling(NamedTuple):
    """How the scores of all weights of a unit become one score.

    how: "mean", "sum", "max" or "l2" of a unit's weights; over: "all" of them, the "rows" that make
    it or the "columns" that read it; normalise: "none", or each set's scores divided by their
    "mean" or "max", so that sets of other sizes compare. whole: the scores are of whole outputs or
    inputs, the same for all weights of one: each layer then counts once, and not by its fan-in.
    """

    how: str = "mean"
    over: str = "all"
    normalise: str = "none"
    whole: bool = False


WAYS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": lambda x: x.mean(1),
    "sum": lambda x: x.sum(1),
    "max": lambda x: x.amax(1),
    "l2": lambda x: torch.linalg.vector_norm(x, dim=1),
}
"""(units, weights in a unit) -> (units,), where every unit is one row."""


def pool_group(
    group: Group,
    unit_of: Mapping[tuple[str, int], NDArray[np.int64]],
    scores: Mapping[str, Tensor],
    pooling: Pooling,
    output_dims: Mapping[str, int],
) -> Tensor | None:
    """(units,) higher = keep; None where none of the group's weights has a score.

    unit_of: (parameter, dimension) -> the group's unit that each index belongs to, out of range
    for none. output_dims: weight -> the dimension that its outputs lie on, where it is not 0.
    """
    members = [m for m in group.members if m.parameter in scores]
    if pooling.over == "rows":
        members = [m for m in members if m.dim == output_dims.get(m.parameter, 0)]
    elif pooling.over == "columns":
        members = [m for m in members if m.dim == 1 - output_dims.get(m.parameter, 0)]
    if not members:
        return None
    # Sums over all members first, so that a mean weighs every weight alike, whatever its layer.
    total = torch.zeros(group.units)
    count = torch.zeros(group.units)
    largest = torch.full((group.units,), -torch.inf)
    for member in members:
        units = torch.from_numpy(unit_of[member.parameter, member.dim])
        by_index = scores[member.parameter].float().transpose(0, member.dim)
        # A concatenation gives one dimension to several groups: each takes its own indices.
        ours = (units >= 0) & (units < group.units)
        if not bool(ours.all()):
            by_index, units = by_index[ours], units[ours]
        # (indices that belong to a unit, weights of each), row by row in memory: how sums round
        # depends on it.
        slices = by_index.flatten(1).contiguous()
        if pooling.whole:
            slices = slices.mean(1, keepdim=True)
        values = slices.square() if pooling.how == "l2" else slices
        total.index_add_(0, units, values.sum(1))
        count.index_add_(0, units, torch.full((len(units),), float(slices.shape[1])))
        if pooling.how == "max":
            largest.scatter_reduce_(0, units, slices.amax(1), "amax")
    pooled = {
        "sum": total,
        "mean": total / count,
        "max": largest,
        "l2": total.clamp(min=0).sqrt(),
    }
    return _normalised(pooled[pooling.how], pooling.normalise)


def _normalised(pooled: Tensor, by: str) -> Tensor:
    sizes = {"none": 1.0, "mean": float(pooled.abs().mean()), "max": float(pooled.abs().max())}
    size = sizes[by]  # all zeros stay all zeros
    return pooled / size if size > 0 else pooled
