"""Is what is dead exactly zero where it is read? Where it must be and is not, it is blocked, with the reason.

Masks close every weight, bias, scale and shift of a dead channel and the weights that read it. That leaves places where a dead value
counts without a weight of its own: the statistics of a LayerNorm, a product of two activations, a sum, a divisor.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import fx

from pruning.structure.labels import varies
from pruning.structure.propagate import Propagation, Value, bound, operation
from pruning.structure.rules.elementwise import BINARY, UNARY
from pruning.structure.rules.moves import MOVES
from pruning.structure.rules.reduce import EXACT

PRODUCTS = ("matmul", "bmm", "mm", "einsum", "scaled_dot_product_attention", "addmm", "baddbmm")
TIMES = ("mul", "mul_", "multiply", "multiply_", "logical_and", "__and__")
OVER = ("div", "div_", "divide", "divide_", "true_divide")
_UNARY, _BINARY = (
    {f"{name}{end}" for name in names for end in ("", "_")} for names in (UNARY, BINARY)
)


def block_what_is_not_zero(propagation: Propagation) -> None:
    """Blocks the labels of values that are read where only zeros would be exact."""
    zero: dict[fx.Node, bool] = {}
    for node in propagation.captured.graph.graph.nodes:
        propagation.node = node
        result = propagation.results[node]
        first = result[0] if isinstance(result, list) and result else result
        if node.op == "get_attr":
            zero[node] = not isinstance(first, Value) or first.kind == "parameter"
        elif node.op == "call_function" and isinstance(first, Value):
            zero[node] = _zero(propagation, node, zero, first)
        else:
            zero[node] = True


def _zero(
    propagation: Propagation, node: fx.Node, zero: dict[fx.Node, bool], result: Value
) -> bool:
    """Whether the dead elements of a node's result are zero."""
    name, sources = (
        operation(node),
        [n for n in node.all_input_nodes if isinstance(_first(propagation, n), Value)],
    )
    labelled = [n for n in sources if _first(propagation, n).factors]
    if not labelled or name in MOVES:
        return all(zero[n] for n in labelled)
    if name in (
        "linear",
        "conv1d",
        "conv2d",
        "conv3d",
        "conv_transpose1d",
        "conv_transpose2d",
        "conv_transpose3d",
        "embedding",
    ):
        return _layer(propagation, node, zero, result)
    if name in PRODUCTS:
        return _product(propagation, node, zero, result)
    if name in ("layer_norm", "rms_norm", "batch_norm", "group_norm", "instance_norm"):
        return _norm(propagation, node, zero, labelled)
    if name in ("softmax", "_softmax", "log_softmax", "_log_softmax", "_safe_softmax"):
        return False
    if name in EXACT:
        _need(propagation, labelled[:1], zero, "sums what is dead but not zero")
        return zero[labelled[0]]
    if name in TIMES:
        return all(
            any(zero[n] for n in _carriers(propagation, labelled, dims, result))
            for dims in map(varies, result.factors)
        )
    if name in OVER:
        if len(labelled) > 1:
            _need(propagation, [], zero, "", divided=labelled[1])
        return zero[labelled[0]] and all(
            labelled[0] in _carriers(propagation, labelled, dims, result)
            for dims in map(varies, result.factors)
        )
    if name in _BINARY and len(sources) > 1:
        read = sources[1:] if name.startswith("where") else sources
        spread = all(
            set(read) <= set(_carriers(propagation, read, dims, result))
            for dims in map(varies, result.factors)
        )
        return spread and all(zero[n] for n in read)
    if name in _UNARY | _BINARY:
        return zero[labelled[0]] and _keeps_zero(propagation, node)
    return all(zero[n] for n in labelled)


def _first(propagation: Propagation, node: fx.Node) -> Any:
    result = propagation.results[node]
    return result[0] if isinstance(result, list) and result else result


def _carriers(
    propagation: Propagation, nodes: Sequence[fx.Node], dims: Sequence[int], result: Value
) -> list[fx.Node]:
    """The operands that hold labels along all these dimensions of the result."""
    found = []
    for node in nodes:
        value = _first(propagation, node)
        ahead = len(result.shape) - len(value.shape)
        held = {d + ahead for factor in value.factors for d in varies(factor)}
        if set(dims) <= held:
            found.append(node)
    return found


