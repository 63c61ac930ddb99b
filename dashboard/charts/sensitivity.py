"""The sensitivity map: points in, plain data for the map's control and its table out. Pure."""

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
TICKS = (1, 5, 20, 50)  # points below dense
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
"""Ten stops of matplotlib's cividis (Nuñez et al., 2018, https://doi.org/10.1371/journal.pone.0199239): worst to dense."""


@dataclass(frozen=True)
class Row:
    """A layer (or group) of the map. fixed: why it cannot be pruned; at: share that the recipe takes from it."""

    name: str
    kind: str
    weights: int
    fixed: str | None = None
    at: float | None = None


def dense(points: Sequence[Point]) -> Accuracy | None:
    """The dense model on the most images that any cell has seen."""
    measured = [point for point in points if point.accuracy]
    if not measured:
        return None
    most = max(measured, key=lambda point: point.accuracy.total if point.accuracy else 0)
    assert most.accuracy
    return Accuracy(most.accuracy.correct + most.lost - most.won, most.accuracy.total)


def ordered(rows: Sequence[Row], points: Sequence[Point], by: str) -> list[Row]:
    """Rows by depth (as they come), by size (largest first) or by sensitivity (most sensitive first); fixed ones last."""
    if by == "depth":
        return list(rows)
    if by == "size":
        return sorted(rows, key=lambda row: -row.weights)
    curves = planning.changes(points)
    harm = {name: sum(losses) / len(losses) for name, (_, losses) in curves.items()}
    return sorted(rows, key=lambda row: (row.fixed is not None, -harm.get(row.name, 0.0)))


def grid(
    rows: Sequence[Row],
    points: Sequence[Point],
    levels: Sequence[float],
    *,
    name: str,
    title: str,
    mode: str,
    noun: str,
    tolerated: float,
    total: int,
    pick: bool,
    selected: str | None,
    dark: bool,
) -> dict[str, Any]:
    """The data of the map's control. tolerated: points of accuracy; total: validation images; noun: what goes, in the plural."""
    cells = {(point.layer, point.level): point for point in points}
    whole = dense(points)
    value = whole.value if whole else 1.0
    return {
        "name": name,
        "title": title,
        "mode": mode,
        "pick": pick,
        "selected": selected,
        "levels": [words.share(level) for level in levels],
        "shares": list(levels),
        "rows": [_row(row, cells, levels, value, noun, total, dark) for row in rows],
        "stops": list(CIVIDIS),
        "ticks": [[1.0, words.percent(value) if whole else "dense"], *_ticks(value)],
        "dense": value if whole else None,
        "tolerated": value - tolerated / 100 if whole else None,
        "alt": alt(rows, points, levels, title, tolerated),
        "tones": {
            "grid": colours.palette(dark).grid,
            "muted": colours.palette(dark).muted,
            "mark": colours.palette(dark).highlight,
        },
    }


def _ticks(value: float) -> list[list[Any]]:
    """Points below dense, where they lie in the colours."""
    return [[_place(value - tick / 100, value), f"−{tick}"] for tick in TICKS if tick / 100 < value]


def _row(
    row: Row,
    cells: Mapping[tuple[str, float], Point],
    levels: Sequence[float],
    value: float,
    noun: str,
    total: int,
    dark: bool,
) -> dict[str, Any]:
    label = words.layer_name(row.name)
    return {
        "id": row.name,
        "label": label,
        "side": f"{row.kind} · {words.count(row.weights)}",
        "fixed": row.fixed,
        "at": row.at,
        "colour": colours.kind(row.kind, dark),
        "cells": [
            _cell(cells.get((row.name, level)), label, value, noun, total) for level in levels
        ],
    }


