"""The button that leaves the projector's view, and the key Esc that does the same.

A component, because a shortcut of Streamlit's own button also closes what is open above the page.
"""

from __future__ import annotations

from collections.abc import Callable

from dashboard import state
from dashboard.components.base import control


def leave(
    on_leave: Callable[[], None], height: int, on_height: Callable[[int], None], *, key: str
) -> None:
    """Draw it. `on_leave` is called before the page is drawn anew; `on_height` once the window is
    known to have another height than what the page was drawn for, in pixels.
    """

    def measured() -> None:
        on_height(int(state.widget_value(key).height))

    control("leave")(
        key=key, data={"height": height}, on_leave_change=on_leave, on_height_change=measured
    )
