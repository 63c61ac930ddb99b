"""Keras files in: networks built by Keras come back within 1e-4, prune and shrink; or are refused.

One process with Keras (its import takes seconds) builds them all, with inputs and outputs beside.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

import pruning
from pruning import Recipe
from pruning.cli import options
from pruning.errors import FileRefused
from pruning.formats import accept, guard, inspect
from pruning.formats.keras import convert
from pruning.formats.onnx.module import module
from pruning.runs.resolve import resolve

BUILD = """
import sys
import numpy as np
import keras
from keras import layers as L

keras.utils.set_random_seed(0)
folder = sys.argv[1]

def cnn():
    return keras.Sequential([
        keras.Input((13, 10, 3)), L.Rescaling(1 / 127.5, offset=-1),
        L.RandomFlip(), L.Conv2D(8, 3, strides=2, padding="same", activation="relu"),
        L.BatchNormalization(), L.MaxPooling2D(2, padding="same"),
        L.Conv2D(12, 2, use_bias=False), L.ReLU(6.0), L.Flatten(), L.Dropout(0.3),
        L.Dense(10, activation="softmax")])

def mlp():
    return keras.Sequential([
        keras.Input((20,)), L.Dense(32, activation="gelu"), L.LayerNormalization(),
        L.Dense(16, activation="silu"), L.BatchNormalization(scale=False), L.LeakyReLU(0.1),
        L.Dense(5)])

def depthwise():
    i = keras.Input((16, 16, 3))
    x = L.ZeroPadding2D(((0, 1), (1, 0)))(i)
    x = L.SeparableConv2D(8, 3, strides=2, padding="valid", activation="relu")(x)
    y = L.DepthwiseConv2D(3, padding="same", depth_multiplier=2, strides=1)(x)
    y = L.Conv2D(8, 1, activation="leaky_relu")(y)
    x = L.Average()([L.Add()([x, y]), y])
    x = L.UpSampling2D(2, interpolation="bilinear")(x)
    x = L.AveragePooling2D(3, strides=2)(x)
    x = L.Concatenate()([x, L.Multiply()([x, x])])
    x = L.GlobalAveragePooling2D()(x)
    return keras.Model(i, L.Dense(4, activation="sigmoid")(x))

def decoder():
    i = keras.Input((12,))
    x = L.Reshape((3, 2, -1))(L.Dense(24)(i))
    x = L.Conv2DTranspose(6, 3, strides=2, padding="same", activation="tanh")(x)
    x = L.Conv2DTranspose(4, 4, strides=2, padding="same")(x)
    x = L.Conv2DTranspose(3, 2, strides=3, padding="valid")(x)
    x = L.Cropping2D(((1, 2), (0, 3)))(x)
    return keras.Model(i, L.Dense(2)(x))

def series():
    shared = L.Conv1D(6, 3, padding="same", dilation_rate=2)
    inner = keras.Sequential([keras.Input((9, 6)), L.LayerNormalization(), L.ELU()], name="inner")
    i = keras.Input((9, 6))
    x = inner(shared(shared(i)))
    x = L.MaxPooling1D(2)(x)
    return keras.Model(i, [L.GlobalMaxPooling1D()(x), L.Flatten()(x)])

def tokens():
    return keras.Sequential([
        keras.Input((7,)), L.Embedding(30, 8), L.Conv1D(4, 3, activation="relu"),
        L.GlobalAveragePooling1D(), L.Dense(3)])

def scaled():
    normal = L.Normalization(axis=-1)
    normal.adapt(np.random.default_rng(1).normal(3, 2, (50, 6)).astype("float32"))
    return keras.Sequential([keras.Input((6,)), normal, L.Dense(3)])

def recurrent():
    return keras.Sequential([keras.Input((4, 3)), L.LSTM(5)])

def code():
    return keras.Sequential([keras.Input((4,)), L.Lambda(lambda x: x * 2), L.Dense(3)])

for make in (cnn, mlp, depthwise, decoder, series, tokens, scaled, recurrent, code):
    model = make()
    # Moved off their starting values, so that a norm that is left out shows.
    for weight in model.weights:
        if "moving_variance" not in weight.path and "variance" not in weight.path:
            noise = np.random.default_rng(2).normal(0, 0.1, weight.shape)
            weight.assign(keras.ops.convert_to_numpy(weight) + noise.astype(weight.dtype))
    model.save(f"{folder}/{make.__name__}.keras")
    if make in (recurrent, code):
        continue
    shape = model.inputs[0].shape[1:]
    random = np.random.default_rng(3)
    x = random.normal(0, 1, (3, *shape)).astype("float32")
    if make is tokens:
        x = random.integers(0, 30, (3, *shape))
    if make is cnn:
        x = x * 50 + 128
    y = model(x, training=False)
    outputs = [keras.ops.convert_to_numpy(one) for one in (y if isinstance(y, list) else [y])]
    np.savez(f"{folder}/{make.__name__}.npz", *outputs, x=x)
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if find_spec("keras") is None:
        pytest.skip("Keras, of requirements-dev.txt, is not installed")
    folder = tmp_path_factory.mktemp("keras")
    environment = {**os.environ, "KERAS_BACKEND": "torch", "OMP_NUM_THREADS": "1"}
    environment["KERAS_HOME"] = str(folder)
    command = [sys.executable, "-W", "ignore", "-c", BUILD, str(folder)]
    subprocess.run(command, env=environment, check=True, timeout=300)
    return folder


