"""BatchNorm scale: a channel that BatchNorm multiplies by almost nothing can go.

|γ|, network slimming, Liu et al., 2017, https://arxiv.org/abs/1708.06519
"""

from __future__ import annotations

from pruning.errors import ModelError
from pruning.evidence import Evidence
from pruning.registry import criterion
from pruning.types import Scores


@criterion(
    group="weights",
    needs="BatchNorm",
    cost="one forward pass of one example; best after training with slimming, an L1 penalty on the scales",
    skips=True,
    granularities=("channel", "row"),
    why="BatchNorm has one scale for each channel, and none for single weights",
)
def bn_scale(seen: Evidence) -> Scores:
    """Remove the channels with the smallest BatchNorm scale. Train with slimming first, so that the scales tell them apart."""
    without, found = skips(seen), {}
    for name, w in seen.weights.items():
        gamma = w.new_zeros(len(w)) if name in without else seen.batch_scales[name]
        found[name] = gamma.abs().reshape(-1, *[1] * (w.dim() - 1)).expand(w.shape).clone()
    if len(without) == len(found):
        raise ModelError(
            "bn_scale looks at BatchNorm's scales, and no layer of this model is followed by BatchNorm: choose magnitude."
        )
    return found


def skips(seen: Evidence) -> dict[str, str]:
    """Layers without a scale for each row of their weights stay dense."""
    found = {
        name: "no BatchNorm follows it, so it has no scale to go by."
        for name in seen.weights
        if name not in seen.batch_scales
    }
    turned = "the rows of a transposed convolution's weight are its inputs, and BatchNorm scales its outputs."
    return found | {name: turned for name, layout in seen.layouts.items() if layout.transposed}
