"""What Inspect shows of a model under a recipe: weights, scores and what would be left, joined. No page."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboard import words
from dashboard.charts.layers import Panel
from pruning.allocation.ranking import Preview, Ranking
from pruning.events import Layer
from pruning.recipe import Recipe
from pruning.runs.results import Study

Array = NDArray[Any]


@dataclass(frozen=True)
class Look:
    """A model's "weights" study under a recipe. left, scored: None while the scores are worked out."""

    recipe: Recipe
    study: Study
    scored: Ranking | None
    left: Preview | None

    @property
    def ranking(self) -> Ranking:
        assert self.scored is not None
        return self.scored

    @property
    def structured(self) -> bool:
        """Units of several weights go, so that there is no threshold on single weights."""
        return self.recipe.granularity != "weight"

    @property
    def on_weights(self) -> bool:
        """The score is a function of |w| alone, so that its threshold can be drawn on the weights."""
        return self.recipe.criterion == "magnitude" and not self.structured

    def index(self, name: str) -> int:
        return self.study.data["names"].index(name)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.study.data["layers"][self.index(name)]["shape"])

    def histogram(self, name: str) -> tuple[Array, Array]:
        i = self.index(name)
        return self.study.arrays[f"edges_{i}"], self.study.arrays[f"counts_{i}"]

    def layer(self, name: str) -> Layer:
        """What would be left of the layer; all of it while that is not known."""
        held = {layer.name: layer for layer in self.left.layers} if self.left else {}
        total = math.prod(self.shape(name))
        return held.get(name, Layer(name, total, total))

    def threshold(self, name: str) -> float | None:
        """On the score; for magnitude on |w|, whichever norm it compares."""
        found = self.left.thresholds.get(name) if self.left else None
        if found is None or not self.on_weights:
            return found
        return math.sqrt(found) if self.recipe.options.get("norm") == "l2" else found

    def picture(self, name: str) -> tuple[Array, int, int]:
        """(pooled mean |w|, rows, columns of the real matrix)."""
        shape = self.shape(name)
        return self.study.arrays[f"picture_{self.index(name)}"], shape[0], math.prod(shape[1:])

    def gone(self, name: str) -> Array | None:
        """Cells of the picture that the threshold takes; None where positions are not known from a threshold."""
        if self.left is None or not self.on_weights:
            return None
        picture, threshold = self.picture(name)[0], self.threshold(name)
        return picture <= threshold if threshold is not None else np.zeros(picture.shape, bool)

    def norms(self, name: str) -> Array:
        """(outputs,) mean |w| of each output's weights."""
        return self.study.arrays[f"norms_l1_{self.index(name)}"] / max(
            math.prod(self.shape(name)[1:]), 1
        )

    @property
    def filters(self) -> Array | None:
        return self.study.arrays.get("filters")

    def panels(self) -> list[Panel]:
        found = []
        for name in self.study.data["names"]:
            edges, counts = self.histogram(name)
            layer = self.layer(name)
            threshold = self.threshold(name) if self.on_weights else None
            found.append(Panel(name, edges, counts, threshold, 1 - layer.kept / layer.total))
        return found


def look(recipe: Recipe, study: Study, scores: Study | None) -> Look:
    """Raises RecipeError when the recipe names a layer that the model does not have."""
    ranking = scores.ranking if scores else None
    return Look(recipe, study, ranking, ranking.preview(recipe) if ranking else None)


def found_scores(name: str, gone: int, total: int, threshold: float | None, technique: str) -> str:
    """The title of a histogram of scores: what it shows."""
    layer = words.layer_name(name)
    if not gone or threshold is None:
        return f"{layer}: nothing goes, {words.plural(total, 'weight')} stay"
    return f"{layer}: {gone:,} of {total:,} weights ({words.percent(gone / total)}) score at most {threshold:.3g} by {technique} and go"


def about_matrix(look: Look, name: str, gone: Array | None, pooled: bool, layer: Layer) -> str:
    """What the colours of the picture mean."""
    if gone is None:
        return "Stronger colour, larger weight. Which of them this technique takes is seen after a run."
    if pooled:
        return "A cell is the mean of several weights; pale where that mean is at or below the threshold (an estimate)."
    return f"Stronger colour, larger weight; pale cells go, {layer.total - layer.kept:,} of them."
