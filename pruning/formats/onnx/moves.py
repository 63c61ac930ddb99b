"""Operators that move, join, cut and look up numbers, and those that pool them."""

from __future__ import annotations

from typing import Any

import numpy as np

from pruning.formats.onnx.layers import begins_and_ends, embedding, padded
from pruning.formats.onnx.load import Array
from pruning.formats.onnx.net import At, operator
from pruning.formats.onnx.program import Ref


@operator("Reshape", sizes=(1,))
def reshape(at: At) -> Ref:
    return to_shape(at, at.ref(0))


def to_shape(at: At, x: Ref) -> Ref:
    """x in the shape of what the node makes."""
    out = at.out
    source = at.net.sizes(at.name(0))
    if out == source:
        return x
    # The usual end of a convolutional network, as people write it.
    if len(out) == 2 and len(source) > 2 and out[0] == source[0]:
        return at.call("flatten", x, 1)
    return at.reshape(x, out)


@operator("Flatten")
def flatten(at: At) -> Ref:
    return to_shape(at, at.ref(0))


@operator("Squeeze", "Unsqueeze", sizes=(1,))
def squeeze(at: At) -> Ref:
    """As one step a dimension, not a reshape: where it lies stays known."""
    x = at.ref(0)
    axes = at.numbers(1, "axes")
    if at.kind == "Unsqueeze":
        for axis in at.axes(axes or [], len(at.made.shape)):
            x = at.call("unsqueeze", x, axis)
        return x
    if axes is None:
        axes = [i for i, size in enumerate(at.net.sizes(at.name(0))) if size == 1]
    for axis in reversed(at.axes(axes)):
        x = at.call("squeeze", x, axis)
    return x


@operator("Transpose")
def transpose(at: At) -> Ref:
    order = at.options.get("perm", list(reversed(range(at.rank))))
    if order == list(range(at.rank)):
        return at.ref(0)
    return at.call("permute", at.ref(0), order)


@operator("Expand", sizes=(1,))
def expand(at: At) -> Ref:
    return at.call("expand", at.ref(0), at.out)


@operator("Tile", sizes=(1,))
def tile(at: At) -> Ref:
    repeats = at.numbers(1, "repeats")
    return at.call("tile", at.ref(0), repeats)


@operator("Concat")
def concat(at: At) -> Ref:
    axis = int(at.options["axis"]) % len(at.made.shape)
    out = at.out
    parts = []
    for index in range(len(at.node.input)):
        part = at.ref(index)
        alone = at.constant(index) is not None and axis != 0 and at.fact(index).shape[0] == 1
        if isinstance(part, int | float):
            array = at.weights(index)
            part = at.table(array)
        if alone and out[0] != 1:
            # One example's, for every example of the batch.
            part = at.call("expand", part, [out[0], *at.fact(index).shape[1:]])
        parts.append(part)
    return at.call("cat", parts, axis)


@operator("Slice", sizes=(1, 2, 3, 4))
def cut(at: At) -> Ref:
    starts, ends = at.numbers(1, "starts") or [], at.numbers(2, "ends") or []
    axes = at.numbers(3, "axes") or list(range(len(starts)))
    steps = at.numbers(4, "steps") or [1] * len(starts)
    x = at.ref(0)
    sizes = at.net.sizes(at.name(0))
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        axis = at.axes([axis])[0]
        size = at.shape[axis]
        if step == -1 and start in (-1, size - 1) and end < -size:
            x = at.call("flip", x, [axis])
            continue
        if step < 1:
            raise at.refused("which steps backwards: export the model without it.")
        first, last, _ = slice(start, end, step).indices(size)
        if first == 0 and last == size and step == 1:
            continue
        if isinstance(sizes[axis], dict):
            raise at.refused("which takes examples out of the batch: export one example's model.")
        if step == 1:
            x = at.call("narrow", x, axis, first, max(0, last - first))
        else:
            x = at.call("slice", x, axis, first, last, step)
    return x


@operator("Split", sizes=(1,))
def split(at: At) -> Ref:
    axis = at.axis(0)
    names = [name for name in at.node.output if name]
    sizes = [at.net.first[name].shape[axis] for name in names]
    parts = at.call("split", at.ref(0), sizes, axis)
    for index, name in enumerate(names):
        at.net.refs[name] = at.call("getitem", parts, index)
    return at.net.refs[names[0]]


