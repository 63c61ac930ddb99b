"""The split of a data set: train to learn from, validation to choose by, test to report on.

Each class is divided in the same proportions, by a seed; what the owner divided stays so.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pruning.formats.datasets.types import Settings

Indices = NDArray[np.int64]

TRAIN, VALIDATION, TEST = 0, 1, 2


def divided(
    targets: NDArray[Any], parts: NDArray[Any] | None, settings: Settings
) -> tuple[Indices, Indices, Indices]:
    """Indices of train, validation and test, each ascending.

    targets: (n,) class indices or (n, outputs) values; parts: (n,) 0, 1 or 2 of the owner's own
    parts. One that the owner has not is taken from training, by its share.
    """
    shares = (settings.train, settings.validation, settings.test)
    part = np.full(len(targets), TRAIN) if parts is None else parts.astype(np.int64)
    there = [bool((part == number).any()) for number in (TRAIN, VALIDATION, TEST)]
    # Without training examples there is nothing to take the other parts from.
    if not there[TRAIN]:
        part, there = np.full(len(targets), TRAIN), [True, False, False]
    missing = [number for number in (VALIDATION, TEST) if not there[number]]
    of = shares[TRAIN] + sum(shares[number] for number in missing)
    _take(part, targets, {number: shares[number] / of for number in missing}, settings.seed)
    train, validation, test = (np.flatnonzero(part == number) for number in range(3))
    return train, validation, test


def _take(part: Indices, targets: NDArray[Any], shares: dict[int, float], seed: int) -> None:
    """Move a share of each class from training to other parts, in place."""
    # RandomState and not default_rng: its stream is frozen for ever.
    shuffled = np.random.RandomState(seed).permutation(len(targets))
    shuffled = shuffled[part[shuffled] == TRAIN]
    classes = targets if targets.ndim == 1 else np.zeros(len(targets), np.int64)
    for label in np.unique(classes):
        members = shuffled[classes[shuffled] == label]
        start = 0
        for number, share in shares.items():
            # One at least, and one at least for training.
            remaining = len(members) - start - 1
            count = min(max(1, round(share * len(members))), max(0, remaining))
            part[members[start : start + count]] = number
            start += count
