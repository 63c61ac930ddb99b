"""The sensitivity map: layers by ratios, as a map or as curves. It stays while its cells fill in; a click or Enter picks one."""

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
        (HERE / f"grid.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    return st.components.v2.component("sensitivity_grid", html=html, css=css, js=js)


def grid(data: dict[str, Any], on_pick: Callable[[str, float], None], *, key: str) -> None:
    """Draw it. data: as `charts.sensitivity.grid` makes it.

    `on_pick` is told the layer and the share (0 to take it back), before the page is drawn anew.
    """
    known = {row["id"] for row in data["rows"] if not row["fixed"]}

    def picked() -> None:
        cell = st.session_state[key].picked
        if (
            isinstance(cell, dict)
            and cell.get("layer") in known
            and cell.get("share") in [0, *data["shares"]]
        ):
            on_pick(str(cell["layer"]), float(cell["share"]))

    _control()(key=key, data=data, on_picked_change=picked)
