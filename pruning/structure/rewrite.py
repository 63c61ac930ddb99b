"""The captured graph again, for fewer channels: sizes, splits, groups and scales rewritten from what lives."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from pruning.structure import wide_norms
from pruning.structure.dependency_graph import DependencyGraph
from pruning.structure.labels import compressed, flat, varies
from pruning.structure.liveness import CannotRewrite, Liveness
from pruning.structure.propagate import Value, bound, operation
from pruning.structure.rules.elementwise import BINARY
from pruning.structure.rules.moves import MOVES, moved_as

aten = torch.ops.aten
Change = Callable[["Rewrite", fx.Node, fx.Node, dict[str, Any]], None]
CHANGES: dict[str, Change] = {}


def change(*operations: str) -> Callable[[Change], Change]:
    def add(function: Change) -> Change:
        CHANGES.update(dict.fromkeys(operations, function))
        return function

    return add


def give(node: fx.Node, name: str, value: Any) -> None:
    """Set one argument of a call, by its name in the schema."""
    for i, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if argument.name == name and not argument.kwarg_only:
            defaults = [a.default_value for a in node.target._schema.arguments[len(node.args) : i]]  # type: ignore[union-attr]
            given = [*node.args, *defaults][:i]
            node.args = (*given, value, *node.args[i + 1 :])
            return
    node.kwargs = {**node.kwargs, name: value}


class Rewrite:
    """One rewriting. A class because old nodes, new nodes, what lives and new constants go everywhere together."""

    def __init__(self, dependencies: DependencyGraph, gone: NDArray[np.bool_]) -> None:
        self.liveness, self.propagation = Liveness(dependencies, gone), dependencies.propagation
        self.old = dependencies.captured.graph.graph
        self.graph: fx.Graph = copy.deepcopy(self.old)
        self.new: dict[fx.Node, fx.Node] = dict(zip(self.old.nodes, self.graph.nodes, strict=True))
        self.constants: dict[str, Tensor] = {}

    def run(self) -> None:
        """Rewrite every call whose input or output lost something. Raises Stuck."""
        for node in self.old.nodes:
            if node.op == "call_function" and hasattr(node.target, "_schema"):
                self._one(node)

    def _one(self, node: fx.Node) -> None:
        result, name = self.propagation.results[node], operation(node)
        outputs = [
            v for v in (result if isinstance(result, list) else [result]) if isinstance(v, Value)
        ]
        inputs = [n for n in node.all_input_nodes if isinstance(self.propagation.results[n], Value)]
        if not any(
            bool(self.liveness.labels(v).numel())
            for v in (*outputs, *(self.liveness.value(n) for n in inputs))
        ):
            return
        if name in MOVES and not all(map(self.liveness.rectangular, outputs)):
            return  # inside of a shuffle: taken as one when it is over
        if (
            name in MOVES
            and inputs
            and not self.liveness.rectangular(self.liveness.value(inputs[0]))
        ):
            self._shuffle(node)
            return
        for source in inputs:
            self.liveness.of(source)  # raises Stuck
        if name in CHANGES:
            CHANGES[name](self, node, self.new[node], bound(node))

    # ---------------------------------------------------------------- tools of the changes

    def kept(self, node: fx.Node) -> list[Tensor | None]:
        return self.liveness.of(node)

    def replace(
        self,
        node: fx.Node,
        function: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Another call in a node's place."""
        old = self.new[node]
        with self.graph.inserting_before(old):
            new = self.graph.call_function(function, args, kwargs or {})
        new.meta = dict(old.meta)
        old.replace_all_uses_with(new)
        self.graph.erase_node(old)
        self.new[node] = new

    def constant(self, values: Tensor, before: fx.Node) -> fx.Node:
        name = f"_places_{len(self.constants)}"
        self.constants[name] = values
        with self.graph.inserting_before(before):
            return self.graph.get_attr(name)

    def trim(self, node: fx.Node, source: fx.Node, kept: list[Tensor | None]) -> None:
        """An operand without labels loses what the result loses, as far as it is as long."""
        own, value, ahead = (
            self.kept(source),
            self.liveness.value(source),
            len(kept) - len(self.liveness.value(source).shape),
        )
        for d, alive in enumerate(kept[max(0, ahead) :]):
            if own[d] is None and alive is not None and value.shape[d] > 1:
                user = self.new[node]
                places = self.constant(alive.nonzero().flatten(), user)
                with self.graph.inserting_before(user):
                    cut = self.graph.call_function(
                        aten.index_select.default, (self.new[source], d, places)
                    )
                user.replace_input_with(self.new[source], cut)

    # ---------------------------------------------------------------- shuffles

    def _shuffle(self, node: fx.Node) -> None:
        """A chain of moves whose middle is ragged, but which only permutes one dimension: one index_select."""
        chain = [node]
        while not self.liveness.rectangular(
            self.liveness.value(source := chain[-1].all_input_nodes[0])
        ):
            if operation(source) not in MOVES:
                raise CannotRewrite(
                    self.liveness.labels(self.liveness.value(source)),
                    f"{operation(source)} would lose pieces that make no rectangle",
                )
            chain.append(source)
        self.permute(node, list(reversed(chain)))

    def permute(self, node: fx.Node, chain: list[fx.Node]) -> None:
        """Put one index_select in the place of `chain`, which ends in `node`."""
        source = chain[0].all_input_nodes[0]
        before, result = self.liveness.value(source), self.propagation.results[node]
        why = CannotRewrite(
            self.liveness.labels(before),
            f"{operation(node)} moves channels in a way that cannot be followed",
        )
        if not isinstance(result, Value) or len(result.shape) != len(before.shape):
            raise why
        kept, after = self.kept(source), self.kept(node)
        dims = [d for d, alive in enumerate(kept) if alive is not None]
        if len(dims) != 1 or [d for d, alive in enumerate(after) if alive is not None] != dims:
            raise why
        (dim,) = dims
        if any(
            a != b
            for d, (a, b) in enumerate(zip(before.shape, result.shape, strict=True))
            if d != dim
        ):
            raise why
        places = (
            torch.arange(before.shape[dim])
            .view([-1 if d == dim else 1 for d in range(len(before.shape))])
            .expand(before.shape)
        )
        for step in chain:
            places = moved_as(self.propagation, step, places, self.liveness.value(step).meta)
        places = compressed(places)
        if not set(varies(places)) <= {dim}:
            raise why
        alive, now = kept[dim], after[dim]
        assert alive is not None and now is not None
        rank = alive.long().cumsum(0) - 1
        index = rank[flat(places, [dim])[now]]
        at = self.constant(index, self.new[node])
        self.replace(node, aten.index_select.default, (self.new[source], dim, at))
        for step in reversed(chain[:-1]):
            if not self.new[step].users:
                self.graph.erase_node(self.new[step])


