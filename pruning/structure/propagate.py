"""A walk through a captured graph on labels instead of numbers: what each operation ties, and what it lets through."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn

from pruning.structure.capture import Captured
from pruning.structure.labels import Factor, Labels, Reason, along, varies


@dataclass(eq=False)
class Value:
    """What is known of one result: its shape and kind, its factors, and its numbers where no input or parameter shapes them.

    kind: "activation", "parameter", "state" (a buffer) or "constant".
    """

    meta: Tensor
    factors: tuple[Factor, ...] = ()
    real: Tensor | None = None
    kind: str = "activation"

    def __post_init__(self) -> None:
        self.factors = tuple(f for f in self.factors if varies(f))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.meta.shape)


Rule = Callable[["Propagation", fx.Node, dict[str, Any], Any], Any]
"""(propagation, node, its arguments by name, its result on the meta device) -> Value, or a list of them."""

RULES: dict[str, Rule] = {}


def rule(*operations: str) -> Callable[[Rule], Rule]:
    """Registers how labels pass through these ATen operations."""

    def add(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operations, function))
        return function

    return add


def operation(node: fx.Node) -> str:
    """ "conv2d" for torch.ops.aten.conv2d.default."""
    schema = getattr(node.target, "_schema", None)
    return (
        schema.name.split("::")[1]
        if schema is not None
        else getattr(node.target, "__name__", str(node.target))
    )


def place(node: fx.Node) -> str:
    """The path of the module a node comes from."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path = str(stack[-1][0]).split("@")[0] if stack else ""
    return "" if path.startswith("_empty") else path


def bound(node: fx.Node) -> dict[str, Any]:
    """A call's arguments by the names of its schema, defaults filled in."""
    found = {}
    for i, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        given = (
            node.args[i]
            if i < len(node.args) and not argument.kwarg_only
            else node.kwargs.get(argument.name, argument.default_value)
        )
        found[argument.name] = given
    return found


