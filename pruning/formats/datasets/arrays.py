"""An npz of inputs and targets: x and y, or x_train, y_train, x_test, y_test; never a pickle.

What each array's header says is held against the bytes that there are before one is read, and read
in pieces: a header of a hundred bytes can claim any size.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from pruning.errors import FileRefused
from pruning.formats.datasets.images import PARTS
from pruning.formats.datasets.writer import Writer, Written, capped, finish, judge_classes

INPUTS = ("x", "images", "image", "data", "inputs", "features", "pixels")
TARGETS = ("y", "labels", "label", "targets", "target", "classes")
PIECE = 8 << 20  # bytes of an array that are read at once
LONGEST_HEADER = 10_000  # bytes
DEEPEST = 6  # dimensions
MOST_TARGETS = 100_000_000


@dataclass(frozen=True)
class Header:
    """What an array claims to be, and the member that holds it."""

    member: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def read(opened: zipfile.ZipFile, folder: Path, most: int) -> Written:
    """Read the inputs and targets of an npz. Raises FileRefused."""
    pairs, notes = _pairs(opened)
    first = pairs[0][1]
    for _, x, y in pairs:
        _judge_pair(x, y, first)
    pictures, last = _layout(first.shape[1:])
    dtype = "uint8" if first.dtype == np.uint8 else "float32"
    shape = _first(first.shape[1:]) if last else first.shape[1:]
    if pictures and len(shape) == 2:
        shape = (1, *shape)
    if last:
        notes.append("Channels were last, and were put first.")
    writer = Writer(folder, shape or (1,), dtype, most)
    for _, x, _ in pairs:
        for piece in _pieces(opened, x):
            piece = np.moveaxis(piece, -1, 1) if last else piece
            writer.write(piece.reshape(len(piece), *writer.shape))
    writer.close()
    targets = np.concatenate([_all(opened, y).reshape(y.shape[0], -1) for _, _, y in pairs])
    classes, targets = _targets(targets)
    finish(folder, targets, _divided(pairs))
    return Written("arrays", writer.shape, dtype, writer.examples, classes, notes)


Pair = tuple[int | None, Header, Header]
"""(0, 1, 2 for train, validation, test, or None; inputs; targets)."""


def _pairs(opened: zipfile.ZipFile) -> tuple[list[Pair], list[str]]:
    """Inputs and targets of each part; a note on what else there is."""
    roles: dict[tuple[int | None, str], Header] = {}
    others = []
    for info in opened.infolist():
        name = info.filename.removesuffix(".npy")
        role = _role(name)
        if not info.filename.endswith(".npy") or role is None or role in roles:
            others.append(capped(info.filename))
            continue
        roles[role] = _header(opened, info)
    parts = sorted({part for part, _ in roles}, key=lambda part: -1 if part is None else part)
    pairs = [
        (part, roles[part, "x"], roles[part, "y"])
        for part in parts
        if (part, "x") in roles and (part, "y") in roles
    ]
    if not pairs:
        names = ", ".join(capped(info.filename) for info in opened.infolist()[:6]) or "nothing"
        raise FileRefused(
            f"holds {names}, but no arrays x and y (or x_train, y_train, x_test, y_test): "
            "save it with numpy.savez('data.npz', x=inputs, y=targets)."
        )
    if len(pairs) > 1 and pairs[0][0] is None:
        pairs = pairs[:1]  # the whole beside its own parts
    notes = [f"Not used: {', '.join(others[:6])}."] if others else []
    return pairs, notes


def _role(name: str) -> tuple[int | None, str] | None:
    """x_train, train_images, X -> (its part, "x" or "y"); None for other names."""
    words = name.lower().split("_")
    part = next((PARTS[word] for word in words if word in PARTS), None)
    kinds = [word for word in words if word not in PARTS]
    if len(kinds) != 1:
        return None
    if kinds[0] in INPUTS:
        return part, "x"
    return (part, "y") if kinds[0] in TARGETS else None


def _header(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> Header:
    """What an array claims, held against its bytes. Raises FileRefused."""
    if info.flag_bits & 0x1:
        raise FileRefused("is an encrypted zip file: save it again with numpy.savez.")
    with opened.open(info) as file:
        shape, dtype = _claims(file, capped(info.filename))
        start = file.tell()
    name = capped(info.filename)
    if dtype.hasobject:
        raise FileRefused(
            f"holds Python objects in {name}, which are pickles, and those are programs: "
            "save plain numbers, numpy.savez('data.npz', x=numpy.stack(inputs), y=targets)."
        )
    if dtype.kind not in "buif":
        raise FileRefused(f"holds {dtype} in {name}: save whole numbers or floats.")
    if not shape or len(shape) > DEEPEST or prod(shape) * dtype.itemsize != info.file_size - start:
        raise FileRefused(
            f"has {info.file_size - start:,} bytes in {name}, and its header claims the shape "
            f"{shape}: save it again with numpy.savez."
        )
    return Header(info.filename, shape, dtype)


def _claims(file: IO[bytes], name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of an .npy header."""
    try:
        version = npy.read_magic(file)
        reader = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, columns_first, dtype = reader(file, max_header_size=LONGEST_HEADER)
    except Exception:
        raise FileRefused(f"has a damaged array, {name}: save it again with numpy.savez.") from None
    if columns_first and len(shape) > 1:
        raise FileRefused(
            f"has {name} in Fortran's order: save numpy.ascontiguousarray(array) instead."
        )
    return tuple(int(size) for size in shape), dtype


