"""Scores against the true change in loss: the units of one layer, the orders of all criteria beside each other, the layers. Pure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import scipy
from numpy.typing import NDArray

from dashboard import colours, words
from dashboard.charts.base import layout
from pruning.runs.results import Study
from pruning.stats import Correlation, best, matrix

Array = NDArray[Any]
Figure = dict[str, Any]
Found = Mapping[str, Correlation]

AGAINST = {"size": "Size of the change", "harm": "Rise of the loss"}
"""An order is held against |change|, which most formulas claim to be, or the signed one, where a removal that helps comes first."""
TRUE = "true change"
HEIGHT = 440
MANY = 6
"""Criteria, beyond which they are told apart by name and not by colour."""


@dataclass(frozen=True)
class Judged:
    """Units of a layer. noun: one of them; of: how many the layer has; units: their numbers; weights: that go with each;
    change: of the loss without it, signed; loss: of the whole model; scores: by criterion. All arrays (n,)."""

    layer: str
    noun: str
    of: int
    loss: float
    examples: int
    units: Array
    weights: Array
    change: Array
    scores: dict[str, Array]

    def true(self, against: str) -> Array:
        return np.abs(self.change) if against == "size" else self.change


def judged(truth: Study, scores: Mapping[str, Study], noun: str) -> Judged:
    """The studies of one layer, joined: they are of the same units."""
    data, held = truth.data, truth.arrays
    found = {
        name: study.arrays[f"scores_{study.data['names'].index(data['layer'])}"]
        for name, study in scores.items()
    }
    return Judged(
        data["layer"],
        noun,
        data["of"],
        data["loss"],
        data["examples"],
        held["units"],
        held["weights"],
        held["change"],
        found,
    )


def rho(value: float | None) -> str:
    """`0.91`, `−0.20`."""
    return "no order" if value is None else f"{value:.2f}".replace("-", "−")


def interval(found: Correlation) -> str:
    """`0.61 (0.30 to 0.81)`."""
    if found.value is None or found.low is None:
        return rho(found.value)
    return f"{rho(found.value)} ({rho(found.low)} to {rho(found.high)})"


# ---------------------------------------------------------------- the finding


def finding(held: Judged, found: Found, against: str) -> str:
    """Who orders the units as the truth does, in one sentence. Nobody is called better inside the interval."""
    order = [name for name in best(found) if found[name].value is not None]
    layer = words.layer_name(held.layer)
    if not order:
        return f"No criterion here tells the {held.noun}s of {layer} apart, or nothing changes without them"
    first = found[order[0]]
    name = words.capitalized(order[0])
    if first.low is not None and first.low <= 0:
        name = words.display_name(order[0])
        return f"No criterion here orders the {held.noun}s of {layer} as the true loss does: the best, {name}, has ρ = {interval(first)}"
    said = f"{name} orders the {held.noun}s of {layer} {_how(first.value or 0)} the true loss does (ρ = {rho(first.value)})"
    return said + _others(order, found)


def _how(value: float) -> str:
    return "nearly as" if value >= 0.8 else "partly as" if value >= 0.5 else "loosely as"


def _others(order: Sequence[str], found: Found) -> str:
    """What is to be said of the others: those that cannot be told from the first, and the last that can."""
    first = found[order[0]]
    apart = [name for name in order[1:] if _apart(first, found[name])]
    near = [name for name in order[1:] if name not in apart]
    said = []
    if near:
        names = (
            " and ".join(words.display_name(name) for name in near)
            if len(near) < 3
            else f"{len(near)} others"
        )
        values = (
            " and ".join(rho(found[name].value) for name in near)
            if len(near) < 3
            else f"{rho(found[near[-1]].value)} or more"
        )
        said.append(f"{names} cannot be told from it ({values})")
    if apart:
        last = apart[-1]
        weak = (found[last].value or 0) < 0.5
        said.append(
            f"{words.display_name(last)} does {'not' if weak else 'less'} ({rho(found[last].value)})"
        )
    return "".join(f"; {part}" for part in said)


def _apart(first: Correlation, other: Correlation) -> bool:
    """Whether one value lies outside the other's interval, both ways."""
    if first.low is None or other.high is None or other.value is None or first.value is None:
        return False
    return other.value < first.low and other.high < first.value


# ---------------------------------------------------------------- one criterion against the truth


