"""Charts and tables of a run's improvements: ratios around 1×, differences around 0. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from dashboard import colours, words
from dashboard.charts.base import HATCH, layout
from dashboard.charts.improvements import (
    FigureRow,
    Improvement,
    ResultPanel,
    Timings,
    amount,
)
from pruning.events import Finished
from pruning.metrics import TOLERANCE

Chart = dict[str, Any]

BAR_ROW = 27  # pixels for a row of the chart of ratios
POINT_ROW = 46  # pixels: an interval and the number above it
FONT = 14
RATIO_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)


def title(panel: ResultPanel) -> str:
    """The finding: the size of the file, and whether anything got faster."""
    ratios = list(_shapes(panel, "times"))
    size = "File no smaller"
    for row, improvement in ratios:
        if row.name == "file":
            if improvement.change and improvement.verdict == "better":
                size = f"File {words.ratio(improvement.change.value)} smaller"
            break  # the masked model's: the first state after dense
    return f"{size}; {_speed_finding(ratios)}"


def _speed_finding(ratios: Sequence[tuple[FigureRow, Improvement]]) -> str:
    speeds = [
        (improvement.verdict == "better", improvement.change.value, row.name)
        for row, improvement in ratios
        if row.aspect == "Speed" and improvement.change
    ]
    if not speeds:
        return "speed not measured"
    # A ratio within the noise may be the larger one: faster beyond doubt comes first.
    faster, speedup, name = max(speeds, key=lambda speed: speed[:2])
    if faster:
        return f"{words.ratio(speedup)} as fast ({name})"
    verdicts = {
        improvement.verdict
        for row, improvement in ratios
        if row.aspect == "Speed" and improvement.change
    }
    return "no verdict on speed" if verdicts == {"no verdict"} else "not faster"


def _shapes(panel: ResultPanel, kind: str) -> Iterator[tuple[FigureRow, Improvement]]:
    for row in _rows(panel, kind):
        for improvement in row.improvements.values():
            yield row, improvement


def _rows(panel: ResultPanel, kind: str) -> list[FigureRow]:
    """The rows that are drawn as ratios or as points: all improvements of a row are of one kind."""
    return [
        row
        for row in panel.rows
        if not row.table_only
        and any(improvement.kind == kind for improvement in row.improvements.values())
    ]


# ---------------------------------------------------------------- ratios to dense


def ratios(panel: ResultPanel, *, dark: bool) -> Chart:
    """How many times better than dense each figure is, on a log axis; one bar for each state."""
    rows = _rows(panel, "times")
    heights, ticks = _under_aspects(rows)
    states = panel.states[1:]
    data = []
    for place, state in enumerate(states):
        data += _bars(rows, heights, state, place, len(states), dark)
    values = [i.change.value for _, i in _shapes(panel, "times") if i.change]
    low = min([0.8, *values]) / 1.15
    high = max([2.0, *values])
    # A third more than the longest bar, so that the number beside it has room.
    room = 0.32 * max(1.0, math.log10(high / low))
    tones = colours.palette(dark)
    axis = ratio_axis(low, high, "times better than dense (log)", room=room, last=high * 2.2)
    figure = layout(
        title(panel),
        dark,
        92 + BAR_ROW * len(ticks),
        xaxis=axis,
        yaxis=_row_axis(ticks, tones),
        shapes=[vertical_line(1, tones)],
        bargap=0.3,
        barmode="overlay",
    )
    figure["showlegend"] = len(states) > 1
    figure["legend"] = {
        "orientation": "h",
        "x": 1,
        "xanchor": "right",
        "y": 1.0,
        "yanchor": "bottom",
    }
    return {"data": data, "layout": figure}


def ratio_axis(
    low: float, high: float, title: str, *, room: float = 0.0, last: float | None = None
) -> Chart:
    """A log axis of ratios around 1×. room: decades beyond `high`; last: the largest tick."""
    ticks = [tick for tick in RATIO_TICKS if low <= tick <= (last or high)]
    return {
        "type": "log",
        "range": [math.log10(low), math.log10(high) + room],
        "showgrid": True,
        "tickvals": ticks,
        "ticktext": [f"{tick:g}×" for tick in ticks],
        "title": {"text": title},
    }


def vertical_line(x: float, tones: colours.Palette) -> Chart:
    """Where dense is."""
    return {
        "type": "line",
        "x0": x,
        "x1": x,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": tones.dense, "width": 1.5},
    }


def _under_aspects(rows: Sequence[FigureRow]) -> tuple[dict[str, float], dict[float, str]]:
    """Heights of the rows, the first on top, and all ticks, among them a heading an aspect."""
    heights: dict[str, float] = {}
    ticks: dict[float, str] = {}
    height = 0.0
    aspect = ""
    for row in rows:
        if row.aspect != aspect:
            aspect = row.aspect
            ticks[height] = f"<b>{aspect}</b>"
            height -= 1
        heights[row.name] = height
        ticks[height] = row.name
        height -= 1
    return heights, ticks


def _row_axis(ticks: dict[float, str], tones: colours.Palette, above: float = 0.6) -> Chart:
    return {
        "tickvals": list(ticks),
        "ticktext": list(ticks.values()),
        "showgrid": False,
        "range": [min(ticks) - 0.6, max(ticks) + above],
        "tickfont": {"color": tones.text, "size": FONT},
        "fixedrange": True,
    }


def _bars(
    rows: Sequence[FigureRow],
    heights: dict[str, float],
    state: str,
    place: int,
    states: int,
    dark: bool,
) -> list[Chart]:
    """A state's bars, and the numbers to their right. place: of the state among those drawn."""
    tones = colours.palette(dark)
    shown = [(row, row.improvements[state]) for row in rows if state in row.improvements]
    ends = [_bar_end(improvement) for _, improvement in shown]
    width = 0.62 / states
    offset = (states / 2 - place - 0.5) * width
    y = [heights[row.name] + offset for row, _ in shown]
    bars = {
        "type": "bar",
        "orientation": "h",
        "name": state,
        "base": [1.0] * len(shown),
        "x": [end - 1 for end in ends],
        "y": y,
        "width": width * 0.92,
        "marker": {
            "color": [_colour(improvement, place, states, tones) for _, improvement in shown],
            "line": {"width": 0},
            "pattern": {**HATCH, "shape": ["/" if row.modelled else "" for row, _ in shown]},
        },
        "hovertext": [_hover(row, state, improvement) for row, improvement in shown],
        "hoverinfo": "text",
    }
    inks = [tones.text if _decided(improvement) else tones.muted for _, improvement in shown]
    numbers = {
        "type": "scatter",
        "mode": "text",
        "x": [max(1.0, end) * 1.03 for end in ends],
        "y": y,
        "text": [_number(row, improvement) for row, improvement in shown],
        "textposition": "middle right",
        "cliponaxis": False,
        "showlegend": False,
        "textfont": {"color": inks, "size": FONT},
        "hoverinfo": "skip",
    }
    return [bars, numbers]


