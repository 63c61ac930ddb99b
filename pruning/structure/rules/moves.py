"""Operations that move elements about: run on the labels themselves, they need no rule."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx

from pruning.structure.labels import compressed, varies
from pruning.structure.propagate import Propagation, Value, operation, rule

RESHAPES = ("view", "_unsafe_view", "reshape", "flatten", "unflatten", "view_as", "reshape_as")
COPIES = (
    "contiguous",
    "clone",
    "lift_fresh_copy",
    "lift_fresh",
    "_to_copy",
    "to",
    "type_as",
    "alias",
    "detach",
    "whole",
    "detach_",
)
OTHERS = (
    *(
        "permute",
        "transpose",
        "t",
        "movedim",
        "swapaxes",
        "swapdims",
        "numpy_T",
        "select",
        "slice",
        "narrow",
        "squeeze",
        "unsqueeze",
    ),
    *(
        "expand",
        "roll",
        "chunk",
        "split",
        "split_with_sizes",
        "unbind",
        "tensor_split",
        "index_select",
        "flip",
        "unfold",
        "rot90",
    ),
    *(
        "channel_shuffle",
        "pixel_shuffle",
        "pixel_unshuffle",
        "repeat_interleave",
        "repeat",
        "tile",
        "diagonal",
        "adjoint",
        "mT",
    ),
)
MOVES = frozenset((*RESHAPES, *COPIES, *OTHERS, "expand_as"))


@rule(*MOVES)
def move(propagation: Propagation, node: fx.Node, args: dict[str, Any], meta: Any) -> Any:
    """Each factor is moved as the values are."""
    source = next(iter(args.values()))
    kind = (
        "constant"
        if source.kind == "constant"
        else "activation"
        if source.kind == "activation"
        else source.kind
    )
    moved = [moved_as(propagation, node, factor, meta) for factor in source.factors]
    if isinstance(meta, (tuple, list)):
        return [
            Value(m, tuple(compressed(parts[i]) for parts in moved), None, kind)
            for i, m in enumerate(meta)
        ]
    extra = _template(args, source, meta) if operation(node) == "expand_as" else ()
    return Value(
        meta,
        (*(compressed(f) for f in moved), *extra),
        _moved_state(propagation, node, source),
        kind,
    )


def moved_as(propagation: Propagation, node: fx.Node, values: Tensor, meta: Any) -> Any:
    """What the node does to an integer tensor of its input's shape."""
    name, function = operation(node), node.target
    if name in RESHAPES:
        return values.reshape(meta.shape)
    if name in COPIES:
        return values
    if name == "expand_as":
        return values.expand(meta.shape)
    rest = fx.node.map_arg(node.args[1:], lambda n: _number(propagation.results[n]))
    return function(values, *rest, **propagation.real(node.kwargs))  # type: ignore[operator]


def _number(result: Any) -> Any:
    return (
        (result.real if result.real is not None else result.meta)
        if isinstance(result, Value)
        else result
    )


def _moved_state(propagation: Propagation, node: fx.Node, source: Value) -> Tensor | None:
    """A moved buffer keeps its numbers: tables of positions are gathered by them."""
    if source.real is None:
        return None
    function: Any = node.target
    result: Tensor = function(*propagation.real(node.args), **propagation.real(node.kwargs))
    return result


def _template(args: dict[str, Any], source: Value, meta: Tensor) -> tuple[Tensor, ...]:
    """Along dimensions that grow, what is expanded takes the labels of what it is expanded to."""
    template = args["other"]
    ahead = meta.dim() - len(source.shape)
    grown = {
        d
        for d in range(meta.dim())
        if meta.size(d) > 1 and (d < ahead or source.shape[d - ahead] == 1)
    }
    return tuple(f for f in template.factors if set(varies(f)) <= grown)
