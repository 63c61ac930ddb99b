"""One short function for each Keras layer that is read: config, weights -> steps of a program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from pruning.errors import FileRefused
from pruning.formats import limits
from pruning.formats.keras.load import EXPORT, Array, Weights
from pruning.formats.onnx.program import Program
from pruning.formats.types import shown

LARGEST = limits.LARGEST // 4
"""Numbers of one value: what claims more is a bomb."""


@dataclass(frozen=True)
class Value:
    """A tensor on its way. shape: of one example as Keras has it, channels last; in the program
    they come first. logits: of a softmax, what it was taken of.
    """

    ref: str
    shape: tuple[int, ...]
    logits: str | None = None


@dataclass(frozen=True)
class At:
    """A layer that is being read. place: of its weights in the file; path: in the module."""

    program: Program
    weights: Weights
    config: dict[str, Any]
    place: str
    path: str
    kind: str

    def refused(self, why: str) -> FileRefused:
        name = shown(self.config["name"])
        return FileRefused(f"has a layer {name} ({self.kind}) {why}: {EXPORT}.")

    def must(self, name: str, *allowed: Any) -> None:
        """Raises FileRefused where an option is something else."""
        value = self.config.get(name, allowed[0])
        if value not in allowed:
            raise self.refused(f"whose {name} is {shown(value)}, which is not read")

    def pair(self, name: str, dimensions: int) -> tuple[int, ...]:
        """An option of a size for each dimension."""
        value = self.config[name]
        values = value if isinstance(value, list) else [value] * dimensions
        if len(values) != dimensions:
            raise self.refused(f"whose {name} is {shown(value)}, which does not fit its input")
        return tuple(map(whole, values))

    def array(self, number: int, shape: tuple[int, ...], inside: str = "") -> Array:
        return self.weights.array(f"{self.place}/{inside}vars/{number}", shape)

    def layer(
        self, kind: str, ref: str, options: dict[str, Any], arrays: dict[str, Array], part: str = ""
    ) -> str:
        """Add a layer with weights. Called twice, Keras's layer is one of torch's too."""
        path = f"{self.path}.{part}" if part else self.path
        for name, array in arrays.items():
            if f"{path}.{name}" in self.program.parameters | self.program.buffers:
                continue
            if name.startswith(("running", "num_")):
                self.program.buffer(f"{path}.{name}", array)
            else:
                self.program.parameter(f"{path}.{name}", array)
        return self.program.layer(path, kind, ref, options)


Reader = Callable[[At, list[Value]], Value]

READERS: dict[str, Reader] = {}
"""Keras's name of a layer -> what reads it."""


def reader(*names: str) -> Callable[[Reader], Reader]:
    def register(function: Reader) -> Reader:
        READERS.update(dict.fromkeys(names, function))
        return function

    return register


def read(at: At, values: list[Value]) -> Value:
    """The layer's result. Raises FileRefused."""
    at.must("data_format", "channels_last", None)
    value = READERS[at.kind](at, values)
    if prod(value.shape) > LARGEST or min(value.shape) < 1:
        raise at.refused(f"whose output would be {shown(value.shape)}")
    return value


def whole(value: Any) -> int:
    """A size. TypeError for what is none: the config is then not Keras's."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 1 << 31:
        raise TypeError(f"{value!r} is no size")
    return value


def first(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Channels first."""
    return (shape[-1], *shape[:-1])


# ---------------------------------------------------------------- order


def channels_last(at: At, value: Value) -> str:
    """The value in Keras's own order."""
    rank = len(value.shape)
    # Nothing changes places where there is one place, or one channel.
    if rank == 1:
        return value.ref
    return at.program.call("permute", value.ref, [0, *range(2, rank + 1), 1])


def channels_first(at: At, ref: str, rank: int) -> str:
    return ref if rank == 1 else at.program.call("permute", ref, [0, rank, *range(1, rank)])


