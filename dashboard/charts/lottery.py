"""Lottery tickets over rounds: accuracy beside controls, spread over seeds, mask overlap. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from statistics import fmean
from typing import Any

import pandas as pd

from dashboard import colours, words
from pruning.events import Ticket
from pruning.recipe import Recipe
from pruning.runs.results import PackedMask, overlap_of

Spec = dict[str, Any]
"""A Vega-Lite specification, or a part of one."""

NAMES = {
    "ticket": "tickets",
    "one_shot": "one shot",
    "reinit": "re-initialised",
    "random_mask": "random mask",
}
"""Kind of network -> its name for people, in the order of the legend."""

DASHES = {
    "ticket": [1, 0],
    "one_shot": [7, 3, 2, 3],
    "reinit": [7, 3],
    "random_mask": [2, 3],
}
"""Controls are dashed."""

KEPT_TICKS = (100, 50, 20, 10, 5, 2, 1, 0.5, 0.2, 0.1)  # percent
CONFIG = {"axis": {"labelFontSize": 13, "titleFontSize": 14}}
LEGEND: Spec = {
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
    """One kind of network in one round, over the seeds that have reached it. Shares in [0, 1].

    kept: of the covered weights; mean, low, high: accuracy on test data over seeds;
    shared: overlap with one shot's mask; at_random: what random masks would share that keep as
    many of each layer; overlap: with the mask of the round before.
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
    at_random: float | None = None


def rounds(tickets: Sequence[Sequence[Ticket]]) -> list[Round]:
    """Every kind and round that any seed has reached; none without test data.

    tickets: of each seed, as many as its run has trained so far.
    """
    by_round: dict[tuple[str, int], list[Ticket]] = {}
    for of_seed in tickets:
        for ticket in of_seed:
            if ticket.accuracy is not None:
                by_round.setdefault((ticket.kind, ticket.step), []).append(ticket)
    order = ["dense", *NAMES]

    def place(key: tuple[str, int]) -> tuple[int, int]:
        kind, step = key
        return order.index(kind) if kind in order else len(order), step

    return [_round(by_round[key]) for key in sorted(by_round, key=place)]


def _round(tickets: Sequence[Ticket]) -> Round:
    accuracies = [ticket.accuracy.value for ticket in tickets if ticket.accuracy]
    return Round(
        tickets[0].kind,
        tickets[0].step,
        1 - fmean(ticket.sparsity for ticket in tickets),
        fmean(accuracies),
        min(accuracies),
        max(accuracies),
        len(accuracies),
        _mean([ticket.shared for ticket in tickets]),
        _mean([ticket.overlap for ticket in tickets]),
        _mean([ticket.shared_at_random for ticket in tickets]),
    )


def _mean(values: Sequence[float | None]) -> float | None:
    measured = [value for value in values if value is not None]
    return fmean(measured) if measured else None


def of_kind(rounds: Sequence[Round], kind: str) -> list[Round]:
    """The rounds of one kind, from many weights kept to few."""
    return [row for row in rounds if row.kind == kind]


def recipes(recipe: Recipe, seeds: int) -> list[Recipe]:
    """The runs of a set: the same recipe, each with a seed of its own."""
    return [replace(recipe, seed=recipe.seed + i) for i in range(seeds)]


# ---------------------------------------------------------------- sentences


def finding(rounds: Sequence[Round]) -> str:
    """What the chart shows: the tickets of the last round, from dense, and the controls beside."""
    dense = of_kind(rounds, "dense")
    tickets = of_kind(rounds, "ticket")
    if not tickets or not dense:
        return "Accuracy on test data over the rounds"
    last = tickets[-1]  # the sparsest: the question is how small a ticket may be
    kept = words.share(round(last.kept, 3))
    change = words.points(last.mean, dense[0].mean)
    parts = [
        f"With {kept} of the weights, tickets reach {words.percent(last.mean)} "
        f"({change} from dense)"
    ]
    for kind, name in NAMES.items():
        for row in of_kind(rounds, kind):
            if kind != "ticket" and row.step == last.step:
                parts.append(f"{name} {words.percent(row.mean)}")
    return ", ".join(parts)


