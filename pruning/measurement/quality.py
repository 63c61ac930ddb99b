"""Quality of outputs: accuracy, loss, calibration, accuracy under noise and on training data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pruning.evidence import evaluating
from pruning.metrics import Accuracy, Behaviour, Paired, Score, Spread
from pruning.stats import FEWEST, mean, wilson
from pruning.tasks import ACCURACY, Counts, Metric, classifies, hits
from pruning.types import Batches, Loss, Workpiece, parts_of, split

NOISE = 0.3
"""Deviation of the noise, in deviations of the test inputs."""

LIMIT = 1000
"""Examples for the training accuracy and under noise, at most."""

PASS = 128
"""Pictures in a pass, at most: more leave the processor's caches and take longer; the answers are
the same."""

BINS = 15
"""Of confidence, as in the paper on calibration."""


class Quality(NamedTuple):
    """accuracy: None where targets are no classes, or the task has another metric; loss: the mean;
    score: by that metric, None where it is accuracy or fails.
    """

    accuracy: Accuracy | None
    loss: float
    score: Score | None


def evaluate(model: nn.Module, data: Batches, loss: Loss, metric: Metric = ACCURACY) -> Quality:
    """Of a model over `data`, in eval mode; the model's modes are put back."""
    return answered(logits(model, data), data, loss, metric)


def answered(outputs: Tensor, data: Batches, loss: Loss, metric: Metric = ACCURACY) -> Quality:
    """Of the outputs for all of `data`."""
    return Quality(
        correct(outputs, data, metric), mean_loss(outputs, data, loss), score(outputs, data, metric)
    )


@torch.inference_mode()
def logits(model: nn.Module, data: Batches) -> Tensor:
    """(n, ...) outputs for all examples, in eval mode, on the CPU; (n, classes) of a classifier."""
    with evaluating(model):
        parts = split(data.x, _together(data))
        return torch.cat([model(data.there(x)).cpu() for x in parts])


@torch.inference_mode()
def first_pass(model: nn.Module, data: Batches) -> Tensor:
    """The first rows of `logits`, as many as are computed together."""
    with evaluating(model):
        x, _ = data.at(slice(_together(data)))
        outputs: Tensor = model(x).cpu()
    return outputs


def _together(data: Batches) -> int:
    """How many examples one pass takes."""
    pictures = any(part.dim() > 3 for part in parts_of(data.x))
    return min(data.batch, PASS) if pictures else data.batch


def correct(outputs: Tensor, data: Batches, metric: Metric = ACCURACY) -> Accuracy | None:
    """How many of the examples are classified correctly; None where that has no meaning.

    outputs: (n, classes).
    """
    if metric != ACCURACY or not classifies(outputs, data.y):
        return None
    return Accuracy(int(hits(outputs, data.y.cpu()).sum()), len(data.y))


def score(outputs: Tensor, data: Batches, metric: Metric) -> Score | None:
    """By a metric of the task's own; None for accuracy, and where the metric fails on these."""
    if metric == ACCURACY:
        return None
    value = _values(outputs, data.y, metric)
    if value is None:
        return None
    if isinstance(value, tuple):
        right, total = value
        spread = wilson(right, total)
        return _score(metric, spread.value, len(data.y), spread.low, spread.high)
    if isinstance(value, Tensor):
        if len(value) < FEWEST:
            return _score(metric, float(value.mean()), len(data.y), None, None)
        spread = mean(value.cpu().numpy())
        return _score(metric, spread.value, len(data.y), spread.low, spread.high)
    return _score(metric, value, len(data.y), None, None)


def _score(
    metric: Metric, value: float, examples: int, low: float | None, high: float | None
) -> Score:
    return Score(metric.name, value, examples, low, high, metric.higher_is_better, metric.unit)


def _values(outputs: Tensor, targets: Tensor, metric: Metric) -> float | Tensor | Counts | None:
    """Counts, a value for each example, or a number; None where the function fails.

    It was tried at the start: what fails now (one class alone, say) is no reason to lose a run.
    """
    try:
        value = metric.function(outputs, targets.cpu())
        if isinstance(value, tuple):
            return int(value[0]), int(value[1])
        if isinstance(value, Tensor) and value.shape == targets.shape[:1] and len(value) > 1:
            return value.detach().double().cpu()
        return float(value)
    except Exception:
        return None


def mean_loss(outputs: Tensor, data: Batches, loss: Loss) -> float:
    """Over the examples, batch by batch, as training sees them."""
    total = 0.0
    for part, y in zip(
        torch.split(outputs, data.batch), torch.split(data.y, data.batch), strict=True
    ):
        # Where the model lies: a loss may hold weights of its own. It is a mean, and the last batch
        # may be smaller.
        y = data.there(y)
        total += float(loss(part.to(y.device), y)) * len(y)
    return total / len(data.y)


