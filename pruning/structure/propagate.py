"""Propagation of labels through a captured graph, operation by operation, instead of numbers.

Each operation has a rule (see `rules`) that joins the labels of what it combines, blocks those
that cannot be removed, and says which factors describe its result.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx import Node

from pruning.errors import NotCaptured
from pruning.structure.captured import Captured
from pruning.structure.labels import Factor, Labels, Reason, along, varies


@dataclass(eq=False)
class Value:
    """What is known of one result.

    meta: on the meta device, its shape and dtype at batch 1; factors: the labels it needs;
    real: its numbers, where neither inputs nor parameters shape them;
    kind: "activation", "parameter", "state" (a buffer) or "constant".
    """

    meta: Tensor
    factors: tuple[Factor, ...] = ()
    real: Tensor | None = None
    kind: str = "activation"

    def __post_init__(self) -> None:
        self.factors = tuple(factor for factor in self.factors if varies(factor))

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.meta.shape)

    @property
    def all_zero(self) -> bool:
        """Whether it is a constant of zeros, such as the state that a recurrence starts from."""
        return self.kind == "constant" and self.real is not None and not self.real.any()

    def moved(self, move: Callable[[Tensor], Tensor]) -> Value:
        """The same value, its elements elsewhere."""
        factors = tuple(map(move, self.factors))
        return Value(move(self.meta), factors, None, self.kind)


Args = dict[str, Any]
"""A call's arguments by their names, nodes replaced by their values."""

Rule = Callable[["Propagation", Node, Args, Any], Any]
"""(propagation, node, its arguments by name, its result on the meta device) -> Value, or a list."""

RULES: dict[str, Rule] = {}


def rule(*operations: str) -> Callable[[Rule], Rule]:
    """Register how labels pass through these ATen operations."""

    def add(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(operations, function))
        return function

    return add


def names(text: str) -> tuple[str, ...]:
    """Operations in a few lines of text: as a tuple, each would take a line of its own."""
    return tuple(text.split())


def operation(node: Node) -> str:
    """ "conv2d" for torch.ops.aten.conv2d.default."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return getattr(node.target, "__name__", str(node.target))
    name: str = schema.name.split("::")[1]
    return name


def module_path(node: Node) -> str:
    """The path of the module a node comes from; "" for the model itself."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    if not stack:
        return ""
    path = str(stack[-1][0]).split("@")[0]  # "relu@1" is the second call of relu
    return "" if path.startswith("_empty") else path


def arguments(node: Node) -> dict[str, Any]:
    """A call's arguments by the names of its schema, defaults filled in."""
    values = {}
    for i, argument in enumerate(node.target._schema.arguments):  # type: ignore[union-attr]
        if i < len(node.args) and not argument.kwarg_only:
            values[argument.name] = node.args[i]
        else:
            values[argument.name] = node.kwargs.get(argument.name, argument.default_value)
    return values


def each(result: Any, function: Callable[[Any], Any]) -> Any:
    """The function of a result, or of each, as a list, where an operation has several."""
    if isinstance(result, (tuple, list)):
        return [function(part) for part in result]
    return function(result)


def values_of(result: Any) -> list[Value]:
    """The values among an operation's results; sizes and absent results are none."""
    results = result if isinstance(result, list) else [result]
    return [value for value in results if isinstance(value, Value)]


