"""Sums, means, extremes, and pooling."""

from __future__ import annotations

from typing import Any

from torch import fx

from pruning.structure.labels import narrowed, varies
from pruning.structure.propagate import Propagation, Value, operation, rule
from pruning.structure.rule_work import summed

EXACT = ("sum", "linalg_vector_norm", "norm")
"""Zeros add nothing to these."""

KINDS = ("max", "avg", "adaptive_avg", "adaptive_max", "lp")
POOLS = tuple(
    f"{kind}_pool{n}d{extra}"
    for kind in KINDS
    for n in (1, 2, 3)
    for extra in ("", "_with_indices")
)
RESIZES = tuple(
    f"upsample_{kind}"
    for kind in (
        "nearest1d",
        "nearest2d",
        "nearest3d",
        "linear1d",
        "bilinear2d",
        "bicubic2d",
        "trilinear3d",
    )
)


@rule(
    *EXACT,
    "mean",
    "amax",
    "amin",
    "max",
    "min",
    "var",
    "std",
    "var_mean",
    "prod",
    "argmax",
    "argmin",
    "logsumexp",
    "any",
    "all",
)
def reduction(propagation: Propagation, node: fx.Node, args: dict[str, Any], meta: Any) -> Any:
    source: Value = args["self" if "self" in args else "x"]
    if isinstance(args.get("other"), Value):  # max and min of two tensors
        return propagation.give_up(propagation.inputs(node), meta)
    first = meta[0] if isinstance(meta, (tuple, list)) else meta
    total, dims = len(source.shape), args.get("dim")
    dims = (
        list(range(total))
        if dims is None or dims == []
        else [dims]
        if isinstance(dims, int)
        else list(dims)
    )
    why = f"{operation(node)} runs over it"
    factors = summed(
        propagation,
        source.factors,
        [d % total for d in dims],
        bool(args.get("keepdim", False)),
        why,
        operation(node) in EXACT,
    )
    return (
        [Value(m, factors) for m in meta]
        if isinstance(meta, (tuple, list))
        else Value(first, factors)
    )


@rule(*POOLS, *RESIZES)
def pool(propagation: Propagation, node: fx.Node, args: dict[str, Any], meta: Any) -> Any:
    """Channel by channel; positions stay whole."""
    first, kept = meta[0] if isinstance(meta, (tuple, list)) else meta, []
    spatial = set(range(first.dim() - _rank(operation(node)), first.dim()))
    for factor in next(iter(args.values())).factors:
        if spatial & set(varies(factor)):
            propagation.block(factor, f"{operation(node)} runs over it")
        else:
            kept.append(narrowed(factor, varies(factor)).expand(first.shape))
    return (
        [Value(m, tuple(kept)) for m in meta]
        if isinstance(meta, (tuple, list))
        else Value(first, tuple(kept))
    )


def _rank(name: str) -> int:
    """Spatial dimensions: 2 for "max_pool2d" and "upsample_nearest2d"."""
    return int(
        next(letter for letter in reversed(name.removesuffix("_with_indices")) if letter.isdigit())
    )
