"""An ONNX file's graph and constants, judged: nothing in it is run, and no other file is read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from typing import Any, BinaryIO

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto, helper, inliner, numpy_helper

from pruning.errors import FileRefused
from pruning.formats.names import judge_shape
from pruning.formats.types import shown

Array = NDArray[Any]

OLDEST, NEWEST = 7, 26
"""Operator sets: what came before 7 broadcast by other rules."""

NODES = 20_000
INPUTS, OUTPUTS = 8, 16

EXPORT_AGAIN = "export the model again, e.g. with torch.onnx.export"

FLOATS = {TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16}
WHOLE = {
    TensorProto.INT64,
    TensorProto.INT32,
    TensorProto.INT16,
    TensorProto.INT8,
    TensorProto.UINT8,
    TensorProto.UINT16,
    TensorProto.UINT32,
    TensorProto.UINT64,
}
READ = FLOATS | WHOLE | {TensorProto.BOOL}


@dataclass(frozen=True)
class Input:
    """shape: None where the file leaves a size open."""

    name: str
    dtype: int
    shape: tuple[int | None, ...]


@dataclass
class Graph:
    """nodes: in an order in which each comes after what it reads; constants: name -> numbers."""

    opset: int
    nodes: list[NodeProto]
    constants: dict[str, Array]
    inputs: list[Input]
    outputs: list[str]
    notes: list[str] = field(default_factory=list)


def where(node: NodeProto) -> str:
    """A node as a message names it."""
    return f"{shown(node.op_type, 40)} (node {shown(node.name or node.output[0])})"


def load(file: BinaryIO) -> Graph:
    """The graph of the file. FileRefused for what cannot be read, or claims what is not there."""
    file.seek(0)
    try:
        model = onnx.ModelProto.FromString(file.read())
    except MemoryError:
        raise
    except Exception:
        raise FileRefused(f"is no sound ONNX file: copy it again, or {EXPORT_AGAIN}.") from None
    if not model.graph.node:
        raise FileRefused(f"holds an ONNX file without a graph: {EXPORT_AGAIN}.")
    opset = _opset(model)
    if model.functions:
        model = _inlined(model)
    graph = model.graph
    if len(graph.node) > NODES:
        raise FileRefused(
            f"has {len(graph.node):,} nodes, over the {NODES:,} that are read: "
            "simplify it first, e.g. with onnxslim."
        )
    if graph.sparse_initializer:
        raise FileRefused(f"holds sparse weights, which are not read: {EXPORT_AGAIN} dense.")
    constants = {tensor.name: _numbers(tensor) for tensor in graph.initializer}
    if len(constants) < len(graph.initializer):
        raise FileRefused(f"names two weights alike: {EXPORT_AGAIN}.")
    inputs = [_input(value) for value in graph.input if value.name not in constants]
    outputs = [value.name for value in graph.output]
    if not 1 <= len(inputs) <= INPUTS or not 1 <= len(outputs) <= OUTPUTS:
        raise FileRefused(
            f"has {len(inputs)} inputs and {len(outputs)} outputs; 1 to {INPUTS} and 1 to "
            f"{OUTPUTS} are read: {EXPORT_AGAIN}."
        )
    nodes = list(graph.node)
    for node in nodes:
        _judge(node, opset)
    ready = {*constants, *(one.name for one in inputs)}
    return Graph(opset, _in_order(nodes, ready, outputs), constants, inputs, outputs)


def _opset(model: onnx.ModelProto) -> int:
    versions = [each.version for each in model.opset_import if each.domain in ("", "ai.onnx")]
    if len(versions) != 1 or not OLDEST <= versions[0] <= NEWEST:
        named = ", ".join(str(version) for version in versions[:3]) or "none"
        raise FileRefused(
            f"is written in ONNX operator set {named}; {OLDEST} to {NEWEST} are read: "
            "export it again with opset_version=18."
        )
    return int(versions[0])


def _inlined(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model without functions of its own. Each use is a copy: few may stand for many."""
    most = max(len(function.node) for function in model.functions)
    if len(model.functions) > 200 or most * len(model.graph.node) > 50 * NODES:
        raise FileRefused(f"defines too many functions of its own: {EXPORT_AGAIN}.")
    own = {(function.domain, function.name) for function in model.functions}
    # One in another could double with every level: exporters do not write that.
    if any((node.domain, node.op_type) in own for f in model.functions for node in f.node):
        raise FileRefused(
            f"defines functions that use each other, which is not read: {EXPORT_AGAIN}."
        )
    return inliner.inline_local_functions(model)


