"""GraSP: keep the weights that keep the gradient flowing, so that the rest can still be trained.

w ⊙ Hg, by which ‖g‖² falls when w is removed, Wang et al., 2020, https://arxiv.org/abs/2002.07376
"""

from __future__ import annotations

from typing import Annotated, Literal

from pruning.evidence import Evidence
from pruning.ranges import Range
from pruning.registry import criterion
from pruning.types import Scores


@criterion(
    group="gradients",
    needs="data",
    gradients=(1900,),
    cost="4.6 backward passes over 1,024 examples",
)
def grasp(
    seen: Evidence,
    *,
    mode: Literal["train", "eval"] = "train",
    temperature: Annotated[float, Range(0, 1e6, above=True)] = 200.0,
) -> Scores:
    """Remove the weights without which the gradient would flow best.

    Meant for weights that are not yet trained (start from random).

    mode: train lets BatchNorm normalise by each batch, as the authors' code does; eval takes its
        running statistics, which before any training are 0 and 1. The masks are nearly unrelated.
        At sparsity 0.98 train mode did no better here, and took depthwise networks down to
        chance.
    temperature: outputs are divided by it, so that an untrained model is not too sure of itself.
    """
    flow = seen.hessian_gradient(temperature, train=mode == "train")
    return {name: w * flow[name] for name, w in seen.weights.items()}
