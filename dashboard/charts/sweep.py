"""A sweep as pictures: accuracy against a cost, ranks by level, parallel coordinates, tables. Pure.

Rows come from `pruning.sweeps`, of one model; what they say is worked out in its `comparison`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from dashboard import colours, words
from dashboard.charts.base import layout
from pruning.sweeps import comparison
from pruning.sweeps.comparison import Cell, Difference, Pairing, Rank, Reading, Row, unknown
from pruning.sweeps.plan import DENSE, DENSE_LONGER, RANDOM, SEARCHED

Figure = dict[str, Any]

COSTS = {
    "weights_kept": "Weights kept",
    "macs": "MACs kept",
    "bytes": "Sparse file",
    "latency_ms": "Latency",
}
"""Cost -> its name for people."""

NAMES = {DENSE: "dense", DENSE_LONGER: "trained as long"}
HEIGHT = 516  # pixels
RANKS_HEIGHT = 436  # pixels
TITLE = 36  # pixels above the legend
LEGEND = 112  # pixels above the plot: four lines and a half, as a phone needs
BELOW = 64  # pixels of the axis below the plot
CLEAR = 11  # pixels from a point to the rim of the front's circle around it
LAST = 2000  # of the legend, whose entries have rank 1000
LOG_FROM = 5
"""How many times the least cost the most is, from which the axis is logarithmic."""

SHARES = (1, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01, 0.005, 0.002, 0.001)
NEAR = 0.1
"""Of accuracy, a share: how far below dense the picture reaches that looks close."""

SHOWN = 3  # names in a sentence
NO_FINDING = "Accuracy against what is kept"


# ---------------------------------------------------------------- values in words


def metric(rows: Sequence[Row]) -> str:
    """The name of what is measured; rows of one sweep have one."""
    return next((row["metric"] for row in rows if row["metric"]), "accuracy")


def factor(name: str) -> int:
    """What values are drawn times: an accuracy in percent, other metrics as they are."""
    return 100 if name == "accuracy" else 1


def value_text(value: float | None, name: str) -> str:
    if value is None or name == "accuracy":
        return words.percent(value)
    return f"{value:.4g}"


def cost_text(value: float | None, cost: str) -> str:
    if value is None:
        return words.NOT_MEASURED
    if cost == "bytes":
        return words.size(value)
    if cost == "latency_ms":
        return f"{value:.3g} ms"
    return words.percent(value)


def paid(value: float, cost: str) -> str:
    """`with 5.0 % of the weights`, `in 12.3 kB`."""
    amount = cost_text(value, cost)
    return {
        "weights_kept": f"with {amount} of the weights",
        "macs": f"with {amount} of the MACs",
        "bytes": f"in {amount}",
        "latency_ms": f"in {amount} an example",
    }[cost]


def over_seeds(cell: Cell | Reading, name: str) -> str:
    """`mean of 3 seeds, 90.8 % to 92.5 %`, or `one seed`."""
    if cell.seeds == 1:
        return "one seed"
    span = f"{value_text(cell.low, name)} to {value_text(cell.high, name)}"
    return f"mean of {words.plural(cell.seeds, 'seed')}, {span}"


def sentence(cell: Cell, name: str) -> str:
    """What a point says."""
    amounts = [paid(value, cost) for cost in COSTS if (value := cell.cost(cost)) is not None]
    examples = cell.rows[0]["examples"]
    on = f" of {examples:,} test examples right" if examples and name == "accuracy" else ""
    level = f" at {words.share(cell.sparsity)} sparsity" if cell.sparsity else ""
    named = NAMES.get(cell.control, cell.technique)
    result = f"{value_text(cell.mean, name)}{on} ({over_seeds(cell, name)})"
    return f"{named}{level}: {result}, {', '.join(amounts)}."


# ---------------------------------------------------------------- findings


def finding(rows: Sequence[Row], paired: Pairing = unknown) -> str:
    """How far techniques reach within a point of dense, and whether one of them wins there."""
    cells = comparison.cells(rows)
    dense = comparison.reference(cells)
    if dense is None or metric(rows) != "accuracy":
        return NO_FINDING
    reached = comparison.kept_to(cells, dense.mean)
    if reached is None:
        return f"No technique stays within 1 point of the dense {words.percent(dense.mean)}"
    level, names = reached
    kept = words.share(round(1 - level, 6))
    text = f"Within 1 point of dense down to {kept} of the weights: {listed(names)}"
    there = comparison.levels(cells)[level]
    return f"{text}; {winner_text(there, paired)}" if len(there) > 1 else text


def winner_text(cells: Sequence[Cell], paired: Pairing = unknown) -> str:
    """Whether a level has a winner: never inside the noise."""
    best = comparison.winner(cells, paired)
    if best is not None:
        return f"{best} is clearly the best there"
    if max(cell.seeds for cell in cells) == 1:
        return "one seed names no winner"
    return "no winner outside the noise"


def listed(names: Sequence[str]) -> str:
    """`magnitude, lamp and taylor`; of many the first, and how many more."""
    if len(names) > SHOWN + 1:
        return f"{', '.join(names[:SHOWN])} and {len(names) - SHOWN} more"
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def level_sentences(rows: Sequence[Row], paired: Pairing = unknown) -> list[str]:
    """Of each level who leads, and whom the noise does not let tell apart."""
    name = metric(rows)
    sentences = []
    for level, cells in comparison.levels(comparison.cells(rows)).items():
        if len(cells) < 2:
            continue
        first, *others = comparison.ranks(cells, paired)
        means = {cell.technique: cell.mean for cell in cells}
        best = f"{first.technique} ({value_text(means[first.technique], name)})"
        if first.worst == 1:
            text = f"{best} is better than every other"
        else:
            extreme = "highest" if cells[0].higher_is_better else "lowest"
            near = [rank.technique for rank in others if rank.best == 1]
            text = f"no winner. {best} has the {extreme} mean"
            if near:
                text += f", and the noise does not tell it from {listed(near)}"
        sentences.append(f"{words.share(level)} pruned: {text}.")
    return sentences


def difference_text(a: str, b: str, difference: Difference, name: str) -> str:
    """`lamp against snip: +1.2 points on average, by the spread over seeds −0.3 to +2.7, ...`.

    Positive is better, whatever the metric; which is better is said only of a clear difference.
    """

    def shown(value: float) -> str:
        return words.signed(value) if name == "accuracy" else f"{value:+.3g}"

    unit = " points" if name == "accuracy" else ""
    parts = [f"{a} against {b}: {shown(difference.value)}{unit} on average"]
    if difference.seeds is not None:
        spread = difference.seeds
        parts.append(f"by the spread over seeds {shown(spread.low)} to {shown(spread.high)}")
    if difference.images is not None:
        spread = difference.images
        parts.append(f"on the same test examples {shown(spread.low)} to {shown(spread.high)}")
    if difference.clear:
        verdict = f"{a if difference.value > 0 else b} is better"
    elif difference.seeds is None:
        verdict = "One seed says nothing of chance: no winner"
    else:
        verdict = "Inside the noise: no winner"
    return f"{', '.join(parts)}. {verdict}."


def seeds_text(rows: Sequence[Row]) -> str:
    """What lines and bands are."""
    seeds = {row["seed"] for row in rows if row["control"] not in (DENSE, DENSE_LONGER)}
    if len(seeds) < 2:
        return "n = 1: one seed, so there are no bands, and nothing is known of chance."
    n = words.plural(len(seeds), "seed")
    return f"Lines are means over {n}, bands go from the lowest to the highest seed."


# ---------------------------------------------------------------- the picture


RUN = "run:"
"""Begins what a point of a run alone carries in the place of a technique."""


def picture(
    rows: Sequence[Row],
    cost: str,
    *,
    dark: bool,
    near: bool = False,
    own: Sequence[Row] = (),
    paired: Pairing = unknown,
) -> Figure:
    """A line for each technique, its band over seeds, the front, dense models as lines.

    cost: of COSTS; near: only what lies close to dense; own: runs that stand beside the sweep.
    Points carry (technique, level).
    """
    cells = comparison.cells(rows)
    name = metric(rows)
    lines = comparison.techniques(cells)
    styles = line_styles(lines, dark)
    front = comparison.front(cells, cost)
    priced = [value for line in lines.values() for cell in line if (value := cell.cost(cost))]
    priced += [row[cost] for row in own if row[cost]]
    y = _values_range(cells, name, near)
    shapes, labels = _dense_lines(cells, name, dark)
    traces: list[Figure] = []
    for technique, line in lines.items():
        traces += _band(technique, line, cost, name, styles[technique])
    traces += _front(front, cost, name, dark)
    for technique, line in lines.items():
        traces += _line(technique, line, cost, name, styles[technique], front)
    traces += _own(own, cost, name, dark)
    figure = layout(
        finding(rows, paired),
        dark,
        HEIGHT,
        xaxis=_cost_axis(priced, cost),
        yaxis={"title": {"text": _value_title(name)}, "range": y},
        margin={"l": 8, "r": 16, "t": TITLE + LEGEND, "b": 8},
        legend={**_legend(HEIGHT), "itemwidth": 34},
        showlegend=True,
        shapes=shapes,
        annotations=labels,
    )
    return {"data": traces, "layout": figure}


def _legend(height: int) -> Figure:
    """Above the plot, from a fixed line downwards.

    Anchored by its lower end, plotly leaves room for one line where there are two, and the second
    lies in the plot. height: of the figure, pixels.
    """
    plot = height - TITLE - LEGEND - BELOW
    return {"orientation": "h", "x": 0, "y": 1 + LEGEND / plot, "yanchor": "top"}


def line_styles(lines: dict[str, list[Cell]], dark: bool) -> dict[str, colours.Style]:
    """Technique -> its colour and mark; random controls are grey and dashed by whatever name."""
    styles = colours.techniques(lines, dark)
    grey = colours.technique(RANDOM, dark)
    controls = [name for name, line in lines.items() if line[0].control == RANDOM]
    for name, marker in zip(controls, ("cross", "x", "asterisk", "hash"), strict=False):
        styles[name] = colours.Style(grey.colour, grey.dash, marker)
    return styles


def _priced(line: Iterable[Cell], cost: str) -> list[tuple[float, Cell]]:
    known = [(value, cell) for cell in line if (value := cell.cost(cost)) is not None]
    return sorted(known, key=lambda each: each[0])


def _band(
    technique: str, line: Sequence[Cell], cost: str, name: str, style: colours.Style
) -> list[Figure]:
    """From the lowest to the highest seed; none where no level has two."""
    several = [(x, cell) for x, cell in _priced(line, cost) if cell.seeds > 1]
    if len(several) < 2:
        return []
    high = [(x, cell.high) for x, cell in several]
    low = [(x, cell.low) for x, cell in several]
    outline = [*high, *low[::-1]]
    return [
        {
            "type": "scatter",
            "mode": "lines",
            "fill": "toself",
            "hoverinfo": "skip",
            "showlegend": False,
            "legendgroup": technique,
            "x": [x for x, _ in outline],
            "y": [factor(name) * value for _, value in outline],
            "line": {"width": 0},
            "fillcolor": colours.alpha(style.colour, 0.14),
        }
    ]


def _line(
    technique: str,
    line: Sequence[Cell],
    cost: str,
    name: str,
    style: colours.Style,
    front: Sequence[Cell],
) -> list[Figure]:
    points = _priced(line, cost)
    if not points:
        return []
    hover = []
    for _, cell in points:
        text = _wrapped(sentence(cell, name))
        hover.append(text + ("<br>On the Pareto front." if cell in front else ""))
    return [
        {
            "type": "scatter",
            # What a search tried is a recipe each: no line joins them.
            "mode": "markers" if technique in SEARCHED else "lines+markers",
            "name": technique,
            "legendgroup": technique,
            "x": [x for x, _ in points],
            "y": [factor(name) * cell.mean for _, cell in points],
            "customdata": [[cell.technique, cell.sparsity] for _, cell in points],
            "text": hover,
            "hovertemplate": "%{text}<extra></extra>",
            "line": {"color": style.colour, "dash": style.dash, "width": 2},
            "marker": {"color": style.colour, "symbol": style.marker, "size": 9},
            "unselected": {"marker": {"opacity": 0.45}},
        }
    ]


def _front(front: Sequence[Cell], cost: str, name: str, dark: bool) -> list[Figure]:
    """A pale wide line under the lines that it follows, and a ring around each of its points."""
    if not front:
        return []
    tones = colours.palette(dark)
    return [
        {
            "type": "scatter",
            "mode": "lines+markers",
            "name": "Pareto front",
            "legendrank": LAST,
            "hoverinfo": "skip",
            "x": [cell.cost(cost) for cell in front],
            "y": [factor(name) * cell.mean for cell in front],
            "line": {"color": colours.alpha(tones.text, 0.16), "width": 9},
            "marker": {
                "symbol": "circle-open",
                "size": 17,
                "color": tones.text,
                "line": {"width": 1.5},
            },
            "unselected": {"marker": {"opacity": 1}},
        }
    ]


def _own(rows: Sequence[Row], cost: str, name: str, dark: bool) -> list[Figure]:
    """Runs that somebody started one by one: hollow stars, each in its technique's colour."""
    shown = [row for row in rows if row[cost] is not None and row["metric"] == name]
    if not shown:
        return []
    hover = []
    for row in shown:
        cell = Cell(row["technique"], row["sparsity"], "", (row,))
        hover.append(_wrapped(f"Your run: {sentence(cell, name)}"))
    hues = [colours.technique(row["technique"], dark).colour for row in shown]
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "name": "your runs",
            "x": [row[cost] for row in shown],
            "y": [factor(name) * row["accuracy"] for row in shown],
            "customdata": [[f"{RUN}{row['run']}", row["sparsity"]] for row in shown],
            "text": hover,
            "hovertemplate": "%{text}<extra></extra>",
            "marker": {
                "symbol": "star-open",
                "size": 14,
                "color": hues,
                "line": {"width": 2, "color": hues},
            },
            "unselected": {"marker": {"opacity": 0.45}},
        }
    ]


