"""Inspect: the weights and scores of a layer, and which of them the recipe would prune."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import forms, jobs, models, state, tables, words
from dashboard.charts import inspect, layers, one_layer
from dashboard.charts import threshold as charts
from dashboard.charts.base import HEIGHT, Array, Figure
from dashboard.charts.inspect import Inspection
from dashboard.components.strip import HEIGHT as STRIP
from dashboard.components.strip import strip
from dashboard.components.threshold import threshold
from dashboard.views import _frame, _projector, _surgery
from dashboard.views._stops import stop_table
from pruning.errors import PruningError
from pruning.recipe import Recipe
from pruning.runs.results import Study
from pruning.runs.store import Job

MOST_BARS = 400  # units of a layer that are drawn one by one
BY_RECIPE, BEFORE_AFTER = "By the recipe", "Before and after"
WEIGHTS, SURGERY = "Weights", "Surgery"
MATRIX, UNITS, FILTERS = "Matrix", "Units", "Filters"
QUANTILES = np.linspace(0, 1, 101)


def page() -> None:
    recipe = state.recipe()
    card = jobs.study("card", model=recipe.model)
    weights = jobs.study("weights", model=recipe.model)
    if state.unit() is not None and card is not None:
        operate(recipe, card)
        return
    try:
        scores = jobs.study("scores", **tables.scores_spec(recipe))
    except jobs.Costly:  # asked for below, where what hangs on it would stand
        scores = None
    blocks = models.blocks_of(recipe.model, card)
    if card is None or weights is None or not blocks:
        skeleton(recipe.model)
        return
    shown = inspect.inspection(recipe, weights, scores)
    layer = state.layer_among({block.name: block.weights for block in blocks})
    if shown.preview is not None:
        kept = {layer.name: layer.kept / layer.total for layer in shown.preview.layers}
        blocks = [replace(block, kept=kept.get(block.name, 1.0)) for block in blocks]
    strip(blocks, layer, key="strip-inspect")
    look()
    left, right = _frame.halves()
    with left:
        side, log = controls()
        with _frame.guarded():
            distribution(shown, layer, side, log)
    with right, _frame.guarded():
        structure(shown, layer)
    with _frame.guarded():
        all_layers(shown, layer, log)


def operate(recipe: Recipe, card: Study) -> None:
    """The units of the layer one by one, in the place of its weights."""
    blocks = models.blocks(card)
    layer = state.layer_among({block.name: block.weights for block in blocks})
    strip(blocks, layer, key="strip-inspect")
    _surgery.page(recipe, card, blocks, layer, look)


def look() -> None:
    """Whether the page shows the layer's weights, or its units one by one."""

    def take(way: str) -> None:
        state.open_unit(state.FIRST if way == SURGERY else None)

    forms.bound(
        st.segmented_control,
        "Look at",
        WEIGHTS if state.unit() is None else SURGERY,
        take,
        key="inspect-look",
        options=(WEIGHTS, SURGERY),
        required=True,
        label_visibility="collapsed",
    )


def skeleton(model: str) -> None:
    st.skeleton(height=STRIP)
    left, right = _frame.halves()
    with left:
        text = f"Reading every weight of {models.title(model)}."
        _frame.waiting(text, HEIGHT + 56, jobs.request("weights", model=model))
    right.skeleton(height=HEIGHT + 56)


def chart(figure: Figure, kind: str, table: dict[str, Any], name: str, detail: str = "") -> None:
    """A figure whose alternative text is its kind, its title and a detail, with its table."""
    title = figure["layout"]["title"]["text"]
    _frame.chart(figure, alt=f"{kind}. {title}{detail}.", table=pd.DataFrame(table), name=name)


# ---------------------------------------------------------------- left: the distribution


def controls() -> tuple[str, bool]:
    """Which distribution is shown, and whether counts are on a log axis."""
    with st.container(
        horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"
    ):
        side = st.segmented_control(
            "Show",
            (BY_RECIPE, BEFORE_AFTER),
            default=BY_RECIPE,
            required=True,
            key="side",
            bind="query-params",
            label_visibility="collapsed",
        )
        log = st.toggle(
            "Log counts",
            key="log",
            bind="query-params",
            help="Count on a logarithmic axis, so that the few large weights show.",
        )
    return str(side), log


def distribution(shown: Inspection, layer: str, side: str, log: bool) -> None:
    if side == BEFORE_AFTER:
        before_after(shown, layer, log)
    elif shown.preview is None:
        spec = tables.scores_spec(shown.recipe)
        _frame.waiting(forms.scoring(shown.recipe), HEIGHT, jobs.request("scores", **spec))
    elif shown.structured:
        unit_scores(shown, layer)
    elif shown.on_weights:
        weight_histogram(shown, layer, log)
    else:
        weight_scores(shown, layer, log)


