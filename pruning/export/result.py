"""What is taken home: a pruned model, and what is known of how it came to be."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from pruning import describe
from pruning.adapted import unadapted
from pruning.describe import RunFacts
from pruning.events import Certificate, Epoch, Finished, Measurement, Pruned
from pruning.metrics import Histogram, Quality
from pruning.recipe import Recipe
from pruning.types import Inputs, Masks, Workpiece


@dataclass(frozen=True)
class Result:
    """A pruned model.

    name: what it is called, in a word or two; work: the model as it ended, zeros in place, with its
    data; masks: what was kept; recipe: None for weights that came from elsewhere; start: the model
    that the recipe began with, where its name gives it in one workspace alone; base: a name that
    gives its architecture and data in any, "" where there is none; finished: the figures; measured:
    those of weights without a run; pruned, epochs: what happened on the way; dense_validation: the
    dense model on the data that epochs are measured on; stopped: before its end, so that its recipe
    alone would go on; machine: that it happened on; histograms: of weights before and after; date:
    when.
    """

    name: str
    work: Workpiece
    masks: Masks
    recipe: Recipe | None = None
    start: Workpiece | None = None
    base: str = ""
    finished: Finished | None = None
    measured: Measurement | None = None
    dense_validation: Quality | None = None
    stopped: bool = False
    pruned: tuple[Pruned, ...] = ()
    epochs: tuple[Epoch, ...] = ()
    machine: dict[str, Any] = field(default_factory=dict)
    histograms: dict[str, Histogram] = field(default_factory=dict)
    date: str = ""

    @property
    def model(self) -> nn.Module:
        return unadapted(self.work.model)

    @property
    def example(self) -> Inputs | None:
        return self.work.example

    @property
    def facts(self) -> RunFacts | None:
        if self.recipe is None or not self.pruned:
            return None
        return describe.facts(self.recipe, self.pruned[-1])

    @property
    def sentence(self) -> str:
        """What was done, in the words of the page and the shell."""
        if self.recipe is None:
            return "Weights of a file, as they are"
        text = describe.outcome(self.facts)
        return text[:1].upper() + text[1:]

    @property
    def certificate(self) -> Certificate | None:
        return self.finished.certificate if self.finished else None

    def stages(self) -> dict[str, Measurement]:
        """Stage -> what was measured of it, in the order in which it came to be."""
        if self.finished is None:
            return {"as it is": self.measured} if self.measured else {}
        return self.finished.stages()
