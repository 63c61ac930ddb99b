"""Inspect: what is in a layer, and what the recipe would remove from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import streamlit as st

from dashboard import jobs, models, state, tables, words
from dashboard.charts import inspect, layers, one_layer
from dashboard.charts.base import HEIGHT
from dashboard.components.strip import strip
from dashboard.views import _frame
from pruning.errors import PruningError
from pruning.runs.store import Job

BARS = 400  # units of a layer that are drawn one by one, at most
SIDES = ("By the recipe", "Before and after")
BEHIND = ("Matrix", "Units", "Filters")


def page() -> None:
    recipe = state.recipe()
    card = jobs.study("card", model=recipe.model)
    held = jobs.study("weights", model=recipe.model)
    scores = jobs.study("scores", **tables.scores_spec(recipe))
    blocks = models.blocks_of(recipe.model, card)
    if card is None or held is None or not blocks:
        _skeleton(recipe.model)
        return
    look = inspect.look(recipe, held, scores)
    chosen = state.layer_among({block.name: block.weights for block in blocks})
    if look.left is not None:
        kept = {layer.name: layer.kept / layer.total for layer in look.left.layers}
        blocks = [replace(block, kept=kept.get(block.name, 1.0)) for block in blocks]
    strip(blocks, chosen, key="strip-inspect")
    left, right = st.columns([3, 2], gap="medium")
    with left:
        side, log = _controls()
        with _frame.guarded():
            _front(look, chosen, side, log)
    with right, _frame.guarded():
        _behind(look, chosen)
    with _frame.guarded():
        _all(look, chosen, log)


def _skeleton(model: str) -> None:
    st.skeleton(height=98)
    left, right = st.columns([3, 2], gap="medium")
    with left:
        _frame.waiting(
            f"Reading every weight of {models.title(model)}; usually two seconds.",
            HEIGHT + 56,
        )
    right.skeleton(height=HEIGHT + 56)


# ---------------------------------------------------------------- left: the histogram


def _controls() -> tuple[str, bool]:
    with st.container(
        horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"
    ):
        side = st.segmented_control(
            "Show", SIDES, default=SIDES[0], required=True, key="side", label_visibility="collapsed"
        )
        log = st.toggle(
            "Log counts",
            key="log",
            help="Count on a logarithmic axis, so that the few large weights show.",
        )
    return str(side), log


def _front(look: inspect.Look, chosen: str, side: str, log: bool) -> None:
    if side == SIDES[1]:
        _before_after(look, chosen, log)
    elif look.left is None:
        _frame.waiting(
            f"Scoring every weight by {words.technique(look.recipe.criterion)}; usually a second.",
            HEIGHT,
        )
    elif look.structured:
        _units(look, chosen, "front")
    elif look.on_weights:
        _histogram(look, chosen, log)
    else:
        _scores(look, chosen, log)


def _histogram(look: inspect.Look, chosen: str, log: bool) -> None:
    edges, counts = look.histogram(chosen)
    layer, threshold = look.layer(chosen), look.threshold(chosen)
    title = one_layer.found(chosen, layer.total - layer.kept, layer.total, threshold)
    figure = one_layer.histogram(
        edges, counts, title=title, dark=state.dark(), threshold=threshold, log=log
    )
    table = pd.DataFrame(one_layer.table(edges, counts))
    _frame.chart(
        figure, alt=f"Histogram. {title}.", table=table, name=f"weights-{words.layer_name(chosen)}"
    )


def _scores(look: inspect.Look, chosen: str, log: bool) -> None:
    values, layer, threshold = (
        look.ranking.units[chosen],
        look.layer(chosen),
        look.threshold(chosen),
    )
    technique = words.technique(look.recipe.criterion)
    title = inspect.found_scores(
        chosen, layer.total - layer.kept, layer.total, threshold, technique
    )
    axis = f"score by {technique}"
    figure = one_layer.scores(
        values, title=title, dark=state.dark(), threshold=threshold, log=log, x=axis
    )
    quantiles = np.linspace(0, 1, 101)
    table = pd.DataFrame({"quantile": quantiles, axis: np.quantile(values, quantiles)})
    _frame.chart(
        figure,
        alt=f"Histogram of scores. {title}.",
        table=table,
        name=f"scores-{words.layer_name(chosen)}",
    )
    st.caption(
        f"{technique.capitalize()} judges by its own score, not by the size of a weight: the line is on that score."
    )


def _units(look: inspect.Look, chosen: str, place: str) -> None:
    values, drops = (
        look.ranking.units.get(chosen),
        look.left.drops.get(chosen, 0) if look.left else 0,
    )
    if values is None or chosen in look.ranking.fixed:
        st.info(
            f"{words.layer_name(chosen)} stays whole: {look.ranking.fixed.get(chosen, 'its outputs are not units.')}"
        )
        return
    noun = (
        "group" if look.recipe.granularity == "n_of_m" else words.technique(look.recipe.granularity)
    )
    y = f"score by {words.technique(look.recipe.criterion)}"
    title = f"{words.layer_name(chosen)}: {drops:,} of {words.plural(len(values), noun)} go"
    if (
        len(values) > BARS
    ):  # kernels and groups come in thousands: how their scores are spread says more than a bar for each
        at = look.left.thresholds.get(chosen) if look.left else None
        figure = one_layer.scores(
            values, title=title, dark=state.dark(), threshold=at, log=False, x=y
        )
        table = pd.DataFrame(
            {"quantile": np.linspace(0, 1, 101), y: np.quantile(values, np.linspace(0, 1, 101))}
        )
        _frame.chart(
            figure,
            alt=f"Histogram of scores. {title}.",
            table=table,
            name=f"units-{place}-{words.layer_name(chosen)}",
        )
        return
    figure = one_layer.units(values, drops, title=title, dark=state.dark(), noun=noun, y=y)
    table = pd.DataFrame(
        {"rank": np.arange(1, len(values) + 1), y: values, "goes": np.arange(len(values)) < drops}
    )
    _frame.chart(
        figure,
        alt=f"Bars, lowest score first. {title}.",
        table=table,
        name=f"units-{place}-{words.layer_name(chosen)}",
    )


def _before_after(look: inspect.Look, chosen: str, log: bool) -> None:
    runs = tables.finished_of(look.recipe.model)
    if not runs:
        said = "No finished run of this model yet. Start one on the Prune page; its weights appear here."
        st.info(said, icon=":material/hourglass_empty:")
        st.page_link(_frame.page_path("prune"), label="Go to Prune", icon=":material/content_cut:")
        return
    names = dict(
        zip(
            [job.id for job in runs],
            words.labels([jobs.recipe_of(job) for job in runs]),
            strict=True,
        )
    )
    start = next((i for i, job in enumerate(runs) if job.id == state.run_id()), 0)
    called = {job.id: f"{names[job.id]} ({job.id[:6]})" for job in runs}
    job = st.selectbox(
        "Run",
        runs,
        index=start,
        format_func=lambda job: called[job.id],
        key="after",
        label_visibility="collapsed",
    )
    _compared(job, chosen, log)


def _compared(job: Job, chosen: str, log: bool) -> None:
    held = jobs.run_files(job).histograms.get(chosen)
    if held is None:
        raise PruningError(f"Run {job.id} has no layer called {chosen}: choose another run.")
    kept, total = int(held.final.sum()), int(held.dense.sum())
    title = f"{words.layer_name(chosen)}: {kept:,} of {total:,} weights left after the run"
    figure = one_layer.before_after(
        held.edges, held.dense, held.final, title=title, dark=state.dark(), log=log
    )
    table = pd.DataFrame(
        {"from": held.edges[:-1], "to": held.edges[1:], "before": held.dense, "after": held.final}
    )
    _frame.chart(
        figure,
        alt=f"Two histograms on the same bins. {title}.",
        table=table,
        name=f"after-{words.layer_name(chosen)}",
    )


# ---------------------------------------------------------------- right: what is behind it


def _behind(look: inspect.Look, chosen: str) -> None:
    ways = [way for way in BEHIND if way != "Filters" or look.filters is not None]
    way = st.segmented_control(
        "Behind it",
        ways,
        default=ways[0],
        required=True,
        key="behind",
        label_visibility="collapsed",
    )
    if way == "Filters":
        _filters(look)
    elif way == "Units":
        _norms(look, chosen)
    else:
        _matrix(look, chosen)


def _matrix(look: inspect.Look, chosen: str) -> None:
    picture, rows, columns = look.picture(chosen)
    gone = look.gone(chosen)
    pooled = picture.size < rows * columns
    layer = look.layer(chosen)
    title = f"{words.layer_name(chosen)} as a matrix, {rows:,} × {columns:,}"
    figure = one_layer.matrix(
        picture, gone, title=title, dark=state.dark(), rows=rows, columns=columns
    )
    alt, table = f"{title}; stronger colour, larger weight.", pd.DataFrame(picture)
    _frame.chart(figure, alt=alt, table=table, name=f"matrix-{words.layer_name(chosen)}")
    st.caption(inspect.about_matrix(look, chosen, gone, pooled, layer))


def _norms(look: inspect.Look, chosen: str) -> None:
    norms = look.norms(chosen)
    order = np.argsort(norms, kind="stable")
    title = f"{words.layer_name(chosen)}: {words.plural(len(norms), 'output')} by mean |w|"
    figure = one_layer.units(
        norms[order], 0, title=title, dark=state.dark(), noun="output", y="mean |w| of its weights"
    )
    table = pd.DataFrame({"output": order, "mean |w|": norms[order]})
    alt = f"Bars, smallest first. {title}, from {norms.min():.3g} to {norms.max():.3g}."
    _frame.chart(figure, alt=alt, table=table, name=f"norms-{words.layer_name(chosen)}")


def _filters(look: inspect.Look) -> None:
    kernels = look.filters
    assert kernels is not None
    shown = min(len(kernels), 64)
    title = f"{words.plural(len(kernels), 'filter')} of the first convolution" + (
        f", the first {shown}" if shown < len(kernels) else ""
    )
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
    _frame.chart(
        figure,
        alt=f"{title} as tiles; blue is negative, orange positive.",
        table=table,
        name="filters",
    )


# ---------------------------------------------------------------- all layers


def _all(look: inspect.Look, chosen: str, log: bool) -> None:
    panels = look.panels()
    if not panels:
        return
    most = max(panels, key=lambda panel: panel.gone)
    takeaway = (
        f"{words.layer_name(most.name)} would lose most, {words.percent(most.gone)}"
        if most.gone
        else "no layer would lose anything"
    )
    title = f"All layers, each on its own scale: {takeaway}"
    figure = layers.multiples(panels, chosen, title=title, dark=state.dark(), log=log)
    table = pd.DataFrame(
        {
            "layer": [words.layer_name(panel.name) for panel in panels],
            "removed": [panel.gone for panel in panels],
            "threshold": [panel.threshold for panel in panels],
        }
    )
    _frame.chart(
        figure,
        alt=f"A small histogram for each of {len(panels)} layers; {takeaway}.",
        table=table,
        name="all-layers",
    )


_frame.question("What is in this layer, and what would the recipe remove from it?")
with _frame.guarded():
    page()
