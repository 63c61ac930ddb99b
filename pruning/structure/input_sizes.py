"""Which input sizes a recorded graph holds for, and the check that refuses the others in words.

Needs torch alone, so that a bundle can carry it along.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from types import CodeType
from typing import Any

import torch
from torch import Tensor, nn


@lru_cache(maxsize=256)
def _compiled(condition: str) -> CodeType:
    return compile(condition, "<sizes of the inputs>", "eval")


def meets(condition: str, sizes: dict[str, Any]) -> bool:
    """Whether sizes meet a condition, such as "x.shape[2] % 4 == 0".

    sizes: name of an input -> whatever has its `shape`.
    """
    # Conditions are torch.export's own, or made here: no text of a stranger comes this far.
    names = {"__builtins__": {}, "torch": torch, "math": math, "min": min, "max": max}
    return bool(eval(_compiled(condition), names, sizes))


def size_in_words(shape: Sequence[int]) -> str:
    """The size of one example, without the batch: "3 × 224 × 224"."""
    return " × ".join(map(str, shape[1:])) or "1"


class InputSizes(nn.Module):
    """Refuses inputs of sizes that the graph behind it does not hold for.

    names: of the inputs; recorded: their shapes, batch first; conditions: what other sizes must
    meet, in Python; words: the same for people.
    """

    words = ""  # of those that were saved before there were any
    _is_impure = True  # torch.fx keeps a call that nothing reads only where this is said

    def __init__(
        self,
        names: Sequence[str],
        recorded: Sequence[Sequence[int]],
        conditions: Sequence[str],
        words: str = "",
    ) -> None:
        super().__init__()
        self.names = tuple(names)
        self.recorded = tuple(tuple(shape) for shape in recorded)
        self.conditions = tuple(conditions)
        self.words = words

    def forward(self, *inputs: Tensor) -> None:
        """Raises ValueError for other sizes than the conditions allow."""
        if all(x.shape[1:] == shape[1:] for x, shape in zip(inputs, self.recorded, strict=True)):
            return
        sizes = dict(zip(self.names, inputs, strict=True))
        failed = [condition for condition in self.conditions if not meets(condition, sizes)]
        if failed:
            asked = " and ".join(size_in_words(x.shape) for x in inputs)
            recorded = " and ".join(map(size_in_words, self.recorded))
            raise ValueError(
                f"This compact model was made for inputs of {recorded} and does not hold for "
                f"{asked}: it holds for {self.words or failed[0]}. Make it again with an example "
                "of that size."
            )

    def extra_repr(self) -> str:
        return self.words or " and ".join(self.conditions)
