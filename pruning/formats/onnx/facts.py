"""Every value's shape, and its numbers where no input is needed for them.

Twice, for two sizes of the batch: shapes that come out alike do not depend on it, others grow with
it in a straight line, and all arithmetic on shapes is done for good. Nothing of the network itself
is computed, so that a claim of any size costs nothing: it is judged by its shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import onnx
from onnx import NodeProto, TensorProto, TypeProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from pruning.errors import FileRefused
from pruning.formats.onnx.load import FLOATS, Array, Graph, Input, where
from pruning.formats.types import Shape, shape_text, shown

BATCHES = (31, 37)
"""Two sizes that no layer has by habit, and few have a multiple of."""

LARGEST = BATCHES[1] << 26
"""Numbers of one value for a batch of BATCHES: a layer of a larger network would not fit anyway."""

CONSTANTS = 1 << 27
"""Numbers of everything that is computed from constants."""

KNOWN = 4096
"""Numbers up to which a constant's values may decide a shape."""

SIDE = 224
"""Height and width of images where the file leaves them open."""

_COMPUTED = """
    Abs Add And BitShift Cast CastLike Ceil Clip Concat Constant ConstantOfShape CumSum Cos Div
    Equal Erf Exp Expand EyeLike Flatten Floor Gather GatherElements GatherND Gemm Greater
    GreaterOrEqual Identity Less LessOrEqual Log MatMul Max Mean Min Mod Mul Neg Not OneHot Or Pad
    Pow Range Reciprocal ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu Reshape
    ScatterElements ScatterND Shape Sigmoid Sign Sin Size Slice Softmax Split Sqrt Squeeze Sub Sum
    Tanh Tile Transpose Trilu Unsqueeze Where Xor
"""
COMPUTED = frozenset(_COMPUTED.split())
"""Operators whose result is computed where all they read is known. None of them is random."""


@dataclass(frozen=True)
class Fact:
    """A value at one size of the batch.

    dtype: ONNX's number of it; data: its numbers where they are known; origin: the weight that they
    were made from, which names them.
    """

    dtype: int
    shape: Shape
    data: Array | None = None
    origin: str = ""

    @property
    def numbers(self) -> int:
        return prod(self.shape)


Facts = dict[str, Fact]


def facts(graph: Graph) -> tuple[Facts, Facts]:
    """Of every value of the graph, at each of BATCHES. FileRefused with the node that has none."""
    graph.inputs[:] = [_settled(one, graph) for one in graph.inputs]
    first = _at(graph, BATCHES[0], {})
    return first, _at(graph, BATCHES[1], first)


def _settled(one: Input, graph: Graph) -> Input:
    """The input with every size but the batch's decided."""
    _, *rest = one.shape or (None,)
    if not one.shape:
        raise FileRefused(
            f"has an input {shown(one.name)} of one number: give it a batch dimension, and export "
            "again."
        )
    if None not in rest:
        return one
    # Images, channels first or last: the two open sizes are height and width.
    if len(rest) != 3 or sum(size is None for size in rest) > 2:
        raise FileRefused(
            f"leaves sizes of its input {shown(one.name)} open: export it with fixed sizes "
            "and an open batch."
        )
    shape = (one.shape[0], *(size or SIDE for size in rest))
    graph.notes.append(
        f"The file leaves the size of its images open: {SIDE}×{SIDE} pixels were taken."
    )
    return replace(one, shape=shape)


def _at(graph: Graph, batch: int, earlier: Facts) -> Facts:
    known = {
        name: Fact(_dtype(array), array.shape, array, name)
        for name, array in graph.constants.items()
    }
    for one in graph.inputs:
        known[one.name] = Fact(_plain(one.dtype), (batch, *(size or 0 for size in one.shape[1:])))
    work = _Work(graph.opset, known, earlier, batch, graph.inputs[0].shape[0] or 1)
    for node in graph.nodes:
        work.add(node)
    return known


def _dtype(array: Array) -> int:
    return int(helper.np_dtype_to_tensor_dtype(array.dtype))


def _plain(dtype: int) -> int:
    """Floats of any width are float32 here."""
    return int(TensorProto.FLOAT) if dtype in FLOATS else dtype


