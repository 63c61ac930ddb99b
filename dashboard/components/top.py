"""An invisible place at the top of a page, which comes into view when what the page shows changes.

A model is picked from the gallery below the model: without this, only the sidebar would tell that
another one is shown.
"""

from __future__ import annotations

from dashboard.components.base import control


def to_top_when_changed(shown: str, *, key: str) -> None:
    """shown: what the page shows, by a name. The first one does not scroll."""
    control("top")(key=key, data={"shown": shown}, height=1)
