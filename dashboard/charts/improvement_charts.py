"""Charts and tables of a run's improvements: ratios around 1×, differences around 0. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from dashboard import colours, words
from dashboard.charts import reasons
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

RATIO_ROW = 17  # pixels: a bar and the number at its end
POINT_ROW = 18  # pixels: an interval and the number beside it
AXIS = 30  # pixels: ticks under each half of the picture, their unit beside them
TITLE = 30  # pixels
FONT = 13
RATIO_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500)


def title(panel: ResultPanel) -> str:
    """The finding: the size of the file, and whether anything got faster."""
    ratios = _shown(panel, "times")
    size = "File no smaller"
    for row, improvement in ratios:
        if row.name == "file" and improvement.change and improvement.verdict == "better":
            size = f"File {words.ratio(improvement.change.value)} smaller"
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


def _shown(panel: ResultPanel, kind: str) -> list[tuple[FigureRow, Improvement]]:
    """The figures that are drawn as ratios ("times") or as differences ("points")."""
    rows = [row for row in panel.rows if panel.shown in row.improvements and not row.table_only]
    pairs = [(row, row.improvements[panel.shown]) for row in rows]
    return [(row, improvement) for row, improvement in pairs if improvement.kind == kind]


# ---------------------------------------------------------------- the picture


def picture(panel: ResultPanel, *, dark: bool) -> Chart:
    """Every improvement of the shown state in one picture.

    Above, ratios to dense on a log axis; below, differences from dense in points, with intervals.
    One mark in a row and its number where no other mark reaches: nothing can lie on anything.
    """
    ratios = _shown(panel, "times")
    points = _shown(panel, "points")
    tones = colours.palette(dark)
    upper = RATIO_ROW * len(ratios)
    lower = POINT_ROW * len(points)
    height = TITLE + upper + AXIS + lower + AXIS
    # Shares of what lies between the margins, from the bottom.
    inside = height - TITLE - AXIS
    data = [
        *_ratio_marks(ratios, tones),
        _point_marks(points, tones),
        _point_numbers(points, tones),
    ]
    figure = layout(
        title(panel),
        dark,
        height,
        margin={"l": 8, "r": 8, "t": TITLE, "b": AXIS},
        xaxis={**_ratio_range(ratios), "anchor": "y", "automargin": False},
        yaxis={**_row_axis(ratios, tones), "domain": [1 - upper / inside, 1]},
        bargap=0.3,
    )
    quiet = {"gridcolor": tones.grid, "zeroline": False, "linecolor": tones.grid}
    figure["xaxis2"] = {**quiet, **_point_range(points), "anchor": "y2"}
    lines = {**_row_axis(points, tones), "domain": [0, lower / inside], "anchor": "x2"}
    figure["yaxis2"] = {**quiet, "automargin": True, **lines}
    figure["shapes"] = [
        vertical_line(1, tones, "y domain"),
        vertical_line(0, tones, "y2 domain", "x2"),
    ]
    figure["annotations"] = [
        _unit("times better than dense (log)", "y domain", tones),
        _unit("points better, 95 % interval", "y2 domain", tones),
    ]
    return {"data": data, "layout": figure}


def _unit(text: str, yref: str, tones: colours.Palette) -> Chart:
    """An axis title in the column of the rows' names, level with the ticks: it costs no height."""
    return {
        "text": text,
        "xref": "paper",
        "x": 0,
        "xanchor": "right",
        "xshift": -10,
        "yref": yref,
        "y": 0,
        "yanchor": "top",
        "yshift": -3,
        "showarrow": False,
        "font": {"color": tones.muted, "size": 12},
    }


def _ratio_range(ratios: Sequence[tuple[FigureRow, Improvement]]) -> Chart:
    values = [improvement.change.value for _, improvement in ratios if improvement.change]
    low = min([0.8, *values]) / 1.15
    high = max([2.0, *values])
    # A third more than the longest bar, so that the number beside it has room.
    room = 0.32 * max(1.0, math.log10(high / low))
    return ratio_axis(low, high, "", room=room, last=high * 2.2)


def _point_range(points: Sequence[tuple[FigureRow, Improvement]]) -> Chart:
    reach = _reach(points)
    return {
        "range": [-reach, 1.6 * reach],  # numbers stand at the right of the longest interval
        "showgrid": True,
    }


def _reach(points: Sequence[tuple[FigureRow, Improvement]]) -> float:
    """The end of the longest interval, in points, and a little more."""
    changes = [improvement.change for _, improvement in points if improvement.change]
    ends = [abs(100 * end) for change in changes for end in (change.low, change.high)]
    return max([2.0, *ends]) * 1.1


def row_label(row: FigureRow) -> str:
    """A row's name, with its aspect where the name alone does not say it."""
    return f"{row.aspect.lower()}: {row.name}" if row.aspect in ("Speed", "Energy") else row.name


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
        "title": {"text": title, "standoff": 4},
    }


def vertical_line(x: float, tones: colours.Palette, yref: str = "paper", xref: str = "x") -> Chart:
    """Where dense is."""
    return {
        "type": "line",
        "xref": xref,
        "x0": x,
        "x1": x,
        "yref": yref,
        "y0": 0,
        "y1": 1,
        "line": {"color": tones.dense, "width": 1.5},
    }


