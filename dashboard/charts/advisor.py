"""The advisor's picture and table: accuracy against what is limited, the limit as a line. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pandas as pd

from dashboard import colours, words
from dashboard.charts.base import layout
from pruning.advice import figures
from pruning.advice.advise import Advice, Candidate, nearest
from pruning.advice.rows import FAMILIES, Cell
from pruning.advice.target import LIMITS

Figure = dict[str, Any]

HEIGHT = 420  # pixels
LOG_FROM = 5
"""How many times the least cost the most is, from which the axis is logarithmic."""

STYLES = {
    "dense": (None, "circle"),
    "dense_longer": (None, "circle-open"),
    "pruned": ("blue", "circle"),
    "int8": ("orange", "square"),
    "half": ("green", "diamond"),
    "smaller": ("purple", "triangle-up"),
    "pruned_int8": ("vermilion", "star"),
}
"""Family -> its hue (None: the dense model's tone) and its mark."""

FAINT = 0.28
"""How strong the marks are of what cannot be had."""


def colour(family: str, dark: bool) -> str:
    hue, _ = STYLES[family]
    return colours.HUES[hue][dark] if hue else colours.palette(dark).dense


def shown(advice: Advice) -> list[Candidate]:
    """What has both an accuracy and a cost, the dense model first."""
    order = list(FAMILIES)
    known = [each for each in advice.candidates if None not in (each.accuracy, each.cost)]
    return sorted(known, key=lambda each: (order.index(each.family), each.cost or 0.0))


def picture(advice: Advice, *, dark: bool) -> Figure:
    """A mark for each thing, with its interval; the limit and the tolerated accuracy as lines."""
    target = advice.target
    tones = colours.palette(dark)
    known = shown(advice)
    costs = [each.cost for each in known if each.cost] + [target.most]
    traces = [_marks(family, known, advice, dark) for family in FAMILIES]
    shapes: list[Figure] = [_line("x", target.most, tones.highlight)]
    labels: list[Figure] = [
        {
            "x": _axis_place(target.most, costs),
            # At its foot: above the plot a narrow page has the legend in two rows.
            "y": 0,
            "yref": "paper",
            "xanchor": "left" if target.most < _middle(costs) else "right",
            "yanchor": "bottom",
            "text": f"limit {figures.in_unit(target.limit, target.most)}",
            "showarrow": False,
            "font": {"color": tones.highlight, "size": 13},
        }
    ]
    dense = next((each.accuracy for each in known if each.family == "dense"), None)
    if dense is not None:
        tolerated = 100 * dense - target.within
        shapes.append(_line("y", tolerated, tones.dense))
        labels.append(
            {
                "xref": "paper",
                "x": 1,
                "xanchor": "right",
                "y": tolerated,
                "yanchor": "top",
                "text": f"{figures.within(target).text} below dense",
                "showarrow": False,
                "font": {"color": tones.dense, "size": 13},
            }
        )
    figure = layout(
        title(advice),
        dark,
        HEIGHT,
        xaxis=_cost_axis(costs, target.limit),
        yaxis={"title": {"text": "accuracy on test data, %"}, "range": _values(known, target)},
        margin={"l": 8, "r": 16, "t": 108, "b": 8},
        legend={"orientation": "h", "x": 0, "y": 1.1, "yanchor": "bottom"},
        showlegend=True,
        shapes=shapes,
        annotations=labels,
    )
    return {"data": [trace for trace in traces if trace["x"]], "layout": figure}


def title(advice: Advice) -> str:
    reaching = [each for each in shown(advice) if each.reaches]
    if not reaching:
        return "Nothing that was measured lies left of the limit and high enough"
    names = dict.fromkeys(FAMILIES[each.family] for each in reaching)
    return f"Left of the limit and high enough: {', '.join(names)}"


def _line(axis: str, at: float, tone: str) -> Figure:
    other = "y" if axis == "x" else "x"
    return {
        "type": "line",
        f"{axis}0": at,
        f"{axis}1": at,
        f"{other}0": 0,
        f"{other}1": 1,
        f"{other}ref": "paper",
        "line": {"color": tone, "width": 1.5, "dash": "dash"},
        "layer": "below",
    }


def _marks(family: str, known: Sequence[Candidate], advice: Advice, dark: bool) -> Figure:
    own = [each for each in known if each.family == family]
    tone = colour(family, dark)
    bars = [_interval(each) for each in own]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": FAMILIES[family],
        "x": [each.cost for each in own],
        "y": [100 * (each.accuracy or 0.0) for each in own],
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [high for _, high in bars],
            "arrayminus": [low for low, _ in bars],
            "color": tone,
            "thickness": 1,
            "width": 0,
        },
        "text": [hover(each, advice) for each in own],
        "hovertemplate": "%{text}<extra></extra>",
        "marker": {
            "color": tone,
            "symbol": STYLES[family][1],
            "size": 10,
            "opacity": [FAINT if each.obstacle else 1.0 for each in own],
        },
    }


