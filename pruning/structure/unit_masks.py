"""Units and masks: which weights a unit takes along, and which units masks remove whole."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pruning.structure.groups import NumberedUnits
from pruning.structure.labels import Place, laid
from pruning.types import Masks


def masks_without(graph: NumberedUnits, removed: NDArray[np.bool_], model: nn.Module) -> Masks:
    """Masks, True = keep, without whole units: rows, biases, scales, shifts, and what reads them.

    removed: (units,) True = removed. Every parameter that belongs to any group has a mask.
    """
    parameters = dict(model.named_parameters())
    removed = np.append(removed, False)  # what is always kept has unit -1, which looks up the last
    masks: Masks = {}
    for name, dim in _places(graph):
        keep = torch.from_numpy(~removed[graph.unit_of_index[name, dim]])
        keep = laid(keep, dim, parameters[name].dim())
        # A weight is kept while its row and its column are. The product stays as small as
        # (out, in, 1, 1) until it is spread over the kernels.
        masks[name] = masks[name] & keep if name in masks else keep
    for name, keep in masks.items():
        masks[name] = keep.expand(parameters[name].shape).contiguous()
    return masks


def removed_units(graph: NumberedUnits, masks: Masks) -> NDArray[np.bool_]:
    """Which units masks remove whole. (units,) True = removed.

    No group is emptied: a layer without channels computes nothing, so its first unit is kept.
    """
    # Tied parameters have one place in the graph, and a mask under any of their names.
    places = _places(graph)
    last: dict[str, int] = {}  # the last dimension of each parameter that is asked for
    for name, dim in places:
        last[name] = max(dim, last.get(name, 0))
    by_first_name: Masks = {}
    for name, keep in masks.items():
        name = graph.first_name.get(name, name)
        collapsed = _collapsed(keep, max(2, last.get(name, 0) + 1))
        # Under several names, it keeps what all of them keep.
        both = by_first_name.get(name, collapsed) & collapsed
        by_first_name[name] = both
    removed = np.ones(graph.units + 1, bool)  # the last: indices without a unit
    for name, dim in places:
        units = graph.unit_of_index[name, dim]
        if name in by_first_name:
            keep = by_first_name[name]
            others = [d for d in range(keep.dim()) if d != dim]
            kept = keep.amax(others) if others else keep
            units = units[kept.bool().numpy()]  # where anything along `dim` is kept
        # Without a mask all of the parameter is kept, and with it every unit it belongs to.
        removed[units] = False
    removed = removed[:-1]
    for start, end in zip(graph.starts, graph.starts[1:], strict=False):
        if removed[start:end].all():
            removed[start] = False
    return removed


def _collapsed(keep: Tensor, dims: int) -> Tensor:
    """The first dimensions of a mask, 1 where anything of the others is kept.

    A convolution's (out, in): kernels' positions belong to no group, and both dimensions are asked
    for, so that one pass over the weights answers both. dims: how many are asked for; a table of
    positions (1, tokens, width) has three. As uint8, whose maximum is six times faster than `any`
    of bools.
    """
    keep = keep.contiguous().view(torch.uint8)
    return keep.flatten(dims).amax(dims) if keep.dim() > dims else keep


def _places(graph: NumberedUnits) -> list[Place]:
    """Every (parameter, dimension) that belongs to some group, once."""
    members = (member for group in graph.groups for member in group.members)
    return list(dict.fromkeys((m.parameter, m.dim) for m in members))
