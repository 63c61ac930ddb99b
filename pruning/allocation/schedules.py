"""Schedules: how sparsity grows over the steps. Progress in (0, 1] -> share of the final sparsity,
1 at progress 1.

A schedule that needs to know the final sparsity takes it as a keyword without a default.
"""

from __future__ import annotations

import inspect
from typing import Any

from pruning import registry
from pruning.registry import schedule


@schedule(glyph="step")
def one_shot(progress: float) -> float:
    """Everything at once, in the first step."""
    return 1.0


@schedule(glyph="line")
def linear(progress: float) -> float:
    """The same share in every step."""
    return progress


@schedule(glyph="curve")
def cubic(progress: float) -> float:
    """Much at first, while weights are redundant, and less and less towards the end.

    1 - (1 - t)^3, Zhu & Gupta, 2017, https://arxiv.org/abs/1710.01878, from sparsity 0. They prune
    inside one training; here optimizer and learning rate start anew after each step.
    """
    return 1 - (1 - progress) ** 3


@schedule(glyph="curve")
def geometric(progress: float, *, sparsity: float) -> float:
    """The same share of what is kept in every step: 20 % a round, as for lottery tickets.

    (1 - (1 - s)^t) / s, Frankle & Carbin, 2019, https://arxiv.org/abs/1803.03635
    """
    if sparsity == 0 or progress >= 1:  # the limit of the formula; and 1 to the last bit
        return progress
    share: float = (1 - (1 - sparsity) ** progress) / sparsity
    return share


def grow(
    name: str, progress: float, sparsity: float, options: dict[str, Any] | None = None
) -> float:
    """Share of the final sparsity at `progress`, by the schedule called `name`. Raises
    UnknownName.
    """
    share = registry.get("schedule", name)
    arguments = dict(options or {})
    if "sparsity" in inspect.signature(share).parameters:
        arguments["sparsity"] = sparsity
    return float(share(progress, **arguments))
