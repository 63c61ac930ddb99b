"""Convolutions: plain, depthwise, grouped, transposed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from pruning.structure.labels import ALWAYS, along, varies
from pruning.structure.propagate import Value, Walk, operation, rule
from pruning.structure.rule_work import vector


@rule("conv1d", "conv2d", "conv3d")
def convolution(walk: Walk, node: fx.Node, given: dict[str, Any], meta: Tensor) -> Any:
    """x (n, C, ...) with w (O, C/groups, k...): inputs meet the weight's dimension 1, its dimension 0 are new channels."""
    x, weight, groups = given["input"], given["weight"], given["groups"]
    if x.meta.dim() != weight.meta.dim():
        return walk.give_up([x, weight], meta)
    channels = _read(walk, x, weight)
    rows, columns = vector(walk, weight, 0)[0], vector(walk, weight, 1)[0]
    if rows is None:
        rows = torch.full((weight.shape[0],), ALWAYS)
    walk.labels.mark("source", rows)
    if groups == 1:
        _meet(walk, columns, channels)
    else:
        _grouped(walk, rows, columns, channels, groups, weight.shape)
    return _result(walk, rows, given["bias"], meta)


def _read(walk: Walk, x: Value, weight: Value) -> Tensor | None:
    """The labels of the channels a convolution reads; positions and kernels stay whole."""
    channels, rest = vector(walk, x, 1)
    for factor in rest:
        walk.block(factor, "a convolution runs over it")
    for factor in weight.factors:
        if set(varies(factor)) - {0, 1}:
            walk.block(factor, "kernels stay whole")
    return channels


def _meet(walk: Walk, columns: Tensor | None, channels: Tensor | None) -> None:
    if columns is not None and channels is not None:
        walk.labels.join(columns, channels)
    elif columns is not None:
        walk.block(columns, "what it reads cannot lose channels")
    elif channels is not None:
        walk.block(channels, "a layer with one input channel reads it")


def _grouped(
    walk: Walk,
    rows: Tensor,
    columns: Tensor | None,
    channels: Tensor | None,
    groups: int,
    shape: tuple[int, ...],
) -> None:
    """Depthwise: channel by channel. Many narrow groups: whole groups. Few wide groups: the same positions in each."""
    out, into = shape[0] // groups, shape[1]
    if channels is None:
        walk.block(rows, "it is grouped over channels that cannot go")
        if columns is not None:
            walk.block(columns, "it is grouped over channels that cannot go")
    elif into == 1:
        walk.labels.join(rows, channels.repeat_interleave(out))
        walk.labels.tie(rows.view(groups, out), [1])
    elif groups >= into:
        if columns is not None:
            walk.block(columns, "groups go whole")
        inside = walk.labels.tie(channels.view(groups, into), [1])[:, 0]
        walk.labels.join(inside, walk.labels.tie(rows.view(groups, out), [1])[:, 0])
    else:
        _meet(walk, columns, walk.labels.tie(channels.view(groups, into), [0])[0])
        walk.labels.tie(rows.view(groups, out), [0])


@rule("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def transposed(walk: Walk, node: fx.Node, given: dict[str, Any], meta: Tensor) -> Any:
    """x (n, C, ...) with w (C, O/groups, k...): the weight's dimensions the other way round."""
    x, weight, groups = given["input"], given["weight"], given["groups"]
    if x.meta.dim() != weight.meta.dim():
        return walk.give_up([x, weight], meta)
    channels = _read(walk, x, weight)
    rows, columns = vector(walk, weight, 0)[0], vector(walk, weight, 1)[0]
    if groups == 1:
        out = columns if columns is not None else torch.full((weight.shape[1],), ALWAYS)
        walk.labels.mark("source", out)
        _meet(walk, rows, channels)
        return _result(walk, out, given["bias"], meta)
    if weight.shape[1] == 1 and channels is not None and rows is not None:
        walk.labels.join(rows, channels)
        walk.labels.mark("source", rows)
        return _result(walk, rows, given["bias"], meta)
    for value in (weight, x, given["bias"]):
        for factor in value.factors if isinstance(value, Value) else ():
            walk.block(factor, f"{operation(node)} in groups is left whole")
    return Value(meta)


def _result(walk: Walk, rows: Tensor, bias: Value | None, meta: Tensor) -> Value:
    if bias is not None and (labels := vector(walk, bias, 0)[0]) is not None:
        walk.labels.join(rows, labels)
    return Value(meta, (along(rows, 1, meta.shape),))
