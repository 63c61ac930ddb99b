"""Quality of outputs: accuracy, loss, calibration, accuracy under noise and on training data."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

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
"""Examples for the training accuracy and under noise, at most."""

PASS = 128
"""Pictures in a pass, at most: more leave the processor's caches and take longer; the answers are
the same."""

BINS = 15
"""Of confidence, as in the paper on calibration."""


def evaluate(model: nn.Module, data: Batches, loss: Loss) -> tuple[Accuracy, float]:
    """Accuracy and mean loss over `data`, in eval mode; the model's modes are put back."""
    return answered(logits(model, data), data, loss)


def answered(outputs: Tensor, data: Batches, loss: Loss) -> tuple[Accuracy, float]:
    """Accuracy and mean loss of (n, classes) outputs for all of `data`."""
    return correct(outputs, data), mean_loss(outputs, data, loss)


@torch.inference_mode()
def logits(model: nn.Module, data: Batches) -> Tensor:
    """(n, classes) outputs for all examples, in eval mode."""
    with evaluating(model):
        return torch.cat([model(x) for x in torch.split(data.x, _together(data))])


@torch.inference_mode()
def first_pass(model: nn.Module, data: Batches) -> Tensor:
    """The first rows of `logits`, as many as are computed together."""
    with evaluating(model):
        outputs: Tensor = model(data.x[: _together(data)])
    return outputs


def _together(data: Batches) -> int:
    """How many examples one pass takes."""
    pictures = data.x.dim() > 3
    return min(data.batch, PASS) if pictures else data.batch


def correct(outputs: Tensor, data: Batches) -> Accuracy:
    """How many of the examples are classified correctly. outputs: (n, classes)."""
    hits = outputs.argmax(1) == data.y
    return Accuracy(int(hits.sum()), len(data.y))


def mean_loss(outputs: Tensor, data: Batches, loss: Loss) -> float:
    """Over the examples, batch by batch, as training sees them."""
    total = 0.0
    for part, y in Batches(outputs, data.y, data.batch):
        # the loss is a mean, and the last batch may be smaller
        total += float(loss(part, y)) * len(y)
    return total / len(data.y)


def behaviour(
    work: Workpiece,
    outputs: Tensor | None,
    answer: Callable[[Batches], Tensor] | None = None,
) -> Behaviour | None:
    """None where there is no test data.

    outputs: the model's logits for all test examples; answer: gives those of others, None: by a
    pass over them.
    """
    answer = answer or partial(logits, work.model)
    if work.test is None or outputs is None:
        return None
    train = None
    if work.train is not None:
        few = work.train.sample(LIMIT)
        train = correct(answer(few), few)
    noisy = _noisy(work.test)
    return Behaviour(
        train=train,
        noisy=correct(answer(noisy), noisy),
        sigma=_sigma(work.test),
        calibration=calibration(outputs, work.test.y),
        bins=BINS,
    )


def paired(this: Tensor | None, dense: Tensor | None, data: Batches | None) -> Paired | None:
    """How many of the same examples both models, one of them or none classifies correctly."""
    if this is None or dense is None or data is None:
        return None
    a = this.argmax(1) == data.y
    b = dense.argmax(1) == data.y
    return Paired(
        both=int((a & b).sum()),
        gained=int((a & ~b).sum()),
        lost=int((~a & b).sum()),
        neither=int((~a & ~b).sum()),
    )


def _sigma(data: Batches) -> float:
    return NOISE * float(data.x.std())


def _noisy(data: Batches) -> Batches:
    """Some examples with Gaussian noise, from a seed of its own: the same for every model."""
    few = data.sample(LIMIT)
    generator = torch.Generator().manual_seed(1706)
    noise = torch.randn(few.x.shape, generator=generator)
    return Batches(few.x + _sigma(data) * noise, few.y, data.batch)


# ---------------------------------------------------------------- calibration


def calibration(outputs: Tensor, targets: Tensor, bins: int = BINS, draws: int = 200) -> Spread:
    """Expected calibration error, a share: how far confidence lies from accuracy.

    Over bins of equal width, weighted by how many examples fall into each: Guo et al., 2017,
    https://arxiv.org/abs/1706.04599. The interval: basic bootstrap of `draws` resamples, from a
    fixed seed. outputs: (n, classes) logits; targets: (n,).
    """
    top, classes = outputs.double().softmax(1).max(1)
    confidence = top.numpy()
    hits = (classes == targets).numpy().astype(float)
    gaps = hits - confidence
    # (0, 1/bins] is the first bin; a confidence of 0 falls into it too
    place = np.clip(np.ceil(confidence * bins).astype(int) - 1, 0, bins - 1)
    value = _calibration_error(place, gaps, bins)
    generator = np.random.default_rng(0)
    resampled = np.empty(draws)
    for i in range(draws):
        sample = generator.integers(0, len(place), len(place))
        resampled[i] = _calibration_error(place[sample], gaps[sample], bins)
    # basic, not percentile: resampling biases the error upwards, since it is a sum of sizes
    low = 2 * value - float(np.quantile(resampled, 0.975))
    high = 2 * value - float(np.quantile(resampled, 0.025))
    return Spread(max(0.0, low), value, max(value, high))


def _calibration_error(place: NDArray[np.int64], gaps: NDArray[np.float64], bins: int) -> float:
    sums = np.bincount(place, gaps, bins)
    return float(np.abs(sums).sum() / len(place))
