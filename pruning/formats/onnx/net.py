"""What the conversion of a node may ask and do, and the list of operators that there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from onnx import NodeProto, TensorProto

from pruning.errors import FileRefused
from pruning.formats.onnx.facts import BATCHES, Fact, Facts, attributes
from pruning.formats.onnx.load import Array, Graph, where
from pruning.formats.onnx.program import Program, Ref

Convert = Callable[["At"], Ref]
"""A node -> the reference to its first output."""

OPERATORS: dict[str, Convert] = {}

SIZES: dict[str, tuple[int, ...]] = {}
"""Operator -> inputs that say sizes alone, and are no tensors of the network."""

RANDOM = ("RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli")
RECURRENT = ("LSTM", "GRU", "RNN")


def operator(*names: str, sizes: tuple[int, ...] = ()) -> Callable[[Convert], Convert]:
    """Say which operators a function converts. sizes: inputs that are sizes alone."""

    def register(convert: Convert) -> Convert:
        for name in names:
            OPERATORS[name] = convert
            SIZES[name] = sizes
        return convert

    return register


class Net:
    """The network on its way from graph to program. A class because every operator needs it."""

    def __init__(self, graph: Graph, first: Facts, second: Facts) -> None:
        self.graph = graph
        self.first = first
        self.second = second
        self.program = Program()
        self.refs: dict[str, Ref] = {}
        self.nodes = {name: node for node in graph.nodes for name in node.output if name}
        self.uses: Counter[str] = Counter(graph.outputs)
        self.readers: dict[str, NodeProto] = {}
        """The node that reads a value, where it is the only one."""
        self.fused: set[int] = set()
        self.shared: dict[tuple[Any, ...], str] = {}
        """Layers by their weight and options: one weight used twice is one layer called twice."""

    def constant(self, name: str) -> Array | None:
        """A value that is the same whatever is put in; None for others."""
        if not name:
            return None
        one, two = self.first[name].data, self.second[name].data
        if one is None or two is None:
            return None
        same = one is two or (
            one.shape == two.shape and np.array_equal(one, two, equal_nan=one.dtype.kind == "f")
        )
        return one if same else None

    def counts_up(self, name: str) -> bool:
        """Whether a value is 0, 1, 2, ... in order, for whatever size of the batch."""
        pair = (self.first[name].data, self.second[name].data)
        return all(
            data is not None
            and data.size > 1
            and np.array_equal(data.ravel(), np.arange(data.size))
            for data in pair
        )

    def sizes(self, name: str) -> list[Any]:
        """A value's shape: numbers, and {"batch": [k, c]} where it grows with the batch."""
        one, two = self.first[name].shape, self.second[name].shape
        if len(one) != len(two):
            raise FileRefused("changes its number of dimensions with the batch: export it again.")
        return [linear(a, b) for a, b in zip(one, two, strict=True)]


