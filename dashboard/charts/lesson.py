"""What people predicted in a lesson, as a histogram beside what was measured. Pure."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from dashboard import colours, words
from dashboard.charts.base import Figure, layout

HEIGHT = 230  # pixels: it stands in a narrow panel
BINS = 20


def predictions(
    values: Sequence[float], measured: float | None, own: float | None, *, share: bool, dark: bool
) -> Figure:
    """values: everybody's; measured, own: lines, None for none. share: in percent, on an axis from
    0 to 100.
    """
    tones = colours.palette(dark)
    scale = 100 if share else 1
    shown = [scale * value for value in values]
    known = [*shown, *(scale * value for value in (measured, own) if value is not None)]
    low, high = (0.0, 100.0) if share else (min(0.0, *known), 1.05 * max(*known, 1e-9))
    counts, edges = np.histogram(np.clip(shown, low, high), BINS, (low, high))
    bars = {
        "type": "bar",
        "x": ((edges[:-1] + edges[1:]) / 2).tolist(),
        "y": counts.tolist(),
        "width": float(edges[1] - edges[0]) * 0.92,
        "marker": {"color": tones.kept},
        "hovertemplate": "%{y} predicted about %{x:.0f}<extra></extra>",
    }
    lines = []
    if measured is not None:
        lines.append(_line(scale * measured, "measured", tones.text, "solid"))
    if own is not None:
        lines.append(_line(scale * own, "yours", tones.muted, "dot"))
    top = max(1, int(counts.max()))
    axis = {
        "range": [low, high],
        "ticksuffix": " %" if share else "",
        "nticks": 5,
    }
    marks = {
        "shapes": [line for line, _ in lines],
        "annotations": [label for _, label in lines],
        "xaxis": axis,
        "yaxis": {
            "range": [0, 1.25 * top],
            "dtick": -(-top // 4),  # whole people
            "title": {"text": "people"},
        },
    }
    return {"data": [bars], "layout": layout(title(values, measured, share), dark, HEIGHT, **marks)}


def title(values: Sequence[float], measured: float | None, share: bool) -> str:
    """`12 predictions, 3 within 5 points of the measured`."""
    count = words.plural(len(values), "prediction")
    if measured is None:
        return count
    near = 0.05 if share else 0.1 * abs(measured)
    hits = sum(abs(value - measured) <= near for value in values)
    within = "5 points" if share else "a tenth"
    return f"{count}, {hits} within {within} of the measured"


def _line(x: float, text: str, colour: str, dash: str) -> tuple[dict[str, object], ...]:
    line = {
        **{"type": "line", "x0": x, "x1": x, "y0": 0, "y1": 1, "yref": "paper"},
        "line": {"color": colour, "width": 2, "dash": dash},
    }
    # Above the plot and below it, so that two that are near each other can both be read.
    label = {
        **{"x": x, "y": 1 if text == "measured" else 0.86, "yref": "paper", "text": text},
        **{"showarrow": False, "yanchor": "bottom", "font": {"color": colour, "size": 12}},
    }
    return line, label