def _bar_end(improvement: Improvement) -> float:
    """1, which is no bar at all, where there is nothing to say."""
    if improvement.change is None or improvement.verdict in ("no verdict", "not measured"):
        return 1.0
    return improvement.change.value


def _decided(improvement: Improvement) -> bool:
    return improvement.verdict in ("better", "worse")


def _colour(improvement: Improvement, place: int, states: int, tones: colours.Palette) -> str:
    if not _decided(improvement):
        return tones.removed
    strong = tones.kept if improvement.verdict == "better" else tones.highlight
    # The last state is the one that counts: those before it are paler.
    return strong if place == states - 1 else colours.alpha(strong, 0.5)


def _number(row: FigureRow, improvement: Improvement) -> str:
    """What stands at the end of a bar."""
    if improvement.change is None or improvement.verdict == "no verdict":
        return improvement.verdict
    ratio = words.ratio(improvement.change.value)
    if improvement.verdict == "same":
        return f"{ratio}, no improvement"
    return f"{ratio}, modelled" if row.modelled else ratio


def _hover(row: FigureRow, state: str, improvement: Improvement) -> str:
    name = f"{row.name[:1].upper()}{row.name[1:]}, {state}"
    lines = [
        f"{name}: {row.cells[state]}, dense {row.cells['dense']}",
        amount(row, improvement),
    ]
    if improvement.why:
        lines.append(improvement.why)
    return "<br>".join(lines)


# ---------------------------------------------------------------- differences from dense


def points(panel: ResultPanel, *, dark: bool) -> Chart:
    """How many percentage points better than dense each share is, with its interval."""
    rows = _rows(panel, "points")
    tones = colours.palette(dark)
    heights = {row.name: -float(i) for i, row in enumerate(rows)}
    states = panel.states[1:]
    data = [
        _dots(rows, heights, state, place, len(states), dark) for place, state in enumerate(states)
    ]
    changes = [improvement.change for _, improvement in _shapes(panel, "points")]
    ends = [abs(end) for change in changes if change for end in (change.low, change.high)]
    reach = max([2.0, *(100 * end for end in ends)]) * 1.15
    axis = {
        "title": {"text": "points better than dense"},
        "range": [-reach, reach],
        "showgrid": True,
    }
    ticks = {height: name for name, height in heights.items()}
    figure = layout(
        "Answers, with 95 % intervals",
        dark,
        110 + POINT_ROW * len(rows),
        xaxis=axis,
        yaxis=_row_axis(ticks, tones, above=0.8),
        shapes=[vertical_line(0, tones)],
    )
    return {"data": data, "layout": figure}


