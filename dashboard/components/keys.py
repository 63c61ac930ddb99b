"""The button that opens the list of keyboard shortcuts, and the key "?" that does the same.

A component, because a button of Streamlit's own can have letters as its shortcut, but no "?".
"""

from __future__ import annotations

from collections.abc import Callable

from dashboard.components.base import control


def keys(on_help: Callable[[], None], *, key: str) -> None:
    """Draw it. `on_help` is called before the page is drawn anew."""
    control("keys")(key=key, on_help_change=on_help)
