"""Between units and masks: which weights close with a unit, and which units masks close as a whole."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pruning.structure.dependency_graph import DependencyGraph
from pruning.types import Masks


def masks_without(
    dependencies: DependencyGraph, gone: NDArray[np.bool_], model: nn.Module
) -> Masks:
    """Masks without the units that are `gone`: their rows, biases, scales and shifts, and the weights that read them.

    gone: (units,) True = removed. Every parameter that any group touches has a mask.
    """
    parameters = dict(model.named_parameters())
    lost = np.append(gone, False)  # what always stays has unit -1, the last
    sides: dict[
        str, Tensor
    ] = {}  # what lives is a product over the dimensions: small until it is spread over kernels
    for name, dim in {
        (m.parameter, m.dim): None for group in dependencies.groups for m in group.members
    }:
        keep = torch.from_numpy(~lost[dependencies.unit_of_index[name, dim]])
        keep = keep.view([-1 if d == dim else 1 for d in range(parameters[name].dim())])
        sides[name] = sides[name] & keep if name in sides else keep
    return {name: keep.expand(parameters[name].shape).contiguous() for name, keep in sides.items()}


def removed_units(dependencies: DependencyGraph, masks: Masks) -> NDArray[np.bool_]:
    """Which units masks close as a whole. (units,) No group is emptied: its first unit stays."""
    named = {dependencies.first_name.get(name, name): keep for name, keep in masks.items()}
    gone = np.ones(dependencies.units + 1, bool)
    for name, dim in {
        (m.parameter, m.dim): None for group in dependencies.groups for m in group.members
    }:
        units = dependencies.unit_of_index[name, dim]
        gone[units[_any(named[name], dim)] if name in named else units] = False
    gone = gone[:-1]
    for start, end in zip(dependencies.starts, dependencies.starts[1:], strict=False):
        if gone[start:end].all():
            gone[start] = False
    return gone


def _any(keep: Tensor, dim: int) -> NDArray[np.bool_]:
    """Along one dimension of a mask, where anything is kept."""
    return keep.transpose(0, dim).reshape(keep.shape[dim], -1).any(1).numpy()
