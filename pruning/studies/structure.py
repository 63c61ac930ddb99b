"""A model's structure as plain data, for a page: its layers in order, its groups, and what cannot go."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pruning.errors import NotCaptured
from pruning.structure.dependency_graph import dependency_graph
from pruning.types import Workpiece, prunable
from pruning.units.dependency import Groups, touching
from pruning.units.granularities import Granularity


def structure(spec: dict[str, Any], work: Workpiece) -> tuple[dict[str, Any], dict[str, Any]]:
    """json: refused (why nothing could be followed, or ""), how (torch.export or torch.fx), layers (name, shape), groups (name, kind,
    units, members, alone: weights that one unit takes along), blocked (layers' outputs that cannot go, with the reason).
    """
    weights = prunable(work.model)
    layers = [{"name": name, "shape": list(weight.shape)} for name, weight in weights.items()]
    nothing: dict[str, Any] = {
        "refused": "",
        "how": "",
        "layers": layers,
        "groups": [],
        "blocked": [],
    }
    if work.example is None:
        return {**nothing, "refused": "The model has no example input to follow through it."}, {}
    try:
        dependencies = dependency_graph(work.model, work.example)
    except NotCaptured as error:
        return {**nothing, "refused": str(error)}, {}
    plain = Granularity(lambda x: x, lambda units, shape: units)
    alone = (
        touching(Groups(dependencies, tuple(range(len(dependencies.groups))), plain), work.model)
        .alone()
        .tolist()
    )
    groups = [
        {**asdict(group), "alone": taken}
        for group, taken in zip(dependencies.groups, alone, strict=True)
    ]
    blocked = [
        asdict(held) for held in dependencies.blocked if held.parameter in weights and held.dim < 2
    ]
    return {**nothing, "how": dependencies.captured.how, "groups": groups, "blocked": blocked}, {}
