"""All layers at once: a small weight histogram for each, with its pruning threshold. Pure.

Arrays in, plotly figures as plain dicts out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from dashboard import colours, words
from dashboard.charts.base import Array, Figure, centres, layout, readable_bins, rebin
from dashboard.lengths import PANELS

CELL = 132  # pixels: height of a panel
LABEL = 40 / CELL  # share of it that the label takes
HEADING = 52  # pixels above the panels
MARGIN = 0.05  # of a panel's width, on each side of its bars
NAME = 17  # letters of a layer's name: as many as fit the narrowest panel
MOST_BINS = 64  # more do not show in so small a panel


@dataclass(frozen=True)
class Panel:
    """One layer's small histogram.

    edges: (bins + 1,), counts: (bins,); threshold: on |w|, None where nothing is pruned or the
    criterion does not compare |w|; removed: share pruned, None while its units are not scored.
    """

    name: str
    edges: Array
    counts: Array
    threshold: float | None
    removed: float | None


def takeaway(panels: Sequence[Panel]) -> str:
    """Which layer would lose most, as the end of a title."""
    known = [(panel.removed, panel.name) for panel in panels if panel.removed is not None]
    if not known:
        return "what the recipe prunes is known once their units are scored"
    most, name = max(known, key=lambda pair: pair[0])
    if not most:
        return "no layer would lose anything"
    return f"{words.layer_name(name)} would lose most, {words.percent(most)}"


@dataclass
class _Bars:
    """The bars of all panels in one colour, as plotly wants them."""

    x: list[float] = field(default_factory=list)
    y: list[float] = field(default_factory=list)
    width: list[float] = field(default_factory=list)
    base: list[float] = field(default_factory=list)
    text: list[str] = field(default_factory=list)

    def trace(self, colour: str, name: str) -> dict[str, Any]:
        return {
            "type": "bar",
            **vars(self),
            "name": name,
            "marker": {"color": colour, "line": {"width": 0}},
            "textposition": "none",
            "hovertemplate": f"%{{text}}, {name}<extra></extra>",
        }


def multiples(
    panels: Sequence[Panel],
    chosen: str,
    *,
    title: str,
    dark: bool,
    across: int = PANELS,
    log: bool = False,
) -> Figure:
    """A small histogram for each layer.

    All are on one pair of axes, so that 60 layers draw as fast as 6. Each panel has its own
    scales: shapes are compared here, sizes are not.
    """
    across = min(across, len(panels))
    down = math.ceil(len(panels) / across)
    tones = colours.palette(dark)
    kept, removed, unsettled = _Bars(), _Bars(), _Bars()
    shapes: list[dict[str, Any]] = []
    notes = []
    for i, panel in enumerate(panels):
        # A panel is one unit wide and high; the first stands at the top left.
        x = i % across
        y = down - 1 - i // across
        # Whole units are pruned, or scores are no |w|: this axis does not tell which weights go.
        unknown = panel.threshold is None and panel.removed != 0
        _draw(panel, x, y, unsettled if unknown else kept, removed, log)
        shapes.append(_frame(x, y, panel.name == chosen, tones))
        shapes += _thresholds(panel, x, y, tones)
        notes.append(_label(panel, x, y, panel.name == chosen, tones))
    hidden = {"visible": False, "fixedrange": True}
    data = [removed.trace(tones.removed, "removed"), kept.trace(tones.kept, "kept")]
    if unsettled.x:
        data.append(unsettled.trace(tones.muted, "before pruning"))
    return {
        "data": data,
        "layout": layout(
            title,
            dark,
            HEADING + CELL * down,
            xaxis={**hidden, "range": [0, across]},
            yaxis={**hidden, "range": [0, down]},
            shapes=shapes,
            annotations=notes,
        ),
    }


def _across(panel: Panel, x: int, values: Array) -> Array:
    """Where weights of these values lie in the panel's column."""
    span = float(panel.edges[-1] - panel.edges[0]) or 1.0
    return x + MARGIN + (values - panel.edges[0]) / span * (1 - 2 * MARGIN)


def _draw(panel: Panel, x: int, y: int, kept: _Bars, removed: _Bars, log: bool) -> None:
    """Add the bars of one panel, scaled into its cell."""
    most = min(MOST_BINS, readable_bins(int(panel.counts.sum())))
    edges, counts = rebin(panel.edges, panel.counts, most)
    middle = centres(edges)
    at = _across(panel, x, middle)
    heights = np.log10(counts + 1) if log else counts.astype(float)
    heights = heights / max(heights.max(initial=0), 1e-9) * (1 - LABEL - 0.06)
    name = words.layer_name(panel.name)
    for i in np.flatnonzero(counts):
        pruned = panel.threshold is not None and abs(middle[i]) <= panel.threshold
        bars = removed if pruned else kept
        bars.x.append(round(float(at[i]), 4))
        bars.y.append(round(float(heights[i]), 4))
        bars.width.append((1 - 2 * MARGIN) / len(counts))
        bars.base.append(y + 0.03)
        bars.text.append(f"{name}: {counts[i]:,} weights near {middle[i]:.3g}")


def _label(panel: Panel, x: int, y: int, chosen: bool, tones: colours.Palette) -> dict[str, Any]:
    """The layer's name and the share that is pruned of it."""
    if panel.removed is None:
        share = "not scored yet"
    else:
        share = f"−{words.percent(panel.removed)}" if panel.removed else "all kept"
    name = words.layer_name(panel.name, NAME)
    return {
        "x": x + MARGIN,
        "y": y + 0.99,
        "xanchor": "left",
        "yanchor": "top",
        "align": "left",
        "text": f"{name}<br><span style='color:{tones.muted};font-weight:400'>{share}</span>",
        "showarrow": False,
        "font": {"size": 13, "color": tones.text, "weight": 700 if chosen else 400},
    }


def _frame(x: int, y: int, chosen: bool, tones: colours.Palette) -> dict[str, Any]:
    """The rectangle around a panel, thicker around the selected layer's."""
    line = {"color": tones.text, "width": 2} if chosen else {"color": tones.grid, "width": 1}
    return {
        "type": "rect",
        "x0": x + 0.02,
        "x1": x + 0.98,
        "y0": y + 0.015,
        "y1": y + 0.995,
        "line": line,
        "layer": "below",
    }


def _thresholds(panel: Panel, x: int, y: int, tones: colours.Palette) -> list[dict[str, Any]]:
    """Upright lines at ±threshold; one beyond the weights stands at the panel's rim."""
    if panel.threshold is None:
        return []
    both = np.array([-panel.threshold, panel.threshold])
    at = _across(panel, x, both.clip(panel.edges[0], panel.edges[-1]))
    line = {"color": tones.highlight, "width": 1}
    upright = {"type": "line", "y0": y + 0.03, "y1": y + 1 - LABEL, "line": line}
    return [{**upright, "x0": float(x0), "x1": float(x0)} for x0 in at]
