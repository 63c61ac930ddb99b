"""Pictures and tables of what was gained: bars around 1×, differences around 0, dense | masked | slimmed. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from dashboard import colours, words
from dashboard.charts.base import HATCH, layout
from dashboard.charts.improvements import Gain, Line, Panel, amount
from pruning.events import Finished
from pruning.metrics import TOLERANCE, Timing

ROW = 27  # pixels
LETTERED = 14


def heading(held: Panel) -> str:
    """The first picture's title: the size of the file, and whether anything got faster."""
    file = next((gain for line, gain in _all(held, "times") if line.name == "file"), None)
    size = (
        f"File {words.ratio(file.change.value)} smaller"
        if file and file.change and file.verdict == "better"
        else "File no smaller"
    )
    speeds = [
        (line, gain)
        for line, gain in _all(held, "times")
        if line.promise == "Speed" and gain.change
    ]
    if not speeds:
        return f"{size}; speed not measured"
    line, best = max(
        speeds,
        key=lambda pair: (
            pair[1].verdict == "better",
            pair[1].change.value if pair[1].change else 0.0,
        ),
    )
    if best.verdict == "better" and best.change:
        return f"{size}; {words.ratio(best.change.value)} as fast ({line.name})"
    return f"{size}; " + (
        "no verdict on speed"
        if all(gain.verdict == "no verdict" for _, gain in speeds)
        else "not faster"
    )


def ratios(held: Panel, *, dark: bool) -> dict[str, Any]:
    """How many times better than dense each figure is, on a log axis around 1×; one bar for each state."""
    rows = [line for line in held.lines if not line.quiet and line.gains and _kind(line) == "times"]
    places, ticks = _places(rows)
    states = held.states[1:]
    values = [gain.change.value for line in rows for gain in line.gains.values() if gain.change]
    low, high = min([0.8, *values]) / 1.15, max([2.0, *values])
    data = [
        part
        for i, state in enumerate(states)
        for part in _bars(rows, places, state, i, len(states), dark)
    ]
    tones = colours.palette(dark)
    line = {
        "type": "line",
        "x0": 1,
        "x1": 1,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": tones.dense, "width": 1.5},
    }
    tick = [
        n for n in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500) if low <= n <= high * 2.2
    ]
    axis = {
        "type": "log",
        "range": [math.log10(low), math.log10(high) + 0.32 * max(1.0, math.log10(high / low))],
        "showgrid": True,
        "tickvals": tick,
        "ticktext": [f"{n:g}×" for n in tick],
        "title": {"text": "times better than dense (log)"},
    }
    figure = layout(
        heading(held),
        dark,
        92 + ROW * len(ticks),
        xaxis=axis,
        yaxis=_rows(ticks, tones),
        shapes=[line],
        bargap=0.3,
    )
    figure |= {"barmode": "overlay", "showlegend": len(states) > 1}
    figure["legend"] = {
        "orientation": "h",
        "x": 1,
        "xanchor": "right",
        "y": 1.0,
        "yanchor": "bottom",
    }
    return {"data": data, "layout": figure}


def points(held: Panel, *, dark: bool) -> dict[str, Any]:
    """How many points better each answer is than dense, with its interval; 0 is dense."""
    rows = [
        line for line in held.lines if not line.quiet and line.gains and _kind(line) == "points"
    ]
    tones = colours.palette(dark)
    names = [line.name for line in rows]
    places = {name: -float(i) for i, name in enumerate(names)}
    data = [
        _dots(rows, places, state, i, len(held.states) - 1, dark)
        for i, state in enumerate(held.states[1:])
    ]
    ends = [
        100 * end
        for line in rows
        for gain in line.gains.values()
        if gain.change
        for end in (gain.change.low, gain.change.high)
    ]
    reach = max([2.0, *(abs(end) for end in ends)]) * 1.15
    line = {
        "type": "line",
        "x0": 0,
        "x1": 0,
        "yref": "paper",
        "y0": 0,
        "y1": 1,
        "line": {"color": tones.dense, "width": 1.5},
    }
    axis = {
        "title": {"text": "points better than dense"},
        "range": [-reach, reach],
        "showgrid": True,
    }
    ticks = {place: name for name, place in places.items()}
    figure = layout(
        "Answers, with 95 % intervals",
        dark,
        110 + 46 * len(rows),
        xaxis=axis,
        yaxis=_rows(ticks, tones, above=0.8),
        shapes=[line],
    )
    return {"data": data, "layout": figure}


