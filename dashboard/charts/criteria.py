"""Criterion check: scores against the leave-one-out loss change of the same units. Pure.

One layer's units as marks, the rank correlations of all criteria as a matrix, and layer by layer.
"""

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
from dashboard.charts.base import layout, numbers_in
from pruning.runs.results import Study
from pruning.stats import Correlation, Spread, best, better_than_random, matrix, random_band

Array = NDArray[Any]
Figure = dict[str, Any]
Correlations = Mapping[str, Correlation]
"""Criterion -> its rank correlation with the loss change."""
Matrix = Sequence[Sequence[float | None]]

# Most formulas estimate |change|; by the signed change, units whose removal helps come first.
REFERENCES = {"absolute": "Size of the change", "signed": "Rise of the loss"}
LOSS_CHANGE = "loss change"
HEIGHT = 440  # pixels
TITLE = 44  # pixels above the legend
BELOW = 54  # pixels of the axis below the plot
MARGIN = {"l": 8, "r": 12, "t": 76, "b": 8}  # room on top for a subtitle, a legend or tick labels
TICK = 22  # letters of a layer at an axis
MANY = 6  # criteria, beyond which they are told apart by name and not by colour


@dataclass(frozen=True)
class LayerCheck:
    """Units of a layer, each removed alone. Arrays have one value for each unit: (n,).

    noun: what a unit is; total: units that the layer has; loss: of the whole model;
    units: their numbers; weights: removed with each; change: of the loss without it, signed;
    scores: by criterion, higher = keep.
    """

    layer: str
    noun: str
    total: int
    loss: float
    examples: int
    units: Array
    weights: Array
    change: Array
    scores: dict[str, Array]

    def reference(self, kind: str) -> Array:
        """The loss change that scores are compared with. kind: a key of REFERENCES."""
        return np.abs(self.change) if kind == "absolute" else self.change

    @property
    def band(self) -> Spread | None:
        """Where ρ of 95 % of random orders of these units lies."""
        return random_band(len(self.units))

    @property
    def unit_names(self) -> str:
        """`channels of conv2`."""
        return f"{self.noun}s of {words.layer_name(self.layer)}"


def layer_check(changes: Study, scores: Mapping[str, Study], noun: str) -> LayerCheck:
    """Join the studies of one layer: its loss changes, and its scores by each criterion.

    They are of the same units, because both sample them from the same seed and layer name.
    """
    data = changes.data
    layer = data["layer"]
    by_criterion = {}
    for name, study in scores.items():
        place = study.data["names"].index(layer)
        by_criterion[name] = study.arrays[f"scores_{place}"]
    return LayerCheck(
        layer,
        noun,
        data["of"],
        data["loss"],
        data["examples"],
        changes.arrays["units"],
        changes.arrays["weights"],
        changes.arrays["change"],
        by_criterion,
    )


def rho(value: float | None) -> str:
    """`0.91`, `−0.20`."""
    return "no order" if value is None else f"{value:.2f}".replace("-", "−")


def interval(correlation: Correlation) -> str:
    """`0.61 (0.30 to 0.81)`."""
    value = rho(correlation.value)
    if correlation.value is None or correlation.low is None:
        return value
    return f"{value} ({rho(correlation.low)} to {rho(correlation.high)})"


def ranked_names(correlations: Correlations) -> list[str]:
    """Criteria with a correlation, from the highest to the lowest."""
    return [name for name in best(correlations) if correlations[name].value is not None]


# ---------------------------------------------------------------- the finding


def finding(check: LayerCheck, correlations: Correlations) -> str:
    """Which criterion ranks the units as the loss change does: by intervals, never by one number.

    A criterion counts where its whole interval lies above the band of random orders; of those that
    count, nobody wins inside the interval.
    """
    order = ranked_names(correlations)
    units = check.unit_names
    if not order:
        return f"No criterion here tells the {units} apart, or nothing changes without them"
    verdicts = {name: better_than_random(correlations[name], len(check.units)) for name in order}
    better = [name for name in order if verdicts[name]]
    if better:
        top = correlations[better[0]]
        name = words.capitalized(better[0])
        how = f"{_agreement(top)} the loss change does (ρ = {rho(top.value)})"
        first = f"{name} ranks the {units} {how}"
        return "; ".join([first, *_others(better, correlations)])
    top = correlations[order[0]]
    name = words.display_name(order[0])
    if verdicts[order[0]] is None:
        return (
            f"{len(check.units)} {units} are too few for a verdict: {name} has ρ = {rho(top.value)}"
        )
    return (
        f"No criterion here ranks the {units} better than random orders do: "
        f"the best, {name}, has ρ = {interval(top)}"
    )