def _dots(
    rows: Sequence[FigureRow],
    heights: dict[str, float],
    state: str,
    place: int,
    states: int,
    dark: bool,
) -> Chart:
    """A state's differences with their intervals. place: of the state among those drawn."""
    tones = colours.palette(dark)
    offset = (states / 2 - place - 0.5) * 0.36
    x, y, above, below, inks, texts, hovers = [], [], [], [], [], [], []
    for row in rows:
        improvement = row.improvements.get(state)
        if improvement is None or improvement.change is None:
            continue
        change = improvement.change
        decided = _decided(improvement)
        x.append(100 * change.value)
        y.append(heights[row.name] + offset)
        above.append(100 * change.high - 100 * change.value)
        below.append(100 * change.value - 100 * change.low)
        inks.append(_colour(improvement, place, states, tones) if decided else tones.dense)
        texts.append(words.signed(change.value))
        hovers.append(_hover(row, state, improvement))
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": state,
        "x": x,
        "y": y,
        "marker": {
            "size": 10,
            "color": inks,
            "symbol": "circle" if place == states - 1 else "circle-open",
        },
        "text": texts,
        "textposition": "top center",
        "textfont": {"color": tones.text, "size": 13},
        "cliponaxis": False,
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": above,
            "arrayminus": below,
            "color": tones.dense,
            "thickness": 1.5,
            "width": 5,
        },
        "hovertext": hovers,
        "hoverinfo": "text",
    }


# ---------------------------------------------------------------- how speed was measured


def timing_protocol(end: Finished, onnx_timings: Timings | None = None) -> str:
    """How speed was measured, and whether the control held: two timings of the same model."""
    timings = [*end.dense.timings, *(onnx_timings or {}).get("dense", ())]
    controls = [timing.control for timing in timings if timing.control is not None]
    if not controls:
        return (
            "Hatched: modelled. Speed has no control in this run, "
            "which was made before there was one: run again."
        )
    worst = max(controls)
    if worst <= TOLERANCE:
        control = f"differed by at most {words.percent(worst)}"
    else:
        control = f"differed by up to {words.percent(worst)}: no verdict there"
    threads = next(timing.threads for timing in timings if timing.control is not None)
    return (
        f"Hatched: modelled. Speed on {words.plural(threads, 'CPU thread')}; "
        f"control: two timings of the same dense model {control}."
    )


# ---------------------------------------------------------------- tables


def table(panel: ResultPanel) -> pd.DataFrame:
    """The states side by side, and how the last one compares with dense, in words."""
    last = panel.states[-1]
    records = []
    for row in panel.rows:
        improvement = row.improvements.get(last)
        cells = {state: row.cells.get(state, "—") for state in panel.states}
        cells |= dict.fromkeys(panel.absent, "—")
        records.append(
            {
                "aspect": row.aspect,
                "figure": row.name,
                **cells,
                "change": amount(row, improvement) if improvement else "",
                "verdict": _verdict(row, improvement) if improvement else "",
            }
        )
    return pd.DataFrame(records)


def _verdict(row: FigureRow, improvement: Improvement) -> str:
    if improvement.kind == "points":
        in_words = {"same": "within the interval"}
    elif row.aspect == "Speed":
        in_words = {"better": "faster", "same": "no improvement", "worse": "slower"}
    else:
        in_words = {"better": "improved", "same": "no improvement", "worse": "costs more"}
    return in_words.get(improvement.verdict, improvement.verdict)


def csv(panel: ResultPanel) -> bytes:
    """Raw numbers for other programs: a row for each figure and state."""
    records = []
    for row in panel.rows:
        for state in panel.states:
            improvement = row.improvements.get(state)
            change = improvement.change if improvement else None
            records.append(
                {
                    "aspect": row.aspect,
                    "figure": row.name,
                    "state": state,
                    "value": row.raw.get(state),
                    "unit": row.unit,
                    "modelled": row.modelled,
                    "change": change.value if change else None,
                    "from": change.low if change else None,
                    "to": change.high if change else None,
                    "change_is": improvement.kind if improvement else "",
                    "verdict": improvement.verdict if improvement else "",
                    "why": improvement.why if improvement else panel.absent.get(state, ""),
                }
            )
    return pd.DataFrame(records).to_csv(index=False).encode()