def _input(value: onnx.ValueInfoProto) -> Input:
    kind = value.type.tensor_type
    if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
        raise FileRefused(f"does not say the shape of its input {shown(value.name)}: export again.")
    if kind.elem_type not in READ:
        raise FileRefused(
            f"has an input {shown(value.name)} of a type that is not read: {EXPORT_AGAIN}."
        )
    sizes = [dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim]
    judge_shape(value.name, [size or 0 for size in sizes])
    # A size of 0 or less says "any" in old exports.
    return Input(value.name, kind.elem_type, tuple(size or None for size in sizes))


def _numbers(tensor: TensorProto) -> Array:
    """A constant's numbers: floats as float32, finite; others as they are."""
    name = tensor.name
    if tensor.data_location == TensorProto.EXTERNAL or tensor.external_data:
        raise FileRefused(
            f"keeps the weights of {shown(name)} in another file, and only one file is read: save "
            "it whole, e.g. torch.onnx.export(..., external_data=False)."
        )
    if tensor.data_type not in READ or tensor.HasField("segment"):
        raise FileRefused(f"has {shown(name)} in a number format that is not read: use float32.")
    shape = judge_shape(name, list(tensor.dims))
    width = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    typed = _typed(tensor)
    there = len(tensor.raw_data) if tensor.HasField("raw_data") else typed * width
    if there != prod(shape) * width:
        raise FileRefused(
            f"describes {shown(name)} falsely: its shape takes {prod(shape) * width:,} bytes, and "
            f"there are {there:,}: {EXPORT_AGAIN}."
        )
    array = numpy_helper.to_array(tensor)
    if tensor.data_type in FLOATS:
        with np.errstate(over="ignore"):
            array = array.astype(np.float32, copy=False)
    return array


def _typed(tensor: TensorProto) -> int:
    """How many numbers lie in the field of the tensor's type, where they are not raw."""
    return len(getattr(tensor, helper.tensor_dtype_to_field(tensor.data_type)))


def _judge(node: NodeProto, opset: int) -> None:
    """An operator of ONNX itself, with its attributes as it defines them."""
    if node.domain not in ("", "ai.onnx"):
        raise FileRefused(
            f"uses {where(node)} of {shown(node.domain)}, which is not part of ONNX: export "
            "the model without fusing or custom operators."
        )
    if any(each.HasField("g") or each.graphs for each in node.attribute):
        raise FileRefused(
            f"has a graph inside {where(node)}, a branch or a loop, which is not read: "
            "export the model with fixed sizes, by torch.onnx.export(..., dynamo=True)."
        )
    if not node.output:
        raise FileRefused(f"has a node {shown(node.op_type)} without an output: {EXPORT_AGAIN}.")
    for each in node.attribute:
        if each.HasField("t"):
            _numbers(each.t)  # constants lie in nodes too, and claim as much
        if each.HasField("sparse_tensor") or each.tensors or each.sparse_tensors:
            raise FileRefused(f"has sparse numbers in {where(node)}, which are not read.")
    context = onnx.checker.C.CheckerContext()
    context.ir_version = 10
    context.opset_imports = {"": opset}
    try:
        onnx.checker.check_node(node, context)
    except Exception:
        raise FileRefused(
            f"has {where(node)}, which operator set {opset} does not have so: {EXPORT_AGAIN}."
        ) from None


def _in_order(nodes: list[NodeProto], ready: set[str], outputs: list[str]) -> list[NodeProto]:
    """The nodes that the outputs need, each after what it reads. FileRefused for cycles."""
    maker: dict[str, int] = {}
    for place, node in enumerate(nodes):
        for name in filter(None, node.output):
            if name in maker or name in ready:
                raise FileRefused(f"makes {shown(name)} twice: {EXPORT_AGAIN}.")
            maker[name] = place
    state: dict[int, bool] = {}  # a node's place -> whether all that it reads is in order
    order: list[NodeProto] = []
    # By a list of our own: a graph may be deeper than Python's stack.
    waiting = [(name, "an output") for name in reversed(outputs)]
    while waiting:
        name, reader = waiting[-1]
        if name in ready:
            waiting.pop()
            continue
        if name not in maker:
            raise FileRefused(
                f"reads {shown(name)} for {reader}, and nothing makes it: export again."
            )
        place = maker[name]
        if state.get(place):
            waiting.pop()
            continue
        node = nodes[place]
        missing = [each for each in _read_by(node) if each not in ready]
        missing = [each for each in missing if each not in maker or not state.get(maker[each])]
        if not missing:
            state[place] = True
            order.append(node)
            waiting.pop()
        elif place in state:
            raise FileRefused(f"has a cycle through {where(node)}: {EXPORT_AGAIN}.")
        else:
            state[place] = False
            waiting += [(each, where(node)) for each in missing]
    return order


def _read_by(node: NodeProto) -> Iterator[str]:
    yield from filter(None, node.input)
