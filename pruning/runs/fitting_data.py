"""Data for a network that came without any: a sample's, where its shapes fit."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import sample_models

if TYPE_CHECKING:
    from pruning.types import Workpiece

LOOKED_AT = 512
"""Validation examples by which one of several data sets is chosen."""


def with_fitting_data(work: Workpiece, shape: tuple[int, ...], classes: int | None) -> Workpiece:
    """The same with the data that its input shape and its classes fit, as far as it is here.

    Where several fit (MNIST and Fashion-MNIST), the one that it answers best. Nothing is
    downloaded: whoever brings a model did not ask for that.
    """
    from pruning.measurement.quality import correct, logits
    from sample_models.data import find, splits

    fitting = []
    for data in sample_models.datasets():
        fits = tuple(data["shape"]) == shape and len(data["classes"]) == classes
        if fits and (data["needs"] == "nothing" or find(data["name"]) is not None):
            train, validation, test = splits(data["name"])
            names = tuple(data["classes"])
            one = replace(work, train=train, validation=validation, test=test, classes=names)
            fitting.append(one)
    if len(fitting) < 2:
        return fitting[0] if fitting else work

    def right(one: Workpiece) -> int:
        """Examples of a few that it answers right."""
        few = one.need("validation", "To choose between data sets").sample(LOOKED_AT)
        counts = correct(logits(one.model, few), few)
        return counts.correct if counts else 0

    return max(fitting, key=right)
