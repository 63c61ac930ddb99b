"""BatchNorm scale: a channel that BatchNorm multiplies by almost nothing can be removed.

|γ|, network slimming, Liu et al., 2017, https://arxiv.org/abs/1708.06519
"""

from __future__ import annotations

from typing import Literal

from pruning.errors import ModelError
from pruning.evidence import Evidence, by_layer_mean, per_unit
from pruning.registry import criterion
from pruning.types import Scores


@criterion(
    group="weights",
    needs="BatchNorm",
    cost="one forward pass of one example; best after training with slimming, "
    "an L1 penalty on the scales",
    skips=True,
    granularities=("channel", "row"),
    why="BatchNorm has one scale for each channel, and none for single weights",
)
def bn_scale(seen: Evidence, *, scale: Literal["none", "layer"] = "none") -> Scores:
    """Remove the channels with the smallest BatchNorm scale.

    Train with slimming first, so that the scales tell them apart.

    scale: none compares scales of all layers, as the paper does after that training; layer divides
        by the layer's mean, which does better under scope global without that training.
    """
    skipped = skips(seen)
    if len(skipped) == len(seen.weights):
        raise ModelError(
            "bn_scale looks at BatchNorm's scales, and no layer of this model "
            "is followed by BatchNorm: choose magnitude."
        )
    scores = {}
    for name, w in seen.weights.items():
        gamma = w.new_zeros(len(w)) if name in skipped else seen.batch_scales[name]
        scores[name] = per_unit(gamma.abs(), w)
    return scores if scale == "none" else by_layer_mean(scores)


def skips(seen: Evidence) -> dict[str, str]:
    """Layers without a scale for each row of their weights stay dense."""
    reasons = {}
    for name, layout in seen.layouts.items():
        if layout.transposed:
            reasons[name] = (
                "the rows of a transposed convolution's weight are its inputs, "
                "and BatchNorm scales its outputs."
            )
        elif name not in seen.batch_scales:
            reasons[name] = "no BatchNorm follows it, so it has no scale to go by."
    return reasons
