"""Live curves: accuracy, loss, sparsity and size over the epochs of a run.

The element stays on the page; only its marks are redrawn.
"""

from __future__ import annotations

from typing import Any

from dashboard.components.base import control


def live(data: dict[str, Any], *, key: str) -> None:
    """Draw it. data: as `charts.runs.curves` makes it."""
    control("live")(key=key, data=data)
