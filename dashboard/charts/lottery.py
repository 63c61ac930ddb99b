"""Lottery tickets: accuracy over rounds against controls, with the spread over seeds, and how masks agree. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dashboard import colours, words
from pruning.events import Ticket
from pruning.recipe import Recipe

NAMES = {
    "ticket": "tickets",
    "one_shot": "one shot",
    "reinit": "re-initialised",
    "random_mask": "random mask",
}
"""Kind of network -> its name for people, in the order they are drawn."""

STARTS = {
    "init": "the first weights",
    "early": "the weights after an early step",
    "learning_rate": "the learning rate, weights stay",
}


CONFIG = {"axis": {"labelFontSize": 13, "titleFontSize": 14}}
LEGEND: dict[str, Any] = {
    "orient": "top",
    "title": None,
    "labelFontSize": 14,
    "labelLimit": 300,
    "symbolType": "stroke",
    "symbolStrokeWidth": 3,
    "symbolSize": 400,
    "symbolOpacity": 1,
}


@dataclass(frozen=True)
class Round:
    """One kind of network in one round, over the seeds that have reached it. All shares are in [0, 1].

    kept: of the covered weights; mean, low, high: of the accuracy on test data over seeds; shared: overlap with one shot's mask.
    """

    kind: str
    step: int
    kept: float
    mean: float
    low: float
    high: float
    seeds: int
    shared: float | None = None
    overlap: float | None = None


def rounds(drawn: Sequence[Sequence[Ticket]]) -> list[Round]:
    """Every kind and round that at least one seed has reached. drawn: the tickets of each seed. Without test data there are none."""
    found: dict[tuple[str, int], list[Ticket]] = {}
    for held in drawn:
        for ticket in held:
            if ticket.accuracy is not None:
                found.setdefault((ticket.kind, ticket.step), []).append(ticket)
    order = {kind: i for i, kind in enumerate(["dense", *NAMES])}
    return [
        _round(held)
        for _, held in sorted(
            found.items(), key=lambda item: (order.get(item[0][0], 9), item[0][1])
        )
    ]


def _round(held: Sequence[Ticket]) -> Round:
    values = [ticket.accuracy.value for ticket in held if ticket.accuracy]
    first = held[0]
    return Round(
        first.kind,
        first.step,
        1 - fmean(ticket.sparsity for ticket in held),
        fmean(values),
        min(values),
        max(values),
        len(values),
        _mean([ticket.shared for ticket in held]),
        _mean([ticket.overlap for ticket in held]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    held = [value for value in values if value is not None]
    return fmean(held) if held else None


def of(found: Sequence[Round], kind: str) -> list[Round]:
    """The rounds of one kind, from much kept to little."""
    return [held for held in found if held.kind == kind]


# ---------------------------------------------------------------- words


def finding(found: Sequence[Round]) -> str:
    """What the chart shows, in one sentence: the sparsest round that all kinds have reached."""
    dense, tickets = of(found, "dense"), of(found, "ticket")
    if not tickets or not dense:
        return "Accuracy on test data over the rounds"
    last = tickets[-1]
    told = f"With {words.share(round(last.kept, 3))} of the weights, tickets reach {words.percent(last.mean)}"
    told += f" ({words.points(last.mean, dense[0].mean)} from dense)"
    beside = [
        held
        for kind in NAMES
        if kind != "ticket"
        for held in of(found, kind)
        if held.step == last.step
    ]
    return told + "".join(f", {NAMES[held.kind]} {words.percent(held.mean)}" for held in beside)


def agreement(masks: Mapping[str, Mapping[str, NDArray[np.bool_]]]) -> str | None:
    """How far the tickets of different seeds keep the same weights, beside chance; None for fewer than two. masks: seed -> masks."""
    if len(masks) < 2:
        return None
    flat = [
        np.concatenate([keep.ravel() for name, keep in sorted(held.items()) if keep.ndim > 1])
        for held in masks.values()
    ]
    pairs = [(a, b) for i, a in enumerate(flat) for b in flat[i + 1 :]]
    shared = fmean(float((a & b).sum() / max(1, (a | b).sum())) for a, b in pairs)
    chance = fmean(_chance(float(a.mean()), float(b.mean())) for a, b in pairs)
    return (
        f"Tickets of different seeds keep {words.percent(shared)} of their weights in the same places "
        f"(overlap of masks); chance alone would give {words.percent(chance)}."
    )


def _chance(a: float, b: float) -> float:
    """Intersection over union of two masks drawn by lot that keep shares a and b."""
    return a * b / (a + b - a * b) if a or b else 0.0


# ---------------------------------------------------------------- pictures


def accuracy(found: Sequence[Round], *, dark: bool) -> dict[str, Any]:
    """A Vega-Lite picture: weights kept against accuracy, a line for each kind, a band from the lowest seed to the highest."""
    rows = [
        {
            "kind": NAMES[held.kind],
            "kept": 100 * held.kept,
            "mean": 100 * held.mean,
            "low": 100 * held.low,
            "high": 100 * held.high,
            "said": _said(held),
        }
        for held in found
        if held.kind in NAMES
    ]
    dense = of(found, "dense")
    shown = [name for kind, name in NAMES.items() if of(found, kind)]
    tones = colours.palette(dark)
    lines: list[dict[str, Any]] = [
        {
            "mark": {"type": "area", "opacity": 0.16},
            "encoding": {"y": _y("low"), "y2": {"field": "high"}, "color": _colour(shown, dark)},
        },
        {
            "mark": {"type": "line", "strokeWidth": 2.5},
            "encoding": {
                "y": _y("mean"),
                "color": _colour(shown, dark),
                "strokeDash": _dash(shown),
            },
        },
        {
            "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
            "encoding": {
                "y": _y("mean"),
                "color": _colour(shown, dark),
                "tooltip": {"field": "said"},
            },
        },
    ]
    if dense:
        lines += _dense(100 * dense[0].mean, tones)
    return {
        "data": {"values": rows},
        "encoding": {"x": _x(found)},
        "layer": lines,
        "height": 420,
        "config": CONFIG,
    }


def _dense(height: float, tones: colours.Palette) -> list[dict[str, Any]]:
    """A thin line where the dense network is, named on the line, at the side where little is kept."""
    held = {"data": {"values": [{"y": height, "text": f"dense {words.percent(height / 100)}"}]}}
    at = {"y": {"field": "y", "type": "quantitative"}}
    text = {
        "type": "text",
        "align": "right",
        "baseline": "bottom",
        "dy": -3,
        "color": tones.dense,
        "fontSize": 14,
    }
    return [
        {
            **held,
            "mark": {"type": "rule", "color": tones.dense},
            "encoding": {**at, "x": {"value": 0}, "x2": {"value": "width"}},
        },
        {
            **held,
            "mark": text,
            "encoding": {**at, "x": {"value": "width"}, "text": {"field": "text"}},
        },
    ]


def overlaps(found: Sequence[Round], *, dark: bool) -> dict[str, Any]:
    """A Vega-Lite picture: how much the tickets' masks share with one shot's, beside chance."""
    style = colours.technique("magnitude", dark)
    tickets = [held for held in of(found, "ticket") if held.shared is not None]
    rows = [
        {"line": "with one shot's mask", "kept": 100 * held.kept, "share": 100 * (held.shared or 0)}
        for held in tickets
    ]
    rows += [
        {"line": "by chance", "kept": 100 * held.kept, "share": 100 * _chance(held.kept, held.kept)}
        for held in tickets
    ]
    names = ["with one shot's mask", "by chance"]
    scale = {"domain": names, "range": [style.colour, colours.palette(dark).random]}
    return {
        "data": {"values": rows},
        "mark": {"type": "line", "strokeWidth": 2.5, "point": True},
        "encoding": {
            "x": _x(found),
            "y": {
                "field": "share",
                "type": "quantitative",
                "title": "overlap of masks, %",
                "scale": {"domain": [0, 100]},
            },
            "color": {"field": "line", "type": "nominal", "scale": scale, "legend": LEGEND},
            "strokeDash": {
                "field": "line",
                "type": "nominal",
                "scale": {"domain": names, "range": [[1, 0], [3, 3]]},
                "legend": None,
            },
            "tooltip": [
                {"field": "line"},
                {"field": "share", "format": ".1f", "title": "overlap, %"},
            ],
        },
        "height": 300,
        "config": CONFIG,
    }


def _said(held: Round) -> str:
    seeds = (
        f"mean of {words.plural(held.seeds, 'seed')}, {words.percent(held.low)} to {words.percent(held.high)}"
        if held.seeds > 1
        else "one seed"
    )
    return f"{NAMES[held.kind]}, round {held.step}: {words.percent(held.kept)} of the weights kept, {words.percent(held.mean)} right ({seeds})"


def _x(found: Sequence[Round]) -> dict[str, Any]:
    """Weights kept, few at the right, on a scale where each round takes the same width."""
    least = min((held.kept for held in found), default=0.01)
    ticks = [tick for tick in (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1) if tick >= 95 * least] or [
        100
    ]
    scale = {"type": "log", "domain": [92 * least, 100], "reverse": True, "nice": False}
    return {
        "field": "kept",
        "type": "quantitative",
        "title": "weights kept, % (log)",
        "scale": scale,
        "axis": {"values": ticks, "format": "~g", "grid": False},
    }


def _y(field: str) -> dict[str, Any]:
    return {
        "field": field,
        "type": "quantitative",
        "title": "accuracy on test data, %",
        "scale": {"zero": False, "nice": True},
    }


def style(kind: str, dark: bool) -> tuple[str, list[int]]:
    """Colour and dash of a kind. Tickets are pruned by magnitude, and look like it; controls are dashed."""
    tones = {"ticket": "magnitude", "random_mask": "random"}
    hues = {"reinit": "vermilion", "one_shot": "green"}
    colour = (
        colours.HUES[hues[kind]][dark]
        if kind in hues
        else colours.technique(tones[kind], dark).colour
    )
    return colour, {
        "ticket": [1, 0],
        "reinit": [7, 3],
        "random_mask": [2, 3],
        "one_shot": [7, 3, 2, 3],
    }[kind]


def _colour(shown: Sequence[str], dark: bool) -> dict[str, Any]:
    by_name = {name: style(kind, dark)[0] for kind, name in NAMES.items()}
    scale = {"domain": list(shown), "range": [by_name[name] for name in shown]}
    return {"field": "kind", "type": "nominal", "scale": scale, "legend": LEGEND}


def _dash(shown: Sequence[str]) -> dict[str, Any]:
    by_name = {name: style(kind, False)[1] for kind, name in NAMES.items()}
    return {
        "field": "kind",
        "type": "nominal",
        "scale": {"domain": list(shown), "range": [by_name[name] for name in shown]},
    }


def table(found: Sequence[Round]) -> pd.DataFrame:
    """The numbers of the pictures, one row for each kind and round."""
    return pd.DataFrame(
        {
            "network": [NAMES.get(held.kind, held.kind) for held in found],
            "round": [held.step for held in found],
            "weights kept": [held.kept for held in found],
            "accuracy, mean": [held.mean for held in found],
            "lowest seed": [held.low for held in found],
            "highest seed": [held.high for held in found],
            "seeds": [held.seeds for held in found],
            "overlap, round before": [held.overlap for held in found],
            "overlap, one shot": [held.shared for held in found],
        }
    )


def recipes(ticket: Recipe, seeds: int) -> list[Recipe]:
    """The runs of a set: the same lottery, each with a seed of its own."""
    from dataclasses import replace

    return [replace(ticket, seed=ticket.seed + i) for i in range(seeds)]