def _agreement(correlation: Correlation) -> str:
    """In a word, by the lower end of the interval: at least so much."""
    least = correlation.low or 0
    if least >= 0.8:
        return "nearly as"
    return "partly as" if least >= 0.5 else "loosely as"


def _others(better: Sequence[str], correlations: Correlations) -> list[str]:
    """Beside the first: who cannot be told from it, who ranks less well, who no better than random.

    better: criteria that are better than random, from the highest ρ to the lowest.
    """
    first = correlations[better[0]]
    less = [name for name in better[1:] if _apart(first, correlations[name])]
    near = [name for name in better[1:] if name not in less]
    level = [name for name in ranked_names(correlations) if name not in better]
    parts = []
    if near:
        verb = "cannot be told from it"
        parts.append(f"{_named(near, correlations)} {verb}")
    if less:
        verb = "ranks" if len(less) == 1 else "rank"
        parts.append(f"{_named(less, correlations)} {verb} them less well")
    if level:
        verb = "is" if len(level) == 1 else "are"
        parts.append(f"{_named(level, correlations)} {verb} no better than random here")
    return parts


def _named(names: Sequence[str], correlations: Correlations) -> str:
    """`magnitude (0.45)`; of more than two how many, and the highest ρ."""
    if len(names) > 2:
        return f"{len(names)} others ({rho(correlations[names[0]].value)} or less)"
    return " and ".join(
        f"{words.display_name(name)} ({rho(correlations[name].value)})" for name in names
    )


def _apart(first: Correlation, other: Correlation) -> bool:
    """Whether each value lies outside the other's interval."""
    if first.low is None or other.high is None or other.value is None or first.value is None:
        return False
    return other.value < first.low and other.high < first.value


# ---------------------------------------------------------------- one criterion, unit by unit


def scatter(
    check: LayerCheck,
    criterion: str,
    correlation: Correlation,
    reference: str,
    *,
    ranked: bool,
    dark: bool,
) -> Figure:
    """A mark for each unit: its score, or its rank by score, against the loss change.

    Units at the left are pruned first.
    """
    tones = colours.palette(dark)
    change = check.reference(reference)
    log = reference == "absolute" and bool((change > 0).any())
    y = change
    if log:
        # Units that change nothing have no place on a log axis: they stand below the smallest.
        y = np.maximum(change, float(change[change > 0].min()) / 3)
    x, x_axis = _score_axis(check.scores[criterion], criterion, check.noun, ranked)
    title = "change in loss without it" + (", size (log)" if log else ", signed")
    rises = check.change > 0
    data = [
        _marks(check, criterion, x, y, part, name, hollow, dark)
        for part, name, hollow in (
            (rises, "the loss rises", False),
            (~rises, "it does not", True),
        )
        if part.any()
    ]
    subtitle = "filled: the loss rises without it; hollow: it does not"
    if ranked:
        data.insert(0, _perfect(np.sort(y), tones))
        subtitle += "; line: the loss change"
    layer = words.layer_name(check.layer)
    heading = f"{words.capitalized(criterion)} on {layer}: ρ = {interval(correlation)}"
    figure = layout(
        heading,
        dark,
        HEIGHT,
        xaxis=x_axis,
        yaxis=_change_axis(y, log, title),
        margin=MARGIN,
    )
    figure["title"]["subtitle"] = {"text": subtitle, "font": {"size": 13, "color": tones.muted}}
    return {"data": data, "layout": figure}


def _score_axis(score: Array, criterion: str, noun: str, ranked: bool) -> tuple[Array, Figure]:
    """(n,) places of the units along x, and the axis."""
    name = words.display_name(criterion)
    if ranked:
        title = f"{noun}s ranked by {name}, lowest score first"
        ranks = scipy.stats.rankdata(score)
        return ranks, {"title": {"text": title}, "range": [0, len(score) + 1]}
    axis: Figure = {"exponentformat": "power", "showgrid": True}
    if (score > 0).all() and score.max() > 20 * score.min():
        return score, {**axis, "title": {"text": f"score by {name} (log)"}, "type": "log"}
    return score, {**axis, "title": {"text": f"score by {name}"}}


