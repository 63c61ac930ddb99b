"""What the route foretold of one step's pruning, against what came."""

from __future__ import annotations

from dataclasses import replace

from pruning.allocation.ranking import Ranking
from pruning.events import Accuracy, Forecast
from pruning.measurement import evaluate
from pruning.recipe import Recipe
from pruning.sensitivity_map.netadapt import EXAMPLES
from pruning.types import Workpiece

Predicted = tuple[Forecast, Accuracy, float]
"""A forecast, with accuracy and mean loss of the model before the step."""


def forecast(recipe: Recipe, ranking: Ranking, step: int, share: float) -> Predicted | None:
    """The forecast of one step, with accuracy and loss of the model before it; None for scopes that foretell nothing."""
    predicted = ranking.predicted(recipe, share)
    if predicted is None or ranking.route is None:
        return None
    before = ranking.route.legs[0]
    return Forecast(step, *predicted), Accuracy(before.correct, ranking.route.examples), before.loss


def achieved(predicted: Predicted, work: Workpiece) -> Forecast:
    """The forecast beside what the pruned model does on the same images."""
    promise, before, loss_before = predicted
    accuracy, loss = evaluate(
        work.model, work.need("validation", "by_sensitivity").head(EXAMPLES), work.loss
    )
    return replace(
        promise,
        loss_achieved=loss - loss_before,
        drop_achieved=before.value - accuracy.value,
        accuracy=accuracy,
    )