def weight_histogram(shown: Inspection, layer: str, log: bool) -> None:
    """Weights with ±threshold: for a criterion that compares |w|."""
    movable = shown.recipe.budgeted and layer in shown.ranked
    if movable and not state.locked("sparsity"):
        threshold_handle(shown, layer, log)
        return
    edges, counts = shown.histogram(layer)
    threshold = shown.weight_threshold(layer)
    where = "" if threshold is None else f"within ±{threshold:.3g}"
    title = one_layer.finding(layer, shown.removed(layer), shown.layer(layer).total, where)
    figure = one_layer.histogram(
        edges, counts, title=title, dark=state.dark(), threshold=threshold, log=log
    )
    table = one_layer.table(edges, counts)
    chart(figure, "Histogram", table, f"weights-{words.layer_name(layer)}")
    if movable:
        why = state.why_locked("sparsity")
        st.caption(words.plain(f"The threshold cannot be moved here. {why}"))


def threshold_handle(shown: Inspection, layer: str, log: bool) -> None:
    """The same with a threshold that is moved by hand; the recipe's share follows on release."""
    assert shown.ranking is not None
    table = stop_table(shown.ranking, shown.scores_folder, shown.recipe)
    picture = partial(
        threshold,
        charts.handle(shown, layer, table, log=log),
        lambda share: forms.attempt(sparsity=share),
        key="threshold",
    )
    title = f"Weights of {words.layer_name(layer)}, and what the recipe removes"
    _projector.component("threshold", title, picture)
    edges, counts = shown.histogram(layer)
    numbers = pd.DataFrame(one_layer.table(edges, counts))
    alt = f"The weights of {words.layer_name(layer)} in bins."

    def draw() -> None:
        st.dataframe(numbers, hide_index=True, alt=alt)

    _frame.popover("Table", draw, key="open-table-threshold", icon=":material/table:")


def weight_scores(shown: Inspection, layer: str, log: bool) -> None:
    """Scores of single weights with the threshold: for every other criterion."""
    values = shown.scores(layer)
    if values is None:
        raise PruningError(f"{words.layer_name(layer)} has no scores: choose another layer.")
    criterion = words.technique(shown.recipe.criterion)
    threshold = shown.score_threshold(layer)
    where = "" if threshold is None else f"score at most {threshold:.3g} by {criterion}"
    title = one_layer.finding(layer, shown.removed(layer), shown.layer(layer).total, where)
    score_histogram(values, f"scores-{words.layer_name(layer)}", title, criterion, threshold, log)
    st.caption(
        f"{criterion.capitalize()} judges by its own score, not by the size of a weight: "
        "the line is on that score."
    )


def score_histogram(
    values: Array, name: str, title: str, criterion: str, threshold: float | None, log: bool
) -> None:
    """The spread of scores, and its quantiles as the table: scores come in millions."""
    axis = f"score by {criterion}"
    figure = one_layer.scores(
        values, title=title, dark=state.dark(), threshold=threshold, log=log, x=axis
    )
    table = {"quantile": QUANTILES, axis: np.quantile(values, QUANTILES)}
    chart(figure, "Histogram of scores", table, name)


def unit_scores(shown: Inspection, layer: str) -> None:
    """Scores of a layer's units, lowest first."""
    fixed = shown.ranking.fixed if shown.ranking else {}
    values = shown.scores(layer)
    if values is None or layer in fixed:
        why = fixed.get(layer, "its outputs are not units.")
        st.info(f"{words.layer_name(layer)} is kept whole: {why}")
        return
    granularity = shown.recipe.granularity
    noun = "group" if granularity == "n_of_m" else words.technique(granularity)
    criterion = words.technique(shown.recipe.criterion)
    named = shown.named(layer)
    drops = shown.drops(layer) - named
    units = words.plural(len(values) + named, noun)
    title = f"{words.layer_name(layer)}: {drops + named:,} of {units} removed"
    if named:
        title += f", {named:,} of them named"
    name = f"units-front-{words.layer_name(layer)}"
    if len(values) > MOST_BARS:
        # Kernels and groups come in thousands: their spread says more than a bar for each.
        threshold = shown.score_threshold(layer)
        score_histogram(values, name, title, criterion, threshold, log=False)
        return
    axis = f"score by {criterion}"
    figure = one_layer.units(values, drops, title=title, dark=state.dark(), noun=noun, y=axis)
    rank = np.arange(1, len(values) + 1)
    table = {"rank": rank, axis: values, "removed": rank <= drops}
    chart(figure, "Bars, lowest score first", table, name)


