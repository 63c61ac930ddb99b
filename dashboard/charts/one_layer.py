"""Pictures of one layer: weights or scores with the threshold, filters, units, matrix. Pure.

Arrays in, plotly figures as plain dicts out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dashboard import colours, words
from dashboard.charts.base import (
    HATCH,
    Array,
    Figure,
    centres,
    counts_axis,
    layout,
    readable_bins,
    rebin,
)

SCORE_BINS = 128
LONG_TAIL = 50  # the largest score is so many times the median: scores are drawn on a log axis
MOST_FILTERS = 64

BAR = {"thickness": 10, "outlinewidth": 0, "len": 0.8}
"""The colour bar beside a heat map."""

# ---------------------------------------------------------------- histograms


def histogram(
    edges: Array,
    counts: Array,
    *,
    title: str,
    dark: bool,
    threshold: float | None,
    log: bool,
) -> Figure:
    """Weights of a layer; those within ±threshold are pale.

    edges: (bins + 1,), counts: (bins,); log: counts on a logarithmic axis.
    """
    edges, counts = rebin(edges, counts, readable_bins(int(counts.sum())))
    middle = centres(edges)
    removed = np.zeros(len(middle), bool)
    if threshold is not None:
        removed = np.abs(middle) <= threshold
    hover = [f"{value:.3g}" for value in middle]
    figure: Figure = {
        "data": _bars(edges, counts, removed, dark, "weights with a weight", hover),
        "layout": layout(
            title,
            dark,
            xaxis={"title": {"text": "weight"}},
            yaxis=counts_axis(log, counts.max(initial=1)),
            barmode="overlay",
        ),
    }
    if threshold is not None:
        tones = colours.palette(dark)
        names = [f"−{threshold:.3g}", f"+{threshold:.3g}"]
        figure["layout"] |= _thresholds([-threshold, threshold], names, tones)
        figure["layout"]["shapes"].append(_band(-threshold, threshold, tones))
    return figure


def scores(
    values: Array, *, title: str, dark: bool, threshold: float | None, log: bool, x: str
) -> Figure:
    """Scores of a layer's units, binned here; those at or below the threshold are pale.

    values: (units,) ascending; x: the axis' title. Scores with a long tail stand on a log axis.
    """
    positive = values[values > 0]
    powers = len(positive) > 1 and positive[-1] > LONG_TAIL * positive[len(positive) // 2]
    # The bars lie on a linear axis of exponents, so that all are equally wide.
    shown = np.log10(positive) if powers else values
    counts, edges = np.histogram(shown, bins=SCORE_BINS)
    middle = centres(edges)
    at = threshold
    if powers and threshold is not None:
        at = math.log10(threshold) if threshold > 0 else None
    removed = np.zeros(len(counts), bool) if at is None else middle <= at
    hover = [f"{10**value if powers else value:.3g}" for value in middle]
    axis: dict[str, Any] = {"title": {"text": x}}
    if powers:
        ticks = range(math.ceil(edges[0]), math.floor(edges[-1]) + 1)
        axis["tickvals"] = list(ticks)
        axis["ticktext"] = [f"10<sup>{power}</sup>" for power in ticks]
    figure: Figure = {
        "data": _bars(edges, counts, removed, dark, "units with a score", hover),
        "layout": layout(
            title,
            dark,
            xaxis=axis,
            yaxis=counts_axis(log, counts.max(initial=1), "units"),
            barmode="overlay",
        ),
    }
    if at is not None:
        figure["layout"] |= _thresholds([at], [f"{threshold:.3g}"], colours.palette(dark))
    return figure


def before_after(
    edges: Array, dense: Array, final: Array, *, title: str, dark: bool, log: bool
) -> Figure:
    """A layer's dense weights as a line, and those kept after the run, filled, on the same bins.

    edges: (bins + 1,); dense, final: (bins,) counts.
    """
    tones = colours.palette(dark)
    # Both take the bins that suit the dense layer: the kept weights alone would get wider ones.
    most = readable_bins(int(dense.sum()))
    final = rebin(edges, final, most)[1]
    edges, dense = rebin(edges, dense, most)
    middle = centres(edges).tolist()
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": middle,
        "y": dense.tolist(),
        "name": "dense",
        "line": {"shape": "hvh", "color": tones.dense, "width": 1.5},
        "hovertemplate": "%{y:,} weights near %{x:.3g} before<extra></extra>",
    }
    bars = {
        "type": "bar",
        "x": middle,
        "y": final.tolist(),
        "width": float(edges[1] - edges[0]),
        "name": "kept",
        "marker": {"color": tones.kept, "line": {"width": 0}},
        "hovertemplate": "%{y:,} weights near %{x:.3g} after<extra></extra>",
    }
    top = max(dense.max(initial=1), final.max(initial=1))
    legend = {"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"}
    return {
        "data": [bars, line],
        "layout": layout(
            title,
            dark,
            xaxis={"title": {"text": "weight"}},
            yaxis=counts_axis(log, top),
            showlegend=True,
            legend=legend,
        ),
    }


def _bars(
    edges: Array, counts: Array, removed: Array, dark: bool, what: str, hover: Sequence[str]
) -> list[dict[str, Any]]:
    """One trace of the bins that are removed, one of those kept.

    removed: (bins,) bool; what: `units with a score`, read before `near`; hover: (bins,) values.
    """
    middle = centres(edges)
    values = np.asarray(hover)
    tones = colours.palette(dark)
    parts = ((removed, tones.removed, "removed"), (~removed, tones.kept, "kept"))
    return [
        {
            "type": "bar",
            "x": middle[part].tolist(),
            "y": counts[part].tolist(),
            "width": float(edges[1] - edges[0]),
            "name": name,
            "customdata": values[part].tolist(),
            "marker": {"color": colour, "line": {"width": 0}},
            "hovertemplate": f"%{{y:,}} {what} near %{{customdata}}: {name}<extra></extra>",
        }
        for part, colour, name in parts
    ]


def _thresholds(
    at: Sequence[float], names: Sequence[str], tones: colours.Palette
) -> dict[str, Any]:
    """Upright lines, each with its value above; of two, each name stands on the outer side."""
    line = {"color": tones.highlight, "width": 2}
    upright = {"type": "line", "y0": 0, "y1": 1, "yref": "paper", "line": line}
    above = {
        "y": 1,
        "yref": "paper",
        "yanchor": "bottom",
        "showarrow": False,
        "font": {"color": tones.highlight, "size": 13},
    }
    sides = ("right", "left") if len(at) == 2 else ("center",)
    notes = [
        {"x": x, "text": name, "xanchor": side, **above}
        for x, name, side in zip(at, names, sides, strict=True)
    ]
    return {"shapes": [{**upright, "x0": x, "x1": x} for x in at], "annotations": notes}


def _band(low: float, high: float, tones: colours.Palette) -> dict[str, Any]:
    """The ground between two thresholds, tinted."""
    fill = {"fillcolor": colours.alpha(tones.removed, 0.18), "line": {"width": 0}, "layer": "below"}
    return {"type": "rect", "x0": low, "x1": high, "y0": 0, "y1": 1, "yref": "paper", **fill}


# ---------------------------------------------------------------- units, one by one


def units(values: Array, drops: int, *, title: str, dark: bool, noun: str, y: str) -> Figure:
    """Scores of a layer's units, the first `drops` pale. values: (units,) ascending."""
    rank = np.arange(1, len(values) + 1)
    tones = colours.palette(dark)
    hover = f"{noun} ranked %{{x}} of {len(values)}: %{{y:.4g}}"
    plain = {"line": {"width": 0}}
    removed = {
        "type": "bar",
        "x": rank[:drops].tolist(),
        "y": values[:drops].tolist(),
        "name": "removed",
        "marker": {"color": tones.removed, "pattern": HATCH, **plain},
        "hovertemplate": f"{hover}, removed<extra></extra>",
    }
    kept = {
        "type": "bar",
        "x": rank[drops:].tolist(),
        "y": values[drops:].tolist(),
        "name": "kept",
        "marker": {"color": tones.kept, **plain},
        "hovertemplate": f"{hover}, kept<extra></extra>",
    }
    axis = {"title": {"text": f"{noun}s, lowest score first"}, "range": [0.3, len(values) + 0.7]}
    figure: Figure = {
        "data": [removed, kept],
        "layout": layout(
            title, dark, xaxis=axis, yaxis={"title": {"text": y}}, barmode="overlay", bargap=0.12
        ),
    }
    if 0 < drops < len(values):
        figure["layout"] |= _thresholds([drops + 0.5], [f"{drops} removed"], tones)
        # The name stands over the larger part: at the rim it would be cut.
        side = "right" if 2 * drops > len(values) else "left"
        figure["layout"]["annotations"][0]["xanchor"] = side
    return figure