@operator("Gather")
def gather(at: At) -> Ref:
    axis = at.axis(0)
    if axis == 0 and at.rank == 1 and at.net.counts_up(at.name(1)):
        # All numbers in order: what torch's exporter makes of as_strided.
        if at.fact(1).numbers == at.fact(0).numbers:
            return at.reshape(at.ref(0), at.out)
    index, table = at.constant(1), at.constant(0)
    if index is None:
        if table is not None and table.ndim == 2 and axis == 0 and table.dtype.kind == "f":
            return embedding(at, table)
        raise at.refused("which looks up places that are computed: that is not read.")
    size = at.shape[axis]
    if index.dtype.kind not in "iu" or (index < -size).any() or (index >= size).any():
        raise at.refused("which looks up places that are not there: export the model again.")
    if isinstance(at.net.sizes(at.name(0))[axis], dict):
        raise at.refused("which takes examples out of the batch: export one example's model.")
    index = index % max(size, 1)
    if index.ndim == 0:
        return at.call("select", at.ref(0), axis, int(index))
    first = int(index.reshape(-1)[0]) if index.size else 0
    if index.ndim == 1 and index.tolist() == list(range(first, first + index.size)):
        return at.call("narrow", at.ref(0), axis, first, index.size)
    x = at.call("index_select", at.ref(0), axis, at.table(index.reshape(-1), "index"))
    return x if index.ndim == 1 else at.reshape(x, at.out)


@operator("Pad", sizes=(1, 2, 3))
def pad(at: At) -> Ref:
    pads = at.numbers(1, "pads") or []
    axes = at.axes(at.numbers(3, "axes") or range(at.rank)) if at.has(3) else list(range(at.rank))
    if len(pads) != 2 * len(axes):
        raise at.refused("with padding for another number of dimensions: export again.")
    before, after = [0] * at.rank, [0] * at.rank
    for place, axis in enumerate(axes):
        before[axis], after[axis] = pads[place], pads[place + len(axes)]
    if before[0] or after[0]:
        raise at.refused("which pads the batch: export one example's model.")
    mode = {"constant": "constant", "reflect": "reflect", "edge": "replicate", "wrap": "circular"}
    how = mode.get(at.options.get("mode", "constant"))
    first = next((i for i in range(at.rank) if before[i] or after[i]), None)
    if first is None:
        return at.ref(0)
    if how == "constant":
        value = float(at.weights(2).reshape(-1)[0]) if at.has(2) else at.options.get("value", 0.0)
        return padded(at, at.ref(0), before[first:], after[first:], value)
    if how is None or first < 2:
        raise at.refused("which pads in a way that torch does not: export the model without it.")
    sizes = [n for pair in zip(before[:1:-1], after[:1:-1], strict=True) for n in pair]
    return at.call("pad", at.ref(0), sizes, mode=how)


