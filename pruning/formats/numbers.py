"""The numbers of tensors: read a piece at a time, made float32, judged, written. Memory stays small however large the file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pruning.errors import FileRefused
from pruning.formats import safe
from pruning.formats.match import Take
from pruning.formats.types import FLOATS, WIDTHS, Entry, shown

PIECE = 1 << 20
"""Numbers read at a time."""

_NUMPY = {
    **{
        "F64": "<f8",
        "F32": "<f4",
        "F16": "<f2",
        "BF16": "<u2",
        "I64": "<i8",
        "I32": "<i4",
        "I16": "<i2",
        "I8": "<i1",
        "U8": "<u1",
    },
    "BOOL": "<u1",
}

Numbers = NDArray[Any]


def pieces(file: BinaryIO, entry: Entry) -> Iterator[Numbers]:
    """An entry's numbers in order, flat, up to PIECE at a time: float32 for floats, int64 for whole numbers.

    FileRefused where a float is not finite.
    """
    for raw in _raw(file, entry):
        if entry.dtype not in FLOATS:
            yield raw.astype(np.int64)
            continue
        with np.errstate(over="ignore", invalid="ignore"):
            numbers = (
                (raw.astype(np.uint32) << 16).view(np.float32)
                if entry.dtype == "BF16"
                else raw.astype(np.float32)
            )
        if not np.isfinite(numbers).all():
            where = f"holds NaN or infinite weights in {shown(entry.name)}"
            raise FileRefused(
                f"{where}, and a mask cannot remove those: load a checkpoint from before training diverged."
            )
        yield numbers


def _raw(file: BinaryIO, entry: Entry) -> Iterator[Numbers]:
    kind = np.dtype(_NUMPY[entry.dtype])
    if entry.strides is not None:
        whole = _gathered(file, entry, entry.strides, kind)
        yield from (whole[at : at + PIECE] for at in range(0, len(whole), PIECE))
        return
    for at in range(0, entry.numbers, PIECE):
        yield _read(file, entry.start + at * kind.itemsize, min(PIECE, entry.numbers - at), kind)


def _gathered(
    file: BinaryIO, entry: Entry, strides: tuple[int, ...], kind: np.dtype[Any]
) -> Numbers:
    """A tensor whose numbers do not lie in order (channels_last, a transpose), put in order."""
    if entry.numbers == 0:
        return np.empty(0, kind)
    span = sum((size - 1) * stride for size, stride in zip(entry.shape, strides, strict=True)) + 1
    held = _read(file, entry.start, span, kind)
    steps = tuple(stride * kind.itemsize for stride in strides)
    return np.ascontiguousarray(
        np.lib.stride_tricks.as_strided(held, entry.shape, steps, writeable=False)
    ).reshape(-1)


def _read(file: BinaryIO, start: int, count: int, kind: np.dtype[Any]) -> Numbers:
    file.seek(start)
    held = file.read(count * kind.itemsize)
    if len(held) < count * kind.itemsize:
        raise FileRefused("is cut off: save or download it again.")
    return np.frombuffer(held, kind)


def judge(file: BinaryIO, entries: tuple[Entry, ...]) -> None:
    """Reads every number once; FileRefused for a tensor of numbers we do not read, or one that is not finite."""
    for entry in entries:
        if entry.dtype not in _NUMPY:
            raise FileRefused(
                f"has {shown(entry.name)} in a number format that is not read ({entry.dtype}): save it as float32."
            )
        if entry.dtype in FLOATS:
            for _ in pieces(file, entry):
                pass


def write(file: BinaryIO, takes: tuple[Take, ...], out: BinaryIO) -> None:
    """A safetensors file of what `takes` says: float32, and int64 for counters. Judged before, piece by piece, not by trust."""
    out.write(safe.header((take.name, take.dtype, take.shape) for take in takes))
    for take in takes:
        for numbers in _taken(file, take):
            out.write(numbers.astype("<i8" if take.dtype == "I64" else "<f4", copy=False).tobytes())


def _taken(file: BinaryIO, take: Take) -> Iterator[Numbers]:
    """A take's numbers: of one entry, of two multiplied (weight × mask), or zeros."""
    if not take.parts:
        yield np.zeros(take.bytes // WIDTHS[take.dtype], np.int64)
        return
    read = [pieces(file, part) for part in take.parts]
    for held in zip(*read, strict=True):
        yield held[0] if len(held) == 1 else held[0] * held[1].astype(np.float32)
