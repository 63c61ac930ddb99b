"""Figures that plotly checks once: what is sent of them is what plotly makes of them each time."""

from __future__ import annotations

import numpy as np
import plotly.graph_objects as go
import plotly.io
import plotly.tools
import pytest

from dashboard.charts import base
from dashboard.charts.checked import MOST, _kept, checked


def figure(height: float, colour: str = "#00639C") -> base.Figure:
    trace = {
        "type": "bar",
        "x": np.arange(5),
        "y": np.linspace(0, height, 10)[::2],  # no block of memory
        "marker": {"color": colour},
        "customdata": [["conv1", 3]] * 5,
    }
    return {"data": [trace], "layout": base.layout("Five", dark=False)}


def sent(of: object) -> str:
    """As Streamlit writes it."""
    plain = plotly.tools.return_figure_from_figure_or_data(of, validate_figure=True)
    return str(plotly.io.to_json(plain, validate=False))


def test_a_figure_is_sent_as_plotly_makes_it_and_checked_once(monkeypatch) -> None:
    expected = sent(figure(3.0))
    assert sent(checked(figure(3.0))) == expected != sent(checked(figure(4.0)))
    assert sent(checked(figure(3.0, "#B97A00"))) != expected
    monkeypatch.setattr(go, "Figure", None)  # it is not asked again
    assert sent(checked(figure(3.0))) == expected


def test_only_the_last_figures_are_kept_and_none_that_is_wrong() -> None:
    for height in range(MOST + 3):
        checked(figure(float(height)))
    assert len(_kept) == MOST
    with pytest.raises(ValueError, match="banana"):
        checked({"data": [{"type": "bar", "banana": 1}], "layout": {}})
    assert len(_kept) == MOST
