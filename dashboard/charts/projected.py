"""A figure in letters that a room reads from its last row."""

from __future__ import annotations

from typing import Any

Figure = dict[str, Any]

USUAL = 450  # pixels of a window in which a chart's own letters would do
LEAST, MOST = 1.4, 3.0
AROUND = 250  # pixels of a window above and below the chart, its title on two lines
LOWEST = 320  # pixels of a chart

FONT = "Source Sans, Source Sans Pro, sans-serif"

PIXELS = {
    "size",
    "xshift",
    "yshift",
    "standoff",
    "arrowwidth",
    "borderwidth",
    "borderpad",
    "ticklen",
    "thickness",
    "itemwidth",
    "tracegroupgap",
}
"""Keys of plotly whose numbers are pixels wherever they stand."""

LINES = ("line", "error_x", "error_y")
"""Keys whose `width` is pixels: a bar's own is in units of its axis."""


def enlarged(figure: Figure, window: int) -> Figure:
    """The figure without its title, with all that is measured in pixels made larger.

    window: its height in pixels.
    """
    times = min(MOST, max(LEAST, window / USUAL))
    layout = {**figure["layout"]}
    title = layout.pop("title")["text"]
    margin = {side: round(pixels * times) for side, pixels in layout["margin"].items()}
    made: Figure = _scaled({**figure, "layout": layout}, times)
    made["layout"]["font"] = {**made["layout"].get("font", {}), "family": FONT}
    made["layout"] |= {
        "margin": {**margin, "t": round(20 * times)},
        "height": max(LOWEST, window - AROUND),
        "meta": {"title": title},
    }
    return made


def _scaled(value: Any, times: float, key: str = "") -> Any:
    if isinstance(value, dict):
        return {name: _pixels(name, part, times, key) for name, part in value.items()}
    # Numbers come by the thousand, and are all of one kind.
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], dict):
        return [_scaled(part, times, key) for part in value]
    return value


def _pixels(name: str, value: Any, times: float, inside: str) -> Any:
    """One part of a dict that is called `inside`."""
    pixels = name in PIXELS or (name == "width" and inside in LINES)
    # An arrow's tail is in pixels unless it is said to lie on an axis.
    pixels = pixels or name in ("ax", "ay")
    if pixels and isinstance(value, (int, float)):
        return value * times
    if pixels and isinstance(value, (list, tuple)) and value and isinstance(value[0], (int, float)):
        return [one * times for one in value]
    return _scaled(value, times, name)
