"""Figures that plotly has checked once, for all tabs that show an equal one.

Streamlit has plotly check each figure with each drawing, value by value: half of what a page with
charts costs the server.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from threading import Lock
from typing import Any

import orjson
import plotly.graph_objects as go
from plotly.basedatatypes import BaseFigure

from dashboard.charts.base import Figure

MOST = 64
"""Figures that are kept: some hundred kilobytes each at most."""

_kept: OrderedDict[bytes, dict[str, Any]] = OrderedDict()
_lock = Lock()


class Checked(BaseFigure):  # type: ignore[misc]
    """Stands for a figure of plotly's, which Streamlit asks for its values alone."""

    def __init__(self, values: dict[str, Any]) -> None:
        self._values = values

    def to_dict(self) -> dict[str, Any]:
        return self._values


def checked(figure: Figure) -> Checked:
    """The figure as plotly makes it of the dict, template included. Raises ValueError, as plotly
    does, where it is none.
    """
    key = _digest(figure)
    with _lock:
        values = _kept.get(key)
        if values is not None:
            _kept.move_to_end(key)
            return Checked(values)
    values = go.Figure(**figure).to_dict()
    with _lock:
        _kept[key] = values
        while len(_kept) > MOST:
            _kept.popitem(last=False)
    return Checked(values)


def _digest(figure: Figure) -> bytes:
    """Equal for figures that are equal, in the order of their keys as well."""
    options = orjson.OPT_SERIALIZE_NUMPY | orjson.OPT_NON_STR_KEYS
    return hashlib.blake2b(orjson.dumps(figure, _plain, options), digest_size=16).digest()


def _plain(value: Any) -> Any:
    """What orjson does not know: NumPy's arrays that are no block of memory, its own scalars."""
    return value.tolist()
