"""Predicted against measured: a run's forecast beside the accuracy that pruning really cost."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from dashboard import jobs, words
from dashboard.views import _frame
from pruning.events import Accuracy, Finished, Forecast, Measurement
from pruning.recipe import Recipe
from pruning.sensitivity_map import planning


def predicted(end: Finished, recipe: Recipe, forecasts: Sequence[Forecast]) -> None:
    """Nothing without a forecast: a manual recipe has one once its model's map was measured."""
    last = forecasts[-1] if forecasts else None
    prediction = (last.loss, last.drop) if last else by_map(recipe)
    if prediction is None:
        return
    loss, drop = prediction
    # A forecast is of pruning alone, so it is compared with what was measured before fine-tuning.
    pruned = end.pruned or end.final
    if drop is None or end.dense.accuracy is None or pruned.accuracy is None:
        return
    st.markdown("### Predicted against measured")
    left, middle, right = st.columns(3, gap="medium")
    with left:
        source = "From the map: what layers cost alone, added up"
        if last:
            source = "Measured on the allocation path, layer by layer"
        _frame.metric("Predicted, validation", words.points(-drop, 0.0), loss_change(loss), source)
    with middle:
        change = words.points(pruned.accuracy, end.dense.accuracy)
        _frame.metric("Measured before fine-tuning, test", change, measured_loss(pruned, end.dense))
    with right:
        if last and last.drop_achieved is not None and last.loss_achieved is not None:
            change = words.points(-last.drop_achieved, 0.0)
            loss_text = loss_change(last.loss_achieved)
            _frame.metric("Measured, the forecast's images", change, loss_text)
        else:
            label = "After fine-tuning, test" if end.pruned else "Final, test"
            _frame.metric(label, words.points(end.final.accuracy, end.dense.accuracy))
    st.caption(words.plain(verdict(end.dense.accuracy, pruned.accuracy, drop, recipe)))


def by_map(recipe: Recipe) -> tuple[float, float | None] | None:
    """(loss, drop) that the model's sensitivity map predicts for the ratios; None without a map."""
    if recipe.scope != "manual" or not recipe.prunes:
        return None
    for job in jobs.maps_of(recipe):
        points = jobs.points(job)
        if any(point.accuracy for point in points):
            return planning.predicted(points, recipe.ratios)
    return None


def verdict(dense: Accuracy, measured: Accuracy, drop: float, recipe: Recipe) -> str:
    """Whether the forecast lies inside the measured interval, in one sentence."""
    expected = dense.value - drop
    low, high = measured.interval
    if low <= expected <= high:
        text = "The forecast lies within the 95 % interval of the measurement."
    elif expected < low:
        text = "Less was lost than predicted."
    else:
        text = (
            "More was lost than predicted: layers that are harmless one at a time "
            "are not always harmless together."
        )
    if recipe.steps > 1 and recipe.schedule != "one_shot":
        text += (
            f" It is for one shot; this run pruned in {recipe.steps} steps, "
            "with fine-tuning between them."
        )
    return text


def measured_loss(pruned: Measurement, dense: Measurement) -> str | None:
    if pruned.loss is None or dense.loss is None:
        return None
    return loss_change(pruned.loss - dense.loss)


def loss_change(value: float) -> str:
    return f"loss {value:+.3f}".replace("-", "−")
