"""Several runs' gains on one picture, each against its own dense model: a row for each promise, a letter for each run. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dashboard import colours, words
from dashboard.charts.base import layout
from dashboard.charts.improvements import Gain, Line, Panel, amount

ROW = 24  # pixels for one run; each further one makes a row taller
MORE = 13


@dataclass(frozen=True)
class Run:
    """A run on the picture: its letter, its technique (for the colour), and what it gained."""

    letter: str
    criterion: str
    panel: Panel


def figures(runs: Sequence[Run]) -> list[str]:
    """Names of the ratios that any of the runs has, in the panel's order."""
    return list(
        dict.fromkeys(
            line.name for run in runs for line in run.panel.lines if _shown(line, run) is not None
        )
    )


def _shown(line: Line, run: Run) -> Gain | None:
    """How the run's last state stands in a ratio; None for other figures."""
    gain = line.gains.get(run.panel.states[-1])
    return gain if gain is not None and gain.kind == "times" and not line.quiet else None


def chart(runs: Sequence[Run], *, dark: bool) -> dict[str, Any]:
    """How many times better than its own dense model each run is; filled where that is a gain or a loss, hollow where it is none."""
    names, tones = figures(runs), colours.palette(dark)
    places = {name: -float(i) for i, name in enumerate(names)}
    data = [_letters(run, i, len(runs), places, dark) for i, run in enumerate(runs)]
    values = [x for trace in data for x in trace["x"]]
    low, high = min([0.8, *values]) / 1.15, max([2.0, *values]) * 1.3
    ticks = [n for n in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if low <= n <= high]
    axis = {
        "type": "log",
        "range": [math.log10(low), math.log10(high)],
        "showgrid": True,
        "tickvals": ticks,
        "ticktext": [f"{n:g}×" for n in ticks],
        "title": {"text": "times better than its own dense model (log)"},
    }
    rows = {
        "tickvals": list(places.values()),
        "ticktext": names,
        "showgrid": True,
        "range": [-len(names) + 0.4, 0.6],
        "tickfont": {"color": tones.text, "size": 14},
        "fixedrange": True,
    }
    line = {
        "type": "line",
        "x0": 1,
        "x1": 1,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": tones.dense, "width": 1.5},
    }
    height = 100 + (ROW + MORE * (len(runs) - 1)) * len(names)
    return {
        "data": data,
        "layout": layout(
            finding(runs), dark, min(height, 900), xaxis=axis, yaxis=rows, shapes=[line]
        ),
    }


def finding(runs: Sequence[Run]) -> str:
    """Which of them got faster anywhere: the gain that is most often expected and least often there."""
    fast = [
        run.letter
        for run in runs
        if any(line.promise == "Speed" and _better(line, run) for line in run.panel.lines)
    ]
    timed = [
        run.letter
        for run in runs
        if any(
            line.promise == "Speed" and (gain := _shown(line, run)) and gain.change
            for line in run.panel.lines
        )
    ]
    if not timed:
        return "What each gained; speed was not measured"
    return (
        f"What each gained: {', '.join(fast)} faster than dense"
        if fast
        else "What each gained: none is faster than dense"
    )


def _better(line: Line, run: Run) -> bool:
    gain = _shown(line, run)
    return gain is not None and gain.verdict == "better"


def _letters(run: Run, i: int, runs: int, places: dict[str, float], dark: bool) -> dict[str, Any]:
    style, tones = colours.technique(run.criterion, dark), colours.palette(dark)
    held = [
        (line, gain, gain.change)
        for line in run.panel.lines
        if (gain := _shown(line, run)) is not None and gain.change
    ]
    away = (runs / 2 - i - 0.5) * 0.7 / runs
    told = [gain.verdict in ("better", "worse") for _, gain, _ in held]
    names = [
        f"{run.letter} {words.ratio(change.value)}" if is_ else run.letter
        for is_, (_, _, change) in zip(told, held, strict=True)
    ]
    hovers = [
        f"{run.letter}, {line.name}: {amount(line, gain)}" + (f"<br>{gain.why}" if gain.why else "")
        for line, gain, _ in held
    ]
    return {
        "type": "scatter",
        "mode": "markers+text",
        "x": [change.value for _, _, change in held],
        "y": [places[line.name] + away for line, _, _ in held],
        "marker": {
            "color": style.colour,
            "symbol": [style.marker if is_ else f"{style.marker}-open" for is_ in told],
            "size": 10,
        },
        "text": names,
        "textposition": "middle right",
        "textfont": {"color": [tones.text if is_ else tones.muted for is_ in told], "size": 13},
        "cliponaxis": False,
        "hoverinfo": "text",
        "hovertext": hovers,
    }


def table(runs: Sequence[Run]) -> pd.DataFrame:
    """The table twin: a row for each figure, a column for each run; ratios and differences, in words."""
    names = dict.fromkeys(
        (line.promise, line.name)
        for run in runs
        for line in run.panel.lines
        if line.gains and not line.quiet
    )
    rows: list[dict[str, str]] = []
    for promise, name in names:
        row = {"promise": promise, "figure": name}
        for run in runs:
            line = next((line for line in run.panel.lines if line.name == name), None)
            gain = line.gains.get(run.panel.states[-1]) if line else None
            row[run.letter] = amount(line, gain) if line and gain else words.NOT_MEASURED
        rows.append(row)
    return pd.DataFrame(rows)
