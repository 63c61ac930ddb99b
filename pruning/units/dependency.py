"""Granularities of coupled groups: a unit is a channel, neuron or head with every weight, bias, scale and shift that goes with it, in all
layers. Ranked, previewed and masked as the units of single layers are."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pruning import registry
from pruning.errors import NotCaptured
from pruning.structure.dependency_graph import DependencyGraph, dependency_graph
from pruning.structure.groups import Blocked
from pruning.structure.unit_masks import masks_without, removed_units
from pruning.types import Masks, Scores, Workpiece, prunable
from pruning.units.counts import UnitCounts
from pruning.units.granularities import Granularity
from pruning.units.pooling import pool_group

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)


@dataclass(frozen=True)
class Groups:
    """The groups of a model that a granularity removes from. numbers: of those groups in `coupling`; form: how their scores are pooled."""

    dependencies: DependencyGraph
    numbers: tuple[int, ...]
    form: Granularity

    @property
    def names(self) -> list[str]:
        return [self.dependencies.groups[i].name for i in self.numbers]


def find(form: Granularity, work: Workpiece) -> Groups | str:
    """The groups that a granularity removes from, or why units are taken layer by layer instead."""
    if not form.kinds:
        return "it is a granularity of single layers."
    if work.example is None:
        return "the model has no example input to follow through it."
    try:
        dependencies = dependency_graph(work.model, work.example)
    except NotCaptured as error:
        return str(error)
    return Groups(
        dependencies,
        tuple(i for i, group in enumerate(dependencies.groups) if group.kind in form.kinds),
        form,
    )


def touching(groups: Groups, model: nn.Module) -> UnitCounts:
    """What the groups touch of the prunable weights."""
    weights, dependencies = prunable(model), groups.dependencies
    sides = [
        (name, dim)
        for name, w in weights.items()
        for dim in range(w.dim())
        if (name, dim) in dependencies.unit_of_index
    ] or [(next(iter(weights)), 0)]
    tensors = tuple(dict.fromkeys(name for name, _ in sides))
    each = np.zeros((len(sides), len(groups.numbers)), np.int64)
    for column, number in enumerate(groups.numbers):
        for member in dependencies.groups[number].members:
            if (member.parameter, member.dim) in sides:
                each[sides.index((member.parameter, member.dim)), column] = member.each
    return UnitCounts(
        groups=tuple(groups.names),
        tensors=tensors,
        owner=np.array([tensors.index(name) for name, _ in sides], np.int64),
        sizes=np.array([weights[name].shape[dim] for name, dim in sides], np.int64),
        each=each,
        totals=np.array([weights[name].numel() for name in tensors], np.int64),
    )


def pooled(
    groups: Groups,
    scores: Scores,
    model: nn.Module,
    criterion: str,
    spared: Collection[str],
    gone: Masks | None,
) -> dict[str, Tensor]:
    """Group -> one score for each unit, -inf for those that are gone. Groups without any score are left out."""
    dependencies, form = groups.dependencies, groups.form.pooling
    if (
        "granularities" in registry.entry("criterion", criterion).tags
    ):  # it scores outputs: the weights that read them say nothing of them
        form = form._replace(over="rows")
    turned = {
        f"{path}.weight" if path else "weight": 1
        for path, module in model.named_modules()
        if isinstance(module, TRANSPOSED)
    }
    told = {
        dependencies.first_name.get(name, name): values
        for name, values in scores.items()
        if name not in spared
    }
    lost = removed_units(dependencies, gone) if gone else np.zeros(dependencies.units, bool)
    found: dict[str, Tensor] = {}
    for number, name in zip(groups.numbers, groups.names, strict=True):
        values = pool_group(dependencies, number, told, form, turned)
        if values is not None:
            start, end = dependencies.starts[number : number + 2]
            found[name] = values.masked_fill(torch.from_numpy(lost[start:end]), -torch.inf)
    return found


def covered(
    groups: Groups, model: nn.Module, spared: Collection[str], exclude: Collection[str]
) -> set[str]:
    """The prunable weights that a unit of some open group goes with. Groups that touch an excluded layer are not open."""
    dependencies, names, found = groups.dependencies, set(prunable(model)), set()
    for number, name in zip(groups.numbers, groups.names, strict=True):
        touched = {member.parameter for member in dependencies.groups[number].members}
        if name not in spared and not touched & set(exclude) and touched & names - set(spared):
            found |= touched & names
    return found


def fixed(
    groups: Groups, model: nn.Module, spared: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """(weights whose outputs no unit holds -> why, weights whose outputs go with those of another -> that one)."""
    dependencies = groups.dependencies
    mine = [
        (dependencies.groups[i], name) for i, name in zip(groups.numbers, groups.names, strict=True)
    ]
    held = {
        member.parameter: name
        for group, name in mine
        for member in group.members
        if member.dim == 0
    }
    others = {
        member.parameter: group.kind
        for group in dependencies.groups
        for member in group.members
        if member.dim == 0
    }
    shut = {b.parameter: b for b in dependencies.blocked if b.dim == 0}
    names = [name for name in prunable(model) if name not in groups.names]
    leaders = {name: held[name] for name in names if name in held}
    why = {
        name: _why(groups, others.get(name), shut.get(name)) for name in names if name not in held
    }
    return why | {name: reason for name, reason in spared.items() if name in groups.names}, leaders


def _why(groups: Groups, kind: str | None, shut: Blocked | None) -> str:
    """Why no unit holds a weight's outputs. kind: of the groups that do hold them."""
    if "heads" in groups.form.kinds:
        return (
            "its weights belong to no attention head."
            if groups.numbers
            else "the model has no attention."
        )
    if kind is not None:
        return f"its outputs are {kind} of attention: they go by granularity head."
    if shut is None:
        return "it has one output, and no layer is emptied."
    return (
        "its outputs are the model's answers, one for each class."
        if shut.operation == "output"
        else f"{shut.why} ({shut.operation})."
    )


def taken(groups: Groups, name: str, unit: int, model: nn.Module) -> dict[str, Tensor]:
    """Parameter name -> True for the weights that go with one unit of a group."""
    dependencies, number = groups.dependencies, groups.numbers[groups.names.index(name)]
    found: dict[str, Tensor] = {}
    for member in dependencies.groups[number].members:
        places = np.flatnonzero(
            dependencies.unit_of_index[member.parameter, member.dim]
            == dependencies.starts[number] + unit
        )
        held = found.setdefault(
            member.parameter,
            torch.zeros(model.get_parameter(member.parameter).shape, dtype=torch.bool),
        )
        held.index_fill_(member.dim, torch.from_numpy(places), True)
    return found


def verdict(
    groups: Groups,
    losing: dict[str, NDArray[np.bool_]],
    model: nn.Module,
    shapes: Mapping[str, tuple[int, ...]],
) -> Masks:
    """Masks without the units that each group loses, and of every prunable weight. losing: group -> (units,) True = goes."""
    dependencies, gone = groups.dependencies, np.zeros(groups.dependencies.units, bool)
    for number, name in zip(groups.numbers, groups.names, strict=True):
        if name in losing:
            gone[dependencies.starts[number] : dependencies.starts[number + 1]] = losing[name]
    closed = masks_without(dependencies, gone, model)
    untouched = {
        name: torch.ones(shape, dtype=torch.bool)
        for name, shape in shapes.items()
        if name not in closed
    }
    every = closed | untouched
    return {name: every[name] for name in dict.fromkeys((*shapes, *closed))}
