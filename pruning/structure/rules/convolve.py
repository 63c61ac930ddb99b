"""Convolutions: plain, depthwise, grouped, transposed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from pruning.structure.labels import ALWAYS, along, varies
from pruning.structure.propagate import Propagation, Value, operation, rule
from pruning.structure.rule_work import vector


@rule("conv1d", "conv2d", "conv3d")
def convolution(propagation: Propagation, node: fx.Node, args: dict[str, Any], meta: Tensor) -> Any:
    """x (n, C, ...) with w (O, C/groups, k...): inputs meet the weight's dimension 1, its dimension 0 are new channels."""
    x, weight, groups = args["input"], args["weight"], args["groups"]
    if x.meta.dim() != weight.meta.dim():
        return propagation.give_up([x, weight], meta)
    channels = _read(propagation, x, weight)
    rows, columns = vector(propagation, weight, 0)[0], vector(propagation, weight, 1)[0]
    if rows is None:
        rows = torch.full((weight.shape[0],), ALWAYS)
    propagation.labels.mark("source", rows)
    if groups == 1:
        _meet(propagation, columns, channels)
    else:
        _grouped(propagation, rows, columns, channels, groups, weight.shape)
    return _result(propagation, rows, args["bias"], meta)


def _read(propagation: Propagation, x: Value, weight: Value) -> Tensor | None:
    """The labels of the channels a convolution reads; positions and kernels stay whole."""
    channels, rest = vector(propagation, x, 1)
    for factor in rest:
        propagation.block(factor, "a convolution runs over it")
    for factor in weight.factors:
        if set(varies(factor)) - {0, 1}:
            propagation.block(factor, "kernels stay whole")
    return channels


def _meet(propagation: Propagation, columns: Tensor | None, channels: Tensor | None) -> None:
    if columns is not None and channels is not None:
        propagation.labels.join(columns, channels)
    elif columns is not None:
        propagation.block(columns, "what it reads cannot lose channels")
    elif channels is not None:
        propagation.block(channels, "a layer with one input channel reads it")


def _grouped(
    propagation: Propagation,
    rows: Tensor,
    columns: Tensor | None,
    channels: Tensor | None,
    groups: int,
    shape: tuple[int, ...],
) -> None:
    """Depthwise: channel by channel. Many narrow groups: whole groups. Few wide groups: the same positions in each."""
    out, into = shape[0] // groups, shape[1]
    if channels is None:
        propagation.block(rows, "it is grouped over channels that cannot go")
        if columns is not None:
            propagation.block(columns, "it is grouped over channels that cannot go")
    elif into == 1:
        propagation.labels.join(rows, channels.repeat_interleave(out))
        propagation.labels.tie(rows.view(groups, out), [1])
    elif groups >= into:
        if columns is not None:
            propagation.block(columns, "groups go whole")
        inside = propagation.labels.tie(channels.view(groups, into), [1])[:, 0]
        propagation.labels.join(inside, propagation.labels.tie(rows.view(groups, out), [1])[:, 0])
    else:
        _meet(propagation, columns, propagation.labels.tie(channels.view(groups, into), [0])[0])
        propagation.labels.tie(rows.view(groups, out), [0])


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed(propagation: Propagation, node: fx.Node, args: dict[str, Any], meta: Tensor) -> Any:
    """x (n, C, ...) with w (C, O/groups, k...): the weight's dimensions the other way round."""
    x, weight, groups = args["input"], args["weight"], args["groups"]
    if x.meta.dim() != weight.meta.dim():
        return propagation.give_up([x, weight], meta)
    channels = _read(propagation, x, weight)
    rows, columns = vector(propagation, weight, 0)[0], vector(propagation, weight, 1)[0]
    if groups == 1:
        out = columns if columns is not None else torch.full((weight.shape[1],), ALWAYS)
        propagation.labels.mark("source", out)
        _meet(propagation, rows, channels)
        return _result(propagation, out, args["bias"], meta)
    if weight.shape[1] == 1 and channels is not None and rows is not None:
        propagation.labels.join(rows, channels)
        propagation.labels.mark("source", rows)
        return _result(propagation, rows, args["bias"], meta)
    for value in (weight, x, args["bias"]):
        for factor in value.factors if isinstance(value, Value) else ():
            propagation.block(factor, f"{operation(node)} in groups is left whole")
    return Value(meta)


def _result(propagation: Propagation, rows: Tensor, bias: Value | None, meta: Tensor) -> Value:
    if bias is not None and (labels := vector(propagation, bias, 0)[0]) is not None:
        propagation.labels.join(rows, labels)
    return Value(meta, (along(rows, 1, meta.shape),))
