"""Geometric median: a filter near the middle of its layer's filters can be replaced by the others.

sum over j of ‖F_i − F_j‖₂, FPGM, He et al., 2019, https://arxiv.org/abs/1811.00250
"""

from __future__ import annotations

from typing import Literal

import torch

from pruning.evidence import Evidence, by_layer_mean, per_unit
from pruning.registry import criterion
from pruning.types import Scores


@criterion(
    group="weights",
    needs="nothing",
    cost="compares each filter with every other of its layer",
    granularities=("channel", "row"),
    why="it compares whole filters, and gives all weights of a filter one score",
)
def geometric_median(seen: Evidence, *, scale: Literal["layer", "none"] = "layer") -> Scores:
    """Remove the filters that are most like the others of their layer, large or small.

    scale: layer divides by the layer's mean, because the paper prunes layer by layer, and sums of
        distances grow with the number of filters and with their size: with none, scope global
        empties the small layers first.
    """
    scores = {}
    for name, w in seen.weights.items():
        filters = w.flatten(1).float()  # (out, in·k·k)
        # by products it is 100 times faster, and off by a thousandth
        exact = len(filters) * filters.numel() <= 2**31
        mode = "donot_use_mm_for_euclid_dist" if exact else "use_mm_for_euclid_dist"
        distances = torch.cdist(filters, filters, compute_mode=mode)  # (out, out)
        scores[name] = per_unit(distances.sum(1), w)
    return scores if scale == "none" else by_layer_mean(scores)
