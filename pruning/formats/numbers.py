"""The numbers of tensors: read in pieces, made float32, judged, written.

Memory stays small however large the file is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from pruning.errors import FileRefused
from pruning.formats.archive import CUT_OFF
from pruning.formats.match import MatchedTensor
from pruning.formats.types import FLOATS, Entry, shown
from pruning.storage import safetensors_header

PIECE = 1 << 20
"""Numbers read at a time."""

_NUMPY = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",  # numpy has no bfloat16: its bits are read, and widened in `_float32`
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "<i1",
    "U8": "<u1",
    "BOOL": "<u1",
}

Numbers = NDArray[Any]


def pieces(file: BinaryIO, entry: Entry) -> Iterator[Numbers]:
    """An entry's numbers in order, flat, up to PIECE at a time.

    float32 for floats, int64 for whole numbers. FileRefused where a float is not finite.
    """
    for raw in _raw(file, entry):
        if entry.dtype not in FLOATS:
            yield raw.astype(np.int64)
            continue
        numbers = _float32(raw, entry.dtype)
        if not np.isfinite(numbers).all():
            raise FileRefused(
                f"holds NaN or infinite weights in {shown(entry.name)}, and a mask cannot remove "
                "those: load a checkpoint from before training diverged."
            )
        yield numbers


def _float32(raw: Numbers, dtype: str) -> Numbers:
    if dtype == "BF16":
        # A bfloat16 is the upper half of a float32.
        return (raw.astype(np.uint32) << 16).view(np.float32)
    # A float64 too large for float32 becomes infinite, which is refused: no warning is needed.
    with np.errstate(over="ignore", invalid="ignore"):
        return raw.astype(np.float32)


def _raw(file: BinaryIO, entry: Entry) -> Iterator[Numbers]:
    dtype = np.dtype(_NUMPY[entry.dtype])
    starts = range(0, entry.numbers, PIECE)
    if entry.strides is not None:
        ordered = _in_order(file, entry, entry.strides, dtype)
        yield from (ordered[start : start + PIECE] for start in starts)
        return
    for start in starts:
        count = min(PIECE, entry.numbers - start)
        yield _read(file, entry.start + start * dtype.itemsize, count, dtype)


def _in_order(
    file: BinaryIO, entry: Entry, strides: tuple[int, ...], dtype: np.dtype[Any]
) -> Numbers:
    """A tensor whose numbers do not lie in order (channels_last, a transpose), put in order."""
    if entry.numbers == 0:
        return np.empty(0, dtype)
    # From the first number to the last; `checkpoint` has judged that the file holds them.
    span = sum((size - 1) * stride for size, stride in zip(entry.shape, strides, strict=True)) + 1
    numbers = _read(file, entry.start, span, dtype)
    steps = tuple(stride * dtype.itemsize for stride in strides)
    view = as_strided(numbers, entry.shape, steps, writeable=False)
    return np.ascontiguousarray(view).reshape(-1)


def _read(file: BinaryIO, start: int, count: int, dtype: np.dtype[Any]) -> Numbers:
    file.seek(start)
    content = file.read(count * dtype.itemsize)
    if len(content) < count * dtype.itemsize:
        raise FileRefused(CUT_OFF)
    return np.frombuffer(content, dtype)


def judge(file: BinaryIO, entries: tuple[Entry, ...]) -> None:
    """Reads every float once.

    FileRefused for a tensor of a dtype that is not read, or with a number that is not finite.
    """
    for entry in entries:
        if entry.dtype not in _NUMPY:
            raise FileRefused(
                f"has {shown(entry.name)} in a number format that is not read ({entry.dtype}): "
                "save it as float32."
            )
        # Whole numbers are always finite, and need not be read.
        if entry.dtype in FLOATS:
            for _ in pieces(file, entry):
                pass


def write(file: BinaryIO, tensors: tuple[MatchedTensor, ...], out: BinaryIO) -> None:
    """A safetensors file of these tensors: float32, and int64 for counters, each piece judged."""
    entries = [tensor.entry for tensor in tensors]
    rows = ((entry.name, entry.dtype, entry.shape, entry.bytes) for entry in entries)
    out.write(safetensors_header(rows, {"format": "pt"}))
    for tensor in tensors:
        dtype = "<i8" if tensor.dtype == "I64" else "<f4"
        for numbers in _numbers_of(file, tensor):
            out.write(numbers.astype(dtype, copy=False).tobytes())


def _numbers_of(file: BinaryIO, tensor: MatchedTensor) -> Iterator[Numbers]:
    """The numbers of one part, of two multiplied (weight × mask), or zeros."""
    if not tensor.parts:
        yield np.zeros(tensor.entry.numbers, np.int64)
        return
    read = [pieces(file, part) for part in tensor.parts]
    for weight, *masks in zip(*read, strict=True):
        for mask in masks:
            weight = weight * mask.astype(np.float32)
        yield weight
