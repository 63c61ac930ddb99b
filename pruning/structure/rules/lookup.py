"""Looking things up: embeddings, and gathering by index."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from pruning.structure.labels import along, compressed, flat, varies
from pruning.structure.propagate import Propagation, Value, rule


@rule("embedding")
def embedding(propagation: Propagation, node: fx.Node, args: dict[str, Any], meta: Tensor) -> Value:
    """Rows are looked up by number and stay; columns are new channels. (V, D) at (...) -> (..., D)"""
    factors = []
    for factor in args["weight"].factors:
        if 0 in varies(factor):
            propagation.block(factor, "rows are looked up by number")
        if 1 in varies(factor):
            propagation.labels.mark("source", factor)
            factors.append(along(flat(factor, [1]), -1, meta.shape))
    return Value(meta, tuple(factors))


@rule("index")
def index(propagation: Propagation, node: fx.Node, args: dict[str, Any], meta: Tensor) -> Any:
    """By numbers known beforehand, labels are gathered as values are; by others, nothing may go."""
    source, places = args["self"], args["indices"]
    if any(isinstance(place, Value) and place.real is None for place in places):
        return propagation.give_up(propagation.inputs(node), meta)
    at = tuple(slice(None) if place is None else place.real for place in places)
    real = source.real[at] if source.real is not None else None
    return Value(meta, tuple(compressed(f[at]) for f in source.factors), real, source.kind)


@rule("gather", "index_add", "scatter", "index_put", "index_put_", "masked_scatter")
def by_values(propagation: Propagation, node: fx.Node, args: dict[str, Any], meta: Any) -> Any:
    return propagation.give_up(propagation.inputs(node), meta)
