"""What was recorded of a model: its graph, and the input sizes that the graph holds for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx

from pruning.structure.input_sizes import meets, size_in_words
from pruning.structure.size_words import EVERY, sizes_in_words


@dataclass(frozen=True)
class Sizes:
    """The input sizes that a recorded graph holds for.

    names: of the inputs; recorded: their shapes, batch 1; conditions: what other sizes must meet,
    in Python over the names; none where the graph takes whatever the original takes. alone: why
    only the recorded size will do, "" where others do.
    """

    names: tuple[str, ...] = ()
    recorded: tuple[tuple[int, ...], ...] = ()
    conditions: tuple[str, ...] = ()
    alone: str = ""

    def take(self, inputs: Sequence[Any]) -> bool:
        """Whether the graph holds for inputs of these shapes."""
        sizes = dict(zip(self.names, inputs, strict=True))
        return all(meets(condition, sizes) for condition in self.conditions)

    def in_words(self) -> str:
        """A clause: "every size that the original takes"."""
        if self.alone:
            recorded = " and ".join(map(size_in_words, self.recorded))
            return f"{recorded} alone, for {self.alone}"
        if self.conditions:
            return sizes_in_words(self.names, self.recorded, self.conditions)
        return EVERY

    def fixed(self, why: str) -> Sizes:
        """The recorded sizes alone."""
        pairs = zip(self.names, self.recorded, strict=True)
        conditions = tuple(f"{name}.shape[1:] == {shape[1:]}" for name, shape in pairs)
        return Sizes(self.names, self.recorded, conditions, why)


@dataclass(frozen=True)
class Captured:
    """graph: ATen operations, batch dynamic; sizes: of the inputs that it holds for.

    how: "torch.export" or "torch.fx"; first_name: every name of a tensor -> its first.
    """

    graph: fx.GraphModule
    sizes: Sizes
    how: str
    first_name: dict[str, str]
