"""How a component gets to the browser: its HTML and CSS with each drawing, its script once.

Streamlit sends a component whole whenever it is drawn, so that a slider's move would carry ten
kilobytes of script. What it sends here is a line that imports the script from this server, under a
name that changes with its text: browsers keep it.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

HERE = Path(__file__).parent
PATH = "/_workbench/components/"
"""Where the server has the scripts: `<PATH><name>-<digest>.js`."""


@cache
def control(name: str) -> Any:
    """The component of that name, registered with Streamlit once."""
    address = f"{PATH}{name}-{digest(name)}.js"
    return st.components.v2.component(
        name,
        html=_read(f"{name}.html"),
        css=_read(f"{name}.css"),
        # Streamlit runs this from a blob, which has no address to which a path would be relative;
        # and takes one line for the name of a file.
        js=f"const address = new URL({address!r}, location.origin);\n"
        "export default (await import(address)).default;\n",
    )


@cache
def script(name: str) -> str:
    """A component's script. It cannot import another: what scripts share stands in front of it."""
    return _read("shared.js") + _read(f"{name}.js")


@cache
def digest(name: str) -> str:
    return hashlib.sha256(script(name).encode()).hexdigest()[:12]


def served(path: str) -> str | None:
    """The script at a path of this server; None where there is none. The path is from outside."""
    name, _, rest = path.removeprefix(PATH).rpartition("-")
    if not path.startswith(PATH) or not name.isidentifier():
        return None
    if not (HERE / f"{name}.js").is_file() or rest != f"{digest(name)}.js":
        return None
    return script(name)


def _read(file: str) -> str:
    return (HERE / file).read_text(encoding="utf-8")
