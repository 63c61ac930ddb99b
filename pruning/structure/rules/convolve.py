"""Rules of convolutions: plain, depthwise, grouped, transposed."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from pruning.structure.labels import ALWAYS, along, varies
from pruning.structure.propagate import Args, Propagation, Value, names, rule
from pruning.structure.rule_work import vector

PLAIN = names("conv1d conv2d conv3d")
TRANSPOSED = names("conv_transpose1d conv_transpose2d conv_transpose3d")
CONVOLUTIONS = PLAIN + TRANSPOSED


@rule(*PLAIN)
def convolution(propagation: Propagation, node: Node, args: Args, meta: Tensor) -> Any:
    """x (n, C, ...) with w (O, C/groups, k...).

    Inputs meet the weight's dimension 1; its dimension 0 are new channels.
    """
    x, weight, groups = args["input"], args["weight"], args["groups"]
    if x.meta.dim() != weight.meta.dim():  # without a batch dimension
        return propagation.give_up([x, weight], meta)
    channels, rows, columns = _read(propagation, x, weight)
    if rows is None:  # one output channel, which is always kept
        rows = torch.full((weight.shape[0],), ALWAYS)
    propagation.labels.mark("source", rows)
    if groups == 1:
        _meet(propagation, columns, channels)
    else:
        _grouped(propagation, rows, columns, channels, groups, weight.shape)
    return _result(propagation, rows, args["bias"], meta)


def _read(
    propagation: Propagation, x: Value, weight: Value
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """The labels of the channels read, of the weight's dimension 0, and of its dimension 1.

    Positions of the input and kernels stay whole: a smaller picture is another one.
    """
    channels, rest = vector(propagation, x, 1)
    for factor in rest:
        propagation.block(factor, "a convolution runs over it")
    for factor in weight.factors:
        if set(varies(factor)) - {0, 1}:
            propagation.block(factor, "kernels stay whole")
    rows, _ = vector(propagation, weight, 0)
    columns, _ = vector(propagation, weight, 1)
    return channels, rows, columns


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
    """Ties channels so that every group of the convolution keeps the same number of them."""
    labels = propagation.labels
    out, into = shape[0] // groups, shape[1]  # channels of each group
    if channels is None:
        why = "it is grouped over channels that cannot be removed"
        propagation.block(rows, why)
        if columns is not None:
            propagation.block(columns, why)
    elif into == 1:
        # Depthwise: a channel is removed with all outputs that are made of it.
        labels.join(rows, channels.repeat_interleave(out))
        labels.tie(rows.view(groups, out), [1])
    elif whole_groups(groups, into):
        # Many narrow groups: whole groups are removed.
        if columns is not None:
            propagation.block(columns, "groups are removed whole")
        read = labels.tie(channels.view(groups, into), [1])
        made = labels.tie(rows.view(groups, out), [1])
        labels.join(read[:, 0], made[:, 0])
    else:
        # Few wide groups: the same positions are removed in each.
        read = labels.tie(channels.view(groups, into), [0])
        _meet(propagation, columns, read[0])
        labels.tie(rows.view(groups, out), [0])


@rule(*TRANSPOSED)
def transposed(propagation: Propagation, node: Node, args: Args, meta: Tensor) -> Any:
    """x (n, C, ...) with w (C, O/groups, k...): the weight's dimensions the other way round."""
    x, weight, bias = args["input"], args["weight"], args["bias"]
    if x.meta.dim() != weight.meta.dim():
        return propagation.give_up([x, weight], meta)
    channels, rows, columns = _read(propagation, x, weight)
    if args["groups"] == 1:
        if columns is None:
            columns = torch.full((weight.shape[1],), ALWAYS)
        propagation.labels.mark("source", columns)
        _meet(propagation, rows, channels)
        return _result(propagation, columns, bias, meta)
    if channels is None or rows is None:
        why = "it is grouped over channels that cannot be removed"
        propagation.block_all([weight, x, bias], why)
        return Value(meta)
    made = _grouped_transposed(propagation, rows, columns, channels, args["groups"], weight.shape)
    return _result(propagation, made, bias, meta)


def _grouped_transposed(
    propagation: Propagation,
    rows: Tensor,
    columns: Tensor | None,
    channels: Tensor,
    groups: int,
    shape: tuple[int, ...],
) -> Tensor:
    """The labels of the channels made. All groups share the weight's dimension 1.

    As in a convolution: of many narrow groups whole ones are removed, of few wide ones the same
    positions in each.
    """
    labels = propagation.labels
    into, out = shape[0] // groups, shape[1]  # channels of each group
    labels.join(rows, channels)
    if whole_groups(groups, into):
        if columns is not None:
            propagation.block(columns, "groups are removed whole")
        of_groups = labels.tie(rows.view(groups, into), [1])[:, 0]
        labels.mark("source", of_groups)
        return of_groups.repeat_interleave(out)
    labels.tie(rows.view(groups, into), [0])
    if columns is None:
        columns = torch.full((out,), ALWAYS)
    labels.mark("source", columns)
    return columns.repeat(groups)


def whole_groups(groups: int, into: int) -> bool:
    """Whether a grouped convolution with `into` channels a group loses whole groups."""
    return groups >= into


def _result(propagation: Propagation, rows: Tensor, bias: Value | None, meta: Tensor) -> Value:
    """The new channels, with the bias that is added to each."""
    if bias is not None:
        labels, _ = vector(propagation, bias, 0)
        if labels is not None:
            propagation.labels.join(rows, labels)
    return Value(meta, (along(rows, 1, meta.shape),))
