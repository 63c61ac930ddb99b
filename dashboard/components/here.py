"""The page's name above its question, in windows whose navigation has no room for every page.

It is on every page, and so it also tells when the theme turns: charts, strips and pictures have the
colours of the theme that they were drawn in, and the page is drawn anew in the other's.
"""

from __future__ import annotations

from dashboard.components.base import control


def here(name: str, cookie: str = "") -> None:
    """cookie: `name=value` that the browser is to keep; "" for none."""
    control("here")(key="here", data={"name": name, "cookie": cookie}, on_theme_change=_rerun)


def _rerun() -> None:
    """That the script runs again is all that a turned theme asks for."""