def scatter(
    held: Judged, criterion: str, found: Correlation, against: str, *, ranked: bool, dark: bool
) -> Figure:
    """A mark for each unit: its score (or its rank among them) against the true change. Units at the left go first."""
    tones, style = colours.palette(dark), colours.technique(criterion, dark)
    score, true = held.scores[criterion], held.true(against)
    log = against == "size" and bool((true > 0).any())
    lowest = float(true[true > 0].min()) / 3 if log else 0.0
    y = np.maximum(true, lowest) if log else true
    x, axis = _places(score, criterion, held.noun, ranked)
    rises, mark = (
        held.change > 0,
        {"color": style.colour, "size": 9, "line": {"width": 1.6, "color": style.colour}},
    )
    data = [
        _marks(held, criterion, x, y, part, name, {**mark, "symbol": style.marker + hollow})
        for part, name, hollow in ((rises, "the loss rises", ""), (~rises, "it does not", "-open"))
        if part.any()
    ]
    if ranked:
        data.insert(0, _perfect(np.sort(y), tones))
    title = (
        f"{words.capitalized(criterion)} on {words.layer_name(held.layer)}: ρ = {interval(found)}"
    )
    y_title = "change in loss without it" + (", size (log)" if log else ", signed")
    figure = layout(
        title,
        dark,
        HEIGHT,
        xaxis=axis,
        yaxis=_heights(y, log, y_title),
        margin={"l": 8, "r": 12, "t": 76, "b": 8},
    )
    key = "filled: the loss rises without it; hollow: it does not" + (
        "; line: the true order" if ranked else ""
    )
    figure["title"]["subtitle"] = {"text": key, "font": {"size": 13, "color": tones.muted}}
    return {"data": data, "layout": figure}


def _places(score: Array, criterion: str, noun: str, ranked: bool) -> tuple[Array, dict[str, Any]]:
    """Where units stand on the x axis."""
    name = words.display_name(criterion)
    if ranked:
        return scipy.stats.rankdata(score), {
            "title": {"text": f"{noun}s ranked by {name}, lowest score first"},
            "range": [0, len(score) + 1],
        }
    positive = score[score > 0]
    if len(positive) == len(score) and score.max() > 20 * score.min():
        return score, {
            "title": {"text": f"score by {name} (log)"},
            "type": "log",
            "exponentformat": "power",
            "showgrid": True,
        }
    return score, {
        "title": {"text": f"score by {name}"},
        "exponentformat": "power",
        "showgrid": True,
    }


def _heights(y: Array, log: bool, title: str) -> dict[str, Any]:
    if not log:
        return {"title": {"text": title}, "zeroline": True, "tickformat": "~g"}
    low, high = math.floor(math.log10(y.min())), math.ceil(math.log10(y.max()))
    return {
        "title": {"text": title},
        "type": "log",
        "range": [low, max(high, low + 1)],
        "dtick": 1,
        "exponentformat": "power",
    }


