"""The sensitivity map: its cells in, plain data for the map's control and its table out. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from dashboard import colours, words
from pruning.events import Accuracy, Point
from pruning.sensitivity_map import planning

SORTS = ("depth", "size", "sensitivity")
TICKS = (1, 5, 20, 50)  # percentage points below dense that the colour bar names
NAME = 22  # letters of a layer beside its row or its curve
MUCH = 0.7  # a layer that can lose so much by itself counts as robust in the alternative text
CIVIDIS = (
    "#00224e",
    "#123570",
    "#3b496c",
    "#575d6d",
    "#707173",
    "#8a8678",
    "#a59c74",
    "#c3b369",
    "#e1cc55",
    "#fee838",
)
"""Ten stops of matplotlib's cividis, from worst to dense.

Nuñez et al., 2018, https://doi.org/10.1371/journal.pone.0199239
"""


@dataclass(frozen=True)
class Row:
    """A layer (or dependency group) of the map.

    fixed: why it cannot be pruned; at: share that the recipe prunes of it, None where nothing.
    """

    name: str
    kind: str
    weights: int
    fixed: str | None = None
    at: float | None = None


@dataclass(frozen=True)
class MapView:
    """How a map is shown.

    name: of its picture's file; mode: "map" or "curves"; noun: of units, in the plural; tolerated:
    percentage points of accuracy; images: of the whole validation set; pick: whether a click sets
    a ratio; selected: the layer that every page follows.
    """

    name: str
    title: str
    mode: str
    noun: str
    tolerated: float
    images: int
    pick: bool
    selected: str | None
    dark: bool


def dense(points: Sequence[Point]) -> Accuracy | None:
    """The dense model on the most images that any cell was measured on."""
    measured = [(point.accuracy, point) for point in points if point.accuracy]
    if not measured:
        return None
    accuracy, point = max(measured, key=lambda pair: pair[0].total)
    # Lost answers were right in the dense model, won ones were wrong.
    return Accuracy(accuracy.correct + point.lost - point.won, accuracy.total)


def ordered(rows: Sequence[Row], points: Sequence[Point], by: str) -> list[Row]:
    """Rows by depth (as they come), by size (largest first) or by sensitivity.

    By sensitivity: the layer whose loss rises most on average first, layers that are fixed last.
    """
    if by == "depth":
        return list(rows)
    if by == "size":
        return sorted(rows, key=lambda row: -row.weights)
    curves = planning.changes(points)
    rise = {name: sum(losses) / len(losses) for name, (_, losses) in curves.items()}
    return sorted(rows, key=lambda row: (row.fixed is not None, -rise.get(row.name, 0.0)))


# ---------------------------------------------------------------- the map's control


def grid(
    rows: Sequence[Row], points: Sequence[Point], levels: Sequence[float], view: MapView
) -> dict[str, Any]:
    """The data of the map's control. levels: shares removed, one for each column."""
    cells = {(point.layer, point.level): point for point in points}
    accuracy = dense(points)
    value = accuracy.value if accuracy else 1.0
    tones = colours.palette(view.dark)
    return {
        "name": view.name,
        "title": view.title,
        "mode": view.mode,
        "pick": view.pick,
        "selected": view.selected,
        "levels": [words.share(level) for level in levels],
        "shares": list(levels),
        "rows": [_row(row, cells, levels, value, view) for row in rows],
        "stops": list(CIVIDIS),
        "ticks": [[1.0, words.percent(value) if accuracy else "dense"], *_ticks(value)],
        "dense": value if accuracy else None,
        "tolerated": value - view.tolerated / 100 if accuracy else None,
        "alt": alt(rows, points, levels, view.title, view.tolerated),
        "tones": {"grid": tones.grid, "muted": tones.muted, "mark": tones.highlight},
    }


def _ticks(dense: float) -> list[list[Any]]:
    """Percentage points below dense, where they lie in the colours."""
    shown = [tick for tick in TICKS if tick / 100 < dense]
    return [[_place(dense - tick / 100, dense), f"−{tick}"] for tick in shown]


def _place(accuracy: float, dense: float) -> float:
    """Where an accuracy lies in the colours: 0 worst, 1 dense.

    1 − √(drop / dense): small drops are spread, large ones drawn together.
    """
    drop = max(0.0, dense - accuracy)
    return round(1 - math.sqrt(min(1.0, drop / max(dense, 1e-9))), 4)


def _row(
    row: Row,
    cells: Mapping[tuple[str, float], Point],
    levels: Sequence[float],
    dense: float,
    view: MapView,
) -> dict[str, Any]:
    points = [cells.get((row.name, level)) for level in levels]
    return {
        "id": row.name,
        "label": words.layer_name(row.name),
        "short": words.layer_name(row.name, NAME),
        "side": f"{row.kind} · {words.count(row.weights)}",
        "fixed": row.fixed,
        "at": row.at,
        "colour": colours.kind(row.kind, view.dark),
        "cells": [None if point is None else _cell(point, dense, view) for point in points],
    }


