"""A sparse file: which weights are kept, entropy-coded, and their values. `read` undoes `write`.

Layout: 4 bytes, the length of the head; the head, compressed JSON, a column for each property of
the tensors; their bytes. Which weights of a pruned tensor are kept is written in the shortest of
three ways: a bitmask; a compressed bitmask, for zeros that lie together (channels); or gaps, how
many are pruned before each that is kept, in Rice's code (Rice, 1979; here the unary and the binary
parts apart, as Elias and Fano do), which for zeros anywhere comes within 3 % of the entropy.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bools = NDArray[np.bool_]

ALL, BITMASK, COMPRESSED, GAPS = "all", "bits", "deflated", "gaps"
"""How a tensor's kept weights are written, as it stands in the head."""

LARGE = 1 << 18
"""Bytes of one tensor from which zlib's level 3 does: 5 times faster than 6, 1 % more file."""


def write(state: Mapping[str, Tensor], pruned: Collection[str], *, compress: bool = False) -> bytes:
    """The file.

    pruned: names whose zeros need not be stored
    compress: values too, byte by byte of each number (slower, smaller)
    """
    rows: list[tuple[Any, ...]] = []
    body: list[bytes] = []
    for name, value in state.items():
        flat = value.detach().reshape(-1).contiguous()
        kept = (flat != 0).numpy()
        how, mask = ALL, b""
        if name in pruned and not kept.all():
            how, mask = _write_mask(kept)
        sparse = len(mask) + int(kept.sum()) * flat.element_size()
        if sparse >= flat.nbytes:  # the mask is longer than the zeros that it saves
            how, mask = ALL, b""
        some = flat if how == ALL else flat[torch.from_numpy(kept)]
        values = _write_values(some, compress)
        dtype = str(value.dtype).removeprefix("torch.")
        rows.append((name, dtype, list(value.shape), how, len(some), len(mask), len(values)))
        body += [mask, values]
    # by columns: what is alike lies together, and compresses
    columns = list(zip(*rows, strict=True))
    if not compress:
        del columns[-1:]  # the values' length follows from their number
    text = json.dumps([compress, columns], separators=(",", ":"))
    head = zlib.compress(text.encode(), 9)
    return b"".join([len(head).to_bytes(4, "little"), head, *body])


def read(file: bytes) -> dict[str, Tensor]:
    """The state that was written, bit by bit (a pruned -0.0 is a zero like any other)."""
    end = 4 + int.from_bytes(file[:4], "little")
    compressed, columns = json.loads(zlib.decompress(file[4:end]))
    state = {}
    for name, kind, shape, how, count, mask_size, *length in zip(*columns, strict=True):
        dtype = getattr(torch, kind)
        total = math.prod(shape)
        start, end = end, end + mask_size
        kept = _read_mask(how, file[start:end], total, count)
        size = length[0] if compressed else count * dtype.itemsize
        start, end = end, end + size
        values = _read_values(file[start:end], dtype, compressed)
        flat = torch.zeros(total, dtype=dtype)
        flat[torch.from_numpy(kept)] = values
        state[name] = flat.reshape(shape)
    return state


def entropy(kept: int, total: int) -> float:
    """Bits that say which weights are kept, where all choices are as likely: n·H(kept / n)."""
    if kept in (0, total):
        return 0.0
    p = kept / total
    q = 1 - p
    return -total * (p * math.log2(p) + q * math.log2(q))


# ---------------------------------------------------------------- which weights are kept


def _write_mask(kept: Bools) -> tuple[str, bytes]:
    """The shortest way, and the bytes."""
    bits = np.packbits(kept).tobytes()
    ways = {
        BITMASK: bits,
        COMPRESSED: zlib.compress(bits, 6),
        GAPS: _rice(_gaps(kept)),
    }
    how = min(ways, key=lambda way: len(ways[way]))
    return how, ways[how]


def _read_mask(how: str, mask: bytes, total: int, count: int) -> Bools:
    if how == ALL:
        return np.ones(total, bool)
    if how == GAPS:
        kept = np.zeros(total, bool)
        places = np.cumsum(_unrice(mask, count) + 1) - 1
        kept[places] = True
        return kept
    bits = mask if how == BITMASK else zlib.decompress(mask)
    return _bits(bits, total).astype(bool)