def _perfect(y: Array, tones: colours.Palette) -> dict[str, Any]:
    """The line on which the marks would lie, were the order the true one."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(range(1, len(y) + 1)),
        "y": y.tolist(),
        "name": "true order",
        "line": {"color": tones.dense, "width": 1.5},
        "hoverinfo": "skip",
    }


def _marks(
    held: Judged, criterion: str, x: Array, y: Array, part: Array, name: str, marker: dict[str, Any]
) -> dict[str, Any]:
    place = scipy.stats.rankdata(held.scores[criterion])
    said = [
        f"{held.noun} {held.units[i]} of {held.of:,}: score {held.scores[criterion][i]:.4g}, rank {place[i]:g} of {len(place)}"
        f"<br>without it the loss goes from {held.loss:.4f} by {_signed(held.change[i])}"
        for i in np.flatnonzero(part)
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": x[part].tolist(),
        "y": y[part].tolist(),
        "name": name,
        "marker": marker,
        "text": said,
        "hovertemplate": "%{text}<extra></extra>",
        "cliponaxis": False,
    }


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−") if value else "0"


# ---------------------------------------------------------------- all orders beside each other


def agreement(
    held: Judged, found: Found, against: str
) -> tuple[list[str], list[list[float | None]]]:
    """Names and ρ of each pair: the truth first, then the criteria from the nearest to it to the farthest."""
    order = list(best(found))
    return [TRUE, *order], matrix(
        {TRUE: held.true(against), **{name: held.scores[name] for name in order}}
    )


def grid(names: Sequence[str], values: Sequence[Sequence[float | None]], *, dark: bool) -> Figure:
    """The matrix as a picture, blue where orders are opposed, orange where they agree; the truth is framed."""
    shown = [words.display_name(name) for name in names]
    figure = _cells(
        shown, shown, values, alike(names, values), dark, max(HEIGHT, 160 + 27 * len(names))
    )
    frame = {
        "type": "rect",
        "xref": "x",
        "yref": "y",
        "x0": -0.5,
        "x1": len(names) - 0.5,
        "y0": -0.5,
        "y1": 0.5,
    }
    figure["layout"]["shapes"] = [
        {**frame, "line": {"color": colours.palette(dark).text, "width": 1.5}}
    ]
    return figure


def _cells(
    across: list[str],
    down: list[str],
    values: Sequence[Sequence[float | None]],
    title: str,
    dark: bool,
    height: int,
) -> Figure:
    """ρ as coloured cells with their numbers."""
    small = len(across) > MANY
    cells = {
        "type": "heatmap",
        "x": across,
        "y": down,
        "z": [list(row) for row in values],
        "zmin": -1,
        "zmax": 1,
        "colorscale": colours.difference(dark),
        "xgap": 1,
        "ygap": 1,
        "hoverongaps": False,
        "hovertemplate": "%{y}, %{x}: ρ = %{z:.2f}<extra></extra>",
        "colorbar": {
            "title": {"text": "ρ"},
            "thickness": 10,
            "outlinewidth": 0,
            "len": 0.8,
            "tickvals": [-1, -0.5, 0, 0.5, 1],
        },
    }
    tick = {"showgrid": False, "tickfont": {"size": 12 if small else 13}, "ticks": ""}
    axes = {
        "xaxis": {**tick, "tickangle": -45 if len(across) > 3 else 0},
        "yaxis": {**tick, "autorange": "reversed"},
    }
    notes = [
        _number(across[x], down[y], v, small, dark)
        for y, row in enumerate(values)
        for x, v in enumerate(row)
        if v is not None
    ]
    more: dict[str, Any] = {
        **axes,
        "annotations": notes,
        "margin": {"l": 8, "r": 8, "t": 76, "b": 8},
    }
    return {"data": [cells], "layout": layout(title, dark, height, **more)}


def _number(x: str, y: str, value: float, small: bool, dark: bool) -> dict[str, Any]:
    """A cell's number, in the ink that its colour leaves readable."""
    tones = colours.palette(dark)
    strong = abs(value) > 0.5 if dark else value < -0.5
    text = f"{value:.2f}"
    font = {"size": 12 if small else 14, "color": tones.ground if strong else tones.text}
    return {"x": x, "y": y, "text": text.replace("-", "−"), "showarrow": False, "font": font}


def alike(names: Sequence[str], values: Sequence[Sequence[float | None]]) -> str:
    """The matrix's title: which two criteria order most alike."""
    pairs = [
        (v, a, b)
        for b in range(2, len(names))
        for a in range(1, b)
        if (v := values[a][b]) is not None
    ]
    if not pairs:
        return "How far the orders agree"
    v, a, b = max(pairs)
    return (
        f"Most alike: {words.display_name(names[a])} and {words.display_name(names[b])} ({rho(v)})"
    )


def pairs(names: Sequence[str], values: Sequence[Sequence[float | None]]) -> pd.DataFrame:
    """The table twin of the matrix."""
    shown = [words.display_name(name) for name in names]
    return pd.DataFrame(
        {"": shown, **{name: [row[i] for row in values] for i, name in enumerate(shown)}}
    )


# ---------------------------------------------------------------- layer by layer


def ladder(held: Judged, found: Found, *, dark: bool) -> Figure:
    """Criteria from the nearest to the truth to the farthest, each with its interval, by name."""
    order = [name for name in best(found) if found[name].value is not None]
    data = [
        _across(name, 0, 1, {str(y): found if y == i else {} for y, _ in enumerate(order)}, dark)
        for i, name in enumerate(order)
    ]
    axes = {
        "xaxis": {**_scale(dark), "title": {"text": "ρ with the truth, and its 95 % interval"}},
        "yaxis": {
            "tickvals": list(range(len(order))),
            "ticktext": [words.display_name(name) for name in order],
            "range": [len(order) - 0.5, -0.5],
            "showgrid": False,
        },
    }
    first = (
        f"Nearest to the truth on {words.layer_name(held.layer)}: {words.display_name(order[0])}"
        if order
        else "No order to compare"
    )
    return {"data": data, "layout": layout(first, dark, max(HEIGHT, 130 + 24 * len(order)), **axes)}


