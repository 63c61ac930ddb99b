"""Rules of normalisation. What it divides by must not change when a channel is removed.

`rewrite` and `wide_norms` say how each is kept exact.
"""

from __future__ import annotations

from torch import Tensor
from torch.fx import Node

from pruning.structure.labels import along, varies
from pruning.structure.propagate import Args, Propagation, Value, rule
from pruning.structure.rule_work import match, vector

INPUT = "what it normalises cannot lose channels"


@rule("batch_norm", "instance_norm")
def batch_norm(propagation: Propagation, node: Node, args: Args, meta: Tensor) -> Value:
    """x (n, C, ...), channel by channel: scale, shift and statistics are removed with it."""
    x: Value = args["input"]
    if args.get("training") is True:
        # Statistics of what stands in the batch's place, as when weights are standardised.
        for factor in x.factors:
            if set(varies(factor)) - {1}:
                propagation.block(factor, "statistics are taken over it")
    # Channels are normalised one by one: none counts in another's statistics.
    channels, rest = vector(propagation, x, 1)
    for name in ("weight", "bias", "running_mean", "running_var"):
        if not isinstance(args[name], Value):
            continue
        labels, _ = vector(propagation, args[name], 0)
        if labels is not None and channels is not None:
            propagation.labels.join(channels, labels)
        elif labels is not None:
            propagation.block(labels, INPUT)
    if channels is None:
        return Value(meta, x.factors)
    return Value(meta, (*rest, along(channels, 1, meta.shape)))


@rule("layer_norm", "rms_norm")
def layer_norm(propagation: Propagation, node: Node, args: Args, meta: Tensor) -> Value:
    """Statistics over the last dimensions.

    Exact where removed elements were zeros, if sums are still divided by the original width.
    """
    operands = [args["input"], args.get("weight"), args.get("bias")]
    values = [value for value in operands if isinstance(value, Value)]
    return Value(meta, match(propagation, meta.shape, values, INPUT))


@rule("group_norm")
def group_norm(propagation: Propagation, node: Node, args: Args, meta: Tensor) -> Value:
    """x (n, C, ...): whole groups are removed, with their scales and shifts.

    One group over all channels is layer norm, and removed from as that is.
    """
    groups = args["num_groups"]
    channels, rest = vector(propagation, args["input"], 1)
    operands = (args["weight"], args["bias"])
    affine = [value for value in operands if isinstance(value, Value)]
    if channels is None:
        propagation.block_all(affine, INPUT)
        return Value(meta, rest)
    if groups > 1:
        # Of a group that loses one channel, the others' statistics would change.
        tied = propagation.labels.tie(channels.view(groups, -1), [1])
        channels = tied.reshape(-1)
    for value in affine:
        labels, _ = vector(propagation, value, 0)
        if labels is not None:
            propagation.labels.join(channels, labels)
    return Value(meta, (*rest, along(channels, 1, meta.shape)))
