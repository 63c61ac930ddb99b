"""ONNX in: whole networks as exporters write them come back, prune, shrink and fine-tune."""

from __future__ import annotations

import io
import json
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
import torchvision
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

import pruning
import sample_models
from pruning.cli import options
from pruning.errors import FileRefused, RecipeError
from pruning.formats import accept, inspect, load_network, load_upload
from pruning.formats.onnx import convert
from pruning.formats.onnx.module import module
from pruning.runs.resolve import resolve
from pruning.structure.shrink import shrink_certified


def exported(model: nn.Module, x: Tensor, *, fixed: bool = False) -> bytes:
    """By torch's older exporter, which takes no seconds. fixed: for this batch alone."""
    axes = None if fixed else {"x": {0: "batch"}}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        file = Path(folder) / "net.onnx"
        torch.onnx.export(model, (x,), file, dynamo=False, input_names=["x"], dynamic_axes=axes)
        return file.read_bytes()


def back(content: bytes) -> torch.fx.GraphModule:
    program = convert.program(io.BytesIO(content))
    arrays = {**program.parameters, **program.buffers}
    tensors = {name: torch.from_numpy(array.copy()) for name, array in arrays.items()}
    # By way of text, as it is kept.
    return module(json.loads(json.dumps(program.to_json())), tensors)


def shuffled() -> nn.Module:
    model: nn.Module = torchvision.models.ShuffleNetV2(
        [1, 1, 1], [8, 16, 32, 32, 32], num_classes=5
    )
    return model


def inverted() -> nn.Module:
    stages = [[1, 8, 1, 1], [4, 16, 2, 2]]
    model: nn.Module = torchvision.models.MobileNetV2(5, 0.5, stages)
    return model


def attentive() -> nn.Module:
    model: nn.Module = torchvision.models.VisionTransformer(32, 8, 1, 2, 16, 32, num_classes=5)
    nn.init.normal_(model.get_parameter("heads.head.weight"))  # torchvision begins with zeros
    return model


NETS: dict[str, Callable[[], nn.Module]] = {
    "shufflenet": shuffled,
    "mobilenet": inverted,
    "vision transformer": attentive,
}


@pytest.mark.parametrize("name", NETS)
def test_a_network_comes_back_for_every_batch_and_shrinks(name: str) -> None:
    torch.manual_seed(0)
    model = NETS[name]().eval()
    x = torch.randn(2, 3, 32, 32)
    made = back(exported(model, x))
    for batch in (1, 5):
        x_here = torch.randn(batch, 3, 32, 32)
        with torch.no_grad():
            assert torch.allclose(made(x_here), model(x_here), rtol=1e-4, atol=1e-5)
    work = pruning.Workpiece(name=name, model=made, example=x)
    recipe = pruning.Recipe(granularity="channel", scope="per_layer", sparsity=0.5)
    compact, certificate = shrink_certified(made, pruning.choose(recipe, work), x)
    assert certificate.kept < certificate.parameters
    assert compact(x).shape == (2, 5)


def test_layers_have_the_names_that_they_had() -> None:
    torch.manual_seed(0)
    names = {
        name
        for name, _ in back(
            exported(inverted().eval(), torch.randn(2, 3, 32, 32))
        ).named_parameters()
    }
    assert {"features.0.0.weight", "features.1.conv.0.0.weight", "classifier.1.bias"} <= names


def test_a_network_of_one_example_takes_any_batch() -> None:
    torch.manual_seed(0)
    model = attentive().eval()
    made = back(exported(model, torch.randn(1, 3, 32, 32), fixed=True))
    x = torch.randn(4, 3, 32, 32)
    with torch.no_grad():
        assert torch.allclose(made(x), model(x), rtol=1e-4, atol=1e-5)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3)
        self.head = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.silu(self.stem(x))
        scores: Tensor = self.head(x.mean((2, 3)))
        return scores


def test_the_newer_exporter_is_read_too() -> None:
    model = Small().eval()
    x = torch.randn(2, 1, 8, 8)
    program = torch.onnx.export(
        model, (x,), dynamo=True, dynamic_shapes=({0: torch.export.Dim("n")},), verbose=False
    )
    assert program is not None
    made = back(program.model_proto.SerializeToString())
    with torch.no_grad():
        assert torch.allclose(made(x[:1]), model(x[:1]), atol=1e-6)
    assert made.state_dict().keys() == model.state_dict().keys()


def of_tensorflow() -> onnx.ModelProto:
    """As tf2onnx writes a small Keras network: channels last outside, a batch norm, a softmax."""
    random = np.random.default_rng(0)

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(random.standard_normal(shape).astype(np.float32), name)

    variance = numpy_helper.from_array(np.full(4, 0.5, np.float32), "net/bn/variance:0")
    weights = [
        weight("net/conv2d/Conv2D/ReadVariableOp:0", 4, 1, 3, 3),
        weight("net/conv2d/BiasAdd/ReadVariableOp:0", 4),
        weight("net/bn/gamma:0", 4),
        weight("net/bn/beta:0", 4),
        weight("net/bn/mean:0", 4),
        variance,
        weight("net/dense/MatMul/ReadVariableOp:0", 64, 3),
        weight("net/dense/BiasAdd/ReadVariableOp:0", 3),
        numpy_helper.from_array(np.array([-1, 64]), "shape"),
    ]
    name = [each.name for each in weights]
    node = helper.make_node
    nodes = [
        node("Transpose", ["x"], ["first"], perm=[0, 3, 1, 2]),
        node("Conv", ["first", name[0], name[1]], ["conv"], name="net/conv2d/BiasAdd",
             auto_pad="SAME_UPPER", strides=[2, 2], kernel_shape=[3, 3]),
        node("BatchNormalization", ["conv", *name[2:6]], ["norm"], name="net/bn/Fused"),
        node("Relu", ["norm"], ["relu"]),
        node("Transpose", ["relu"], ["last"], perm=[0, 2, 3, 1]),
        node("Reshape", ["last", "shape"], ["flat"]),
        node("MatMul", ["flat", name[6]], ["product"], name="net/dense/MatMul"),
        node("Add", ["product", name[7]], ["logits"], name="net/dense/BiasAdd"),
        node("Softmax", ["logits"], ["p"]),
    ]  # fmt: skip
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["unk__1", 8, 8, 1])
    p = helper.make_tensor_value_info("p", TensorProto.FLOAT, ["unk__1", 3])
    opset = [helper.make_opsetid("", 15)]
    return helper.make_model(
        helper.make_graph(nodes, "g", [x], [p], weights), opset_imports=opset, ir_version=8
    )


