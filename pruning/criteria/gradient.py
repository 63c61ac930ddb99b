"""Gradient magnitude: a weight that the loss does not pull at matters little.

|∂L/∂w|, the "gradient" score of Blalock et al., 2020, https://arxiv.org/abs/2003.03033
"""

from __future__ import annotations

from pruning.evidence import Evidence
from pruning.registry import criterion
from pruning.types import Scores


@criterion(
    group="gradients", needs="data", gradients=(1024,), cost="one backward pass over 1,024 examples"
)
def gradient(seen: Evidence) -> Scores:
    """Remove the weights with the smallest gradients, whatever their size."""
    return {name: slope.abs() for name, slope in seen.gradients.items()}