# ---------------------------------------------------------------- sizes


@change("view", "reshape", "_unsafe_view", "expand")
def sizes(work: Rewrite, node: fx.Node, new: fx.Node, given: dict[str, Any]) -> None:
    name = "shape" if operation(node) == "reshape" else "size"
    wanted, kept = list(bound(new)[name]), work.kept(node)
    ahead = len(kept) - len(wanted)
    for i, size in enumerate(wanted):
        alive = kept[i + ahead]
        if alive is not None and size != -1:  # a size that depends on the batch is left to torch
            wanted[i] = (
                -1
                if isinstance(size, fx.Node) and operation(node) != "expand"
                else int(alive.sum())
            )
    give(new, name, wanted)


@change("unflatten")
def unflatten(work: Rewrite, node: fx.Node, new: fx.Node, given: dict[str, Any]) -> None:
    kept, dim = (
        work.kept(node),
        given["dim"] % len(work.liveness.value(node.all_input_nodes[0]).shape),
    )
    wanted = [
        size if (alive := kept[dim + i]) is None else int(alive.sum())
        for i, size in enumerate(bound(new)["sizes"])
    ]
    give(new, "sizes", wanted)


@change("slice")
def sliced(work: Rewrite, node: fx.Node, new: fx.Node, given: dict[str, Any]) -> None:
    source = work.liveness.value(node.all_input_nodes[0])
    dim = given["dim"] % len(source.shape)
    alive = work.kept(node.all_input_nodes[0])[dim]
    if alive is None:
        return
    if given["step"] != 1:
        work.permute(node, [node])
        return
    before, size = _before(alive), source.shape[dim]
    ends = [
        0 if given["start"] is None else given["start"],
        size if given["end"] is None else given["end"],
    ]
    low, high = (max(0, end + size) if end < 0 else min(end, size) for end in ends)
    new.args = (new.args[0], dim, before[low], before[high])


@change("narrow")
def narrow(work: Rewrite, node: fx.Node, new: fx.Node, given: dict[str, Any]) -> None:
    alive = work.kept(node.all_input_nodes[0])[given["dim"] % len(work.liveness.value(node).shape)]
    if alive is not None:
        before = _before(alive)
        low, high = given["start"], given["start"] + given["length"]
        new.args = (new.args[0], given["dim"], before[low], before[high] - before[low])


