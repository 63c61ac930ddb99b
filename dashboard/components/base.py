"""How a component gets to the browser: its HTML and CSS, and its script after the shared one."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

HERE = Path(__file__).parent


@cache
def control(name: str) -> Any:
    """The component of that name, registered with Streamlit once.

    Its script cannot import another file: what scripts share stands in front of each.
    """

    def read(file: str) -> str:
        return (HERE / file).read_text(encoding="utf-8")

    return st.components.v2.component(
        name,
        html=read(f"{name}.html"),
        css=read(f"{name}.css"),
        js=read("shared.js") + read(f"{name}.js"),
    )
