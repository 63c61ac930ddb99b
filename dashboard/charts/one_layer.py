"""Pictures of one layer: weights or scores with the threshold, filters, units, matrix. Arrays in, plotly's plain dicts out."""

from __future__ import annotations

import math
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


def histogram(
    edges: Array,
    counts: Array,
    *,
    title: str,
    dark: bool,
    threshold: float | None,
    log: bool,
    x: str = "weight",
) -> Figure:
    """Weights of a layer; what lies within ±threshold is pale. edges: (bins + 1,), counts: (bins,)."""
    edges, counts = rebin(edges, counts, readable_bins(int(counts.sum())))
    middle = centres(edges)
    gone = np.abs(middle) <= threshold if threshold is not None else np.zeros(len(middle), bool)
    tones = colours.palette(dark)
    figure: Figure = {
        "data": _bars(edges, counts, gone, dark, x, "weights"),
        "layout": layout(
            title,
            dark,
            xaxis={"title": {"text": x}},
            yaxis=counts_axis(log, counts.max(initial=1)),
            barmode="overlay",
        ),
    }
    if threshold is not None:
        figure["layout"] |= _lines(
            (-threshold, threshold), tones, [f"−{threshold:.3g}", f"+{threshold:.3g}"]
        )
        figure["layout"]["shapes"].append(_band(-threshold, threshold, tones))
    return figure


