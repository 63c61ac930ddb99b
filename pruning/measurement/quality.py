"""What a model answers: right and wrong, how sure, what noise does to it, and what it knows of its training data by heart."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pruning.evidence import evaluating
from pruning.metrics import Accuracy, Behaviour, Paired, Spread
from pruning.types import Batches, Loss, Workpiece

NOISE = 0.3
"""Deviation of the noise, in deviations of the test inputs."""

LIMIT = 1000
"""Examples looked at for the training accuracy and under noise, at most."""

BINS = 15


def evaluate(model: nn.Module, data: Batches, loss: Loss) -> tuple[Accuracy, float]:
    """Right answers and mean loss over `data`, in eval mode; the model's modes are put back."""
    outputs = logits(model, data)
    return correct(outputs, data), mean_loss(outputs, data, loss)


@torch.inference_mode()
def logits(model: nn.Module, data: Batches) -> Tensor:
    """(n, classes) outputs for all examples, in eval mode."""
    with evaluating(model):
        return torch.cat([model(x) for x, _ in data])


def correct(outputs: Tensor, data: Batches) -> Accuracy:
    return Accuracy(int((outputs.argmax(1) == data.y).sum()), len(data.y))


def mean_loss(outputs: Tensor, data: Batches, loss: Loss) -> float:
    parts = zip(torch.split(outputs, data.batch), torch.split(data.y, data.batch), strict=True)
    return sum(float(loss(out, y)) * len(y) for out, y in parts) / len(data.y)


def behaviour(work: Workpiece, outputs: Tensor | None) -> Behaviour | None:
    """outputs: the model's logits for to all test examples. None where there is no test data."""
    if work.test is None or outputs is None:
        return None
    train = work.train.head(LIMIT) if work.train is not None else None
    noisy = _noisy(work.test)
    return Behaviour(
        train=correct(logits(work.model, train), train) if train is not None else None,
        noisy=correct(logits(work.model, noisy), noisy),
        sigma=_sigma(work.test),
        calibration=calibration(outputs, work.test.y),
        bins=BINS,
    )


def paired(this: Tensor | None, dense: Tensor | None, data: Batches | None) -> Paired | None:
    """How the right answers of two models to the same examples overlap."""
    if this is None or dense is None or data is None:
        return None
    a, b = this.argmax(1) == data.y, dense.argmax(1) == data.y
    return Paired(
        int((a & b).sum()), int((a & ~b).sum()), int((~a & b).sum()), int((~a & ~b).sum())
    )


def _sigma(data: Batches) -> float:
    return NOISE * float(data.x.std())


def _noisy(data: Batches) -> Batches:
    """The first examples with Gaussian noise, drawn from a seed of its own: every model meets the same."""
    some = data.head(LIMIT)
    chance = torch.Generator().manual_seed(1706)
    return Batches(
        some.x + _sigma(data) * torch.randn(some.x.shape, generator=chance), some.y, data.batch
    )


# ---------------------------------------------------------------- calibration


def calibration(outputs: Tensor, targets: Tensor, bins: int = BINS, draws: int = 200) -> Spread:
    """Expected calibration error, a share: how far confidence lies from accuracy, over bins of equal width, weighted by how many
    fall into each (Guo et al., 2017). The interval: basic bootstrap of `draws` resamples, drawn from a fixed seed."""
    sure, said = outputs.double().softmax(1).max(1)
    confidence, correct = sure.numpy(), (said == targets).numpy().astype(float)
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    value = _error(place, correct - confidence, bins)
    chance = np.random.default_rng(0)
    again = np.empty(draws)
    for i in range(draws):
        drawn = chance.integers(0, len(place), len(place))
        again[i] = _error(place[drawn], (correct - confidence)[drawn], bins)
    low, high = np.quantile(again, (0.975, 0.025))
    return Spread(max(0.0, 2 * value - float(low)), value, max(value, 2 * value - float(high)))


def _error(place: NDArray[np.int64], over: NDArray[np.float64], bins: int) -> float:
    return float(np.abs(np.bincount(place, over, bins)).sum() / len(place))
