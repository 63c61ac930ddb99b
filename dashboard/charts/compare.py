"""Finished runs beside each other: one chart of accuracy against cost, one layer's histograms on shared axes, tables. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from dashboard import colours, words
from dashboard.charts.base import counts_axis, layout, readable_bins, rebin
from pruning.events import Finished, Measurement
from pruning.metrics import Histogram
from pruning.recipe import Recipe
from pruning.stats import difference

COSTS = {"weights": "Weights left", "macs": "MACs left", "bytes": "File, packed"}
LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


@dataclass(frozen=True)
class Entry:
    """A finished run that is compared. label: what tells it from the others; letter: its short name on the page."""

    id: str
    letter: str
    label: str
    recipe: Recipe
    end: Finished


def cost(held: Measurement, kind: str) -> int | None:
    """weights: that are not zero; macs: that they cause; bytes: of the packed file."""
    return {"weights": held.kept, "macs": held.macs_kept, "bytes": held.size.sparse}[kind]


def write(kind: str, value: int | None) -> str:
    return words.size(value) if kind == "bytes" else words.count(value)


def verdict(entry: Entry, reference: Entry) -> str:
    """How a run's accuracy stands to the reference's. Nobody wins inside the interval."""
    a, b = entry.end.final.accuracy, reference.end.final.accuracy
    if entry.id == reference.id:
        return "the reference"
    if a is None or b is None:
        return words.NOT_MEASURED
    if entry.recipe.model != reference.recipe.model:
        return "another model"
    # Two runs keep no answers one by one, so their accuracies are compared as independent ones.
    change = difference(a.spread, b.spread)
    if change.crosses_zero:
        return "within the interval"
    return "higher" if change.value > 0 else "lower"


def finding(entries: Sequence[Entry], reference: Entry) -> str:
    """The chart's title: what it shows, without crowning anybody inside the interval."""
    others = [entry for entry in entries if entry.id != reference.id]
    if not others:
        return "Accuracy on test data against what is left"
    told = [verdict(entry, reference) for entry in others]
    if all(said == "within the interval" for said in told):
        return f"All within the interval of {reference.letter}: accuracy does not tell them apart"
    parts = []
    for said in ("higher", "lower", "within the interval"):
        letters = ", ".join(
            entry.letter for entry, word in zip(others, told, strict=True) if word == said
        )
        if letters:
            parts.append(
                f"{letters} {said}"
                + (
                    f" than {reference.letter}"
                    if said != "within the interval"
                    else f" of {reference.letter}"
                )
            )
    return (
        "Accuracy: " + "; ".join(parts) if parts else "Accuracy on test data against what is left"
    )


# ---------------------------------------------------------------- accuracy against cost


def scatter(entries: Sequence[Entry], reference: Entry, kind: str, *, dark: bool) -> dict[str, Any]:
    """Accuracy with its interval against a cost; a line for each dense model; runs that differ only in how much goes are joined."""
    drawn = [entry for entry in entries if entry.end.final.accuracy and cost(entry.end.final, kind)]
    tones = colours.palette(dark)
    joined = [_joined(family, kind, dark) for family in families(drawn) if len(family) > 1]
    points = [
        _point(entry, kind, dark, entry.id == reference.id, len(drawn) <= 8) for entry in drawn
    ]
    values = [cost(entry.end.final, kind) or 1 for entry in drawn]
    wide = bool(values) and max(values) > 12 * min(values)
    span = _range(values, wide)
    axis: dict[str, Any] = {
        "title": {
            "text": f"{COSTS[kind]}{', bytes' if kind == 'bytes' else ''}{' (log)' if wide else ''}"
        },
        "showgrid": True,
    }
    axis |= (
        {"type": "log", "range": [math.log10(v) for v in span], "dtick": "D2"}
        if wide
        else {"range": list(span)}
    )
    axis |= {
        "tickformat": "~s",
        "exponentformat": "SI",
        "ticksuffix": "B" if kind == "bytes" else "",
    }
    lines, notes = _dense(drawn, tones)
    return {
        "data": [*joined, *points],
        "layout": layout(
            finding(entries, reference),
            dark,
            430,
            xaxis=axis,
            yaxis={"title": {"text": "accuracy on test data, %"}, "range": _heights(drawn)},
            shapes=lines,
            annotations=notes,
        ),
    }


def families(entries: Sequence[Entry]) -> list[list[Entry]]:
    """Runs whose recipes differ in nothing but how much goes, each family from little to much left."""
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(replace(entry.recipe, sparsity=0.0, ratios={}).to_json(), []).append(entry)
    return [sorted(family, key=lambda entry: entry.end.final.kept) for family in found.values()]


def _joined(family: list[Entry], kind: str, dark: bool) -> dict[str, Any]:
    style = colours.technique(family[0].recipe.criterion, dark)
    return {
        "type": "scatter",
        "mode": "lines",
        "hoverinfo": "skip",
        "x": [cost(entry.end.final, kind) for entry in family],
        "y": [_height(entry) for entry in family],
        "line": {"color": style.colour, "dash": style.dash, "width": 1.5},
    }


