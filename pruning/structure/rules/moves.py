"""The rule of operations that move elements about: they are run on the labels themselves."""

from __future__ import annotations

from typing import Any

from torch import Tensor, fx
from torch.fx import Node

from pruning.structure.labels import collapsed, varies
from pruning.structure.propagate import Args, Propagation, Value, names, operation, rule

RESHAPES = names("view _unsafe_view reshape flatten unflatten view_as reshape_as")
COPIES = names("""
    contiguous clone lift_fresh_copy lift_fresh _to_copy to type_as alias detach detach_ whole
""")
OTHERS = names("""
    permute transpose t movedim swapaxes swapdims numpy_T select slice narrow squeeze unsqueeze
    expand roll chunk split split_with_sizes unbind tensor_split index_select flip unfold rot90
    channel_shuffle pixel_shuffle pixel_unshuffle repeat_interleave repeat tile diagonal adjoint mT
""")
MOVES = frozenset((*RESHAPES, *COPIES, *OTHERS, "expand_as"))


@rule(*MOVES)
def move(propagation: Propagation, node: Node, args: Args, meta: Any) -> Any:
    """Each factor is moved as the values are."""
    source: Value = next(iter(args.values()))
    moved = [moved_as(propagation, node, factor, meta) for factor in source.factors]
    if isinstance(meta, (tuple, list)):  # a split: every factor in as many pieces
        pieces = zip(*moved, strict=True) if moved else [()] * len(meta)
        return [
            Value(part, tuple(map(collapsed, factors)), None, source.kind)
            for part, factors in zip(meta, pieces, strict=True)
        ]
    factors = [collapsed(factor) for factor in moved]
    if operation(node) == "expand_as":
        factors += _grown(source, args["other"], meta)
    real = None
    if source.real is not None:
        # A moved buffer keeps its numbers: tables of positions are gathered by them.
        function: Any = node.target
        options = propagation.real(node.kwargs)
        real = function(*propagation.real(node.args), **options)
    return Value(meta, tuple(factors), real, source.kind)


@rule("view_as_complex", "view_as_real")
def complex_pairs(propagation: Propagation, node: Node, args: Args, meta: Any) -> Value:
    """(..., 2) <-> (...): a complex number is kept or removed as a whole."""
    source: Value = args["self"]
    factors = source.factors
    if operation(node) == "view_as_real":
        factors = tuple(f.unsqueeze(-1).expand(meta.shape) for f in factors)
    else:
        last = len(source.shape) - 1
        factors = tuple(propagation.labels.tie(f, [last]).select(-1, 0) for f in factors)
    return Value(meta, factors, None, source.kind)


def moved_as(propagation: Propagation, node: Node, values: Tensor, meta: Any) -> Any:
    """What the node does to an integer tensor of its input's shape."""
    name = operation(node)
    if name in RESHAPES:
        return values.reshape(meta.shape)
    if name in COPIES:
        return values
    if name == "expand_as":
        return values.expand(meta.shape)

    def number(source: Node) -> Any:
        result = propagation.results[source]
        if not isinstance(result, Value):
            return result
        return result.meta if result.real is None else result.real

    function: Any = node.target
    # Tables of indices must be numbers here; of other tensors the shape is enough.
    rest = fx.node.map_arg(node.args[1:], number)
    return function(values, *rest, **propagation.real(node.kwargs))


def _grown(source: Value, template: Value, meta: Tensor) -> list[Tensor]:
    """Along dimensions that grow, what is expanded takes the labels of what it is expanded to."""
    missing = meta.dim() - len(source.shape)
    sizes = [1] * missing + list(source.shape)
    grown = {d for d, size in enumerate(meta.shape) if size > 1 and sizes[d] == 1}
    return [factor for factor in template.factors if set(varies(factor)) <= grown]
