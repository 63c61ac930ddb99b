"""Operations that sum over what two operands share: linear layers, matrix products, attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from pruning.structure.labels import Factor, varies
from pruning.structure.propagate import Propagation, Value, rule
from pruning.structure.rule_work import match, summed, unsqueezed

INPUT = "what it reads cannot lose channels"


def _sum_of_products(
    propagation: Propagation,
    operands: Sequence[Value],
    shape: Sequence[int],
    dims: Sequence[int],
    why: str,
) -> tuple[Factor, ...]:
    return summed(
        propagation, match(propagation, shape, operands, why), dims, False, why, exact=True
    )


@rule("linear")
def linear(propagation: Propagation, node: fx.Node, args: dict[str, Any], meta: Tensor) -> Value:
    """x (..., in) times w (out, in): inputs meet the weight's columns, its rows are new channels."""
    x, weight, bias = args["input"], args["weight"], args["bias"]
    for factor in weight.factors:
        if 0 in varies(factor):
            propagation.labels.mark("source", factor)
    shape = [*x.shape[:-1], *weight.shape]  # (..., out, in)
    value = Value(
        meta,
        _sum_of_products(propagation, [unsqueezed(x, -2), weight], shape, [len(shape) - 1], INPUT),
    )
    return (
        value if bias is None else Value(meta, match(propagation, meta.shape, [value, bias], INPUT))
    )


@rule("matmul", "bmm", "mm", "baddbmm", "addmm")
def product(propagation: Propagation, node: fx.Node, args: dict[str, Any], meta: Tensor) -> Any:
    a, b = (
        args[name]
        for name in (
            ("batch1", "batch2")
            if "batch1" in args
            else ("mat1", "mat2")
            if "mat1" in args
            else _pair(args)
        )
    )
    if a.meta.dim() < 2 or b.meta.dim() < 2:
        return propagation.give_up([a, b], meta)
    value = Value(meta, matrix(propagation, a, b))
    if "mat1" in args or "batch1" in args:
        return Value(meta, match(propagation, meta.shape, [value, args["self"]], INPUT))
    return value


def _pair(args: dict[str, Any]) -> tuple[str, str]:
    return ("self", "mat2") if "mat2" in args else ("self", "other")


def matrix(propagation: Propagation, a: Value, b: Value) -> tuple[Factor, ...]:
    """a (..., n, k) times b (..., k, m)."""
    for operand, dim in ((a, -2), (b, -1)):
        if operand.kind == "parameter":
            for factor in operand.factors:
                if operand.meta.dim() + dim in varies(factor):
                    propagation.labels.mark("source", factor)
    both = a.kind == b.kind == "activation"
    a, b = unsqueezed(a, -1), unsqueezed(b, -3)
    shape = list(broadcast(a.shape, b.shape))  # (..., n, k, m)
    factors = match(propagation, shape, [a, b], INPUT)
    if both:
        for factor in factors:
            if len(shape) - 2 in varies(factor):
                propagation.labels.mark("head", factor)
    return summed(propagation, factors, [len(shape) - 2], False, INPUT, exact=True)


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(torch.broadcast_shapes(*shapes))  # type: ignore[no-untyped-call]


@rule("einsum")
def einsum(propagation: Propagation, node: fx.Node, args: dict[str, Any], meta: Tensor) -> Any:
    """Each letter is a dimension; those not in the result are summed over."""
    equation, operands = args["equation"].replace(" ", ""), args["tensors"]
    if "..." in equation or "->" not in equation:
        return propagation.give_up(operands, meta)
    left, right = equation.split("->")
    terms = left.split(",")
    if any(len(set(term)) < len(term) for term in terms):
        return propagation.give_up(operands, meta)
    letters = right + "".join(sorted(set(left) - set(right) - {","}))
    size = {
        letter: n
        for term, value in zip(terms, operands, strict=True)
        for letter, n in zip(term, value.shape, strict=True)
    }
    laid = [_laid(value, term, letters) for value, term in zip(operands, terms, strict=True)]
    if sum(v.kind == "parameter" for v in operands) == 1:
        for value in operands:
            if value.kind == "parameter":
                for factor in value.factors:
                    propagation.labels.mark("source", factor)
    dims = list(range(len(right), len(letters)))
    return Value(
        meta, _sum_of_products(propagation, laid, [size[letter] for letter in letters], dims, INPUT)
    )


def _laid(value: Value, term: str, letters: str) -> Value:
    """A value with its dimensions in the order of `letters`, 1 long where it has none."""

    def lay(x: Tensor) -> Tensor:
        x = x.permute([term.index(letter) for letter in letters if letter in term])
        for i, letter in enumerate(letters):
            if letter not in term:
                x = x.unsqueeze(i)
        return x

    return Value(lay(value.meta), tuple(lay(f) for f in value.factors), None, value.kind)


@rule("scaled_dot_product_attention")
def attention(propagation: Propagation, node: fx.Node, args: dict[str, Any], meta: Tensor) -> Value:
    """softmax(q kᵀ) v. Whole heads fall out: a head's queries meet its keys, and the result meets its values."""
    q, k, v = args["query"], args["key"], args["value"]
    turned = Value(
        k.meta.transpose(-1, -2), tuple(f.transpose(-1, -2) for f in k.factors), None, k.kind
    )
    tokens = [*broadcast(q.shape[:-2], k.shape[:-2]), q.shape[-2], k.shape[-2]]
    weights = Value(torch.empty(tokens, device="meta"), matrix(propagation, q, turned))
    if isinstance(args["attn_mask"], Value):
        weights = Value(
            weights.meta,
            match(propagation, tokens, [weights, args["attn_mask"]], "its mask cannot lose heads"),
        )
    kept = []
    for factor in weights.factors:
        if len(tokens) - 1 in varies(factor):
            propagation.block(factor, "softmax runs over it")
        else:
            kept.append(factor)
            propagation.labels.mark("head", factor)
    return Value(meta, matrix(propagation, Value(weights.meta, tuple(kept)), v))


@rule("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax")
def softmax(propagation: Propagation, node: fx.Node, args: dict[str, Any], meta: Tensor) -> Value:
    """What goes would change the sum that the others are divided by."""
    dim, kept = args["dim"] % meta.dim(), []
    for factor in args["self"].factors:
        if dim in varies(factor):
            propagation.block(factor, "softmax runs over it")
        else:
            kept.append(factor)
    return Value(meta, tuple(kept))
