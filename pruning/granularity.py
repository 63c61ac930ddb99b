"""Which weights of one tensor live or die together: a pair `(pool, spread)`.

pool: scores of the weight's shape -> one score for each unit; spread: units -> the weight's shape, constant inside
a unit. Law: `spread(pool(x), x.shape)` has x's shape. Units keep flat order, so ties fall by flat index.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from pruning.registry import granularity


class Granularity(NamedTuple):
    pool: Callable[[Tensor], Tensor]
    spread: Callable[[Tensor, torch.Size], Tensor]
    rows: bool = False
    """Units are whole output rows: their bias goes with them, and the model's output layer is left alone."""


@granularity(removes="single weights", structured=False)
def weight() -> Granularity:
    """Each weight on its own: the most zeros for the least harm, and no faster without a runtime that skips them."""
    return Granularity(lambda x: x.flatten(), lambda units, shape: units.reshape(shape))


@granularity(removes="whole output channels or neurons", structured=True)
def channel(*, pool: Literal["mean", "sum", "max", "l2"] = "mean") -> Granularity:
    """A whole output channel or neuron: its row of weights and its bias.

    Li et al., 2017, https://arxiv.org/abs/1608.08710

    pool: how the scores of a channel's weights become one score.
    """
    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "mean": lambda x: x.mean(1),
        "sum": lambda x: x.sum(1),
        "max": lambda x: x.amax(1),
        "l2": lambda x: torch.linalg.vector_norm(x, dim=1),
    }
    return Granularity(
        lambda x: ways[pool](x.flatten(1)),
        lambda units, shape: units.reshape(-1, *[1] * (len(shape) - 1)).expand(shape).clone(),
        rows=True,
    )