class Propagation:
    """Interprets a graph node by node. A class because rules share its labels and results."""

    def __init__(self, captured: Captured) -> None:
        self.captured = captured
        self.labels = Labels()
        self.results: dict[Node, Any] = {}  # a Value, a list, or a plain number
        self.state: dict[str, Value] = {}  # parameters and buffers by their first name
        # Labels of zeros that are concatenated: (the concatenation, which part) -> (size,).
        self.zero_parts: dict[tuple[Node, int], Tensor] = {}
        # Set by `Zeros`: whether the elements of a node's value that would be removed are zero.
        self.zero: dict[Node, bool] = {}
        shapes = iter(captured.sizes.recorded)
        with torch.no_grad():
            for node in captured.graph.graph.nodes:
                self.node = node  # the one that blocks, if something is blocked
                try:
                    self.results[node] = self._visit(node, shapes)
                except Exception as error:  # an operation in a form that its rule does not know
                    what, line = "The recorded graph", f"the operation {operation(node)}"
                    reason = str(error).strip().partition("\n")[0][:200]
                    raise NotCaptured(what, line, reason or type(error).__name__) from error

    def _visit(self, node: Node, shapes: Iterator[tuple[int, ...]]) -> Any:
        if node.op == "placeholder":
            recorded = node.meta.get("val")
            dtype = recorded.dtype if isinstance(recorded, Tensor) else torch.float32
            return Value(torch.empty(next(shapes), device="meta", dtype=dtype))
        if node.op == "get_attr":
            return self._attribute(str(node.target))
        if node.op == "output":
            self.block_all(self.inputs(node), "it is an output of the model")
            return None
        return self._call(node)

    def _attribute(self, name: str) -> Any:
        """A parameter or buffer, one label for each index of each dimension.

        Tied names share one value, and with it their labels.
        """
        name = self.captured.first_name.get(name, name)
        if name in self.state:
            return self.state[name]
        tensor = operator.attrgetter(name)(self.captured.graph)
        if not isinstance(tensor, Tensor):
            return tensor
        is_weight = isinstance(tensor, nn.Parameter)
        factors = tuple(
            along(self.labels.fresh(name, dim, size), dim, tensor.shape)
            for dim, size in enumerate(tensor.shape)
            if size > 1
        )
        tensor = tensor.detach()
        value = Value(tensor.to("meta"), factors, None, "parameter")
        if not is_weight:
            # A buffer may be a table of indices, which rules follow by its numbers.
            value.real = tensor
            value.kind = "state"
        self.state[name] = value
        return value

    def _call(self, node: Node) -> Any:
        if node.target is operator.getitem:
            return self.results[node.args[0]][node.args[1]]  # type: ignore[index]
        name = operation(node)
        inputs = self.inputs(node)
        if name.startswith("sym_"):
            return self._size(node)
        if name.startswith("_assert"):
            return None
        if name.startswith("new_"):
            return self._new(node)
        # What no label reaches is computed for real: tables of positions, masks of windows.
        if all(value.real is not None and not value.factors for value in inputs):
            return self._constant(node)
        if not hasattr(node.target, "_schema"):
            # Arithmetic on sizes, or an operation that torch keeps to itself.
            return self.give_up(inputs, None)
        looked_up = fx.node.map_arg(arguments(node), self.results.__getitem__)
        meta = self._shapes(node)
        if name not in RULES:
            return self.give_up(inputs, meta)
        return RULES[name](self, node, looked_up, meta)

    def _constant(self, node: Node) -> Any:
        function: Any = node.target
        options = self.real(_without_device(node))
        result = function(*self.real(node.args), **options)

        def constant(part: Any) -> Any:
            if isinstance(part, Tensor):
                return Value(part.to("meta"), (), part, "constant")
            return part

        return each(result, constant)

    def _size(self, node: Node) -> Any:
        """Sizes are whole numbers: those of the example, one example long."""
        function: Any = node.target
        return function(*self.meta(node.args), **self.meta(node.kwargs))

    def _new(self, node: Node) -> Value:
        """new_zeros and the like: constants of the sizes asked for."""
        function: Any = node.target
        source = self.inputs(node)[0]
        like = torch.empty(0, dtype=source.meta.dtype)
        rest = self.meta(node.args[1:])
        options = self.meta(_without_device(node))
        result = function(like, *rest, **options)
        return Value(result.to("meta"), (), result, "constant")

    def _shapes(self, node: Node) -> Any:
        """The result on the meta device: shapes at batch 1."""
        function: Any = node.target
        args = self.meta(node.args)
        if operation(node) in ("view", "_unsafe_view"):
            # On the meta device strides may differ from the real ones, and `view` refuse.
            return args[0].reshape(args[1])
        return function(*args, **self.meta(_without_device(node)))

    # ---------------------------------------------------------------- arguments

    def value(self, node: Node) -> Value:
        value = self.results[node]
        assert isinstance(value, Value)
        return value

    def inputs(self, node: Node) -> list[Value]:
        """The values a node reads; sizes are left out."""
        results = [self.results[source] for source in node.all_input_nodes]
        return [value for result in results for value in values_of(result)]

    def meta(self, argument: Any) -> Any:
        """An argument with nodes replaced by their results on the meta device."""
        return fx.node.map_arg(argument, lambda node: self._part(node, "meta"))

    def real(self, argument: Any) -> Any:
        """An argument with nodes replaced by their numbers."""
        return fx.node.map_arg(argument, lambda node: self._part(node, "real"))

    def _part(self, node: Node, part: str) -> Any:
        result = self.results[node]
        return getattr(result, part) if isinstance(result, Value) else result

    # ---------------------------------------------------------------- what may not be removed

    def block(self, factor: Factor, why: str) -> None:
        """Nothing of this factor may be removed, because of the operation at hand."""
        node = self.node
        read = [value for value in self.inputs(node) if value.kind == "activation"]
        name = "output" if node.op == "output" else operation(node)
        shapes = tuple(value.shape for value in read)
        self.labels.block(factor, Reason(name, why, module_path(node), shapes))

    def block_all(self, values: Iterable[Any], why: str) -> None:
        """Block every factor of these values; what is no value has none."""
        for value in values:
            if isinstance(value, Value):
                for factor in value.factors:
                    self.block(factor, why)

    def give_up(self, inputs: Iterable[Value], meta: Any) -> Any:
        """Nothing that reaches this operation may be removed; its result has no labels."""
        self.block_all(inputs, f"no rule says what {operation(self.node)} does to channels")
        return each(meta, lambda part: Value(part) if isinstance(part, Tensor) else part)


def _without_device(node: Node) -> dict[str, Any]:
    """Keyword arguments but for `device`, which names the one that was recorded on."""
    return {name: value for name, value in node.kwargs.items() if name != "device"}