@operator("DepthToSpace")
def depth_to_space(at: At) -> Ref:
    block = at.options["blocksize"]
    if at.options.get("mode", "DCR") == "CRD":
        return at.call("pixel_shuffle", at.ref(0), block)
    n, c, h, w = at.net.sizes(at.name(0))
    x = at.reshape(at.ref(0), [n, block, block, c // block**2, h, w])
    return at.reshape(at.call("permute", x, [0, 3, 4, 1, 5, 2]), at.out)


@operator("SpaceToDepth")
def space_to_depth(at: At) -> Ref:
    block = at.options["blocksize"]
    n, c, h, w = at.net.sizes(at.name(0))
    x = at.reshape(at.ref(0), [n, c, h // block, block, w // block, block])
    return at.reshape(at.call("permute", x, [0, 3, 5, 1, 2, 4]), at.out)


@operator("Resize", "Upsample", sizes=(1, 2, 3))
def resize(at: At) -> Ref:
    """To the size that the file makes of this input's."""
    if at.shape[:2] != at.made.shape[:2] or not 3 <= at.rank <= 5:
        raise at.refused("which changes the number of channels: export the model without it.")
    mode = at.options.get("mode", "nearest")
    places = at.options.get("coordinate_transformation_mode", "half_pixel")
    if at.kind == "Upsample" or at.opset < 11:
        places = "asymmetric"
    size = list(at.made.shape[2:])
    whole = all(made % n == 0 for made, n in zip(size, at.shape[2:], strict=True))
    if mode == "nearest":
        rounding = at.options.get("nearest_mode", "round_prefer_floor")
        if at.kind == "Upsample" or at.opset < 11:
            rounding = "floor"
        if places == "asymmetric" and (
            rounding == "floor"
            or (
                whole
                and rounding != "ceil"
                and all(m <= 2 * n for m, n in zip(size, at.shape[2:], strict=True))
                and rounding == "round_prefer_floor"
            )
        ):
            return at.call("interpolate", at.ref(0), size, mode="nearest")
        if places in ("half_pixel", "pytorch_half_pixel") and "round" in rounding:
            return at.call("interpolate", at.ref(0), size, mode="nearest-exact")
    modes = {("linear", 3): "linear", ("linear", 4): "bilinear", ("linear", 5): "trilinear"}
    how = modes.get((mode, at.rank), "bicubic" if mode == "cubic" and at.rank == 4 else None)
    coefficient = at.options.get("cubic_coeff_a", -0.75)
    fits = places in ("half_pixel", "pytorch_half_pixel", "align_corners")
    if how is None or not fits or (how == "bicubic" and abs(coefficient + 0.75) > 1e-6):
        raise at.refused(
            f"({mode}, {places}), which torch does not compute so: export with another."
        )
    corners = places == "align_corners"
    smooth = bool(at.options.get("antialias", 0))
    options = {"antialias": True} if smooth else {}
    return at.call("interpolate", at.ref(0), size, mode=how, align_corners=corners, **options)


# ---------------------------------------------------------------- pooling


@operator("GlobalAveragePool")
def global_average(at: At) -> Ref:
    return at.call(f"adaptive_avg_pool{at.rank - 2}d", at.ref(0), 1)


@operator("GlobalMaxPool")
def global_maximum(at: At) -> Ref:
    return at.call("amax", at.ref(0), list(range(2, at.rank)), True)


@operator("MaxPool")
def max_pool(at: At) -> Ref:
    if any(name and at.net.uses[name] for name in at.node.output[1:]):
        raise at.refused("whose places are used: export the model without unpooling.")
    kernel = list(at.options["kernel_shape"])
    n = len(kernel)
    before, after = begins_and_ends(at, kernel, at.shape[2:])
    x = at.ref(0)
    if before != after or any(2 * size > k for size, k in zip(before, kernel, strict=True)):
        x = padded(at, x, before, after, float("-inf"))
        before = [0] * n
    options: dict[str, Any] = {"dilation": list(at.options.get("dilations", [1] * n))}
    if at.options.get("ceil_mode", 0):
        options["ceil_mode"] = True
    strides = list(at.options.get("strides", [1] * n))
    return at.call(f"max_pool{n}d", x, kernel, strides, before, **options)


@operator("AveragePool")
def average_pool(at: At) -> Ref:
    kernel = list(at.options["kernel_shape"])
    n = len(kernel)
    strides = list(at.options.get("strides", [1] * n))
    if any(size != 1 for size in at.options.get("dilations", [1] * n)):
        raise at.refused("with holes in its window: export the model without it.")
    before, after = begins_and_ends(at, kernel, at.shape[2:])
    whole = bool(at.options.get("count_include_pad", 0))
    ceil = {"ceil_mode": True} if at.options.get("ceil_mode", 0) else {}
    x = at.ref(0)
    if before == after and all(2 * size <= k for size, k in zip(before, kernel, strict=True)):
        options = {"count_include_pad": whole} | ceil
        return at.call(f"avg_pool{n}d", x, kernel, strides, before, **options)
    if ceil:
        raise at.refused("with rounded-up sizes beside uneven padding: export without it.")
    x = padded(at, x, before, after)
    x = at.call(f"avg_pool{n}d", x, kernel, strides)
    if whole:
        return x
    # Padding counts for nothing: each mean is of as many numbers as lie in its window.
    counts = _counts(at.shape[2:], at.made.shape[2:], kernel, strides, before)
    full = float(np.prod(kernel))
    return at.call("mul", x, at.table((full / counts)[None, None].astype(np.float32), "counts"))


def _counts(
    sizes: tuple[int, ...],
    made: tuple[int, ...],
    kernel: list[int],
    strides: list[int],
    before: list[int],
) -> Array:
    """How many numbers of the input, not of its padding, each window holds."""
    by_axis = []
    for size, count, k, stride, pad in zip(sizes, made, kernel, strides, before, strict=True):
        starts = np.arange(count) * stride - pad
        by_axis.append(np.minimum(starts + k, size) - np.maximum(starts, 0))
    counts = np.ones(made, np.float64)
    for axis, along in enumerate(by_axis):
        counts *= along.reshape([-1 if i == axis else 1 for i in range(len(made))])
    return np.maximum(counts, 1)