def _scale(dark: bool) -> dict[str, Any]:
    """The axis of ρ, its zero marked."""
    line = {"zeroline": True, "zerolinecolor": colours.palette(dark).muted, "zerolinewidth": 1.5}
    return {"range": [-1.05, 1.05], "showgrid": True, **line}


def by_layer(found: Mapping[str, Found], chosen: str, *, dark: bool) -> Figure:
    """ρ of each criterion in each layer: with its interval, while there are few; else as cells. The selected layer's name stands out."""
    names = list(dict.fromkeys(name for held in found.values() for name in held))
    ticks = [
        f"<b>{words.layer_name(layer)}</b>" if layer == chosen else words.layer_name(layer)
        for layer in found
    ]
    if len(names) > MANY:
        values = [
            [held[name].value if name in held else None for name in names]
            for held in found.values()
        ]
        return _cells(
            [words.display_name(name) for name in names],
            ticks,
            values,
            nearest(found),
            dark,
            190 + 30 * len(ticks),
        )
    return _whiskers(found, names, ticks, dark)


def _whiskers(found: Mapping[str, Found], names: list[str], ticks: list[str], dark: bool) -> Figure:
    tones, rows = colours.palette(dark), len(ticks)
    data = [_across(name, i, len(names), found, dark) for i, name in enumerate(names)]
    axes = {
        "xaxis": {**_scale(dark), "title": {"text": "ρ with the truth, and its 95 % interval"}},
        "yaxis": {
            "tickvals": list(range(rows)),
            "ticktext": ticks,
            "range": [rows - 0.5, -0.5],
            "showgrid": False,
        },
    }
    lines = [
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": i + 0.5,
            "y1": i + 0.5,
            "line": {"color": tones.grid, "width": 1},
        }
        for i in range(rows - 1)
    ]
    legend = {
        "showlegend": True,
        "legend": {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom", "font": {"size": 13}},
    }
    margin = {"l": 8, "r": 12, "t": 76, "b": 8}
    height = 130 + rows * max(34, 15 * len(names))
    return {
        "data": data,
        "layout": layout(
            nearest(found), dark, height, shapes=lines, margin=margin, **axes, **legend
        ),
    }


def _across(name: str, i: int, of: int, found: Mapping[str, Found], dark: bool) -> dict[str, Any]:
    style = colours.technique(name, dark)
    shift = (i - (of - 1) / 2) * min(0.18, 0.7 / max(of, 1))
    held = [
        (y + shift, layer, part[name])
        for y, (layer, part) in enumerate(found.items())
        if name in part and part[name].value is not None
    ]
    values = [float(part.value or 0) for _, _, part in held]
    said = [
        f"{words.display_name(name)} on {words.layer_name(layer)}: ρ = {interval(part)}"
        for _, layer, part in held
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": values,
        "y": [y for y, *_ in held],
        "name": words.display_name(name),
        "marker": {"color": style.colour, "symbol": style.marker, "size": 10},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "color": style.colour,
            "thickness": 1.5,
            "width": 3,
            "array": [
                0 if part.high is None else part.high - v
                for v, (_, _, part) in zip(values, held, strict=True)
            ],
            "arrayminus": [
                0 if part.low is None else v - part.low
                for v, (_, _, part) in zip(values, held, strict=True)
            ],
        },
        "text": said,
        "hovertemplate": "%{text}<extra></extra>",
    }


def nearest(found: Mapping[str, Found]) -> str:
    """Whose order is nearest to the truth in how many layers."""
    wins: dict[str, int] = {}
    for held in found.values():
        order = [name for name in best(held) if held[name].value is not None]
        if order:
            wins[order[0]] = wins.get(order[0], 0) + 1
    if not wins:
        return "No layer has an order to compare"
    name = max(wins, key=lambda name: wins[name])
    return f"{words.capitalized(name)} is nearest to the truth in {wins[name]} of {words.plural(len(found), 'layer')}"


# ---------------------------------------------------------------- tables


def rows(held: Judged) -> pd.DataFrame:
    """A row for each unit, the numbers as measured."""
    columns = {f"score, {words.display_name(name)}": values for name, values in held.scores.items()}
    return pd.DataFrame(
        {held.noun: held.units, "weights": held.weights, "change in loss": held.change, **columns}
    )


def table(found: Mapping[str, Found]) -> pd.DataFrame:
    """A row for each layer and criterion."""
    return pd.DataFrame(
        [
            {
                "layer": words.layer_name(layer),
                "criterion": words.display_name(name),
                "ρ": part.value,
                "from": part.low,
                "to": part.high,
            }
            for layer, held in found.items()
            for name, part in held.items()
        ]
    )