def _wrapped(text: str, width: int = 62) -> str:
    """Lines of a hover: plotly breaks none itself."""
    lines = [""]
    for word in text.split(" "):
        if len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(lines)


def _values_range(cells: Sequence[Cell], name: str, near: bool) -> list[float]:
    """What holds every value, with room above for the names of the dense lines."""
    values = [value for cell in cells for value in (cell.low, cell.high)]
    if not values:
        return [0.0, 100.0 if name == "accuracy" else 1.0]
    low, high = factor(name) * min(values), factor(name) * max(values)
    dense = comparison.reference(cells)
    if near and dense is not None:
        low = max(low, factor(name) * (dense.mean - NEAR))
    room = max(high - low, 2.0 if name == "accuracy" else 0.02 * abs(high), 1e-9)
    bottom = low - 0.05 * room
    return [max(0.0, bottom) if low >= 0 else bottom, high + 0.13 * room]


def _value_title(name: str) -> str:
    return "accuracy on test data, %" if name == "accuracy" else f"{name} on test data"


def _cost_axis(values: Sequence[float], cost: str) -> Figure:
    """A log axis where the costs differ much; shares in percent."""
    log = bool(values) and max(values) > LOG_FROM * min(values)
    units = {"bytes": ", bytes", "latency_ms": " of one example, ms"}
    title = COSTS[cost] + units.get(cost, "") + (" (log)" if log else "")
    axis: Figure = {"title": {"text": title}, "showgrid": True}
    if not values:
        return axis
    least, most = min(values), max(values)
    if log:
        axis |= {"type": "log", "range": [math.log10(least / 1.25), math.log10(most * 1.25)]}
    else:
        room = max(most - least, 0.1 * most)
        axis["range"] = [max(0.0, least - 0.1 * room), most + 0.1 * room]
    if cost == "bytes":
        shown = {"tickformat": "~s", "exponentformat": "SI", "ticksuffix": "B"}
        return {**axis, **shown, **({"dtick": "D2"} if log else {})}
    if cost == "latency_ms":
        return {**axis, "tickformat": "~g", **({"dtick": "D2"} if log else {})}
    if log:
        ticks = [tick for tick in SHARES if least / 1.25 <= tick <= most * 1.25]
        return {**axis, "tickvals": ticks, "ticktext": [words.share(tick) for tick in ticks]}
    return {**axis, "tickformat": ".0%"}


