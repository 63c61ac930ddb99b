"""Finished runs compared: accuracy against cost, one layer's histograms, and the table. Pure."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dashboard import colours, words
from dashboard.charts.base import (
    Rectangle,
    centres,
    counts_axis,
    layout,
    place_labels,
    readable_bins,
    rebin,
    spread,
    text_size,
)
from dashboard.charts.prune import scale
from dashboard.charts.results import WHOLE_MACS, has_other_macs
from pruning.describe import RunFacts
from pruning.events import Finished
from pruning.metrics import (
    BINS,
    Accuracy,
    Histogram,
    Measurement,
    Paired,
    Quality,
    Score,
    Spread,
)
from pruning.recipe import Recipe
from pruning.runs.results import Answers
from pruning.stats import difference

Figure = dict[str, Any]

COSTS = {"weights": "Weights kept", "macs": "MACs kept", "bytes": "Sparse file (bitmask)"}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
NO_FINDING = "Accuracy on test data against what is kept"
SAME = "within the interval"
NAMED_POINTS = 4  # runs, beyond which a point has its letter alone: a legend has the names
NARROWEST = 300  # pixels: the plot of the narrowest chart, on a phone
PLOT = 310  # pixels: its height
WIDEST = 1500  # pixels: the plot on a projector of 1920
NEAR = 60  # pixels around a point where its label stands
LABEL = 14  # pixels of a letter
HISTOGRAM = 200  # pixels of a row of small charts


@dataclass(frozen=True)
class ComparedRun:
    """A finished run. label: what tells it from the others; letter: its short name on the page;
    facts: what it did, None where it pruned nothing; data: its test data's name, None where that is
    not known; answers: to its test examples, None where they were not kept.
    """

    id: str
    letter: str
    label: str
    recipe: Recipe
    end: Finished
    facts: RunFacts | None = None
    data: str | None = None
    answers: Answers | None = None

    @property
    def quality(self) -> Quality | None:
        """On test data, at the end: accuracy, or what its task is judged by."""
        return self.end.deliverable.quality


def _metric(run: ComparedRun) -> str:
    return run.quality.name if run.quality else "accuracy"


def cost(measured: Measurement, kind: str) -> int | None:
    """What the run's model costs: weights that are not zero, MACs they cause, or bytes on disk."""
    if kind == "weights":
        return measured.kept
    return measured.macs_kept if kind == "macs" else measured.size.sparse


def unlike(run: ComparedRun, reference: ComparedRun) -> str:
    """Why a run cannot be compared with the reference, as the end of a sentence; "" where it can.

    Figures of other data, or of another metric, mean nothing side by side.
    """
    quality, base = run.quality, reference.quality
    if quality is None or base is None:  # what they cost can be compared
        return ""
    if run.data and reference.data and run.data != reference.data:
        return f"it was measured on {run.data}, {reference.letter} on {reference.data}"
    if quality.name != base.name:
        return f"it is judged by {quality.name}, {reference.letter} by {base.name}"
    if _examples(quality) != _examples(base):
        numbers = f"{_examples(quality):,} test examples, {reference.letter} on {_examples(base):,}"
        return f"it was measured on {numbers}"
    if run.answers and reference.answers:
        if not np.array_equal(run.answers.targets, reference.answers.targets):
            return f"its test examples are others than those of {reference.letter}"
    return ""


def _examples(quality: Quality) -> int:
    return quality.total if isinstance(quality, Accuracy) else quality.examples


def verdict(run: ComparedRun, reference: ComparedRun) -> str:
    """How a run's accuracy, or metric, compares with the reference's. Nobody wins inside the
    interval.
    """
    quality = run.quality
    base = reference.quality
    if run.id == reference.id:
        return "the reference"
    if quality is None or base is None:
        return words.NOT_MEASURED
    if quality.name != base.name:
        return "another metric"
    change = paired_change(run, reference)
    if change is None:
        # Runs of earlier versions kept no answers: their accuracies are compared as independent
        # ones, which those of two models on the same examples never are.
        if run.recipe.model != reference.recipe.model:
            return "another model"
        if quality.spread is None or base.spread is None:
            return "no interval"
        change = difference(quality.spread, base.spread)
    if change.crosses_zero:
        return SAME
    return "higher" if change.value > 0 else "lower"


