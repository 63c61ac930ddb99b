"""Pictures of all layers at once. Arrays in, plotly's plain dicts out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboard import colours, words
from dashboard.charts.base import centres, layout, readable_bins, rebin

CELL, LABEL = 118, 24  # pixels: a panel's height, and of it the label's
BINS = 64


@dataclass(frozen=True)
class Panel:
    """One layer's small histogram. threshold: on |w|, None where nothing goes; gone: share removed."""

    name: str
    edges: NDArray[Any]
    counts: NDArray[Any]
    threshold: float | None
    gone: float


def multiples(
    panels: Sequence[Panel],
    chosen: str,
    *,
    title: str,
    dark: bool,
    across: int = 6,
    log: bool = False,
) -> dict[str, Any]:
    """A small histogram for each layer, all on one pair of axes, so that 60 layers draw as fast as 6.

    Each panel has its own scales: shapes are compared here, sizes are not.
    """
    across = min(across, len(panels))
    down = math.ceil(len(panels) / across)
    tones = colours.palette(dark)
    kept, removed, shapes, notes = _empty(), _empty(), [], []
    for i, panel in enumerate(panels):
        x, y = i % across, down - 1 - i // across
        _draw(panel, x, y, kept, removed, log)
        shapes += _frame(panel, x, y, panel.name == chosen, tones)
        gone = f"−{words.percent(panel.gone)}" if panel.gone else "all stay"
        said = f"{words.layer_name(panel.name)} <span style='color:{tones.muted}'>{gone}</span>"
        weight = 700 if panel.name == chosen else 400
        notes.append(
            {
                "x": x + 0.05,
                "y": y + 0.99,
                "xanchor": "left",
                "yanchor": "top",
                "text": said,
                "showarrow": False,
                "font": {"size": 13, "color": tones.text, "weight": weight},
            }
        )
    data = [_area(removed, tones.removed, "removed"), _area(kept, tones.kept, "kept")]
    axes = {
        "xaxis": {"visible": False, "range": [0, across], "fixedrange": True},
        "yaxis": {"visible": False, "range": [0, down], "fixedrange": True},
    }
    return {
        "data": data,
        "layout": layout(title, dark, 52 + CELL * down, **axes, shapes=shapes, annotations=notes),
    }


def _empty() -> dict[str, list[Any]]:
    return {"x": [], "y": [], "width": [], "base": [], "text": []}


def _draw(
    panel: Panel,
    x: int,
    y: int,
    kept: dict[str, list[Any]],
    removed: dict[str, list[Any]],
    log: bool,
) -> None:
    """Bars of one panel, scaled into its cell."""
    most = min(BINS, readable_bins(int(panel.counts.sum())))
    edges, counts = rebin(panel.edges, panel.counts, most)
    middle = centres(edges)
    tall = np.log10(counts + 1) if log else counts.astype(float)
    high = tall / max(tall.max(initial=0), 1e-9) * (1 - LABEL / CELL - 0.06)
    span = float(edges[-1] - edges[0]) or 1.0
    at = x + 0.05 + (middle - edges[0]) / span * 0.9
    for i in np.flatnonzero(counts):
        part = (
            removed if panel.threshold is not None and abs(middle[i]) <= panel.threshold else kept
        )
        part["x"].append(round(float(at[i]), 4))
        part["y"].append(round(float(high[i]), 4))
        part["width"].append(0.9 / len(counts))
        part["base"].append(y + 0.03)
        part["text"].append(
            f"{words.layer_name(panel.name)}: {counts[i]:,} weights near {middle[i]:.3g}"
        )


def _area(part: dict[str, list[Any]], colour: str, said: str) -> dict[str, Any]:
    return {
        "type": "bar",
        **part,
        "name": said,
        "marker": {"color": colour, "line": {"width": 0}},
        "textposition": "none",
        "hovertemplate": f"%{{text}}, {said}<extra></extra>",
    }


def _frame(
    panel: Panel, x: int, y: int, chosen: bool, tones: colours.Palette
) -> list[dict[str, Any]]:
    line = {"color": tones.text if chosen else tones.grid, "width": 2 if chosen else 1}
    shapes: list[dict[str, Any]] = [
        {
            "type": "rect",
            "x0": x + 0.02,
            "x1": x + 0.98,
            "y0": y + 0.015,
            "y1": y + 0.995,
            "line": line,
            "layer": "below",
        }
    ]
    if panel.threshold is None:
        return shapes
    low, span = float(panel.edges[0]), float(panel.edges[-1] - panel.edges[0]) or 1.0
    for value in (-panel.threshold, panel.threshold):
        at = x + 0.05 + (min(max(value, low), low + span) - low) / span * 0.9
        line = {"color": tones.highlight, "width": 1}
        shapes.append(
            {
                "type": "line",
                "x0": at,
                "x1": at,
                "y0": y + 0.03,
                "y1": y + 1 - LABEL / CELL,
                "line": line,
            }
        )
    return shapes
