"""A state as one short file: which weights are kept, coded, and their values. `read` gives back every bit.

Layout: 4 bytes, the length of the head; the head, deflated JSON, a column for each thing said of the tensors; their bytes.
Which weights of a pruned tensor are kept is written in the shortest of three ways: "bits", one a weight; "deflated", those
deflated, for zeros that lie together (channels); "gaps", how many are gone before each that is kept, in Rice's code (Rice,
1979; here the unary and the binary parts apart, as Elias and Fano do), which for zeros anywhere comes within 3 % of the entropy.
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
State = Mapping[str, Tensor]


LARGE = 1 << 18
"""Bytes of one tensor's exponents from which zlib's level 3 does: 5 times faster than 6, for a hundredth of the file."""


def write(state: State, pruned: Collection[str], *, deflate: bool = False) -> bytes:
    """The file. pruned: names whose zeros need not be stored; deflate: values too, byte by byte of each number (slower, smaller)."""
    rows: list[tuple[Any, ...]] = []
    body: list[bytes] = []
    for name, value in state.items():
        flat = value.detach().reshape(-1).contiguous()
        kept = (flat != 0).numpy()
        how, places = _places(kept) if name in pruned and not kept.all() else ("all", b"")
        if (
            len(places) + int(kept.sum()) * flat.element_size()
            >= flat.numel() * flat.element_size()
        ):
            how, places = "all", b""
        some = flat if how == "all" else flat[torch.from_numpy(kept)]
        values = _values(some, deflate)
        rows.append(
            (
                name,
                str(value.dtype).removeprefix("torch."),
                list(value.shape),
                how,
                len(some),
                len(places),
                len(values),
            )
        )
        body += [places, values]
    columns = [
        list(column) for column in zip(*rows, strict=True)
    ]  # what is alike lies together, and deflates
    told = zlib.compress(
        json.dumps([deflate, columns if deflate else columns[:-1]], separators=(",", ":")).encode(),
        9,
    )
    return b"".join([len(told).to_bytes(4, "little"), told, *body])


def read(file: bytes) -> dict[str, Tensor]:
    """The state that was written, bit by bit (a written -0.0 is a zero like any other)."""
    end = 4 + int.from_bytes(file[:4], "little")
    deflated, columns = json.loads(zlib.decompress(file[4:end]))
    state = {}
    for name, kind, shape, how, count, places, *length in zip(*columns, strict=True):
        dtype, total = getattr(torch, kind), math.prod(shape)
        size = length[0] if deflated else count * dtype.itemsize
        kept = _kept(how, file[end : end + places], total, count)
        values = _numbers(file[end + places : end + places + size], dtype, deflated)
        flat = torch.zeros(total, dtype=dtype)
        flat[torch.from_numpy(kept)] = values
        state[name], end = flat.reshape(shape), end + places + size
    return state


def entropy(kept: int, total: int) -> float:
    """Bits that say which `kept` of `total` weights are kept, when any are as likely: n·H(kept / n)."""
    if kept in (0, total):
        return 0.0
    p = kept / total
    return -total * (p * math.log2(p) + (1 - p) * math.log2(1 - p))


# ---------------------------------------------------------------- which are kept


def _places(kept: Bools) -> tuple[str, bytes]:
    bits = np.packbits(kept).tobytes()
    ways = {"bits": bits, "deflated": zlib.compress(bits, 6), "gaps": _rice(_gaps(kept))}
    how = min(ways, key=lambda way: len(ways[way]))
    return how, ways[how]


def _kept(how: str, places: bytes, total: int, count: int) -> Bools:
    if how == "all":
        return np.ones(total, bool)
    if how == "gaps":
        kept = np.zeros(total, bool)
        kept[np.cumsum(_unrice(places, count) + 1) - 1] = True
        return kept
    bits = places if how == "bits" else zlib.decompress(places)
    return np.unpackbits(np.frombuffer(bits, np.uint8), count=total).astype(bool)


def _gaps(kept: Bools) -> NDArray[np.int64]:
    """How many are gone before each that is kept."""
    return np.diff(np.flatnonzero(kept), prepend=-1) - 1


def _rice(gaps: NDArray[np.int64]) -> bytes:
    """A byte for k; then each gap g as g >> k ones and a zero, all of those first; then the low k bits of each."""
    near = (
        int(0.69 * gaps.mean()).bit_length() if len(gaps) else 0
    )  # the best k for gaps of equal chances, or next to it
    k = min(
        range(max(0, near - 2), near + 2),
        key=lambda k: int((gaps >> k).sum()) + len(gaps) * (1 + k),
    )
    ends = np.cumsum((gaps >> k) + 1) - 1
    unary = np.ones(int(ends[-1]) + 1 if len(ends) else 0, bool)
    unary[ends] = False
    low = ((gaps[:, None] >> np.arange(k - 1, -1, -1)) & 1).astype(bool)
    return bytes([k]) + np.packbits(unary).tobytes() + np.packbits(low).tobytes()


def _unrice(code: bytes, n: int) -> NDArray[np.int64]:
    k = code[0]
    low_bytes = -(-n * k // 8)
    unary = np.unpackbits(np.frombuffer(code[1 : len(code) - low_bytes], np.uint8))
    high = np.diff(np.flatnonzero(unary == 0)[:n], prepend=-1) - 1
    low = np.unpackbits(
        np.frombuffer(code[len(code) - low_bytes :], np.uint8), count=n * k
    ).reshape(n, k)
    return (high << k) + low.astype(np.int64) @ (1 << np.arange(k - 1, -1, -1))


# ---------------------------------------------------------------- values


def _values(flat: Tensor, deflate: bool) -> bytes:
    raw = flat.contiguous().view(torch.uint8).numpy()
    if not deflate:
        return raw.tobytes()
    planes = raw.reshape(
        -1, flat.element_size()
    ).T  # all first bytes, all second ones, ...: signs and exponents lie together
    worth = [_deflates(plane) for plane in planes]
    good = b"".join(plane.tobytes() for plane, it in zip(planes, worth, strict=True) if it)
    packed = zlib.compress(good, 6 if len(good) < LARGE else 3)
    plain = b"".join(plane.tobytes() for plane, it in zip(planes, worth, strict=True) if not it)
    return bytes([sum(it << i for i, it in enumerate(worth))]) + packed + plain


def _deflates(plane: NDArray[np.uint8]) -> bool:
    """Whether a look at a part of it promises 2 % at least: most of a mantissa is noise, which costs time and gives nothing."""
    part = plane[: 1 << 15].tobytes()
    return len(zlib.compress(part, 6)) < 0.98 * len(part)


def _numbers(values: bytes, kind: torch.dtype, deflated: bool) -> Tensor:
    raw = _planes(values, kind.itemsize).T.tobytes() if deflated else values
    return torch.frombuffer(bytearray(raw), dtype=kind) if raw else torch.empty(0, dtype=kind)


def _planes(values: bytes, width: int) -> NDArray[np.uint8]:
    """(width, numbers) bytes, as `_values` laid them down."""
    worth = [bool(values[0] >> i & 1) for i in range(width)]
    stream = zlib.decompressobj()
    packed = stream.decompress(values[1:])
    plain = stream.unused_data
    rows = {True: np.frombuffer(packed, np.uint8), False: np.frombuffer(plain, np.uint8)}
    split = {it: iter(rows[it].reshape(max(worth.count(it), 1), -1)) for it in (True, False)}
    return np.stack([next(split[it]) for it in worth])
