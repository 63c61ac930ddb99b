"""The threshold on a layer's weights, as a handle in their histogram; it commits on release."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dashboard import state
from dashboard.components.base import control


def threshold(data: dict[str, Any], on_ratio: Callable[[float], None], *, key: str) -> None:
    """Draw it. data: as `charts.threshold.handle` makes it.

    on_ratio: gets the share of the recipe at which the handle was let go.
    """

    def released() -> None:
        ratio = state.widget_value(key).ratio  # from the browser: it may be anything
        if isinstance(ratio, (int, float)) and 0 <= ratio < 1:
            on_ratio(float(ratio))

    control("threshold")(key=key, data=data, on_ratio_change=released)