def _dense_lines(cells: Sequence[Cell], name: str, dark: bool) -> tuple[list[Figure], list[Figure]]:
    """The dense model and the one trained as long: thin lines, named together above both.

    They nearly meet, and what lies below them is where the techniques are.
    """
    tones = colours.palette(dark)
    highest = max((cell.mean for cell in cells), default=0.0)
    both = [comparison.reference(cells, control) for control in (DENSE, DENSE_LONGER)]
    references = [cell for cell in both if cell is not None]
    shapes = []
    names = []
    for cell in references:
        value = factor(name) * cell.mean
        longer = cell.control == DENSE_LONGER
        line = {"color": tones.dense, "width": 1.2, "dash": "dash" if longer else "solid"}
        ends = {"xref": "paper", "x0": 0, "x1": 1, "y0": value, "y1": value}
        shapes.append({"type": "line", "layer": "below", "line": line, **ends})
        seeds = f" (dashed, n = {cell.seeds})" if longer else ""
        names.append(f"{NAMES[cell.control]} {value_text(cell.mean, name)}{seeds}")
    if not references:
        return [], []
    label = {
        "xref": "paper",
        "x": 0,
        "xanchor": "left",
        # Above every point too, and the circles around those of the front.
        "y": factor(name) * max(highest, *(cell.mean for cell in references)),
        "yanchor": "bottom",
        "yshift": CLEAR,
        "text": " · ".join(names),
        "showarrow": False,
        "font": {"color": tones.dense, "size": 13},
    }
    return shapes, [label]