def paired_change(run: ComparedRun, reference: ComparedRun) -> Spread | None:
    """Accuracy less the reference's on the same examples, a share.

    None where answers were not kept, or are to other examples.
    """
    this, other = run.answers, reference.answers
    if this is None or other is None or not np.array_equal(this.targets, other.targets):
        return None
    return Paired.of(this.right, other.right).change


def finding(runs: Sequence[ComparedRun], reference: ComparedRun) -> str:
    """The chart's title: who is higher, who lower, and who cannot be told from the reference."""
    verdicts = {run.letter: verdict(run, reference) for run in runs if run.id != reference.id}
    if verdicts and set(verdicts.values()) == {SAME}:
        same = f"All within the interval of {reference.letter}"
        return f"{same}: {_metric(reference)} does not tell them apart"
    parts = []
    for wanted, preposition in (("higher", "than"), ("lower", "than"), (SAME, "of")):
        letters = [letter for letter, answer in verdicts.items() if answer == wanted]
        if letters:
            parts.append(f"{', '.join(letters)} {wanted} {preposition} {reference.letter}")
    name = words.heading(_metric(reference))
    return f"{name}: {'; '.join(parts)}" if parts else NO_FINDING


# ---------------------------------------------------------------- accuracy against cost


def scatter(
    runs: Sequence[ComparedRun], reference: ComparedRun, kind: str, *, dark: bool
) -> Figure:
    """Accuracy with its interval against a cost, and a line for each dense model.

    Runs that differ only in how much is pruned are joined.
    """
    # One axis has one metric: that of the reference.
    same = [run for run in runs if run.quality and _metric(run) == _metric(reference)]
    shown = [run for run in same if cost(run.end.deliverable, kind)]
    lines = [_line(family, kind, dark) for family in families(shown) if len(family) > 1]
    points = [_point(run, kind, dark, run.id == reference.id) for run in shown]
    x = _cost_axis([cost(run.end.deliverable, kind) or 1 for run in shown], kind)
    y = _accuracy_range(shown)
    tones = colours.palette(dark)
    dense_lines, dense_labels, taken = _dense(shown, y, tones)
    figure = layout(
        finding(runs, reference),
        dark,
        430,
        xaxis=x,
        yaxis={"title": {"text": _axis_title(reference)}, "range": y},
        shapes=dense_lines,
        annotations=[*dense_labels, *_names(shown, kind, x, y, taken, tones)],
    )
    return {"data": [*lines, *points], "layout": figure}


