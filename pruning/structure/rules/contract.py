"""Rules of linear layers, matrix products and attention, which sum over a shared dimension."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from pruning.structure.labels import Factor, varies
from pruning.structure.propagate import Args, Propagation, Value, names, rule
from pruning.structure.rule_work import match, summed, unsqueezed

INPUT = "what it reads cannot lose channels"
SOFTMAX = names("softmax _softmax log_softmax _log_softmax _safe_softmax")


def _sum_of_products(
    propagation: Propagation,
    operands: Sequence[Value],
    shape: Sequence[int],
    dims: Sequence[int],
) -> tuple[Factor, ...]:
    """Operands multiplied in one common shape, then summed over `dims`.

    A removed element is a zero factor: its product is zero, and adds nothing.
    """
    factors = match(propagation, shape, operands, INPUT)
    return summed(propagation, factors, dims, INPUT)


def _mark_sources(propagation: Propagation, value: Value, dim: int | None = None) -> None:
    """The labels of a weight along `dim` (all, by default) are channels that this layer makes."""
    for factor in value.factors:
        if dim is None or dim in varies(factor):
            propagation.labels.mark("source", factor)


@rule("linear")
def linear(propagation: Propagation, node: Node, args: Args, meta: Tensor) -> Value:
    """x (..., in) times w (out, in): inputs meet its columns, its rows are new channels."""
    x, weight, bias = args["input"], args["weight"], args["bias"]
    _mark_sources(propagation, weight, 0)
    shape = [*x.shape[:-1], *weight.shape]  # (..., out, in)
    operands = [unsqueezed(x, -2), weight]  # (..., 1, in) times (out, in)
    factors = _sum_of_products(propagation, operands, shape, [len(shape) - 1])
    if bias is not None:
        product = Value(meta, factors)
        factors = match(propagation, meta.shape, [product, bias], INPUT)
    return Value(meta, factors)


@rule("matmul", "bmm", "mm", "baddbmm", "addmm")
def matrix_product(propagation: Propagation, node: Node, args: Args, meta: Tensor) -> Any:
    if "batch1" in args:
        names = ("batch1", "batch2")
    elif "mat1" in args:
        names = ("mat1", "mat2")
    elif "mat2" in args:
        names = ("self", "mat2")
    else:
        names = ("self", "other")
    a, b = (args[name] for name in names)
    if a.meta.dim() < 2 or b.meta.dim() < 2:  # a vector has no rows to be channels
        return propagation.give_up([a, b], meta)
    factors = matrix(propagation, a, b)
    if "self" not in names:  # a third operand, that is added
        added = [Value(meta, factors), args["self"]]
        factors = match(propagation, meta.shape, added, INPUT)
    return Value(meta, factors)


def matrix(propagation: Propagation, a: Value, b: Value) -> tuple[Factor, ...]:
    """a (..., n, k) times b (..., k, m)."""
    if a.kind == "parameter":
        _mark_sources(propagation, a, a.meta.dim() - 2)
    if b.kind == "parameter":
        _mark_sources(propagation, b, b.meta.dim() - 1)
    both = a.kind == b.kind == "activation"
    a = unsqueezed(a, -1)
    b = unsqueezed(b, -3)
    shape = list(broadcast(a.shape, b.shape))  # (..., n, k, m)
    factors = match(propagation, shape, [a, b], INPUT)
    shared = len(shape) - 2  # k
    if both:
        # Two activations multiplied are attention, and what is removed there is a whole head.
        for factor in factors:
            if shared in varies(factor):
                propagation.labels.mark("head", factor)
    return summed(propagation, factors, [shared], INPUT)


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]


@rule("einsum")
def einsum(propagation: Propagation, node: Node, args: Args, meta: Tensor) -> Any:
    """Each letter is a dimension; those that are not in the result are summed over."""
    equation = args["equation"].replace(" ", "")
    operands = args["tensors"]
    if "..." in equation or "->" not in equation:
        return propagation.give_up(operands, meta)
    left, right = equation.split("->")
    terms = left.split(",")
    if any(len(set(term)) < len(term) for term in terms):
        return propagation.give_up(operands, meta)  # a diagonal, as in "ii->i"
    summed_over = set(left) - set(right) - {","}
    letters = right + "".join(sorted(summed_over))
    sizes: dict[str, int] = {}
    for term, value in zip(terms, operands, strict=True):
        sizes.update(zip(term, value.shape, strict=True))
    pairs = zip(operands, terms, strict=True)
    aligned = [_aligned(value, term, letters) for value, term in pairs]
    parameters = [value for value in operands if value.kind == "parameter"]
    if len(parameters) == 1:
        _mark_sources(propagation, parameters[0])
    shape = [sizes[letter] for letter in letters]
    dims = list(range(len(right), len(letters)))
    return Value(meta, _sum_of_products(propagation, aligned, shape, dims))


def _aligned(value: Value, term: str, letters: str) -> Value:
    """A value with its dimensions in the order of `letters`, 1 long where it has none."""

    def align(x: Tensor) -> Tensor:
        order = [term.index(letter) for letter in letters if letter in term]
        x = x.permute(order)
        for i, letter in enumerate(letters):
            if letter not in term:
                x = x.unsqueeze(i)
        return x

    return value.moved(align)


@rule("scaled_dot_product_attention")
def attention(propagation: Propagation, node: Node, args: Args, meta: Tensor) -> Value:
    """softmax(q kᵀ) v, with q, k and v of shape (batch, heads, tokens, width).

    Whole heads come out as units: a head's queries meet its keys, and the result its values.
    """
    q, k, v = args["query"], args["key"], args["value"]
    transposed = k.moved(lambda x: x.transpose(-1, -2))
    heads = broadcast(q.shape[:-2], k.shape[:-2])
    shape = [*heads, q.shape[-2], k.shape[-2]]  # (batch, heads, tokens, tokens)
    meta_weights = torch.empty(shape, device="meta")
    weights = Value(meta_weights, matrix(propagation, q, transposed))
    mask = args["attn_mask"]
    if isinstance(mask, Value):
        factors = match(propagation, shape, [weights, mask], "its mask cannot lose heads")
        weights = Value(meta_weights, factors)
    factors = _softmax(propagation, weights, len(shape) - 1)
    for factor in factors:
        propagation.labels.mark("head", factor)
    return Value(meta, matrix(propagation, Value(meta_weights, factors), v))


@rule(*SOFTMAX)
def softmax(propagation: Propagation, node: Node, args: Args, meta: Tensor) -> Value:
    dim = args["dim"] % meta.dim()
    return Value(meta, _softmax(propagation, args["self"], dim))


def _softmax(propagation: Propagation, value: Value, dim: int) -> tuple[Factor, ...]:
    """Blocks labels along `dim`: exp(0) = 1 is in the sum that the others are divided by."""
    kept = []
    for factor in value.factors:
        if dim in varies(factor):
            propagation.block(factor, "softmax runs over it")
        else:
            kept.append(factor)
    return tuple(kept)
