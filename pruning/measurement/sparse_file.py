"""A sparse file that anybody opens: safetensors, with a bit for each weight and the values kept.

In the place of a pruned tensor NAME stand NAME.bitmask, uint8 (⌈n / 8⌉,), a bit for each weight in
the tensor's order, the highest bit of each byte first, 1 = kept; NAME.values (kept,); and in the
metadata NAME.shape, "64,3,7,7". All other tensors are as they are, and so is a tensor that this
would not make smaller. `np.unpackbits` reads the bits. For travel the file is compressed by gzip.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Collection, Mapping

import numpy as np
import torch
from torch import Tensor

from pruning.metrics import sparse_bytes, sparse_head
from pruning.storage import safetensors_header

DTYPES = (
    torch.bool,
    torch.uint8,
    torch.int8,
    torch.float8_e5m2,
    torch.float8_e4m3fn,
    torch.int16,
    torch.uint16,
    torch.float16,
    torch.bfloat16,
    torch.int32,
    torch.uint32,
    torch.float32,
    torch.complex64,
    torch.float64,
    torch.int64,
    torch.uint64,
)
"""In the order of the safetensors library, whose files hold the last of these first."""

State = Mapping[str, Tensor]


def dense_head(state: State) -> bytes:
    """The start of the state's own safetensors file, as the library writes it."""
    rows = [(name, dtype_name(t), t.shape, t.nbytes) for name, t in _ordered(state)]
    return safetensors_header(rows)


def dense_bytes(state: State) -> int:
    """Bytes of the state as a safetensors file."""
    return len(dense_head(state)) + sum(value.nbytes for value in state.values())


def length(state: State, pruned: Collection[str]) -> int:
    """Bytes of the file that `write` makes. pruned: names whose zeros need not be stored."""
    dense = dense_bytes(state)
    saved = 0
    for name in pruned:
        value = state[name]
        kept = int(value.count_nonzero())
        saved += value.nbytes - sparse_bytes(value.numel(), kept, value.element_size())
    return min(dense, dense - saved + sparse_head(pruned))


def write(state: State, pruned: Collection[str]) -> bytes:
    """The file. pruned: names whose zeros need not be stored."""
    return b"".join(_parts(state, pruned))


def compressed(state: State, pruned: Collection[str]) -> bytes:
    """The file for travel: what `gunzip` makes `write`'s file of."""
    head, values, bits = _parts(state, pruned)
    # A member each, which gzip reads as one: bits of zeros that lie together (channels) are worth a
    # search; of numbers only signs and exponents repeat, and a search would take three times as
    # long and gain nothing.
    return b"".join([_gzip(head), _gzip(values, zlib.Z_RLE), _gzip(bits)])


def _gzip(data: bytes, strategy: int = zlib.Z_DEFAULT_STRATEGY) -> bytes:
    stream = zlib.compressobj(6, zlib.DEFLATED, 16 + zlib.MAX_WBITS, 9, strategy)
    return stream.compress(data) + stream.flush()


def _parts(state: State, pruned: Collection[str]) -> tuple[bytes, bytes, bytes]:
    """(head, tensors and values, bitmasks): one after another they are the file."""
    dense = dense_bytes(state)
    if length(state, pruned) == dense:
        return dense_head(state), b"".join(_raw(value) for _, value in _ordered(state)), b""
    values: dict[str, Tensor] = {}
    bits: dict[str, bytes] = {}
    shapes: dict[str, str] = {}
    for name, value in state.items():
        flat = value.detach().reshape(-1)
        keep = flat != 0
        kept = int(keep.sum())
        whole = sparse_bytes(len(flat), kept, flat.element_size()) == flat.nbytes
        if name not in pruned or whole:
            values[name] = value
            continue
        values[f"{name}.values"] = flat[keep]
        bits[f"{name}.bitmask"] = np.packbits(keep.numpy()).tobytes()
        shapes[f"{name}.shape"] = ",".join(map(str, value.shape))
    ordered = _ordered(values)
    rows = [(name, dtype_name(t), list(t.shape), t.nbytes) for name, t in ordered]
    rows += [(name, "U8", [len(mask)], len(mask)) for name, mask in bits.items()]
    # As long as `length` says, whatever was pruned: a page knows it before there is a file.
    least = len(dense_head(state)) + sparse_head(pruned)
    head = safetensors_header(rows, shapes, least=least)
    return head, b"".join(_raw(value) for _, value in ordered), b"".join(bits.values())


def _ordered(state: State) -> list[tuple[str, Tensor]]:
    # The library's own order, then by name: offsets are text, so their order counts.
    return sorted(state.items(), key=lambda item: (-DTYPES.index(item[1].dtype), item[0]))


def _raw(value: Tensor) -> bytes:
    flat = value.detach().reshape(-1).contiguous()
    return flat.view(torch.uint8).numpy().tobytes() if flat.numel() else b""


def dtype_name(value: Tensor) -> str:
    """As it stands in the header: F32, BF16, I64, BOOL. Names differ in length, and so do files."""
    kind = str(value.dtype).removeprefix("torch.")
    if kind.startswith("float8"):
        return kind.replace("float8", "F8").removesuffix("fn").upper()
    letters = {"bfloat": "BF", "float": "F", "uint": "U", "int": "I", "complex": "C"}
    for word, letter in letters.items():
        if kind.startswith(word):
            return kind.replace(word, letter)
    return kind.upper()


def entropy(kept: int, total: int) -> float:
    """Bits that say which weights are kept, where all choices are as likely: n·H(kept / n)."""
    if kept in (0, total):
        return 0.0
    p = kept / total
    q = 1 - p
    return -total * (p * math.log2(p) + q * math.log2(q))