def before_after(shown: Inspection, layer: str, log: bool) -> None:
    """A layer's weights before and after a finished run, which is chosen here."""
    runs = tables.finished_of(shown.recipe.model)
    if not runs:
        st.info(
            "No finished run of this model yet. "
            "Start one on the Prune page; its weights appear here.",
            icon=":material/hourglass_empty:",
        )
        st.page_link(_frame.page_path("prune"), label="Go to Prune", icon=":material/content_cut:")
        return
    names = words.labels([(jobs.recipe_of(job), jobs.facts(job)) for job in runs])
    labels = {job.id: f"{name} ({job.id[:6]})" for job, name in zip(runs, names, strict=True)}
    ids = [job.id for job in runs]
    opened = state.run_id()
    job = st.selectbox(
        "Run",
        runs,
        index=ids.index(opened) if opened in ids else 0,
        format_func=lambda job: labels[job.id],
        key="after",
        bind="query-params",
        label_visibility="collapsed",
    )
    run_histogram(job, layer, log)


def run_histogram(job: Job, layer: str, log: bool) -> None:
    part = jobs.run_files(job).histograms.get(layer)
    if part is None:
        raise PruningError(f"Run {job.id} has no layer called {layer}: choose another run.")
    kept = int(part.final.sum())
    total = int(part.dense.sum())
    title = f"{words.layer_name(layer)}: {kept:,} of {total:,} weights kept by the run"
    figure = one_layer.before_after(
        part.edges, part.dense, part.final, title=title, dark=state.dark(), log=log
    )
    table = {
        "from": part.edges[:-1],
        "to": part.edges[1:],
        "before": part.dense,
        "after": part.final,
    }
    chart(figure, "Two histograms on the same bins", table, f"after-{words.layer_name(layer)}")


# ---------------------------------------------------------------- right: the structure of the layer


def structure(shown: Inspection, layer: str) -> None:
    """The layer as a matrix, its outputs by norm, or the model's first filters."""
    ways = [MATRIX, UNITS]
    if shown.filters is not None:
        ways.append(FILTERS)
    way = st.segmented_control(
        "Structure",
        ways,
        default=MATRIX,
        required=True,
        key="behind",
        bind="query-params",
        label_visibility="collapsed",
    )
    if way == FILTERS and shown.filters is not None:
        filters(shown.filters)
    elif way == UNITS:
        norms(shown, layer)
    else:
        matrix(shown, layer)


def matrix(shown: Inspection, layer: str) -> None:
    picture, rows, columns = shown.picture(layer)
    title = f"{words.layer_name(layer)} as a matrix, {rows:,} × {columns:,}"
    figure = one_layer.matrix(
        picture,
        shown.removed_cells(layer),
        title=title,
        dark=state.dark(),
        rows=rows,
        columns=columns,
    )
    alt = f"{title}; stronger colour, larger weight."
    name = f"matrix-{words.layer_name(layer)}"
    _frame.chart(figure, alt=alt, table=pd.DataFrame(picture), name=name)
    st.caption(inspect.about_matrix(shown, layer))


def norms(shown: Inspection, layer: str) -> None:
    values = shown.norms(layer)
    order = np.argsort(values, kind="stable")
    title = f"{words.layer_name(layer)}: {words.plural(len(values), 'output')} by mean |w|"
    axis = "mean |w| of its weights"
    figure = one_layer.units(
        values[order], 0, title=title, dark=state.dark(), noun="output", y=axis
    )
    table = {"output": order, "mean |w|": values[order]}
    spread = f", from {values.min():.3g} to {values.max():.3g}"
    chart(figure, "Bars, smallest first", table, f"norms-{words.layer_name(layer)}", spread)


def filters(kernels: Array) -> None:
    """kernels: (n, h, w) or (n, h, w, 3), of the model's first convolution."""
    title = f"{words.plural(len(kernels), 'filter')} of the first convolution"
    if len(kernels) > one_layer.MOST_FILTERS:
        title += f", the first {one_layer.MOST_FILTERS}"
    figure = one_layer.filters(kernels, title=title, dark=state.dark())
    flat = kernels.reshape(len(kernels), -1)
    table = pd.DataFrame(
        {
            "filter": range(len(flat)),
            "lowest": flat.min(1),
            "highest": flat.max(1),
            "mean |w|": np.abs(flat).mean(1),
        }
    )
    alt = f"{title} as tiles; blue is negative, orange positive."
    _frame.chart(figure, alt=alt, table=table, name="filters")


# ---------------------------------------------------------------- below: all layers


def all_layers(shown: Inspection, layer: str, log: bool) -> None:
    panels = shown.panels()
    if not panels:
        return
    takeaway = layers.takeaway(panels)
    title = f"All layers, each on its own scale: {takeaway}"
    figure = layers.multiples(panels, layer, title=title, dark=state.dark(), log=log)
    table = pd.DataFrame(
        {
            "layer": [words.layer_name(panel.name) for panel in panels],
            "removed": [panel.removed for panel in panels],
            "threshold": [panel.threshold for panel in panels],
        }
    )
    alt = f"A small histogram for each of {len(panels)} layers; {takeaway}."
    _frame.chart(figure, alt=alt, table=table, name="all-layers", scrolls="small")


_frame.question("What is in this layer, and what would the recipe prune of it?")
with _frame.guarded():
    page()
