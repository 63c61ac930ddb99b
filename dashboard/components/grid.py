"""The sensitivity map: layers by ratios, as a map or as curves; a click or Enter picks a cell.

The element stays on the page while its cells fill in.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dashboard import state
from dashboard.components.base import control


def grid(data: dict[str, Any], on_pick: Callable[[str, float], None], *, key: str) -> None:
    """Draw it. data: as `charts.sensitivity.grid` makes it.

    `on_pick` gets the layer and the share (0 to take it back), before the page is drawn anew.
    """
    layers = {row["id"] for row in data["rows"] if not row["fixed"]}
    shares = [0, *data["shares"]]

    def picked() -> None:
        cell = state.widget_value(key).picked
        if not isinstance(cell, dict):  # from the browser: it may be anything
            return
        layer, share = cell.get("layer"), cell.get("share")
        if layer in layers and isinstance(share, (int, float)) and share in shares:
            on_pick(str(layer), float(share))

    control("grid")(key=key, data=data, on_picked_change=picked)