def _row_axis(rows: Sequence[tuple[FigureRow, Improvement]], tones: colours.Palette) -> Chart:
    """The first row on top, at 0, and the others below it."""
    return {
        "tickvals": [-i for i in range(len(rows))],
        "ticktext": [row_label(row) for row, _ in rows],
        "showgrid": False,
        "range": [0.5 - max(1, len(rows)), 0.5],
        "tickfont": {"color": tones.text, "size": FONT},
        "fixedrange": True,
    }


def _ratio_marks(
    ratios: Sequence[tuple[FigureRow, Improvement]], tones: colours.Palette
) -> list[Chart]:
    """A bar from 1 for each figure, and the numbers to their right."""
    ends = [_bar_end(improvement) for _, improvement in ratios]
    y = [-i for i in range(len(ratios))]
    bars = {
        "type": "bar",
        "orientation": "h",
        "base": [1.0] * len(ratios),
        "x": [end - 1 for end in ends],
        "y": y,
        "width": 0.66,
        "marker": {
            "color": [_colour(improvement, tones) for _, improvement in ratios],
            "line": {"width": 0},
            "pattern": {**HATCH, "shape": ["/" if row.modelled else "" for row, _ in ratios]},
        },
        "hovertext": [_hover(row, improvement) for row, improvement in ratios],
        "hoverinfo": "text",
    }
    inks = [tones.text if _decided(improvement) else tones.muted for _, improvement in ratios]
    numbers = {
        "type": "scatter",
        "mode": "text",
        "x": [max(1.0, end) * 1.04 for end in ends],
        "y": y,
        "text": [_number(improvement) for _, improvement in ratios],
        "textposition": "middle right",
        "cliponaxis": False,
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


def _colour(improvement: Improvement, tones: colours.Palette) -> str:
    if not _decided(improvement):
        return tones.removed
    return tones.kept if improvement.verdict == "better" else tones.highlight


def _number(improvement: Improvement) -> str:
    """What stands at the end of a bar: short, for the reason stands in a line of its own."""
    if improvement.change is None or improvement.verdict == "no verdict":
        return improvement.verdict
    return words.ratio(improvement.change.value)


def _hover(row: FigureRow, improvement: Improvement) -> str:
    cells = [f"{state} {cell}" for state, cell in row.cells.items()]
    name = f"{row.name[:1].upper()}{row.name[1:]}"
    lines = [f"{name}: {', '.join(cells)}", amount(row, improvement)]
    if improvement.why:
        lines.append(improvement.why)
    return "<br>".join(lines)


def _point_marks(points: Sequence[tuple[FigureRow, Improvement]], tones: colours.Palette) -> Chart:
    """Differences with their intervals, and the numbers in a column at the right."""
    x, y, above, below, inks, hovers = [], [], [], [], [], []
    for i, (row, improvement) in enumerate(points):
        change = improvement.change
        if change is None:
            continue
        x.append(100 * change.value)
        y.append(-i)
        above.append(100 * change.high - 100 * change.value)
        below.append(100 * change.value - 100 * change.low)
        inks.append(_colour(improvement, tones) if _decided(improvement) else tones.dense)
        hovers.append(_hover(row, improvement))
    return {
        "type": "scatter",
        "mode": "markers",
        "xaxis": "x2",
        "yaxis": "y2",
        "x": x,
        "y": y,
        "marker": {"size": 9, "color": inks},
        "cliponaxis": False,
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": above,
            "arrayminus": below,
            "color": tones.dense,
            "thickness": 1.5,
            "width": 4,
        },
        "hovertext": hovers,
        "hoverinfo": "text",
    }


def _point_numbers(
    points: Sequence[tuple[FigureRow, Improvement]], tones: colours.Palette
) -> Chart:
    texts = [
        words.signed(improvement.change.value) if improvement.change else improvement.verdict
        for _, improvement in points
    ]
    return {
        "type": "scatter",
        "mode": "text",
        "xaxis": "x2",
        "yaxis": "y2",
        "x": [1.08 * _reach(points)] * len(points),
        "y": [-i for i in range(len(points))],
        "text": texts,
        "textposition": "middle right",
        "textfont": {"color": tones.text, "size": FONT},
        "cliponaxis": False,
        "hoverinfo": "skip",
    }


# ---------------------------------------------------------------- how speed was measured


def timing_protocol(
    end: Finished,
    onnx_timings: Timings | None = None,
    unmeasured: str = reasons.NOT_IN_THIS_RUN,
) -> str:
    """How speed was measured, and whether the control held: two timings of the same model.

    unmeasured: why the run has no timings, where it has none.
    """
    timings = [*end.dense.timings, *(onnx_timings or {}).get("dense", ())]
    controls = [timing.control for timing in timings if timing.control is not None]
    if not controls:
        if not timings:
            return f"Hatched: modelled. Speed was not measured. {unmeasured}"
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
    last = panel.shown
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
    if improvement.kind in ("points", "value"):
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
