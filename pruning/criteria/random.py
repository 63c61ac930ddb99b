"""Random: the control that every criterion has to beat.

Uniform scores, see Blalock et al., 2020, https://arxiv.org/abs/2003.03033
"""

from __future__ import annotations

import torch

from pruning.evidence import Evidence
from pruning.registry import criterion
from pruning.types import Scores


@criterion(group="control", needs="nothing", cost="nothing")
def random(seen: Evidence) -> Scores:
    """Remove weights at random, the same ones for the same seed."""
    scores = {}
    for name, w in seen.weights.items():
        scores[name] = torch.rand(w.shape, generator=seen.generator(name))
    return scores
