"""fashion-resnet20 with a part of its data, so that a run takes seconds: a model of one's own."""

from __future__ import annotations

from dataclasses import replace

import sample_models
from pruning.types import Batches, Workpiece

SAMPLE = "fashion-resnet20"
TRAIN, VALIDATION, TEST = 512, 600, 600
"""Images of each split: the first, which the data set or its seed has shuffled."""


def build() -> Workpiece:
    work = sample_models.load(SAMPLE)
    return replace(
        work,
        train=_first(work.train, TRAIN),
        validation=_first(work.validation, VALIDATION),
        test=_first(work.test, TEST),
    )


def _first(data: Batches | None, count: int) -> Batches:
    assert data is not None
    return Batches(data.x[:count], data.y[:count])
