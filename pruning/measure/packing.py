"""A state as one short file: which weights are kept, coded, and their values. `unpack` gives back every bit.

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


def pack(state: State, pruned: Collection[str], *, deflate: bool = False) -> bytes:
    """The file. pruned: names whose zeros need not be stored; deflate: values too, byte by byte of each number (slower, smaller)."""
    rows: list[tuple[Any, ...]] = []
    body: list[bytes] = []
    for name, value in state.items():
        flat = value.detach().reshape(-1).contiguous()
        kept = (flat != 0).numpy()
        how, places = _places(kept) if name in pruned else ("all", b"")
        if len(places) + int(kept.sum()) * flat.element_size() >= flat.numel() * flat.element_size():
            how, places = "all", b""
        some = flat if how == "all" else flat[torch.from_numpy(kept)]
        values = _values(some, deflate)
        rows.append((name, str(value.dtype).removeprefix("torch."), list(value.shape), how, len(some), len(places), len(values)))
        body += [places, values]
    columns = [list(column) for column in zip(*rows, strict=True)]  # what is alike lies together, and deflates
    told = zlib.compress(json.dumps([deflate, columns if deflate else columns[:-1]], separators=(",", ":")).encode(), 9)
    return b"".join([len(told).to_bytes(4, "little"), told, *body])


def unpack(file: bytes) -> dict[str, Tensor]:
    """The state that was packed, bit by bit (a packed -0.0 is a zero like any other)."""
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
    k = min(range(24), key=lambda k: int((gaps >> k).sum()) + len(gaps) * (1 + k))
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
    low = np.unpackbits(np.frombuffer(code[len(code) - low_bytes :], np.uint8), count=n * k).reshape(n, k)
    return (high << k) + low.astype(np.int64) @ (1 << np.arange(k - 1, -1, -1))


# ---------------------------------------------------------------- values


def _values(flat: Tensor, deflate: bool) -> bytes:
    raw = flat.contiguous().view(torch.uint8).numpy()
    if not deflate:
        return raw.tobytes()
    planes = np.ascontiguousarray(raw.reshape(-1, flat.element_size()).T)  # signs and exponents lie together: those deflate
    return zlib.compress(planes.tobytes(), 6)


def _numbers(values: bytes, kind: torch.dtype, deflated: bool) -> Tensor:
    raw = np.frombuffer(zlib.decompress(values) if deflated else values, np.uint8)
    size = torch.empty(0, dtype=kind).element_size()
    rows = raw.reshape(size, -1).T if deflated else raw
    return torch.frombuffer(bytearray(rows.tobytes()), dtype=kind) if rows.size else torch.empty(0, dtype=kind)