def _all(held: Panel, kind: str) -> list[tuple[Line, Gain]]:
    return [
        (line, gain)
        for line in held.lines
        if not line.quiet
        for gain in line.gains.values()
        if gain.kind == kind
    ]


def _kind(line: Line) -> str:
    return next(iter(line.gains.values())).kind


def _places(rows: Sequence[Line]) -> tuple[dict[str, float], dict[float, str]]:
    """Heights of the lines, the first on top, with a heading above each promise."""
    at, places, ticks, last = 0.0, {}, {}, ""
    for line in rows:
        if line.promise != last:
            ticks[at], last = f"<b>{line.promise}</b>", line.promise
            at -= 1
        places[line.name], ticks[at] = at, line.name
        at -= 1
    return places, ticks


def _rows(ticks: dict[float, str], tones: colours.Palette, above: float = 0.6) -> dict[str, Any]:
    return {
        "tickvals": list(ticks),
        "ticktext": list(ticks.values()),
        "showgrid": False,
        "range": [min(ticks) - 0.6, max(ticks) + above],
        "tickfont": {"color": tones.text, "size": LETTERED},
        "fixedrange": True,
    }


def _bars(
    rows: Sequence[Line], places: dict[str, float], state: str, i: int, states: int, dark: bool
) -> list[dict[str, Any]]:
    """A state's bars, and the numbers to their right."""
    tones = colours.palette(dark)
    shown = [(line, line.gains[state]) for line in rows if state in line.gains]
    ends = [
        gain.change.value
        if gain.change and gain.verdict not in ("no verdict", "not measured")
        else 1.0
        for _, gain in shown
    ]
    wide = 0.62 / states
    heights = [places[line.name] + (states / 2 - i - 0.5) * wide for line, _ in shown]
    bars = {
        "type": "bar",
        "orientation": "h",
        "name": state,
        "base": [1.0] * len(shown),
        "x": [end - 1 for end in ends],
        "y": heights,
        "width": wide * 0.92,
        "marker": {
            "color": [_colour(gain, i, states, tones) for _, gain in shown],
            "line": {"width": 0},
            "pattern": {
                "shape": ["/" if line.modelled else "" for line, _ in shown],
                **{k: v for k, v in HATCH.items() if k != "shape"},
            },
        },
        "hovertext": [_hover(line, state, gain) for line, gain in shown],
        "hoverinfo": "text",
    }
    numbers = {
        "type": "scatter",
        "mode": "text",
        "x": [max(1.0, end) * 1.03 for end in ends],
        "y": heights,
        "text": [_beside(line, gain) for line, gain in shown],
        "textposition": "middle right",
        "cliponaxis": False,
        "showlegend": False,
        "textfont": {
            "color": [
                tones.text if gain.verdict in ("better", "worse") else tones.muted
                for _, gain in shown
            ],
            "size": LETTERED,
        },
        "hoverinfo": "skip",
    }
    return [bars, numbers]


def _colour(gain: Gain, i: int, states: int, tones: colours.Palette) -> str:
    if gain.verdict not in ("better", "worse"):
        return tones.removed
    strong = tones.kept if gain.verdict == "better" else tones.highlight
    return (
        strong if i == states - 1 else colours.alpha(strong, 0.5)
    )  # the last state is the one that counts


def _beside(line: Line, gain: Gain) -> str:
    """What stands at the end of a bar."""
    if gain.change is None or gain.verdict == "no verdict":
        return gain.verdict
    if gain.verdict == "same":
        return f"{words.ratio(gain.change.value)}, no gain"
    return words.ratio(gain.change.value) + (", modelled" if line.modelled else "")


def _hover(line: Line, state: str, gain: Gain) -> str:
    name = f"{line.name[:1].upper()}{line.name[1:]}, {state}"
    return f"{name}: {line.cells[state]}, dense {line.cells['dense']}<br>{amount(line, gain)}" + (
        f"<br>{gain.why}" if gain.why else ""
    )


