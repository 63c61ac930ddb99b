"""Masks as data: parameter name -> bool tensor, True = keep; names left out are dense.

A mask lies beside the model and never inside it: no hooks, no second set of parameters.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

import torch
from torch import Tensor, nn

from pruning.errors import ModelError, UnknownName
from pruning.events import Layer
from pruning.stats import Overlap, overlap
from pruning.types import Masks, prunable, unwrapped


def dense(model: nn.Module) -> Masks:
    """Masks that keep every prunable weight; as all masks, on the CPU."""
    return {
        name: torch.ones(w.shape, dtype=torch.bool, device="cpu")
        for name, w in prunable(model).items()
    }


@torch.no_grad()
def apply(masks: Masks, model: nn.Module) -> None:
    """Write zeros where a mask says so, in place. Applying twice is applying once.

    Raises UnknownName for a mask of a parameter the model does not have, ModelError for a wrong
    shape.
    """
    parameters = check_names(masks, model)
    for name, keep in masks.items():
        zero(parameters[name], keep)


def check_names(masks: Masks, model: nn.Module) -> dict[str, nn.Parameter]:
    """The model's parameters under all their names; raises as `apply` does."""
    parameters = dict(unwrapped(model).named_parameters(remove_duplicate=False))
    for name, keep in masks.items():
        if name not in parameters:
            if is_computed(name, parameters):
                raise ModelError(
                    f"{name} is computed from other parameters in this model: put the masks on a "
                    "copy with plain weights, `pruning.plain(model)`."
                )
            raise UnknownName("parameter to mask", name, parameters)
        weight = parameters[name]
        if weight.shape != keep.shape:
            raise ModelError(
                f"The mask of {name} has shape {tuple(keep.shape)}, its weights "
                f"{tuple(weight.shape)}: it is for another model."
            )
    return parameters


def is_computed(name: str, parameters: Collection[str]) -> bool:
    """Whether a weight of that name is made of others: parametrised, or masked by torch's hooks."""
    path, _, last = name.rpartition(".")
    beside = f"{path}." if path else ""
    inside = f"{beside}parametrizations.{last}."
    old = {f"{name}_orig", f"{name}_g", f"{name}_v"}
    return any(other.startswith(inside) or other in old for other in parameters)


def zero(weight: Tensor, keep: Tensor) -> None:
    """Plain zeros, in place, where `keep` is False. Both of one shape."""
    keep = keep.to(weight.device)
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
    total = sum(keep.numel() for keep in weights)
    # A run that removes nothing may cover nothing: none of its layers has units of its granularity.
    if not total:
        return 0.0
    return 1 - sum(int(keep.sum()) for keep in weights) / total


def by_layer(masks: Masks, rows: Mapping[str, Tensor], names: Collection[str]) -> tuple[Layer, ...]:
    """Kept weights and MACs of each layer called `names`.

    rows: weight -> (rows,) how often each weight of that row is multiplied for one example; without
    them MACs are 0.
    """
    return tuple(
        count_layer(name, keep, rows.get(name)) for name, keep in masks.items() if name in names
    )


def count_layer(name: str, keep: Tensor, rows: Tensor | None) -> Layer:
    """One layer's weights and MACs, all and kept.

    keep: the weight's shape, True = kept; rows: as in `by_layer`, None where they are not known.
    """
    by_row = keep.flatten(1).sum(1)  # kept weights of each row
    kept = int(by_row.sum())
    if rows is None:
        return Layer(name, keep.numel(), kept)
    macs = float(rows.sum()) * (keep.numel() // len(keep))
    return Layer(name, keep.numel(), kept, round(macs), round(float(by_row.double() @ rows)))


def intersect(a: Masks, b: Masks) -> Masks:
    """What both keep: a later mask never revives a pruned weight."""
    both = {**a, **b}
    return {name: a[name] & b[name] if name in a and name in b else both[name] for name in both}


def overlap_of(a: Masks, b: Masks, covered: Collection[str]) -> Overlap | None:
    """How many of the same covered weights two masks keep; None where neither keeps any."""
    return overlap(
        (a[name].numel(), int(a[name].sum()), int(b[name].sum()), int((a[name] & b[name]).sum()))
        for name in covered
    )
