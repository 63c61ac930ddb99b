"""Scores of single weights -> one score for each unit of a group, pooled over every weight that goes with it."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from pruning.structure.dependency_graph import DependencyGraph


class Pooling(NamedTuple):
    """How the scores of all weights that go with a unit become one score.

    how: "mean", "sum", "max" or "l2" of a unit's weights;
    over: "all" of them, or the "rows" that make it, not those that read it;
    normalise: "none", or each group's scores divided by their "mean" or "max", so that groups
    of other sizes compare.
    """

    how: str = "mean"
    over: str = "all"
    normalise: str = "none"


def pool_group(
    dependencies: DependencyGraph,
    group: int,
    scores: Mapping[str, Tensor],
    form: Pooling,
    rows: Mapping[str, int],
) -> Tensor | None:
    """(units,) higher = keep; None where none of the group's weights has a score. rows: weight -> the dimension its outputs lie on."""
    held, start = dependencies.groups[group], int(dependencies.starts[group])
    members = [m for m in held.members if m.parameter in scores]
    if form.over == "rows":
        members = [m for m in members if m.dim == rows.get(m.parameter, 0)]
    if not members:
        return None
    total, count = torch.zeros(held.units), torch.zeros(held.units)
    largest = torch.full((held.units,), -torch.inf)
    for member in members:
        unit = torch.from_numpy(dependencies.unit_of_index[member.parameter, member.dim]) - start
        ours = (unit >= 0) & (unit < held.units)
        slices = (
            scores[member.parameter].float().transpose(0, member.dim).flatten(1)[ours]
        )  # (indices, weights of each)
        place = unit[ours]
        total.index_add_(0, place, (slices.square() if form.how == "l2" else slices).sum(1))
        count.index_add_(0, place, torch.full((len(place),), float(slices.shape[1])))
        largest.scatter_reduce_(0, place, slices.amax(1), "amax")
    pooled = {"sum": total, "mean": total / count, "max": largest, "l2": total.clamp(min=0).sqrt()}[
        form.how
    ]
    return _normalised(pooled, form.normalise)


def _normalised(pooled: Tensor, way: str) -> Tensor:
    size = {"none": 1.0, "mean": float(pooled.abs().mean()), "max": float(pooled.abs().max())}[way]
    return pooled / size if size > 0 else pooled


def touched(dependencies: DependencyGraph, groups: Collection[int]) -> set[str]:
    """The parameters that some unit of these groups goes with."""
    return {member.parameter for group in groups for member in dependencies.groups[group].members}
