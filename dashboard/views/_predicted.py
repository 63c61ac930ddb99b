"""Predicted against measured: a run's forecast beside the accuracy that pruning really cost."""

from __future__ import annotations

import streamlit as st

from dashboard import jobs, words
from dashboard.charts.prune import RunHistory, as_pruned
from dashboard.charts.results import pruned_stage
from dashboard.views import _frame
from pruning.events import Accuracy
from pruning.recipe import Recipe
from pruning.sensitivity_map import planning


def predicted(run: RunHistory, recipe: Recipe) -> None:
    """Nothing without a forecast: a manual recipe has one once its model's map was measured."""
    last = run.forecasts[-1] if run.forecasts else None
    prediction = (last.loss, last.drop) if last else by_map(recipe)
    if prediction is None:
        return
    loss, drop = prediction
    # A forecast is of pruning alone and of validation data: so is what it is compared with.
    measured = as_pruned(run)
    end = run.result
    if drop is None or measured is None or end is None:
        return
    dense, pruned = measured.dense, measured.pruned
    # What is predicted is a fall of accuracy: another metric has no forecast.
    if not isinstance(dense, Accuracy) or not isinstance(pruned, Accuracy):
        return
    st.markdown("### Predicted against measured")
    places = st.grid(3, min_column_width=190, gap="medium")
    left, middle, right = (places.cell() for _ in range(3))
    with left:
        source = "From the map: what layers cost alone, added up"
        if last:
            source = "Measured on the allocation path, layer by layer"
        _frame.metric("Predicted, validation", words.points(-drop, 0.0), loss_change(loss), source)
    with middle:
        change = words.points(pruned, dense)
        loss_text = None if measured.loss is None else loss_change(measured.loss)
        when = pruned_stage(recipe) if end.pruned else "at the end"
        _frame.metric(f"Measured {when}, {measured.split}", change, loss_text)
    with right:
        if last and last.drop_achieved is not None and last.loss_achieved is not None:
            change = words.points(-last.drop_achieved, 0.0)
            loss_text = loss_change(last.loss_achieved)
            _frame.metric("Measured, the forecast's images", change, loss_text)
        else:
            label = "After fine-tuning, test" if end.pruned else "Final, test"
            _frame.metric(label, words.points(end.final.accuracy, end.dense.accuracy))
    st.caption(words.plain(verdict(dense, pruned, drop, recipe)))


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


def loss_change(value: float) -> str:
    return f"loss {value:+.3f}".replace("-", "−")
