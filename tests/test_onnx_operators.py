"""ONNX in, operator by operator: each by itself, held against ONNX Runtime."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import ModelProto, TensorProto, helper, numpy_helper

from pruning.errors import FileRefused
from pruning.formats.onnx import convert, facts, layers, moves, net, pointwise
from pruning.formats.onnx.module import FUNCTIONS, LAYERS, METHODS, module
from pruning.formats.onnx.naming import RESERVED
from pruning.formats.onnx.program import Program

random = np.random.default_rng(0)


def floats(*shape: int) -> Any:
    return random.standard_normal(shape).astype(np.float32)


def whole(*numbers: int) -> Any:
    return np.array(numbers, np.int64)


def graph(
    kind: str,
    shape: tuple[int, ...],
    constants: tuple[Any, ...] = (),
    opset: int = 18,
    outputs: int = 1,
    first: bool = True,
    **options: Any,
) -> ModelProto:
    """One node that reads x and constants, and a linear layer beside it: a network has weights.

    The batch is open where shape has another than 1. constants: None for an input that is left
    out; first: whether x comes first.
    """
    names = [f"c{i}" if c is not None else "" for i, c in enumerate(constants)]
    reads = ["x", *names] if first else [*names, "x"]
    made = [f"y{i}" for i in range(outputs)]
    nodes = [
        helper.make_node(kind, reads, made, name="/block/one/Node", **options),
        helper.make_node("Flatten", ["x"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "side.weight"], ["side"]),
    ]
    numbers = int(np.prod(shape[1:]))
    given = [*zip(names, constants, strict=True), ("side.weight", floats(numbers, 2))]
    tensors = [numpy_helper.from_array(c, name) for name, c in given if name]
    sizes = [1 if shape[0] == 1 else "n", *shape[1:]]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, sizes)
    results = [helper.make_empty_tensor_value_info(name) for name in [*made, "side"]]
    whole_graph = helper.make_graph(nodes, "g", [x], results, tensors)
    return helper.make_model(
        whole_graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9
    )


def converted(model: ModelProto) -> tuple[Program, torch.fx.GraphModule]:
    program = convert.program(io.BytesIO(model.SerializeToString()))
    arrays = {**program.parameters, **program.buffers}
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    return program, module(program.to_json(), tensors)


def in_runtime(model: ModelProto, x: Any) -> list[Any]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return list(session.run(None, {"x": x}))


def same(model: ModelProto, shape: tuple[int, ...], x: Any = None) -> None:
    """What the module gives is what ONNX Runtime gives, also for another batch than recorded."""
    _, made = converted(model)
    for batch in (shape[0], 3):
        x_here = floats(batch, *shape[1:]) if x is None else x
        with torch.no_grad():
            ours = made(torch.from_numpy(x_here))
        # An exporter that saw one example alone writes its batch down: then one after the other.
        parts = np.split(x_here, batch) if shape[0] == 1 else [x_here]
        answers = [in_runtime(model, part) for part in parts]
        theirs = [np.concatenate(each) for each in zip(*answers, strict=True)]
        assert len(ours) == len(theirs)
        for mine, other in zip(ours, theirs, strict=True):
            assert tuple(mine.shape) == other.shape
            np.testing.assert_allclose(mine.numpy(), other, rtol=1e-4, atol=1e-5)


IMAGE, ROW = (2, 4, 8, 6), (2, 6)
CASES: dict[str, tuple[str, tuple[int, ...], tuple[Any, ...], dict[str, Any]]] = {
    **{name: (name, IMAGE, (), {}) for name in pointwise.UNARY if name not in ("Not", "Mish")},
    "Conv": ("Conv", IMAGE, (floats(5, 4, 3, 3), floats(5)), {"pads": [1, 1, 1, 1]}),
    "Conv uneven": ("Conv", IMAGE, (floats(5, 4, 3, 3),), {"pads": [0, 1, 2, 1]}),
    "Conv SAME": (
        "Conv", IMAGE, (floats(8, 1, 3, 3),),
        {"auto_pad": "SAME_UPPER", "strides": [2, 2], "group": 4},
    ),
    "Conv SAME_LOWER": (
        "Conv", IMAGE, (floats(8, 4, 2, 2),), {"auto_pad": "SAME_LOWER"},
    ),
    "Conv 1d": ("Conv", (2, 4, 9), (floats(6, 2, 3),), {"group": 2, "dilations": [2]}),
    "ConvTranspose": (
        "ConvTranspose", IMAGE, (floats(4, 3, 3, 3), floats(3)),
        {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]},
    ),
    "ConvTranspose uneven": (
        "ConvTranspose", IMAGE, (floats(4, 3, 3, 3),), {"strides": [2, 2], "pads": [0, 0, 1, 1]},
    ),
    "ConvTranspose SAME": (
        "ConvTranspose", IMAGE, (floats(4, 3, 3, 3),),
        {"strides": [2, 2], "auto_pad": "SAME_UPPER"},
    ),
    "Gemm": ("Gemm", ROW, (floats(6, 5), floats(5)), {"alpha": 0.5, "beta": 2.0}),
    "Gemm turned": ("Gemm", ROW, (floats(5, 6), floats(1, 5)), {"transB": 1}),
    "MatMul": ("MatMul", (2, 3, 6), (floats(6, 5),), {}),
    "BatchNormalization": (
        "BatchNormalization", IMAGE, (floats(4), floats(4), floats(4), np.abs(floats(4)) + 1),
        {"epsilon": 1e-3},
    ),
    "InstanceNormalization": ("InstanceNormalization", IMAGE, (floats(4), floats(4)), {}),
    "LayerNormalization": ("LayerNormalization", (2, 3, 6), (floats(6), floats(6)), {}),
    "GroupNormalization": (
        "GroupNormalization", IMAGE, (floats(4), floats(4)), {"num_groups": 2, "opset": 21},
    ),
    "PRelu": ("PRelu", IMAGE, (floats(4, 1, 1),), {}),
    "PRelu everywhere": ("PRelu", IMAGE, (floats(4, 8, 6),), {}),
    "LRN": ("LRN", IMAGE, (), {"size": 3, "alpha": 0.01}),
    "LpNormalization": ("LpNormalization", ROW, (), {"axis": 1}),
    "MaxPool": ("MaxPool", IMAGE, (), {"kernel_shape": [3, 3], "strides": [2, 2], "ceil_mode": 1}),
    "MaxPool SAME": (
        "MaxPool", IMAGE, (), {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"},
    ),
    "AveragePool": ("AveragePool", IMAGE, (), {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}),
    "AveragePool SAME": (
        "AveragePool", IMAGE, (),
        {"kernel_shape": [2, 2], "strides": [1, 1], "auto_pad": "SAME_UPPER"},
    ),
    "AveragePool whole": (
        "AveragePool", IMAGE, (),
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    ),
    "GlobalAveragePool": ("GlobalAveragePool", IMAGE, (), {}),
    "GlobalMaxPool": ("GlobalMaxPool", IMAGE, (), {}),
    "Add": ("Add", IMAGE, (floats(4, 1, 1),), {}),
    "Sub": ("Sub", IMAGE, (np.float32(2),), {"first": False}),
    "Mul": ("Mul", IMAGE, (floats(1),), {}),
    "Div": ("Div", IMAGE, (floats(4, 8, 6) + 9,), {}),
    "Pow": ("Pow", IMAGE, (np.float32(2),), {}),
    "Min": ("Min", IMAGE, (floats(6), np.float32(0.5)), {}),
    "Max": ("Max", IMAGE, (floats(6),), {}),
    "Mean": ("Mean", IMAGE, (floats(6), floats(8, 1)), {}),
    "Sum": ("Sum", IMAGE, (floats(6),), {}),
    "Greater": ("Greater", IMAGE, (floats(6),), {}),
    "Clip": ("Clip", IMAGE, (np.float32(0), np.float32(6)), {}),
    "Clip old": ("Clip", IMAGE, (), {"min": -0.5, "opset": 10}),
    "LeakyRelu": ("LeakyRelu", IMAGE, (), {"alpha": 0.3}),
    "Elu": ("Elu", IMAGE, (), {"alpha": 0.3}),
    "Celu": ("Celu", IMAGE, (), {"alpha": 0.3}),
    "Selu": ("Selu", IMAGE, (), {}),
    "HardSigmoid": ("HardSigmoid", IMAGE, (), {}),
    "ThresholdedRelu": ("ThresholdedRelu", IMAGE, (), {"alpha": 0.3}),
    "Gelu": ("Gelu", IMAGE, (), {"opset": 20, "approximate": "tanh"}),
    "Mish": ("Mish", IMAGE, (), {}),
    "Softmax": ("Softmax", IMAGE, (), {"axis": 1}),
    "Softmax old": ("Softmax", IMAGE, (), {"axis": 1, "opset": 11}),
    "LogSoftmax": ("LogSoftmax", ROW, (), {}),
    "Reshape": ("Reshape", IMAGE, (whole(0, 2, -1),), {}),
    "Reshape one example": ("Reshape", (1, 4, 6), (whole(1, 24),), {"opset": 13}),
    "Flatten": ("Flatten", IMAGE, (), {"axis": 2}),
    "Transpose": ("Transpose", IMAGE, (), {"perm": [0, 2, 3, 1]}),
    "Squeeze": ("Squeeze", (2, 1, 6), (whole(1),), {}),
    "Squeeze old": ("Squeeze", (2, 1, 6), (), {"axes": [1], "opset": 11}),
    "Unsqueeze": ("Unsqueeze", ROW, (whole(1, -1),), {}),
    "Expand": ("Expand", (2, 1, 6), (whole(1, 4, 1),), {}),
    "Tile": ("Tile", ROW, (whole(1, 3),), {}),
    "Slice": ("Slice", IMAGE, (whole(1, -3), whole(3, 99), whole(1, 3)), {}),
    "Slice steps": ("Slice", IMAGE, (whole(0), whole(99), whole(2), whole(3)), {}),
    "Slice backwards": ("Slice", IMAGE, (whole(-1), whole(-99), whole(2), whole(-1)), {}),
    "Slice old": ("Slice", IMAGE, (), {"starts": [1], "ends": [3], "axes": [1], "opset": 9}),
    "Split": ("Split", IMAGE, (whole(1, 3),), {"axis": 1, "outputs": 2}),
    "Split old": ("Split", IMAGE, (), {"axis": 1, "outputs": 2, "split": [1, 3], "opset": 11}),
    "Gather one": ("Gather", IMAGE, (np.int64(-1),), {"axis": 1}),
    "Gather some": ("Gather", IMAGE, (np.array([[0, 2], [1, 1]]),), {"axis": 1}),
    "Concat": ("Concat", (1, 3, 6), (floats(1, 2, 6),), {"axis": 1}),
    "Pad": ("Pad", IMAGE, (whole(0, 0, 1, 2, 0, 0, 0, 1), np.float32(3)), {}),
    "Pad reflect": ("Pad", IMAGE, (whole(0, 0, 1, 2, 0, 0, 0, 1),), {"mode": "reflect"}),
    "Pad old": ("Pad", IMAGE, (), {"pads": [0, 0, 1, 2, 0, 0, 0, 1], "opset": 10}),
    "DepthToSpace": ("DepthToSpace", IMAGE, (), {"blocksize": 2}),
    "DepthToSpace CRD": ("DepthToSpace", IMAGE, (), {"blocksize": 2, "mode": "CRD"}),
    "SpaceToDepth": ("SpaceToDepth", IMAGE, (), {"blocksize": 2}),
    "Resize nearest": (
        "Resize", IMAGE, (None, np.array([1, 1, 2, 2], np.float32)),
        {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
    ),
    "Resize linear": (
        "Resize", (1, 4, 8, 6), (None, None, whole(1, 4, 12, 9)),
        {"mode": "linear", "coordinate_transformation_mode": "pytorch_half_pixel"},
    ),
    "Resize corners": (
        "Resize", IMAGE, (None, np.array([1, 1, 2, 2], np.float32)),
        {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
    ),
    "Upsample": ("Upsample", IMAGE, (np.array([1, 1, 2, 2], np.float32),), {"opset": 9}),
    "ReduceMean": ("ReduceMean", IMAGE, (whole(2, 3),), {"keepdims": 0}),
    "ReduceMean old": ("ReduceMean", IMAGE, (), {"axes": [1], "opset": 13}),
    "ReduceMax": ("ReduceMax", IMAGE, (whole(1),), {}),
    "ReduceSum": ("ReduceSum", IMAGE, (whole(1, 2),), {}),
    "ReduceProd": ("ReduceProd", IMAGE, (whole(1, 2),), {}),
    "ReduceL1": ("ReduceL1", IMAGE, (whole(1),), {}),
    "ReduceL2": ("ReduceL2", IMAGE, (whole(1),), {}),
    "ReduceLogSumExp": ("ReduceLogSumExp", IMAGE, (whole(1),), {}),
    "ArgMax": ("ArgMax", IMAGE, (), {"axis": 1}),
    "Einsum": ("Einsum", IMAGE, (floats(4, 5),), {"equation": "nchw,cd->ndhw"}),
    "Cast": ("Cast", IMAGE, (), {"to": TensorProto.INT64}),
    "Where": ("Where", IMAGE, (floats(6) > 0, floats(6)), {"first": False}),
    "Dropout": ("Dropout", IMAGE, (), {}),
    "Identity": ("Identity", IMAGE, (), {}),
}  # fmt: skip
POSITIVE = ("Log", "Sqrt", "Pow", "Reciprocal")


@pytest.mark.parametrize("case", CASES)
def test_an_operator_gives_what_onnx_runtime_gives(case: str) -> None:
    kind, shape, constants, options = CASES[case]
    model = graph(kind, shape, tuple(constants), **options)
    same(model, shape, np.abs(floats(*shape)) + 0.5 if kind in POSITIVE else None)


def test_what_the_runtime_has_no_kernel_for_is_computed_as_its_formula_says() -> None:
    _, made = converted(graph("Swish", ROW, (), opset=24, alpha=2.0))
    x = torch.randn(3, 6)
    assert torch.allclose(made(x)[0], x * torch.sigmoid(2 * x), atol=1e-6)
    _, made = converted(graph("RMSNormalization", ROW, (np.ones(6, np.float32),), opset=23))
    expected = torch.nn.functional.rms_norm(x, (6,), eps=1e-5)
    assert torch.allclose(made(x)[0], expected, atol=1e-6)


def test_every_operator_of_the_list_is_tried_here_or_has_no_numbers_of_its_own() -> None:
    tried = {kind for kind, *_ in CASES.values()} | {"Swish", "RMSNormalization"}
    alike = {"And", "Or", "Xor", "Not", "Equal", "Less", "LessOrEqual", "GreaterOrEqual"}
    alike |= {"ReduceMin", "ReduceSumSquare", "ReduceLogSum", "ArgMin", "CastLike", "Mod"}
    assert net.OPERATORS.keys() - tried <= alike
    assert len(net.OPERATORS) > 90
    assert {layers, moves, pointwise} == set(convert.READ)


def test_what_steps_may_call_is_there_and_names_are_no_words_of_a_module() -> None:
    assert all(callable(function) for function in FUNCTIONS.values())
    assert all(hasattr(torch.Tensor, name) for name in METHODS)
    assert all(issubclass(layer, torch.nn.Module) for layer in LAYERS.values())
    empty = torch.fx.GraphModule(torch.nn.Module(), torch.fx.Graph())
    assert {name for name in dir(empty) if not name.startswith("_")} <= RESERVED


def test_what_is_computed_once_is_never_at_random() -> None:
    assert not {name for name in facts.COMPUTED if "Random" in name or name == "Dropout"}


@pytest.mark.parametrize(
    ("kind", "shape", "constants", "options", "words"),
    [
        ("NonZero", ROW, (), {}, "NonZero (node ?block?one?Node), an operator that is not read"),
        ("QuantizeLinear", ROW, (np.float32(1),), {}, "quantised network"),
        ("RandomUniformLike", ROW, (), {}, "random numbers"),
        ("Slice", ROW, (whole(1), whole(2), whole(0)), {}, "takes examples out of the batch"),
        ("Reshape", ROW, (whole(4, 4),), {}, "not as many numbers"),
        ("Gather", ROW, (np.int64(9),), {"axis": 1}, "places that are not there"),
        ("Conv", IMAGE, (floats(5, 3, 3, 3),), {}, "do not fit its input"),
        ("Tile", ROW, (whole(1, 1 << 30),), {}, "larger than any network"),
    ],
)
def test_what_is_not_read_is_refused_with_its_node(
    kind: str, shape: tuple[int, ...], constants: Any, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(FileRefused) as refused:
        converted(graph(kind, shape, constants, **options))
    assert words in str(refused.value)
