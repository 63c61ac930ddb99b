"""First-order Taylor: how much the loss would change if the weight were zero.

E|w · ∂L/∂w| over examples, Molchanov et al., 2017, https://arxiv.org/abs/1611.06440,
squared as in 2019, https://arxiv.org/abs/1906.10771
"""

from __future__ import annotations

from typing import Literal

import torch

from pruning.evidence import Evidence
from pruning.registry import criterion
from pruning.types import Scores


@criterion(
    group="gradients",
    needs="data",
    gradients=(1536,),
    cost="a gradient for each of 1,024 examples: 1.5 backward passes; 1 for the mean",
)
def taylor(
    seen: Evidence,
    *,
    over: Literal["examples", "mean"] = "examples",
    squared: bool = False,
    scale: Literal["none", "layer"] = "none",
) -> Scores:
    """Remove the weights whose loss would change least without them.

    For channels the scores of single weights are pooled. The papers score a channel as one: by its
    activation times that one's gradient (2017), or by the square of the sum of w · ∂L/∂w (2019).

    over: examples averages the sizes of each example's change; mean takes the mean loss, whose
        gradient all but vanishes after training.
    squared: compare squared changes, which punishes a few large ones more than many small ones.
    scale: layer divides by the length of the layer's scores, as the paper of 2017 does before it
        compares layers.
    """
    size = torch.square if squared else torch.abs
    if over == "mean":
        sizes = {name: size(gradient) for name, gradient in seen.gradients.items()}
    else:
        sizes = seen.squared_gradients if squared else seen.gradient_sizes
    change = {name: size(w) * sizes[name] for name, w in seen.weights.items()}
    if scale == "none":
        return change
    return {name: c / c.norm().clamp_min(torch.finfo(c.dtype).tiny) for name, c in change.items()}
