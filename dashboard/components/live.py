"""Live curves: accuracy, loss, sparsity and size over the epochs of a run. The element stays, only its marks are redrawn."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

HERE = Path(__file__).parent


@cache
def _control() -> Any:
    html, css, js = (
        (HERE / f"live.{kind}").read_text(encoding="utf-8") for kind in ("html", "css", "js")
    )
    return st.components.v2.component("live_curves", html=html, css=css, js=js)


def live(data: dict[str, Any], *, key: str) -> None:
    """Draw it. data: as `charts.prune.curves` makes it."""
    _control()(key=key, data=data)
