"""Inside compared runs: sparsity by layer, which weights they keep, which classes lost.

Pure: data in, figures and tables out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dashboard import colours, words
from dashboard.charts.base import layout, numbers_in
from dashboard.charts.compare import ComparedRun
from pruning.metrics import Paired
from pruning.runs.results import Answers
from pruning.stats import Overlap

Figure = dict[str, Any]
Floats = NDArray[np.float64]

ROW, THIN_ROW = 25, 15  # pixels of a row with numbers in it, and of one without
MOST_NUMBERED = 30  # rows, beyond which they have no numbers
CELL = 34  # pixels: the height of a cell of the matrix
LONGEST_NAME = 22  # characters of a layer or class at the side
MOST_CLASSES = 25


# ---------------------------------------------------------------- sparsity by layer


def layer_shares(runs: Sequence[ComparedRun]) -> pd.DataFrame:
    """Share pruned of each layer, a column for each run by its letter; NaN where a run has no such
    layer.
    """
    columns = {
        run.letter: {layer.name: 1 - layer.kept / layer.total for layer in run.end.final.layers}
        for run in runs
    }
    names = list(dict.fromkeys(name for shares in columns.values() for name in shares))
    return pd.DataFrame(columns, index=names, dtype=float)


def layers(runs: Sequence[ComparedRun], *, dark: bool) -> Figure:
    """How much of each layer each run pruned, on one scale."""
    shares = layer_shares(runs)
    names = [words.layer_name(name) for name in shares.index]
    hovers = [
        [
            f"{letter}, {name}: no such layer"
            if np.isnan(share)
            else f"{letter}, {name}: {100 * share:.1f} % pruned"
            for letter, share in zip(shares.columns, row, strict=True)
        ]
        for name, row in zip(names, shares.to_numpy(), strict=True)
    ]
    return grid(
        layers_finding(shares),
        100 * shares.to_numpy(),
        [_short(name) for name in names],
        list(shares.columns),
        hovers,
        dark,
        scale=colours.strength(dark),
        range=(0, 100),
        format="{:.0f}",
    )


def layers_finding(shares: pd.DataFrame) -> str:
    """Where the runs differ most."""
    if shares.shape[1] < 2 or shares.empty:
        return "Share pruned of each layer, %"
    values = shares.to_numpy()
    apart = np.fmax.reduce(values, axis=1) - np.fmin.reduce(values, axis=1)
    most = int(np.nanargmax(apart))
    if not apart[most] > 0.005:
        return "Share pruned of each layer, %: the same in all runs"
    name = words.layer_name(str(shares.index[most]))
    row = 100 * values[most]
    low, high = int(np.nanargmin(row)), int(np.nanargmax(row))
    return (
        f"Share pruned of each layer, %: {name} differs most, {row[low]:.0f} in "
        f"{shares.columns[low]} and {row[high]:.0f} in {shares.columns[high]}"
    )


def layer_table(runs: Sequence[ComparedRun]) -> pd.DataFrame:
    shares = (100 * layer_shares(runs)).round(2)
    shares.insert(0, "layer", [words.layer_name(name) for name in shares.index])
    return shares


# ---------------------------------------------------------------- which weights are kept

Overlaps = Mapping[tuple[str, str], Overlap | None]
"""Pair of letters -> how much of what either keeps both keep; None where layers differ."""


def overlap(letters: Sequence[str], overlaps: Overlaps, *, dark: bool) -> Figure:
    """Below the diagonal what was measured, above it what random masks of the same sizes have."""
    n = len(letters)
    z = np.full((n, n), np.nan)
    hovers = [["" for _ in letters] for _ in letters]
    for i, one in enumerate(letters):
        for j in range(i):
            other = letters[j]
            pair = overlaps.get((other, one))
            text = f"{other} and {one}: not the same layers"
            if pair is not None:
                z[i, j], z[j, i] = pair.value, pair.at_random
                text = (
                    f"{other} and {one}: of the weights that either keeps, both keep "
                    f"{pair.value:.2f}; at random {pair.at_random:.2f}"
                )
            hovers[i][j] = hovers[j][i] = text
    return grid(
        overlap_finding(overlaps),
        z,
        list(letters),
        list(letters),
        hovers,
        dark,
        scale=colours.strength(dark),
        range=(0, 1),
        format="{:.2f}",
        row=CELL,
    )


def overlap_finding(overlaps: Overlaps) -> str:
    known = {pair: value for pair, value in overlaps.items() if value is not None}
    if not known:
        return "Which weights are kept: these runs have no layers in common"
    if len(known) == 1:
        ((one, other), value) = next(iter(known.items()))
        return (
            f"Of the weights that {one} or {other} keeps, both keep {value.value:.2f}; "
            f"{value.at_random:.2f} at random"
        )
    # By what random masks would not have: two that keep nearly everything are always alike.
    excess = {pair: value.value - value.at_random for pair, value in known.items()}
    one, other = max(excess, key=lambda pair: excess[pair])
    best = known[one, other]
    return (
        f"{one} and {other} keep the most of the same weights beyond chance: {best.value:.2f}, "
        f"{best.at_random:.2f} at random"
    )


def overlap_table(overlaps: Overlaps) -> pd.DataFrame:
    rows = [
        {
            "run": one,
            "other": other,
            "kept by both": round(value.value, 4),
            "at random": round(value.at_random, 4),
        }
        for (one, other), value in overlaps.items()
        if value is not None
    ]
    return pd.DataFrame(rows)


# ---------------------------------------------------------------- which classes lost


@dataclass(frozen=True)
class AnsweredRun:
    """A run whose answers to the test examples are known."""

    letter: str
    answers: Answers


def class_name(classes: Sequence[str], number: int) -> str:
    return classes[number] if 0 <= number < len(classes) else str(number)


def class_table(
    runs: Sequence[AnsweredRun], reference: AnsweredRun, classes: Sequence[str]
) -> pd.DataFrame:
    """For each class: its examples, what the reference has right, and how many more or fewer each
    run has, in the order of the classes.
    """
    targets = reference.answers.targets
    rows = []
    for number in np.unique(targets):
        of_class = targets == number
        right = int(reference.answers.right[of_class].sum())
        row: dict[str, Any] = {
            "class": class_name(classes, int(number)),
            "examples": int(of_class.sum()),
            f"{reference.letter} right": right,
        }
        for run in runs:
            row[run.letter] = int(run.answers.right[of_class].sum()) - right
        rows.append(row)
    return pd.DataFrame(rows)


def classes(
    runs: Sequence[AnsweredRun], reference: AnsweredRun, names: Sequence[str], *, dark: bool
) -> Figure:
    """How many more or fewer test examples of each class a run has right than the reference.

    Of many classes those that changed most.
    """
    table = class_table(runs, reference, names)
    letters = [run.letter for run in runs]
    if len(table) > MOST_CLASSES:
        change = table[letters].abs().max(axis=1)
        table = table.loc[change.sort_values(ascending=False, kind="stable").index[:MOST_CLASSES]]
    changes = table[letters].to_numpy(float)
    hovers = [
        [
            f"{letter}, {row['class']}: {_signed(int(row[letter]))} of {row['examples']} examples "
            f"({reference.letter} has {row[f'{reference.letter} right']} right)"
            for letter in letters
        ]
        for _, row in table.iterrows()
    ]
    most = max(1.0, float(np.abs(changes).max(initial=0)))
    return grid(
        classes_finding(table, letters, reference.letter),
        changes,
        [_short(name) for name in table["class"]],
        letters,
        hovers,
        dark,
        # Orange is for what was lost, as in other charts for what is worse.
        scale=[[1 - at, colour] for at, colour in reversed(stops(dark))],
        range=(-most, most),
        texts=[
            [f"{change:+.0f}".replace("-", "−") if change else "0" for change in row]
            for row in changes
        ],
    )


def stops(dark: bool) -> list[tuple[float, str]]:
    return [(float(str(at)), str(colour)) for at, colour in colours.difference(dark)]


def classes_finding(table: pd.DataFrame, letters: Sequence[str], reference: str) -> str:
    """The class that lost most, of all runs."""
    changes = table[list(letters)].to_numpy(int)
    if changes.min(initial=0) >= 0:
        return f"Right answers by class, against {reference}: no class lost any"
    place, column = np.unravel_index(int(changes.argmin()), changes.shape)
    row = table.iloc[int(place)]
    lost = f"{-changes.min()} of {words.plural(int(row['examples']), 'example')}"
    name = f"{letters[int(column)]} lost {lost} of class {row['class']}"
    return f"Right answers by class, against {reference}: {name}"


def flips(run: Answers, reference: Answers) -> Paired:
    """gained: right in the run alone; lost: in the reference alone."""
    return Paired.of(run.right, reference.right)


def flipped(run: Answers, reference: Answers, most: int) -> tuple[list[int], list[int]]:
    """Numbers of test examples: that only the run has right, and only the reference; `most` each.

    In turn by class, so that no class alone is shown.
    """
    gained = _in_turn(np.flatnonzero(run.right & ~reference.right), run.targets)
    lost = _in_turn(np.flatnonzero(~run.right & reference.right), run.targets)
    return gained[:most], lost[:most]


def _in_turn(examples: NDArray[np.intp], targets: NDArray[Any]) -> list[int]:
    earlier: dict[int, int] = {}
    place = []
    for example in examples:
        target = int(targets[example])
        place.append((earlier.get(target, 0), target, int(example)))
        earlier[target] = earlier.get(target, 0) + 1
    return [example for *_, example in sorted(place)]


# ---------------------------------------------------------------- shared


def _signed(change: int) -> str:
    return "as many right" if not change else f"{change:+d} right".replace("-", "−")


def _short(name: str) -> str:
    return words.layer_name(name, LONGEST_NAME)


def grid(
    title: str,
    z: Floats,
    rows: Sequence[str],
    columns: Sequence[str],
    hovers: Sequence[Sequence[str]],
    dark: bool,
    *,
    scale: Sequence[Sequence[object]],
    range: tuple[float, float],
    format: str = "{}",
    row: int | None = None,
    texts: Sequence[Sequence[str]] | None = None,
) -> Figure:
    """Coloured cells, with their numbers where there is room. z: (rows, columns), NaN: nothing.

    texts: what the cells say in place of their numbers.
    """
    numbered = len(rows) <= MOST_NUMBERED
    height = row or (ROW if numbered else THIN_ROW)
    if texts is None:
        texts = [
            ["" if np.isnan(value) else format.format(value).replace("-", "−") for value in each]
            for each in z
        ]
    # By number: two layers whose names are cut may look the same.
    trace: Figure = {
        "type": "heatmap",
        "x": list(columns),
        "y": list(map(str, np.arange(len(rows)))),
        "z": [
            [None if np.isnan(value) else round(float(value), 4) for value in each] for each in z
        ],
        "zmin": range[0],
        "zmax": range[1],
        "colorscale": [list(stop) for stop in scale],
        "showscale": False,
        "xgap": 2,
        "ygap": 2 if numbered else 0,
        "hoverinfo": "text",
        "hovertext": [list(each) for each in hovers],
    }
    numbers = [numbers_in(trace, texts, 12)] if numbered else []
    tones = colours.palette(dark)
    figure = layout(
        title,
        dark,
        70 + height * max(1, len(rows)),
        xaxis={"side": "top", "tickfont": {"color": tones.text, "size": 14}, "type": "category"},
        yaxis={
            "type": "category",
            "autorange": "reversed",
            "tickvals": list(map(str, np.arange(len(rows)))),
            "ticktext": list(rows),
            "showgrid": False,
            "tickfont": {"color": tones.text, "size": 12 if numbered else 10},
        },
    )
    return {"data": [trace, *numbers], "layout": figure}
