"""A data set as `Batches` of what a model takes: its size, its channels, its scale.

Where the numbers do not fit into memory they are a file beside the data set, mapped: a batch is
read when it is looked at.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, replace
from math import isqrt, prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pruning.errors import DataError
from pruning.formats.datasets.kept import inputs, split_of, targets
from pruning.formats.datasets.types import DataSet
from pruning.storage import default_workspace, disk_errors
from pruning.tasks import MEAN_ABSOLUTE_ERROR, main_output
from pruning.types import Batches, Workpiece, parts_of

IN_MEMORY = 1 << 30
"""Bytes of a data set that are kept in memory: a worker has several models with theirs."""

PIECE = 512  # examples that are converted at once
BATCH = 128

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and deviation by channel of values in [0, 1], as torchvision's models were trained."""

LUMA = (0.299, 0.587, 0.114)
"""Of red, green and blue in grey (ITU-R BT.601), as Pillow has it."""


@dataclass(frozen=True)
class Scale:
    """(value / unit - mean) / deviation. mean, deviation: one for all, or one for each channel or
    feature.
    """

    unit: float
    mean: tuple[float, ...]
    deviation: tuple[float, ...]


def joined(
    work: Workpiece, data: DataSet, usual: Scale | None = None, workspace: Path | None = None
) -> Workpiece:
    """The model with these examples in place of its own.

    usual: how the model's inputs were scaled, where that is known. Raises DataError where they do
    not fit, with the way out; FileRefused where they were changed.
    """
    shape = _fitted_shape(work, data)
    scale = _scale(data, usual, shape, workspace)
    parts = split_of(data, workspace)
    place = _numbers(data, shape, scale, parts, workspace)
    wanted = torch.from_numpy(np.array(targets(data, workspace)))
    splits = []
    start = 0
    for part in parts:
        x = place[start : start + len(part)]
        splits.append(Batches(x, wanted[torch.from_numpy(part)], BATCH))
        start += len(part)
    train, validation, test = splits
    with_data = replace(
        work,
        name=f"{work.name} on {data.name}",
        train=train,
        validation=validation,
        test=test,
        example=test.head(2).x,
        # It was made for other examples.
        augment=None,
    )
    return _classifier(with_data, data) if data.classes else _regressor(with_data, data)


def scale_of(mean: float | tuple[float, ...], deviation: float | tuple[float, ...]) -> Scale:
    """Of pictures from 0 to 255, whose values in [0, 1] a model takes with that mean and deviation
    away.
    """
    mean = mean if isinstance(mean, tuple) else (mean,)
    return Scale(255.0, mean, deviation if isinstance(deviation, tuple) else (deviation,))


# ---------------------------------------------------------------- shape


def _fitted_shape(work: Workpiece, data: DataSet) -> tuple[int, ...]:
    """Of one input, as the model takes it. Raises DataError."""
    side = data.settings.size
    example = work.example
    if example is None:
        return (*data.shape[:-2], side, side) if data.pictures and side else data.shape
    if len(parts_of(example)) > 1:
        raise DataError(
            f"{work.name} takes {len(parts_of(example))} inputs, and {data.name} has one: give its "
            "data in Python, as Workpiece(train=Batches((first, second), targets), ...)."
        )
    wanted = tuple(parts_of(example)[0].shape[1:])
    if data.pictures and len(wanted) == 3:
        if wanted[0] != data.shape[0] and {wanted[0], data.shape[0]} != {1, 3}:
            raise DataError(
                f"{work.name} takes {wanted[0]} channels, and {data.name} has {data.shape[0]}: "
                "save the pictures with as many."
            )
        return (wanted[0], side, side) if side else wanted
    if data.pictures and len(wanted) == 1:
        # A network without convolutions takes a picture as one row.
        for channels in (data.shape[0], 1, 3):
            square = isqrt(wanted[0] // channels)
            if channels in (1, 3, data.shape[0]) and channels * square * square == wanted[0]:
                return wanted
    if prod(wanted) == prod(data.shape):
        return wanted
    raise DataError(
        f"{work.name} takes inputs of shape {_times(wanted)}, and those of {data.name} have "
        f"{_times(data.shape)}: choose a model for such inputs, or bring others."
    )


def _times(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape))