@change("select")
def select(work: Rewrite, node: fx.Node, new: fx.Node, given: dict[str, Any]) -> None:
    source = work.liveness.value(node.all_input_nodes[0])
    dim = given["dim"] % len(source.shape)
    if (alive := work.kept(node.all_input_nodes[0])[dim]) is not None:
        new.args = (new.args[0], dim, _before(alive)[given["index"] % source.shape[dim]])


def _before(alive: Tensor) -> list[int]:
    """How many live before each index, and in all."""
    return [0, *alive.long().cumsum(0).tolist()]


@change("chunk", "split", "split_with_sizes", "tensor_split")
def split(work: Rewrite, node: fx.Node, new: fx.Node, given: dict[str, Any]) -> None:
    source = work.liveness.value(node.all_input_nodes[0])
    dim = given["dim"] % len(source.shape)
    if work.kept(node.all_input_nodes[0])[dim] is not None:
        parts = [work.liveness.shape(part)[dim] for part in work.propagation.results[node]]
        work.replace(node, aten.split_with_sizes.default, (new.args[0], parts, dim))


@change("roll", "flip", "index_select", "index", "channel_shuffle", "repeat_interleave")
def permuted(work: Rewrite, node: fx.Node, new: fx.Node, given: dict[str, Any]) -> None:
    touched = {d for d, alive in enumerate(work.kept(node.all_input_nodes[0])) if alive is not None}
    if touched & _moved(work, node, given):
        work.permute(node, [node])


def _moved(work: Rewrite, node: fx.Node, given: dict[str, Any]) -> set[int]:
    """The dimensions an operation moves elements along."""
    total = len(work.liveness.value(node.all_input_nodes[0]).shape)
    if operation(node) == "index":
        return {d for d, index in enumerate(given["indices"]) if index is not None}
    if operation(node) == "channel_shuffle":
        return {1}
    dims = given.get("dims", given.get("dim"))
    return (
        set(range(total))
        if dims in (None, [])
        else {d % total for d in (dims if isinstance(dims, (list, tuple)) else [dims])}
    )


# ---------------------------------------------------------------- layers


@change("conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def groups(work: Rewrite, node: fx.Node, new: fx.Node, given: dict[str, Any]) -> None:
    if given["groups"] > 1:
        into, columns = (
            work.liveness.shape(work.liveness.value(given["input"]))[1],
            work.liveness.shape(work.liveness.value(given["weight"]))[1],
        )
        give(new, "groups", into // columns if "transpose" not in operation(node) else into)


@change("layer_norm", "rms_norm")
def norm(work: Rewrite, node: fx.Node, new: fx.Node, given: dict[str, Any]) -> None:
    before = list(given["normalized_shape"])
    after = work.liveness.shape(work.liveness.value(node))[-len(before) :]
    if before == after:
        return
    width, ours = int(np.prod(before)), bound(new)
    if operation(node) == "layer_norm":
        work.replace(
            node,
            wide_norms.layer_norm,
            (ours["input"], after, ours["weight"], ours["bias"], ours["eps"], width),
        )
    else:
        work.replace(
            node, wide_norms.rms_norm, (ours["input"], after, ours["weight"], ours["eps"], width)
        )


@change("group_norm")
def group_norm(work: Rewrite, node: fx.Node, new: fx.Node, given: dict[str, Any]) -> None:
    value = work.liveness.value(node)
    give(new, "num_groups", given["num_groups"] * work.liveness.shape(value)[1] // value.shape[1])


@change("scaled_dot_product_attention")
def attention(work: Rewrite, node: fx.Node, new: fx.Node, given: dict[str, Any]) -> None:
    width = work.liveness.value(given["query"]).shape[-1]
    if (
        given["scale"] is None
        and work.liveness.shape(work.liveness.value(given["query"]))[-1] != width
    ):
        give(new, "scale", width**-0.5)
    if isinstance(given["attn_mask"], fx.Node):
        work.trim(node, given["attn_mask"], [*work.kept(node)[:-2], None, None])


@change(*BINARY, *(f"{name}_" for name in BINARY), "cat", "concat", "concatenate")
def operands(work: Rewrite, node: fx.Node, new: fx.Node, given: dict[str, Any]) -> None:
    """Constants are cut to what their partners kept."""
    kept = list(work.kept(node))
    if "tensors" in given:
        kept[given["dim"] % len(kept)] = None
    for source in dict.fromkeys(node.all_input_nodes):
        if isinstance(work.propagation.results[source], Value):
            work.trim(node, source, kept)
