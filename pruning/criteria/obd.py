"""Optimal Brain Damage: remove the weights along which the loss is least curved.

½ h w², h the diagonal of the Hessian, LeCun et al., 1990,
https://papers.nips.cc/paper/250-optimal-brain-damage
"""

from __future__ import annotations

from typing import Annotated, Literal

from pruning.evidence import Evidence
from pruning.ranges import Range
from pruning.registry import criterion
from pruning.types import Scores


@criterion(
    group="curvature",
    needs="data",
    gradients=(1536, "probes"),
    cost="1.5 backward passes over 1,024 examples for each probe; 3.6 by hessian",
)
def obd(
    seen: Evidence,
    *,
    diagonal: Literal["gauss_newton", "hessian"] = "gauss_newton",
    probes: Annotated[int, Range(1, 1000)] = 4,
) -> Scores:
    """Remove the weights whose removal would raise the loss least, were it a parabola in each.

    diagonal: gauss_newton is LeCun's, never negative, and with ReLU the Hessian's diagonal itself;
        hessian takes Hutchinson's estimate.
    probes: random directions that the diagonal is estimated from; gauss_newton is exact with as
        many as classes.
    """
    if diagonal == "gauss_newton":
        curvature = seen.gauss_newton(probes)
    else:
        curvature = seen.hessian_diagonal(probes)
    return {name: w.square() * curvature[name] / 2 for name, w in seen.weights.items()}
