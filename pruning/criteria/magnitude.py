"""Magnitude: small weights matter little.

|w| or w², LeCun's "delete small weights" as Han et al. made it work, 2015,
https://arxiv.org/abs/1506.02626
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pruning.evidence import Evidence
from pruning.registry import criterion
from pruning.types import Scores


@criterion(group="weights", needs="nothing", cost="reads the weights once")
def magnitude(
    seen: Evidence,
    *,
    norm: Literal["l1", "l2"] = "l1",
    scale: Literal["none", "deviation"] = "none",
) -> Scores:
    """Remove the weights closest to zero.

    norm: l1 scores by |w|, l2 by w²; they differ once weights are pooled into channels.
    scale: deviation divides by the standard deviation of the layer's remaining weights, as Han's
        threshold s × σ does.
    """
    weights = seen.weights
    if scale == "deviation":
        weights = {name: w / _deviation(w) for name, w in weights.items()}
    return {name: w.abs() if norm == "l1" else w.square() for name, w in weights.items()}


def _deviation(w: Tensor) -> Tensor:
    """σ of the weights that are not zero; 1 where all are the same, so that 0 / 0 is not asked."""
    sigma = w[w != 0].std(correction=0) if w.any() else w.new_zeros(())
    return torch.where(sigma > 0, sigma, torch.ones_like(sigma))
