"""Folds the sidebar in narrow windows. It shows nothing itself."""

from __future__ import annotations

from dashboard.components.base import control

ROOM, ROOM_OF_LESSON = 1200, 1600
"""Pixels of a window that has room for the sidebar and the page, and for a lesson beside both."""


def fold(lesson: bool = False) -> None:
    """Call it inside the sidebar, which has to be there before it can be folded."""
    below = ROOM_OF_LESSON if lesson else ROOM
    control("fold")(key="fold", data={"narrow": f"(max-width: {below - 1}px)"})
