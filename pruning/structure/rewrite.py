"""Rewrites the captured graph for fewer channels: sizes, splits, groups and scales."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx
from torch.fx import Node

from pruning.structure import wide_norms
from pruning.structure.dependency_graph import DependencyGraph
from pruning.structure.labels import along, collapsed, flat, varies
from pruning.structure.liveness import CannotRewrite, Kept, Liveness
from pruning.structure.propagate import Args, Value, arguments, names, operation, values_of
from pruning.structure.rules.convolve import CONVOLUTIONS, whole_groups
from pruning.structure.rules.elementwise import BINARY, LIKES, SAMPLED, with_inplace
from pruning.structure.rules.moves import MOVES, moved_as
from pruning.structure.rules.reduce import WIDE, reduced_dims

aten = torch.ops.aten
Change = Callable[["Rewrite", Node, Node, Args], None]
"""(rewrite, node of the old graph, the same node in the new one, the old node's arguments)."""

CHANGES: dict[str, Change] = {}

FILLS = names("zeros ones full new_zeros new_ones new_full")
"""Operations that make as many equal numbers as they are asked for."""


def change(*operations: str) -> Callable[[Change], Change]:
    """Register how these ATen operations are rewritten. The others take any size as they are."""

    def add(function: Change) -> Change:
        CHANGES.update(dict.fromkeys(operations, function))
        return function

    return add


def set_argument(node: Node, name: str, value: Any) -> None:
    """Set one argument of a call, by its name in the schema."""
    schema = node.target._schema.arguments  # type: ignore[union-attr]
    names = [argument.name for argument in schema if not argument.kwarg_only]
    if name not in names:
        node.kwargs = {**node.kwargs, name: value}
        return
    i = names.index(name)
    args = list(node.args)
    # A call may end before this argument: what lies between gets its default.
    args += [argument.default_value for argument in schema[len(args) : i + 1]]
    args[i] = value
    node.args = tuple(args)


class Rewrite:
    """One rewriting. A class because every change needs old nodes, new nodes and what is kept."""

    def __init__(self, graph: DependencyGraph, removed: NDArray[np.bool_]) -> None:
        """removed: (units,) True = removed."""
        self.liveness = Liveness(graph, removed)
        self.propagation = graph.propagation
        self.old = graph.captured.graph.graph
        self.graph: fx.Graph = copy.deepcopy(self.old)
        # A copy of a graph has its nodes in the same order.
        pairs = zip(self.old.nodes, self.graph.nodes, strict=True)
        self.new: dict[Node, Node] = dict(pairs)
        self.constants: dict[str, Tensor] = {}

    def run(self) -> None:
        """Rewrite every call whose input or output lost something. Raises CannotRewrite."""
        for node in self.old.nodes:
            if node.op == "call_function" and hasattr(node.target, "_schema"):
                self._one(node)

    def _one(self, node: Node) -> None:
        name = operation(node)
        results = self.propagation.results
        outputs = values_of(results[node])
        sources = node.all_input_nodes
        inputs = [source for source in sources if isinstance(results[source], Value)]
        involved = outputs + [results[source] for source in inputs]
        if all(map(self.liveness.whole, involved)):
            return
        if name in MOVES:
            if not all(map(self.liveness.rectangular, outputs)):
                return  # inside of a shuffle, which is rewritten as one where it ends
            if inputs and not self.liveness.rectangular(results[inputs[0]]):
                self._shuffle(node)
                return
        for source in inputs:
            self.kept(source)  # raises where its pieces make no rectangle
        if name in CHANGES:
            try:
                CHANGES[name](self, node, self.new[node], arguments(node))
            except CannotRewrite:
                raise
            except Exception as error:  # a form that nobody thought of: these groups keep zeros
                labels = torch.cat([self.liveness.removed(value) for value in involved])
                why = f"{name} cannot be rewritten ({type(error).__name__}: {error})"
                raise CannotRewrite(labels, why) from error

    # ---------------------------------------------------------------- tools of the changes

    def kept(self, node: Node) -> Kept:
        return self.liveness.kept(node)

    def before(self, node: Node) -> tuple[int, ...]:
        """The shape of a node's value in the whole model."""
        return self.propagation.value(node).shape

    def after(self, node: Node) -> list[int]:
        """The shape of a node's value in the compact model."""
        return self.liveness.shape(self.propagation.value(node))

    def replace(self, node: Node, function: Any, args: tuple[Any, ...]) -> None:
        """Put another call in a node's place."""
        old = self.new[node]
        with self.graph.inserting_before(old):
            new = self.graph.call_function(function, args)
        new.meta = dict(old.meta)
        old.replace_all_uses_with(new)
        self.graph.erase_node(old)
        self.new[node] = new

    def constant(self, values: Tensor, before: Node) -> Node:
        name = f"_places_{len(self.constants)}"
        self.constants[name] = values
        with self.graph.inserting_before(before):
            return self.graph.get_attr(name)

    def trim(self, node: Node, source: Node, kept: Kept) -> None:
        """Cut an operand without labels, such as a constant, to what the result keeps.

        Only where it is as long as the result; where it is 1 long it is repeated anyway.
        """
        own = self.kept(source)
        sizes = self.before(source)
        ahead = len(kept) - len(sizes)
        before, user = self.new[source], self.new[node]
        cut = before
        for d, keep in enumerate(kept[max(0, ahead) :]):
            if own[d] is None and keep is not None and sizes[d] > 1:
                cut = self._shorter(cut, d, keep, user)
        if cut is not before:
            user.replace_input_with(before, cut)

    def _shorter(self, source: Node, dim: int, keep: Tensor, user: Node) -> Node:
        """What is kept of a node of the new graph along one dimension, for its user."""
        if source.op == "call_function" and operation(source) in FILLS:
            sizes = list(arguments(source)["size"])
            # All its numbers are the same: fewer are made in the first place.
            if isinstance(sizes[dim], int):
                sizes[dim] = int(keep.sum())
                with self.graph.inserting_before(user):
                    filled = self.graph.node_copy(source, lambda node: node)
                set_argument(filled, "size", sizes)
                return filled
        places = self.constant(keep.nonzero().flatten(), user)
        with self.graph.inserting_before(user):
            select = (source, dim, places)
            return self.graph.call_function(aten.index_select.default, select)

    def as_before(self, node: Node, fill: float, user: Node, *, with_own: bool) -> Node:
        """A tensor as large as a node's value was in the whole model, full of one number.

        with_own: what is kept of the value is in its places.
        """
        kept, own = self.kept(node), self.new[node]
        sizes: list[Any] = []
        with self.graph.inserting_before(user):
            for d, keep in enumerate(kept):
                if keep is None:
                    sizes.append(self.graph.call_function(aten.sym_size.int, (own, d)))
                else:
                    sizes.append(len(keep))
            whole = self.graph.call_function(aten.new_full.default, (own, sizes, fill))
        if not with_own:
            return whole
        for d in reversed(_lost(kept)):
            keep = kept[d]
            assert keep is not None
            # All but this dimension is as long as what is put in.
            at = self.constant(keep.nonzero().flatten(), user)
            target = self.cut(whole, [k if i < d else None for i, k in enumerate(kept)], user)
            with self.graph.inserting_before(user):
                call = (target, d, at, own)
                own = self.graph.call_function(aten.index_copy.default, call)
        return own

    def cut(self, node: Node, kept: Kept, user: Node) -> Node:
        """What is kept of a node of the new graph that is as large as in the whole model."""
        for d, keep in enumerate(kept):
            if keep is not None:
                node = self._shorter(node, d, keep, user)
        return node

    # ---------------------------------------------------------------- removed elements

    def background(self, node: Node, dim: int, user: Node, *, zeros: bool) -> Node | None:
        """What each removed element of a node's value is, 1 long along `dim`.

        Of zeros: a node of zeros, or None where `zeros` is False. Raises CannotRewrite where it
        cannot be computed; `zeros.Zeros` has blocked what is not alike.
        """
        if self.propagation.zero[node]:
            return self._one_zero(node, dim, user) if zeros else None
        source = node.all_input_nodes[0] if node.all_input_nodes else node
        name = operation(node) if node.op == "call_function" else node.op
        if name == "permute":
            total = len(self.before(node))
            order: list[int] = arguments(node)["dims"]
            inner = order[dim] % total
            one = self.background(source, inner, user, zeros=True)
        elif name == "transpose":
            total = len(self.before(node))
            args = arguments(node)
            first, second = args["dim0"] % total, args["dim1"] % total
            inner = {first: second, second: first}.get(dim, dim)
            one = self.background(source, inner, user, zeros=True)
        else:
            return self._of_ones(node, dim, user)
        with self.graph.inserting_before(user):
            return self.graph.node_copy(node, lambda old: one if old is source else self.new[old])

    def _one_zero(self, node: Node, dim: int, user: Node) -> Node:
        with self.graph.inserting_before(user):
            first = self.graph.call_function(aten.narrow.default, (self.new[node], dim, 0, 1))
            return self.graph.call_function(aten.zeros_like.default, (first,))

    def _of_ones(self, node: Node, dim: int, user: Node) -> Node:
        """An elementwise operation on one removed element of each operand."""
        ahead = len(self.before(node))
        ones: dict[Node, Node] = {}
        for source in node.all_input_nodes:
            if not isinstance(self.propagation.results[source], Value):
                ones[source] = self.new[source]
                continue
            sizes = self.before(source)
            own = dim - (ahead - len(sizes))
            if own < 0 or sizes[own] == 1:
                ones[source] = self.new[source]
                continue
            one = self.background(source, own, user, zeros=True)
            assert one is not None
            ones[source] = one
        with self.graph.inserting_before(user):
            if operation(node).endswith("_"):  # it would change what others read
                first = node.all_input_nodes[0]
                ones[first] = self.graph.call_function(aten.clone.default, (ones[first],))
            return self.graph.node_copy(node, ones.__getitem__)

    def extreme(self, node: Node, source: Node, dim: int) -> None:
        """The largest or smallest of what is kept and of one removed element."""
        args, new = arguments(node), self.new[node]
        least = operation(node) in ("amin", "min")
        one = self.background(source, dim, new, zeros=True)
        if "dim" in args and operation(node) in ("max", "min"):
            values = [user for user in new.users if user.args[1:] == (0,)]
            if len(values) < len(new.users):
                labels = self.liveness.removed(self.propagation.value(source))
                raise CannotRewrite(labels, f"{operation(node)} gives places of channels")
        else:
            values = [new]
        over = [args["dim"]] if isinstance(args.get("dim"), int) else args.get("dim") or []
        of = aten.amin.default if least else aten.amax.default
        both = aten.minimum.default if least else aten.maximum.default
        keepdim = bool(args.get("keepdim", False))
        with self.graph.inserting_before(new):
            kept = self.graph.call_function(of, (self.new[source], over, keepdim))
            removed = self.graph.call_function(of, (one, over, keepdim))
            result = self.graph.call_function(both, (kept, removed))
        result.meta = dict(new.meta)
        for value in values:
            value.replace_all_uses_with(result)
            if value is not new:
                self.graph.erase_node(value)
        for old, now in list(self.new.items()):
            if now in values:
                self.new[old] = result
        self.graph.erase_node(new)

    # ---------------------------------------------------------------- shuffles

    def _shuffle(self, node: Node) -> None:
        """Rewrite a chain of moves, ragged inside, that permutes one dimension as a whole.

        A channel shuffle is view (n, 2, 4, ...), transpose, view (n, 8, ...): with one channel
        less, the value in the middle is no rectangle, but the ends are.
        """
        chain = [node]
        source = node.all_input_nodes[0]
        while not self.liveness.rectangular(self.propagation.value(source)):
            if operation(source) not in MOVES:
                value = self.propagation.value(source)
                labels = self.liveness.removed(value)
                why = f"{operation(source)} would lose pieces that make no rectangle"
                raise CannotRewrite(labels, why)
            chain.append(source)
            source = source.all_input_nodes[0]
        self.permute(node, chain[::-1])

    def permute(self, node: Node, chain: list[Node]) -> None:
        """Put one index_select in the place of `chain`, which ends in `node`."""
        source = chain[0].all_input_nodes[0]
        dim = self._permuted_dim(node, source)
        sizes = self.before(source)
        places: Tensor | None = None
        if dim is not None:
            places = self._places(chain, dim, sizes)
        if dim is None or places is None:
            labels = self.liveness.removed(self.propagation.value(source))
            why = f"{operation(node)} moves channels in a way that cannot be followed"
            raise CannotRewrite(labels, why)
        keep = self.kept(source)[dim]
        keep_after = self.kept(node)[dim]
        assert keep is not None and keep_after is not None
        position = keep.long().cumsum(0) - 1  # of each kept index among the kept ones
        index = position[places[keep_after]]
        at = self.constant(index, self.new[node])
        call = (self.new[source], dim, at)
        self.replace(node, aten.index_select.default, call)
        for step in reversed(chain[:-1]):
            if not self.new[step].users:
                self.graph.erase_node(self.new[step])

    def _permuted_dim(self, node: Node, source: Node) -> int | None:
        """The one dimension along which both lost something; None where that is not so simple."""
        if not isinstance(self.propagation.results[node], Value):
            return None
        before, after = self.before(source), self.before(node)
        if len(before) != len(after):
            return None
        dims = _lost(self.kept(source))
        if len(dims) != 1 or _lost(self.kept(node)) != dims:
            return None
        (dim,) = dims
        # The other dimensions must be as they were, or more than one was moved.
        if before[:dim] != after[:dim] or before[dim + 1 :] != after[dim + 1 :]:
            return None
        return dim

    def _places(self, chain: list[Node], dim: int, sizes: tuple[int, ...]) -> Tensor | None:
        """Where each index of `dim` comes from, in the whole model: the chain, run on numbers."""
        places = along(torch.arange(sizes[dim]), dim, sizes)
        for step in chain:
            meta = self.propagation.value(step).meta
            places = moved_as(self.propagation, step, places, meta)
        places = collapsed(places)
        return flat(places, [dim]) if set(varies(places)) <= {dim} else None


# ---------------------------------------------------------------- sizes


@change("view", "reshape", "_unsafe_view", "expand")
def sizes(rewrite: Rewrite, node: Node, new: Node, args: Args) -> None:
    name = "shape" if operation(node) == "reshape" else "size"
    kept = rewrite.kept(node)
    wanted = list(arguments(new)[name])
    ahead = len(kept) - len(wanted)
    for i, size in enumerate(wanted):
        keep = kept[i + ahead]
        if keep is None or size == -1:
            continue
        if isinstance(size, Node) and operation(node) != "expand":
            wanted[i] = -1  # a size that depends on the batch is left to torch
        else:
            wanted[i] = int(keep.sum())
    set_argument(new, name, wanted)


@change("unflatten")
def unflatten(rewrite: Rewrite, node: Node, new: Node, args: Args) -> None:
    kept = rewrite.kept(node)
    source = node.all_input_nodes[0]
    dim = args["dim"] % len(rewrite.before(source))
    wanted = list(arguments(new)["sizes"])
    for i in range(len(wanted)):
        keep = kept[dim + i]
        if keep is not None:
            wanted[i] = int(keep.sum())
    set_argument(new, "sizes", wanted)


@change("slice")
def sliced(rewrite: Rewrite, node: Node, new: Node, args: Args) -> None:
    source = node.all_input_nodes[0]
    size, dim, keep = _along(rewrite, source, args["dim"])
    if keep is None:
        return
    if args["step"] != 1:
        rewrite.permute(node, [node])
        return
    earlier = _kept_before(keep)
    ends = []
    for name, default in (("start", 0), ("end", size)):
        end = default if args[name] is None else args[name]
        if end < 0:
            end += size
        end = min(max(end, 0), size)  # a slice may reach beyond its tensor
        ends.append(earlier[end])
    new.args = (new.args[0], dim, *ends)


@change("narrow")
def narrow(rewrite: Rewrite, node: Node, new: Node, args: Args) -> None:
    _, dim, keep = _along(rewrite, node.all_input_nodes[0], args["dim"])
    if keep is not None:
        earlier = _kept_before(keep)
        first = args["start"]
        start = earlier[first]
        end = earlier[first + args["length"]]
        new.args = (new.args[0], dim, start, end - start)


@change("select")
def select(rewrite: Rewrite, node: Node, new: Node, args: Args) -> None:
    size, dim, keep = _along(rewrite, node.all_input_nodes[0], args["dim"])
    if keep is not None:
        index = args["index"] % size
        new.args = (new.args[0], dim, _kept_before(keep)[index])


def _along(rewrite: Rewrite, source: Node, dim: int) -> tuple[int, int, Tensor | None]:
    """(the size of a value along `dim`, `dim` counted from the front, what is kept there)."""
    sizes = rewrite.before(source)
    dim = dim % len(sizes)
    return sizes[dim], dim, rewrite.kept(source)[dim]


def _kept_before(keep: Tensor) -> list[int]:
    """How many are kept before each index, and in all. (size + 1,)"""
    return [0, *keep.long().cumsum(0).tolist()]


@change("chunk", "split", "split_with_sizes", "tensor_split")
def split(rewrite: Rewrite, node: Node, new: Node, args: Args) -> None:
    _, dim, keep = _along(rewrite, node.all_input_nodes[0], args["dim"])
    if keep is not None:
        # Pieces may lose different numbers: none of the others can say that.
        shapes = map(rewrite.liveness.shape, rewrite.propagation.results[node])
        lengths = [shape[dim] for shape in shapes]
        call = (new.args[0], lengths, dim)
        rewrite.replace(node, aten.split_with_sizes.default, call)


@change("roll", "flip", "index_select", "index", "channel_shuffle", "repeat_interleave")
def permuted(rewrite: Rewrite, node: Node, new: Node, args: Args) -> None:
    kept = rewrite.kept(node.all_input_nodes[0])
    # Channels that no one moved keep their order without a table.
    moved = _moved_dims(node, args, len(kept))
    if moved.intersection(_lost(kept)):
        rewrite.permute(node, [node])


def _lost(kept: Kept) -> list[int]:
    """The dimensions along which something was removed."""
    return [d for d, keep in enumerate(kept) if keep is not None]


def _moved_dims(node: Node, args: Args, total: int) -> set[int]:
    """The dimensions an operation moves elements along."""
    if operation(node) == "index":
        return {d for d, index in enumerate(args["indices"]) if index is not None}
    if operation(node) == "channel_shuffle":
        return {1}
    dims = args.get("dims", args.get("dim"))
    if dims in (None, []):
        return set(range(total))
    if not isinstance(dims, (list, tuple)):
        dims = [dims]
    return {d % total for d in dims}


# ---------------------------------------------------------------- layers


@change(*CONVOLUTIONS)
def groups(rewrite: Rewrite, node: Node, new: Node, args: Args) -> None:
    if args["groups"] > 1:
        channels = rewrite.after(args["input"])[1]
        if "transpose" not in operation(node):
            set_argument(new, "groups", channels // rewrite.after(args["weight"])[1])
            return
        # A transposed weight is (C, O/groups, k...): its columns say nothing of the groups.
        into = rewrite.before(args["input"])[1] // args["groups"]
        if whole_groups(args["groups"], into):
            set_argument(new, "groups", channels // into)


@change("linear", "matmul", "mm", "bmm")
def product(rewrite: Rewrite, node: Node, new: Node, args: Args) -> None:
    """Cut a constant, such as the state that a recurrence starts from, to the weight it meets."""
    if "weight" in args:
        x, columns = args["input"], rewrite.kept(args["weight"])[-1]
        rewrite.trim(node, x, [*[None] * (len(rewrite.before(x)) - 1), columns])
        return
    first, second = node.args[0], args.get("other", args.get("mat2"))
    assert isinstance(first, Node) and isinstance(second, Node)
    shared = rewrite.kept(second)[-2], rewrite.kept(first)[-1]
    rewrite.trim(node, first, [*[None] * (len(rewrite.before(first)) - 1), shared[0]])
    rewrite.trim(node, second, [*[None] * (len(rewrite.before(second)) - 2), shared[1], None])


@change("layer_norm", "rms_norm")
def norm(rewrite: Rewrite, node: Node, new: Node, args: Args) -> None:
    """Removed elements were zeros, and zeros count in a mean: remember the original width."""
    before = list(args["normalized_shape"])
    sizes = rewrite.after(node)
    after = sizes[-len(before) :]
    if before == after:
        return
    width = math.prod(before)
    own = arguments(new)
    call = [own["input"], after, own["weight"], own["eps"], width]
    if operation(node) == "layer_norm":
        call.insert(3, own["bias"])
        rewrite.replace(node, wide_norms.layer_norm, tuple(call))
    else:
        rewrite.replace(node, wide_norms.rms_norm, tuple(call))


@change("group_norm")
def group_norm(rewrite: Rewrite, node: Node, new: Node, args: Args) -> None:
    if args["num_groups"] == 1:
        own = arguments(new)
        call = (own["input"], own["weight"], own["bias"], own["eps"], rewrite.before(node)[1])
        rewrite.replace(node, wide_norms.group_norm, call)
        return
    # Groups are removed whole, so the others are as wide as before.
    width = rewrite.before(node)[1] // args["num_groups"]
    set_argument(new, "num_groups", rewrite.after(node)[1] // width)


@change("scaled_dot_product_attention")
def attention(rewrite: Rewrite, node: Node, new: Node, args: Args) -> None:
    query, mask = args["query"], args["attn_mask"]
    width = rewrite.before(query)[-1]
    if args["scale"] is None and rewrite.after(query)[-1] != width:
        set_argument(new, "scale", width**-0.5)  # by default, of the width at hand
    if isinstance(mask, Node):
        *heads, _, _ = rewrite.kept(node)
        # The mask's last two dimensions are tokens times tokens, and stay whole.
        rewrite.trim(node, mask, [*heads, None, None])


# ---------------------------------------------------------------- random numbers


@change(*LIKES, *SAMPLED, "bernoulli", "dropout", "feature_dropout")
def sampled(rewrite: Rewrite, node: Node, new: Node, args: Args) -> None:
    """Draw as many numbers as before, and keep those of what is kept: they stay the same ones."""
    name = operation(node)
    if "dropout" in name and args["train"] is False:
        return
    source = node.all_input_nodes[0]
    if not _lost(rewrite.kept(source)):
        return
    fill = 0.5 if name == "bernoulli" else 1.0
    whole = rewrite.as_before(source, fill, new, with_own=name == "bernoulli")
    own = rewrite.new[source]
    with rewrite.graph.inserting_before(new):
        random = rewrite.graph.node_copy(new, lambda n: whole if n is own else n)
    cut = rewrite.cut(random, rewrite.kept(source), new)
    if "dropout" in name:
        rewrite.replace(node, aten.mul.Tensor, (own, cut))
    elif name in SAMPLED:
        rewrite.replace(node, aten.copy_.default, (own, cut))
    else:
        new.replace_all_uses_with(cut)
        rewrite.graph.erase_node(new)
        rewrite.new[node] = cut


# ---------------------------------------------------------------- reductions


@change("sum", *WIDE)
def reduced(rewrite: Rewrite, node: Node, new: Node, args: Args) -> None:
    """Removed elements that are no zeros count, and even zeros do in a mean: add them back.

    They are alike, so that one of them stands for all: `Rewrite.background`.
    """
    name = operation(node)
    if isinstance(args.get("other"), Node):  # of two tensors
        operands(rewrite, node, new, args)
        return
    source = node.all_input_nodes[0]
    kept = rewrite.kept(source)
    dims = [d for d in reduced_dims(node, len(kept)) if kept[d] is not None]
    if not dims:
        return
    if len(dims) > 1:
        labels = rewrite.liveness.removed(rewrite.propagation.value(source))
        raise CannotRewrite(labels, f"{name} runs over two dimensions that lost something")
    (dim,) = dims
    before, after = rewrite.before(source)[dim], rewrite.after(source)[dim]
    if name in ("var", "std", "var_mean"):
        own = arguments(new)
        over = list(reduced_dims(node, len(kept)))
        correction = own.get("correction", 1 if own.get("unbiased", True) else 0)
        one = rewrite.background(source, dim, new, zeros=True)
        correction = 1 if correction is None else correction
        call = (own["self"], one, over, correction, bool(own.get("keepdim")), before - after)
        rewrite.replace(node, getattr(wide_norms, name), call)
        return
    if name in ("amax", "amin", "max", "min"):
        rewrite.extreme(node, source, dim)
        return
    one = rewrite.background(source, dim, new, zeros=False)
    # A mean of what is kept is over fewer elements, and one removed stands for all of them.
    mean = name == "mean"
    if one is None and not mean:
        return
    share = after / before if mean else 1
    weight = (before - after) / before if mean else before - after
    users = list(new.users)
    with rewrite.graph.inserting_after(new):
        total = rewrite.graph.call_function(aten.mul.Scalar, (new, share)) if mean else new
    if one is not None:
        with rewrite.graph.inserting_after(total):
            removed = rewrite.graph.node_copy(new, lambda n: one if n is rewrite.new[source] else n)
        with rewrite.graph.inserting_after(removed):
            total = rewrite.graph.call_function(
                aten.add.Tensor, (total, removed), {"alpha": weight}
            )
    for user in users:
        user.replace_input_with(new, total)
    total.meta = dict(new.meta)
    rewrite.new[node] = total


@change(*with_inplace(BINARY), "cat", "concat", "concatenate")
def operands(rewrite: Rewrite, node: Node, new: Node, args: Args) -> None:
    """Cut constants to what their partners kept."""
    kept = list(rewrite.kept(node))
    if "tensors" in args:
        dim = args["dim"] % len(kept)
        kept[dim] = None  # along it, parts have their own lengths
        for i, source in enumerate(args["tensors"]):
            zeros = rewrite.propagation.zero_parts.get((node, i))
            if zeros is not None:
                own: Kept = [None] * len(kept)
                own[dim] = rewrite.liveness.keep[zeros]
                rewrite.trim(node, source, own)
    for source in dict.fromkeys(node.all_input_nodes):
        if isinstance(rewrite.propagation.results[source], Value):
            rewrite.trim(node, source, kept)