def _names(
    runs: Sequence[ComparedRun],
    kind: str,
    x_axis: Figure,
    y_range: Sequence[float],
    taken: Sequence[Rectangle],
    tones: colours.Palette,
) -> list[Figure]:
    """Each run's letter at its point, with the criterion where runs are few.

    Placed for the narrowest chart there is: in a wider one points only move apart.
    """
    log = x_axis.get("type") == "log"
    costs = [float(cost(run.end.deliverable, kind) or 1) for run in runs]
    at = [math.log10(value) if log else value for value in costs]
    names = [
        f"{run.letter} {words.technique(run.recipe.criterion)}"
        if len(runs) <= NAMED_POINTS
        else run.letter
        for run in runs
    ]
    low, high = x_axis["range"]
    bottom, top = y_range
    pixels = [
        (
            NARROWEST * (value - low) / (high - low),
            PLOT * (top - _percent(run)) / (top - bottom),
        )
        for run, value in zip(runs, at, strict=True)
    ]
    sizes = [text_size(name, LABEL) for name in names]
    scale = PLOT / (top - bottom)
    whiskers = [
        (x - 2, y - scale * above, x + 2, y + scale * below)
        for run, (x, y) in zip(runs, pixels, strict=True)
        for above, below in [_whiskers(run)]
    ]
    lines = _near_lines(runs, pixels)
    places = place_labels(pixels, sizes, (NARROWEST, PLOT), [*taken, *whiskers, *lines])
    labels = []
    for run, value, name, size, place in zip(runs, at, names, sizes, places, strict=True):
        if place is None:
            continue  # the legend and what hovering says name it still
        label: Figure = {
            "x": value,
            "y": _percent(run),
            "text": name,
            "font": {"color": tones.text, "size": LABEL},
            "showarrow": place.leader,
        }
        if place.leader:
            # plotly draws the line to the label's middle: it ends at the near side instead.
            side = -1 if place.right > 0 else 1
            label |= {
                "ax": place.right + side * size[0] / 2,
                "ay": place.down,
                "xanchor": "left" if place.right > 0 else "right",
                "arrowhead": 0,
                "arrowwidth": 1,
                "arrowcolor": tones.muted,
                "standoff": 5,
            }
        else:
            label |= {"xshift": place.right, "yshift": -place.down}
        labels.append(label)
    return labels


def _near_lines(
    runs: Sequence[ComparedRun], pixels: Sequence[tuple[float, float]]
) -> list[Rectangle]:
    """What the lines that join runs take near each point, in the narrowest chart and the widest."""
    place = {run.id: at for run, at in zip(runs, pixels, strict=True)}
    taken: list[Rectangle] = []
    for family in families(runs):
        for one, other in itertools.pairwise(family):
            for start, end in ((one, other), (other, one)):
                (x, y), (to_x, to_y) = place[start.id], place[end.id]
                for stretch in (1.0, WIDEST / NARROWEST):
                    across, down = (to_x - x) * stretch, to_y - y
                    length = math.hypot(across, down) or 1.0
                    for away in range(8, NEAR, 4):
                        at_x, at_y = x + across / length * away, y + down / length * away
                        taken.append((at_x - 2, at_y - 2, at_x + 2, at_y + 2))
    return taken


def families(runs: Sequence[ComparedRun]) -> list[list[ComparedRun]]:
    """Runs whose recipes differ only in how much is pruned, each family from few kept to many."""
    by_recipe: dict[str, list[ComparedRun]] = {}
    for run in runs:
        # The manual scope says how much in a ratio for each layer, the others in the sparsity.
        without_amount = replace(run.recipe, sparsity=0.0, ratios={})
        by_recipe.setdefault(without_amount.to_json(), []).append(run)
    return [
        sorted(family, key=lambda run: run.end.deliverable.kept) for family in by_recipe.values()
    ]


def _line(family: list[ComparedRun], kind: str, dark: bool) -> Figure:
    style = colours.technique(family[0].recipe.criterion, dark)
    return {
        "type": "scatter",
        "mode": "lines",
        "hoverinfo": "skip",
        "x": [cost(run.end.deliverable, kind) for run in family],
        "y": [_percent(run) for run in family],
        "line": {"color": style.colour, "dash": style.dash, "width": 1.5},
    }


def _point(run: ComparedRun, kind: str, dark: bool, pinned: bool) -> Figure:
    style = colours.technique(run.recipe.criterion, dark)
    tones = colours.palette(dark)
    quality = run.quality
    assert quality is not None
    above, below = _whiskers(run)
    value = cost(run.end.deliverable, kind)
    amount = words.size(value) if kind == "bytes" else words.count(value)
    hover = [
        f"{run.letter}: {_on_test(quality)}",
        f"{COSTS[kind]}: {amount}",
        words.plain(run.label),
    ]
    return {
        "type": "scatter",
        "mode": "markers",
        "cliponaxis": False,
        "x": [value],
        "y": [_percent(run)],
        "marker": {
            "color": style.colour,
            "symbol": style.marker,
            "size": 14 if pinned else 11,
            "line": {"width": 2 if pinned else 0, "color": tones.text},
        },
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [above],
            "arrayminus": [below],
            "color": style.colour,
            "thickness": 1.5,
            "width": 5,
        },
        "hovertemplate": "<br>".join(hover) + "<extra></extra>",
    }


