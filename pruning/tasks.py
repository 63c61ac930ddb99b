"""Tasks: what a model is judged by. A metric is a name, a function and which way is better.

Accuracy of classification is the default. Ready-made ones for other tasks are below; a metric of
your own is `Metric("name", function)`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Counts = tuple[int, int]
"""(correct, of all)."""


@dataclass(frozen=True)
class Metric:
    """What a task is judged by.

    function: (outputs, targets) of all examples -> counts (correct, of all), shown as a share with
    its Wilson interval; or one value for each example, (n,), shown as their mean with its interval;
    or a number, which has no interval. unit: written behind it, "%" for shares.
    """

    name: str
    function: Callable[[Tensor, Tensor], float | Tensor | Counts]
    higher_is_better: bool = True
    unit: str = ""


def classifies(outputs: Tensor, targets: Tensor) -> bool:
    """Whether outputs are one score for each class, and targets the index of one.

    outputs: (n, classes), 2 or more; targets: (n,), whole numbers.
    """
    whole = not targets.is_floating_point() and not targets.is_complex()
    return outputs.dim() == 2 and outputs.shape[1] > 1 and targets.dim() == 1 and whole


def class_dimension(outputs: Tensor, targets: Tensor) -> int | None:
    """Which dimension of the outputs holds the scores of classes; None where there are none.

    1 for classification and segmentation, (n, classes, ...) with targets (n, ...); the last for
    tokens, (n, ..., classes).
    """
    if targets.is_floating_point() or targets.is_complex() or outputs.dim() != targets.dim() + 1:
        return None
    if outputs.shape[0:1] + outputs.shape[2:] == targets.shape:
        return 1
    return outputs.dim() - 1 if outputs.shape[:-1] == targets.shape else None


def hits(outputs: Tensor, targets: Tensor) -> Tensor:
    """(n,) bool: whether the highest score is the target's."""
    return outputs.argmax(1) == targets


def _accuracy(outputs: Tensor, targets: Tensor) -> Counts:
    return int(hits(outputs, targets).sum()), len(targets)


def _by_example(values: Tensor) -> Tensor:
    """(n, ...) -> (n,) means."""
    return values.float().flatten(1).mean(1) if values.dim() > 1 else values.float()


def _absolute(outputs: Tensor, targets: Tensor) -> Tensor:
    return _by_example((outputs - targets.reshape(outputs.shape)).abs())


def _squared(outputs: Tensor, targets: Tensor) -> Tensor:
    return _by_example((outputs - targets.reshape(outputs.shape)).square())


def _labels(outputs: Tensor, targets: Tensor) -> Tensor:
    """Of several labels for each example, outputs being logits."""
    return _by_example((outputs > 0) == (targets > 0.5))


def _pixels(outputs: Tensor, targets: Tensor) -> Tensor:
    """outputs: (n, classes, ...); targets: (n, ...). A share by example: pixels of one picture
    are not independent of each other.
    """
    return _by_example(outputs.argmax(1) == targets)


def _overlap(outputs: Tensor, targets: Tensor) -> float:
    """Intersection over union of each class, the mean over those that there are."""
    predicted = outputs.argmax(1)
    shares = []
    for label in range(outputs.shape[1]):
        here, wanted = predicted == label, targets == label
        union = int((here | wanted).sum())
        if union:
            shares.append(int((here & wanted).sum()) / union)
    return sum(shares) / max(1, len(shares))


ACCURACY = Metric("accuracy", _accuracy, unit="%")
MEAN_ABSOLUTE_ERROR = Metric("mean absolute error", _absolute, higher_is_better=False)
MEAN_SQUARED_ERROR = Metric("mean squared error", _squared, higher_is_better=False)
LABEL_ACCURACY = Metric("label accuracy", _labels, unit="%")
PIXEL_ACCURACY = Metric("pixel accuracy", _pixels, unit="%")
MEAN_IOU = Metric("mean IoU", _overlap, unit="%")


# ---------------------------------------------------------------- what a model gives

NAMED = ("logits", "out", "last_hidden_state", "prediction")
"""Of several outputs by name, what is trained and measured unless somebody says otherwise."""


def main_output(value: object) -> Tensor | None:
    """The tensor among a model's outputs: itself, one by name, or the first of a tuple or list.

    Dictionaries, Hugging Face's outputs and named tuples are asked for `NAMED` first.
    """
    if isinstance(value, Tensor):
        return value
    if isinstance(value, dict):
        named = [value[name] for name in NAMED if name in value] + list(value.values())
        return next((part for part in named if isinstance(part, Tensor)), None)
    for name in NAMED:
        part = getattr(value, name, None)
        if isinstance(part, Tensor):
            return part
    if isinstance(value, tuple | list) and value:
        return main_output(value[0])
    return None


HALF = (torch.float16, torch.bfloat16)
"""What is summed, trained and compared in float32."""
