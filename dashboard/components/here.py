"""The page's name above its question, in windows whose navigation has no room for every page."""

from __future__ import annotations

from dashboard.components.base import control


def here(name: str) -> None:
    control("here")(key="here", data={"name": name})
