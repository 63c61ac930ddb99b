"""Rules of reductions (sums, means, extremes), pooling and resizing."""

from __future__ import annotations

from typing import Any

from torch.fx import Node

from pruning.structure.labels import narrowed, varies
from pruning.structure.propagate import (
    Args,
    Propagation,
    Value,
    arguments,
    each,
    names,
    operation,
    rule,
)
from pruning.structure.rule_work import match, summed

EXACT = names("sum linalg_vector_norm norm")
"""Zeros add nothing to these."""

WIDE = names("mean amax amin max min var std var_mean")
"""A removed element counts in these: they are rewritten so that it still does (see `rewrite`)."""

INEXACT = names("prod argmax argmin logsumexp any all")
"""A removed element counts in these, and cannot be made to without being there."""

POOLS = tuple(
    f"{kind}_pool{n}d{extra}"
    for kind in ("max", "avg", "adaptive_avg", "adaptive_max", "lp")
    for n in (1, 2, 3)
    for extra in ("", "_with_indices")
)
RESIZES = names("""
    upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_linear1d upsample_bilinear2d
    upsample_bicubic2d upsample_trilinear3d
""")


@rule(*EXACT, *WIDE, *INEXACT)
def reduction(propagation: Propagation, node: Node, args: Args, meta: Any) -> Any:
    if isinstance(args.get("other"), Value):  # max and min of two tensors
        why = "it meets a value that cannot lose the same channels"
        return Value(meta, match(propagation, meta.shape, [args["self"], args["other"]], why))
    source: Value = args["self"] if "self" in args else args["x"]
    name = operation(node)
    factors = summed(
        propagation,
        source.factors,
        reduced_dims(node, len(source.shape)),
        f"{name} runs over it",
        keepdim=bool(args.get("keepdim", False)),
        exact=name not in INEXACT,
    )
    return each(meta, lambda part: Value(part, factors))


@rule(*POOLS, *RESIZES)
def pool(propagation: Propagation, node: Node, args: Args, meta: Any) -> Any:
    """Channel by channel; positions stay whole."""
    # With indices, there are two results of one shape.
    first = meta[0] if isinstance(meta, (tuple, list)) else meta
    name = operation(node)
    spatial = set(range(first.dim() - _rank(name), first.dim()))
    source: Value = next(iter(args.values()))
    kept = []
    for factor in source.factors:
        if spatial & set(varies(factor)):
            propagation.block(factor, f"{name} runs over it")
        else:
            kept.append(narrowed(factor, varies(factor)).expand(first.shape))
    return each(meta, lambda part: Value(part, tuple(kept)))


def reduced_dims(node: Node, total: int) -> list[int]:
    """The dimensions, of `total`, that a reduction runs over."""
    dims = arguments(node).get("dim")
    if dims is None or dims == []:  # ATen's ways to say all of them
        return list(range(total))
    return [d % total for d in ([dims] if isinstance(dims, int) else dims)]


def _rank(name: str) -> int:
    """Spatial dimensions: 2 for "max_pool2d" and "upsample_nearest2d"."""
    return int(name.removesuffix("_with_indices").removesuffix("d")[-1])