def _change_axis(y: Array, log: bool, title: str) -> Figure:
    axis: Figure = {"title": {"text": title}}
    if not log:
        return {**axis, "zeroline": True, "tickformat": "~g"}
    low = math.floor(math.log10(y.min()))
    high = math.ceil(math.log10(y.max()))
    scale = {"type": "log", "range": [low, max(high, low + 1)], "dtick": 1}
    return {**axis, **scale, "exponentformat": "power"}


def _perfect(y: Array, tones: colours.Palette) -> Figure:
    """The line on which the marks would lie, were the ranks those of the loss change."""
    return {
        "type": "scatter",
        "mode": "lines",
        "x": list(range(1, len(y) + 1)),
        "y": y.tolist(),
        "name": "loss change",
        "line": {"color": tones.dense, "width": 1.5},
        "hoverinfo": "skip",
    }


def _marks(
    check: LayerCheck,
    criterion: str,
    x: Array,
    y: Array,
    part: Array,
    name: str,
    hollow: bool,
    dark: bool,
) -> Figure:
    """The marks of some units. part: (n,) True where a unit is drawn."""
    style = colours.technique(criterion, dark)
    score = check.scores[criterion]
    rank = scipy.stats.rankdata(score)
    hovers = [
        f"{check.noun} {check.units[i]} of {check.total:,}: "
        f"score {score[i]:.4g}, rank {rank[i]:g} of {len(rank)}"
        f"<br>without it the loss moves from {check.loss:.4f} by {_signed(check.change[i])}"
        for i in np.flatnonzero(part)
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "x": x[part].tolist(),
        "y": y[part].tolist(),
        "name": name,
        "marker": {
            "color": style.colour,
            "size": 9,
            "line": {"width": 1.6, "color": style.colour},
            "symbol": f"{style.marker}-open" if hollow else style.marker,
        },
        "text": hovers,
        "hovertemplate": "%{text}<extra></extra>",
        "cliponaxis": False,
    }


def _signed(value: float) -> str:
    return f"{value:+.3g}".replace("-", "−") if value else "0"


# ---------------------------------------------------------------- all criteria beside each other


def agreement(
    check: LayerCheck, correlations: Correlations, reference: str
) -> tuple[list[str], list[list[float | None]]]:
    """Names and ρ of each pair: the loss change first, then criteria from the highest ρ with it."""
    columns = {LOSS_CHANGE: check.reference(reference)}
    for name in best(correlations):
        columns[name] = check.scores[name]
    return list(columns), matrix(columns)


def grid(names: Sequence[str], values: Matrix, *, dark: bool) -> Figure:
    """The matrix as a chart: blue where orders are opposed, orange where they agree."""
    labels = [words.display_name(name) for name in names]
    height = max(HEIGHT, 160 + 27 * len(names))
    figure = _cells(labels, labels, values, alike(names, values), dark, height)
    # The row of the loss change is the one to read: it is framed.
    figure["layout"]["shapes"] = [
        {
            "type": "rect",
            "xref": "x",
            "yref": "y",
            "x0": -0.5,
            "x1": len(names) - 0.5,
            "y0": -0.5,
            "y1": 0.5,
            "line": {"color": colours.palette(dark).text, "width": 1.5},
        }
    ]
    return figure


