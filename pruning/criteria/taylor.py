"""First-order Taylor: how much the loss would change if the weight were zero.

|w · ∂L/∂w|, Molchanov et al., 2019, https://arxiv.org/abs/1906.10771
"""

from __future__ import annotations

from pruning.evidence import Evidence
from pruning.registry import criterion
from pruning.types import Scores


@criterion(group="gradients", needs="data", cost="one backward pass over 1,024 examples")
def taylor(seen: Evidence, *, squared: bool = False) -> Scores:
    """Remove the weights whose loss would change least without them.

    squared: compare squared changes, which punishes a few large ones more than many small ones.
    """
    change = {name: (w * seen.gradients[name]).abs() for name, w in seen.weights.items()}
    return {name: c.square() for name, c in change.items()} if squared else change
