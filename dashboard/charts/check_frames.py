"""Charts of a criterion check, for a notebook: do low scores mean a small change in loss?

frame: `pruning.frame(events)` of `pruning.analysis.criterion_check`'s events, or any DataFrame with
a row for each unit and the columns `layer`, `unit`, `weights`, `change` (of the loss without it,
signed) and `scores.NAME` for each criterion, higher = keep.
"""

from __future__ import annotations

import pandas as pd
import plotly.graph_objects as go

from dashboard.charts import criteria
from dashboard.charts.criteria import Correlations, LayerCheck
from dashboard.charts.plotly_figure import need, of_layer, shown
from pruning.errors import DataError
from pruning.stats import correlation

SCORES = "scores."
"""What the columns of criteria begin with."""

REFERENCE = "absolute"
"""Most formulas estimate the size of the change, as the page begins with."""


def _layer_check(frame: pd.DataFrame, layer: str | None) -> LayerCheck:
    need(frame, ("layer", "unit", "weights", "change"), "pruning.frame of a criterion check")
    names = [name for name in frame.columns if name.startswith(SCORES)]
    if not names:
        raise DataError(f"This DataFrame has no criterion: a column `{SCORES}magnitude`, say.")
    units = frame.dropna(subset=["unit", "change"])
    name, rows = of_layer(units, layer)
    count = len(rows)
    return LayerCheck(
        layer=name,
        noun="unit",
        total=count,
        loss=0.0,
        examples=0,
        units=rows["unit"].to_numpy(int),
        weights=rows["weights"].to_numpy(int),
        change=rows["change"].to_numpy(float),
        scores={name.removeprefix(SCORES): rows[name].to_numpy(float) for name in names},
    )


def _correlations(check: LayerCheck) -> Correlations:
    change = check.reference(REFERENCE)
    return {name: correlation(scores, change) for name, scores in check.scores.items()}


def criterion_scores(
    frame: pd.DataFrame,
    criterion: str,
    layer: str | None = None,
    *,
    ranked: bool = False,
    dark: bool = False,
) -> go.Figure:
    """A mark for each unit: its score, or its rank by score, against the loss change."""
    check = _layer_check(frame, layer)
    if criterion not in check.scores:
        known = ", ".join(check.scores)
        raise DataError(
            f"There are no scores by {criterion!r} in this DataFrame: known are {known}."
        )
    rho = _correlations(check)[criterion]
    figure = criteria.scatter(check, criterion, rho, REFERENCE, ranked=ranked, dark=dark)
    return shown(figure, dark)


def criterion_ranking(
    frame: pd.DataFrame, layer: str | None = None, *, dark: bool = False
) -> go.Figure:
    """Criteria from the highest rank correlation to the lowest, with intervals, beside random."""
    check = _layer_check(frame, layer)
    return shown(criteria.ladder(check, _correlations(check), dark=dark), dark)


def criterion_agreement(
    frame: pd.DataFrame, layer: str | None = None, *, dark: bool = False
) -> go.Figure:
    """How far the orders of each two criteria, and the loss change's, agree."""
    check = _layer_check(frame, layer)
    names, values = criteria.agreement(check, _correlations(check), REFERENCE)
    return shown(criteria.grid(names, values, dark=dark), dark)


def criterion_layers(frame: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """The rank correlation of each criterion in each layer."""
    first = _layer_check(frame, None)
    every = list(dict.fromkeys(frame.dropna(subset=["unit", "change"])["layer"]))
    checks = {name: _layer_check(frame, name) for name in every}
    correlations = {name: _correlations(check) for name, check in checks.items()}
    units = {name: len(check.units) for name, check in checks.items()}
    return shown(criteria.by_layer(correlations, units, first.layer, dark=dark), dark)
