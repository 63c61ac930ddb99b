"""The numbers of a data set as they are written: raw inputs and targets, one example at a time.

    x.bin    uint8 or float32, (examples, *shape) in C order
    y.npy    int64 class indices, (examples,); or float32 values, (examples, 1)
    part.npy uint8 0, 1 or 2 for train, validation and test; only where the owner divided it

Streamed, because neither a data set nor what it is unpacked from need fit into memory.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from pruning.errors import FileRefused
from pruning.formats import limits
from pruning.formats.datasets.types import LESS

X, Y, PART = "x.bin", "y.npy", "part.npy"


@dataclass
class Written:
    """What was written, as plain data; the numbers lie in the folder."""

    kind: str
    shape: tuple[int, ...]
    dtype: str
    examples: int
    classes: list[str]
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


class Writer:
    """Inputs, one after the other. A class because it counts what it wrote. most: bytes."""

    def __init__(self, folder: Path, shape: tuple[int, ...], dtype: str, most: int) -> None:
        self.shape, self.dtype, self.most = shape, dtype, most
        self.examples = 0
        self._bytes = 0
        self._file: BinaryIO = (folder / X).open("wb")

    def write(self, values: NDArray[Any]) -> None:
        """values: (examples, *shape). Raises FileRefused for what is too much, or not finite."""
        values = np.ascontiguousarray(values, dtype=self.dtype)
        if self.dtype == "float32" and not np.isfinite(values).all():
            raise FileRefused(
                "holds inputs that are NaN or infinite: replace them, or leave those examples out."
            )
        self._bytes += values.nbytes
        if self._bytes > self.most:
            raise FileRefused(
                f"needs more than the {self.most / 1e9:.1f} GB that a data set may have here: "
                f"{LESS}."
            )
        self._file.write(values.data)
        self.examples += len(values)

    def close(self) -> None:
        self._file.close()


def finish(folder: Path, targets: NDArray[Any], parts: NDArray[Any] | None) -> None:
    """Write the targets, and the parts where there are any."""
    np.save(folder / Y, targets, allow_pickle=False)
    if parts is not None:
        np.save(folder / PART, parts.astype(np.uint8), allow_pickle=False)


def judge_classes(names: list[str], targets: NDArray[Any]) -> None:
    """Raises FileRefused for one class, too many, or one with too few examples to split."""
    if len(names) < 2:
        only = f" ({names[0]})" if names else ""
        raise FileRefused(
            f"has one class{only}, and a classifier needs two or more: put each class into a "
            "folder, or under a label, of its own."
        )
    if len(names) > limits.CLASSES:
        raise FileRefused(
            f"has {len(names):,} classes, over the {limits.CLASSES:,} that are read: "
            "give numbers with a fraction where targets are values to predict."
        )
    sizes = np.bincount(targets, minlength=len(names))
    few = int(sizes.argmin())
    if sizes[few] < 3:
        raise FileRefused(
            f"has {counted(int(sizes[few]), 'example')} of class {names[few]!r}, and each class "
            "needs three, one for training, one to choose by and one to report on: add some, or "
            "leave it out."
        )


def capped(name: str, length: int = 60) -> str:
    """A name from a file as notes and pages show it."""
    plain = "".join(letter if letter.isprintable() else "?" for letter in name)
    return plain if len(plain) <= length else f"{plain[: length - 1]}…"


def counted(count: int, noun: str) -> str:
    """`1 picture`, `2,000 pictures`."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"