def scores(
    values: Array, *, title: str, dark: bool, threshold: float | None, log: bool, x: str
) -> Figure:
    """Scores of a layer's units, binned here; what lies at or below the threshold is pale. values: (units,) ascending."""
    positive = values[values > 0]
    wide = len(positive) > 1 and positive[-1] > 50 * positive[len(positive) // 2]
    shown = np.log10(positive) if wide else values
    counts, edges = np.histogram(shown, bins=128)
    at = (
        threshold
        if not wide or threshold is None
        else (math.log10(threshold) if threshold > 0 else None)
    )
    gone = centres(edges) <= at if at is not None else np.zeros(len(counts), bool)
    axis: dict[str, Any] = {"title": {"text": x}}
    if wide:
        powers = list(range(math.ceil(edges[0]), math.floor(edges[-1]) + 1))
        axis |= {"tickvals": powers, "ticktext": [f"10<sup>{power}</sup>" for power in powers]}
    figure: Figure = {
        "data": _bars(edges, counts, gone, dark, "score", "units", log_scale=wide),
        "layout": layout(
            title,
            dark,
            xaxis=axis,
            yaxis=counts_axis(log, counts.max(initial=1), "units"),
            barmode="overlay",
        ),
    }
    if at is not None and threshold is not None:
        figure["layout"] |= _lines((at,), colours.palette(dark), [f"{threshold:.3g}"])
    return figure


def before_after(
    edges: Array, dense: Array, final: Array, *, title: str, dark: bool, log: bool
) -> Figure:
    """A layer's weights before, as a line, and those kept after, filled. The same bins for both."""
    tones = colours.palette(dark)
    most = readable_bins(int(dense.sum()))
    wide, dense = rebin(edges, dense, most)
    final = rebin(edges, final, most)[1]
    middle = centres(wide)
    line = {
        "type": "scatter",
        "mode": "lines",
        "x": middle.tolist(),
        "y": dense.tolist(),
        "name": "dense",
        "line": {"shape": "hvh", "color": tones.dense, "width": 1.5},
        "hovertemplate": "%{y:,} weights near %{x:.3g} before<extra></extra>",
    }
    bars = {
        "type": "bar",
        "x": middle.tolist(),
        "y": final.tolist(),
        "width": float(wide[1] - wide[0]),
        "name": "kept",
        "marker": {"color": tones.kept, "line": {"width": 0}},
        "hovertemplate": "%{y:,} weights near %{x:.3g} after<extra></extra>",
    }
    top = max(dense.max(initial=1), final.max(initial=1))
    axes: dict[str, Any] = {"xaxis": {"title": {"text": "weight"}}, "yaxis": counts_axis(log, top)}
    legend: dict[str, Any] = {
        "showlegend": True,
        "legend": {"orientation": "h", "x": 1, "xanchor": "right", "y": 1, "yanchor": "bottom"},
    }
    return {"data": [bars, line], "layout": layout(title, dark, **axes, **legend)}


def units(values: Array, drops: int, *, title: str, dark: bool, noun: str, y: str) -> Figure:
    """Scores of a layer's units, lowest first, the first `drops` pale. values: (units,) ascending."""
    rank = np.arange(1, len(values) + 1)
    tones = colours.palette(dark)
    parts = ((slice(0, drops), tones.removed, "removed"), (slice(drops, None), tones.kept, "kept"))
    bars = [
        {
            "type": "bar",
            "x": rank[part].tolist(),
            "y": values[part].tolist(),
            "name": said,
            "marker": {
                "color": colour,
                "line": {"width": 0},
                **({"pattern": HATCH} if said == "removed" else {}),
            },
            "hovertemplate": f"{noun} ranked %{{x}} of {len(values)}: %{{y:.4g}}, {said}<extra></extra>",
        }
        for part, colour, said in parts
    ]
    axis = {"title": {"text": f"{noun}s, lowest score first"}, "range": [0.3, len(values) + 0.7]}
    figure: Figure = {
        "data": bars,
        "layout": layout(
            title, dark, xaxis=axis, yaxis={"title": {"text": y}}, barmode="overlay", bargap=0.12
        ),
    }
    if 0 < drops < len(values):
        figure["layout"] |= _lines((drops + 0.5,), tones, [f"{drops} go"])
    return figure


def matrix(
    picture: Array, gone: Array | None, *, title: str, dark: bool, rows: int, columns: int
) -> Figure:
    """A layer's weights as a picture: one row for each output, stronger = larger. gone: (same shape) bool, drawn pale."""
    tones = colours.palette(dark)
    xs, ys = _cells(picture.shape[1], columns), _cells(picture.shape[0], rows)
    grid = {"type": "heatmap", "x": xs, "y": ys}
    bar = {
        "title": {"text": "mean |w|" if picture.size < rows * columns else "|w|"},
        "thickness": 10,
        "outlinewidth": 0,
        "len": 0.8,
    }
    strong = {
        **grid,
        "z": _rounded(picture),
        "colorscale": colours.strength(dark),
        "zmin": 0,
        "zmax": float(np.quantile(picture, 0.995)) or 1.0,
        "colorbar": bar,
        "hoverongaps": False,
        "hovertemplate": "output %{y:.0f}, input %{x:.0f}: %{z:.3g}<extra></extra>",
    }
    data = [strong]
    if gone is not None and gone.any():
        flat = [[0, tones.removed], [1, tones.removed]]
        hole = {
            **grid,
            "z": np.where(gone, 1.0, np.nan).tolist(),
            "colorscale": flat,
            "showscale": False,
            "hoverongaps": False,
        }
        data.append(
            {
                **hole,
                "hovertemplate": "output %{y:.0f}, input %{x:.0f}: removed<extra></extra>",
                "opacity": 0.72,
            }
        )
    axes: dict[str, Any] = {
        "xaxis": {"title": {"text": "inputs"}, "showgrid": False, "constrain": "domain"},
        "yaxis": {"title": {"text": "outputs"}, "showgrid": False, "autorange": "reversed"},
    }
    return {"data": data, "layout": layout(title, dark, **axes)}


def filters(kernels: Array, *, title: str, dark: bool, most: int = 64) -> Figure:
    """First-layer kernels as tiles, blue below zero and orange above. kernels: (n, h, w), or (n, h, w, 3), whose colours are averaged."""
    flat = kernels[:most].mean(-1) if kernels.ndim == 4 else kernels[:most]
    n, high, wide = flat.shape
    across = min(n, max(1, math.ceil(math.sqrt(n * 1.6 * high / wide))))
    down = math.ceil(n / across)
    board = np.full((down * (high + 1) - 1, across * (wide + 1) - 1), np.nan)
    for i, kernel in enumerate(flat):
        y, x = i // across * (high + 1), i % across * (wide + 1)
        board[y : y + high, x : x + wide] = kernel
    limit = float(np.abs(flat).max()) or 1.0
    tiles = {
        "type": "heatmap",
        "z": _rounded(board),
        "colorscale": colours.difference(dark),
        "zmin": -limit,
        "zmax": limit,
        "colorbar": {"title": {"text": "weight"}, "thickness": 10, "outlinewidth": 0, "len": 0.8},
        "hoverongaps": False,
        "hovertemplate": "%{z:.3g}<extra></extra>",
    }
    hidden = {"visible": False}
    return {
        "data": [tiles],
        "layout": layout(
            title, dark, xaxis=hidden, yaxis={**hidden, "scaleanchor": "x", "autorange": "reversed"}
        ),
    }


def _bars(
    edges: Array,
    counts: Array,
    gone: Array,
    dark: bool,
    what: str,
    noun: str,
    log_scale: bool = False,
) -> list[dict[str, Any]]:
    middle, width = centres(edges), float(edges[1] - edges[0])
    tones = colours.palette(dark)
    real = 10**middle if log_scale else middle
    bars = []
    for part, colour, said in ((gone, tones.removed, "removed"), (~gone, tones.kept, "kept")):
        bars.append(
            {
                "type": "bar",
                "x": middle[part].tolist(),
                "y": counts[part].tolist(),
                "width": width,
                "name": said,
                "customdata": [f"{value:.3g}" for value in real[part]],
                "marker": {"color": colour, "line": {"width": 0}},
                "hovertemplate": f"%{{y:,}} {noun} with a {what} near %{{customdata}}: {said}<extra></extra>",
            }
        )
    return bars


def _lines(at: tuple[float, ...], tones: colours.Palette, names: list[str]) -> dict[str, Any]:
    """Upright lines, each with its value above."""
    shapes = [
        {
            "type": "line",
            "x0": x,
            "x1": x,
            "y0": 0,
            "y1": 1,
            "yref": "paper",
            "line": {"color": tones.highlight, "width": 2},
        }
        for x in at
    ]
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
    return {"shapes": shapes, "annotations": notes}


def _band(low: float, high: float, tones: colours.Palette) -> dict[str, Any]:
    """The ground between two lines, tinted."""
    fill = {"fillcolor": colours.alpha(tones.removed, 0.18), "line": {"width": 0}, "layer": "below"}
    return {"type": "rect", "x0": low, "x1": high, "y0": 0, "y1": 1, "yref": "paper", **fill}


def _cells(shown: int, real: int) -> list[float]:
    """Middle of each cell, in the numbers of the real rows or columns."""
    return [round((i + 0.5) * real / shown - 0.5, 2) for i in range(shown)]


def _rounded(board: Array) -> list[Any]:
    """Four significant digits are all a colour shows; NaN becomes a gap."""
    scale = (
        10.0 ** (4 - math.ceil(math.log10(float(np.nanmax(np.abs(board))) or 1.0)))
        if np.isfinite(board).any()
        else 1.0
    )
    return [
        [None if math.isnan(value) else value for value in row]
        for row in (np.round(board * scale) / scale).tolist()
    ]


def table(edges: Array, counts: Array) -> dict[str, Any]:
    """The columns of a histogram's table."""
    return {"from": edges[:-1], "to": edges[1:], "weights": counts}


def found(name: str, gone: int, total: int, threshold: float | None) -> str:
    """The histogram's title: what it shows."""
    layer = words.layer_name(name)
    if not gone or threshold is None:
        return f"{layer}: nothing goes, {words.plural(total, 'weight')} stay"
    return f"{layer}: {gone:,} of {total:,} weights ({words.percent(gone / total)}) lie within ±{threshold:.3g} and go"