class _Work:
    """The walk over one graph at one batch. A class because every step needs all of this."""

    def __init__(self, opset: int, known: Facts, earlier: Facts, batch: int, declared: int) -> None:
        self.opset = opset
        self.known = known
        self.earlier = earlier
        self.batch = batch
        self.declared = declared
        self.budget = CONSTANTS

    def add(self, node: NodeProto) -> None:
        """What is known of a node's outputs."""
        node = _of_float32(node)
        reads = [self.known[name] if name else None for name in node.input]
        made = self.special(node, reads) or self.inferred(node, reads)
        for fact in made.values():
            if fact.numbers > LARGEST:
                raise FileRefused(
                    f"makes {shape_text(fact.shape)} numbers in {where(node)}: that is larger than "
                    "any network that is read here."
                )
        computed = node.op_type in COMPUTED and all(
            fact is None or fact.data is not None for fact in reads
        )
        if computed and any(fact.data is None for fact in made.values()):
            made = self.before(node, reads) or self.computed(node, reads, made)
        self.known.update(made)

    def before(self, node: NodeProto, reads: list[Fact | None]) -> Facts:
        """What another batch has computed of the same numbers: large weights lie here once."""
        names = [*filter(None, node.output)]
        pairs = zip(node.input, reads, strict=True)
        same = all(
            name in self.earlier and self.earlier[name].data is fact.data
            for name, fact in pairs
            if fact is not None
        )
        known = same and all(name in self.earlier for name in names)
        return {name: self.earlier[name] for name in names} if known else {}

    def special(self, node: NodeProto, reads: list[Fact | None]) -> Facts:
        """Operators that ask for shapes alone, or that exporters fix to one batch."""
        first = reads[0] if reads else None
        kind, out = node.op_type, node.output[0]
        if kind in ("Shape", "Size") and first is not None:
            options = attributes(node)
            shape = first.shape[options.get("start", 0) : options.get("end", len(first.shape))]
            data = np.array(shape if kind == "Shape" else first.numbers, np.int64)
            return {out: Fact(TensorProto.INT64, data.shape, data)}
        if kind == "Identity" and first is not None:
            return {out: first}
        if kind == "Dropout" and first is not None:
            masks = {name: Fact(TensorProto.BOOL, first.shape) for name in node.output[1:] if name}
            return {out: first} | masks
        if kind == "Reshape" and first is not None and len(reads) > 1 and reads[1] is not None:
            return {out: self.reshaped(node, first, reads[1])}
        if kind == "GroupNormalization" and first is not None:  # ONNX has no rule for it
            return {out: first}
        if kind == "Resize" and first is not None and len(reads) > 3 and reads[3] is not None:
            return self.resized(node, first, reads[3])
        if kind == "Concat" and first is not None:
            axis = attributes(node)["axis"]
            reads[:] = freed(reads, axis)
        return {}

    def reshaped(self, node: NodeProto, x: Fact, to: Fact) -> Fact:
        if to.data is None:
            raise FileRefused(f"reshapes to a size that depends on its numbers in {where(node)}.")
        target = [int(size) for size in to.data.reshape(-1)]
        if len(target) > 8 or any(size < -1 for size in target) or target.count(-1) > 1:
            raise FileRefused(f"has a shape that is none in {where(node)}.")
        if not attributes(node).get("allowzero", 0):
            pairs = enumerate(target)
            target = [x.shape[i] if not n and i < len(x.shape) else n for i, n in pairs]
        if -1 not in target and prod(target) != x.numbers:
            target = self.with_batch(x.shape, target)
        if -1 in target:
            rest = prod(size for size in target if size != -1)
            target[target.index(-1)] = x.numbers // rest if rest else 0
        if prod(target) != x.numbers:
            raise FileRefused(
                f"reshapes {shape_text(x.shape)} to {shape_text(tuple(target))} in {where(node)}, "
                "and that is not as many numbers."
            )
        data = x.data.reshape(target) if x.data is not None else None
        return Fact(x.dtype, tuple(target), data, x.origin)

    def with_batch(self, shape: Shape, target: list[int]) -> list[int]:
        """The target of an exporter that saw one batch alone, and wrote it down for good."""
        # The batch lies behind as many numbers as it does in what is reshaped, ...
        places = [i for i, size in enumerate(shape) if size % self.batch == 0]
        behind = {prod(shape[:i]): list(shape[i + 1 :]) for i in places}
        fitting = [i for i in range(len(target)) if prod(target[:i]) in behind]
        # In a dimension that was joined before, it may lie behind more.
        most = {prod(shape[:i]): prod(shape[: i + 1]) // self.batch for i in places}
        alone = [
            i
            for i, size in enumerate(target)
            if size == self.declared
            and any(least <= prod(target[:i]) <= most[least] for least in most)
        ]
        # ... by itself, as a part of the dimension before where all after it stays, or of the next.
        joined = [
            i - 1
            for i in fitting
            if i and (i == len(target) - 1 or target[i:] == behind[prod(target[:i])])
        ]
        for i in (*alone, *joined, *fitting):
            if target[i] % self.declared == 0:
                return [*target[:i], target[i] // self.declared * self.batch, *target[i + 1 :]]
        return target

    def resized(self, node: NodeProto, x: Fact, to: Fact) -> Facts:
        """To sizes for all dimensions, of which the batch's may be written down for good."""
        if to.data is None or to.numbers != len(x.shape) or "axes" in attributes(node):
            return {}
        shape = (x.shape[0], *(int(size) for size in to.data[1:]))
        if any(size < 1 for size in shape):
            raise FileRefused(f"has sizes that are none in {where(node)}.")
        return {node.output[0]: Fact(x.dtype, shape)}

    def inferred(self, node: NodeProto, reads: list[Fact | None]) -> Facts:
        """Shapes by ONNX's own rules."""
        pairs = [(n, f) for n, f in zip(node.input, reads, strict=True) if f is not None]
        types = {
            name: helper.make_tensor_type_proto(fact.dtype, fact.shape) for name, fact in pairs
        }
        data = {
            name: numpy_helper.from_array(np.asarray(fact.data), name)
            for name, fact in pairs
            if fact.data is not None and fact.numbers <= KNOWN
        }
        try:
            schema = onnx.defs.get_schema(node.op_type, self.opset, "")
            made: dict[str, TypeProto] = onnx.shape_inference.infer_node_outputs(
                schema, node, types, data, opset_imports=[helper.make_opsetid("", self.opset)]
            )
        except Exception:
            raise FileRefused(
                f"has sizes that do not fit each other in {where(node)}, which reads "
                f"{' and '.join(shape_text(fact.shape) for _, fact in pairs) or 'nothing'}."
            ) from None
        return {name: self.fact(node, made.get(name)) for name in node.output if name}

    def fact(self, node: NodeProto, made: TypeProto | None) -> Fact:
        kind = made.tensor_type if made is not None else None
        whole = kind is not None and kind.HasField("shape")
        if kind is None or not whole or not all(d.HasField("dim_value") for d in kind.shape.dim):
            raise FileRefused(
                f"makes a size in {where(node)} that depends on its numbers, or an operator that "
                "is not read: export the model with fixed sizes and without it."
            )
        shape = tuple(int(dim.dim_value) for dim in kind.shape.dim)
        if len(shape) > 8 or any(size < 0 for size in shape):
            raise FileRefused(f"has sizes that are none in {where(node)}.")
        return Fact(_plain(kind.elem_type), shape)

    def computed(self, node: NodeProto, reads: list[Fact | None], made: Facts) -> Facts:
        """The numbers of a node's outputs."""
        self.budget -= sum(fact.numbers for fact in made.values())
        if self.budget < 0:
            raise FileRefused(f"computes too many numbers from constants, last in {where(node)}.")
        if node.op_type in ("MatMul", "Gemm") and reads[0] is not None:
            work = reads[0].shape[-1] * sum(fact.numbers for fact in made.values())
            if work > 1 << 34:
                raise FileRefused(f"multiplies large constants in {where(node)}: fold them first.")
        pairs = zip(node.input, reads, strict=True)
        feeds = {name: fact.data for name, fact in pairs if fact is not None}
        try:
            with np.errstate(all="ignore"):
                numbers = ReferenceEvaluator(node, opsets={"": self.opset}).run(None, feeds)
        except MemoryError:
            raise
        except Exception:
            raise FileRefused(f"has constants that {where(node)} cannot be computed of.") from None
        # Of several weights it is the one that gives a name: a scale or index has none of its own.
        origins = [fact.origin for fact in reads if fact is not None and fact.origin]
        largest = max(
            (fact for fact in reads if fact is not None and fact.origin),
            key=lambda fact: fact.numbers,
            default=None,
        )
        origin = largest.origin if largest is not None and origins else ""
        outputs: Facts = {}
        for name, array in zip(filter(None, node.output), numbers, strict=False):
            array = np.asarray(array)
            if array.shape != made[name].shape:
                raise FileRefused(f"has sizes that do not fit each other in {where(node)}.")
            if array.dtype.kind == "f":
                array = array.astype(np.float32, copy=False)
            outputs[name] = Fact(_dtype(array), array.shape, array, origin)
        return outputs


def freed(reads: Sequence[Fact | None], axis: int) -> list[Fact | None]:
    """What is joined, with constants of one example repeated for the batch of the others."""
    sizes = {
        fact.shape[0] for fact in reads if fact is not None and fact.data is None and fact.shape
    }
    if axis == 0 or len(sizes) != 1:
        return list(reads)
    (batch,) = sizes
    freed: list[Fact | None] = []
    for fact in reads:
        alone = fact is not None and fact.data is not None and fact.shape[:1] == (1,)
        freed.append(
            replace(fact, shape=(batch, *fact.shape[1:]), data=None)
            if alone and fact is not None and batch in BATCHES
            else fact
        )
    return freed


def attributes(node: NodeProto) -> dict[str, Any]:
    """A node's attributes as Python values."""
    plain = {}
    for each in node.attribute:
        value = helper.get_attribute_value(each)
        if isinstance(value, bytes):
            value = value.decode("utf-8", "replace")
        elif each.type in (each.INTS, each.FLOATS):
            value = list(value)
        plain[each.name] = value
    return plain


def _of_float32(node: NodeProto) -> NodeProto:
    """The node with casts to other floats as casts to float32, and constants likewise."""
    if node.op_type == "Cast" and attributes(node)["to"] in FLOATS:
        node = NodeProto.FromString(node.SerializeToString())
        for each in node.attribute:
            if each.name == "to":
                each.i = TensorProto.FLOAT
    return node