# ---------------------------------------------------------------- ranks by level


def rank_picture(rows: Sequence[Row], *, dark: bool, paired: Pairing = unknown) -> Figure:
    """The rank of each technique at each level, the best on top, and what the noise allows."""
    cells = comparison.cells(rows)
    by_level = {
        level: comparison.ranks(group, paired)
        for level, group in comparison.levels(cells).items()
        if len(group) > 1
    }
    lines = comparison.techniques(cells)
    styles = line_styles(lines, dark)
    names = [name for name, line in lines.items() if line[0].control != RANDOM]
    places = {level: place for place, level in enumerate(by_level)}
    traces = []
    for number, name in enumerate(names):
        # Beside each other inside of a level, so that no interval covers another.
        shift = 0.6 * ((number + 0.5) / len(names) - 0.5)
        own = [(places[at], rank) for at, group in by_level.items() for rank in group]
        own = [(place, rank) for place, rank in own if rank.technique == name]
        texts = [
            f"{name}: rank {rank.rank}, {rank.best} to {rank.worst} inside the noise"
            for _, rank in own
        ]
        style = styles[name]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": name,
                "x": [place + shift for place, _ in own],
                "y": [rank.rank for _, rank in own],
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [rank.worst - rank.rank for _, rank in own],
                    "arrayminus": [rank.rank - rank.best for _, rank in own],
                    "color": style.colour,
                    "thickness": 2,
                    "width": 4,
                },
                "marker": {"color": style.colour, "symbol": style.marker, "size": 10},
                "text": texts,
                "hovertemplate": "%{text}<extra></extra>",
            }
        )
    ticks = [f"{words.share(level)} pruned" for level in places]
    figure = layout(
        rank_finding(by_level),
        dark,
        RANKS_HEIGHT,
        xaxis={"tickvals": list(places.values()), "ticktext": ticks},
        yaxis={
            "title": {"text": "rank by mean, 1 is best"},
            "range": [len(names) + 0.6, 0.4],
            "dtick": 1,
        },
        margin={"l": 8, "r": 8, "t": TITLE + LEGEND, "b": 8},
        legend=_legend(RANKS_HEIGHT),
        showlegend=True,
    )
    return {"data": traces, "layout": figure}