def not_measured(outputs: Tensor | None, work: Workpiece) -> dict[str, str]:
    """What has no meaning for this task -> why."""
    if outputs is None or work.test is None:
        return {}
    missing = {}
    if not classifies(outputs, work.test.y):
        why = "targets are not one class for each example"
        missing = {"accuracy": why, "calibration": why}
    elif work.metric != ACCURACY:
        missing = {"accuracy": f"this task is judged by {work.metric.name}"}
    if _sigma(work.test) is None:
        missing["noise"] = "inputs are whole numbers, to which noise cannot be added"
    return missing


def behaviour(
    work: Workpiece,
    outputs: Tensor | None,
    answer: Callable[[Batches], Tensor] | None = None,
) -> Behaviour | None:
    """None where there is no test data; what has no meaning for the task is None in it.

    outputs: the model's logits for all test examples; answer: gives those of others, None: by a
    pass over them.
    """
    answer = answer or partial(logits, work.model)
    if work.test is None or outputs is None:
        return None
    classes = classifies(outputs, work.test.y)
    train = train_score = noisy = noisy_score = None
    judged = classes or work.metric != ACCURACY
    if work.train is not None and judged:
        few = work.train.sample(LIMIT)
        answers = answer(few)
        train = correct(answers, few, work.metric)
        train_score = score(answers, few, work.metric)
    sigma = _sigma(work.test)
    if sigma is not None and judged:
        few = _noisy(work.test)
        answers = answer(few)
        noisy = correct(answers, few, work.metric)
        noisy_score = score(answers, few, work.metric)
    return Behaviour(
        train=train,
        noisy=noisy,
        sigma=sigma or 0.0,
        calibration=calibration(outputs, work.test.y.cpu()) if classes else None,
        bins=BINS,
        train_score=train_score,
        noisy_score=noisy_score,
    )


def paired(
    this: Tensor | None, dense: Tensor | None, data: Batches | None, metric: Metric = ACCURACY
) -> Paired | None:
    """How many of the same examples both models, one of them or none classifies correctly.

    None where accuracy has no meaning, or is not what the task is judged by.
    """
    if this is None or dense is None or data is None:
        return None
    if metric != ACCURACY or not classifies(this, data.y):
        return None
    targets = data.y.cpu()
    rights = [hits(outputs, targets).cpu().numpy() for outputs in (this, dense)]
    return Paired.of(*rights)


def classes_predicted(
    outputs: Tensor | None, data: Batches | None, metric: Metric = ACCURACY
) -> Tensor | None:
    """(n,) The class that each example is given; None where accuracy has no meaning, or is not what
    the task is judged by. outputs: (n, classes).
    """
    if outputs is None or data is None or metric != ACCURACY or not classifies(outputs, data.y):
        return None
    return outputs.argmax(1).cpu()


def score_change(
    this: Tensor | None, dense: Tensor | None, data: Batches | None, metric: Metric
) -> Spread | None:
    """The metric less the dense model's, on the same examples, where it has a value for each."""
    if this is None or dense is None or data is None or metric == ACCURACY:
        return None
    after, before = (_values(outputs, data.y, metric) for outputs in (this, dense))
    if isinstance(after, Tensor) and isinstance(before, Tensor) and len(after) >= FEWEST:
        return mean((after - before).cpu().numpy())
    return None


def _sigma(data: Batches) -> float | None:
    """Of the noise, by the first input that has any; None for whole numbers alone."""
    floats = [part for part in parts_of(data.x) if part.is_floating_point()]
    return NOISE * float(floats[0].std()) if floats else None


def _noisy(data: Batches) -> Batches:
    """Some examples with Gaussian noise, from a seed of its own: the same for every model."""
    few = data.sample(LIMIT)
    generator = torch.Generator().manual_seed(1706)

    def noisy(part: Tensor, of_all: Tensor) -> Tensor:
        if not part.is_floating_point():
            return part
        noise = torch.randn(part.shape, generator=generator, device="cpu").to(part.device)
        return part + NOISE * float(of_all.std()) * noise

    parts = [
        noisy(part, all_) for part, all_ in zip(parts_of(few.x), parts_of(data.x), strict=True)
    ]
    x = tuple(parts) if isinstance(few.x, tuple) else parts[0]
    return replace(few, x=x, batch=data.batch)


# ---------------------------------------------------------------- calibration


def calibration(outputs: Tensor, targets: Tensor, bins: int = BINS, draws: int = 200) -> Spread:
    """Expected calibration error, a share: how far confidence lies from accuracy.

    Over bins of equal width, weighted by how many examples fall into each: Guo et al., 2017,
    https://arxiv.org/abs/1706.04599. The interval: basic bootstrap of `draws` resamples, from a
    fixed seed. outputs: (n, classes) logits; targets: (n,).
    """
    top, classes = outputs.double().softmax(1).max(1)
    confidence = top.cpu().numpy()
    hits = (classes == targets).cpu().numpy().astype(float)
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
