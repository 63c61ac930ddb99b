"""Charts of weights and of dependency groups, for a notebook.

frame: `pruning.frames.weights(model, masks)`, a row for each weight: `layer`, its place (`output`,
`input`, `row`, `column`), `weight`, and `kept` where masks are known.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from dashboard import words
from dashboard.charts import layers as layer_panels
from dashboard.charts import one_layer, structure
from dashboard.charts.base import Array
from dashboard.charts.plotly_figure import need, of_layer, shown
from pruning.errors import DataError
from pruning.metrics import bin_counts, bin_edges

MOST_CELLS = 128  # of a picture, in each direction
MADE_BY = "pruning.frames.weights(model, masks)"


def _layer(frame: pd.DataFrame, layer: str | None) -> tuple[str, pd.DataFrame]:
    need(frame, ("layer", "weight"), MADE_BY)
    return of_layer(frame, layer)


def _removed(rows: pd.DataFrame) -> Array:
    """(n,) True where a weight is pruned; nowhere without masks."""
    return ~rows["kept"].to_numpy(bool) if "kept" in rows else np.zeros(len(rows), bool)


def _threshold(rows: pd.DataFrame) -> float | None:
    """The largest |w| that is pruned, where no smaller one is kept: else there is no threshold."""
    removed, size = _removed(rows), rows["weight"].abs().to_numpy(float)
    if not removed.any() or removed.all() or size[removed].max() > size[~removed].min():
        return None
    return float(size[removed].max())


def histogram(
    frame: pd.DataFrame, layer: str | None = None, *, log: bool = False, dark: bool = False
) -> go.Figure:
    """A layer's weights; where |w| decides, those below the threshold are pale."""
    name, rows = _layer(frame, layer)
    values = rows["weight"].to_numpy(float)
    edges, at = bin_edges(values), _threshold(rows)
    where = "" if at is None else f"within ±{at:.3g}"
    title = one_layer.finding(name, int(_removed(rows).sum()), len(rows), where)
    counts = bin_counts(values, edges)
    figure = one_layer.histogram(edges, counts, title=title, dark=dark, threshold=at, log=log)
    return shown(figure, dark)


def before_after(
    frame: pd.DataFrame, layer: str | None = None, *, log: bool = False, dark: bool = False
) -> go.Figure:
    """A layer's weights before, in the column `dense`, and those kept after a run, in `weight`."""
    need(frame, ("dense",), "frame.assign(dense=...) of the dense model's weights")
    name, rows = _layer(frame, layer)
    dense, final = rows["dense"].to_numpy(float), rows["weight"].to_numpy(float)
    edges = bin_edges(dense, final)
    kept = bin_counts(final[~_removed(rows)], edges)
    title = f"{words.layer_name(name)}: before and after"
    counts = bin_counts(dense, edges)
    figure = one_layer.before_after(edges, counts, kept, title=title, dark=dark, log=log)
    return shown(figure, dark)


def all_layers(frame: pd.DataFrame, *, log: bool = False, dark: bool = False) -> go.Figure:
    """A small histogram for each layer."""
    need(frame, ("layer", "weight"), MADE_BY)
    panels = []
    for name, rows in frame.groupby("layer", sort=False):
        values = rows["weight"].to_numpy(float)
        edges = bin_edges(values)
        share = float(_removed(rows).mean())
        panel = layer_panels.Panel(
            str(name), edges, bin_counts(values, edges), _threshold(rows), share
        )
        panels.append(panel)
    if not panels:
        raise DataError("This DataFrame has no rows: there is nothing to draw.")
    title = f"{words.plural(len(panels), 'layer')}, {words.plural(len(frame), 'weight')}"
    return shown(layer_panels.multiples(panels, "", title=title, dark=dark, log=log), dark)


def unit_norms(frame: pd.DataFrame, layer: str | None = None, *, dark: bool = False) -> go.Figure:
    """The L2 norm of each output of a layer, the smallest first; outputs without weights pale."""
    need(frame, ("output",), MADE_BY)
    name, rows = _layer(frame, layer)
    squares = rows["weight"].astype(float).pow(2).groupby(rows["output"]).sum()
    norms = np.sort(np.sqrt(squares.to_numpy()))
    kept = pd.Series(~_removed(rows)).groupby(rows["output"].to_numpy()).any()
    title = f"{words.layer_name(name)}: {words.plural(len(norms), 'output')} by their norm"
    drops = int((~kept).sum())
    figure = one_layer.units(norms, drops, title=title, dark=dark, noun="output", y="L2 norm")
    return shown(figure, dark)