def _point(entry: Entry, kind: str, dark: bool, pinned: bool, named: bool) -> dict[str, Any]:
    style, tones = colours.technique(entry.recipe.criterion, dark), colours.palette(dark)
    final = entry.end.final
    assert final.accuracy is not None
    low, high = final.accuracy.interval
    said = f"{entry.letter}: {words.percent(final.accuracy)} of {final.accuracy.total:,} test examples right"
    said += f"<br>{COSTS[kind]}: {write(kind, cost(final, kind))}"
    line = {"width": 2 if pinned else 0, "color": tones.text}
    return {
        "type": "scatter",
        "mode": "markers+text",
        "cliponaxis": False,
        "x": [cost(final, kind)],
        "y": [_height(entry)],
        "text": [
            f"{entry.letter} {words.technique(entry.recipe.criterion)}" if named else entry.letter
        ],
        "textposition": "top right",
        "textfont": {"color": tones.text, "size": 14},
        "marker": {
            "color": style.colour,
            "symbol": style.marker,
            "size": 14 if pinned else 11,
            "line": line,
        },
        "error_y": {
            "type": "data",
            "symmetric": False,
            "array": [100 * high - _height(entry)],
            "arrayminus": [_height(entry) - 100 * low],
            "color": style.colour,
            "thickness": 1.5,
            "width": 5,
        },
        "hovertemplate": f"{said}<br>{words.plain(entry.label)}<extra></extra>",
    }


def _height(entry: Entry) -> float:
    held = entry.end.final.accuracy
    return 100 * held.value if held else 0.0


def _range(values: Sequence[int], wide: bool) -> tuple[float, float]:
    if not values:
        return 0.0, 1.0
    if wide:
        return min(values) / 1.6, max(values) * 3
    room = max(max(values) - min(values), 0.2 * max(values))
    return max(0.0, min(values) - 0.15 * room), max(values) + 0.4 * room


def _heights(entries: Sequence[Entry]) -> list[float]:
    seen = [
        held
        for entry in entries
        for held in (entry.end.final.accuracy, entry.end.dense.accuracy)
        if held
    ]
    if not seen:
        return [0.0, 100.0]
    low, high = (
        100 * min(held.interval[0] for held in seen),
        100 * max(held.interval[1] for held in seen),
    )
    room = max(high - low, 2.0)
    return [max(0.0, low - 0.08 * room), min(100 + 0.04 * room, high + 0.08 * room)]