def _cell(
    point: Point | None, label: str, value: float, noun: str, total: int
) -> dict[str, Any] | None:
    """place: in the colours, 0 worst, 1 dense; size: share of the cell that is filled, less while few images were seen; y: accuracy."""
    if point is None:
        return None
    gone = (
        f"{label}, {words.share(point.level)} gone, {point.kept:,} of {point.units:,} {noun} left"
    )
    if point.accuracy is None or point.interval is None or point.change is None:
        guess = value * math.exp(-max(0.0, point.loss - point.loss_dense))
        change = f"{point.loss - point.loss_dense:+.3f}".replace("-", "−")
        return {
            "place": _place(guess, value),
            "size": 1,
            "guess": True,
            "text": "",
            "y": guess,
            "low": None,
            "high": None,
            "say": f"{gone}: loss {change}, an estimate from one gradient pass.",
        }
    low, high = point.interval
    shown = value + point.change  # paired: the same images for both
    half = 50 * (high - low)
    images = (
        f"{point.accuracy.total:,} images"
        if point.accuracy.total == total
        else f"{point.accuracy.total:,} of {total:,} images"
    )
    moved = words.points(point.change, 0.0)
    return {
        "place": _place(shown, value),
        "size": max(0.45, 1 - max(0.0, half - 2.5) / 15),
        "guess": False,
        "text": f"{shown * 100:.0f}" if value - shown > 0.1 else f"{shown * 100:.1f}",
        "y": shown,
        "low": value + low,
        "high": value + high,
        "say": f"{gone}: accuracy {shown * 100:.1f} % ± {half:.1f}, {moved} from dense on the same {images}.",
    }


def _place(accuracy: float, value: float) -> float:
    """Small drops are spread, large ones drawn together: 1 − √(drop / dense)."""
    return round(1 - math.sqrt(min(1.0, max(0.0, value - accuracy) / max(value, 1e-9))), 4)


def alt(
    rows: Sequence[Row],
    points: Sequence[Point],
    levels: Sequence[float],
    title: str,
    tolerated: float,
) -> str:
    """The takeaway for a screen reader."""
    measured = [point for point in points if point.change is not None]
    if not measured:
        return f"{title}: {len(rows)} layers by {len(levels)} ratios, not measured yet."
    worst = min(measured, key=lambda point: point.change or 0.0)
    free = {p.layer for p in measured if p.level >= 0.7 and (p.change or 0.0) >= -tolerated / 100}
    return (
        f"{title}: {len(rows)} layers by {len(levels)} ratios. {len(free)} layers lose 70 % or more by themselves within "
        f"{within(tolerated)}; the worst cell is {words.layer_name(worst.layer)} at {words.share(worst.level)}, "
        f"{words.points(worst.change, 0.0)}."
    )


def finding(rows: Sequence[Row], points: Sequence[Point], tolerated: float) -> str:
    """What the map says, in one line."""
    open_ = [row for row in rows if row.fixed is None]
    done = [point for point in points if point.change is not None]
    if not done:
        return "Which layer can give how much, each by itself"
    most = {row.name: 0.0 for row in open_}
    for point in sorted(done, key=lambda point: point.level):
        if point.layer in most and (point.change or 0.0) >= -tolerated / 100:
            most[point.layer] = point.level
    low, high = min(most, key=lambda name: most[name]), max(most, key=lambda name: most[name])
    if len(most) == 1 or most[low] == most[high]:
        return f"{words.layer_name(high)} can lose {words.share(most[high])} within {within(tolerated)}"
    able, firm = words.layer_name(high), words.layer_name(low)
    only = f"only {words.share(most[low])}" if most[low] else "nothing"
    return f"Within {within(tolerated)}, {able} can lose {words.share(most[high])} by itself, {firm} {only}"


def within(tolerated: float) -> str:
    """`1 point`, `2.5 points`."""
    return f"{tolerated:g} point" + ("" if tolerated == 1 else "s")


def table(rows: Sequence[Row], points: Sequence[Point]) -> pd.DataFrame:
    """Every cell, one a line, in the order of the rows."""
    place = {row.name: i for i, row in enumerate(rows)}
    lines = [
        {
            "layer": words.layer_name(p.layer),
            "removed": p.level,
            "units left": p.kept,
            "units": p.units,
            "accuracy": p.accuracy.value if p.accuracy else None,
            "change, points": round(100 * p.change, 2) if p.change is not None else None,
            "low": round(100 * p.interval[0], 2) if p.interval else None,
            "high": round(100 * p.interval[1], 2) if p.interval else None,
            "loss": round(p.loss, 4),
            "loss, dense": round(p.loss_dense, 4),
            "images": p.accuracy.total if p.accuracy else None,
            "known": p.tier,
        }
        for p in sorted(
            (p for p in points if p.layer in place), key=lambda p: (place[p.layer], p.level)
        )
    ]
    return pd.DataFrame(lines)


def progress(points: Sequence[Point], cells: int) -> str:
    """`62 of 198 cells sure, 130 measured`."""
    sure = sum(point.final and point.accuracy is not None for point in points)
    measured = sum(point.accuracy is not None for point in points)
    return (
        f"{sure} of {cells} cells sure, {measured} measured"
        if measured
        else f"{len(points)} of {cells} cells estimated"
    )