def _cells(
    across: list[str], down: list[str], values: Matrix, title: str, dark: bool, height: int
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
    texts = [["" if value is None else rho(value) for value in row] for row in values]
    numbers = numbers_in(cells, texts, 12 if small else 14)
    axis = {"showgrid": False, "tickfont": {"size": 12 if small else 13}, "ticks": ""}
    figure = layout(
        title,
        dark,
        height,
        xaxis={**axis, "tickangle": -45 if len(across) > 3 else 0},
        yaxis={**axis, "autorange": "reversed"},
        margin={**MARGIN, "r": 8},
    )
    return {"data": [cells, numbers], "layout": figure}


def alike(names: Sequence[str], values: Matrix) -> str:
    """The matrix's title: which two criteria rank most alike."""
    pairs = []
    for b in range(2, len(names)):  # the first name is the loss change, and no criterion
        for a in range(1, b):
            value = values[a][b]
            if value is not None:
                pairs.append((value, a, b))
    if not pairs:
        return "How far the orders agree"
    value, a, b = max(pairs)
    first, second = words.display_name(names[a]), words.display_name(names[b])
    return f"Most alike: {first} and {second} ({rho(value)})"


def pair_table(names: Sequence[str], values: Matrix) -> pd.DataFrame:
    """The numbers of the matrix."""
    labels = [words.display_name(name) for name in names]
    columns = {label: [row[i] for row in values] for i, label in enumerate(labels)}
    return pd.DataFrame({"": labels, **columns})


def ladder(check: LayerCheck, correlations: Correlations, *, dark: bool) -> Figure:
    """Criteria by name, from the highest ρ with the loss change to the lowest, with intervals.

    Behind them the band of random orders.
    """
    order = ranked_names(correlations)
    data = [
        _whiskers(name, [(row, check.layer, correlations[name])], dark)
        for row, name in enumerate(order)
    ]
    axes = _rho_axes([words.display_name(name) for name in order], dark)
    height = 120 + 28 * max(2, len(order))
    bands = [_band(check.band, -0.5, len(order) - 0.5, dark)] if check.band else []
    title = verdict(check, correlations)
    return {"data": data, "layout": layout(title, dark, height, shapes=bands, **axes)}


def verdict(check: LayerCheck, correlations: Correlations) -> str:
    """How many of the criteria are better than random on this layer."""
    layer = words.layer_name(check.layer)
    order = ranked_names(correlations)
    verdicts = [better_than_random(correlations[name], len(check.units)) for name in order]
    if not order:
        return f"No order to compare on {layer}"
    if None in verdicts:
        return f"Too few {check.noun}s of {layer} for a verdict"
    return f"Better than random orders on {layer}: {sum(map(bool, verdicts))} of {len(order)}"


def _band(band: Spread, y0: float, y1: float, dark: bool) -> Figure:
    """Where ρ of 95 of 100 random orders lies, behind the rows from y0 to y1."""
    return {
        "type": "rect",
        "layer": "below",
        "x0": band.low,
        "x1": band.high,
        "y0": y0,
        "y1": y1,
        "line": {"width": 0},
        "fillcolor": colours.alpha(colours.palette(dark).random, 0.28),
    }


def _rho_axes(rows: Sequence[str], dark: bool) -> Figure:
    """ρ along x, its zero marked; a named row for each criterion or layer."""
    x = {
        "title": {"text": "ρ, its 95 % interval; grey: random orders"},
        "range": [-1.05, 1.05],
        "showgrid": True,
        "zeroline": True,
        "zerolinecolor": colours.palette(dark).muted,
        "zerolinewidth": 1.5,
    }
    y = {
        "tickvals": list(range(len(rows))),
        "ticktext": list(rows),
        "range": [len(rows) - 0.5, -0.5],
        "showgrid": False,
    }
    return {"xaxis": x, "yaxis": y}


Whisker = tuple[float, str, Correlation]
"""(height, layer, correlation)."""


def _whiskers(criterion: str, rows: Sequence[Whisker], dark: bool) -> Figure:
    """A criterion's correlations with their intervals."""
    style = colours.technique(criterion, dark)
    name = words.display_name(criterion)
    x, y, above, below, hovers = [], [], [], [], []
    for height, layer, correlation in rows:
        value = float(correlation.value or 0)
        x.append(value)
        y.append(height)
        above.append(0 if correlation.high is None else correlation.high - value)
        below.append(0 if correlation.low is None else value - correlation.low)
        hovers.append(f"{name} on {words.layer_name(layer)}: ρ = {interval(correlation)}")
    return {
        "type": "scatter",
        "mode": "markers",
        "x": x,
        "y": y,
        "name": name,
        "marker": {"color": style.colour, "symbol": style.marker, "size": 10},
        "error_x": {
            "type": "data",
            "symmetric": False,
            "color": style.colour,
            "thickness": 1.5,
            "width": 3,
            "array": above,
            "arrayminus": below,
        },
        "text": hovers,
        "hovertemplate": "%{text}<extra></extra>",
    }


# ---------------------------------------------------------------- layer by layer


def by_layer(
    layers: Mapping[str, Correlations], units: Mapping[str, int], chosen: str, *, dark: bool
) -> Figure:
    """ρ of each criterion in each layer: with its interval while there are few, else as cells.

    units: checked in each layer. The chosen layer's name stands out.
    """
    title = layer_verdict(layers, units)
    names = list(dict.fromkeys(name for correlations in layers.values() for name in correlations))
    ticks = {layer: words.layer_name(layer, TICK) for layer in layers}
    if chosen in ticks:
        ticks[chosen] = f"<b>{ticks[chosen]}</b>"
    if len(names) <= MANY:
        bands = [random_band(units[layer]) for layer in layers]
        return _layer_whiskers(layers, names, list(ticks.values()), bands, title, dark)
    values = []
    for correlations in layers.values():
        values.append([correlations.get(name, Correlation(None)).value for name in names])
    labels = [words.display_name(name) for name in names]
    height = 190 + 30 * len(ticks)
    return _cells(labels, list(ticks.values()), values, title, dark, height)


def _layer_whiskers(
    layers: Mapping[str, Correlations],
    names: list[str],
    ticks: list[str],
    bands: list[Spread | None],
    title: str,
    dark: bool,
) -> Figure:
    data = []
    for place, name in enumerate(names):
        # Criteria of a layer stand below each other, around the layer's own height.
        shift = (place - (len(names) - 1) / 2) * min(0.18, 0.7 / len(names))
        rows = [
            (row + shift, layer, correlations[name])
            for row, (layer, correlations) in enumerate(layers.items())
            if name in correlations and correlations[name].value is not None
        ]
        data.append(_whiskers(name, rows, dark))
    line = {"color": colours.palette(dark).grid, "width": 1}
    between = [
        {
            "type": "line",
            "xref": "paper",
            "x0": 0,
            "x1": 1,
            "y0": row + 0.5,
            "y1": row + 0.5,
            "line": line,
        }
        for row in range(len(ticks) - 1)
    ]
    behind = [_band(band, row - 0.5, row + 0.5, dark) for row, band in enumerate(bands) if band]
    # Two names a line, as a phone has room for. Anchored by its lower end, plotly's legend leaves
    # room for one line where it has several.
    above = 10 + 22 * math.ceil(len(names) / 2)
    plot = len(ticks) * max(34, 15 * len(names))
    legend = {"orientation": "h", "x": 0, "y": 1 + above / plot, "yanchor": "top"}
    figure = layout(
        title,
        dark,
        TITLE + above + plot + BELOW,
        shapes=[*between, *behind],
        margin={**MARGIN, "t": TITLE + above},
        showlegend=True,
        legend={**legend, "font": {"size": 13}},
        **_rho_axes(ticks, dark),
    )
    return {"data": data, "layout": figure}


def layer_verdict(layers: Mapping[str, Correlations], units: Mapping[str, int]) -> str:
    """In how many layers each criterion is better than random: the first three. units: checked."""
    wins: dict[str, int] = {}
    for layer, correlations in layers.items():
        for name in ranked_names(correlations):
            wins[name] = wins.get(name, 0) + bool(
                better_than_random(correlations[name], units[layer])
            )
    if not wins:
        return "No layer has an order to compare"
    order = sorted(wins, key=wins.__getitem__, reverse=True)[:3]
    counts = [f"{words.display_name(name)} in {wins[name]}" for name in order]
    return f"Better than random, of {words.plural(len(layers), 'layer')}: {', '.join(counts)}"


# ---------------------------------------------------------------- tables


def unit_table(check: LayerCheck) -> pd.DataFrame:
    """A row for each unit, the numbers as measured."""
    scores = {f"score, {words.display_name(name)}": values for name, values in check.scores.items()}
    return pd.DataFrame(
        {
            check.noun: check.units,
            "weights": check.weights,
            "change in loss": check.change,
            **scores,
        }
    )


def correlation_table(layers: Mapping[str, Correlations], units: Mapping[str, int]) -> pd.DataFrame:
    """A row for each layer and criterion. units: checked in each layer."""
    bands = {layer: random_band(units[layer]) for layer in layers}
    rows = [
        {
            "layer": words.layer_name(layer),
            "criterion": words.display_name(name),
            "ρ": correlation.value,
            "from": correlation.low,
            "to": correlation.high,
            "random orders up to": band.high if (band := bands[layer]) else None,
        }
        for layer, correlations in layers.items()
        for name, correlation in correlations.items()
    ]
    return pd.DataFrame(rows)
