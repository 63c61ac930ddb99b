"""Operations element by element, and concatenation."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx

from pruning.structure.labels import ALWAYS, Factor, compressed, narrowed, varies
from pruning.structure.propagate import Propagation, Value, operation, rule
from pruning.structure.rule_work import match, unsqueezed

UNARY = (
    *(
        "relu",
        "relu6",
        "hardswish",
        "hardsigmoid",
        "sigmoid",
        "silu",
        "gelu",
        "hardtanh",
        "tanh",
        "dropout",
        "feature_dropout",
    ),
    *(
        "leaky_relu",
        "elu",
        "celu",
        "selu",
        "mish",
        "softplus",
        "softsign",
        "log_sigmoid",
        "hardshrink",
        "softshrink",
        "threshold",
        "rrelu",
    ),
    *(
        "exp",
        "exp2",
        "log",
        "log1p",
        "clamp",
        "clamp_min",
        "clamp_max",
        "neg",
        "abs",
        "sqrt",
        "rsqrt",
        "square",
        "reciprocal",
        "sign",
    ),
    *(
        "erf",
        "sin",
        "cos",
        "tan",
        "floor",
        "ceil",
        "round",
        "alpha_dropout",
        "bernoulli",
        "zeros_like",
        "ones_like",
        "full_like",
    ),
    *(
        "rand_like",
        "zero",
        "fill",
        "nan_to_num",
        "isnan",
        "logical_not",
        "bitwise_not",
        "expm1",
        "atan",
        "positive",
    ),
)
BINARY = (
    *(
        "add",
        "sub",
        "rsub",
        "mul",
        "div",
        "maximum",
        "minimum",
        "where",
        "pow",
        "lerp",
        "addcmul",
        "addcdiv",
        "atan2",
        "prelu",
        "copy",
    ),
    *(
        "masked_fill",
        "eq",
        "ne",
        "gt",
        "lt",
        "ge",
        "le",
        "logical_and",
        "logical_or",
        "true_divide",
        "multiply",
        "fmod",
        "remainder",
    ),
    *(
        "__and__",
        "__or__",
        "bitwise_and",
        "bitwise_or",
        "floor_divide",
        "subtract",
        "divide",
        "heaviside",
        "hypot",
    ),
)


@rule(*UNARY, *(f"{name}_" for name in UNARY), *BINARY, *(f"{name}_" for name in BINARY))
def elementwise(propagation: Propagation, node: fx.Node, args: dict[str, Any], meta: Any) -> Any:
    """Operands live and die together, position by position."""
    operands = [v for v in args.values() if isinstance(v, Value)]
    if operation(node) == "prelu":
        operands[1] = _channel_wise(operands[1], len(meta.shape))
    factors = match(
        propagation, meta.shape, operands, "it meets a value that cannot lose the same channels"
    )
    constant = all(v.kind == "constant" for v in operands)
    return Value(meta, factors, None, "constant" if constant else "activation")


def _channel_wise(slopes: Value, dims: int) -> Value:
    """PReLU's one slope a channel, laid along dimension 1."""
    shape = [-1 if d == 1 else 1 for d in range(dims)]
    return Value(
        slopes.meta.view(shape), tuple(f.view(shape) for f in slopes.factors), None, slopes.kind
    )


@rule("cat", "concat", "concatenate", "stack")
def concatenate(propagation: Propagation, node: fx.Node, args: dict[str, Any], meta: Any) -> Value:
    """Along the dimension, labels are concatenated; along others, the parts live and die together."""
    dim = args["dim"] % meta.dim()
    parts: list[Value] = args["tensors"]
    if operation(node) == "stack":
        parts = [unsqueezed(part, dim) for part in parts]
    joined, others = _along(propagation, parts, dim, meta.shape)
    shape = [1 if d == dim else n for d, n in enumerate(meta.shape)]
    beside = [
        Value(
            part.meta.narrow(dim, 0, 1), tuple(f.narrow(dim, 0, 1) for f in rest), None, part.kind
        )
        for part, rest in zip(parts, others, strict=True)
        if part.shape[dim]
    ]
    factors = match(
        propagation,
        shape,
        beside,
        "it is concatenated with a value that cannot lose the same channels",
    )
    return Value(meta, (*joined, *(f.expand(meta.shape) for f in factors)))


def _along(
    propagation: Propagation, parts: list[Value], dim: int, shape: tuple[int, ...]
) -> tuple[list[Factor], list[list[Factor]]]:
    """(the labels along `dim`, concatenated; for each part the factors that do not vary there)."""
    ours: list[Factor | None] = []
    others: list[list[Factor]] = []
    for part in parts:
        mine = [f for f in part.factors if dim in varies(f)]
        for other in mine[1:]:
            propagation.labels.join(mine[0], other)
        ours.append(mine[0] if mine else None)
        others.append([f for f in part.factors if dim not in varies(f)])
    if all(f is None for f in ours):
        return [], others
    dims = sorted({d for f in ours if f is not None for d in varies(f)} | {dim})
    pieces = []
    for part, factor in zip(parts, ours, strict=True):
        size = [part.shape[d] if d in dims else 1 for d in range(len(shape))]
        pieces.append(
            torch.full(size, ALWAYS) if factor is None else narrowed(factor, dims).expand(size)
        )
    return [compressed(torch.cat(pieces, dim)).expand(shape)], others


@rule(
    "pad",
    "constant_pad_nd",
    "reflection_pad1d",
    "reflection_pad2d",
    "replication_pad2d",
    "replication_pad1d",
    "zero_pad2d",
)
def pad(propagation: Propagation, node: fx.Node, args: dict[str, Any], meta: Any) -> Value:
    """What is added always lives; constants may be added along channels, copies of neighbours may not."""
    source, padding, dims = args["self"], args["pad" if "pad" in args else "padding"], meta.dim()
    touched = {dims - 1 - i // 2 for i, n in enumerate(padding) if n != 0}
    plain = (
        operation(node) == "constant_pad_nd"
        or args.get("mode", "constant" if "mode" in args else "copy") == "constant"
    )
    out = []
    for factor in source.factors:
        if not touched & set(varies(factor)):
            out.append(narrowed(factor, varies(factor)).expand(meta.shape))
        elif plain and all(n >= 0 for n in padding):
            out.append(compressed(torch.nn.functional.pad(factor, list(padding), value=ALWAYS)))
        else:
            propagation.block(factor, "padding copies or cuts channels")
    return Value(meta, tuple(out))
