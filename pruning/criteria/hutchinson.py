"""Hutchinson: the diagonal of the Hessian, estimated from random directions.

½ |h| w² with h = E[v ⊙ Hv] over random signs v, Optimal Brain Damage's score (LeCun et al., 1990)
by the estimate that HAP uses, Yu et al., 2021, https://arxiv.org/abs/2101.08940. HAP itself scores
whole channels: the trace over a channel, times ‖w‖² / 2p of its p weights. Here each weight has
its own h, and a channel the mean of its weights' scores.
"""

from __future__ import annotations

from typing import Annotated

from pruning.evidence import Evidence
from pruning.ranges import Range
from pruning.registry import criterion
from pruning.types import Scores


@criterion(
    group="curvature",
    needs="data",
    gradients=(1536, "probes"),
    cost="3.6 backward passes over 1,024 examples for each probe",
)
def hutchinson(seen: Evidence, *, probes: Annotated[int, Range(1, 1000)] = 8) -> Scores:
    """Remove the weights along which the loss bends least, up or down.

    Weight by weight, also for channels, where HAP takes the trace over a channel times the length
    of its weights.

    probes: random directions asked for each batch; four times as many halve the noise.
    """
    curvature = seen.hessian_diagonal(probes)
    return {name: w.square() * curvature[name].abs() / 2 for name, w in seen.weights.items()}
