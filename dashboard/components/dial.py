"""The ratio dial: a slider that answers while it is dragged, from a table worked out beforehand. It reports on release."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

HERE = Path(__file__).parent


@cache
def _control() -> Any:
    html, css, js = (
        (HERE / f"dial.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    return st.components.v2.component("ratio_dial", html=html, css=css, js=js)


def dial(
    data: dict[str, Any],
    on_ratio: Callable[[float], None],
    on_layer: Callable[[str], None],
    *,
    key: str,
) -> None:
    """Draw it. data: as `charts.preview.dial` makes it.

    The callbacks are told the share it was left at, or the layer clicked, before the page is drawn anew.
    """

    def turned() -> None:
        ratio = st.session_state[key].ratio
        if isinstance(ratio, (int, float)) and 0 <= ratio < 1:
            on_ratio(float(ratio))

    def clicked() -> None:
        layer = st.session_state[key].layer
        if layer in [name for name, _ in data["names"]]:
            on_layer(layer)

    _control()(key=key, data=data, on_ratio_change=turned, on_layer_change=clicked)