def _cell(point: Point, dense: float, view: MapView) -> dict[str, Any]:
    """One cell of the map.

    place: in the colours; size: share of the cell that is filled, less while few images were seen;
    y, low, high: accuracies; say: the sentence on hover.
    """
    name = words.layer_name(point.layer)
    units = f"{point.kept:,} of {point.units:,} {view.noun} kept"
    removed = f"{name}, {words.share(point.level)} removed, {units}"
    if point.accuracy is None or point.interval is None or point.change is None:
        return _estimate(point, dense, removed)
    low, high = point.interval
    accuracy = dense + point.change  # paired: the same images for both
    half = 50 * (high - low)
    digits = 0 if dense - accuracy > 0.1 else 1
    images = f"{point.accuracy.total:,} images"
    if point.accuracy.total != view.images:
        images = f"{point.accuracy.total:,} of {view.images:,} images"
    change = f"{words.points(point.change, 0.0)} from dense on the same {images}"
    return {
        "place": _place(accuracy, dense),
        "size": max(0.45, 1 - max(0.0, half - 2.5) / 15),
        "guess": False,
        "text": f"{accuracy * 100:.{digits}f}",
        "y": accuracy,
        "low": dense + low,
        "high": dense + high,
        "say": f"{removed}: accuracy {accuracy * 100:.1f} % ± {half:.1f}, {change}.",
    }


def _estimate(point: Point, dense: float, removed: str) -> dict[str, Any]:
    """A cell without an accuracy: it is coloured as dense · exp(−rise of the loss), a guess.

    Where answers are not right or wrong, the loss is measured all the same, and said so.
    """
    rise = point.loss - point.loss_dense
    accuracy = dense * math.exp(-max(0.0, rise))
    change = f"{rise:+.3f}".replace("-", "−")
    estimated = point.tier == "estimate"
    how = "an estimate from one gradient pass" if estimated else "measured on validation data"
    return {
        "place": _place(accuracy, dense),
        "size": 1,
        "guess": True,
        "text": "",
        "y": accuracy,
        "low": None,
        "high": None,
        "say": f"{removed}: loss {change}, {how}.",
    }


# ---------------------------------------------------------------- in words


def alt(
    rows: Sequence[Row],
    points: Sequence[Point],
    levels: Sequence[float],
    title: str,
    tolerated: float,
) -> str:
    """The takeaway for a screen reader."""
    measured = [point for point in points if point.change is not None]
    size = f"{title}: {len(rows)} layers by {len(levels)} ratios"
    if not measured:
        return f"{size}, not measured yet."
    worst = min(measured, key=lambda point: point.change or 0.0)
    robust = {
        point.layer for point in measured if point.level >= MUCH and _tolerable(point, tolerated)
    }
    return (
        f"{size}. {len(robust)} layers lose {words.share(MUCH)} or more by themselves within "
        f"{within(tolerated)}; the worst cell is {words.layer_name(worst.layer)} at "
        f"{words.share(worst.level)}, {words.points(worst.change, 0.0)}."
    )


def _tolerable(point: Point, tolerated: float) -> bool:
    return (point.change or 0.0) >= -tolerated / 100


def finding(rows: Sequence[Row], points: Sequence[Point], tolerated: float) -> str:
    """What the map says, in one line: the layer that can lose most, and the one that can least."""
    measured = [point for point in points if point.change is not None]
    if not measured:
        return "How much each layer can lose by itself"
    most = {row.name: 0.0 for row in rows if row.fixed is None}
    for point in sorted(measured, key=lambda point: point.level):
        if point.layer in most and _tolerable(point, tolerated):
            most[point.layer] = point.level
    least_name = min(most, key=most.__getitem__)
    most_name = max(most, key=most.__getitem__)
    robust = words.layer_name(most_name)
    share = words.share(most[most_name])
    if most[least_name] == most[most_name]:
        return f"{robust} can lose {share} within {within(tolerated)}"
    sensitive = words.layer_name(least_name)
    only = f"only {words.share(most[least_name])}" if most[least_name] else "nothing"
    return f"Within {within(tolerated)}, {robust} can lose {share} by itself, {sensitive} {only}"


def within(tolerated: float) -> str:
    """`1 point`, `2.5 points`."""
    return f"{tolerated:g} point" + ("" if tolerated == 1 else "s")


def progress(points: Sequence[Point], cells: int) -> str:
    """`62 of 198 cells sure, 130 measured`."""
    measured = [point for point in points if point.tier != "estimate"]
    if not measured:
        return f"{len(points)} of {cells} cells estimated"
    sure = sum(point.final for point in measured)
    return f"{sure} of {cells} cells sure, {len(measured)} measured"


# ---------------------------------------------------------------- the map's table


def table(rows: Sequence[Row], points: Sequence[Point]) -> pd.DataFrame:
    """Every cell, one a line, in the order of the rows."""
    place = {row.name: i for i, row in enumerate(rows)}
    shown = [point for point in points if point.layer in place]
    shown.sort(key=lambda point: (place[point.layer], point.level))
    return pd.DataFrame([_line(point) for point in shown])


def _line(point: Point) -> dict[str, Any]:
    low, high = point.interval or (None, None)
    return {
        "layer": words.layer_name(point.layer),
        "removed": point.level,
        "units kept": point.kept,
        "units": point.units,
        "accuracy": point.accuracy.value if point.accuracy else None,
        "change, points": _in_points(point.change),
        "low": _in_points(low),
        "high": _in_points(high),
        "loss": round(point.loss, 4),
        "loss, dense": round(point.loss_dense, 4),
        "images": point.accuracy.total if point.accuracy else None,
        "known": point.tier,
    }


def _in_points(share: float | None) -> float | None:
    return None if share is None else round(100 * share, 2)