def rank_finding(by_level: dict[float, list[Rank]]) -> str:
    """At how many levels one technique is clearly the best."""
    if not by_level:
        return "Ranks of techniques by level"
    first = [ranks[0] for ranks in by_level.values()]
    named = list(dict.fromkeys(rank.technique for rank in first if rank.worst == 1))
    count = sum(rank.worst == 1 for rank in first)
    of = f"{len(first)} levels" if len(first) > 1 else "this level"
    if not named:
        return f"No technique is clearly the best at any of {of}"
    return f"A clear winner at {count} of {of}: {listed(named)}"


# ---------------------------------------------------------------- parallel coordinates


AXES = {
    "sparsity": ("pruned, %", 100),
    "seed": ("seed", 1),
    "weights_kept": ("weights, %", 100),
    "macs": ("MACs, %", 100),
    "bytes": ("file, kB", 1e-3),
    "latency_ms": ("latency, ms", 1),
}
"""Column of a row -> its axis, and what its values are drawn times."""


def parallel(rows: Sequence[Row], *, dark: bool) -> Figure:
    """Every run as a line through all its figures; dragging along an axis brushes. One metric."""
    done = [row for row in rows if row["state"] == "done" and row["accuracy"] is not None]
    # The dense model is at the end of every axis: what differs would lie in a corner.
    shown = [row for row in done if row["control"] not in (DENSE, DENSE_LONGER)] or done
    name = metric(rows)
    tones = colours.palette(dark)
    values = list(dict.fromkeys(row["technique"] for row in shown))
    dimensions: list[Figure] = [
        {
            "label": "technique",
            "values": [values.index(row["technique"]) for row in shown],
            "tickvals": list(range(len(values))),
            "ticktext": [words.layer_name(value, 16) for value in values],
        }
    ]
    last = (f"{name}, %" if factor(name) == 100 else name, factor(name))
    for field, (label, times) in {**AXES, "accuracy": last}.items():
        numbers = [row[field] for row in shown]
        if None in numbers or len(set(numbers)) < 2:
            continue
        axis: Figure = {"label": label, "values": [round(times * x, 4) for x in numbers]}
        if field == "seed":
            axis["tickvals"] = sorted(set(numbers))
        dimensions.append(axis)
    trace = {
        "type": "parcoords",
        "dimensions": dimensions,
        "labelangle": -20,  # flat, the names of neighbours overlap on a narrow page
        "line": {
            "color": [factor(name) * row["accuracy"] for row in shown],
            "colorscale": colours.ACCURACY_LINES[dark],
        },
        "unselected": {"line": {"color": tones.removed, "opacity": 0.25}},
        "labelfont": {"size": 13, "color": tones.text},
        "tickfont": {"size": 12, "color": tones.muted},
        "rangefont": {"size": 1, "color": "rgba(0,0,0,0)"},  # the ticks say as much
    }
    title = "Which runs are good? Drag along an axis to keep only a part of it"
    return {
        "data": [trace],
        "layout": layout(
            title,
            dark,
            430,
            margin={"l": 90, "r": 40, "t": 110, "b": 24},
            paper_bgcolor=tones.ground,  # plotly draws a rim in it around the ticks
        ),
    }


