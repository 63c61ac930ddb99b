"""Normalisation. What it divides by must not change when a dead channel goes: see `rewrite` for how each is kept exact."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from pruning.structure.labels import along, varies
from pruning.structure.propagate import Value, Walk, rule
from pruning.structure.rule_work import match, vector


@rule("batch_norm", "instance_norm")
def batch_norm(walk: Walk, node: fx.Node, given: dict[str, Any], meta: Tensor) -> Value:
    """Channel by channel: its scale, shift and statistics go with the channel."""
    x, held = (
        given["input"],
        [
            given[n]
            for n in ("weight", "bias", "running_mean", "running_var")
            if isinstance(given[n], Value)
        ],
    )
    if (
        given.get("training") is True
    ):  # statistics over what stands in the batch's place, as when weights are standardised
        for factor in x.factors:
            if set(varies(factor)) - {1}:
                walk.block(factor, "statistics are taken over it")
    channels, rest = vector(walk, x, 1)
    for value in held:
        labels = vector(walk, value, 0)[0]
        if labels is not None and channels is not None:
            walk.labels.join(channels, labels)
        elif labels is not None:
            walk.block(labels, "what it normalises cannot lose channels")
    return Value(meta, x.factors if channels is None else (*rest, along(channels, 1, meta.shape)))


@rule("layer_norm", "rms_norm")
def layer_norm(walk: Walk, node: fx.Node, given: dict[str, Any], meta: Tensor) -> Value:
    """Statistics over the last dimensions: exact for dead zeros, if sums are still divided by the original width."""
    x = given["input"]
    operands = [x, *(given[n] for n in ("weight", "bias") if isinstance(given.get(n), Value))]
    return Value(meta, match(walk, meta.shape, operands, "what it normalises cannot lose channels"))


@rule("group_norm")
def group_norm(walk: Walk, node: fx.Node, given: dict[str, Any], meta: Tensor) -> Value:
    """Whole groups go, with their scales and shifts."""
    x, groups = given["input"], given["num_groups"]
    channels, rest = vector(walk, x, 1)
    if channels is None:
        for value in (given["weight"], given["bias"]):
            for factor in value.factors if isinstance(value, Value) else ():
                walk.block(factor, "what it normalises cannot lose channels")
        return Value(meta, rest)
    if groups == 1:
        walk.block(channels, "statistics are taken over all channels")
    channels = walk.labels.tie(channels.view(groups, -1), [1]).reshape(-1)
    for value in (given["weight"], given["bias"]):
        if isinstance(value, Value) and (labels := vector(walk, value, 0)[0]) is not None:
            walk.labels.join(channels, labels)
    return Value(meta, (*rest, along(channels, 1, meta.shape)))
