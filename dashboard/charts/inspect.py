"""What Inspect shows of a model under a recipe: weights, scores, and the preview of masks. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from dashboard.charts.base import Array
from dashboard.charts.layers import Panel
from pruning.allocation.ranking import Preview, Ranking
from pruning.events import Layer
from pruning.recipe import Recipe
from pruning.runs.results import Study


@dataclass(frozen=True)
class Inspection:
    """A model's "weights" study under a recipe.

    ranking, preview: None while the scores are worked out; scores_folder: where those lie.
    """

    recipe: Recipe
    study: Study
    ranking: Ranking | None
    preview: Preview | None
    scores_folder: str = ""

    @property
    def structured(self) -> bool:
        """Units of several weights are pruned: there is no threshold on single weights."""
        return self.recipe.granularity != "weight"

    @property
    def on_weights(self) -> bool:
        """The score is a function of |w| alone: its threshold can be drawn on the weights."""
        plain = self.recipe.criterion == "magnitude" and not self.structured
        return plain and not self.recipe.removed

    def index(self, name: str) -> int:
        return self.study.data["names"].index(name)

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self.study.data["layers"][self.index(name)]["shape"])

    def histogram(self, name: str) -> tuple[Array, Array]:
        """(bins + 1,) edges and (bins,) counts of a layer's weights."""
        i = self.index(name)
        return self.study.arrays[f"edges_{i}"], self.study.arrays[f"counts_{i}"]

    def layer(self, name: str) -> Layer:
        """What the recipe would keep of the layer; all of it while that is not known."""
        for layer in self.preview.layers if self.preview else ():
            if layer.name == name:
                return layer
        total = math.prod(self.shape(name))
        return Layer(name, total, total)

    def removed(self, name: str) -> int:
        """Weights of the layer that the recipe would prune."""
        layer = self.layer(name)
        return layer.total - layer.kept

    def scores(self, name: str) -> Array | None:
        """(units,) scores of a layer's units, ascending; None where it has none.

        Without the units that the recipe names, which are removed whatever they score.
        """
        scores = self.ranking.units.get(name) if self.ranking else None
        return None if scores is None else scores[self.named(name) :]

    def named(self, name: str) -> int:
        """Units of the layer that the recipe names."""
        scores = self.ranking.units.get(name, ()) if self.ranking else ()
        return int(np.searchsorted(np.asarray(scores), -np.inf, "right"))

    @property
    def ranked(self) -> set[str]:
        """Layers whose units the recipe may prune."""
        return set(self.ranking.layers_of(self.recipe).units) if self.ranking else set()

    def drops(self, name: str) -> int:
        """Units of the layer that the recipe would prune."""
        return self.preview.drops.get(name, 0) if self.preview else 0

    def score_threshold(self, name: str) -> float | None:
        """The score at or below which units are pruned."""
        return self.preview.thresholds.get(name) if self.preview else None

    def weight_threshold(self, name: str) -> float | None:
        """The same on |w|; None where the criterion does not compare |w|."""
        threshold = self.score_threshold(name)
        if threshold is None or not self.on_weights:
            return None
        return math.sqrt(threshold) if self.squared else threshold

    @property
    def squared(self) -> bool:
        """A weight's score is its square: so it is with the L2 norm."""
        return self.recipe.options.get("norm") == "l2"

    def picture(self, name: str) -> tuple[Array, int, int]:
        """(pooled mean |w|, rows, columns of the real matrix)."""
        shape = self.shape(name)
        return self.study.arrays[f"picture_{self.index(name)}"], shape[0], math.prod(shape[1:])

    def removed_cells(self, name: str) -> Array | None:
        """Cells of the picture at or below the threshold.

        None where a threshold on |w| does not say which weights are pruned.
        """
        if self.preview is None or not self.on_weights:
            return None
        picture = self.picture(name)[0]
        threshold = self.weight_threshold(name)
        return np.zeros(picture.shape, bool) if threshold is None else picture <= threshold

    def norms(self, name: str) -> Array:
        """(outputs,) mean |w| of each output's weights."""
        inputs = math.prod(self.shape(name)[1:])
        return self.study.arrays[f"norms_l1_{self.index(name)}"] / max(inputs, 1)

    @property
    def filters(self) -> Array | None:
        """The first convolution's kernels; None where the model has none."""
        return self.study.arrays.get("filters")

    def panels(self) -> list[Panel]:
        """A small histogram of each layer."""
        panels = []
        for name in self.study.data["names"]:
            layer = self.layer(name)
            share = 1 - layer.kept / layer.total if self.preview else None
            panels.append(Panel(name, *self.histogram(name), self.weight_threshold(name), share))
        return panels


def inspection(recipe: Recipe, study: Study, scores: Study | None) -> Inspection:
    """Raises RecipeError when the recipe names a layer that the model does not have."""
    if scores is None:
        return Inspection(recipe, study, None, None)
    preview = scores.ranking.preview(recipe)
    return Inspection(recipe, study, scores.ranking, preview, str(scores.folder))


def about_matrix(shown: Inspection, name: str) -> str:
    """What the colours of the matrix mean."""
    picture, rows, columns = shown.picture(name)
    if shown.preview is None:
        return "Stronger colour, larger weight. What the recipe removes waits for its scores."
    if shown.removed_cells(name) is None:
        return (
            "Stronger colour, larger weight. "
            "Which of them this criterion removes is seen after a run."
        )
    if picture.size < rows * columns:
        return (
            "A cell is the mean of several weights; "
            "pale where that mean is at or below the threshold (an estimate)."
        )
    removed = shown.removed(name)
    return f"Stronger colour, larger weight; pale cells are pruned, {removed:,} of them."
