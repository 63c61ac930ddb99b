"""What was foretold of a run's pruning beside what came of it, on every result that has a forecast."""

from __future__ import annotations

import streamlit as st

from dashboard import jobs, words
from dashboard.charts.prune import RunHistory
from pruning.events import Accuracy, Finished
from pruning.recipe import Recipe
from pruning.sensitivity_map import planning


def predicted(end: Finished, recipe: Recipe, told: RunHistory) -> None:
    """Nothing where nobody foretold anything: a run by hand has a forecast once its model's map was measured."""
    last = told.forecasts[-1] if told.forecasts else None
    promise = (last.loss, last.drop) if last else by_map(recipe)
    came = end.pruned or end.final
    if promise is None or promise[1] is None or end.dense.accuracy is None or came.accuracy is None:
        return
    st.markdown("##### What was foretold, and what came")
    a, b, c = st.columns(3, gap="medium")
    how = (
        "Measured on the way down, layer by layer"
        if last
        else "From the map: what layers do alone, added up"
    )
    look = {"delta_color": "off", "delta_arrow": "off"}
    a.metric(
        "Foretold, validation",
        words.points(-promise[1], 0.0),
        f"loss {signed(promise[0])}",
        help=how,
        **look,
    )  # type: ignore[arg-type]
    beside = (
        f"loss {signed(came.loss - end.dense.loss)}"
        if came.loss is not None and end.dense.loss is not None
        else None
    )
    b.metric(
        "Came, before healing, test",
        words.points(came.accuracy, end.dense.accuracy),
        beside,
        **look,
    )  # type: ignore[arg-type]
    if last and last.drop_achieved is not None and last.loss_achieved is not None:
        told_loss = f"loss {signed(last.loss_achieved)}"
        c.metric(
            "Came, on the forecast's images",
            words.points(-last.drop_achieved, 0.0),
            told_loss,
            **look,
        )  # type: ignore[arg-type]
    else:
        c.metric(
            "After healing, test" if end.pruned else "After all, test",
            words.points(end.final.accuracy, end.dense.accuracy),
            **look,
        )  # type: ignore[arg-type]
    st.caption(words.plain(verdict(end.dense.accuracy, came.accuracy, promise[1], recipe)))


def by_map(recipe: Recipe) -> tuple[float, float | None] | None:
    """What the map of this model by this score foretells of the recipe's ratios; None without a map."""
    if recipe.scope != "manual" or not recipe.prunes:
        return None
    for held in jobs.maps_of(recipe):
        points = jobs.points(held)
        if any(point.accuracy for point in points):
            return planning.predicted(points, recipe.ratios)
    return None


def verdict(dense: Accuracy, came: Accuracy, drop: float, recipe: Recipe) -> str:
    """Whether the forecast held, in one sentence: inside the interval of what came, better or worse."""
    expected = dense.value - drop
    low, high = came.interval
    if low <= expected <= high:
        said = "The forecast lies within the 95 % interval of what came."
    elif expected < low:
        said = "Less was lost than foretold."
    else:
        said = "More was lost than foretold: layers that are harmless one at a time are not always harmless together."
    if recipe.steps > 1 and recipe.schedule != "one_shot":
        said += f" It is for one shot; this run pruned in {recipe.steps} steps, with healing between them."
    return said


def signed(value: float) -> str:
    return f"{value:+.3f}".replace("-", "−")
