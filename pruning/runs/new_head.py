"""Somebody's own model with another number of outputs, where its last layer alone decides that."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from pruning.errors import ModelError
from pruning.tasks import main_output
from pruning.types import Workpiece


def with_classes(work: Workpiece, classes: int) -> nn.Module:
    """A copy of the model whose last layer has that many outputs, all zero until they are filled.

    Raises ModelError where the outputs are not those of one linear layer or 1×1 convolution.
    """
    model = copy.deepcopy(work.model)
    layer = _last(model, work)
    outputs = layer.weight.shape[0]
    # The layer itself, not a new one of its class, which may be made with other arguments.
    for name in ("weight", "bias"):
        old = getattr(layer, name)
        if old is not None:
            setattr(layer, name, nn.Parameter(old.new_zeros(classes, *old.shape[1:])))
    setattr(layer, "out_features" if isinstance(layer, nn.Linear) else "out_channels", classes)
    pick = work.outputs or main_output
    before, after = (_shape(pick(_called(each, work))) for each in (work.model, model))
    if not _differ_in(before, after, outputs, classes):
        raise _no_head(work)
    return model


def _last(model: nn.Module, work: Workpiece) -> nn.Linear | nn.Conv2d:
    """The layer with weights that is called last. ModelError where it has no classes."""
    called: list[nn.Module] = []
    layers = [m for m in model.modules() if next(m.parameters(recurse=False), None) is not None]
    # Not the modules around others, which may hold tokens of their own: they end after theirs.
    leaves = [m for m in layers if next(m.children(), None) is None]
    hooks = [m.register_forward_hook(lambda own, *_: called.append(own)) for m in leaves]
    try:
        _called(model, work)
    finally:
        for hook in hooks:
            hook.remove()
    last = called[-1] if called else None
    if not isinstance(last, nn.Linear | nn.Conv2d) or called.count(last) > 1:
        raise _no_head(work)
    if isinstance(last, nn.Conv2d) and (last.kernel_size != (1, 1) or last.groups > 1):
        raise _no_head(work)
    # Of weights that another layer shares, the other would have to change as well.
    owners = sum(p is last.weight for m in layers for p in m.parameters(recurse=False))
    if owners != 1:
        raise _no_head(work)
    return last


def _called(model: nn.Module, work: Workpiece) -> Any:
    """What the model gives for its example. ModelError without one, or where that stops."""
    if work.example is None:
        raise _no_head(work)
    example = work.example if isinstance(work.example, tuple) else (work.example,)
    try:
        with torch.no_grad():
            return model(*example)
    except Exception as error:  # somebody's own code raises anything
        raise _no_head(work) from error


def _differ_in(before: list[int], after: list[int], outputs: int, classes: int) -> bool:
    """Whether shapes are equal but for the number of classes."""
    if len(before) != len(after):
        return False
    pairs = zip(before, after, strict=True)
    return all(a == b or (b, a) == (outputs, classes) for b, a in pairs)


def _shape(out: Any) -> list[int]:
    return list(getattr(out, "shape", ()))


def _no_head(work: Workpiece) -> ModelError:
    return ModelError(
        f"{work.name} cannot be given another number of classes: its outputs are not those of one "
        "last linear layer, or it has no example input."
    )
