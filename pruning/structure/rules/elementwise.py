"""Rules of elementwise operations, concatenation and padding."""

from __future__ import annotations

from typing import Any

import torch
from torch.fx import Node

from pruning.structure.labels import ALWAYS, Factor, collapsed, laid, narrowed, varies
from pruning.structure.propagate import Args, Propagation, Value, names, operation, rule
from pruning.structure.rule_work import match, unsqueezed

UNARY = names("""
    relu relu6 hardswish hardsigmoid sigmoid silu gelu hardtanh tanh dropout feature_dropout
    leaky_relu elu celu selu mish softplus softsign log_sigmoid hardshrink softshrink threshold
    rrelu exp exp2 log log1p clamp clamp_min clamp_max neg abs sqrt rsqrt square reciprocal sign
    erf sin cos tan floor ceil round alpha_dropout bernoulli zeros_like ones_like full_like
    zero fill nan_to_num isnan logical_not bitwise_not expm1 atan positive
""")
BINARY = names("""
    add sub rsub mul div maximum minimum where pow lerp addcmul addcdiv atan2 prelu copy
    masked_fill eq ne gt lt ge le logical_and logical_or true_divide multiply fmod remainder
    __and__ __or__ bitwise_and bitwise_or floor_divide subtract divide heaviside hypot
""")
LIKES = names("rand_like randn_like randint_like empty_like")
SAMPLED = names("normal_ uniform_ exponential_ bernoulli_ random_ log_normal_ cauchy_ geometric_")
"""Random numbers in the shape of a tensor, and in its place."""

PADDINGS = names("""
    pad constant_pad_nd reflection_pad1d reflection_pad2d replication_pad2d replication_pad1d
    zero_pad2d
""")


def with_inplace(operations: tuple[str, ...]) -> tuple[str, ...]:
    """relu -> relu, relu_."""
    return (*operations, *(f"{name}_" for name in operations))


@rule(*with_inplace(UNARY), *with_inplace(BINARY), *LIKES, *SAMPLED)
def elementwise(propagation: Propagation, node: Node, args: Args, meta: Any) -> Any:
    """Operands' labels are joined, position by position."""
    # Scalars, such as the 2 in x * 2, have no labels and stand in nobody's way.
    operands = [value for value in args.values() if isinstance(value, Value)]
    if operation(node) == "prelu":
        # One slope a channel, which ATen lays along dimension 1.
        sizes = [-1 if d == 1 else 1 for d in range(meta.dim())]
        operands[1] = operands[1].moved(lambda slopes: slopes.view(sizes))
    why = "it meets a value that cannot lose the same channels"
    factors = match(propagation, meta.shape, operands, why)
    constant = all(value.kind == "constant" for value in operands)
    return Value(meta, factors, None, "constant" if constant else "activation")


@rule("glu")
def gated(propagation: Propagation, node: Node, args: Args, meta: Any) -> Value:
    """One half of the channels times the sigmoid of the other: channel c is removed from both."""
    source: Value = args["self"]
    dim, width = args["dim"] % meta.dim(), meta.shape[args["dim"]]
    first = source.moved(lambda x: x.narrow(dim, 0, width))
    second = source.moved(lambda x: x.narrow(dim, width, width))
    why = "it meets a value that cannot lose the same channels"
    return Value(meta, match(propagation, meta.shape, [first, second], why))


@rule("cat", "concat", "concatenate", "stack")
def concatenate(propagation: Propagation, node: Node, args: Args, meta: Any) -> Value:
    """Labels along the dimension are concatenated; along others, those of the parts are joined.

    (n, 4, h, w) beside (n, 6, h, w) along dimension 1 gives 10 channels, each removable alone.
    """
    dim = args["dim"] % meta.dim()
    parts: list[Value] = args["tensors"]
    if operation(node) == "stack":
        parts = [unsqueezed(part, dim) for part in parts]
    lengthwise, others = _along(propagation, node, parts, dim, meta.shape)
    shape = [1 if d == dim else size for d, size in enumerate(meta.shape)]
    # One slice of each part stands for it along the other dimensions.
    slices = []
    for part, factors in zip(parts, others, strict=True):
        if part.shape[dim]:
            whole = Value(part.meta, tuple(factors), None, part.kind)
            slices.append(whole.moved(lambda x: x.narrow(dim, 0, 1)))
    why = "it is concatenated with a value that cannot lose the same channels"
    crosswise = match(propagation, shape, slices, why)
    expanded = [factor.expand(meta.shape) for factor in crosswise]
    return Value(meta, (*lengthwise, *expanded))


def _along(
    propagation: Propagation, node: Node, parts: list[Value], dim: int, shape: tuple[int, ...]
) -> tuple[list[Factor], list[list[Factor]]]:
    """(the labels along `dim`, concatenated; for each part the factors that do not vary there)."""
    along: list[Factor | None] = []  # one for each part
    others: list[list[Factor]] = []
    for part in parts:
        varying = [factor for factor in part.factors if dim in varies(factor)]
        for factor in varying[1:]:
            propagation.labels.join(varying[0], factor)
        along.append(varying[0] if varying else None)
        others.append([factor for factor in part.factors if dim not in varies(factor)])
    once = len(set(map(id, parts))) == len(parts) and operation(node) != "stack"
    zeros = [once and part.all_zero for part in parts]
    if all(factor is None for factor in along) and not any(zeros):
        return [], others
    # Every piece gets the dimensions that any of them varies on, and no more: positions of a
    # picture would be copied thousands of times.
    dims = {dim}
    for piece in along:
        if piece is not None:
            dims.update(varies(piece))
    pieces = []
    for i, (part, piece) in enumerate(zip(parts, along, strict=True)):
        sizes = [size if d in dims else 1 for d, size in enumerate(part.shape)]
        if piece is None and zeros[i]:
            # Fewer zeros will do where what reads them loses some.
            labels = propagation.labels.unnamed(part.shape[dim])
            propagation.zero_parts[node, i] = labels
            pieces.append(laid(labels, dim, len(sizes)).expand(sizes))
        elif piece is None:
            pieces.append(torch.full(sizes, ALWAYS))
        else:
            pieces.append(narrowed(piece, dims).expand(sizes))
    return [collapsed(torch.cat(pieces, dim)).expand(shape)], others


@rule(*PADDINGS)
def pad(propagation: Propagation, node: Node, args: Args, meta: Any) -> Value:
    """What is added is always kept; constants may be added along channels, copies may not."""
    padding = args["pad"] if "pad" in args else args["padding"]
    # Pairs (before, after), the last dimension first.
    padded = {meta.dim() - 1 - i // 2 for i, n in enumerate(padding) if n != 0}
    constant = operation(node) == "constant_pad_nd" or args.get("mode") == "constant"
    factors = []
    for factor in args["self"].factors:
        if not padded & set(varies(factor)):
            factors.append(narrowed(factor, varies(factor)).expand(meta.shape))
        elif constant and all(n >= 0 for n in padding):
            always = torch.nn.functional.pad(factor, list(padding), value=ALWAYS)
            factors.append(collapsed(always))
        else:
            propagation.block(factor, "padding copies or cuts channels")
    return Value(meta, tuple(factors))
