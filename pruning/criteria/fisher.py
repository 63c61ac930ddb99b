"""Diagonal Fisher: how much the loss would change, by how single examples pull at a weight.

½ w² · E[(∂L/∂w)²] over examples, Theis et al., 2018, https://arxiv.org/abs/1801.05787
"""

from __future__ import annotations

from pruning.evidence import Evidence
from pruning.registry import criterion
from pruning.types import Scores


@criterion(
    group="curvature",
    needs="data",
    gradients=(1536,),
    cost="a gradient for each of 1,024 examples: 1.5 backward passes",
)
def fisher(seen: Evidence) -> Scores:
    """Remove the weights whose removal changes the loss least, by squared per-example gradients."""
    return {name: w.square() * seen.squared_gradients[name] / 2 for name, w in seen.weights.items()}