def score_histogram(
    frame: pd.DataFrame, layer: str | None = None, *, log: bool = False, dark: bool = False
) -> go.Figure:
    """A layer's scores. frame: the columns `layer` and `score`, a row for each unit."""
    need(frame, ("layer", "score"), "frame.assign(score=...)")
    name, rows = of_layer(frame, layer)
    values = np.sort(rows["score"].to_numpy(float))
    title = f"{words.layer_name(name)}: {words.plural(len(values), 'score')}"
    figure = one_layer.scores(values, title=title, dark=dark, threshold=None, log=log, x="score")
    return shown(figure, dark)


def matrix(frame: pd.DataFrame, layer: str | None = None, *, dark: bool = False) -> go.Figure:
    """A layer's weights as a picture: a row for each output, a column for each of its weights."""
    need(frame, ("output",), MADE_BY)
    name, rows = _layer(frame, layer)
    outputs = rows["output"].nunique()
    size = np.abs(rows["weight"].to_numpy(float)).reshape(outputs, -1)
    removed = _removed(rows).reshape(size.shape) if "kept" in rows else None
    cells = [np.arange(0, length, -(-length // MOST_CELLS)) for length in size.shape]
    ones = np.ones_like(size)
    pooled = _pooled(np.add, size, cells) / _pooled(np.add, ones, cells)
    # A cell of several weights is pale where all of them are pruned.
    pale = None if removed is None else _pooled(np.logical_and, removed, cells)
    figure = one_layer.matrix(
        pooled,
        pale,
        title=f"{words.layer_name(name)}: {outputs:,} × {size.shape[1]:,} weights",
        dark=dark,
        rows=outputs,
        columns=size.shape[1],
    )
    return shown(figure, dark)


def _pooled(join: np.ufunc, values: Array, cells: Sequence[Array]) -> Array:
    """values joined within cells. cells: where they begin, along both dimensions."""
    rows = join.reduceat(values, cells[0], axis=0)
    made: Array = join.reduceat(rows, cells[1], axis=1)
    return made


def filters(frame: pd.DataFrame, layer: str | None = None, *, dark: bool = False) -> go.Figure:
    """A convolution's kernels as tiles, those of the first input."""
    need(frame, ("output", "input", "row", "column"), MADE_BY)
    name, rows = _layer(frame, layer)
    first = rows[rows["input"] == 0]
    if first["row"].isna().any():
        raise DataError(f"{name} has no kernels of rows and columns: choose a convolution.")
    height, width = int(first["row"].max()) + 1, int(first["column"].max()) + 1
    kernels = first["weight"].to_numpy(float).reshape(-1, height, width)
    title = f"{words.layer_name(name)}: {words.plural(len(kernels), 'filter')}"
    return shown(one_layer.filters(kernels, title=title, dark=dark), dark)


# ---------------------------------------------------------------- dependency groups


def dependency_groups(
    frame: pd.DataFrame,
    group: str = "",
    *,
    layers: Sequence[str] | None = None,
    dark: bool = False,
) -> go.Figure:
    """Layers along x, a line for each group of channels that are pruned together.

    frame: `pruning.frame(dependency_groups(model, example).groups)`, a row for each group; group:
    the one that is drawn strongly; layers: names of weights in order, None for those that a group
    is called by or that read one (which leaves depthwise convolutions out).
    """
    made_by = "pruning.frame(pruning.structure.dependency_graph.dependency_groups(...).groups)"
    need(frame, ("name", "kind", "units", "members"), made_by)
    groups: list[dict[Any, Any]] = frame.to_dict("records")
    named = {one["name"]: None for one in groups}
    for one in groups:
        readers = [member["parameter"] for member in one["members"] if member["dim"] == 1]
        named |= dict.fromkeys(readers)
    shown_layers = [{"name": name} for name in (layers or named)]
    data = {"groups": groups, "layers": shown_layers}
    return shown(structure.lanes(data, group, dark=dark), dark)
