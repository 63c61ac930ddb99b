"""SNIP: how much each connection matters to the loss, before training.

|w · ∂L/∂w| / Σ |w · ∂L/∂w|, Lee et al., 2019, https://arxiv.org/abs/1810.02340
"""

from __future__ import annotations

from typing import Annotated

import torch

from pruning.evidence import Evidence
from pruning.ranges import Range
from pruning.registry import criterion
from pruning.types import Scores


@criterion(
    group="gradients",
    needs="data",
    gradients=(1, "examples"),
    cost="one backward pass over a batch",
)
def snip(seen: Evidence, *, examples: Annotated[int, Range(1, 100_000)] = 128) -> Scores:
    """Remove the connections that the loss depends on least.

    Meant for weights that are not yet trained (start from random).

    examples: used for the gradient; the paper takes one batch of about 10 for each class.
    """
    few = seen.fewer(examples)
    change = {name: (w * few.gradients[name]).abs() for name, w in few.weights.items()}
    sums = [c.sum() for c in change.values()]
    total = torch.stack(sums).sum()
    # never 0: without any gradient all scores are 0
    total = total.clamp_min(torch.finfo(total.dtype).tiny)
    return {name: c / total for name, c in change.items()}
