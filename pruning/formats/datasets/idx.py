"""torchvision's folders of MNIST and its kin: four idx files, plain or gzipped."""

from __future__ import annotations

import gzip
import io
import zlib
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruning.errors import FileRefused
from pruning.formats import limits
from pruning.formats.datasets.images import File
from pruning.formats.datasets.writer import Writer, Written, finish, judge_classes

IMAGES, LABELS = "-images-idx3-ubyte", "-labels-idx1-ubyte"
PARTS = {"train": 0, "t10k": 2, "test": 2}
LARGEST = 512 * limits.MIB  # bytes of one file, unpacked


def is_idx(file: File) -> bool:
    return _bare(file).endswith("-ubyte")


def _bare(file: File) -> str:
    return file.path.name.removesuffix(".gz").replace(".idx", "-idx")


def read(files: list[File], folder: Path, most: int) -> Written:
    """Read train and test images with their labels. Raises FileRefused."""
    # Plain files before gzipped ones of the same name, which torchvision keeps beside them.
    by_name = {_bare(file): file for file in sorted(files, key=lambda f: f.path.name, reverse=True)}
    images: list[NDArray[Any]] = []
    labels: list[NDArray[Any]] = []
    parts: list[NDArray[Any]] = []
    for name, part in PARTS.items():
        if f"{name}{IMAGES}" not in by_name or f"{name}{LABELS}" not in by_name:
            continue
        x = _array(by_name[f"{name}{IMAGES}"], 3)
        y = _array(by_name[f"{name}{LABELS}"], 1)
        if len(x) != len(y):
            raise FileRefused(
                f"has {len(x):,} images but {len(y):,} labels of {name}: download it again."
            )
        images.append(x)
        labels.append(y)
        parts.append(np.full(len(y), part))
    if not images:
        raise FileRefused(
            "holds idx files, but no train-images-idx3-ubyte with its train-labels-idx1-ubyte: "
            "bring the folder as torchvision lays it out (MNIST/raw)."
        )
    if len({x.shape[1:] for x in images}) > 1:
        raise FileRefused("holds images of different sizes in train and test: download it again.")
    writer = Writer(folder, (1, *images[0].shape[1:]), "uint8", most)
    for x in images:
        writer.write(x[:, None])
    writer.close()
    numbers, index = np.unique(np.concatenate(labels), return_inverse=True)
    classes = [str(number) for number in numbers]
    targets = index.astype(np.int64)
    judge_classes(classes, targets)
    finish(folder, targets, np.concatenate(parts) if len(parts) > 1 else None)
    return Written("idx", writer.shape, "uint8", writer.examples, classes)


def _array(file: File, dimensions: int) -> NDArray[Any]:
    """Unsigned bytes of the shape that the header gives, which must be all there are."""
    raw = file.read(LARGEST + 1)
    if file.path.name.endswith(".gz"):
        raw = _unzipped(raw, file.path.name)
    # Two zeros, 8 for unsigned bytes, the number of dimensions; then each size in four bytes.
    start = 4 + 4 * dimensions
    shape: tuple[int, ...] = ()
    if len(raw) >= start and raw[:4] == bytes([0, 0, 8, dimensions]):
        shape = tuple(np.frombuffer(raw[4:start], ">u4").astype(int).tolist())
    if not shape or prod(shape) != len(raw) - start:
        raise FileRefused(f"has {file.path.name}, which is no whole idx file: download it again.")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _unzipped(raw: bytes, name: str) -> bytes:
    try:
        with gzip.open(io.BytesIO(raw)) as opened:
            unpacked = opened.read(LARGEST + 1)
    except (OSError, EOFError, zlib.error):
        raise FileRefused(f"has {name}, which is damaged: download it again.") from None
    if len(unpacked) > LARGEST:
        raise FileRefused(f"has {name}, which unpacks to more than {LARGEST >> 20} MiB.")
    return unpacked
