"""What a file holds, described. Plain values only: it is described before any number is read."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import PurePath
from typing import Any

Shape = tuple[int, ...]

WIDTHS: dict[str, int] = {
    **dict.fromkeys(("I8", "U8", "BOOL", "F8_E4M3", "F8_E5M2"), 1),
    **dict.fromkeys(("F16", "BF16", "I16", "U16"), 2),
    **dict.fromkeys(("F32", "I32", "U32"), 4),
    **dict.fromkeys(("F64", "I64", "U64", "C64"), 8),
    "C128": 16,
}
"""safetensors' word for a dtype -> bytes of one number."""

FLOATS = ("F64", "F32", "F16", "BF16")
WHOLE = ("I64", "I32", "I16", "I8", "U8", "BOOL")

COUNTER = "num_batches_tracked"
"""BatchNorm's counter of batches: evaluation does not use it, and older files lack it."""


@dataclass(frozen=True)
class Entry:
    """One tensor of a file.

    start: where its first number lies in the file, in bytes; strides: in numbers, None when the
    numbers lie in order.
    """

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

    wrappers: the dictionary keys that led to them, outermost first; notes: what was left out, a
    sentence each.
    """

    format: str
    entries: tuple[Entry, ...]
    wrappers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def moved(self, by: int) -> Contents:
        """The same, of a file that begins `by` bytes into another."""
        return replace(self, entries=tuple(replace(e, start=e.start + by) for e in self.entries))


@dataclass(frozen=True)
class Listed:
    """One tensor as a reading lists it.

    dtype: safetensors' word (F32, BF16, I64); bytes: in the file.
    """

    name: str
    shape: Shape
    dtype: str
    bytes: int


@dataclass(frozen=True)
class Reading:
    """What a reading of a file found, without trusting it. size: bytes of the file.

    format: None when it is not known; refusal: one sentence with the way out, None when the
    weights could be used; wrappers: what was removed on the way to the names (dictionary keys, and
    prefixes that every name shared).
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
    """What an architecture's state_dict holds: shape by name.

    whole: the names of whole numbers (counters, indices); head: of the tensors whose first size is
    the number of classes, where that may be another one.
    """

    shapes: Mapping[str, Shape]
    whole: frozenset[str] = frozenset()
    head: frozenset[str] = frozenset()

    @property
    def needed(self) -> list[str]:
        """Names that a file must have: all but BatchNorm's counters."""
        return [name for name in self.shapes if name.rpartition(".")[2] != COUNTER]

    @property
    def classes(self) -> int | None:
        """How many it tells apart; None where that cannot be another number."""
        return next((self.shapes[name][0] for name in self.head), None)

    def fits(self, name: str, shape: Shape) -> bool:
        """Whether a tensor of that name may have that shape."""
        if name in self.head:
            return bool(shape) and shape[1:] == self.shapes[name][1:]
        return shape == self.shapes[name]

    def of_classes(self, classes: int | None) -> Expected:
        """The same architecture for another number of classes; None: itself."""
        if classes is None:
            return self
        head = {name: (classes, *self.shapes[name][1:]) for name in self.head}
        return replace(self, shapes={**self.shapes, **head})

    def to_json(self) -> dict[str, Any]:
        return {
            "shapes": dict(self.shapes),
            "whole": sorted(self.whole),
            "head": sorted(self.head),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Expected:
        shapes = {name: tuple(shape) for name, shape in data["shapes"].items()}
        return cls(shapes, frozenset(data["whole"]), frozenset(data["head"]))


def shown(name: object, length: int = 60) -> str:
    """A name from a file, safe to show anywhere, cut to `length` characters.

    ASCII letters, digits, `_`, `-`, `:` and `.` remain, the rest is `?`.
    """
    # Cut before it is replaced: a name may be megabytes long.
    text = re.sub(r"[^A-Za-z0-9_.:\-]", "?", str(name)[: length + 1])
    return text if len(text) <= length else text[: length - 3] + "..."


def file_name(name: str) -> str:
    """A file's own name without its folders, safe to show and to keep; "file" where it is empty."""
    # The name comes from a browser: a Windows path is cut like any other.
    last = PurePath(name.replace("\\", "/")).name
    clean = re.sub(r"[^A-Za-z0-9 _.()+\-]", "_", last).strip(" .")
    # Of a long name the beginning and the end, where its ending and version stand.
    if len(clean) > 80:
        clean = f"{clean[:60]}...{clean[-17:]}"
    return clean or "file"


def shape_text(shape: Shape) -> str:
    """A shape as people write it: 300×100; a single number's is "one number"."""
    # A hostile shape has numbers of any length: they must not fill the message.
    sizes = [str(size) if size < 10**15 else "huge" for size in shape]
    return "×".join(sizes) or "one number"
