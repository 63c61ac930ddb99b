"""How sparsity grows over the steps: progress in (0, 1] -> share of the final sparsity, 1 at progress 1."""

from __future__ import annotations

from pruning.registry import schedule


@schedule(glyph="step")
def one_shot(progress: float) -> float:
    """Everything at once, in the first step."""
    return 1.0


@schedule(glyph="line")
def linear(progress: float) -> float:
    """The same share in every step."""
    return progress


@schedule(glyph="curve")
def cubic(progress: float) -> float:
    """Much at first, while weights are redundant, and less and less towards the end.

    1 - (1 - t)^3, Zhu & Gupta, 2017, https://arxiv.org/abs/1710.01878
    """
    return 1 - (1 - progress) ** 3