def over_channels(array: Array, rank: int) -> Array:
    """(C,) as it is added to (n, C, places...)."""
    return array.reshape(-1, *[1] * (rank - 1))


# ---------------------------------------------------------------- activations

SIMPLE = {
    "relu": "relu",
    "relu6": "relu6",
    "elu": "elu",
    "selu": "selu",
    "gelu": "gelu",
    "sigmoid": "sigmoid",
    "tanh": "tanh",
    "softplus": "softplus",
    "softsign": "softsign",
    "exponential": "exp",
    "silu": "silu",
    "swish": "silu",
    "hard_sigmoid": "hardsigmoid",
    "hard_silu": "hardswish",
    "hard_swish": "hardswish",
    "mish": "mish",
}
"""Keras's activation -> torch's function of one argument."""


def activated(at: At, value: Value, name: Any) -> Value:
    if name in (None, "linear"):
        return value
    if name in ("softmax", "log_softmax"):
        result = at.program.call(name, value.ref, 1)
        return Value(result, value.shape, value.ref if name == "softmax" else None)
    if name == "leaky_relu":
        return Value(at.program.call("leaky_relu", value.ref, 0.2), value.shape)
    if not isinstance(name, str) or name not in SIMPLE:
        raise at.refused(f"with the activation {shown(name)}, which is not read")
    return Value(at.program.call(SIMPLE[name], value.ref), value.shape)


@reader("Activation")
def activation(at: At, values: list[Value]) -> Value:
    return activated(at, one(at, values), at.config["activation"])


@reader("ReLU")
def relu(at: At, values: list[Value]) -> Value:
    at.must("threshold", 0.0, None)
    value = one(at, values)
    slope, top = at.config.get("negative_slope") or 0.0, at.config.get("max_value")
    if slope and top is not None:
        raise at.refused("with a slope and a largest value, which is not read")
    if slope:
        return Value(at.program.call("leaky_relu", value.ref, float(slope)), value.shape)
    if top is not None:
        return Value(at.program.call("clamp", value.ref, 0.0, float(top)), value.shape)
    return Value(at.program.call("relu", value.ref), value.shape)


@reader("LeakyReLU")
def leaky_relu(at: At, values: list[Value]) -> Value:
    value = one(at, values)
    slope = float(at.config["negative_slope"])
    return Value(at.program.call("leaky_relu", value.ref, slope), value.shape)


@reader("ELU")
def elu(at: At, values: list[Value]) -> Value:
    value = one(at, values)
    return Value(at.program.call("elu", value.ref, float(at.config["alpha"])), value.shape)


@reader("Softmax")
def softmax(at: At, values: list[Value]) -> Value:
    at.must("axis", -1, [-1])
    return activated(at, one(at, values), "softmax")


@reader(
    "Dropout",
    "SpatialDropout1D",
    "SpatialDropout2D",
    "GaussianDropout",
    "GaussianNoise",
    "AlphaDropout",
    "ActivityRegularization",
    "Identity",
    "RandomFlip",
    "RandomRotation",
    "RandomZoom",
    "RandomTranslation",
    "RandomContrast",
    "RandomBrightness",
)
def nothing(at: At, values: list[Value]) -> Value:
    """What acts while Keras trains alone."""
    return one(at, values)


def one(at: At, values: list[Value]) -> Value:
    if len(values) != 1:
        raise at.refused(f"with {len(values)} inputs")
    return values[0]


# ---------------------------------------------------------------- weights


def biased(at: At, number: int, size: int) -> dict[str, Array]:
    return {"bias": at.array(number, (size,))} if at.config.get("use_bias", True) else {}


@reader("Dense")
def dense(at: At, values: list[Value]) -> Value:
    value = one(at, values)
    at.must("lora_rank", None)
    at.must("quantization_config", None)
    units, inputs, rank = whole(at.config["units"]), value.shape[-1], len(value.shape)
    arrays = {"weight": at.array(0, (inputs, units)).T, **biased(at, 1, units)}
    options = {"in_features": inputs, "out_features": units, "bias": "bias" in arrays}
    result = at.layer("Linear", channels_last(at, value), options, arrays)
    shape = (*value.shape[:-1], units)
    return activated(at, Value(channels_first(at, result, rank), shape), at.config["activation"])


