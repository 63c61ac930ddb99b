"""What all charts share: the layout of a figure, the axis of a histogram, and fewer, wider bins."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboard import colours

Array = NDArray[Any]
Figure = dict[str, Any]
"""A plotly figure as a plain dict: `data`, a list of traces, and `layout`."""

HEIGHT = 340  # pixels
HATCH = {"shape": "/", "size": 5, "solidity": 0.35}
"""The pattern of what is pruned or estimated: a second channel beside colour."""

FEWEST_BINS = 32


def layout(title: str, dark: bool, height: int = HEIGHT, **more: Any) -> dict[str, Any]:
    """A title that states the finding, quiet axes, no box. more: keys of plotly's layout."""
    tones = colours.palette(dark)
    axis = {"gridcolor": tones.grid, "zeroline": False, "linecolor": tones.grid, "automargin": True}
    heading = {
        "text": title,
        "x": 0,
        "xref": "container",
        "font": {"size": 16, "weight": 600, "color": tones.text},
        "pad": {"t": 2},
    }
    shared: dict[str, Any] = {
        "title": heading,
        "height": height,
        "margin": {"l": 8, "r": 8, "t": 44, "b": 8},
        "showlegend": False,
        "bargap": 0,
        "hovermode": "closest",
        "dragmode": "zoom",
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "font": {"color": tones.muted, "size": 13},
        "uirevision": "same",  # zoom survives when the page draws the figure anew
    }
    # A chart's own axis settings are merged into the quiet axes instead of replacing them.
    x = {**axis, "showgrid": False, **more.pop("xaxis", {})}
    y = {**axis, **more.pop("yaxis", {})}
    return {**shared, "xaxis": x, "yaxis": y, **more}


def counts_axis(log: bool, top: float, noun: str = "weights") -> dict[str, Any]:
    """The y axis of a histogram, up to `top` counts.

    A log axis has no 0: it starts at half of one, so that a bin with a single weight shows.
    """
    title = f"{noun} in each bin"
    axis: dict[str, Any] = {"title": {"text": title}, "tickformat": "~s"}
    if not log:
        return {**axis, "range": [0, max(top, 1) * 1.05]}
    highest = math.log10(max(top, 2)) * 1.03
    return {
        **axis,
        "title": {"text": f"{title} (log)"},
        "type": "log",
        "range": [math.log10(0.5), highest],
        "dtick": 1,
    }


def centres(edges: Array) -> Array:
    """(bins + 1,) edges -> (bins,) middles."""
    return (edges[:-1] + edges[1:]) / 2


def readable_bins(weights: int) -> int:
    """Bins that so many weights can fill: about twelve weights a bin, so that a shape shows."""
    return max(FEWEST_BINS, weights // 12)


def rebin(edges: Array, counts: Array, most: int) -> tuple[Array, Array]:
    """Bins joined in pairs until there are at most `most`. edges: (bins + 1,), counts: (bins,)."""
    while len(counts) > most and len(counts) % 2 == 0:
        edges = edges[::2]
        counts = np.asarray(counts).reshape(-1, 2).sum(1)
    return edges, counts
