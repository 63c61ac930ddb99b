"""Normalisation. What it divides by must not change when a dead channel goes: see `rewrite` for how each is kept exact."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from pruning.structure.labels import along, varies
from pruning.structure.propagate import Propagation, Value, rule
from pruning.structure.rule_work import match, vector


@rule("batch_norm", "instance_norm")
def batch_norm(
    propagation: Propagation, node: fx.Node, args: dict[str, Any], meta: Tensor
) -> Value:
    """Channel by channel: its scale, shift and statistics go with the channel."""
    x, held = (
        args["input"],
        [
            args[n]
            for n in ("weight", "bias", "running_mean", "running_var")
            if isinstance(args[n], Value)
        ],
    )
    if (
        args.get("training") is True
    ):  # statistics over what stands in the batch's place, as when weights are standardised
        for factor in x.factors:
            if set(varies(factor)) - {1}:
                propagation.block(factor, "statistics are taken over it")
    channels, rest = vector(propagation, x, 1)
    for value in held:
        labels = vector(propagation, value, 0)[0]
        if labels is not None and channels is not None:
            propagation.labels.join(channels, labels)
        elif labels is not None:
            propagation.block(labels, "what it normalises cannot lose channels")
    return Value(meta, x.factors if channels is None else (*rest, along(channels, 1, meta.shape)))


@rule("layer_norm", "rms_norm")
def layer_norm(
    propagation: Propagation, node: fx.Node, args: dict[str, Any], meta: Tensor
) -> Value:
    """Statistics over the last dimensions: exact for dead zeros, if sums are still divided by the original width."""
    x = args["input"]
    operands = [x, *(args[n] for n in ("weight", "bias") if isinstance(args.get(n), Value))]
    return Value(
        meta, match(propagation, meta.shape, operands, "what it normalises cannot lose channels")
    )


@rule("group_norm")
def group_norm(
    propagation: Propagation, node: fx.Node, args: dict[str, Any], meta: Tensor
) -> Value:
    """Whole groups go, with their scales and shifts."""
    x, groups = args["input"], args["num_groups"]
    channels, rest = vector(propagation, x, 1)
    if channels is None:
        for value in (args["weight"], args["bias"]):
            for factor in value.factors if isinstance(value, Value) else ():
                propagation.block(factor, "what it normalises cannot lose channels")
        return Value(meta, rest)
    if groups == 1:
        propagation.block(channels, "statistics are taken over all channels")
    channels = propagation.labels.tie(channels.view(groups, -1), [1]).reshape(-1)
    for value in (args["weight"], args["bias"]):
        if isinstance(value, Value) and (labels := vector(propagation, value, 0)[0]) is not None:
            propagation.labels.join(channels, labels)
    return Value(meta, (*rest, along(channels, 1, meta.shape)))
