"""A model's structure: its layers in order, its dependency groups, and what cannot be removed."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pruning.errors import NotCaptured
from pruning.structure.dependency_graph import dependency_groups
from pruning.types import Workpiece, prunable
from pruning.units.counts import count_units
from pruning.units.layout import owned_indices


def structure(spec: dict[str, Any], work: Workpiece) -> tuple[dict[str, Any], dict[str, Any]]:
    """json: refused (why the model could not be captured, or ""), how (torch.export or torch.fx),
    layers (name, shape), groups (name, kind, units, members, alone: weights that are removed with
    one unit), blocked (layers' outputs that cannot be removed, with the reason).
    """
    weights = prunable(work.model)
    layers = [{"name": name, "shape": list(weight.shape)} for name, weight in weights.items()]
    data: dict[str, Any] = {
        "refused": "",
        "how": "",
        "layers": layers,
        "groups": [],
        "blocked": [],
    }
    if work.example is None:
        return data | {"refused": "The model has no example input to follow through it."}, {}
    try:
        graph = dependency_groups(work.model, work.example)
    except NotCaptured as error:
        return data | {"refused": str(error)}, {}
    # Groups of the whole model, whatever a granularity takes of them.
    names = [group.name for group in graph.groups]
    shapes = {name: weight.shape for name, weight in weights.items()}
    alone = count_units(names, shapes, owned_indices(graph.groups)).alone().tolist()
    groups = [
        asdict(group) | {"alone": removed}
        for group, removed in zip(graph.groups, alone, strict=True)
    ]
    # Dimensions beyond outputs and inputs are kernels' own, and no layer's channels.
    blocked = [
        asdict(output) for output in graph.blocked if output.parameter in weights and output.dim < 2
    ]
    return data | {"how": graph.how, "groups": groups, "blocked": blocked}, {}