def _whiskers(run: ComparedRun) -> tuple[float, float]:
    """How far the interval reaches above the point and below it; shares in percent."""
    if run.quality is None or run.quality.spread is None:
        return 0.0, 0.0
    factor = scale(run.quality)
    low, high = run.quality.spread.low, run.quality.spread.high
    return factor * high - _percent(run), _percent(run) - factor * low


def _percent(run: ComparedRun) -> float:
    """The metric's value; a share in percent."""
    return scale(run.quality) * run.quality.value if run.quality else 0.0


def _on_test(quality: Quality) -> str:
    if isinstance(quality, Accuracy):
        return f"{words.percent(quality)} of {quality.total:,} test examples right"
    return f"{quality.name} {words.percent(quality)} on {quality.examples:,} test examples"


def _axis_title(reference: ComparedRun) -> str:
    quality = reference.quality
    if quality is None or scale(quality) == 100:
        return f"{_metric(reference)} on test data, %"
    assert isinstance(quality, Score)
    return f"{quality.name} on test data" + (f", {quality.unit}" if quality.unit else "")


def _cost_axis(values: Sequence[int], kind: str) -> Figure:
    """A log axis where the costs differ more than twelvefold."""
    log = bool(values) and max(values) > 12 * min(values)
    low, high = _cost_range(values, log)
    title = COSTS[kind] + (", bytes" if kind == "bytes" else "") + (" (log)" if log else "")
    axis: Figure = {"title": {"text": title}, "showgrid": True}
    if log:
        axis |= {"type": "log", "range": [math.log10(low), math.log10(high)], "dtick": "D2"}
    else:
        axis["range"] = [low, high]
    suffix = "B" if kind == "bytes" else ""
    return {**axis, "tickformat": "~s", "exponentformat": "SI", "ticksuffix": suffix}


def _cost_range(values: Sequence[int], log: bool) -> tuple[float, float]:
    """From the least to the most, with room at the right for the names beside the points."""
    if not values:
        return 0.0, 1.0
    least, most = min(values), max(values)
    if log:
        return least / 1.6, most * 3
    room = max(most - least, 0.2 * most)
    return max(0.0, least - 0.15 * room), most + 0.4 * room


def _accuracy_range(runs: Sequence[ComparedRun]) -> list[float]:
    """What holds every interval, the dense models' too; shares in percent."""
    shown = [q for run in runs for q in (run.quality, run.end.dense.quality) if q]
    if not shown:
        return [0.0, 100.0]
    ends = [
        scale(q) * value
        for q in shown
        for value in ((q.value,) if q.spread is None else (q.spread.low, q.spread.high))
    ]
    low, high = min(ends), max(ends)
    if scale(shown[0]) == 1:  # of no share: neither 0 nor 100 is an end
        room = max(high - low, 0.02 * abs(high), 1e-9)
        return [low - 0.08 * room, high + 0.08 * room]
    room = max(high - low, 2.0)
    # Above the highest there is room for the name of a dense model's line.
    return [max(0.0, low - 0.08 * room), min(100 + 0.08 * room, high + 0.08 * room)]