def _dense(
    entries: Sequence[Entry], tones: colours.Palette
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A thin line for each dense model, named on the line."""
    models = {
        entry.recipe.model: entry.end.dense.accuracy
        for entry in entries
        if entry.end.dense.accuracy
    }
    lines, notes = [], []
    for model, accuracy in models.items():
        height = 100 * accuracy.value
        lines.append(
            {
                "type": "line",
                "xref": "paper",
                "x0": 0,
                "x1": 1,
                "y0": height,
                "y1": height,
                "line": {"color": tones.dense, "width": 1},
            }
        )
        text = (
            f"dense {words.percent(accuracy.value)}"
            if len(models) == 1
            else f"dense {model} {words.percent(accuracy.value)}"
        )
        notes.append(
            {
                "xref": "paper",
                "x": 0,
                "xanchor": "left",
                "y": height,
                "yanchor": "bottom",
                "text": text,
                "showarrow": False,
                "font": {"color": tones.dense, "size": 13},
            }
        )
    return lines, notes


# ---------------------------------------------------------------- histograms


def histograms(
    held: Sequence[tuple[Entry, Histogram]], layer: str, *, dark: bool, log: bool
) -> dict[str, Any]:
    """One layer of each run on shared axes: what was kept, filled; the dense model, as a line."""
    held = [(entry, coarse(part)) for entry, part in held]
    across = min(3, len(held))
    down = math.ceil(len(held) / across)
    tones = colours.palette(dark)
    reach = max(float(part.edges[-1]) for _, part in held)
    top = max(int(max(part.dense.max(initial=1), part.final.max(initial=1))) for _, part in held)
    axes, data, notes = {}, [], []
    for i, (entry, part) in enumerate(held):
        name = "" if i == 0 else str(i + 1)
        column, row = i % across, i // across
        wide, tall = 1 / across, 1 / down
        domain = [1 - (row + 1) * tall + (0.10 if down > 1 else 0), 1 - row * tall - 0.09]
        quiet = {"gridcolor": tones.grid, "zeroline": False}
        axes[f"xaxis{name}"] = {
            **quiet,
            "showgrid": False,
            "domain": [column * wide + 0.02, (column + 1) * wide - 0.02],
            "anchor": f"y{name}",
            "range": [-reach, reach],
        }
        axes[f"xaxis{name}"] |= {"title": {"text": "weight"}} if row == down - 1 else {}
        scale = counts_axis(log, top)
        axes[f"yaxis{name}"] = {
            **quiet,
            **scale,
            "domain": domain,
            "anchor": f"x{name}",
            "automargin": True,
        }
        if column:
            axes[f"yaxis{name}"] |= {"title": {"text": ""}, "showticklabels": False}
        data += _shape(part, name, colours.technique(entry.recipe.criterion, dark).colour, tones)
        kept = f"{entry.letter} · {part.final.sum():,} of {part.dense.sum():,} kept"
        notes.append(
            {
                "xref": f"x{name} domain",
                "yref": f"y{name} domain",
                "x": 0,
                "y": 1.02,
                "xanchor": "left",
                "yanchor": "bottom",
                "text": kept,
                "showarrow": False,
                "font": {"color": tones.text, "size": 14},
            }
        )
    title = f"{words.layer_name(layer)}: weights kept (filled) and dense (line), on the same axes"
    figure = layout(title, dark, 60 + 250 * down, annotations=notes, barmode="overlay")
    return {
        "data": data,
        "layout": {
            **figure,
            **{key: {**figure.get(key, {}), **axis} for key, axis in axes.items()},
        },
    }


def coarse(part: Histogram) -> Histogram:
    """Fewer, wider bins where there are few weights, so that a shape shows and not single weights."""
    most = readable_bins(int(part.dense.sum()))
    edges, dense = rebin(part.edges, part.dense, most)
    final = rebin(part.edges, part.final, most)[1]
    return Histogram(edges, dense, final)


def _shape(part: Histogram, name: str, colour: str, tones: colours.Palette) -> list[dict[str, Any]]:
    at = {
        "xaxis": f"x{name}",
        "yaxis": f"y{name}",
        "x": ((part.edges[:-1] + part.edges[1:]) / 2).tolist(),
    }
    near = "%{y:,} weights near %{x:.3g}"
    bars = {
        "type": "bar",
        **at,
        "y": part.final.tolist(),
        "width": float(part.edges[1] - part.edges[0]),
        "marker": {"color": colour, "line": {"width": 0}},
        "hovertemplate": f"{near} kept<extra></extra>",
    }
    line = {
        "type": "scatter",
        "mode": "lines",
        **at,
        "y": part.dense.tolist(),
        "line": {"shape": "hvh", "color": tones.dense},
        "hovertemplate": f"{near}, dense<extra></extra>",
    }
    return [bars, line]


def bins(held: Sequence[tuple[Entry, Histogram]]) -> pd.DataFrame:
    """The table twin of the histograms."""
    parts = [
        pd.DataFrame(
            {
                "run": entry.letter,
                "from": part.edges[:-1],
                "to": part.edges[1:],
                "dense": part.dense,
                "kept": part.final,
            }
        )
        for entry, part in held
    ]
    whole = pd.concat(parts, ignore_index=True)
    return whole[np.logical_or(whole["dense"] > 0, whole["kept"] > 0)]


# ---------------------------------------------------------------- tables


def rows(entries: Sequence[Entry], reference: Entry) -> pd.DataFrame:
    """The numbers, and how each run stands to the reference."""
    return pd.DataFrame([_row(entry, reference) for entry in entries])


def _row(entry: Entry, reference: Entry) -> dict[str, Any]:
    final, base, pruned = entry.end.final, reference.end.final, entry.end.pruned
    same = entry.id == reference.id
    return {
        "run": entry.letter,
        "recipe": entry.label,
        "accuracy": words.percent(final.accuracy),
        "against reference": "—" if same else words.points(final.accuracy, base.accuracy),
        "verdict": verdict(entry, reference),
        "before healing": words.percent(pruned.accuracy)
        if pruned
        else words.percent(final.accuracy),
        "dense": words.percent(entry.end.dense.accuracy),
        "weights": final.kept,
        "of reference": "—" if same else words.share(round(final.kept / max(1, base.kept), 4)),
        "MACs": final.macs_kept,
        "bytes, packed": final.size.sparse,
        "bytes, deflated": final.size.compressed,
        "latency": words.ms(final.latency),
        "seconds": round(entry.end.seconds, 1),
        "seed": entry.recipe.seed,
        "id": entry.id,
    }


def csv(entries: Sequence[Entry], reference: Entry) -> bytes:
    """The table with raw numbers, for other programs."""
    raw = rows(entries, reference)
    for name, stage in (("final", "final"), ("dense", "dense")):
        held = [getattr(entry.end, stage).accuracy for entry in entries]
        raw[f"{name} correct"] = [accuracy.correct if accuracy else None for accuracy in held]
        raw[f"{name} total"] = [accuracy.total if accuracy else None for accuracy in held]
    raw["recipe"] = [entry.recipe.to_json() for entry in entries]
    return raw.to_csv(index=False).encode()
