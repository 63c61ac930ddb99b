"""Geometric median: a filter near the middle of its layer's filters can be replaced by the others.

sum over j of ‖F_i − F_j‖₂, FPGM, He et al., 2019, https://arxiv.org/abs/1811.00250
"""

from __future__ import annotations

import torch

from pruning.evidence import Evidence
from pruning.registry import criterion
from pruning.types import Scores


@criterion(
    group="weights",
    needs="nothing",
    cost="compares each filter with every other of its layer",
    granularities=("channel", "row"),
    why="it compares whole filters, and gives all weights of a filter one score",
)
def geometric_median(seen: Evidence) -> Scores:
    """Remove the filters that are most like the others of their layer, large or small."""
    found = {}
    for name, w in seen.weights.items():
        filters = w.flatten(1).float()  # (out, in·k·k)
        exact = (
            len(filters) * filters.numel() <= 2**31
        )  # else by products, 100 times faster and off by a thousandth
        mode = "donot_use_mm_for_euclid_dist" if exact else "use_mm_for_euclid_dist"
        apart = torch.cdist(filters, filters, compute_mode=mode).sum(1)
        found[name] = apart.reshape(-1, *[1] * (w.dim() - 1)).expand(w.shape).clone()
    return found
