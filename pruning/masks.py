"""Masks as data: parameter name -> bool tensor, True = keep; names left out are dense.

A mask lies beside the model and never inside it: no hooks, no second set of parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import nn

from pruning.errors import ModelError, UnknownName
from pruning.events import Layer
from pruning.types import Masks, prunable


def dense(model: nn.Module) -> Masks:
    """Masks that keep every prunable weight."""
    return {name: torch.ones_like(w, dtype=torch.bool) for name, w in prunable(model).items()}


@torch.no_grad()
def apply(masks: Masks, model: nn.Module) -> None:
    """Write zeros where a mask says so, in place. Applying twice is applying once.

    Raises UnknownName for a mask of a parameter the model does not have, ModelError for a wrong
    shape.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, keep in masks.items():
        if name not in parameters:
            raise UnknownName("parameter to mask", name, parameters)
        weight = parameters[name]
        if weight.shape != keep.shape:
            raise ModelError(
                f"The mask of {name} has shape {tuple(keep.shape)}, its weights "
                f"{tuple(weight.shape)}: it is for another model."
            )
        # A float product is several times faster than torch.where or a bool product.
        weight.mul_(keep.to(weight.dtype))
        # x * 0 leaves -0.0 for a negative x: plain zeros compress, and compare equal bit for bit.
        weight.masked_fill_(~keep, 0)


def sparsity(masks: Masks, covered: Collection[str] | None = None) -> float:
    """Share pruned of the covered weights; of all masked ones where `covered` is None.

    Biases have one dimension and are not counted: a sparsity is a share of weights.
    """
    weights = [
        keep
        for name, keep in masks.items()
        if keep.dim() > 1 and (covered is None or name in covered)
    ]
    kept = sum(int(keep.sum()) for keep in weights)
    return 1 - kept / sum(keep.numel() for keep in weights)


def by_layer(
    masks: Masks, positions: Mapping[str, int], names: Collection[str]
) -> tuple[Layer, ...]:
    """Kept weights and MACs of each layer called `names`.

    positions: how often each weight is used for one example (once for each place of its output).
    """
    layers = []
    for name, keep in masks.items():
        if name in names:
            total, kept, uses = keep.numel(), int(keep.sum()), positions.get(name, 0)
            layers.append(Layer(name, total, kept, total * uses, kept * uses))
    return tuple(layers)


def intersect(a: Masks, b: Masks) -> Masks:
    """What both keep: a later mask never revives a pruned weight."""
    both = {**a, **b}
    return {name: a[name] & b[name] if name in a and name in b else both[name] for name in both}


def overlap(a: Masks, b: Masks, covered: Collection[str]) -> float:
    """Intersection over union of the covered weights that two masks keep; 1: the same ones."""
    in_both = sum(int((a[name] & b[name]).sum()) for name in covered)
    in_either = sum(int((a[name] | b[name]).sum()) for name in covered)
    return in_both / max(1, in_either)