def _dense(
    runs: Sequence[ComparedRun], y_range: Sequence[float], tones: colours.Palette
) -> tuple[list[Figure], list[Figure], list[Rectangle]]:
    """A thin line for each dense model, its name at the line, and where the names stand."""
    by_model = {run.recipe.model: run.end.dense.quality for run in runs}
    measured = {model: quality for model, quality in by_model.items() if quality}
    heights_of = {model: scale(quality) * quality.value for model, quality in measured.items()}
    bottom, top = y_range
    heights = [PLOT * (top - value) / (top - bottom) for value in heights_of.values()]
    # Above the line, so a label's middle is half a line higher; below it at the top of the chart.
    middles = spread([height - 10 for height in heights], 18, 9, PLOT - 9)
    lines = []
    labels = []
    taken = []
    for (model, quality), height, middle in zip(measured.items(), heights, middles, strict=True):
        y = heights_of[model]
        line = {"color": tones.dense, "width": 1}
        lines.append(
            {"type": "line", "xref": "paper", "x0": 0, "x1": 1, "y0": y, "y1": y, "line": line}
        )
        name = "dense" if len(measured) == 1 else f"dense {model}"
        text = f"{name} {quality.text}"
        wide, high = text_size(text, 13)
        taken.append((0.0, middle - high / 2, wide, middle + high / 2))
        labels.append(
            {
                "xref": "paper",
                "x": 0,
                "xanchor": "left",
                "y": y,
                "yanchor": "middle",
                "yshift": height - middle,
                "text": text,
                "showarrow": False,
                "font": {"color": tones.dense, "size": 13},
            }
        )
    return lines, labels, taken


# ---------------------------------------------------------------- histograms

RunHistogram = tuple[ComparedRun, Histogram]


def whole_model(
    parts: Sequence[tuple[ComparedRun, Mapping[str, Histogram]]],
) -> list[RunHistogram]:
    """All layers of each run together, and all runs in the same bins.

    Each layer has bins of its own width: its counts are spread over those of the widest as if they
    lay evenly inside a bin, and none is lost.
    """
    reaches = [float(part.edges[-1]) for _, layers in parts for part in layers.values()]
    edges = np.linspace(-max(reaches, default=1.0), max(reaches, default=1.0), BINS + 1)
    return [
        (
            run,
            Histogram(edges, _together(layers, "dense", edges), _together(layers, "final", edges)),
        )
        for run, layers in parts
        if layers
    ]


def _together(
    layers: Mapping[str, Histogram], which: str, edges: NDArray[np.float64]
) -> NDArray[np.int64]:
    """(bins,) counts of all layers; whole numbers that add up to those of the layers."""
    below = np.zeros(len(edges))
    for part in layers.values():
        counted = np.concatenate([[0], np.cumsum(getattr(part, which))])
        below += np.interp(edges, part.edges, counted)
    whole = np.rint(below).astype(np.int64)
    counts: NDArray[np.int64] = whole[1:] - whole[:-1]
    return counts


def magnitudes(parts: Sequence[RunHistogram]) -> pd.DataFrame:
    """How large the weights of each run are, before and after: read off the histograms."""
    rows = []
    for run, part in parts:
        row: dict[str, Any] = {"run": run.letter}
        for name, counts in (("dense", part.dense), ("kept", part.final)):
            row[f"{name}, weights"] = int(counts.sum())
            for share in (0.5, 0.95):
                row[f"{name}, {share:.0%} below |w|"] = _below(part.edges, counts, share)
        rows.append(row)
    return pd.DataFrame(rows)


def _below(edges: NDArray[np.float64], counts: NDArray[np.int64], share: float) -> float | None:
    """The magnitude that this share of the weights stays below, to the width of a bin."""
    half = len(counts) // 2
    folded = counts[half:] + counts[:half][::-1]
    if not folded.sum():
        return None
    reached = np.cumsum(folded) / folded.sum()
    place = int(np.searchsorted(reached, share))
    return float(edges[half + 1 + min(place, half - 1)])