# ---------------------------------------------------------------- weights, in their places


def matrix(
    picture: Array, removed: Array | None, *, title: str, dark: bool, rows: int, columns: int
) -> Figure:
    """A layer's weights as a picture: a row for each output, a column for each input weight.

    picture: (high, wide) mean |w| of each cell; removed: the same shape, bool, drawn pale; rows,
    columns: of the real matrix, which has more of them than the picture when cells were pooled.
    """
    tones = colours.palette(dark)
    cells = {
        "type": "heatmap",
        "x": _cell_centres(picture.shape[1], columns),
        "y": _cell_centres(picture.shape[0], rows),
        "hoverongaps": False,
    }
    where = "output %{y:.0f}, input %{x:.0f}"
    pooled = picture.size < rows * columns
    weights = {
        **cells,
        # Typed arrays travel as bytes: a fourth of what numbers written out take.
        "z": np.asarray(picture, np.float32),
        "colorscale": colours.strength(dark),
        "zmin": 0,
        # A few outliers would leave every other cell pale.
        "zmax": float(np.quantile(picture, 0.995)) or 1.0,
        "colorbar": {"title": {"text": "mean |w|" if pooled else "|w|"}, **BAR},
        "hovertemplate": f"{where}: %{{z:.3g}}<extra></extra>",
    }
    data = [weights]
    if removed is not None and removed.any():
        over = {
            **cells,
            "z": removed.astype(np.uint8),
            "colorscale": [[0, "rgba(0,0,0,0)"], [1, colours.alpha(tones.removed, 0.72)]],
            "zmin": 0,
            "zmax": 1,
            "showscale": False,
            "hoverinfo": "skip",  # the cell below tells its weight
        }
        data.append(over)
    axes: dict[str, Any] = {
        "xaxis": {"title": {"text": "inputs"}, "showgrid": False, "constrain": "domain"},
        "yaxis": {"title": {"text": "outputs"}, "showgrid": False, "autorange": "reversed"},
    }
    return {"data": data, "layout": layout(title, dark, **axes)}


