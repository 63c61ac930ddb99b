"""What a file holds, described. Plain values only: a description is made before any number is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from pathlib import PurePath

Shape = tuple[int, ...]

WIDTHS: dict[str, int] = {
    **{
        "F64": 8,
        "F32": 4,
        "F16": 2,
        "BF16": 2,
        "I64": 8,
        "I32": 4,
        "I16": 2,
        "I8": 1,
        "U8": 1,
        "BOOL": 1,
    },
    **{"U64": 8, "U32": 4, "U16": 2, "C64": 8, "C128": 16, "F8_E4M3": 1, "F8_E5M2": 1},
}
"""safetensors' word for a dtype -> bytes of one number."""

FLOATS = ("F64", "F32", "F16", "BF16")
WHOLE = ("I64", "I32", "I16", "I8", "U8", "BOOL")


@dataclass(frozen=True)
class Entry:
    """One tensor of a file. start: where its first number lies in the file, in bytes; strides: in numbers, None when they lie in order."""

    name: str
    shape: Shape
    dtype: str
    start: int
    strides: Shape | None = None

    @property
    def numbers(self) -> int:
        return prod(self.shape)

    @property
    def bytes(self) -> int:
        return self.numbers * WIDTHS[self.dtype]


@dataclass(frozen=True)
class Contents:
    """A file that could be read: its weights, by the names they have there.

    wrappers: the dictionary keys that led to them, outermost first; notes: what was left out, a sentence each.
    """

    format: str
    entries: tuple[Entry, ...]
    wrappers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listed:
    """One tensor as a reading lists it. dtype: safetensors' word (F32, BF16, I64); bytes: in the file."""

    name: str
    shape: Shape
    dtype: str
    bytes: int


@dataclass(frozen=True)
class Reading:
    """What a reading of a file says, without trusting it. size: bytes of the file.

    format is None when it is none that is known; refusal: one sentence with the way out, None when the weights could be used.
    wrappers: what was taken off on the way to the names (dictionary keys, and prefixes that every name shared).
    """

    file: str
    size: int
    format: str | None = None
    tensors: tuple[Listed, ...] = ()
    wrappers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    refusal: str | None = None


@dataclass(frozen=True)
class Expected:
    """What an architecture's state_dict holds: shape by name. whole: the names that hold whole numbers (counters, indices)."""

    shapes: Mapping[str, Shape]
    whole: frozenset[str] = frozenset()


def shown(name: object, length: int = 60) -> str:
    """A name from a file, safe to show anywhere: ASCII letters, digits, `_`, `-` and `.`, the rest as `?`, cut to `length`."""
    text = re.sub(r"[^A-Za-z0-9_.:\-]", "?", str(name)[: length + 1])
    return text if len(text) <= length else text[: length - 3] + "..."


def file_name(name: str) -> str:
    """A file's own name without its folders, safe to show and to keep; "file" when nothing is left."""
    last = PurePath(name.replace("\\", "/")).name
    clean = re.sub(r"[^A-Za-z0-9 _.()+\-]", "_", last).strip(" .")
    return (clean if len(clean) <= 80 else f"{clean[:60]}...{clean[-17:]}") or "file"


def size(numbers: Shape) -> str:
    """A shape as people write it: 300×100; a single number's is "one number"."""
    return "×".join(str(n) if n < 10**15 else "huge" for n in numbers) or "one number"