def magnitudes_finding(parts: Sequence[RunHistogram]) -> str:
    """What the weights that are kept are like, against all of the dense model's."""
    title = "Weights of all layers: kept (filled) and dense (line), on the same axes"
    run, part = parts[0]
    before, after = (_below(part.edges, counts, 0.5) for counts in (part.dense, part.final))
    if not before or not after:
        return title
    return (
        f"{title}; half of {run.letter}'s kept lie beyond |w| = {after:.2g}, of dense {before:.2g}"
    )


def histograms(parts: Sequence[RunHistogram], title: str, *, dark: bool, log: bool) -> Figure:
    """Weights of each run on shared axes: kept ones filled, the dense model as a line."""
    parts = [(run, coarse(part)) for run, part in parts]
    columns = min(3, len(parts))
    rows = math.ceil(len(parts) / columns)
    tones = colours.palette(dark)
    # Edges are symmetric around 0, so that the last one bounds both sides.
    reach = max(float(part.edges[-1]) for _, part in parts)
    top = max(int(max(part.dense.max(initial=1), part.final.max(initial=1))) for _, part in parts)
    figure = layout(title, dark, 60 + HISTOGRAM * rows, barmode="overlay")
    data: list[Figure] = []
    labels = []
    for i, (run, part) in enumerate(parts):
        row, column = divmod(i, columns)
        suffix = "" if i == 0 else str(i + 1)  # plotly's names: x and y, then x2 and y2 ...
        x, y = _cell_axes(row, column, rows, columns, suffix)
        x |= {"gridcolor": tones.grid, "zeroline": False, "showgrid": False}
        x["range"] = [-reach, reach]
        y |= {"gridcolor": tones.grid, "zeroline": False, "automargin": True}
        y |= counts_axis(log, top)
        if row == rows - 1:
            x["title"] = {"text": "weight"}
        if column:
            y |= {"title": {"text": ""}, "showticklabels": False}
        for name, axis in ((f"xaxis{suffix}", x), (f"yaxis{suffix}", y)):
            figure[name] = {**figure.get(name, {}), **axis}
        data += _shape(part, suffix, colours.technique(run.recipe.criterion, dark).colour, tones)
        labels.append(
            {
                "xref": f"x{suffix} domain",
                "yref": f"y{suffix} domain",
                "x": 0,
                "y": 1.02,
                "xanchor": "left",
                "yanchor": "bottom",
                "text": f"{run.letter} · {_kept(part)}",
                "showarrow": False,
                "font": {"color": tones.text, "size": 14},
            }
        )
    figure["annotations"] = labels
    return {"data": data, "layout": figure}


def _kept(part: Histogram) -> str:
    """`1.3 M of 2.4 M kept`: short, because the next chart's stands beside it."""
    return f"{words.count(int(part.final.sum()))} of {words.count(int(part.dense.sum()))} kept"


def _cell_axes(
    row: int, column: int, rows: int, columns: int, suffix: str
) -> tuple[Figure, Figure]:
    """Where a small chart stands among the others: shares of the width and of the height."""
    width = 1 / columns
    height = 1 / rows
    # In pixels, as texts are: as shares, a dozen runs would be mostly air.
    above = 28 / (HISTOGRAM * rows)
    below = 34 / (HISTOGRAM * rows) if rows > 1 else 0  # for the tick labels of the row
    x = {"domain": [column * width + 0.02, (column + 1) * width - 0.02], "anchor": f"y{suffix}"}
    y = {
        "domain": [1 - (row + 1) * height + below, 1 - row * height - above],
        "anchor": f"x{suffix}",
    }
    return x, y


def coarse(part: Histogram) -> Histogram:
    """Fewer, wider bins where there are few weights, so that a shape shows, not single weights."""
    most = readable_bins(int(part.dense.sum()))
    edges, dense = rebin(part.edges, part.dense, most)
    final = rebin(part.edges, part.final, most)[1]
    return Histogram(edges, dense, final)


