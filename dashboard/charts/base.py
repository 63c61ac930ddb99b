"""What all charts share: a figure's layout, places for labels, a histogram's axis and bins."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboard import colours

Array = NDArray[Any]
Figure = dict[str, Any]
"""A plotly figure as a plain dict: `data`, a list of traces, and `layout`."""

Rectangle = tuple[float, float, float, float]
"""Left, top, right, bottom, in pixels."""

MARK = 14  # pixels that a mark takes, with air
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


_NO_TAG = re.compile(
    r"<(?!(?:/?(?:b|i|sub|sup|extra|br)|/span|span style='color:[#\w(),. ]+;font-weight:400')>)"
)


def harmless(figure: Figure) -> Figure:
    """The figure with text from others as text: plotly makes links of `<a href=...>`.

    The few tags that our own charts use stay, which link to nothing and fetch nothing.
    """
    made: Figure = _harmless(figure)
    return made


def _harmless(value: Any) -> Any:
    if isinstance(value, str):
        return _NO_TAG.sub("&lt;", value) if "<" in value else value
    if isinstance(value, dict):
        return {name: _harmless(part) for name, part in value.items()}
    # Numbers come by the thousand, and are all of one kind.
    if isinstance(value, (list, tuple)) and not (value and isinstance(value[0], (int, float))):
        return [_harmless(part) for part in value]
    return value


# ---------------------------------------------------------------- numbers in coloured cells


def numbers_in(cells: Figure, texts: Sequence[Sequence[str]], size: int) -> Figure:
    """A trace of the texts of a heat map's cells, each in the ink that its colour leaves readable.

    cells: a trace of type heatmap, whose `z` has lists of numbers and None; size: of the letters.
    """
    low, high = cells["zmin"], cells["zmax"]
    x, y, shown, inks = [], [], [], []
    for row, values, words in zip(cells["y"], cells["z"], texts, strict=True):
        for column, value, text in zip(cells["x"], values, words, strict=True):
            if value is None or not text:
                continue
            x.append(column)
            y.append(row)
            shown.append(text)
            place = (value - low) / (high - low)
            inks.append(colours.ink(colours.on_scale(cells["colorscale"], place)))
    return {
        "type": "scatter",
        "mode": "text",
        "x": x,
        "y": y,
        "text": shown,
        "textfont": {"color": inks, "size": size},
        "hoverinfo": "skip",
        "showlegend": False,
    }


# ---------------------------------------------------------------- labels that keep clear


@dataclass(frozen=True)
class Placed:
    """Where a label stands: its centre, in pixels right of and below its point.

    leader: it stands so far away that a line has to join them.
    """

    right: float
    down: float
    leader: bool


def place_labels(
    points: Sequence[tuple[float, float]],
    sizes: Sequence[tuple[float, float]],
    room: tuple[float, float],
    taken: Sequence[Rectangle] = (),
) -> list[Placed | None]:
    """A place for each label where it lies on no mark, on no other label and on nothing taken.

    points: (x, y) of the marks in pixels from the top left; sizes: (width, height) of the labels;
    room: (width, height) of the chart. None: there is no place, and the label is better left out.
    In a wider chart, where marks are further apart and labels as large, the places stay free.
    """
    occupied = [*taken, *(_around(x, y, MARK, MARK) for x, y in points)]
    placed: list[Placed | None] = []
    for (x, y), (width, height) in zip(points, sizes, strict=True):
        best = None
        for candidate in _places(width, height):
            box = _around(x + candidate.right, y + candidate.down, width, height)
            inside = min(box[:2]) >= 0 and box[2] <= room[0] and box[3] <= room[1]
            if inside and not any(_meet(box, other) for other in occupied):
                best = candidate
                occupied.append(box)
                break
        placed.append(best)
    return placed


def _places(width: float, height: float) -> Iterator[Placed]:
    """Beside the mark, above and below it, then further and further away."""
    gap = MARK / 2 + 2
    aside = gap + width / 2
    above = gap + height / 2
    for right, down in ((aside, 0), (0, -above), (0, above), (-aside, 0)):
        yield Placed(right, down, leader=False)
    for step in range(1, 8):
        away = step * (height + 1)
        for right, down in ((aside + 6, -away), (aside + 6, away), (-aside - 6, -away)):
            yield Placed(right, down, leader=True)
        yield Placed(-aside - 6, away, leader=True)


def _around(x: float, y: float, width: float, height: float) -> Rectangle:
    return (x - width / 2, y - height / 2, x + width / 2, y + height / 2)


def _meet(a: Rectangle, b: Rectangle) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def text_size(text: str, font: int) -> tuple[float, float]:
    """About the width and height of a line of text, in pixels: a little too wide is safe."""
    return 0.58 * font * len(text) + 4, 1.3 * font


def spread(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """The places nearest to those wanted that are at least `gap` apart and between the limits.

    Where there is no room for all, they stand evenly from `low` to `high`.
    """
    order = sorted(range(len(wanted)), key=lambda i: wanted[i])
    if len(wanted) > 1:
        gap = min(gap, (high - low) / (len(wanted) - 1))
    places = [0.0] * len(wanted)
    least = low
    for i in order:
        places[i] = max(wanted[i], least)
        least = places[i] + gap
    most = high
    for i in reversed(order):
        places[i] = min(places[i], most)
        most = places[i] - gap
    return places


# ---------------------------------------------------------------- histograms


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
