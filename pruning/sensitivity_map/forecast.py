"""What by_sensitivity's allocation path predicts of one step's pruning, against what is measured
after it.
"""

from __future__ import annotations

from dataclasses import replace

from pruning.allocation.ranking import Ranking
from pruning.events import Accuracy, Forecast
from pruning.measurement import evaluate
from pruning.recipe import Recipe
from pruning.sensitivity_map.netadapt import EXAMPLES
from pruning.types import Workpiece

Predicted = tuple[Forecast, Accuracy | None, float]
"""A forecast, with accuracy and mean loss of the model before the step."""


def forecast(recipe: Recipe, ranking: Ranking, step: int, share: float) -> Predicted | None:
    """What the path predicts of one step; None for scopes that predict nothing."""
    predicted = ranking.predicted(recipe, share)
    if predicted is None or ranking.path is None:
        return None
    loss, fall = predicted
    before = ranking.path.steps[0]
    accuracy = None
    if before.correct is not None:
        accuracy = Accuracy(before.correct, ranking.path.examples)
    return Forecast(step, loss, fall), accuracy, before.loss


def achieved(predicted: Predicted, work: Workpiece) -> Forecast:
    """The forecast beside what the pruned model does on the same images."""
    promised, before, loss_before = predicted
    # The images that the path was measured on: another set would add its own noise.
    data = work.need("validation", "by_sensitivity").sample(EXAMPLES)
    accuracy, loss, _ = evaluate(work.model, data, work.loss, work.metric)
    return replace(
        promised,
        loss_achieved=loss - loss_before,
        drop_achieved=before.value - accuracy.value if before and accuracy else None,
        accuracy=accuracy,
    )