def _interval(candidate: Candidate) -> tuple[float, float]:
    """Points below and above, by the test examples that it answers otherwise than dense."""
    change = candidate.change
    if change is None:
        return 0.0, 0.0
    # The bounds are of a change: above them lies no accuracy of more than 100 %.
    most = 100 * (1 - (candidate.accuracy or 0.0))
    above = min(most, 100 * (change.high - change.value))
    return max(0.0, 100 * (change.value - change.low)), max(0.0, above)


def hover(candidate: Candidate, advice: Advice) -> str:
    out = f" Out: {candidate.obstacle}." if candidate.obstacle else ""
    cost = figures.cost(advice.target, candidate.cell).text
    return f"{name(candidate)}: {words.percent(candidate.accuracy)}, {cost}.{out}"


def name(candidate: Candidate) -> str:
    """`95 % of weights by lamp`."""
    first = candidate.cell.first
    if first.level is None or candidate.family in ("dense", "dense_longer"):
        text = first.name
    elif candidate.family == "smaller":
        text = f"{first.name}, {figures.level(first.level)} fewer channels"
    else:
        text = f"{figures.level(first.level)} of {first.name}"
    return f"{text}, not fine-tuned" if candidate.untrained else text


def _values(known: Sequence[Candidate], target: Any) -> list[float]:
    """What lies near dense: what collapsed would flatten all else."""
    values = [100 * each.accuracy for each in known if each.accuracy is not None]
    top = max(values, default=100.0)
    least = max(min(values, default=0.0), top - max(10.0, 4 * target.within))
    return [least - 1.5, min(100.5, top + 1.5)]


def _logarithmic(costs: Sequence[float]) -> bool:
    return min(costs) > 0 and max(costs) > LOG_FROM * min(costs)


def _axis_place(value: float, costs: Sequence[float]) -> float:
    """Plotly's annotations stand at the logarithm on a logarithmic axis."""
    return math.log10(value) if _logarithmic(costs) else value


def _middle(costs: Sequence[float]) -> float:
    """The cost halfway along the axis."""
    least, most = min(costs), max(costs)
    return math.sqrt(least * most) if _logarithmic(costs) else (least + most) / 2


def _cost_axis(costs: Sequence[float], limit: str) -> Figure:
    # Thousands of bytes and MACs; parts of seconds as they are, since 20m would be no millisecond.
    tick = "~s" if limit in ("bytes", "compressed", "macs") else ".3~g"
    axis: Figure = {"title": {"text": LIMITS[limit]}, "tickformat": tick}
    return {**axis, "type": "log", "dtick": "D2"} if _logarithmic(costs) else axis


# ---------------------------------------------------------------- the table


def short_table(advice: Advice) -> pd.DataFrame:
    """Of each way what comes nearest to the target, what reaches it first."""
    by_family = {family: [e for e in shown(advice) if e.family == family] for family in FAMILIES}
    near = []
    for own in by_family.values():
        possible = [each for each in own if not each.obstacle]
        if own:
            near.append(nearest(possible or own))
    near.sort(key=lambda each: not each.reaches)
    names = ("What", "Reaches it", "Accuracy", "From dense", _head(advice), "Training")
    return pd.DataFrame([_row(each, advice) for each in near])[list(names)]


def table(advice: Advice) -> pd.DataFrame:
    """Everything that was measured, what reaches the target first."""
    order = sorted(shown(advice), key=lambda each: not each.reaches)
    return pd.DataFrame([_row(each, advice) for each in order])


def _head(advice: Advice) -> str:
    return words.heading(LIMITS[advice.target.limit])


def _row(candidate: Candidate, advice: Advice) -> dict[str, Any]:
    cell = candidate.cell
    change = candidate.change
    return {
        "What": words.heading(name(candidate)),
        "Way": FAMILIES[candidate.family],
        "Reaches it": "yes" if candidate.reaches else candidate.obstacle or _why(candidate),
        "Accuracy": words.percent(candidate.accuracy),
        "From dense": words.change(change) if change else words.NOT_MEASURED,
        _head(advice): figures.cost(advice.target, cell).text,
        "Format": cell.first.format or words.NOT_MEASURED,
        "File": words.size(cell.mean("bytes")),
        "By gzip": words.size(cell.mean("compressed")),
        "MACs": words.count(cell.mean("macs")),
        "PyTorch": _ms(cell, "torch"),
        "ONNX Runtime": _ms(cell, "onnx"),
        "Training": _epochs(candidate),
        "Rows": ", ".join(cell.ids),
    }


def _why(candidate: Candidate) -> str:
    if not candidate.fits:
        return "above the limit"
    return "loses too much"


def _ms(cell: Cell, runtime: str) -> str:
    """`0.012 ms (dense 0.021, faster)`: of the same rounds; the verdict of one seed."""
    value, dense = cell.mean(f"{runtime}_ms"), cell.mean(f"{runtime}_dense_ms")
    if value is None or dense is None:
        return words.NOT_MEASURED
    verdict = getattr(cell.first, f"{runtime}_verdict")
    known = f", {verdict}" if verdict and len(cell.rows) == 1 else ""
    return f"{value:.3g} ms (dense {dense:.3g}{known})"


def _epochs(candidate: Candidate) -> str:
    epochs = candidate.cell.first.epochs
    if candidate.untrained or not epochs:
        return "none"
    return words.plural(epochs, "epoch")
