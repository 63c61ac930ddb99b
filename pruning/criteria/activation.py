"""Activation: a unit that hardly answers can go.

mean |a| over examples and positions, or 1 − APoZ, the share of answers above zero, Hu et al., 2016, https://arxiv.org/abs/1607.03250
"""

from __future__ import annotations

from typing import Literal

import torch

from pruning.evidence import Evidence
from pruning.registry import criterion
from pruning.types import Scores


@criterion(
    group="activations",
    needs="data",
    cost="one forward pass over 1,024 examples",
    skips=True,
    granularities=("channel", "row"),
    why="it looks at the answers of whole units, and gives all weights of a unit one score",
)
def activation(seen: Evidence, *, measure: Literal["mean", "apoz"] = "mean") -> Scores:
    """Remove the units that answer least, as the next layer hears them.

    measure: mean size of the answers, or apoz: how rarely they are zero (the average percentage of zeros, turned round).
    """
    silent = skips(seen)
    total = {name: torch.zeros(len(w)) for name, w in seen.weights.items()}
    for answers, share in seen.activations():
        for name in answers.keys() - silent.keys():
            a = (
                answers[name]
                .float()
                .movedim(-1 if seen.weights[name].dim() == 2 else 1, 0)
                .flatten(1)
            )  # (units, examples · positions)
            total[name] += share * (a.abs() if measure == "mean" else (a > 0).float()).mean(1)
    return {
        name: total[name].reshape(-1, *[1] * (w.dim() - 1)).expand(w.shape).clone()
        for name, w in seen.weights.items()
    }


def skips(seen: Evidence) -> dict[str, str]:
    """Weights whose units cannot be heard one by one."""
    found = {}
    for name, layout in seen.layouts.items():
        if layout.transposed:
            found[name] = (
                "the rows of a transposed convolution's weight are its inputs, which do not answer."
            )
        elif name.endswith("in_proj_weight"):
            found[name] = "its queries, keys and values only work together."
    return found