def test_a_network_of_tensorflow_is_taken_channels_first_and_without_its_softmax() -> None:
    content = of_tensorflow().SerializeToString()
    made = back(content)
    layers = {name: type(layer).__name__ for name, layer in made.named_modules() if name}
    assert layers["net.conv2d"] == "Conv2d"
    assert layers["net.bn"] == "BatchNorm2d"
    assert layers["net.dense"] == "Linear"
    x = torch.randn(2, 1, 8, 8)
    with torch.no_grad():
        ours = made(x).softmax(1)
    from onnx.reference import ReferenceEvaluator

    (theirs,) = ReferenceEvaluator(onnx.load_from_string(content)).run(
        None, {"x": x.permute(0, 2, 3, 1).numpy()}
    )
    np.testing.assert_allclose(ours.numpy(), np.asarray(theirs, np.float32), rtol=1e-4, atol=1e-5)
    notes = " ".join(convert.program(io.BytesIO(content)).notes)
    assert "channels first" in notes and "softmax" in notes


# ---------------------------------------------------------------- as an upload


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx")
    work = sample_models.load("digits-cnn")
    assert isinstance(work.example, Tensor)
    (folder / "mine.onnx").write_bytes(exported(work.model, work.example))
    return folder


def test_an_upload_is_kept_as_data_and_prunes_to_a_compact_model(digits: Path) -> None:
    upload = accept(digits / "mine.onnx", "digits-mlp", digits)
    assert (upload.format, upload.architecture, upload.classes) == ("ONNX", "onnx", 10)
    assert accept(digits / "mine.onnx", "torchvision:resnet18", digits).id == upload.id
    work = resolve(upload.model, digits)
    dense = sample_models.load("digits-cnn")
    assert work.classes == dense.classes
    ours, theirs = pruning.measure(work).accuracy, pruning.measure(dense).accuracy
    assert ours == theirs
    recipe = pruning.Recipe(granularity="channel", sparsity=0.4, epochs=1, finetune_compact=True)
    *_, finished = pruning.run(recipe, work)
    assert isinstance(finished, pruning.events.Finished)
    assert finished.final.kept < finished.dense.kept


def test_inspect_lists_its_layers(digits: Path) -> None:
    reading = inspect(digits / "mine.onnx")
    assert reading.refusal is None and reading.format == "ONNX"
    assert "conv1.weight" in {tensor.name for tensor in reading.tensors}


def test_a_kept_network_that_was_changed_is_not_used(digits: Path) -> None:
    upload = accept(digits / "mine.onnx", "digits-mlp", digits)
    file = digits / "uploads" / upload.id / "model.safetensors"
    before = file.read_bytes()
    file.write_bytes(before.replace(b'\\"relu\\"', b'\\"exec\\"'))
    try:
        with pytest.raises(FileRefused, match="changed on disk"):
            load_network(upload.id, digits)
        with pytest.raises(FileRefused, match="changed on disk"):
            load_upload(upload.id, digits)
    finally:
        file.write_bytes(before)


def test_weights_alone_are_no_network(digits: Path) -> None:
    file = digits / "weights.safetensors"
    file.write_bytes((sample_models.cards.WEIGHTS / "digits-mlp.safetensors").read_bytes())
    upload = accept(file, "digits-mlp", digits)
    with pytest.raises(RecipeError, match="holds weights alone, for digits-mlp"):
        load_network(upload.id, digits)


@pytest.mark.parametrize(
    "step",
    [
        ["call", "exec", ["1"], {}, "%1"],
        ["layer", "a", "Module", {}, ["%0"], "%1"],
        ["import", "os"],
        ["call", "relu", ["%9"], {}, "%1"],
        ["call", "reshape", ["%0", [7]], {}, "%1"],
    ],
)
def test_a_program_with_a_step_of_another_kind_is_refused(step: list[object]) -> None:
    program = {
        "inputs": [["%0", [4], "float32"]],
        "steps": [step],
        "outputs": ["%1"],
        "parameters": [],
        "buffers": [],
    }
    with pytest.raises(FileRefused, match="bring the"):
        module(program, {})


def test_the_shell_takes_a_file_by_its_name(digits: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNING_HOME", str(digits))
    name = options.model(str(digits / "mine.onnx"))
    assert name == accept(digits / "mine.onnx", "digits-mlp", digits).model
    (digits / "text.onnx").write_text("no graph")
    with pytest.raises(FileRefused, match=r"text\.onnx is a text file"):
        options.model(str(digits / "text.onnx"))
    weights = (sample_models.cards.WEIGHTS / "digits-mlp.safetensors").read_bytes()
    (digits / "weights.onnx").write_bytes(weights)
    with pytest.raises(FileRefused, match="is no ONNX"):
        options.model(str(digits / "weights.onnx"))
