"""An ONNX file -> a program: every node in turn, each by its operator's own function."""

from __future__ import annotations

from typing import BinaryIO

from onnx import NodeProto, TensorProto

from pruning.errors import FileRefused
from pruning.formats.onnx import layers, moves, pointwise
from pruning.formats.onnx.facts import COMPUTED, facts
from pruning.formats.onnx.load import FLOATS, Graph, load, where
from pruning.formats.onnx.net import OPERATORS, RANDOM, RECURRENT, SIZES, At, Net
from pruning.formats.onnx.program import Program

READ = (layers, moves, pointwise)
"""Importing them fills OPERATORS."""

QUANTISED = ("QLinear", "Quantize", "DequantizeLinear", "ConvInteger", "MatMulInteger", "DynamicQ")


def program(file: BinaryIO) -> Program:
    """The network that the file describes. FileRefused in words for what is not read."""
    graph = load(file)
    for node in graph.nodes:
        _judge_operator(node)
    _channels_first(graph)
    net = Net(graph, *facts(graph))
    _strip_softmax(net)
    needed = _needed(net)
    for name in (name for node in needed for name in _tensors_of(net, node)):
        net.uses[name] += 1
    for node in needed:
        for name in _tensors_of(net, node):
            net.readers[name] = node
    _inputs(net)
    for node in needed:
        _convert(net, node)
    _outputs(net)
    return net.program


def _judge_operator(node: NodeProto) -> None:
    kind = node.op_type
    if kind in OPERATORS or kind in COMPUTED:
        return
    if kind.startswith(QUANTISED):
        why = "which is of a quantised network: export the model from before it was quantised."
    elif kind in RANDOM:
        why = "which makes random numbers: export the model in eval mode."
    elif kind in RECURRENT:
        why = "a recurrent layer, which is not read: bring its weights as a state_dict instead."
    else:
        why = "an operator that is not read: bring the model's state_dict instead."
    raise FileRefused(f"uses {where(node)}, {why}")


def _channels_first(graph: Graph) -> None:
    """Inputs that are turned to channels first at once are taken so: as TensorFlow's images are."""
    for place, one in enumerate(graph.inputs):
        readers = [node for node in graph.nodes if one.name in node.input]
        if not readers or len(one.shape) < 3 or one.name in graph.outputs:
            continue
        last = len(one.shape) - 1
        order = [0, last, *range(1, last)]
        if all(node.op_type == "Transpose" and _order(node) == order for node in readers):
            shape = tuple(one.shape[i] for i in order)
            graph.inputs[place] = type(one)(one.name, one.dtype, shape)
            for node in readers:
                node.op_type = "Identity"
                del node.attribute[:]
            graph.notes.append("Its images are taken channels first, as torch has them.")


def _order(node: NodeProto) -> list[int]:
    return [int(axis) for each in node.attribute if each.name == "perm" for axis in each.ints]


def _strip_softmax(net: Net) -> None:
    """A softmax at the very end is left to the loss, as torch's classifiers have it."""
    (first, *others) = net.graph.outputs
    node = net.nodes.get(first)
    if others or node is None or node.op_type != "Softmax" or len(net.first[first].shape) != 2:
        return
    logits = node.input[0]
    if net.first[logits].data is None:
        net.graph.outputs[0] = logits
        net.uses[logits] += 1
        net.graph.notes.append("The softmax at its end is taken off: the loss has its own.")


def _tensors_of(net: Net, node: NodeProto) -> list[str]:
    """What a node reads of the network itself, and not as sizes."""
    sizes = SIZES.get(node.op_type, ())
    if node.op_type == "Gather" and net.counts_up(node.input[1]):
        sizes = (1,)
    return [name for i, name in enumerate(node.input) if name and i not in sizes]


def _needed(net: Net) -> list[NodeProto]:
    """The nodes that the outputs come from, in order; what is constant needs none."""
    wanted = set(net.graph.outputs)
    needed = []
    for node in reversed(net.graph.nodes):
        made = [name for name in node.output if name in wanted]
        if not made or all(_is_known(net, name) for name in made):
            continue
        needed.append(node)
        wanted.update(_tensors_of(net, node))
    return needed[::-1]


def _is_known(net: Net, name: str) -> bool:
    """Whether a value is a constant, or a number that only the size of the batch decides."""
    if net.constant(name) is not None:
        return True
    one, two = net.first[name].data, net.second[name].data
    return one is not None and two is not None and one.size == two.size == 1


def _inputs(net: Net) -> None:
    for one in net.graph.inputs:
        fact = net.first[one.name]
        kind = "bool" if fact.dtype == TensorProto.BOOL else "int64"
        dtype = "float32" if fact.dtype in FLOATS else kind
        net.refs[one.name] = net.program.result()
        net.program.inputs.append((net.refs[one.name], list(fact.shape[1:]), dtype))


def _convert(net: Net, node: NodeProto) -> None:
    if id(node) in net.fused:
        # The layer before it has added this bias already.
        (done,) = (
            name
            for name in node.input
            if name in net.refs
            and net.uses[name] == 1
            and net.readers.get(name) is node
            and net.constant(name) is None
        )
        net.refs[node.output[0]] = net.refs[done]
        return
    if node.op_type not in OPERATORS:
        raise FileRefused(
            f"uses {where(node)} on what is put in, which is not read: "
            "bring the model's state_dict instead."
        )
    try:
        ref = OPERATORS[node.op_type](At(net, node))
    except (FileRefused, MemoryError):
        raise
    except Exception as error:
        raise FileRefused(
            f"has {where(node)}, which could not be understood ({type(error).__name__}): "
            "export the model again."
        ) from None
    net.refs.setdefault(node.output[0], ref)


def _outputs(net: Net) -> None:
    results = [net.refs.get(name) for name in net.graph.outputs]
    if not all(isinstance(ref, str) and ref.startswith("%") for ref in results):
        raise FileRefused("has an output that does not depend on its input: export it again.")
    if not net.program.parameters:
        raise FileRefused("holds no weights: export the model with them.")
    net.program.outputs = [str(ref) for ref in results]
    shape = net.first[net.graph.outputs[0]].shape
    net.program.classes = shape[1] if len(shape) == 2 else None
    layers = sum(step[0] == "layer" for step in net.program.steps)
    net.program.notes = [
        f"Converted from ONNX, operator set {net.graph.opset}: {layers:,} layers and "
        f"{len(net.program.steps) - layers:,} other steps.",
        *net.graph.notes,
    ]