def _keeps_zero(propagation: Propagation, node: fx.Node) -> bool:
    """Whether f(0) = 0, asked of the operation itself."""
    function: Any = node.target
    try:
        rest = propagation.real(node.args[1:])
        return bool((function(torch.zeros(1), *rest, **propagation.real(node.kwargs)) == 0).all())
    except Exception:  # what cannot be asked is taken for no
        return False


def _layer(
    propagation: Propagation, node: fx.Node, zero: dict[fx.Node, bool], result: Value
) -> bool:
    """Rows and biases of what is dead are closed; labels along other dimensions pass through, and a bias is added to them."""
    others = [
        f
        for f in result.factors
        if operation(node) == "linear" and set(varies(f)) - {len(result.shape) - 1}
    ]
    return not others or (bound(node).get("bias") is None and zero[node.all_input_nodes[0]])


def _product(
    propagation: Propagation, node: fx.Node, zero: dict[fx.Node, bool], result: Value
) -> bool:
    """Dead values are summed over: one side at least must be zero there."""
    name = operation(node)
    operands = [n for n in node.all_input_nodes if _first(propagation, n).factors]
    if name == "scaled_dot_product_attention":
        given = bound(node)
        if not (zero[given["query"]] or zero[given["key"]]):
            _need(
                propagation,
                [given["query"]],
                zero,
                "attention reads what is dead but not zero",
                dims=(-1,),
            )
        return zero[given["value"]]
    if name in ("addmm", "baddbmm"):
        operands = [n for n in operands if n is not node.args[0]]
    if operands and not any(zero[n] for n in operands):
        _need(propagation, operands[:1], zero, "a product reads what is dead but not zero")
    return all(zero[n] for n in operands) or (
        name in ("matmul", "bmm", "mm") and _by_value(propagation, node, zero, result)
    )


def _by_value(
    propagation: Propagation, node: fx.Node, zero: dict[fx.Node, bool], result: Value
) -> bool:
    """Whether an operand that is zero carries every label of the product: the first its rows, the second its columns, either the batch."""
    last = len(result.shape) - 1
    a, b = node.all_input_nodes[:2] if len(node.all_input_nodes) > 1 else node.all_input_nodes * 2
    return all(
        (last not in varies(f) and zero[a]) or (last - 1 not in varies(f) and zero[b])
        for f in result.factors
    )


def _norm(
    propagation: Propagation, node: fx.Node, zero: dict[fx.Node, bool], labelled: list[fx.Node]
) -> bool:
    name, given = operation(node), bound(node)
    affine = given.get("weight") is not None
    x = given["input"]
    if name in ("layer_norm", "rms_norm"):
        dims = tuple(range(-len(given["normalized_shape"]), 0))
        if x in labelled:
            _need(
                propagation, [x], zero, "its statistics count what is dead but not zero", dims=dims
            )
            total = _first(propagation, x).meta.dim()
            if any(
                set(varies(f)) - {d % total for d in dims} for f in _first(propagation, x).factors
            ):
                return False
        return affine or (name == "rms_norm" and zero[x])
    return affine or (name == "group_norm" and zero[x])


def _need(
    propagation: Propagation,
    nodes: Sequence[fx.Node],
    zero: dict[fx.Node, bool],
    why: str,
    *,
    dims: tuple[int, ...] = (),
    divided: fx.Node | None = None,
) -> None:
    """Block the labels of those that are not zero (along `dims`, if given), or of a divisor, which must not be."""
    for node in nodes:
        value = _first(propagation, node)
        places = {d % len(value.shape) for d in dims} or set(range(len(value.shape)))
        for factor in value.factors if not zero[node] else ():
            if places & set(varies(factor)):
                propagation.block(factor, why)
    if divided is not None and zero[divided]:
        for factor in _first(propagation, divided).factors:
            propagation.block(factor, "it would divide by zero")
