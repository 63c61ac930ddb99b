"""What is in a `.keras` file: its config, and its weights by the place that Keras gives them.

Nothing but plain arrays inside of the file is read: no links, no storage elsewhere, no filters.
"""

from __future__ import annotations

import json
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any, BinaryIO

import h5py
import numpy as np
from numpy.typing import NDArray

from pruning.errors import FileRefused
from pruning.formats import limits

Array = NDArray[Any]

CONFIG, METADATA, WEIGHTS = "config.json", "metadata.json", "model.weights.h5"
MEMBERS = 100
LARGEST_CONFIG = 16 * limits.MIB
PIECE = 1 << 20  # bytes

AGAIN = "save the model again with model.save('model.keras')"
EXPORT = "export it with model.export('model.onnx', format='onnx'), and bring that"


@dataclass(frozen=True)
class Weights:
    """Arrays of the HDF5 file. A class because layers ask for theirs one by one.

    Places are made of letters, digits and underscores alone, so that a message may show them.
    """

    file: h5py.File
    length: int

    def array(self, place: str, shape: tuple[int, ...]) -> Array:
        """The array at a place, of that shape, as float32. Raises FileRefused."""
        with _whole(place):
            return self._array(place, shape)

    def _array(self, place: str, shape: tuple[int, ...]) -> Array:
        dataset = self._at(place)
        if not isinstance(dataset, h5py.Dataset):
            raise FileRefused(f"has no weights at {place}: {AGAIN}.")
        if dataset.is_virtual or dataset.external:
            raise FileRefused(f"keeps {place} in another file, which is not read: {AGAIN}.")
        if dataset.chunks is not None or dataset.dtype.kind not in "fiu":
            raise FileRefused(f"keeps {place} in a form that Keras does not write: {AGAIN}.")
        if tuple(dataset.shape) != shape:
            raise FileRefused(
                f"has {place} of shape {str(tuple(dataset.shape))[:60]}, and its layer needs "
                f"{shape}: {AGAIN}."
            )
        # An array that was never written has a size on paper alone.
        needed = prod(shape) * dataset.dtype.itemsize
        if needed > self.length or dataset.id.get_storage_size() < needed:
            raise FileRefused(f"has no numbers in {place}: {AGAIN}.")
        values: Array = np.asarray(dataset[()], np.float32)
        return values

    def shape(self, place: str) -> tuple[int, ...] | None:
        """Of the array at a place, None where there is none."""
        with _whole(place):
            dataset = self._at(place)
            return tuple(dataset.shape) if isinstance(dataset, h5py.Dataset) else None

    def _at(self, place: str) -> Any:
        """A group or array, reached without following a link. None where there is none."""
        here: Any = self.file
        for name in place.split("/"):
            if not isinstance(here, h5py.Group) or name not in here:
                return None
            if not isinstance(here.get(name, getlink=True), h5py.HardLink):
                raise FileRefused(f"holds a link at {place}, which is not read: {AGAIN}.")
            here = here[name]
        return here


@contextmanager
def _whole(place: str) -> Iterator[None]:
    """What HDF5 raises, in half a dozen kinds, for a file whose own tables are damaged."""
    try:
        yield
    except (RuntimeError, OSError, KeyError, ValueError, TypeError):
        raise FileRefused(f"holds damaged weights at {place}: {AGAIN}.") from None


def load(file: BinaryIO, folder: Path) -> tuple[dict[str, Any], Weights]:
    """(config, weights). folder: that may be written in. Raises FileRefused."""
    try:
        file.seek(0)
        with zipfile.ZipFile(file) as opened:
            infos = _judged(opened)
            config = _config(opened.read(infos[CONFIG]))
            path = folder / WEIGHTS
            _copy(opened, infos[WEIGHTS], path)
    except (zipfile.BadZipFile, ValueError, struct.error, NotImplementedError, EOFError):
        raise FileRefused(f"is a Keras file that is cut off or damaged: {AGAIN}.") from None
    try:
        return config, Weights(h5py.File(path, "r", locking=False), path.stat().st_size)
    except OSError:
        raise FileRefused(f"holds weights that are no HDF5 file: {AGAIN}.") from None


def _judged(opened: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Its members by name. Nothing is unpacked under a name of the file's own."""
    infos = opened.infolist()
    names = {info.filename: info for info in infos}
    if len(infos) > MEMBERS or len(names) < len(infos):
        raise FileRefused(f"is a zip file that Keras did not write: {AGAIN}.")
    for info in infos:
        if info.header_offset < 0:
            raise zipfile.BadZipFile("a member that lies before the file")
        odd = "\\" in info.orig_filename or "\x00" in info.orig_filename
        if odd or info.filename.startswith("/") or ".." in info.filename.split("/"):
            raise FileRefused(f"is a zip file with paths in it that lead elsewhere: {AGAIN}.")
        if info.flag_bits & 0x1:
            raise FileRefused(f"is an encrypted zip file: {AGAIN}.")
    if CONFIG not in names or WEIGHTS not in names:
        raise FileRefused(f"holds no {CONFIG} with {WEIGHTS}, as Keras 3 writes them: {AGAIN}.")
    if names[CONFIG].file_size > LARGEST_CONFIG or names[WEIGHTS].file_size > limits.LARGEST:
        raise FileRefused(f"is larger than what is read: {EXPORT}.")
    return names


def _config(text: bytes) -> dict[str, Any]:
    try:
        config = json.loads(text)
    except RecursionError:
        raise FileRefused(f"has a {CONFIG} nested too deep: {AGAIN}.") from None
    if not isinstance(config, dict):
        raise FileRefused(f"has a {CONFIG} that describes no model: {AGAIN}.")
    return config


def _copy(opened: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> None:
    """To a file of our own name, and no more than the directory says."""
    remaining = info.file_size
    with opened.open(info) as member, path.open("wb") as out:
        while piece := member.read(min(PIECE, remaining)):
            out.write(piece)
            remaining -= len(piece)