def _converted(values: Tensor, shape: tuple[int, ...], pictures: bool) -> Tensor:
    """(n, *of the data) -> (n, channels, high, wide) as the model has them, or (n, *shape)."""
    values = values.float()
    if not pictures:
        return values.reshape(len(values), *shape)
    channels, side = _picture(shape, values.shape[1:])
    if values.shape[1] == 3 and channels == 1:
        values = (values * torch.tensor(LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    elif values.shape[1] == 1 and channels == 3:
        values = values.expand(-1, 3, -1, -1)
    if tuple(values.shape[-2:]) != side:
        values = nn.functional.interpolate(values, side, mode="bilinear", antialias=True)
    return values


def _picture(shape: tuple[int, ...], own: tuple[int, ...]) -> tuple[int, tuple[int, int]]:
    """(channels, (high, wide)) of the picture that becomes an input of that shape."""
    if len(shape) == 3:
        return shape[0], (shape[1], shape[2])
    for channels in (own[0], 1, 3):
        side = isqrt(shape[0] // channels)
        if channels * side * side == shape[0]:
            return channels, (side, side)
    return own[0], (own[1], own[2])


# ---------------------------------------------------------------- scale


def _scale(
    data: DataSet, usual: Scale | None, shape: tuple[int, ...], workspace: Path | None
) -> Scale:
    unit = 255.0 if data.dtype == "uint8" else 1.0
    # Pictures of floats are in [0, 1] or [0, 255]: the network's usual scale is of the former.
    kind = data.settings.normalisation
    if kind == "auto":
        if usual is not None and data.pictures and data.dtype == "uint8":
            return usual
        kind = "data"
    if kind == "imagenet":
        return Scale(unit, *IMAGENET)
    if kind == "none":
        return Scale(1.0, (0.0,), (1.0,))
    if kind in ("unit", "symmetric"):
        low, high = (0.0, 255.0) if data.dtype == "uint8" else _range(data, workspace)
        width = (high - low) or 1.0
        if kind == "unit":
            return Scale(1.0, (low,), (width,))
        return Scale(1.0, ((low + high) / 2,), (width / 2,))
    return _standard(data, shape, workspace)


def _train_pieces(data: DataSet, workspace: Path | None) -> Iterator[NDArray[Any]]:
    values, train = inputs(data, workspace), split_of(data, workspace)[0]
    for start in range(0, len(train), PIECE):
        yield values[train[start : start + PIECE]]


def _range(data: DataSet, workspace: Path | None) -> tuple[float, float]:
    extremes = [(float(p.min()), float(p.max())) for p in _train_pieces(data, workspace)]
    return min(low for low, _ in extremes), max(high for _, high in extremes)


def _standard(data: DataSet, shape: tuple[int, ...], workspace: Path | None) -> Scale:
    """Mean and deviation over the training examples: by channel, or by feature of a table."""
    count, total, squares = 0, np.zeros(1), np.zeros(1)
    for piece in _train_pieces(data, workspace):
        values = torch.from_numpy(np.array(piece))
        if data.pictures:
            # Of the channels that the model sees; the size does not matter.
            channels, _ = _picture(shape, data.shape)
            seen = _converted(values, (channels, *data.shape[1:]), True)
            rows = seen.transpose(0, 1).flatten(1).T
        elif data.kind == "table":
            rows = values.flatten(1)
        else:
            rows = values.reshape(-1, 1)
        numbers = rows.double().numpy()
        count += len(numbers)
        total = total + numbers.sum(0)
        squares = squares + np.square(numbers).sum(0)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - np.square(mean), 0.0))
    # A feature that is the same everywhere says nothing, and is no reason to divide by zero.
    deviation[deviation < 1e-7 * np.maximum(1.0, np.abs(mean))] = 1.0
    return Scale(1.0, tuple(mean.tolist()), tuple(deviation.tolist()))


def _scaled(values: Tensor, scale: Scale, pictures: bool) -> Tensor:
    mean, deviation = torch.tensor(scale.mean), torch.tensor(scale.deviation)
    if pictures:
        # One picture of grey for a model of colour, or the other way round, keeps the mean of all.
        if len(mean) not in (1, values.shape[1]):
            mean, deviation = mean.mean()[None], deviation.mean()[None]
        mean, deviation = mean.view(1, -1, 1, 1), deviation.view(1, -1, 1, 1)
    elif len(mean) > 1:
        mean, deviation = mean.view(values.shape[1:]), deviation.view(values.shape[1:])
    return (values / scale.unit - mean) / deviation


# ---------------------------------------------------------------- numbers


def _numbers(
    data: DataSet,
    shape: tuple[int, ...],
    scale: Scale,
    parts: tuple[NDArray[np.int64], ...],
    workspace: Path | None,
) -> Tensor:
    """(n, *shape) float32: train, then validation, then test, so that each is one stretch."""
    order = np.concatenate(parts)
    if 4 * len(order) * prod(shape) <= IN_MEMORY:
        place = torch.empty(len(order), *shape)
        _fill(place, data, order, scale, workspace)
        return place
    folder = (workspace or default_workspace()) / "datasets" / data.id
    words = repr((shape, scale)).encode()
    file = folder / f"x-{hashlib.sha256(words).hexdigest()[:16]}.f32"
    count = len(order) * prod(shape)
    if not file.is_file() or file.stat().st_size != 4 * count:
        draft = file.with_name(f".{os.getpid()}-{file.name}")
        with disk_errors(file):
            # Asked for at once: a mapped file on a full disk ends the process that writes to it.
            with draft.open("wb") as opened:
                opened.truncate(4 * count)
                if hasattr(os, "posix_fallocate"):
                    os.posix_fallocate(opened.fileno(), 0, 4 * count)
            _fill(_mapped(draft, count, shape, shared=True), data, order, scale, workspace)
            os.replace(draft, file)
    return _mapped(file, count, shape, shared=False)


def _mapped(file: Path, count: int, shape: tuple[int, ...], shared: bool) -> Tensor:
    flat = torch.from_file(str(file), shared=shared, size=count, dtype=torch.float32)
    return flat.view(-1, *shape)


def _fill(
    place: Tensor, data: DataSet, order: NDArray[np.int64], scale: Scale, workspace: Path | None
) -> None:
    values = inputs(data, workspace)
    shape = tuple(place.shape[1:])
    for start in range(0, len(order), PIECE):
        piece = torch.from_numpy(np.array(values[order[start : start + PIECE]]))
        converted = _scaled(_converted(piece, shape, data.pictures), scale, data.pictures)
        place[start : start + len(piece)] = converted.reshape(len(piece), *shape)


# ---------------------------------------------------------------- task


def _classifier(work: Workpiece, data: DataSet) -> Workpiece:
    """Targets as the model counts its classes. Raises DataError where it has others."""
    count = _outputs(work)
    known = {name: number for number, name in enumerate(work.classes)}
    if data.classes != work.classes and set(data.classes) <= set(known):
        # Some of the model's own classes, by name: their numbers are the model's.
        numbers = torch.tensor([known[name] for name in data.classes])
        splits = {}
        for name in ("train", "validation", "test"):
            batches: Batches = getattr(work, name)
            splits[name] = replace(batches, y=numbers[batches.y])
        return replace(work, **splits)  # type: ignore[arg-type]
    if count != len(data.classes):
        raise DataError(
            f"{work.name} has {count:,} outputs, and the data has {len(data.classes):,} classes: "
            "choose a model with as many outputs as classes, such as your own weights or code."
        )
    return replace(work, classes=data.classes)


def _regressor(work: Workpiece, data: DataSet) -> Workpiece:
    count = _outputs(work)
    assert work.test is not None
    columns = work.test.y.shape[1]
    if count != columns:
        raise DataError(
            f"{work.name} has {count:,} outputs, and {data.name} has {columns} values to predict "
            "for each example: choose a model with as many, or a column of classes."
        )
    usual = work.loss is nn.functional.cross_entropy
    loss = squared_error if usual else work.loss
    return replace(work, loss=loss, metric=MEAN_ABSOLUTE_ERROR, classes=())


def squared_error(outputs: Tensor, values: Tensor) -> Tensor:
    """The mean squared error, whether the outputs are (n, 1) or (n,)."""
    return nn.functional.mse_loss(outputs.reshape(values.shape), values)


def _outputs(work: Workpiece) -> int:
    """How many outputs the model has for an example. Raises DataError where it takes no such."""
    training = work.model.training
    work.model.eval()
    try:
        with torch.inference_mode():
            value = work.model(*parts_of(work.example))  # type: ignore[arg-type]
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        why = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        assert work.example is not None
        shape = _times(tuple(parts_of(work.example)[0].shape[1:]))
        raise DataError(
            f"{work.name} does not take inputs of {shape} ({why}): set another size, or choose "
            "another model."
        ) from None
    finally:
        work.model.train(training)
    outputs = work.outputs(value) if work.outputs else main_output(value)
    if outputs is None or outputs.dim() == 0:
        raise DataError(f"{work.name} gives no tensor of outputs: say which, with outputs=.")
    return 1 if outputs.dim() == 1 else int(outputs.shape[1])