def read(content: bytes | Path, folder: Path) -> Any:
    content = content.read_bytes() if isinstance(content, Path) else content
    with guard.guarded("net.keras"):
        return convert.program(io.BytesIO(content), folder)


def torch_module(program: Any) -> torch.nn.Module:
    arrays = {**program.parameters, **program.buffers}
    tensors = {name: torch.from_numpy(np.array(array)) for name, array in arrays.items()}
    return module(json.loads(json.dumps(program.to_json())), tensors)


def channels_first(x: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(x if x.ndim < 3 else np.moveaxis(x, -1, 1).copy())


@pytest.mark.parametrize(
    "name", ["cnn", "mlp", "depthwise", "decoder", "series", "tokens", "scaled"]
)
def test_what_keras_built_answers_the_same(name: str, built: Path, tmp_path: Path) -> None:
    program = read(built / f"{name}.keras", tmp_path)
    net = torch_module(program)
    with np.load(built / f"{name}.npz") as arrays:
        wanted = [arrays[key] for key in arrays.files if key != "x"]
        x = channels_first(arrays["x"])
    with torch.no_grad():
        outputs = net(x)
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    for output, expected in zip(outputs, wanted, strict=True):
        output = output.softmax(1) if name == "cnn" else output
        assert output.shape == channels_first(expected).shape
        assert torch.allclose(output, channels_first(expected), atol=1e-4)
    if name == "cnn":
        assert program.classes == 10 and "softmax at its end is taken off" in program.notes[0]
        assert [n for n, _ in net.named_children()][:2] == ["conv2d", "batch_normalization"]


@pytest.mark.parametrize("name", ["cnn", "mlp", "depthwise"])
def test_they_prune_and_shrink(name: str, built: Path, tmp_path: Path) -> None:
    net = torch_module(read(built / f"{name}.keras", tmp_path))
    with np.load(built / f"{name}.npz") as arrays:
        x = channels_first(arrays["x"])
    work = pruning.Workpiece("net", net, example=x)
    recipe = Recipe(granularity="channel", scope="per_layer", sparsity=0.5)
    masks = pruning.choose(recipe, work)
    small = pruning.shrink(net, masks, x)
    pruning.apply(masks, net)
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in net.parameters())
    assert torch.allclose(net(x), small(x), atol=1e-4)


