"""The slider of the share to remove: its numbers follow while it is dragged, from a table.

It reports on release.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dashboard import state
from dashboard.components.base import control

MOST_RELEASES = 1_000_000
"""Between two drawings, far beyond what hands can do."""


def dial(
    data: dict[str, Any],
    on_ratio: Callable[[float, int], None],
    on_layer: Callable[[str], None],
    *,
    key: str,
) -> None:
    """Draw it. data: as `charts.preview.dial` makes it.

    The callbacks get the share at which it was released and the slider's count of releases, or the
    layer that was clicked, before the page is drawn anew.
    """

    def released() -> None:
        match state.widget_value(key).ratio:  # from the browser: it may be anything
            case {"share": int() | float() as share, "turn": int() as turn} if 0 <= share < 1:
                on_ratio(float(share), min(turn, data["turn"] + MOST_RELEASES))

    def clicked() -> None:
        layer = state.widget_value(key).layer
        if layer in [name for name, _ in data["names"]]:
            on_layer(layer)

    control("dial")(key=key, data=data, on_ratio_change=released, on_layer_change=clicked)