def _bits(data: bytes, count: int | None = None) -> NDArray[np.uint8]:
    """The first `count`, the highest of each byte first."""
    return np.unpackbits(np.frombuffer(data, np.uint8), count=count)


def _gaps(kept: Bools) -> NDArray[np.int64]:
    """How many are pruned before each that is kept."""
    return np.diff(np.flatnonzero(kept), prepend=-1) - 1


def _rice(gaps: NDArray[np.int64]) -> bytes:
    """A byte for k; each gap g as g >> k ones and a zero; then the low k bits of each."""

    def bits(k: int) -> int:
        return int((gaps >> k).sum()) + len(gaps) * (1 + k)

    # where each weight is kept with the same probability, the best k is this one or next to it
    near = int(0.69 * gaps.mean()).bit_length() if len(gaps) else 0
    k = min(range(max(0, near - 2), near + 2), key=bits)
    ends = np.cumsum((gaps >> k) + 1) - 1
    length = int(ends[-1]) + 1 if len(ends) else 0
    unary = np.ones(length, bool)
    unary[ends] = False
    low = (gaps[:, None] >> _shifts(k)) & 1
    packed = [np.packbits(part.astype(bool)).tobytes() for part in (unary, low)]
    return b"".join([bytes([k]), *packed])


def _unrice(code: bytes, n: int) -> NDArray[np.int64]:
    """The n gaps."""
    k = code[0]
    start = len(code) - -(-n * k // 8)
    # between two zeros lie the ones of a gap; the bits after the last zero only fill the byte
    zeros = np.flatnonzero(_bits(code[1:start]) == 0)[:n]
    high = np.diff(zeros, prepend=-1) - 1
    low = _bits(code[start:], n * k).reshape(n, k).astype(np.int64)
    return (high << k) + low @ (1 << _shifts(k))


def _shifts(k: int) -> NDArray[np.int64]:
    """k − 1, ..., 0: the highest bit first."""
    return np.arange(k - 1, -1, -1)


# ---------------------------------------------------------------- values


def _write_values(flat: Tensor, compress: bool) -> bytes:
    """Compressed: a byte that says which planes are, those as one stream, then the other planes."""
    raw = flat.contiguous().view(torch.uint8).numpy()
    if not compress:
        return raw.tobytes()
    # all first bytes, all second ones, ...: signs and exponents lie together
    planes = raw.reshape(-1, flat.element_size()).T
    flags = 0
    good, rest = [], []
    for i, plane in enumerate(planes):
        if _compresses(plane):
            flags |= 1 << i
            good.append(plane.tobytes())
        else:
            rest.append(plane.tobytes())
    stream = b"".join(good)
    level = 6 if len(stream) < LARGE else 3
    return b"".join([bytes([flags]), zlib.compress(stream, level), *rest])


def _compresses(plane: NDArray[np.uint8]) -> bool:
    """Whether a part of it becomes 2 % smaller at least.

    Most of a mantissa is noise, which costs time and gains nothing.
    """
    part = plane[: 1 << 15].tobytes()
    return len(zlib.compress(part, 6)) < 0.98 * len(part)


def _read_values(values: bytes, dtype: torch.dtype, compressed: bool) -> Tensor:
    raw = _read_planes(values, dtype.itemsize) if compressed else values
    if not raw:  # frombuffer takes no empty buffer
        return torch.empty(0, dtype=dtype)
    return torch.frombuffer(bytearray(raw), dtype=dtype)


def _read_planes(values: bytes, width: int) -> bytes:
    """Numbers of `width` bytes, from planes as `_write_values` laid them down."""
    stream = zlib.decompressobj()
    good = stream.decompress(values[1:])
    rest = stream.unused_data
    size = (len(good) + len(rest)) // width
    planes = []
    for i in range(width):
        if values[0] >> i & 1:
            plane, good = good[:size], good[size:]
        else:
            plane, rest = rest[:size], rest[size:]
        planes.append(np.frombuffer(plane, np.uint8))
    return np.stack(planes).T.tobytes()
