"""Charts of sweeps from their rows, for a notebook.

    rows = pruning.sweeps.sweeps.rows(store, id)
    sweep_picture(pd.DataFrame(rows), cost="bytes")

`python -m pruning sweep plan.json --json` prints the same rows.
"""

from __future__ import annotations

from typing import Any

import pandas as pd
import plotly.graph_objects as go

from dashboard.charts import sweep
from dashboard.charts.plotly_figure import need, shown
from pruning.errors import DataError
from pruning.sweeps.table import COLUMNS

MADE_BY = "pruning.sweeps, or `python -m pruning sweep plan.json --json`,"


def sweep_picture(
    frame: pd.DataFrame, cost: str = "weights_kept", *, near: bool = False, dark: bool = False
) -> go.Figure:
    """Accuracy against a cost: a line for each technique, bands over seeds, the Pareto front.

    cost: weights_kept, macs, bytes or latency_ms; near: only what lies close to dense.
    """
    if cost not in sweep.COSTS:
        raise DataError(f"There is no cost {cost!r}: known are {', '.join(sweep.COSTS)}.")
    return shown(sweep.picture(_rows(frame), cost, dark=dark, near=near), dark)


def sweep_ranks(frame: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """The rank of each technique at each level, and what the noise allows."""
    return shown(sweep.rank_picture(_rows(frame), dark=dark), dark)


def _rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows of one model, as they were before pandas: what is missing is None."""
    need(frame, COLUMNS, MADE_BY)
    models = list(dict.fromkeys(frame["model"]))
    if len(models) > 1:
        names = ", ".join(map(str, models))
        raise DataError(f"This DataFrame has rows of {names}: draw one model at a time.")
    if not len(frame):
        raise DataError("This DataFrame has no rows: there is nothing to draw.")
    whole = frame.astype(object)
    records = whole.where(whole.notna(), None).to_dict("records")
    return [{str(name): value for name, value in record.items()} for record in records]
