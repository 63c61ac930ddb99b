"""Collect the examples of a `DataLoader` or `Dataset` as tensors, read once.

The engine reads batches of tensors: several times faster than collating single items in every
epoch, and every technique sees the same examples.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset

from pruning.errors import DataError

TARGETS = ("labels", "label", "targets", "target", "y")
"""What a dictionary calls what is to be learnt."""

UNKNOWN_MEMORY = 8 << 30
"""Bytes that count as free where the system does not say."""

ITEMS = 64
"""Examples of a `Dataset` that are stacked at once."""

Parts = tuple[Tensor, ...]
"""Every input, then the targets."""


def collected(source: Any) -> tuple[Tensor | tuple[Tensor, ...], Tensor, int | None]:
    """(inputs, targets, examples a batch where the source says so). Raises DataError."""
    if isinstance(source, tuple | list) and len(source) == 2 and _is_array(source[1]):
        x, y = source
        inputs = tuple(map(_tensor, x)) if isinstance(x, tuple) else _tensor(x)
        return inputs, _tensor(y), None
    if isinstance(source, DataLoader):
        batches, own = source, source.batch_size
    elif isinstance(source, Dataset) or hasattr(source, "__getitem__"):
        if isinstance(source, IterableDataset) or not hasattr(source, "__len__"):
            raise DataError(
                f"{type(source).__name__} has no length: give a DataLoader over it that ends."
            )
        batches, own = DataLoader(source, batch_size=ITEMS), None
    else:
        raise DataError(
            f"{type(source).__name__} is no data: give Batches(x, y), a DataLoader, a Dataset or "
            "(inputs, targets)."
        )
    parts = _concatenated(_pieces(batches), _length(batches))
    inputs = parts[:-1] if len(parts) > 2 else parts[0]
    return inputs, parts[-1], own


def _is_array(value: Any) -> bool:
    return isinstance(value, Tensor | np.ndarray)


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, np.ndarray) and value.dtype.kind in "buif":
        return torch.from_numpy(value)
    raise DataError(
        f"{type(value).__name__} is no tensor of numbers: let the data set give tensors "
        "(for pictures, transform=torchvision.transforms.ToTensor())."
    )


def _length(loader: DataLoader[Any]) -> int | None:
    """How many examples there are at most; None where nobody knows."""
    try:
        return len(loader.dataset)  # type: ignore[arg-type]
    except TypeError:
        return None


def _pieces(batches: Iterable[Any]) -> Iterator[Parts]:
    """Each batch's inputs and targets."""
    try:
        for batch in batches:
            yield _parts(batch)
    except TypeError as error:
        # torch collates tensors, arrays and numbers, and names the class that it does not know.
        why = str(error).splitlines()[0][:200]
        raise DataError(
            f"The examples could not be stacked ({why}): let the data set give tensors, for "
            "pictures by transform=torchvision.transforms.ToTensor()."
        ) from None
    except RuntimeError as error:
        why = str(error).splitlines()[0][:200]
        raise DataError(
            f"The examples could not be stacked ({why}): bring all to one size."
        ) from None


def _parts(batch: Any) -> Parts:
    if isinstance(batch, Mapping):
        name = next((name for name in TARGETS if name in batch), None)
        if name is None or len(batch) < 2:
            raise DataError(
                f"A batch holds {', '.join(map(str, batch))}: call its targets labels or target, "
                "beside the inputs in the order that the model takes them."
            )
        inputs = [value for key, value in batch.items() if key != name]
        return (*map(_tensor, inputs), _tensor(batch[name]))
    if not isinstance(batch, tuple | list) or len(batch) < 2:
        raise DataError(
            f"A batch is {type(batch).__name__} without targets: give (input, target) for each "
            "example."
        )
    *inputs, wanted = batch
    # ((first, second), target): several inputs, in the order of the model's forward.
    if len(inputs) == 1 and isinstance(inputs[0], tuple | list):
        inputs = list(inputs[0])
    return (*map(_tensor, inputs), _tensor(wanted))


def _concatenated(pieces: Iterator[Parts], length: int | None) -> Parts:
    first = next(pieces, None)
    if first is None:
        raise DataError("The data holds no examples: give at least one.")
    count = len(first[0])
    together = sum(part.nbytes for part in first) // max(1, count) * (length or 0)
    if length is None or together <= _free_memory() // 2:
        columns = zip(first, *pieces, strict=True)
        return tuple(torch.cat(column) for column in columns)
    return _mapped(first, pieces, length)


def _mapped(first: Parts, pieces: Iterator[Parts], length: int) -> Parts:
    """The same in files that are mapped, and removed when this process lets them."""
    with tempfile.TemporaryDirectory(prefix="pruning-data-") as folder:
        places = [_place(Path(folder) / str(n), part, length) for n, part in enumerate(first)]
    count = 0
    batch: Parts | None = first
    while batch is not None:
        for place, part in zip(places, batch, strict=True):
            place[count : count + len(part)] = part
        count += len(batch[0])
        batch = next(pieces, None)
    # A loader that drops its last batch gives fewer.
    return tuple(place[:count] for place in places)


def _place(file: Path, like: Tensor, length: int) -> Tensor:
    """(length, *shape) of zeros on the disk. The file goes with the last mapping of it."""
    shape = (length, *like.shape[1:])
    size = int(np.prod(shape))
    flat = torch.from_file(str(file), shared=True, size=size, dtype=like.dtype)
    return flat.view(shape)


def _free_memory() -> int:
    """Bytes."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return UNKNOWN_MEMORY