# ---------------------------------------------------------------- tables


def cell_table(rows: Sequence[Row]) -> pd.DataFrame:
    """The picture's numbers: a row for each technique and level."""
    name = metric(rows)
    table = []
    for cell in comparison.cells(rows):
        table.append(
            {
                "technique": NAMES.get(cell.control, cell.technique),
                "sparsity": words.share(cell.sparsity),
                "seeds": cell.seeds,
                f"{name}, mean": value_text(cell.mean, name),
                "lowest seed": value_text(cell.low, name),
                "highest seed": value_text(cell.high, name),
                **{label: cost_text(cell.cost(cost), cost) for cost, label in COSTS.items()},
            }
        )
    return pd.DataFrame(table)


def budgets(rows: Sequence[Row], cost: str) -> list[float]:
    """Costs to read at: those of the levels, and two between each two; from least to most."""
    cells = comparison.cells(rows)
    values = sorted(
        value for line in comparison.techniques(cells).values() for value, _ in _priced(line, cost)
    )
    if not values or values[0] <= 0:
        return []
    if values[0] == values[-1]:
        return [values[0]]
    steps = 40
    ratio = (values[-1] / values[0]) ** (1 / steps)
    return [values[0] * ratio**step for step in range(steps + 1)]


def budget_table(rows: Sequence[Row], cost: str, budget: float) -> pd.DataFrame:
    """All techniques at one cost: read between measured levels where none costs just that."""
    name = metric(rows)
    table = []
    for reading in comparison.at_budget(comparison.cells(rows), cost, budget):
        if reading.value is None:
            how = "outside of what was measured"
        elif reading.between is None:
            how = "measured"
        else:
            below, above = (cost_text(value, cost) for value in reading.between)
            how = f"between {below} and {above} (interpolated)"
        spread_text = over_seeds(reading, name) if reading.value is not None else ""
        table.append(
            {
                "technique": reading.technique,
                name: value_text(reading.value, name),
                "seeds": spread_text.removeprefix("mean of "),
                "how": how,
            }
        )
    return pd.DataFrame(table)


TABLE = {
    "technique": "technique",
    "sparsity": "sparsity",
    "seed": "seed",
    "state": "state",
    "accuracy": "accuracy",
    "low": "low",
    "high": "high",
    "weights_kept": "weights kept",
    "macs": "MACs kept",
    "bytes": "bytes",
    "latency_ms": "latency, ms",
    "seconds": "seconds",
}
"""Column of a row -> its name in the table of every run."""


SHARES_IN_TABLE = ("sparsity", "accuracy", "low", "high", "weights kept", "MACs kept")


def run_table(rows: Sequence[Row]) -> pd.DataFrame:
    """A row for each run, with or without a result."""
    columns = {label: [row[name] for row in rows] for name, label in TABLE.items()}
    columns["technique"] = [NAMES.get(row["control"], row["technique"]) for row in rows]
    return pd.DataFrame(columns)


def csv(rows: Sequence[Row]) -> str:
    """Everything that is known of every run."""
    return pd.DataFrame(rows).to_csv(index=False)