class Propagation:
    """Interprets the graph node by node. A class because the labels, the results so far and the place go everywhere together."""

    def __init__(self, captured: Captured) -> None:
        self.captured, self.labels = captured, Labels()
        self.results: dict[fx.Node, Any] = {}
        self.state: dict[str, Value] = {}
        shapes = iter(captured.shapes)
        with torch.no_grad():
            for node in captured.graph.graph.nodes:
                self.node = node
                self.results[node] = self._visit(node, shapes)

    def _visit(self, node: fx.Node, shapes: Any) -> Any:
        if node.op == "placeholder":
            kind = (
                node.meta["val"].dtype
                if isinstance(node.meta.get("val"), Tensor)
                else torch.float32
            )
            return Value(torch.empty(next(shapes), device="meta", dtype=kind))
        if node.op == "get_attr":
            return self._held(str(node.target))
        if node.op == "output":
            for source in node.all_input_nodes:
                for factor in self._values(self.results[source]):
                    self.block(factor, "it is an output of the model")
            return None
        return self._call(node)

    def _held(self, name: str) -> Any:
        """A parameter or buffer, one label for each index of each dimension; tied names share theirs."""
        name = self.captured.first_name.get(name, name)
        if name in self.state:
            return self.state[name]
        held: Any = self.captured.graph
        for part in name.split("."):
            held = getattr(held, part)
        if not isinstance(held, Tensor):
            return held
        longer = [d for d in range(held.dim()) if held.size(d) > 1]
        factors = tuple(
            along(self.labels.fresh(name, d, held.size(d)), d, held.shape) for d in longer
        )
        weight = isinstance(held, nn.Parameter)
        self.state[name] = Value(
            held.detach().to("meta"),
            factors,
            None if weight else held.detach(),
            "parameter" if weight else "state",
        )
        return self.state[name]

    def _call(self, node: fx.Node) -> Any:
        if node.target is operator.getitem:
            return self.results[node.args[0]][node.args[1]]  # type: ignore[index]
        inputs = self.inputs(node)
        if operation(node).startswith(("sym_", "_assert")):
            return self._size(node)
        if operation(node).startswith("new_"):
            return self._new(node)
        if not inputs:
            return self._constant(node)
        if all(value.real is not None for value in inputs) and not any(
            value.factors for value in inputs
        ):
            return self._constant(node)
        if not hasattr(
            node.target, "_schema"
        ):  # arithmetic on sizes, or an operation torch keeps to itself
            return self.give_up(inputs, None)
        arguments = {name: self._looked_up(value) for name, value in bound(node).items()}
        meta = self._shapes(node)
        handler = RULES.get(operation(node))
        return (
            handler(self, node, arguments, meta)
            if handler is not None
            else self.give_up(inputs, meta)
        )

    def _constant(self, node: fx.Node) -> Any:
        """What no labelled value reaches is computed for real."""
        function: Any = node.target
        result = function(
            *self.real(node.args),
            **self.real({k: v for k, v in node.kwargs.items() if k != "device"}),
        )
        parts = result if isinstance(result, (tuple, list)) else [result]
        values: list[Any] = [
            Value(r.to("meta"), (), r, "constant") if isinstance(r, Tensor) else r for r in parts
        ]
        return values if isinstance(result, (tuple, list)) else values[0]

    def _size(self, node: fx.Node) -> Any:
        """Sizes are whole numbers: those of the example, one example long."""
        function: Any = node.target
        return (
            function(*self.meta(node.args), **self.meta(node.kwargs))
            if operation(node).startswith("sym_")
            else None
        )

    def _new(self, node: fx.Node) -> Value:
        """new_zeros and the like: constants of the sizes asked for."""
        function: Any = node.target
        like = torch.empty(0, dtype=self.inputs(node)[0].meta.dtype)
        result = function(
            like,
            *self.meta(node.args[1:]),
            **{k: v for k, v in self.meta(node.kwargs).items() if k != "device"},
        )
        return Value(result.to("meta"), (), result, "constant")

    def _shapes(self, node: fx.Node) -> Any:
        """The result on the meta device: shapes at batch 1."""
        function: Any = node.target
        if operation(node) in (
            "view",
            "_unsafe_view",
        ):  # a view of what is strided otherwise for real
            return self.meta(node.args[0]).reshape(self.meta(node.args[1]))
        return function(
            *self.meta(node.args),
            **{k: v for k, v in self.meta(node.kwargs).items() if k != "device"},
        )

    # ---------------------------------------------------------------- arguments

    def inputs(self, node: fx.Node) -> list[Value]:
        """The values a node reads, sizes left out."""
        found: list[Value] = []
        for source in node.all_input_nodes:
            result = self.results[source]
            found += [
                v
                for v in (result if isinstance(result, list) else [result])
                if isinstance(v, Value)
            ]
        return found

    def _looked_up(self, argument: Any) -> Any:
        return fx.node.map_arg(argument, lambda n: self.results[n])

    def meta(self, argument: Any) -> Any:
        return fx.node.map_arg(
            argument, lambda n: r.meta if isinstance(r := self.results[n], Value) else r
        )

    def real(self, argument: Any) -> Any:
        return fx.node.map_arg(
            argument, lambda n: r.real if isinstance(r := self.results[n], Value) else r
        )

    def _values(self, result: Any) -> list[Factor]:
        values = result if isinstance(result, list) else [result]
        return [f for v in values if isinstance(v, Value) for f in v.factors]

    # ---------------------------------------------------------------- what may not go

    def reason(self, why: str) -> Reason:
        shapes = tuple(v.shape for v in self.inputs(self.node) if v.kind == "activation")
        name = "output" if self.node.op == "output" else operation(self.node)
        return Reason(name, why, place(self.node), shapes)

    def block(self, factor: Factor, why: str) -> None:
        self.labels.block(factor, self.reason(why))

    def give_up(self, inputs: Sequence[Value], meta: Any) -> Any:
        """Nothing that reaches this operation may go; what leaves it has no labels."""
        for value in inputs:
            for factor in value.factors:
                self.block(factor, f"no rule says what {operation(self.node)} does to channels")
        bare = [
            Value(m) if isinstance(m, Tensor) else m
            for m in (meta if isinstance(meta, (tuple, list)) else [meta])
        ]
        return bare if isinstance(meta, (tuple, list)) else bare[0]
