"""Folds the sidebar in narrow windows. It shows nothing itself."""

from __future__ import annotations

from dashboard.components.base import control


def fold() -> None:
    """Call it inside the sidebar, which has to be there before it can be folded."""
    control("fold")(key="fold")