def seed_overlap(masks: Sequence[Mapping[str, PackedMask]]) -> str | None:
    """How far tickets of different seeds keep the same weights; None for fewer than two seeds.

    masks: of each seed, by parameter name.
    """
    pairs = [overlap_of(one, other) for one, other in combinations(masks, 2)]
    known = [pair for pair in pairs if pair is not None]
    if not known:
        return None
    shared = fmean(pair.value for pair in known)
    random = fmean(pair.at_random for pair in known)
    return (
        f"Tickets of different seeds keep {words.percent(shared)} of their weights in the same "
        f"places (overlap of masks); random masks that keep as many in each layer would share "
        f"{words.percent(random)}."
    )


# ---------------------------------------------------------------- accuracy over rounds


def accuracy(rounds: Sequence[Round], *, dark: bool) -> Spec:
    """Weights kept against accuracy: a line for each kind, a band from lowest to highest seed."""
    values = [
        {
            "kind": NAMES[row.kind],
            "kept": 100 * row.kept,
            "mean": 100 * row.mean,
            "low": 100 * row.low,
            "high": 100 * row.high,
            "tooltip": _tooltip(row),
        }
        for row in rounds
        if row.kind in NAMES
    ]
    kinds = [kind for kind in NAMES if of_kind(rounds, kind)]
    names = [NAMES[kind] for kind in kinds]
    hues = {"domain": names, "range": [colour(kind, dark) for kind in kinds]}
    dashes = {"domain": names, "range": [DASHES[kind] for kind in kinds]}
    by_colour = {"field": "kind", "type": "nominal", "scale": hues, "legend": LEGEND}
    by_dash = {"field": "kind", "type": "nominal", "scale": dashes, "legend": LEGEND}
    domain = _accuracies(rounds)
    mean = {"y": _y("mean", domain), "color": by_colour}
    layers: list[Spec] = [
        {
            "mark": {"type": "area", "opacity": 0.16},
            "encoding": {"y": _y("low", domain), "y2": {"field": "high"}, "color": by_colour},
        },
        {
            "mark": {"type": "line", "strokeWidth": 2.5},
            "encoding": {**mean, "strokeDash": by_dash},
        },
        {
            "mark": {"type": "point", "filled": True, "size": 60, "opacity": 1},
            "encoding": {**mean, "tooltip": {"field": "tooltip"}},
        },
    ]
    dense = of_kind(rounds, "dense")
    if dense:
        layers += _dense(100 * dense[0].mean, colours.palette(dark))
    return {
        "data": {"values": values},
        "encoding": {"x": _x(rounds)},
        "layer": layers,
        "height": 420,
        "config": CONFIG,
    }


def _dense(accuracy: float, tones: colours.Palette) -> list[Spec]:
    """A thin line at the dense network's percent, named at the side where few are kept."""
    label = f"dense {words.percent(accuracy / 100)}"
    data = {"data": {"values": [{"y": accuracy, "text": label}]}}
    y = {"field": "y", "type": "quantitative"}
    right = {"value": "width"}
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
            **data,
            "mark": {"type": "rule", "color": tones.dense},
            "encoding": {"y": y, "x": {"value": 0}, "x2": right},
        },
        {**data, "mark": text, "encoding": {"y": y, "x": right, "text": {"field": "text"}}},
    ]


def _tooltip(row: Round) -> str:
    seeds = "one seed"
    if row.seeds > 1:
        span = f"{words.percent(row.low)} to {words.percent(row.high)}"
        seeds = f"mean of {words.plural(row.seeds, 'seed')}, {span}"
    return (
        f"{NAMES[row.kind]}, round {row.step}: {words.percent(row.kept)} of the weights kept, "
        f"{words.percent(row.mean)} right ({seeds})"
    )


