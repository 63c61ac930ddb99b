"""The page's plain figures as plotly's own objects, for a notebook."""

from __future__ import annotations

from collections.abc import Iterable

import pandas as pd
import plotly.graph_objects as go

from dashboard import colours
from dashboard.charts.base import Figure, harmless
from pruning.errors import DataError


def shown(figure: Figure, dark: bool) -> go.Figure:
    """On a ground that its colours were chosen for, whatever the notebook's is."""
    ground = colours.palette(dark).ground
    own = {"template": "none", "paper_bgcolor": ground, "plot_bgcolor": ground}
    made = harmless(figure)
    return go.Figure({"data": made["data"], "layout": {**made["layout"], **own}})


def need(frame: pd.DataFrame, columns: Iterable[str], how: str) -> None:
    """Raise DataError where columns are missing. how: what makes such a DataFrame."""
    missing = [name for name in columns if name not in frame.columns]
    if missing:
        raise DataError(f"This DataFrame has no column {' or '.join(missing)}: {how} makes them.")


def of_layer(frame: pd.DataFrame, layer: str | None) -> tuple[str, pd.DataFrame]:
    """A layer's name and rows; the first layer's where none is named. Raises DataError."""
    known = list(dict.fromkeys(frame["layer"]))
    if not known:
        raise DataError("This DataFrame has no rows: there is nothing to draw.")
    name = known[0] if layer is None else layer
    if name not in known:
        names = ", ".join(map(str, known))
        raise DataError(f"There is no layer {name!r} in this DataFrame: known are {names}.")
    return name, frame[frame["layer"] == name]
