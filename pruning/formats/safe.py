"""A safetensors file's header, read and judged without the library.

https://huggingface.co/docs/safetensors/index#format: 8 bytes of header length, the header as JSON,
then the numbers without gaps. The library checks gaps and sizes too, but only of a whole file that
it maps or gets as bytes; it takes names and shapes of any kind, a name twice, and keys it does not
know.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, BinaryIO

from pruning.errors import FileRefused
from pruning.formats import limits
from pruning.formats.magic import SAFETENSORS
from pruning.formats.names import judge_name, judge_shape
from pruning.formats.types import WIDTHS, Contents, Entry, shown

SAVE_AGAIN = "save it again with safetensors.torch.save_file"


def contents(file: BinaryIO, length: int) -> Contents:
    """The tensors that the header of a file of `length` bytes describes.

    FileRefused where it claims what is not there.
    """
    file.seek(0)
    # Judged before it is read: the length is a claim like all others.
    size = int.from_bytes(file.read(8), "little")
    if size > limits.HEADER:
        raise FileRefused(
            f"has a header of {size:,} bytes, over the {limits.HEADER:,} that are read: "
            f"{SAVE_AGAIN}."
        )
    if 8 + size > length:
        raise FileRefused(
            f"is cut off: its header should take {size:,} bytes, and the file has {length:,}: "
            "copy or download it again."
        )
    header = _header(file.read(size))
    # The one key that is no tensor: free text, which nobody needs here.
    header.pop("__metadata__", None)
    if not header:
        raise FileRefused(f"holds no tensors: {SAVE_AGAIN}.")
    if len(header) > limits.TENSORS:
        raise FileRefused(
            f"lists {len(header):,} tensors, over the {limits.TENSORS:,} that are read: "
            "keep the model's own weights only."
        )
    entries = tuple(_entry(name, about, 8 + size) for name, about in header.items())
    _judge_places(entries, 8 + size, length)
    return Contents(SAFETENSORS, entries)


def _header(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_each_once)
    except (ValueError, RecursionError):
        raise FileRefused(f"has a header that is not JSON: {SAVE_AGAIN}.") from None
    if not isinstance(header, dict):
        raise FileRefused(f"has a header that is not a table of tensors: {SAVE_AGAIN}.")
    return header


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object as a dict, each name once: readers differ in which of two they take."""
    table = dict(pairs)
    if len(table) < len(pairs):
        raise FileRefused(f"lists a name twice in its header: {SAVE_AGAIN}.")
    return table


def _entry(name: str, about: Any, base: int) -> Entry:
    """The tensor that the header describes. base: where the numbers begin, in bytes."""
    judge_name(name)
    if not isinstance(about, dict) or set(about) != {"dtype", "shape", "data_offsets"}:
        raise FileRefused(f"does not say dtype, shape and place of {shown(name)}: {SAVE_AGAIN}.")
    shape = judge_shape(name, about["shape"])
    dtype = about["dtype"]
    if not isinstance(dtype, str) or dtype not in WIDTHS:
        raise FileRefused(
            f"has {shown(name)} in a number format that is not read ({shown(dtype, 20)}): "
            "save it as float32."
        )
    offsets = about["data_offsets"]
    # `type`, because True is an int.
    are_two = isinstance(offsets, list) and [type(offset) for offset in offsets] == [int, int]
    if not are_two or min(offsets) < 0:
        raise FileRefused(f"does not say where {shown(name)} lies: {SAVE_AGAIN}.")
    start, end = offsets
    entry = Entry(name, shape, dtype, base + start)
    if end - start != entry.bytes:
        raise FileRefused(
            f"gives {shown(name)} another number of bytes than its shape takes: {SAVE_AGAIN}."
        )
    return entry


def _judge_places(entries: Iterable[Entry], base: int, length: int) -> None:
    """The numbers follow each other from `base` to the file's end, without a gap or an overlap."""
    end = base
    # By bytes too, so that an empty tensor comes before the one that starts where it does.
    for entry in sorted(entries, key=lambda entry: (entry.start, entry.bytes)):
        if entry.start != end:
            overlaps = entry.start < end
            fault = "shares its bytes with another tensor" if overlaps else "lies after a gap"
            raise FileRefused(
                f"is not a sound safetensors file ({shown(entry.name)} {fault}): {SAVE_AGAIN}."
            )
        end += entry.bytes
    if end != length:
        fault = "is cut off" if end > length else "has bytes after its last tensor"
        raise FileRefused(
            f"{fault}: its header describes {end:,} bytes, and the file has {length:,}: "
            "copy or download it again."
        )