def filters(kernels: Array, *, title: str, dark: bool) -> Figure:
    """First-layer kernels as tiles, blue below zero and orange above.

    kernels: (n, h, w), or (n, h, w, 3), whose colours are averaged.
    """
    flat = kernels[:MOST_FILTERS]
    if kernels.ndim == 4:
        flat = flat.mean(-1)
    n, high, wide = flat.shape
    # 1.6 columns a row fill the panel, which is wider than high.
    across = min(n, max(1, math.ceil(math.sqrt(n * 1.6 * high / wide))))
    down = math.ceil(n / across)
    board = np.full((down * (high + 1) - 1, across * (wide + 1) - 1), np.nan)  # one cell between
    for i, kernel in enumerate(flat):
        y = i // across * (high + 1)
        x = i % across * (wide + 1)
        board[y : y + high, x : x + wide] = kernel
    limit = float(np.abs(flat).max()) or 1.0
    tiles = {
        "type": "heatmap",
        "z": _rounded(board),
        "colorscale": colours.difference(dark),
        "zmin": -limit,
        "zmax": limit,
        "colorbar": {"title": {"text": "weight"}, **BAR},
        "hoverongaps": False,
        "hovertemplate": "%{z:.3g}<extra></extra>",
    }
    upright = {"visible": False, "scaleanchor": "x", "autorange": "reversed"}
    return {
        "data": [tiles],
        "layout": layout(title, dark, xaxis={"visible": False}, yaxis=upright),
    }


def _cell_centres(shown: int, real: int) -> list[float]:
    """Middle of each cell, in the numbers of the real rows or columns."""
    return [round((i + 0.5) * real / shown - 0.5, 2) for i in range(shown)]


def _rounded(board: Array) -> list[list[float | None]]:
    """Four significant digits are all that a colour shows; NaN becomes a gap."""
    scale = 1.0
    if np.isfinite(board).any():
        largest = float(np.nanmax(np.abs(board))) or 1.0
        scale = 10.0 ** (4 - math.ceil(math.log10(largest)))
    rows = (np.round(board * scale) / scale).tolist()
    return [[None if math.isnan(value) else value for value in row] for row in rows]


# ---------------------------------------------------------------- titles and tables


def table(edges: Array, counts: Array) -> dict[str, Any]:
    """The columns of a histogram's table."""
    return {"from": edges[:-1], "to": edges[1:], "weights": counts}


def finding(name: str, removed: int, total: int, where: str) -> str:
    """A histogram's title: how many of a layer's weights are pruned. where: `within ±0.02`."""
    layer = words.layer_name(name)
    if not removed or not where:
        return f"{layer}: nothing is pruned, {words.plural(total, 'weight')} kept"
    share = words.percent(removed / total)
    return f"{layer}: {removed:,} of {total:,} weights ({share}) removed, {where}"
