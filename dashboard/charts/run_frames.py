"""Charts of runs from `pruning.frame(events)`, for a notebook.

Where a chart shows several runs, each has its name in the column `run`:

    pd.concat([pruning.frame(a).assign(run="a"), pruning.frame(b).assign(run="b")])
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from dashboard import colours, words
from dashboard.charts import compare, compare_improvements, improvement_charts, prune, sensitivity
from dashboard.charts import lottery as tickets
from dashboard.charts.base import layout, numbers_in
from dashboard.charts.compare import LETTERS, ComparedRun
from dashboard.charts.compare_improvements import RunImprovements
from dashboard.charts.improvements import ResultPanel, against_dense
from dashboard.charts.plotly_figure import shown
from pruning import registry
from pruning.errors import DataError
from pruning.events import Event, Finished, Point, Started, Ticket
from pruning.frames import events_in
from pruning.recipe import Recipe

GAP = 0.09  # of the figure, between two panels
PANEL = 220  # pixels: height of one of a run's curves
DASHES = {"train": "dash", "steps": "solid", "line": "solid"}
MAP_ROW = 34  # pixels of a layer
TOLERATED = 1.0  # percentage points of accuracy, as the page begins with


# ---------------------------------------------------------------- one run


def curves(frame: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """Accuracy, loss, weights kept and file size of a run over its epochs, dense as a thin line."""
    events = events_in(frame)
    recipe = _recipe(events)
    run = prune.history(events)
    data = prune.curves(run, "", recipe.criterion, dark=dark)
    traces: list[dict[str, Any]] = []
    figure = layout(f"{run.done} of {run.epochs} epochs", dark, 2 * PANEL + 90)
    figure |= {"shapes": [], "annotations": []}
    for place, panel in enumerate(data["panels"]):
        axes = "" if place == 0 else str(place + 1)
        left, top = place % 2 * (0.5 + GAP / 2), 1 - place // 2 * (0.5 + GAP)
        domains = [left, left + 0.5 - GAP / 2], [top - 0.5 + GAP, top]
        figure[f"xaxis{axes}"] = {
            **figure["xaxis"],
            "domain": domains[0],
            "anchor": f"y{axes}",
            "range": [-0.2, max(1, data["end"]) + 0.2],
            "title": {"text": "epochs" if place > 1 else ""},
        }
        figure[f"yaxis{axes}"] = {
            **figure["yaxis"],
            "domain": domains[1],
            "anchor": f"x{axes}",
            "rangemode": "tozero" if panel["zero"] else "normal",
            "ticksuffix": " %" if panel["kind"] == "percent" else "",
            "tickformat": "~s" if panel["kind"] == "bytes" else "",
        }
        traces += _panel_traces(panel, axes, data["colour"], colours.palette(dark))
        figure["shapes"] += _dense_line(panel, axes, colours.palette(dark))
        figure["annotations"].append(_heading(panel["title"], domains, colours.palette(dark)))
    return shown({"data": traces, "layout": figure}, dark)


def _panel_traces(
    panel: dict[str, Any], axes: str, colour: str, tones: colours.Palette
) -> Iterator[dict[str, Any]]:
    for line in panel["lines"]:
        points = line["points"]
        if not points:
            continue
        style = line["style"]
        test = style in ("test", "dense")
        ink = tones.dense if style == "dense" else tones.muted if style == "train" else colour
        yield {
            "type": "scatter",
            "mode": "markers" if test else "lines" if style == "steps" else "lines+markers",
            "xaxis": f"x{axes}",
            "yaxis": f"y{axes}",
            "x": [point[0] for point in points],
            "y": [point[1] for point in points],
            "error_y": _whiskers(points, ink),
            "hovertext": [point[4] for point in points],
            "hoverinfo": "text",
            "line": {"color": ink, "dash": DASHES.get(style, "solid"), "width": 2},
            "marker": {"color": ink, "size": 10 if test else 6, "symbol": _symbol(test)},
        }


def _symbol(test: bool) -> str:
    return "diamond" if test else "circle"


def _whiskers(points: Sequence[Sequence[Any]], ink: str) -> dict[str, Any]:
    """95 % intervals, where there are any."""
    above = [0.0 if high is None else high - y for _, y, _, high, *_ in points]
    below = [0.0 if low is None else y - low for _, y, low, *_ in points]
    visible = any(above) or any(below)
    lengths = {"symmetric": False, "array": above, "arrayminus": below}
    return {"type": "data", "visible": visible, "color": ink, "thickness": 1, **lengths}


def _dense_line(panel: dict[str, Any], axes: str, tones: colours.Palette) -> list[dict[str, Any]]:
    if not panel["dense"]:
        return []
    line = {"color": tones.dense, "width": 1, "dash": "dot"}
    place = {"xref": f"x{axes} domain", "yref": f"y{axes}", "x0": 0, "x1": 1}
    return [
        {"type": "line", **place, "y0": panel["dense"][0], "y1": panel["dense"][0], "line": line}
    ]


def _heading(text: str, domains: tuple[list[float], list[float]], tones: Any) -> dict[str, Any]:
    place = {"xref": "paper", "yref": "paper", "x": domains[0][0], "y": domains[1][1]}
    anchors = {"xanchor": "left", "yanchor": "bottom", "showarrow": False}
    return {"text": text, **place, **anchors, "font": {"size": 13, "color": tones.text}}


def improvements_of_run(frame: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """Every figure of a finished run over its dense model: ratios, and differences in points."""
    return shown(improvement_charts.picture(_panel(events_in(frame)), dark=dark), dark)


def _recipe(events: Sequence[Event]) -> Recipe:
    for event in events:
        if isinstance(event, Started):
            return Recipe.from_dict(event.recipe)
    raise DataError("No run begins in this DataFrame: it has no row of the event `started`.")


def _end(events: Sequence[Event]) -> Finished:
    for event in events:
        if isinstance(event, Finished):
            return event
    raise DataError("No run ends in this DataFrame: it has no row of the event `finished`.")


def _panel(events: Sequence[Event]) -> ResultPanel:
    granularity = registry.entry("granularity", _recipe(events).granularity)
    return against_dense(_end(events), structured=bool(granularity.tags.get("structured")))


# ---------------------------------------------------------------- several runs


def _runs(frame: pd.DataFrame) -> dict[str, list[Event]]:
    """Name -> its events; one nameless run where there is no column `run`."""
    if "run" not in frame.columns:
        return {"": events_in(frame)}
    parts = frame.groupby("run", sort=False)
    return {str(name): events_in(part.drop(columns="run")) for name, part in parts}


def accuracy_against_cost(
    frame: pd.DataFrame, *, cost: str = "weights", dark: bool = False
) -> go.Figure:
    """Finished runs: accuracy, with its interval, against `weights`, `macs` or `bytes` kept.

    The first run is the one that others are compared with.
    """
    if cost not in compare.COSTS:
        raise DataError(f"There is no cost {cost!r}: known are {', '.join(compare.COSTS)}.")
    runs = []
    for letter, (name, events) in zip(LETTERS, _runs(frame).items(), strict=False):
        recipe = _recipe(events)
        label = name or words.display_name(recipe.criterion)
        runs.append(ComparedRun(letter, letter, label, recipe, _end(events)))
    return shown(compare.scatter(runs, runs[0], cost, dark=dark), dark)


def improvements_of_runs(frame: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """Ratios of several finished runs, each to its own dense model."""
    runs = [
        RunImprovements(letter, _recipe(events).criterion, _panel(events))
        for letter, events in zip(LETTERS, _runs(frame).values(), strict=False)
    ]
    return shown(compare_improvements.chart(runs, dark=dark), dark)


# ---------------------------------------------------------------- sensitivity


def sensitivity_map(frame: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """Accuracy when one layer alone loses so much: a row for each layer, a column for each ratio.

    frame: of `pruning.sensitivity(...)`'s points.
    """
    rows, levels, title = _map(frame, dark)
    cells = [row["cells"] for row in rows]
    stops = sensitivity.CIVIDIS
    ground = colours.palette(dark)
    data = {
        "type": "heatmap",
        "x": levels,
        "y": [row["label"] for row in rows],
        "z": [[cell and cell["place"] for cell in row] for row in cells],
        "hovertext": [[cell["say"] if cell else "" for cell in row] for row in cells],
        "hoverinfo": "text",
        "zmin": 0,
        "zmax": 1,
        "colorscale": [[i / (len(stops) - 1), stop] for i, stop in enumerate(stops)],
        "showscale": False,
        "xgap": 2,
        "ygap": 2,
    }
    axes = {
        "xaxis": {"title": {"text": "removed of this layer"}, "type": "category"},
        "yaxis": {"autorange": "reversed", "tickfont": {"color": ground.text}},
    }
    figure = layout(title, dark, 110 + MAP_ROW * len(rows), **axes)
    texts = [[cell["text"] if cell else "" for cell in row] for row in cells]
    return shown({"data": [data, numbers_in(data, texts, 12)], "layout": figure}, dark)


def sensitivity_curves(frame: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """The same as a line for each layer."""
    rows, levels, title = _map(frame, dark)
    data = []
    for i, row in enumerate(rows):
        hue = list(colours.HUES.values())[i % len(colours.HUES)][dark]
        dash = colours.DASHES[i // len(colours.HUES) % len(colours.DASHES)]
        points = [(x, cell) for x, cell in zip(levels, row["cells"], strict=True) if cell]
        line = {
            "type": "scatter",
            "mode": "lines+markers",
            "name": row["label"],
            "line": {"color": hue, "dash": dash},
            "x": [x for x, _ in points],
            "y": [100 * cell["y"] for _, cell in points],
            "hovertext": [cell["say"] for _, cell in points],
            "hoverinfo": "text",
        }
        data.append(line)
    axes = {
        "xaxis": {"title": {"text": "removed of this layer"}, "type": "category"},
        "yaxis": {"title": {"text": "accuracy, %"}},
    }
    figure = layout(title, dark, 420, **axes) | {"showlegend": True}
    return shown({"data": data, "layout": figure}, dark)


def _map(frame: pd.DataFrame, dark: bool) -> tuple[list[dict[str, Any]], list[str], str]:
    """Rows with their cells, names of the ratios, and the finding."""
    points = [event for event in events_in(frame) if isinstance(event, Point)]
    if not points:
        raise DataError("No sensitivity map in this DataFrame: it has no row of the event `point`.")
    # A cell that was refined comes again: the last one counts.
    latest = list({(point.layer, point.level): point for point in points}.values())
    units = {point.layer: point.units for point in latest}
    rows = [sensitivity.Row(name, "", size) for name, size in units.items()]
    levels = sorted({point.level for point in latest})
    title = sensitivity.finding(rows, latest, TOLERATED)
    images = max((point.accuracy.total for point in latest if point.accuracy), default=0)
    view = sensitivity.MapView("", title, "map", "units", TOLERATED, images, False, None, dark)
    made = sensitivity.grid(rows, latest, levels, view)
    return made["rows"], made["levels"], title


# ---------------------------------------------------------------- lottery tickets


def _rounds(frame: pd.DataFrame) -> list[tickets.Round]:
    every = [[e for e in run if isinstance(e, Ticket)] for run in _runs(frame).values()]
    rounds = tickets.rounds(every)
    if not rounds:
        raise DataError(
            "No lottery tickets in this DataFrame: it has no row of the event `ticket`."
        )
    return rounds


def lottery_rounds(frame: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """Test accuracy against weights kept: tickets and controls, a band over runs (seeds)."""
    rounds = _rounds(frame)
    data: list[dict[str, Any]] = []
    for kind, name in tickets.NAMES.items():
        of_kind = tickets.of_kind(rounds, kind)
        if of_kind:
            data += _band(of_kind, name, tickets.colour(kind, dark))
    tones = colours.palette(dark)
    shapes = []
    for dense in tickets.of_kind(rounds, "dense")[:1]:
        level = 100 * dense.mean
        place = {"xref": "paper", "x0": 0, "x1": 1, "y0": level, "y1": level}
        shapes.append({"type": "line", **place, "line": {"color": tones.dense, "width": 1.5}})
    axes = {"xaxis": KEPT, "yaxis": {"title": {"text": "accuracy on test data, %"}}}
    figure = layout(tickets.finding(rounds), dark, 420, **axes)
    return shown({"data": data, "layout": figure | {"showlegend": True, "shapes": shapes}}, dark)


KEPT = {"title": {"text": "weights kept, % (log)"}, "type": "log", "autorange": "reversed"}
"""Few at the right, each round as wide as the last."""


def _band(rows: Sequence[tickets.Round], name: str, ink: str) -> list[dict[str, Any]]:
    """A line of means, and the band from the lowest to the highest seed."""
    x = [100 * row.kept for row in rows]
    around = [100 * row.low for row in rows] + [100 * row.high for row in reversed(rows)]
    shared = {"type": "scatter", "legendgroup": name}
    quiet = {"line": {"width": 0}, "showlegend": False, "hoverinfo": "skip"}
    band = {**shared, "x": [*x, *reversed(x)], "y": around, "fill": "toself", "mode": "lines"}
    line = {**shared, "name": name, "x": x, "y": [100 * row.mean for row in rows]}
    return [
        {**band, **quiet, "fillcolor": ink, "opacity": 0.16},
        {**line, "mode": "lines+markers", "line": {"color": ink, "width": 2.5}},
    ]


def mask_overlap(frame: pd.DataFrame, *, dark: bool = False) -> go.Figure:
    """How much the tickets' masks share with one shot's, beside what random masks would share."""
    spec = tickets.overlaps(_rounds(frame), dark=dark)
    values = pd.DataFrame(spec["data"]["values"], columns=["line", "kept", "share"])
    hues = spec["encoding"]["color"]["scale"]
    data = []
    for name, ink in zip(hues["domain"], hues["range"], strict=True):
        part = values[values["line"] == name]
        line = {"color": ink, "width": 2.5, "dash": "solid" if name == hues["domain"][0] else "dot"}
        place = {"x": part["kept"].tolist(), "y": part["share"].tolist()}
        data.append(
            {"type": "scatter", "mode": "lines+markers", "name": name, "line": line, **place}
        )
    axes = {"xaxis": KEPT, "yaxis": {"title": {"text": "overlap of masks, %"}, "range": [0, 100]}}
    figure = layout("Masks of tickets and of one shot", dark, 340, **axes) | {"showlegend": True}
    return shown({"data": data, "layout": figure}, dark)
