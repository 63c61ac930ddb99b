"""safetensors, read without the library: its header is JSON, and the library takes names, shapes and numbers on trust.

https://huggingface.co/docs/safetensors/index#format: 8 bytes of header length, the header, then the numbers without gaps.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, BinaryIO

from pruning.errors import FileRefused
from pruning.formats import limits
from pruning.formats.magic import SAFETENSORS
from pruning.formats.names import judge_name, judge_shape
from pruning.formats.types import WIDTHS, Contents, Entry, Shape, shown

AGAIN = "save it again with safetensors.torch.save_file"


def contents(file: BinaryIO, length: int) -> Contents:
    """The tensors that the header of a file of `length` bytes describes; FileRefused where it lies."""
    file.seek(0)
    room = int.from_bytes(file.read(8), "little")
    if room > limits.HEADER:
        raise FileRefused(
            f"has a header of {room:,} bytes, over the {limits.HEADER:,} that are read: {AGAIN}."
        )
    if 8 + room > length:
        raise FileRefused(
            f"is cut off: its header should take {room:,} bytes, and the file has {length:,}: copy or download it again."
        )
    header = _header(file.read(room))
    header.pop("__metadata__", None)
    if not header:
        raise FileRefused(f"holds no tensors: {AGAIN}.")
    if len(header) > limits.TENSORS:
        raise FileRefused(
            f"lists {len(header):,} tensors, over the {limits.TENSORS:,} that are read: keep the model's own weights only."
        )
    entries = tuple(_entry(name, about, 8 + room) for name, about in header.items())
    _judge_order(entries, 8 + room, length)
    return Contents(SAFETENSORS, entries)


def _header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_once)
    except (ValueError, RecursionError):
        raise FileRefused(f"has a header that is not JSON: {AGAIN}.") from None
    if not isinstance(header, dict):
        raise FileRefused(f"has a header that is not a table of tensors: {AGAIN}.")
    return header


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict, each name once."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise FileRefused(f"lists a name twice in its header: {AGAIN}.")
    return found


def _entry(name: str, about: Any, base: int) -> Entry:
    judge_name(name)
    if not isinstance(about, dict) or set(about) != {"dtype", "shape", "data_offsets"}:
        raise FileRefused(f"does not say dtype, shape and place of {shown(name)}: {AGAIN}.")
    shape, dtype = judge_shape(name, about["shape"]), about["dtype"]
    if not isinstance(dtype, str) or dtype not in WIDTHS:
        raise FileRefused(
            f"has {shown(name)} in a number format that is not read ({shown(dtype, 20)}): save it as float32."
        )
    ends = about["data_offsets"]
    if not (
        isinstance(ends, list)
        and len(ends) == 2
        and all(type(end) is int and end >= 0 for end in ends)
    ):
        raise FileRefused(f"does not say where {shown(name)} lies: {AGAIN}.")
    entry = Entry(name, shape, dtype, base + ends[0])
    if ends[1] - ends[0] != entry.bytes:
        raise FileRefused(
            f"gives {shown(name)} another number of bytes than its shape takes: {AGAIN}."
        )
    return entry


def _judge_order(entries: Iterable[Entry], base: int, length: int) -> None:
    """The numbers follow each other from `base` to the file's end, without a gap and without sharing."""
    end = base
    for entry in sorted(entries, key=lambda e: (e.start, e.bytes)):
        if entry.start != end:
            fault = (
                "shares its bytes with another tensor" if entry.start < end else "lies after a gap"
            )
            raise FileRefused(
                f"is not a sound safetensors file ({shown(entry.name)} {fault}): {AGAIN}."
            )
        end += entry.bytes
    if end != length:
        fault = "is cut off" if end > length else "has bytes after its last tensor"
        raise FileRefused(
            f"{fault}: its header describes {end:,} bytes, and the file has {length:,}: copy or download it again."
        )


def header(tensors: Iterable[tuple[str, str, Shape]]) -> bytes:
    """The start of a safetensors file of these (name, dtype, shape), whose numbers must follow in this order."""
    table: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, dtype, shape in tensors:
        start, end = end, end + Entry(name, shape, dtype, 0).bytes
        table[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(table, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the numbers start aligned
    return len(text).to_bytes(8, "little") + text
