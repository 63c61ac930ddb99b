"""Activation: a unit that is hardly active can be removed.

mean |a| over examples and positions, or 1 − APoZ, the share of activations above zero,
Hu et al., 2016, https://arxiv.org/abs/1607.03250
"""

from __future__ import annotations

from typing import Literal

import torch

from pruning.evidence import Evidence, by_layer_mean, per_unit
from pruning.registry import criterion
from pruning.types import Scores


@criterion(
    group="activations",
    needs="data",
    gradients=(341,),
    cost="one forward pass over 1,024 examples",
    skips=True,
    granularities=("channel", "row"),
    why="it looks at the activations of whole units, and gives all weights of a unit one score",
)
def activation(
    seen: Evidence,
    *,
    measure: Literal["mean", "apoz"] = "mean",
    scale: Literal["layer", "none"] = "layer",
) -> Scores:
    """Remove the units that are least active, as the next layer reads them.

    measure: mean takes the mean size of the activations, apoz how rarely they are zero (1 less the
        average percentage of zeros).
    scale: layer divides by the layer's mean, because the paper compares inside a layer, and layers
        differ in how large their activations are: with none, scope global took all but one channel
        of a layer.
    """
    skipped = skips(seen)
    total = {name: torch.zeros(len(w), device=w.device) for name, w in seen.weights.items()}
    for activations, share in seen.activations():
        for name in activations.keys() - skipped.keys():
            # linear layers have their units last, convolutions second
            units = -1 if seen.weights[name].dim() == 2 else 1
            a = activations[name].float().movedim(units, 0).flatten(1)  # (units, n · positions)
            sizes = a.abs() if measure == "mean" else (a > 0).float()
            total[name] += share * sizes.mean(1)
    scores = {name: per_unit(total[name], w) for name, w in seen.weights.items()}
    return scores if scale == "none" else by_layer_mean(scores)


def skips(seen: Evidence) -> dict[str, str]:
    """Weights whose units have no activations of their own, or none that were seen."""
    reasons = dict(seen.unwatched)
    for name, layout in seen.layouts.items():
        if layout.transposed:
            reasons[name] = (
                "the rows of a transposed convolution's weight are its inputs, "
                "which have no activations."
            )
        elif name.endswith("in_proj_weight"):
            reasons[name] = "its queries, keys and values only work together."
    return reasons
