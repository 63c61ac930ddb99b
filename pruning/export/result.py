"""What is taken home: a pruned model, and what is known of how it came to be."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from pruning.adapted import unadapted
from pruning.export.record import Record
from pruning.types import Inputs, Masks, Workpiece


@dataclass(frozen=True, kw_only=True)
class Result(Record):
    """A pruned model, with its record.

    work: the model as it ended, zeros in place, with its data; masks: what was kept; start: the
    model that the recipe began with, where its name gives it in one workspace alone; base: a name
    that gives its architecture and data in any, "" where there is none.
    """

    work: Workpiece
    masks: Masks
    start: Workpiece | None = None
    base: str = ""

    @property
    def model(self) -> nn.Module:
        return unadapted(self.work.model)

    @property
    def example(self) -> Inputs | None:
        return self.work.example
