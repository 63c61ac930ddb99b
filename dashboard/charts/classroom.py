"""What a class predicted, as a histogram. Numbers alone: nobody's name is here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from dashboard import colours
from dashboard.charts import base

BINS = 20
HEIGHT = 260  # pixels


def predictions(values: Sequence[float], dark: bool) -> dict[str, Any]:
    """values: one of each who answered, in the unit that the lesson asks in."""
    tones = colours.palette(dark)
    low, high = _range(values)
    counts, edges = np.histogram(values, bins=BINS, range=(low, high))
    hover = [
        f"{count} from {start:.4g} to {end:.4g}"
        for count, start, end in zip(counts, edges[:-1], edges[1:], strict=True)
    ]
    bars = {
        "type": "bar",
        "x": base.centres(edges).tolist(),
        "y": counts.tolist(),
        "width": float(edges[1] - edges[0]),
        "marker": {"color": tones.kept, "line": {"width": 1, "color": tones.ground}},
        "hovertext": hover,
        "hoverinfo": "text",
    }
    most = int(counts.max())
    layout = base.layout(
        takeaway(values),
        dark,
        HEIGHT,
        xaxis={"title": {"text": "predicted"}, "range": [low, high]},
        yaxis={
            "title": {"text": "people"},
            "dtick": max(1, math.ceil(most / 5)),
            "range": [0, most + 0.5],
        },
    )
    return {"data": [bars], "layout": layout}


def takeaway(values: Sequence[float]) -> str:
    """`12 predictions, half of them between 88 and 95`."""
    if len(values) == 1:
        return f"One prediction: {values[0]:.4g}"
    quarter, three = np.quantile(np.asarray(values, float), (0.25, 0.75))
    if quarter == three:
        return f"{len(values)} predictions, most of them {quarter:.4g}"
    return f"{len(values)} predictions, half of them between {quarter:.4g} and {three:.4g}"


def _range(values: Sequence[float]) -> tuple[float, float]:
    """Shares from 0 to 1 and percents from 0 to 100 stand on the whole of their scale."""
    low, high = min(values), max(values)
    for end in (1.0, 100.0):
        if low >= 0 and high <= end:
            return 0.0, end
    air = (high - low or abs(high)) / 20
    return low - air, high + air