class At:
    """One node of a network, as its conversion sees it."""

    def __init__(self, net: Net, node: NodeProto) -> None:
        self.net = net
        self.node = node
        self.kind = str(node.op_type)
        self.options = attributes(node)
        self.opset = net.graph.opset
        self.program = net.program

    # ---------------------------------------------------------------- what it reads and makes

    def refused(self, why: str) -> FileRefused:
        return FileRefused(f"has {where(self.node)} {why}")

    def has(self, index: int) -> bool:
        return index < len(self.node.input) and bool(self.node.input[index])

    def name(self, index: int) -> str:
        return str(self.node.input[index]) if self.has(index) else ""

    def fact(self, index: int = 0) -> Fact:
        if not self.has(index):
            raise self.refused(f"without its input {index + 1}: export the model again.")
        return self.net.first[self.name(index)]

    @property
    def shape(self) -> tuple[int, ...]:
        return self.fact(0).shape

    @property
    def rank(self) -> int:
        return len(self.shape)

    @property
    def made(self) -> Fact:
        return self.net.first[self.node.output[0]]

    @property
    def out(self) -> list[Any]:
        return self.net.sizes(self.node.output[0])

    def constant(self, index: int) -> Array | None:
        return self.net.constant(self.name(index)) if self.has(index) else None

    def weights(self, index: int, what: str = "weights") -> Array:
        """A constant that is there for a layer."""
        array = self.constant(index)
        if array is None:
            raise self.refused(f"whose {what} are computed while it runs: that is not read.")
        return array

    def numbers(self, index: int, option: str) -> list[int] | None:
        """Whole numbers that newer operator sets read as an input and older ones as an option."""
        if self.has(index):
            array = self.weights(index, "sizes")
            return [int(each) for each in array.reshape(-1)]
        value = self.options.get(option)
        if value is None:
            return None
        return [int(value)] if isinstance(value, int) else [int(each) for each in value]

    def axis(self, default: int | None = None) -> int:
        value = self.options.get("axis", default)
        if value is None or not -self.rank <= value < self.rank:
            raise self.refused(f"along axis {value} of {self.rank}: export the model again.")
        return int(value) % self.rank

    def axes(self, axes: Sequence[int], rank: int | None = None) -> list[int]:
        rank = self.rank if rank is None else rank
        if not all(-rank <= axis < rank for axis in axes):
            raise self.refused(f"along axes that {rank} dimensions do not have: export again.")
        return sorted({axis % rank for axis in axes})

    # ---------------------------------------------------------------- arguments and steps

    def ref(self, index: int) -> Ref:
        """The argument for one of its inputs."""
        name = self.name(index)
        if name in self.net.refs:
            return self.net.refs[name]
        array = self.net.constant(name)
        if array is None:
            return self.counted(name)
        self.net.refs[name] = ref = self.literal(name, array)
        return ref

    def counted(self, name: str) -> Ref:
        """A number that grows with the batch."""
        one, two = self.net.first[name].data, self.net.second[name].data
        single = one is not None and two is not None and one.size == two.size == 1
        if not single or one is None or two is None or one.dtype.kind not in "iu":
            raise self.refused("which computes with the size of the batch in a way not read.")
        return linear(int(one.reshape(-1)[0]), int(two.reshape(-1)[0]))

    def literal(self, name: str, array: Array) -> Ref:
        """A constant among tensors: a number, a weight of its own, or a table."""
        if array.size == 1 and array.ndim <= 1:
            value = array.reshape(-1)[0].item()
            if np.isfinite(value):
                return value
        origin = self.net.first[name].origin
        path = self.program.names.free(origin or "constant")
        if array.dtype.kind == "f" and origin and np.isfinite(array).all():
            return self.program.parameter(path, array)
        return self.program.buffer(path, array)

    def table(self, array: Array, name: str = "constant") -> Ref:
        return self.program.buffer(self.program.names.free(name), array)

    def call(self, function: str, *arguments: Ref, **options: Ref) -> Ref:
        return self.program.call(function, *arguments, **options)

    def layer(
        self,
        kind: str,
        x: Ref,
        options: dict[str, Any],
        arrays: dict[str, Array],
        named_by: Sequence[str] = (),
        buffers: Sequence[str] = (),
    ) -> Ref:
        """A step of a layer with weights of its own. named_by: values that may give its name."""
        origins = tuple(self.net.first[name].origin for name in named_by if name)
        path = self.program.names.of_layer(self.node, kind.lower().rstrip("123d"), origins)
        for name, array in arrays.items():
            keep = self.program.buffer if name in buffers else self.program.parameter
            keep(f"{path}.{name}", array)
        return self.program.layer(path, kind, x, options)

    def reshape(self, x: Ref, sizes: Sequence[Any]) -> Ref:
        """x in another shape, of which a size that grows with the batch is left to torch."""
        x = self.program.reshaped.get(x, x)
        growing = [i for i, size in enumerate(sizes) if isinstance(size, dict)]
        sizes = list(sizes)
        if growing:
            sizes[growing[0]] = -1
        result = self.call("reshape", x, sizes)
        self.program.reshaped[result] = x
        return result

    # ---------------------------------------------------------------- fusing

    def only_reader(self, kind: str) -> NodeProto | None:
        """The node of that kind that alone reads what this one makes."""
        out = self.node.output[0]
        reader = self.net.readers.get(out)
        if self.net.uses[out] != 1 or reader is None or reader.op_type != kind:
            return None
        return reader

    def bias_after(self, channels: int, axis: int) -> Array | None:
        """The bias that an Add after this node adds along an axis; that Add is then done."""
        reader = self.only_reader("Add")
        if reader is None:
            return None
        others = [name for name in reader.input if name != self.node.output[0]]
        array = self.net.constant(others[0]) if others else None
        if array is None or array.size != channels or array.dtype.kind != "f":
            return None
        rank = len(self.made.shape)
        full = (1,) * (rank - array.ndim) + array.shape
        if len(full) != rank or full[axis % rank] != channels:
            return None
        self.net.fused.add(id(reader))
        self.bias_name = others[0]
        return array.reshape(-1)

    bias_name = ""


def linear(one: int, two: int) -> Any:
    """A size at each of BATCHES, as a number or as one that grows with the batch."""
    if one == two:
        return int(one)
    slope, rest = divmod(two - one, BATCHES[1] - BATCHES[0])
    if rest:
        raise FileRefused("has sizes that do not grow with the batch in a straight line.")
    return {"batch": [int(slope), int(one - slope * BATCHES[0])]}


def is_float(fact: Fact) -> bool:
    return fact.dtype == TensorProto.FLOAT