def _shape(part: Histogram, suffix: str, colour: str, tones: colours.Palette) -> list[Figure]:
    shared = {"xaxis": f"x{suffix}", "yaxis": f"y{suffix}", "x": centres(part.edges).tolist()}
    hover = "%{y:,} weights near %{x:.3g}"
    bars = {
        "type": "bar",
        **shared,
        "y": part.final.tolist(),
        "width": float(part.edges[1] - part.edges[0]),
        "marker": {"color": colour, "line": {"width": 0}},
        "hovertemplate": f"{hover} kept<extra></extra>",
    }
    line = {
        "type": "scatter",
        "mode": "lines",
        **shared,
        "y": part.dense.tolist(),
        "line": {"shape": "hvh", "color": tones.dense},
        "hovertemplate": f"{hover}, dense<extra></extra>",
    }
    return [bars, line]


def bin_table(parts: Sequence[RunHistogram]) -> pd.DataFrame:
    """The numbers of the histograms, without bins that are empty in both."""
    tables = [
        pd.DataFrame(
            {
                "run": run.letter,
                "from": part.edges[:-1],
                "to": part.edges[1:],
                "dense": part.dense,
                "kept": part.final,
            }
        )
        for run, part in parts
    ]
    table = pd.concat(tables, ignore_index=True)
    return table[np.logical_or(table["dense"] > 0, table["kept"] > 0)]


# ---------------------------------------------------------------- tables


def run_table(runs: Sequence[ComparedRun], reference: ComparedRun) -> pd.DataFrame:
    """A row for each run, and how it compares with the reference."""
    more = any(has_other_macs(run.end) for run in runs)
    return pd.DataFrame([_run_row(run, reference, more) for run in runs])


def _run_row(run: ComparedRun, reference: ComparedRun, more: bool) -> dict[str, Any]:
    """more: MACs that belong to no weight are counted too, in a column of their own."""
    final = run.end.deliverable
    base = reference.end.deliverable
    change = words.points(final.quality, base.quality)
    paired = paired_change(run, reference)
    if paired is not None:
        change = words.change(paired)
    of_reference = words.share(round(final.kept / max(1, base.kept), 4))
    same = run.id == reference.id
    pruned = run.end.pruned or final  # nothing was trained after pruning: the final one is both
    return {
        "run": run.letter,
        "recipe": run.label,
        _metric(reference): words.percent(final.quality),
        "against reference": "—" if same else change,
        "verdict": verdict(run, reference),
        "as pruned": words.percent(pruned.quality),
        "dense": words.percent(run.end.dense.quality),
        "weights": final.kept,
        "of reference": "—" if same else of_reference,
        "MACs": final.macs_kept,
        **({WHOLE_MACS: final.all_macs_kept} if more else {}),
        "bytes, bitmask": final.size.sparse,
        "bytes, compressed": final.size.compressed,
        "latency": words.ms(final.latency),
        "seconds": round(run.end.seconds, 1),
        "seed": run.recipe.seed,
        "id": run.id,
    }


def csv(runs: Sequence[ComparedRun], reference: ComparedRun) -> bytes:
    """The table with raw numbers and whole recipes, for other programs."""
    table = run_table(runs, reference)
    accuracies = {
        "final": [run.end.deliverable.accuracy for run in runs],
        "dense": [run.end.dense.accuracy for run in runs],
    }
    for stage, values in accuracies.items():
        table[f"{stage} correct"] = [accuracy.correct if accuracy else None for accuracy in values]
        table[f"{stage} total"] = [accuracy.total if accuracy else None for accuracy in values]
    if any(run.end.deliverable.score for run in runs):  # another metric than accuracy
        scores = [run.end.deliverable.score for run in runs]
        table["metric"] = [score.name if score else None for score in scores]
        table["metric value"] = [score.value if score else None for score in scores]
    table["recipe"] = [run.recipe.to_json() for run in runs]
    return table.to_csv(index=False).encode()
