"""Improvements of several runs in one chart, each over its own dense model. Pure.

A row for each figure, a letter for each run. Runs of different models can stand side by side,
because a ratio to a run's own dense model has no unit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from dashboard import colours, words
from dashboard.charts.base import layout
from dashboard.charts.compare_inside import grid, stops
from dashboard.charts.improvement_charts import ratio_axis, vertical_line
from dashboard.charts.improvements import FigureRow, Improvement, ResultPanel, amount
from pruning.metrics import Spread

ROW = 24  # pixels of a row with one run
MOST_MARKED = 6  # runs whose marks can be told apart in a row
ROW_EACH = 19  # pixels more for each further run: a line of text


@dataclass(frozen=True)
class RunImprovements:
    """A run of the chart: its letter, its criterion (for the colour) and its figures."""

    letter: str
    criterion: str
    panel: ResultPanel


def figure_names(runs: Sequence[RunImprovements]) -> list[str]:
    """Names of the ratios that any of the runs has, in the panel's order."""
    return list(dict.fromkeys(row.name for run in runs for row, _ in _ratios(run)))


def _ratios(run: RunImprovements) -> Iterator[tuple[FigureRow, Improvement]]:
    """How the run's last state, compact where there is one, compares with dense."""
    last = run.panel.shown
    for row in run.panel.rows:
        improvement = row.improvements.get(last)
        if improvement and improvement.kind == "times" and not row.table_only:
            yield row, improvement


def chart(runs: Sequence[RunImprovements], *, dark: bool) -> dict[str, Any]:
    """Ratios of each run to its own dense model; filled where better or worse, else hollow."""
    if len(runs) > MOST_MARKED:
        return _cells(runs, dark)
    names = figure_names(runs)
    tones = colours.palette(dark)
    heights = {name: -float(i) for i, name in enumerate(names)}
    changes = [improvement.change for run in runs for _, improvement in _ratios(run)]
    values = [change.value for change in changes if change]
    low = min([0.8, *values]) / 1.4  # room for a letter and its ratio, left of the mark
    high = max([2.0, *values]) * 1.3
    near_rim = low ** (1 / 3) * high ** (2 / 3)  # from two thirds of the log axis on
    data = [
        _marks(run, place, len(runs), heights, near_rim, dark) for place, run in enumerate(runs)
    ]
    rows = {
        "tickvals": list(heights.values()),
        "ticktext": names,
        "showgrid": True,
        "range": [-len(names) + 0.4, 0.6],
        "tickfont": {"color": tones.text, "size": 14},
        "fixedrange": True,
    }
    height = 100 + (ROW + ROW_EACH * (len(runs) - 1)) * len(names)
    figure = layout(
        finding(runs),
        dark,
        height,
        xaxis=ratio_axis(low, high, "times better than dense (log)"),
        yaxis=rows,
        shapes=[vertical_line(1, tones)],
    )
    return {"data": data, "layout": figure}


def _cells(runs: Sequence[RunImprovements], dark: bool) -> dict[str, Any]:
    """The same of many runs, whose marks would fill several screens: a cell for each ratio.

    Coloured where it is better or worse than dense, pale where the figures do not tell.
    """
    names = figure_names(runs)
    z = np.full((len(names), len(runs)), np.nan)
    texts = [["" for _ in runs] for _ in names]
    hovers = [[f"{run.letter}, {name}: not measured" for run in runs] for name in names]
    for column, run in enumerate(runs):
        for row, improvement in _ratios(run):
            place = names.index(row.name)
            hovers[place][column] = f"{run.letter}, {row.name}: {amount(row, improvement)}"
            if improvement.change is None:
                continue
            decided = improvement.verdict in ("better", "worse")
            z[place, column] = math.log2(improvement.change.value) if decided else 0.0
            texts[place][column] = words.ratio(improvement.change.value)
    # Ten times better is as strong a colour as there is, so that small changes show beside it.
    most = math.log2(10)
    return grid(
        finding(runs),
        z.clip(-most, most),
        names,
        [run.letter for run in runs],
        hovers,
        dark,
        scale=[[1 - at, colour] for at, colour in reversed(stops(dark))],
        range=(-most, most),
        row=ROW + 6,
        texts=texts,
    )


def finding(runs: Sequence[RunImprovements]) -> str:
    """Which runs got faster: the improvement most often expected and least often there."""
    timed = False
    faster = []
    for run in runs:
        speeds = [i for row, i in _ratios(run) if row.aspect == "Speed"]
        timed = timed or any(speed.change for speed in speeds)
        if any(speed.verdict == "better" for speed in speeds):
            faster.append(run.letter)
    # Not faster and not timed are two findings: the second is no result at all.
    if not timed:
        return "Improvements; speed was not measured"
    return f"Improvements: {', '.join(faster) or 'none is'} faster than dense"


def _marks(
    run: RunImprovements,
    place: int,
    runs: int,
    heights: dict[str, float],
    near_rim: float,
    dark: bool,
) -> dict[str, Any]:
    """A run's marks. place: of the run among all, from the top of each row to its bottom;
    near_rim: the ratio from which on a narrow chart has no room right of a mark.
    """
    style = colours.technique(run.criterion, dark)
    tones = colours.palette(dark)
    # Each run has a line of its own in the row, so that no letter lies on another.
    offset = (runs / 2 - place - 0.5) * 0.86 / runs
    x, y, symbols, texts, sides, inks, hovers = [], [], [], [], [], [], []
    for row, improvement in _ratios(run):
        if improvement.change is None:
            continue
        decided = improvement.verdict in ("better", "worse")
        x.append(improvement.change.value)
        y.append(heights[row.name] + offset)
        symbols.append(style.marker if decided else f"{style.marker}-open")
        texts.append(_text(run.letter, improvement.change, decided))
        # Right of a mark below 1 the text would lie on the line of dense.
        left = improvement.change.value < 1 or improvement.change.value > near_rim
        sides.append("middle left" if left else "middle right")
        inks.append(tones.text if decided else tones.muted)
        hover = f"{run.letter}, {row.name}: {amount(row, improvement)}"
        hovers.append(f"{hover}<br>{improvement.why}" if improvement.why else hover)
    return {
        "type": "scatter",
        "mode": "markers+text",
        "x": x,
        "y": y,
        "marker": {"color": style.colour, "symbol": symbols, "size": 10},
        "text": texts,
        "textposition": sides,
        "textfont": {"color": inks, "size": 13},
        "cliponaxis": False,
        "hoverinfo": "text",
        "hovertext": hovers,
    }


def _text(letter: str, change: Spread, decided: bool) -> str:
    return f"{letter} {words.ratio(change.value)}" if decided else letter


def table(runs: Sequence[RunImprovements]) -> pd.DataFrame:
    """The chart's table, with differences too: a row for each figure, a column for each run."""
    rows_of = [{row.name: row for row in run.panel.rows} for run in runs]
    compared = [
        row for rows in rows_of for row in rows.values() if row.improvements and not row.table_only
    ]
    records: list[dict[str, str]] = []
    for aspect, name in dict.fromkeys((row.aspect, row.name) for row in compared):
        record = {"aspect": aspect, "figure": name}
        for run, rows in zip(runs, rows_of, strict=True):
            row = rows.get(name)
            improvement = row.improvements.get(run.panel.shown) if row else None
            if row and improvement:
                record[run.letter] = amount(row, improvement)
            else:
                record[run.letter] = words.NOT_MEASURED
        records.append(record)
    return pd.DataFrame(records)
