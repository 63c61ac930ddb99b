"""What is written down of a pruned model: how it came to be, and its figures. No torch: a page
reads it as well.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pruning import describe
from pruning.describe import RunFacts
from pruning.events import Certificate, Epoch, Finished, Measurement, Pruned
from pruning.metrics import Histogram, Quality
from pruning.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class Record:
    """A pruned model on paper.

    name: what it is called, in a word or two; recipe: None for weights that came from elsewhere;
    finished: the figures; measured: those of weights without a run; pruned, epochs: what happened
    on the way; dense_validation: the dense model on the data that epochs are measured on; stopped:
    before its end, so that its recipe alone would go on; machine: that it happened on; histograms:
    of weights before and after; date: when.
    """

    name: str
    recipe: Recipe | None = None
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
