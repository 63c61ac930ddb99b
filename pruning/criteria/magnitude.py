"""Magnitude: small weights matter little.

|w| or w², LeCun's "delete small weights" as Han et al. made it work, 2015, https://arxiv.org/abs/1506.02626
"""

from __future__ import annotations

from typing import Literal

from pruning.evidence import Evidence
from pruning.registry import criterion
from pruning.types import Scores


@criterion(group="weights", needs="nothing", cost="reads the weights once")
def magnitude(seen: Evidence, *, norm: Literal["l1", "l2"] = "l1") -> Scores:
    """Remove the weights closest to zero.

    norm: l1 scores by |w|, l2 by w²; they differ once weights are pooled into channels.
    """
    return {name: w.abs() if norm == "l1" else w.square() for name, w in seen.weights.items()}