@reader("Conv1D", "Conv2D", "Conv3D")
def convolution(at: At, values: list[Value]) -> Value:
    value = one(at, values)
    dimensions = int(at.kind[4])
    filters, groups = whole(at.config["filters"]), whole(at.config.get("groups", 1))
    kernel = at.pair("kernel_size", dimensions)
    inputs = value.shape[-1]
    if len(value.shape) != dimensions + 1 or groups < 1 or inputs % groups:
        raise at.refused("that does not fit its input")
    array = at.array(0, (*kernel, inputs // groups, filters))
    weight = array.transpose(dimensions + 1, dimensions, *range(dimensions))
    arrays = {"weight": weight, **biased(at, 1, filters)}
    result = convolved(at, value, filters, groups, kernel, arrays)
    return activated(at, result, at.config["activation"])


def convolved(
    at: At,
    value: Value,
    filters: int,
    groups: int,
    kernel: tuple[int, ...],
    arrays: dict[str, Array],
    part: str = "",
    plain: bool = False,
) -> Value:
    """plain: of stride 1, without padding: the second half of a separable convolution."""
    dimensions = len(kernel)
    ones = (1,) * dimensions
    strides = ones if plain else at.pair("strides", dimensions)
    dilation = ones if plain else at.pair("dilation_rate", dimensions)
    mode = "valid" if plain else at.config["padding"]
    ref, padding, sizes = padded(at, value, kernel, strides, dilation, mode, 0.0)
    options = {
        "in_channels": value.shape[-1],
        "out_channels": filters,
        "kernel_size": list(kernel),
        "stride": list(strides),
        "padding": list(padding),
        "dilation": list(dilation),
        "groups": groups,
        "bias": "bias" in arrays,
    }
    result = at.layer(f"Conv{dimensions}d", ref, options, arrays, part)
    return Value(result, (*sizes, filters))


def padded(
    at: At,
    value: Value,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    dilation: tuple[int, ...],
    mode: Any,
    fill: float,
    own: bool = True,
) -> tuple[str, tuple[int, ...], tuple[int, ...]]:
    """(what is convolved, its symmetric padding, the sizes of the result).

    Keras pads one more after than before where it does not come out even, which torch's layers
    cannot: then it is a step of its own. own: whether the layer may pad at all.
    """
    if mode not in ("valid", "same") or min(*kernel, *strides, *dilation) < 1:
        raise at.refused(f"with the padding {shown(mode)}, which is not read")
    before, after, sizes = [], [], []
    for size, k, stride, d in zip(value.shape, kernel, strides, dilation, strict=False):
        reach = (k - 1) * d + 1
        if mode == "valid":
            sizes.append((size - reach) // stride + 1)
            total = 0
        else:
            sizes.append(-(-size // stride))
            total = max((sizes[-1] - 1) * stride + reach - size, 0)
        before.append(total // 2)
        after.append(total - total // 2)
    if before == after and own:
        return value.ref, tuple(before), tuple(sizes)
    if not any(after):
        return value.ref, (0,) * len(kernel), tuple(sizes)
    # torch names the last dimension first.
    amounts = [n for pair in zip(reversed(before), reversed(after), strict=True) for n in pair]
    ref = at.program.call("pad", value.ref, amounts, "constant", fill)
    return ref, (0,) * len(kernel), tuple(sizes)


@reader("DepthwiseConv1D", "DepthwiseConv2D")
def depthwise(at: At, values: list[Value]) -> Value:
    result = by_channel(at, one(at, values), int(at.kind[-2]), "", True)
    return activated(at, result, at.config["activation"])


def by_channel(at: At, value: Value, dimensions: int, part: str, bias: bool) -> Value:
    """The half of a separable convolution that looks at each channel alone."""
    kernel = at.pair("kernel_size", dimensions)
    inputs, times = value.shape[-1], whole(at.config["depth_multiplier"])
    if len(value.shape) != dimensions + 1:
        raise at.refused("that does not fit its input")
    array = at.array(0, (*kernel, inputs, times))
    # (..., C, M) -> (C * M, 1, ...): all results of a channel beside each other.
    weight = array.transpose(dimensions, dimensions + 1, *range(dimensions))
    arrays = {"weight": weight.reshape(inputs * times, 1, *kernel)}
    arrays |= biased(at, 1, inputs * times) if bias else {}
    return convolved(at, value, inputs * times, inputs, kernel, arrays, part)


@reader("SeparableConv1D", "SeparableConv2D")
def separable(at: At, values: list[Value]) -> Value:
    dimensions = int(at.kind[-2])
    value = by_channel(at, one(at, values), dimensions, "depthwise", False)
    filters, inputs = whole(at.config["filters"]), value.shape[-1]
    kernel = (1,) * dimensions
    array = at.array(1, (*kernel, inputs, filters))
    weight = array.transpose(dimensions + 1, dimensions, *range(dimensions))
    arrays = {"weight": weight, **biased(at, 2, filters)}
    result = convolved(at, value, filters, 1, kernel, arrays, "pointwise", plain=True)
    return activated(at, result, at.config["activation"])


@reader("Conv2DTranspose", "Conv1DTranspose")
def transposed(at: At, values: list[Value]) -> Value:
    value = one(at, values)
    dimensions = int(at.kind[4])
    at.must("output_padding", None)
    kernel, strides = at.pair("kernel_size", dimensions), at.pair("strides", dimensions)
    if set(at.pair("dilation_rate", dimensions)) != {1} or len(value.shape) != dimensions + 1:
        raise at.refused("with a dilation, which is not read")
    filters, inputs = whole(at.config["filters"]), value.shape[-1]
    array = at.array(0, (*kernel, filters, inputs))
    weight = array.transpose(dimensions + 1, dimensions, *range(dimensions))
    arrays = {"weight": weight, **biased(at, 1, filters)}
    same = at.config["padding"] == "same"
    more = [max(stride - k, 0) for k, stride in zip(kernel, strides, strict=True)]
    options = {
        "in_channels": inputs,
        "out_channels": filters,
        "kernel_size": list(kernel),
        "stride": list(strides),
        "output_padding": more,
        "bias": "bias" in arrays,
    }
    ref = at.layer(f"ConvTranspose{dimensions}d", value.ref, options, arrays)
    sizes = []
    for number, (size, k, stride) in enumerate(zip(value.shape, kernel, strides, strict=False)):
        full = size * stride + max(k - stride, 0)
        if same and full > size * stride:
            start = (full - size * stride) // 2
            ref = at.program.call("narrow", ref, number + 2, start, size * stride)
            full = size * stride
        sizes.append(full)
    return activated(at, Value(ref, (*sizes, filters)), at.config["activation"])


@reader("Embedding")
def embedding(at: At, values: list[Value]) -> Value:
    value = one(at, values)
    at.must("mask_zero", False)
    count, width = whole(at.config["input_dim"]), whole(at.config["output_dim"])
    source = [each for each in at.program.inputs if each[0] == value.ref]
    if len(value.shape) != 1 or not source:
        raise at.refused("of something else than an input")
    # Keras takes indices as floats, torch as whole numbers.
    place = at.program.inputs.index(source[0])
    at.program.inputs[place] = (value.ref, source[0][1], "int64")
    options = {"num_embeddings": count, "embedding_dim": width}
    result = at.layer("Embedding", value.ref, options, {"weight": at.array(0, (count, width))})
    return Value(channels_first(at, result, 2), (*value.shape, width))


# ---------------------------------------------------------------- norms


def last_axis(at: At, rank: int) -> None:
    axis = at.config.get("axis", -1)
    axis = axis[0] if isinstance(axis, list) and len(axis) == 1 else axis
    if axis not in (-1, rank):
        raise at.refused(f"over the axis {shown(axis)}, which is not read")


@reader("BatchNormalization")
def batch_norm(at: At, values: list[Value]) -> Value:
    value = one(at, values)
    last_axis(at, len(value.shape))
    at.must("renorm", False)
    channels = (value.shape[-1],)
    number = 0
    arrays: dict[str, Array] = {}
    for name, option, fill in (("weight", "scale", 1.0), ("bias", "center", 0.0)):
        arrays[name] = np.full(channels, fill, np.float32)
        if at.config.get(option, True):
            arrays[name] = at.array(number, channels)
            number += 1
    arrays["running_mean"] = at.array(number, channels)
    arrays["running_var"] = at.array(number + 1, channels)
    arrays["num_batches_tracked"] = np.array(0, np.int64)
    options = {
        "num_features": channels[0],
        "eps": float(at.config["epsilon"]),
        # Keras says which share of the old average is kept, torch which share of the new is taken.
        "momentum": round(1 - float(at.config["momentum"]), 9),
    }
    kind = f"BatchNorm{min(max(len(value.shape) - 1, 1), 3)}d"
    return Value(at.layer(kind, value.ref, options, arrays), value.shape)


@reader("LayerNormalization")
def layer_norm(at: At, values: list[Value]) -> Value:
    value = one(at, values)
    rank, channels = len(value.shape), (value.shape[-1],)
    last_axis(at, rank)
    at.must("rms_scaling", False)
    scale, center = at.config.get("scale", True), at.config.get("center", True)
    weight = at.array(0, channels) if scale else np.ones(channels, np.float32)
    bias = at.array(int(bool(scale)), channels) if center else np.zeros(channels, np.float32)
    options = {"normalized_shape": list(channels), "eps": float(at.config["epsilon"])}
    arrays = {"weight": weight, "bias": bias}
    result = at.layer("LayerNorm", channels_last(at, value), options, arrays)
    return Value(channels_first(at, result, rank), value.shape)


@reader("Rescaling")
def rescaling(at: At, values: list[Value]) -> Value:
    value = one(at, values)
    ref = scaled(at, "mul", value, at.config["scale"], "scale")
    return Value(
        scaled(at, "add", Value(ref, value.shape), at.config["offset"], "offset"), value.shape
    )


def scaled(at: At, function: str, value: Value, by: Any, name: str) -> str:
    """By one number, or one for each channel."""
    if isinstance(by, int | float):
        return at.program.call(function, value.ref, float(by))
    array = np.asarray(by, np.float32)
    if array.shape != (value.shape[-1],):
        raise at.refused(f"whose {name} has the shape {array.shape}")
    path = f"{at.path}.{name}"
    buffer = at.program.buffer(path, over_channels(array, len(value.shape)))
    return at.program.call(function, value.ref, buffer)


@reader("Normalization")
def normalization(at: At, values: list[Value]) -> Value:
    value = one(at, values)
    at.must("invert", False)
    last_axis(at, len(value.shape))
    channels = (value.shape[-1],)
    mean, variance = at.config.get("mean"), at.config.get("variance")
    if mean is None:
        mean, variance = at.array(0, channels), at.array(1, channels)
    mean, variance = (
        np.broadcast_to(np.asarray(n, np.float32).ravel(), channels) for n in (mean, variance)
    )
    deviation = np.maximum(np.sqrt(variance), 1e-7)
    ref = scaled(at, "sub", value, mean, "mean")
    return Value(scaled(at, "div", Value(ref, value.shape), deviation, "deviation"), value.shape)


# ---------------------------------------------------------------- pooling and shape


@reader("MaxPooling1D", "MaxPooling2D", "AveragePooling1D", "AveragePooling2D")
def pooling(at: At, values: list[Value]) -> Value:
    value = one(at, values)
    dimensions = int(at.kind[-2])
    if len(value.shape) != dimensions + 1:
        raise at.refused("that does not fit its input")
    size = at.pair("pool_size", dimensions)
    strides = size if at.config.get("strides") is None else at.pair("strides", dimensions)
    ones, mode = (1,) * dimensions, at.config["padding"]
    largest = at.kind.startswith("Max")
    # What is padded must not be the largest; and it does not count in a mean.
    fill = -3.0e38 if largest else 0.0
    ref, padding, sizes = padded(at, value, size, strides, ones, mode, fill, own=False)
    function = f"{'max' if largest else 'avg'}_pool{dimensions}d"
    result = at.program.call(function, ref, list(size), list(strides), list(padding))
    if not largest and ref != value.ref:
        share = counted_share(value.shape, size, strides, sizes)
        path = at.program.names.free(f"{at.path}_share")
        result = at.program.call("div", result, at.program.buffer(path, share))
    return Value(result, (*sizes, value.shape[-1]))


def counted_share(
    shape: tuple[int, ...], size: Sequence[int], strides: Sequence[int], sizes: Sequence[int]
) -> Array:
    """(1, *sizes): which share of each window lies inside of the input."""
    share = np.ones((1,) * len(size), np.float32)
    for axis, (length, k, stride, count) in enumerate(
        zip(shape, size, strides, sizes, strict=False)
    ):
        start = np.arange(count) * stride - max((count - 1) * stride + k - length, 0) // 2
        inside = np.minimum(start + k, length) - np.maximum(start, 0)
        along = [1] * len(size)
        along[axis] = count
        share = share * (inside / k).astype(np.float32).reshape(along)
    return share[None]


@reader(
    "GlobalAveragePooling1D",
    "GlobalAveragePooling2D",
    "GlobalMaxPooling1D",
    "GlobalMaxPooling2D",
)
def global_pooling(at: At, values: list[Value]) -> Value:
    value = one(at, values)
    rank = len(value.shape)
    if rank != int(at.kind[-2]) + 1:
        raise at.refused("that does not fit its input")
    keep = bool(at.config.get("keepdims", False))
    function = "amax" if "Max" in at.kind else "mean"
    result = at.program.call(function, value.ref, list(range(2, rank + 1)), keep)
    shape = (*[1] * (rank - 1), value.shape[-1]) if keep else value.shape[-1:]
    return Value(result, shape)


@reader("Flatten")
def flatten(at: At, values: list[Value]) -> Value:
    value = one(at, values)
    # Where there is one place or one channel, both orders are the same.
    single = value.shape[-1] == 1 or prod(value.shape[:-1]) == 1
    ref = value.ref if single else channels_last(at, value)
    if len(value.shape) > 1:
        ref = at.program.call("flatten", ref, 1)
    return Value(ref, (prod(value.shape),))


@reader("Reshape")
def reshape(at: At, values: list[Value]) -> Value:
    value = one(at, values)
    target = [size if size == -1 else whole(size) for size in at.config["target_shape"]]
    known = prod(size for size in target if size != -1)
    if target.count(-1) > 1 or not known or not 1 <= len(target) <= 4:
        raise at.refused("whose target_shape does not fit its input")
    shape = tuple(prod(value.shape) // known if size == -1 else size for size in target)
    if prod(shape) != prod(value.shape):
        raise at.refused("whose target_shape does not fit its input")
    ref = at.program.call("reshape", channels_last(at, value), [-1, *shape])
    return Value(channels_first(at, ref, len(shape)), shape)


def places(at: At, value: Value) -> int:
    """Dimensions beside channels, as many as the layer's name says."""
    dimensions = int(at.kind[-2])
    if len(value.shape) != dimensions + 1:
        raise at.refused("that does not fit its input")
    return dimensions


def sides(at: At, name: str, dimensions: int) -> list[tuple[int, int]]:
    """((before, after), ...) of padding or cropping."""
    value = at.config[name]
    value = [value] * dimensions if isinstance(value, int) else value
    if dimensions == 1 and len(value) == 2:
        value = [value]
    pairs = [(each, each) if isinstance(each, int) else tuple(each) for each in value]
    if len(pairs) != dimensions:
        raise at.refused(f"whose {name} does not fit its input")
    return [(whole(before), whole(after)) for before, after in pairs]


@reader("ZeroPadding1D", "ZeroPadding2D")
def zero_padding(at: At, values: list[Value]) -> Value:
    value = one(at, values)
    pairs = sides(at, "padding", places(at, value))
    amounts = [n for pair in reversed(pairs) for n in pair]
    sizes = [size + sum(pair) for size, pair in zip(value.shape, pairs, strict=False)]
    ref = at.program.call("pad", value.ref, amounts, "constant", 0.0)
    return Value(ref, (*sizes, value.shape[-1]))


@reader("Cropping1D", "Cropping2D")
def cropping(at: At, values: list[Value]) -> Value:
    value = one(at, values)
    ref, sizes = value.ref, []
    pairs = sides(at, "cropping", places(at, value))
    for number, ((before, after), size) in enumerate(zip(pairs, value.shape, strict=False)):
        sizes.append(size - before - after)
        if sizes[-1] < 1:
            raise at.refused("that crops all of its input")
        ref = at.program.call("narrow", ref, number + 2, before, sizes[-1])
    return Value(ref, (*sizes, value.shape[-1]))


@reader("UpSampling1D", "UpSampling2D")
def up_sampling(at: At, values: list[Value]) -> Value:
    value = one(at, values)
    dimensions = places(at, value)
    at.must("interpolation", "nearest", "bilinear")
    mode = at.config.get("interpolation", "nearest")
    times = at.pair("size", dimensions)
    options: dict[str, Any] = {"scale_factor": [float(n) for n in times], "mode": mode}
    if mode == "bilinear":
        options["align_corners"] = False
    ref = at.program.call("interpolate", value.ref, **options)
    sizes = [size * n for size, n in zip(value.shape, times, strict=False)]
    return Value(ref, (*sizes, value.shape[-1]))


# ---------------------------------------------------------------- several inputs

MERGES = {
    "Add": "add",
    "Subtract": "sub",
    "Multiply": "mul",
    "Average": "add",
    "Maximum": "maximum",
    "Minimum": "minimum",
}


@reader(*MERGES)
def merge(at: At, values: list[Value]) -> Value:
    if len(values) < 2 or len({len(value.shape) for value in values}) > 1:
        raise at.refused("of inputs that do not fit each other")
    ref = values[0].ref
    for value in values[1:]:
        ref = at.program.call(MERGES[at.kind], ref, value.ref)
    if at.kind == "Average":
        ref = at.program.call("div", ref, float(len(values)))
    try:
        shape = np.broadcast_shapes(*(value.shape for value in values))
    except ValueError:
        raise at.refused("of inputs that do not fit each other") from None
    return Value(ref, shape)


@reader("Concatenate")
def concatenate(at: At, values: list[Value]) -> Value:
    rank = len(values[0].shape)
    axis = at.config.get("axis", -1)
    axis = axis + rank + 1 if isinstance(axis, int) and axis < 0 else axis
    if not isinstance(axis, int) or not 1 <= axis <= rank:
        raise at.refused(f"over the axis {shown(axis)}, which is not read")
    if any(len(value.shape) != rank for value in values):
        raise at.refused("of inputs that do not fit each other")
    ref = at.program.call("cat", [value.ref for value in values], 1 if axis == rank else axis + 1)
    shape = list(values[0].shape)
    shape[axis - 1] = sum(value.shape[axis - 1] for value in values)
    return Value(ref, tuple(shape))