def test_one_comes_as_an_upload_and_through_the_shell(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNING_HOME", str(tmp_path))
    upload = accept(built / "mlp.keras", "digits-cnn")
    assert upload.format == "Keras" and upload.classes == 5
    assert options.model(str(built / "mlp.keras")) == upload.model
    work = resolve(upload.model)
    with np.load(built / "mlp.npz") as arrays:
        assert torch.allclose(
            work.model(torch.from_numpy(arrays["x"])), torch.from_numpy(arrays["arr_0"]), atol=1e-4
        )
    refusal = inspect(built / "code.keras").refusal
    assert refusal and "Lambda" in refusal and "ONNX" in refusal.upper()


# ---------------------------------------------------------------- refused


def config_of(*layers: dict[str, Any], kind: str = "Sequential") -> dict[str, Any]:
    start = made("InputLayer", batch_shape=[None, 4])
    return {"class_name": kind, "config": {"layers": [start, *layers]}}


def made(kind: str, **config: Any) -> dict[str, Any]:
    own = {"name": kind.lower(), **config}
    return {"module": "keras.layers", "class_name": kind, "config": own, "registered_name": None}


DENSE = made("Dense", units=3, activation="linear", use_bias=False)


def h5(write: Callable[[h5py.File], Any] | None = None) -> bytes:
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        if write is None:
            file["layers/dense/vars/0"] = np.ones((4, 3), np.float32)
        else:
            write(file)
    return buffer.getvalue()


def keras_file(config: Any = None, weights: bytes | None = None, **more: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        file.writestr("metadata.json", "{}")
        text = config if isinstance(config, str) else json.dumps(config or config_of(DENSE))
        file.writestr("config.json", text)
        file.writestr("model.weights.h5", h5() if weights is None else weights)
        for name, content in more.items():
            file.writestr(name, content)
    return buffer.getvalue()


PLACE = "layers/dense/vars/0"


def soft(file: h5py.File) -> None:
    file["other"] = np.ones((4, 3), np.float32)
    file[PLACE] = h5py.SoftLink("/other")


def outside(file: h5py.File) -> None:
    file[PLACE] = h5py.ExternalLink("/etc/passwd", "/x")


def stored_elsewhere(file: h5py.File) -> None:
    file.create_dataset(PLACE, (4, 3), "f4", external=[("/etc/passwd", 0, 48)])


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((4, 3), "f4")
    layout[:] = h5py.VirtualSource("/etc/passwd", "x", (4, 3))
    file.create_virtual_dataset(PLACE, layout)


def never_written(file: h5py.File) -> None:
    file.create_dataset(PLACE, (4, 1 << 28), "f4")


def compressed(file: h5py.File) -> None:
    file.create_dataset(PLACE, data=np.ones((4, 3), "f4"), compression="gzip")


def words(file: h5py.File) -> None:
    file[PLACE] = np.array([[b"a"] * 3] * 4)


def nan(file: h5py.File) -> None:
    file[PLACE] = np.full((4, 3), np.nan, np.float32)


def damaged() -> bytes:
    """The table of a group's own names overwritten: h5py opens it, and no further."""
    content = h5()
    assert content.count(b"HEAP")
    return content.replace(b"HEAP", b"PAEH")


HUGE = made("Dense", units=1 << 28, activation="linear", use_bias=False)
RESHAPED = made("UpSampling1D", size=1 << 30)
OWN = {**DENSE, "registered_name": "Custom>Dense"}
OWN_MODEL = {"class_name": "MyModel", "config": {"layers": []}}
FLOATING = made("Activation", activation={"class_name": "function", "config": "evil"})
WAITING = {
    "class_name": "Functional",
    "config": {
        "layers": [
            {
                **DENSE,
                "inbound_nodes": [
                    {
                        "args": [
                            {
                                "class_name": "__keras_tensor__",
                                "config": {"keras_history": ["dense", 0, 0]},
                            }
                        ]
                    }
                ],
            }
        ],
        "input_layers": [],
        "output_layers": [["dense", 0, 0]],
    },
}
NESTED: dict[str, Any] = config_of(DENSE)
for _ in range(20):
    NESTED = config_of({**NESTED, "config": {**NESTED["config"], "name": "inner"}})

BAD: dict[str, tuple[Callable[[], bytes], str]] = {
    "soft link": (lambda: keras_file(weights=h5(soft)), "holds a link"),
    "external link": (lambda: keras_file(weights=h5(outside)), "holds a link"),
    "external storage": (lambda: keras_file(weights=h5(stored_elsewhere)), "in another file"),
    "virtual": (lambda: keras_file(weights=h5(virtual)), "in another file"),
    "bomb": (lambda: keras_file(config_of(HUGE), h5(never_written)), "no numbers|would be|form"),
    "lying shape": (
        lambda: keras_file(config_of(made("Dense", units=7, activation=None))),
        r"of shape \(4, 3\), and its layer needs \(4, 7\)",
    ),
    "compressed": (lambda: keras_file(weights=h5(compressed)), "Keras does not write"),
    "words": (lambda: keras_file(weights=h5(words)), "Keras does not write"),
    "nan": (lambda: keras_file(weights=h5(nan)), "NaN or infinite"),
    "damaged hdf5": (lambda: keras_file(weights=damaged()), "holds damaged weights at layers"),
    "no hdf5": (lambda: keras_file(weights=b"x" * 99), "no HDF5 file"),
    "lambda": (lambda: keras_file(config_of(made("Lambda", function="x"))), "Lambda"),
    "own layer": (lambda: keras_file(config_of(OWN)), "not read"),
    "own model": (lambda: keras_file(OWN_MODEL), "MyModel"),
    "own function": (lambda: keras_file(config_of(FLOATING)), "activation"),
    "up": (lambda: keras_file(config_of(RESHAPED)), "would be|does not fit"),
    "circle": (lambda: keras_file(WAITING), "wait for each other"),
    "deep": (lambda: keras_file(NESTED), "program of its own"),
    "deep json": (lambda: keras_file("[" * 100_000), "nested too deep|damaged"),
    "no json": (lambda: keras_file("{"), "damaged"),
    "list": (lambda: keras_file("[]"), "no model"),
    "nothing": (lambda: keras_file("{}"), "does not write"),
    "zip-slip": (lambda: keras_file(**{"../../x": b""}), "lead elsewhere"),
    "no weights": (
        lambda: keras_file().replace(b"model.weights.h5", b"model.weightX.h5"),
        "holds no",
    ),
    "cut off": (lambda: keras_file()[:-40], "cut off or damaged"),
    "channels first": (
        lambda: keras_file(config_of(made("Flatten", data_format="channels_first"))),
        "data_format",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_what_is_not_read_is_refused_in_words(kind: str, tmp_path: Path) -> None:
    make, why = BAD[kind]
    with pytest.raises(FileRefused, match=why) as refused:
        read(make(), tmp_path)
    message = str(refused.value)
    assert message.startswith("net.keras ") and "\n" not in message and len(message) < 500


def test_a_mean_counts_no_padding(tmp_path: Path) -> None:
    """As TensorFlow and JAX have it; Keras's torch backend repeats the border instead."""
    config = config_of(
        made("Reshape", target_shape=[4, 1]),
        made("AveragePooling1D", pool_size=[3], strides=[1], padding="same"),
    )
    net = torch_module(read(keras_file(config), tmp_path))
    x = torch.tensor([[1.0, 2.0, 4.0, 8.0]])
    assert torch.allclose(net(x)[0, 0], torch.tensor([1.5, 7 / 3, 14 / 3, 6.0]))