def _judge_pair(x: Header, y: Header, first: Header) -> None:
    if x.shape[0] != y.shape[0]:
        raise FileRefused(
            f"has {x.shape[0]:,} inputs in {capped(x.member)} but {y.shape[0]:,} targets in "
            f"{capped(y.member)}: save one target for each input."
        )
    if x.shape[1:] != first.shape[1:] or x.dtype != first.dtype:
        raise FileRefused(
            f"has inputs of different shapes or kinds in {capped(first.member)} and "
            f"{capped(x.member)}: save them alike."
        )
    if not x.shape[0] or not prod(x.shape):
        raise FileRefused(f"has no examples in {capped(x.member)}: save at least some.")
    if prod(y.shape) > MOST_TARGETS:
        raise FileRefused(f"has {prod(y.shape):,} targets, more than are read: bring fewer.")


def _layout(shape: tuple[int, ...]) -> tuple[bool, bool]:
    """(whether one input is a picture, whether its channels come last)."""
    if len(shape) == 3:
        return True, shape[2] in (1, 3, 4) and shape[0] not in (1, 3, 4)
    # (8, 8) and more on both sides; (3, 40) is a series of three channels.
    return len(shape) == 2 and min(shape) >= 8, False


def _first(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[-1], *shape[:-1])


def _pieces(opened: zipfile.ZipFile, header: Header) -> Iterator[NDArray[Any]]:
    """Some examples at a time: (examples, *shape)."""
    row = prod(header.shape[1:]) * header.dtype.itemsize
    rows = max(1, PIECE // max(row, 1))
    with opened.open(header.member) as file:
        _claims(file, header.member)
        done = 0
        while done < header.shape[0]:
            count = min(rows, header.shape[0] - done)
            content = file.read(count * row)
            if len(content) != count * row:
                raise FileRefused(f"is cut off in {capped(header.member)}: save it again.")
            yield np.frombuffer(content, header.dtype).reshape(count, *header.shape[1:])
            done += count


def _all(opened: zipfile.ZipFile, header: Header) -> NDArray[Any]:
    return np.concatenate(list(_pieces(opened, header)))


def _targets(values: NDArray[Any]) -> tuple[list[str], NDArray[Any]]:
    """(names of classes, indices (n,)), or ([], values (n, outputs) float32).

    values: (n, 1), or (n, k): one-hot rows are classes, others are values.
    """
    if values.dtype.kind != "f" and values.shape[1] == 1:
        numbers, index = np.unique(values[:, 0], return_inverse=True)
        names = [str(int(number)) for number in numbers]
        targets = index.astype(np.int64)
        judge_classes(names, targets)
        return names, targets
    if values.shape[1] > 1 and ((values == 0) | (values == 1)).all():
        if (values.sum(1) == 1).all():
            targets = values.argmax(1).astype(np.int64)
            names = [str(number) for number in range(values.shape[1])]
            judge_classes(names, targets)
            return names, targets
    numbers = values.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise FileRefused("holds targets that are NaN or infinite: leave those examples out.")
    return [], numbers


def _divided(pairs: list[Pair]) -> NDArray[Any] | None:
    if len(pairs) < 2:
        return None
    return np.concatenate([np.full(x.shape[0], part) for part, x, _ in pairs])
