"""Smaller inputs for a comparison: where a graph works at any position, 64 by 64 pixels tell as
much of its channels as 224 by 224 do, in a twelfth of the time.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pruning.structure.capture import Captured, Example, inputs
from pruning.structure.propagate import names, operation
from pruning.structure.rules.convolve import CONVOLUTIONS
from pruning.structure.rules.elementwise import BINARY, UNARY, with_inplace
from pruning.structure.rules.reduce import POOLS

SIDE = 64
"""Positions along each dimension: large enough that five halvings leave more than one."""

GAIN = 2
"""How many times fewer positions are worth comparing at two sizes."""

FREE = frozenset(
    (
        *CONVOLUTIONS,
        *POOLS,
        *with_inplace(UNARY),
        *with_inplace(BINARY),
        *names("batch_norm instance_norm linear mean sum amax cat concat concatenate getitem"),
        *names("contiguous clone alias detach whole dropout feature_dropout flatten squeeze"),
    )
)
"""Operations that name no position and no size of a picture. Views, slices, resizing, padding and
attention may have a size of the recorded example written into them."""


def smaller_inputs(captured: Captured, example: Example) -> tuple[Tensor, ...] | None:
    """The middle of the example, at most 64 positions long; None where only its own size will do.

    That is where some operation may depend on positions, where there are several inputs, and where
    it would save little. Whether the model takes this size, only running it can tell.
    """
    calls = [node for node in captured.graph.graph.nodes if node.op == "call_function"]
    if not all(operation(node) in FREE for node in calls):
        return None
    whole = inputs(example)
    if len(whole) != 1 or not whole[0].is_floating_point() or whole[0].dim() < 3:
        return None
    small = whole[0]
    for dim in range(2, small.dim()):
        size = small.shape[dim]
        length = min(SIDE, size)
        small = small.narrow(dim, (size - length) // 2, length)
    if math.prod(small.shape[2:]) * GAIN > math.prod(whole[0].shape[2:]):
        return None
    return (small,)


def size_in_words(x: tuple[Tensor, ...]) -> str:
    """The size of one example: "3 × 224 × 224"; of several inputs, joined by "and"."""
    sizes = (" × ".join(map(str, part.shape[1:])) or "1" for part in x)
    return " and ".join(sizes)


def takes(model: torch.nn.Module, x: tuple[Tensor, ...]) -> bool:
    """Whether the model runs on inputs of this size."""
    try:
        with torch.inference_mode():
            model(*x)
    except (RuntimeError, ValueError, IndexError, TypeError, AssertionError):
        return False
    return True
