"""A model's blocks in the order of the data, read from its modules."""

from __future__ import annotations

from functools import partial
from math import prod
from typing import Any

import torch
from torch import Tensor, nn

from sample_models.cards import Block

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm)
POOLS = (
    nn.MaxPool1d,
    nn.MaxPool2d,
    nn.AvgPool1d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool1d,
    nn.AdaptiveAvgPool2d,
)


def blocks(model: nn.Module, example: Tensor) -> tuple[Block, ...]:
    """Every module with weights, and every pooling, in the order that `example` meets them.

    Order of execution, which hooks see, and not of definition: a model may define them in any.
    """
    blocks: list[Block] = []
    hooks = []
    for name, module in model.named_modules():
        kind = _kind(name, module)
        if kind:
            hooks.append(module.register_forward_hook(partial(_record, blocks, name, kind)))
    try:
        with torch.no_grad():
            model(example)
    finally:
        for hook in hooks:
            hook.remove()
    return tuple(blocks)


def _kind(name: str, module: nn.Module) -> str:
    if isinstance(module, CONVOLUTIONS):
        return "depthwise" if module.groups == module.in_channels > 1 else "conv"
    if isinstance(module, nn.Linear):
        return "attention" if "attention" in name.split(".") else "linear"
    if isinstance(module, NORMS):
        return "norm"
    return "pool" if isinstance(module, POOLS) else ""


def _record(
    blocks: list[Block], name: str, kind: str, module: nn.Module, _inputs: Any, output: Tensor
) -> None:
    weight = getattr(module, "weight", None)
    shape = tuple(weight.shape) if isinstance(weight, Tensor) else ()
    weights = prod(shape) if shape else 0  # prod(()) is 1, and a pooling has none
    blocks.append(Block(name, kind, weights, shape, tuple(output.shape[1:])))
