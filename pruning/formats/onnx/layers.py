"""Operators with weights: each becomes a torch layer under its own name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pruning.formats.onnx.load import Array
from pruning.formats.onnx.net import At, operator
from pruning.formats.onnx.program import Ref
from pruning.formats.types import shape_text


def begins_and_ends(
    at: At, kernel: Sequence[int], sizes: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Padding before and after each dimension, with TensorFlow's SAME worked out for this size."""
    n = len(kernel)
    strides = at.options.get("strides", [1] * n)
    dilations = at.options.get("dilations", [1] * n)
    auto = at.options.get("auto_pad", "NOTSET")
    if auto in ("NOTSET", ""):
        pads = at.options.get("pads", [0] * (2 * n))
        if len(pads) != 2 * n:
            raise at.refused("with padding for another number of dimensions: export again.")
        return list(pads[:n]), list(pads[n:])
    if auto == "VALID":
        return [0] * n, [0] * n
    before, after = [], []
    for size, stride, dilation, k in zip(sizes, strides, dilations, kernel, strict=True):
        reach = dilation * (k - 1) + 1
        total = max(0, (-(-size // stride) - 1) * stride + reach - size)
        small = total // 2
        large = total - small
        before.append(small if auto == "SAME_UPPER" else large)
        after.append(large if auto == "SAME_UPPER" else small)
    return before, after


def padded(at: At, x: Ref, before: Sequence[int], after: Sequence[int], value: float = 0.0) -> Ref:
    """x with padding around its last dimensions; torch lists the last dimension first."""
    pairs = zip(reversed(before), reversed(after), strict=True)
    return at.call("pad", x, [size for pair in pairs for size in pair], value=value)


def kernel_of(at: At, channels: int) -> Array:
    """The weight of a convolution. channels: in which of its dimensions those of the input lie."""
    weight = at.weights(1)
    n = weight.ndim - 2
    if not 1 <= n <= 3 or at.rank != weight.ndim:
        raise at.refused(f"over {n} dimensions: 1 to 3 are read.")
    groups = at.options.get("group", 1)
    read = weight.shape[channels] * (groups if channels == 1 else 1)
    # ONNX's own rules look at sizes and not at channels.
    fits = groups > 0 and read == at.shape[1] and weight.shape[0] % groups == 0
    if not fits or at.options.get("kernel_shape", list(weight.shape[2:])) != list(weight.shape[2:]):
        raise at.refused(
            f"whose weights of {shape_text(weight.shape)} do not fit its input of "
            f"{shape_text(at.shape)} in {groups} groups: export the model again."
        )
    return weight


@operator("Conv")
def convolution(at: At) -> Ref:
    weight = kernel_of(at, 1)
    n = weight.ndim - 2
    before, after = begins_and_ends(at, weight.shape[2:], at.shape[2:])
    x = at.ref(0)
    if before != after:
        x = padded(at, x, before, after)
        before = [0] * n
    groups = at.options.get("group", 1)
    options = {
        "in_channels": weight.shape[1] * groups,
        "out_channels": weight.shape[0],
        "kernel_size": list(weight.shape[2:]),
        "stride": list(at.options.get("strides", [1] * n)),
        "padding": before,
        "dilation": list(at.options.get("dilations", [1] * n)),
        "groups": groups,
    }
    return weighted(at, f"Conv{n}d", x, options, weight, weight.shape[0], 1)


@operator("ConvTranspose")
def transposed_convolution(at: At) -> Ref:
    weight = kernel_of(at, 0)
    n = weight.ndim - 2
    kernel = weight.shape[2:]
    strides = list(at.options.get("strides", [1] * n))
    dilations = list(at.options.get("dilations", [1] * n))
    groups = at.options.get("group", 1)
    whole = [
        (size - 1) * stride + dilation * (k - 1) + 1
        for size, stride, dilation, k in zip(at.shape[2:], strides, dilations, kernel, strict=True)
    ]
    made = list(at.made.shape[2:])
    extra = list(at.options.get("output_padding", [0] * n))
    before, after = _cropped(at, whole, made, extra)
    symmetric = before == after
    options = {
        "in_channels": weight.shape[0],
        "out_channels": weight.shape[1] * groups,
        "kernel_size": list(kernel),
        "stride": strides,
        "padding": before if symmetric else [0] * n,
        "output_padding": extra if symmetric else [0] * n,
        "dilation": dilations,
        "groups": groups,
    }
    out = weighted(
        at, f"ConvTranspose{n}d", at.ref(0), options, weight, weight.shape[1] * groups, 1
    )
    if symmetric:
        return out
    # What the padding takes away differs at the two ends: cut it off afterwards.
    return padded(at, out, [-size for size in before], [-size for size in after])


def _cropped(
    at: At, whole: Sequence[int], made: Sequence[int], extra: Sequence[int]
) -> tuple[list[int], list[int]]:
    """How much is cut off before and after each dimension."""
    n = len(whole)
    auto = at.options.get("auto_pad", "NOTSET")
    pads = at.options.get("pads")
    if auto in ("NOTSET", "") and "output_shape" not in at.options:
        pads = list(pads or [0] * (2 * n))
        before, after = pads[:n], pads[n:]
        # output_padding adds at the end, after the padding was taken off there.
        return before, after if before == after else [
            size - add for size, add in zip(after, extra, strict=True)
        ]
    total = [
        size + add - size_made for size, add, size_made in zip(whole, extra, made, strict=True)
    ]
    small = [size // 2 for size in total]
    large = [size - half for size, half in zip(total, small, strict=True)]
    upper = auto == "SAME_UPPER"
    before, after = (small, large) if upper else (large, small)
    if before == after:
        return before, after
    return before, [size - add for size, add in zip(after, extra, strict=True)]


def weighted(
    at: At, kind: str, x: Ref, options: dict[str, Any], weight: Array, channels: int, axis: int
) -> Ref:
    """A layer of weight and bias, where the bias may be the Add that comes after it."""
    bias = at.weights(2, "biases") if at.has(2) else None
    named_by = [at.name(1), at.name(2)]
    if bias is None:
        bias = at.bias_after(channels, axis)
        named_by.append(at.bias_name)
    key = (kind, at.name(1), at.name(2) or at.bias_name, str(options))
    if key in at.net.shared:
        return at.program.layer(at.net.shared[key], kind, x, options | {"bias": bias is not None})
    arrays = {"weight": weight} | ({} if bias is None else {"bias": bias.reshape(-1)})
    out = at.layer(kind, x, options | {"bias": bias is not None}, arrays, named_by)
    at.net.shared[key] = at.program.steps[-1][1]
    return out


@operator("Gemm")
def linear_of_gemm(at: At) -> Ref:
    weight = at.constant(1)
    x = at.ref(0)
    if at.options.get("transA", 0):
        x = at.call("permute", x, [1, 0])
    alpha, beta = at.options.get("alpha", 1.0), at.options.get("beta", 1.0)
    if weight is None or weight.ndim != 2:
        return _product_and_sum(at, x, alpha, beta)
    weight = weight if at.options.get("transB", 0) else weight.T
    features = weight.shape[0]
    bias = at.constant(2)
    options = {"in_features": weight.shape[1], "out_features": features}
    # A bias that is computed, or one for each example, is no layer's.
    own = bias is not None and bias.size in (1, features) and bias.shape[:-1] in ((), (1,))
    if at.has(2) and not own:
        product = linear_layer(at, x, options, weight * np.float32(alpha), None)
        return at.call("add", product, at.call("mul", at.ref(2), beta))
    if bias is not None:
        bias = np.broadcast_to(bias.reshape(-1), (features,)) * np.float32(beta)
    return linear_layer(at, x, options, weight * np.float32(alpha), bias)


def _product_and_sum(at: At, x: Ref, alpha: float, beta: float) -> Ref:
    other = at.ref(1)
    if at.options.get("transB", 0):
        other = at.call("permute", other, [1, 0])
    product = at.call("mul", at.call("matmul", x, other), alpha)
    if not at.has(2):
        return product
    return at.call("add", product, at.call("mul", at.ref(2), beta))


@operator("MatMul")
def linear_of_product(at: At) -> Ref:
    weight = at.constant(1)
    if weight is None or weight.ndim != 2 or weight.dtype.kind != "f":
        return at.call("matmul", at.ref(0), at.ref(1))
    options = {"in_features": weight.shape[0], "out_features": weight.shape[1]}
    bias = at.bias_after(weight.shape[1], -1)
    return linear_layer(at, at.ref(0), options, weight.T, bias)


def linear_layer(at: At, x: Ref, options: dict[str, Any], weight: Array, bias: Array | None) -> Ref:
    options = options | {"bias": bias is not None}
    key = ("Linear", at.name(1), at.name(2) or at.bias_name, str(options), str(at.options))
    if key in at.net.shared:
        return at.program.layer(at.net.shared[key], "Linear", x, options)
    arrays = {"weight": weight} | ({} if bias is None else {"bias": bias})
    named_by = [at.name(1), at.name(2), at.bias_name]
    out = at.layer("Linear", x, options, arrays, named_by)
    at.net.shared[key] = at.program.steps[-1][1]
    return out


@operator("BatchNormalization")
def batch_norm(at: At) -> Ref:
    if any(name and at.net.uses[name] for name in at.node.output[1:]):
        raise at.refused("in training, whose statistics are used: export the model in eval mode.")
    if at.options.get("spatial", 1) != 1:
        raise at.refused("with statistics for every place: export it with a newer operator set.")
    names = ("weight", "bias", "running_mean", "running_var")
    arrays = {name: at.weights(i + 1) for i, name in enumerate(names)}
    arrays["num_batches_tracked"] = np.array(0, np.int64)
    dimensions = min(max(at.rank - 2, 1), 3)
    options = {
        "num_features": arrays["weight"].size,
        "eps": at.options.get("epsilon", 1e-5),
        # ONNX says which share of the old average is kept, torch which share of the new is taken.
        "momentum": round(1 - at.options.get("momentum", 0.9), 9),
    }
    named_by = [at.name(i) for i in range(1, 5)]
    kind = f"BatchNorm{dimensions}d"
    return at.layer(kind, at.ref(0), options, arrays, named_by, (*names[2:], "num_batches_tracked"))


@operator("InstanceNormalization")
def instance_norm(at: At) -> Ref:
    dimensions = min(max(at.rank - 2, 1), 3)
    weight, bias = at.weights(1), at.weights(2)
    options = {"num_features": weight.size, "eps": at.options.get("epsilon", 1e-5), "affine": True}
    arrays = {"weight": weight, "bias": bias}
    return at.layer(f"InstanceNorm{dimensions}d", at.ref(0), options, arrays, [at.name(1)])


@operator("GroupNormalization")
def group_norm(at: At) -> Ref:
    weight, bias = at.weights(1), at.weights(2)
    groups, channels = at.options["num_groups"], at.shape[1]
    if weight.size == groups != channels:  # before set 21: one scale for a group
        weight, bias = (np.repeat(array, channels // groups) for array in (weight, bias))
    options = {
        "num_groups": groups,
        "num_channels": channels,
        "eps": at.options.get("epsilon", 1e-5),
    }
    arrays = {"weight": weight, "bias": bias}
    return at.layer("GroupNorm", at.ref(0), options, arrays, [at.name(1)])


@operator("LayerNormalization", "RMSNormalization")
def layer_norm(at: At) -> Ref:
    if any(name and at.net.uses[name] for name in at.node.output[1:]):
        raise at.refused("whose statistics are used: export the model in eval mode.")
    shape = list(at.shape[at.axis(-1) :])
    weight = np.broadcast_to(at.weights(1), shape)
    options: dict[str, Any] = {"normalized_shape": shape, "eps": at.options.get("epsilon", 1e-5)}
    arrays = {"weight": weight}
    if at.kind == "RMSNormalization":
        return at.layer("RMSNorm", at.ref(0), options, arrays, [at.name(1)])
    options["bias"] = at.has(2)
    if at.has(2):
        arrays["bias"] = np.broadcast_to(at.weights(2), shape)
    return at.layer("LayerNorm", at.ref(0), options, arrays, [at.name(1), at.name(2)])


@operator("PRelu")
def prelu(at: At) -> Ref:
    slope = at.constant(1)
    single = slope is not None and slope.size == 1
    channels = at.shape[1] if at.rank > 1 else 0
    by_channel = slope is not None and slope.size == channels == max(slope.shape, default=1)
    along = by_channel and slope is not None and _along_channels(slope, at.rank)
    if slope is None or not (single or along):
        zero = at.call("minimum_zero", at.ref(0))
        return at.call("add", at.call("relu", at.ref(0)), at.call("mul", at.ref(1), zero))
    options = {"num_parameters": slope.size}
    return at.layer("PReLU", at.ref(0), options, {"weight": slope.reshape(-1)}, [at.name(1)])


def _along_channels(slope: Array, rank: int) -> bool:
    """Whether slopes lie along dimension 1 of inputs of this rank."""
    full = (1,) * (rank - slope.ndim) + slope.shape
    return len(full) == rank and full[1] == slope.size


def embedding(at: At, table: Array) -> Ref:
    """Rows of a table of weights, looked up by index."""
    options = {"num_embeddings": table.shape[0], "embedding_dim": table.shape[1]}
    key = ("Embedding", at.name(0))
    if key in at.net.shared:
        return at.program.layer(at.net.shared[key], "Embedding", at.ref(1), options)
    out = at.layer("Embedding", at.ref(1), options, {"weight": table}, [at.name(0)])
    at.net.shared[key] = at.program.steps[-1][1]
    return out
