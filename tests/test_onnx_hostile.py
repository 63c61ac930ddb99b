"""ONNX in: files that lie, loop, hide or explode are refused in words, whatever their bytes."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from pruning.errors import FileRefused
from pruning.formats import accept, guard, inspect
from pruning.formats.onnx import convert
from pruning.formats.onnx.facts import COMPUTED
from pruning.formats.onnx.module import module
from pruning.formats.onnx.naming import Names
from pruning.formats.onnx.net import OPERATORS

node = helper.make_node


def sound() -> ModelProto:
    """A small network that is read: every hostile file is this one with a change."""
    numbers = np.random.default_rng(0)
    kernel = numbers.standard_normal((4, 1, 3, 3)).astype(np.float32)
    matrix = numbers.standard_normal((4, 3)).astype(np.float32)
    weights = [
        numpy_helper.from_array(kernel, "stem.weight"),
        numpy_helper.from_array(np.zeros(4, np.float32), "stem.bias"),
        numpy_helper.from_array(matrix, "head.weight"),
        numpy_helper.from_array(np.array([0, -1]), "target"),
    ]
    nodes = [
        node("Conv", ["x", "stem.weight", "stem.bias"], ["a"], name="/stem/Conv", pads=[1] * 4),
        node("Relu", ["a"], ["b"], name="relu"),
        node("GlobalAveragePool", ["b"], ["c"], name="pool"),
        node("Reshape", ["c", "target"], ["d"], name="reshape"),
        node("MatMul", ["d", "head.weight"], ["y"], name="/head/MatMul"),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 8, 8])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])
    graph = helper.make_graph(nodes, "g", [x], [y], weights)
    opset = [helper.make_opsetid("", 18)]
    return helper.make_model(graph, opset_imports=opset, ir_version=9)


def read(content: bytes) -> None:
    """As the reading process does, and then the module of it. Nothing but FileRefused leaves."""
    with guard.guarded("net.onnx"):
        program = convert.program(io.BytesIO(content))
    arrays = {**program.parameters, **program.buffers}
    module(
        program.to_json(), {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    )


def test_the_sound_one_is_read() -> None:
    read(sound().SerializeToString())


Change = Callable[[ModelProto], None]


def external(model: ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def external_in_a_node(model: ModelProto) -> None:
    tensor = numpy_helper.from_array(np.zeros(1, np.float32), "t")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../secret")
    model.graph.node.insert(0, node("Constant", [], ["k"], value=tensor))
    model.graph.node[2].input[0] = "k"


def cycle(model: ModelProto) -> None:
    model.graph.node[1].input[0] = "d"


def itself(model: ModelProto) -> None:
    model.graph.node[1].input[0] = "b"


def twice(model: ModelProto) -> None:
    model.graph.node[1].output[0] = "a"


def lying_shape(model: ModelProto) -> None:
    model.graph.initializer[0].dims[0] = 1 << 20


def negative(model: ModelProto) -> None:
    model.graph.initializer[1].dims[0] = -4


def overflow(model: ModelProto) -> None:
    model.graph.initializer[1].dims[:] = [1 << 33, 1 << 33]


def constant_bomb(model: ModelProto) -> None:
    size = numpy_helper.from_array(np.array([1 << 20, 1 << 20, 1 << 10]), "size")
    model.graph.initializer.append(size)
    model.graph.node.insert(0, node("ConstantOfShape", ["size"], ["huge"], name="bomb"))
    model.graph.node[2].input[0] = "huge"


def many_constants(model: ModelProto) -> None:
    """Each is allowed, and all together are not."""
    size = numpy_helper.from_array(np.array([1 << 26]), "size")
    model.graph.initializer.append(size)
    last = "a"
    for i in range(40):
        model.graph.node.append(node("ConstantOfShape", ["size"], [f"k{i}"], name=f"k{i}"))
        model.graph.node.append(node("ReduceMax", [f"k{i}"], [f"m{i}"], keepdims=0))
        model.graph.node.append(node("Add", [last, f"m{i}"], [f"s{i}"]))
        last = f"s{i}"
    model.graph.node[1].input[0] = last


def expand_bomb(model: ModelProto) -> None:
    size = numpy_helper.from_array(np.array([1, 4, 1 << 20, 1 << 20]), "size")
    model.graph.initializer.append(size)
    model.graph.node.append(node("Expand", ["c", "size"], ["huge"], name="bomb"))
    model.graph.node[3].input[0] = "huge"


def range_bomb(model: ModelProto) -> None:
    for name, value in (("from", 0), ("to", 1 << 40), ("by", 1)):
        model.graph.initializer.append(numpy_helper.from_array(np.array(value), name))
    model.graph.node.append(node("Range", ["from", "to", "by"], ["r"], name="bomb"))
    model.graph.node.append(node("Cast", ["r"], ["rf"], to=TensorProto.FLOAT))
    model.graph.node.append(node("ReduceMax", ["rf"], ["rm"], keepdims=0))
    model.graph.node.append(node("Add", ["a", "rm"], ["sum"]))
    model.graph.node[1].input[0] = "sum"


def huge_input(model: ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 1 << 40


def unknown_operator(model: ModelProto) -> None:
    model.graph.node[1].op_type = "Detonate"


def foreign_operator(model: ModelProto) -> None:
    model.graph.node[1].domain = "com.evil"
    model.opset_import.append(helper.make_opsetid("com.evil", 1))


def branch(model: ModelProto) -> None:
    inside = helper.make_graph([], "g", [], [])
    condition = numpy_helper.from_array(np.array(True), "yes")
    model.graph.initializer.append(condition)
    made = node("If", ["yes"], ["b"], then_branch=inside, else_branch=inside, name="branch")
    model.graph.node[1].CopyFrom(made)


def recursion(model: ModelProto) -> None:
    opset = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    again = node("Again", ["x"], ["y"], domain="own")
    model.functions.append(helper.make_function("own", "Again", ["x"], ["y"], [again], opset))
    model.graph.node[1].CopyFrom(node("Again", ["a"], ["b"], domain="own"))
    model.opset_import.append(opset[1])


def infinite(model: ModelProto) -> None:
    array = np.array([1, np.inf, 0, 0], np.float32)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(array, "stem.bias"))


def text(model: ModelProto) -> None:
    array = np.array(["a"] * 4, object)
    model.graph.initializer[1].CopyFrom(numpy_helper.from_array(array, "stem.bias"))


def no_weights(model: ModelProto) -> None:
    del model.graph.node[:]
    model.graph.node.append(node("Relu", ["x"], ["y"]))


def nothing_in(model: ModelProto) -> None:
    del model.graph.input[:]


def old(model: ModelProto) -> None:
    model.opset_import[0].version = 5


def newer(model: ModelProto) -> None:
    model.opset_import[0].version = 99


def rank(model: ModelProto) -> None:
    model.graph.initializer[1].dims[:] = [1] * 100 + [4]


def quantised(model: ModelProto) -> None:
    made = node("DynamicQuantizeLinear", ["a"], ["b", "scale", "zero"], name="quantise")
    model.graph.node[1].CopyFrom(made)


def sparse(model: ModelProto) -> None:
    model.graph.sparse_initializer.add()


def wide_attribute(model: ModelProto) -> None:
    model.graph.node[0].attribute[0].ints[:] = [1 << 40] * 4


def groups(model: ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("group", 0))


def unfed(model: ModelProto) -> None:
    model.graph.node[1].input[0] = "nowhere"


HOSTILE: dict[Change, str] = {
    external: "keeps the weights of stem.weight in another file",
    external_in_a_node: "in another file",
    cycle: "has a cycle through",
    itself: "has a cycle through Relu (node relu)",
    twice: "makes a twice",
    lying_shape: "describes stem.weight falsely",
    negative: "a shape that is not a list of sizes",
    overflow: "describes stem.bias falsely",
    constant_bomb: "ConstantOfShape (node bomb)",
    many_constants: "too many numbers from constants",
    expand_bomb: "Expand (node bomb): that is larger",
    range_bomb: "Range (node bomb)",
    huge_input: "larger than any network",
    unknown_operator: "Detonate (node relu)",
    foreign_operator: "Relu (node relu) of com.evil, which is not part of ONNX",
    branch: "has a graph inside If (node branch)",
    recursion: "functions that use each other",
    infinite: "NaN or infinite weights in stem.bias",
    text: "has stem.bias in a number format that is not read",
    no_weights: "holds no weights",
    nothing_in: "has 0 inputs and 1 outputs",
    old: "operator set 5",
    newer: "operator set 99",
    rank: "101 dimensions",
    quantised: "quantised network",
    sparse: "sparse weights",
    wide_attribute: "Conv (node ?stem?Conv)",
    groups: "do not fit its input",
    unfed: "reads nowhere for Relu (node relu), and nothing makes it",
}


@pytest.mark.parametrize("change", HOSTILE, ids=lambda change: change.__name__)
def test_a_hostile_file_is_refused_with_what_it_does(change: Change) -> None:
    model = sound()
    change(model)
    with pytest.raises(FileRefused) as refused:
        read(model.SerializeToString())
    assert HOSTILE[change] in str(refused.value)
    assert str(refused.value).count(". ") < 2


def test_hostile_files_pass_no_further_than_the_reading_process(tmp_path: Path) -> None:
    """The memory of a claim is not the server's: it is refused there, or the process ends."""
    model = sound()
    constant_bomb(model)
    file = tmp_path / "bomb.onnx"
    file.write_bytes(model.SerializeToString())
    with pytest.raises(FileRefused, match=r"^bomb\.onnx "):
        accept(file, "digits-mlp", tmp_path)
    reading = inspect(file)
    assert reading.format == "ONNX" and reading.refusal
    assert not list((tmp_path / "uploads").glob("*/model.safetensors"))