def _dots(
    rows: Sequence[Line], places: dict[str, float], state: str, i: int, states: int, dark: bool
) -> dict[str, Any]:
    tones = colours.palette(dark)
    shown = [
        (line, gain, gain.change)
        for line in rows
        if (gain := line.gains.get(state)) and gain.change
    ]
    away = (states / 2 - i - 0.5) * 0.36
    middle = [100 * change.value for _, _, change in shown]
    tints = [
        _colour(gain, i, states, tones) if gain.verdict in ("better", "worse") else tones.dense
        for _, gain, _ in shown
    ]
    return {
        "type": "scatter",
        "mode": "markers+text",
        "name": state,
        "x": middle,
        "y": [places[line.name] + away for line, _, _ in shown],
        "marker": {
            "size": 10,
            "color": tints,
            "symbol": "circle" if i == states - 1 else "circle-open",
        },
        "text": [words.signed(change.value) for _, _, change in shown],
        "textposition": "top center",
        "textfont": {"color": tones.text, "size": 13},
        "cliponaxis": False,
        "error_x": {
            "type": "data",
            "symmetric": False,
            "array": [
                100 * change.high - at for (_, _, change), at in zip(shown, middle, strict=True)
            ],
            "arrayminus": [
                at - 100 * change.low for (_, _, change), at in zip(shown, middle, strict=True)
            ],
            "color": tones.dense,
            "thickness": 1.5,
            "width": 5,
        },
        "hovertext": [_hover(line, state, gain) for line, gain, _ in shown],
        "hoverinfo": "text",
    }


def protocol(end: Finished, elsewhere: dict[str, tuple[Timing, ...]] | None = None) -> str:
    """How speed was measured, and whether the control held."""
    timings = [
        timing
        for timing in (*end.dense.timings, *(elsewhere or {}).get("dense", ()))
        if timing.control is not None
    ]
    if not timings:
        return "Hatched: modelled. Speed has no control in this run, which was made before there was one: run again."
    off = max(timing.control or 0.0 for timing in timings)
    threads = words.plural(timings[0].threads, "CPU thread")
    held = (
        f"differed by at most {words.percent(off)}"
        if off <= TOLERANCE
        else f"differed by up to {words.percent(off)}: no verdict there"
    )
    return f"Hatched: modelled. Speed on {threads}; control: two timings of the same dense model {held}."


# ---------------------------------------------------------------- tables


def table(held: Panel) -> pd.DataFrame:
    """dense | masked | slimmed side by side, and the change of the last state that is there, in words."""
    last = held.states[-1]
    rows = []
    for line in held.lines:
        gain = line.gains.get(last)
        cells = {state: line.cells.get(state, "—") for state in held.states} | dict.fromkeys(
            held.absent, "—"
        )
        change = amount(line, gain) if gain else ""
        rows.append(
            {
                "promise": line.promise,
                "figure": line.name,
                **cells,
                "change": change,
                "verdict": _verdict(line, gain),
            }
        )
    return pd.DataFrame(rows)


def _verdict(line: Line, gain: Gain | None) -> str:
    if gain is None:
        return ""
    if gain.kind == "points":
        return {"same": "within the interval"}.get(gain.verdict, gain.verdict)
    fast = line.promise == "Speed"
    return {
        "better": "faster" if fast else "gained",
        "same": "no gain",
        "worse": "slower" if fast else "costs more",
    }.get(gain.verdict, gain.verdict)


def csv(held: Panel) -> bytes:
    """Raw numbers for other programs, one row a figure and state."""
    rows = []
    for line in held.lines:
        for state in held.states:
            gain = line.gains.get(state)
            change = gain.change if gain else None
            rows.append(
                {
                    "promise": line.promise,
                    "figure": line.name,
                    "state": state,
                    "value": line.raw.get(state),
                    "unit": line.unit,
                    "modelled": line.modelled,
                    "change": change.value if change else None,
                    "from": change.low if change else None,
                    "to": change.high if change else None,
                    "change_is": gain.kind if gain else "",
                    "verdict": gain.verdict if gain else "",
                    "why": gain.why if gain else held.absent.get(state, ""),
                }
            )
    return pd.DataFrame(rows).to_csv(index=False).encode()