def _x(rounds: Sequence[Round]) -> Spec:
    """Weights kept, few at the right, on a scale where each round takes the same width."""
    # A round keeps the same share of what the last one kept: equal steps on a log axis.
    least = min((row.kept for row in rounds), default=0.01)
    ticks = [tick for tick in KEPT_TICKS if tick >= 95 * least] or [100]
    return {
        "field": "kept",
        "type": "quantitative",
        "title": "weights kept, % (log)",
        "scale": {"type": "log", "domain": [92 * least, 100], "reverse": True, "nice": False},
        "axis": {"values": ticks, "format": "~g", "grid": False},
    }


def _y(field: str, domain: list[float]) -> Spec:
    return {
        "field": field,
        "type": "quantitative",
        "title": "accuracy on test data, %",
        "scale": {"domain": domain, "nice": True},
    }


def _accuracies(rounds: Sequence[Round]) -> list[float]:
    """From the lowest to the highest, in percent.

    Said here, because Streamlit draws a chart before it has its data: Vega would look for the ends
    of nothing, and warn of it in the browser's console at each tick.
    """
    low = min((row.low for row in rounds), default=0.0)
    high = max((row.high for row in rounds), default=1.0)
    margin = max(0.01, 0.05 * (high - low))
    return [100 * max(0.0, low - margin), 100 * min(1.0, high + margin)]


def colour(kind: str, dark: bool) -> str:
    """Tickets are pruned by magnitude, and look like it; so does the random control."""
    if kind == "ticket":
        return colours.technique("magnitude", dark).colour
    if kind == "random_mask":
        return colours.technique("random", dark).colour
    return colours.HUES["vermilion" if kind == "reinit" else "green"][dark]


# ---------------------------------------------------------------- overlap of masks


def overlaps(rounds: Sequence[Round], *, dark: bool) -> Spec:
    """How much the tickets' masks share with one shot's, beside what random masks would share."""
    names = ["with one shot's mask", "random masks"]
    values = []
    tickets = [row for row in of_kind(rounds, "ticket") if row.shared is not None]
    for row in tickets:
        values.append({"line": names[0], "kept": 100 * row.kept, "share": 100 * (row.shared or 0)})
    # Runs of earlier versions did not record it: the layers of their rounds are not known any more.
    for row in tickets:
        if row.at_random is not None:
            share = 100 * row.at_random
            values.append({"line": names[1], "kept": 100 * row.kept, "share": share})
    hues = [colours.technique("magnitude", dark).colour, colours.palette(dark).random]
    if all(row.at_random is None for row in tickets):  # a legend names what is drawn
        names, hues = names[:1], hues[:1]
    by_line = {"field": "line", "type": "nominal"}
    return {
        "data": {"values": values},
        "mark": {"type": "line", "strokeWidth": 2.5, "point": True},
        "encoding": {
            "x": _x(rounds),
            "y": {
                "field": "share",
                "type": "quantitative",
                "title": "overlap of masks, %",
                "scale": {"domain": [0, 100]},
            },
            "color": {**by_line, "scale": {"domain": names, "range": hues}, "legend": LEGEND},
            "strokeDash": {
                **by_line,
                "scale": {"domain": names, "range": [[1, 0], [3, 3]][: len(names)]},
                "legend": LEGEND,  # the same as the colour's: they are one
            },
            "tooltip": [
                {"field": "line"},
                {"field": "share", "format": ".1f", "title": "overlap, %"},
            ],
        },
        "height": 300,
        "config": CONFIG,
    }


def round_table(rounds: Sequence[Round]) -> pd.DataFrame:
    """The numbers of both charts, a row for each kind and round."""
    return pd.DataFrame(
        {
            "network": [NAMES.get(row.kind, row.kind) for row in rounds],
            "round": [row.step for row in rounds],
            "weights kept": [row.kept for row in rounds],
            "accuracy, mean": [row.mean for row in rounds],
            "lowest seed": [row.low for row in rounds],
            "highest seed": [row.high for row in rounds],
            "seeds": [row.seeds for row in rounds],
            "overlap, round before": [row.overlap for row in rounds],
            "overlap, one shot": [row.shared for row in rounds],
        }
    )