def mutated(content: bytes, generator: random.Random) -> bytes:
    """The same with a few bytes changed, cut, doubled or put elsewhere."""
    data = bytearray(content)
    for _ in range(generator.randint(1, 4)):
        if not data:
            break
        at, size = generator.randrange(len(data)), generator.randint(1, 16)
        kind = generator.randrange(5)
        if kind == 0:
            data[at] = generator.randrange(256)
        elif kind == 1:
            data[at] ^= 1 << generator.randrange(8)
        elif kind == 2:
            del data[at : at + size]
        elif kind == 3:
            data[at:at] = data[at : at + size]
        else:
            data[at : at + size] = generator.randbytes(size)
    return bytes(data)


def renamed(model: ModelProto, generator: random.Random) -> bytes:
    """A sound file whose graph says something else: other operators, edges, sizes, options."""
    names = [each for one in model.graph.node for each in (*one.input, *one.output)]
    one = generator.choice(list(model.graph.node))
    kind = generator.randrange(6)
    if kind == 0:
        one.op_type = generator.choice(sorted({*OPERATORS, *COMPUTED, "If"}))
    elif kind == 1 and one.input:
        one.input[generator.randrange(len(one.input))] = generator.choice(names)
    elif kind == 2 and one.attribute:
        each = generator.choice(list(one.attribute))
        number = generator.choice([-(1 << 62), -1, 0, 1, 2, 3, 7, 1 << 20, 1 << 62])
        each.i, each.ints[:] = number, [number] * max(len(each.ints), 1)
    elif kind == 3:
        tensor = generator.choice(list(model.graph.initializer))
        tensor.dims[:] = generator.sample([0, 1, 2, 3, 4, 9, 12, 1 << 40], 2)
    elif kind == 4:
        tensor = generator.choice(list(model.graph.initializer))
        array = numpy_helper.to_array(tensor)
        shape = generator.choice([(), (1,), array.shape[::-1], (-1, 1), (1, -1)])
        if not shape or shape == (1,):
            array = array.reshape(-1)[:1]
        tensor.CopyFrom(numpy_helper.from_array(array.reshape(shape).copy(), tensor.name))
    else:
        dims = model.graph.input[0].type.tensor_type.shape.dim
        generator.choice(list(dims)).dim_value = generator.choice([0, -1, 1, 3, 5, 1 << 50])
    content: bytes = model.SerializeToString()
    return content


def refused_or_read(content: bytes) -> bool:
    """Whether it was read; whatever else than FileRefused leaves fails the test."""
    try:
        read(content)
    except FileRefused as refused:
        assert str(refused)
        return False
    return True


@pytest.mark.parametrize("seed", range(2))
def test_mutations_are_read_or_refused(seed: int) -> None:
    generator = random.Random(seed)
    content = sound().SerializeToString()
    outcomes = [refused_or_read(mutated(content, generator)) for _ in range(100)]
    outcomes += [refused_or_read(renamed(sound(), generator)) for _ in range(100)]
    # Both happen, or the mutations try nothing.
    assert {True, False} == set(outcomes)


def test_a_name_inside_of_a_weight_gets_one_beside_it() -> None:
    names = Names()
    assert [names.free(name) for name in ("head", "head.weight", "head.weight", "head")] == [
        "head",
        "head_weight",
        "head_weight_2",
        "head_2",
    ]


def test_the_sound_file_is_one_by_its_makers_own_check() -> None:
    onnx.checker.check_model(sound(), full_check=True)
