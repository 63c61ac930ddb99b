"""Rules of look-ups: embeddings, and gathering by index."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.fx import Node

from pruning.structure.labels import along, collapsed, flat, varies
from pruning.structure.propagate import Args, Propagation, Value, rule


@rule("embedding")
def embedding(propagation: Propagation, node: Node, args: Args, meta: Tensor) -> Value:
    """w (V, D) at positions (...) -> (..., D): rows stay, columns are new channels."""
    factors = []
    for factor in args["weight"].factors:
        if 0 in varies(factor):
            # Token 7 must find row 7, whatever is removed.
            propagation.block(factor, "rows are looked up by number")
        if 1 in varies(factor):
            propagation.labels.mark("source", factor)
            columns = flat(factor, [1])
            factors.append(along(columns, -1, meta.shape))
    return Value(meta, tuple(factors))


@rule("index")
def gathered(propagation: Propagation, node: Node, args: Args, meta: Tensor) -> Any:
    """By numbers known beforehand, labels are gathered as values are; by others, all is blocked.

    `gather`, `scatter`, `index_put` and the like have no rule: where their elements go depends on
    the input, so nothing can be said of channels.
    """
    source: Value = args["self"]
    indices = args["indices"]
    at = []
    for index in indices:
        if index is None:
            at.append(slice(None))  # all of this dimension
        elif index.real is None:
            return propagation.give_up(propagation.inputs(node), meta)
        else:
            at.append(index.real)
    factors = tuple(collapsed(factor[tuple(at)]) for factor in source.factors)
    real = None if source.real is None else source.real[tuple(at)]
    return Value(meta, factors, real, source.kind)
