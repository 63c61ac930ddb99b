"""A run as it goes and as it ended: events in, plain data out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from dashboard import colours, words
from pruning.errors import RecipeError
from pruning.events import (
    Accuracy,
    Epoch,
    Event,
    Finished,
    Forecast,
    Layer,
    Measured,
    Measurement,
    Notice,
    Pruned,
    Started,
)
from pruning.metrics import sparse_bytes
from pruning.recipe import Recipe

DASHES = {"solid": "none", "dot": "2 3", "dash": "6 4", "dashdot": "6 3 2 3", "longdash": "10 4"}
"""Plotly's names of dashes as SVG writes them."""


@dataclass
class RunHistory:
    """What the events told so far. Each list holds (epochs done, event)."""

    epochs: int = 0
    dense: Measurement | None = None
    steps: list[tuple[int, Pruned]] = field(default_factory=list)
    trained: list[tuple[int, Epoch]] = field(default_factory=list)
    measured: list[tuple[int, Measured]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    forecasts: list[Forecast] = field(default_factory=list)
    finished: Finished | None = None

    @property
    def now(self) -> int:
        """Epochs done."""
        return len(self.trained)


def history(events: Iterable[Event]) -> RunHistory:
    """The events of one attempt, sorted into what the pictures need."""
    told = RunHistory()
    for event in events:
        match event:
            case Started():
                told.epochs = event.epochs - of_controls(event)
            case Measured(stage="dense"):
                told.dense = event.measurement
            case Measured():
                told.measured.append((told.now, event))
            case Pruned():
                told.steps.append((told.now, event))
            case Epoch(branch=""):
                told.trained.append((told.now + 1, event))
            case Notice():
                told.notices.append(event.text)
            case Forecast():
                told.forecasts.append(event)
            case Finished():
                told.finished = event
    return told


def of_controls(event: Started) -> int:
    """Epochs that train controls of a lottery, which are no part of the pruned network's own curve."""
    try:
        return Recipe.from_dict(event.recipe).control_epochs()
    except RecipeError:  # of a technique that is no longer there
        return 0


# ---------------------------------------------------------------- curves


def curves(
    told: RunHistory, run: str, criterion: str, *, dark: bool, arrive: bool = False
) -> dict[str, Any]:
    """The data of the live curves. arrive: bring them into view when they first appear."""
    style = colours.technique(criterion, dark)
    panels = [_accuracy(told), _loss(told), _left(told), _size(told)]
    return {
        "run": run,
        "colour": style.colour,
        "dash": DASHES.get(style.dash, "none"),
        "end": max(told.epochs, told.now),
        "xlabel": "epochs",
        "alt": f"{told.now} of {told.epochs} epochs. " + " ".join(panel["alt"] for panel in panels),
        "arrive": arrive,
        "panels": panels,
    }


def _panel(
    id: str,
    kind: str,
    title: str,
    alt: str,
    lines: list[dict[str, Any]],
    dense: list[Any] | None,
    zero: bool = False,
) -> dict[str, Any]:
    return {
        "id": id,
        "kind": kind,
        "title": title,
        "alt": alt,
        "lines": lines,
        "dense": dense,
        "zero": zero,
    }


def _accuracy(told: RunHistory) -> dict[str, Any]:
    by_epoch = [
        (
            at,
            e.accuracy,
            f"After epoch {at}: {words.percent(e.accuracy)} of the validation examples right.",
        )
        for at, e in told.trained
        if e.accuracy
    ]
    names = {"pruned": "Pruned", "recalibrated": "BatchNorm recalibrated", "final": "At the end"}
    tested = [
        (
            at,
            e.measurement.accuracy,
            f"{names.get(e.stage, e.stage)}: {words.percent(e.measurement.accuracy)} of the test examples right.",
        )
        for at, e in told.measured
        if e.measurement.accuracy
    ]
    between = [
        e.stage if e.stage in ("pruned", "recalibrated") else ""
        for _, e in told.measured
        if e.measurement.accuracy
    ]
    dense = told.dense.accuracy if told.dense else None
    newest = (
        tested[-1]
        if told.finished and tested
        else by_epoch[-1]
        if by_epoch
        else tested[-1]
        if tested
        else None
    )
    title = f"Accuracy: {words.percent(newest[1])}" if newest else "Accuracy"
    lines = [
        {"style": "line", "name": "validation", "points": [_point(*p) for p in by_epoch]},
        {
            "style": "test",
            "name": "test",
            "points": [[*_point(*p), True, name] for p, name in zip(tested, between, strict=True)],
        },
    ]
    alt = f"{title}; dense {words.percent(dense)}." if newest else "Accuracy: no epoch is done yet."
    return _panel(
        "accuracy", "percent", title, alt, lines, [dense.value * 100, "dense"] if dense else None
    )


def _point(at: int, accuracy: Accuracy, text: str) -> list[Any]:
    low, high = accuracy.interval
    return [at, accuracy.value * 100, low * 100, high * 100, text]


def _loss(told: RunHistory) -> dict[str, Any]:
    held = [
        [at, e.loss, None, None, f"Loss after epoch {at}: {e.loss:.3f} on validation data."]
        for at, e in told.trained
        if e.loss is not None
    ]
    train = [
        [
            at,
            e.train_loss,
            None,
            None,
            f"Loss in epoch {at}: {e.train_loss:.3f} on training data (dashed).",
        ]
        for at, e in told.trained
    ]
    dense = told.dense.loss if told.dense else None
    title = f"Loss: {held[-1][1]:.3f}" if held else "Loss"
    lines = [
        {"style": "line", "name": "validation", "points": held},
        {"style": "train", "name": "training", "points": train},
    ]
    return _panel(
        "loss",
        "number",
        title,
        f"{title}.",
        lines,
        [dense, "dense"] if dense is not None else None,
        zero=True,
    )


def _left(told: RunHistory) -> dict[str, Any]:
    points = [
        (
            at,
            100 * _kept(e.layers),
            f"Step {e.step} of {e.steps}: {words.percent(_kept(e.layers))} of the weights left.",
        )
        for at, e in told.steps
    ]
    title = f"Weights left: {words.percent(points[-1][1] / 100)}" if points else "Weights left"
    return _panel(
        "left",
        "percent",
        title,
        f"{title}.",
        [_stairs(points, 100.0, told.now)],
        [100.0, "dense"],
        zero=True,
    )


def _size(told: RunHistory) -> dict[str, Any]:
    if told.dense is None:
        return _panel(
            "size", "bytes", "File, packed", "File size: not measured yet.", [], None, zero=True
        )
    dense = told.dense.size.dense
    points = [(at, packed(told.dense, e.layers)) for at, e in told.steps]
    drawn = [
        (
            at,
            n,
            f"Step {e.step} of {e.steps}: {words.size(n)}, a bit for each weight and the values kept.",
        )
        for (at, n), (_, e) in zip(points, told.steps, strict=True)
    ]
    title = f"File, packed: {words.size(points[-1][1])}" if points else "File, packed"
    return _panel(
        "size",
        "bytes",
        title,
        f"{title}; dense {words.size(dense)}.",
        [_stairs(drawn, dense, told.now)],
        [dense, "dense"],
        zero=True,
    )


def _stairs(points: Sequence[tuple[int, float, str]], start: float, now: int) -> dict[str, Any]:
    """A line that drops where weights were removed and runs level between."""
    drawn, level = [[0, start, None, None, "", False]], start
    for at, value, text in points:
        drawn += [[at, level, None, None, "", False], [at, value, None, None, text, True]]
        level = value
    return {"style": "steps", "points": [*drawn, [now, level, None, None, "", False]]}


def _kept(layers: Sequence[Layer]) -> float:
    return sum(layer.kept for layer in layers) / max(1, sum(layer.total for layer in layers))


def packed(dense: Measurement, layers: Sequence[Layer]) -> int:
    """Bytes of the file as a bit for each weight and the values kept; what is not covered stays as it is."""
    rest = dense.size.dense - 4 * sum(layer.total for layer in layers)
    return rest + sum(sparse_bytes(layer.total, layer.kept) for layer in layers)


def rows(told: RunHistory) -> pd.DataFrame:
    """The table twin of the curves: one row an epoch."""
    taught = any(e.teacher is not None for _, e in told.trained)
    teacher = {"loss, teacher": [e.teacher for _, e in told.trained]} if taught else {}
    return pd.DataFrame(
        {
            "epoch": [at for at, _ in told.trained],
            "step": [e.step for _, e in told.trained],
            "accuracy, validation": [
                e.accuracy.value if e.accuracy else None for _, e in told.trained
            ],
            "from": [e.accuracy.interval[0] if e.accuracy else None for _, e in told.trained],
            "to": [e.accuracy.interval[1] if e.accuracy else None for _, e in told.trained],
            "loss, validation": [e.loss for _, e in told.trained],
            "loss, training": [e.train_loss for _, e in told.trained],
            **teacher,
            "sparsity": [e.sparsity for _, e in told.trained],
            "learning rate": [e.lr for _, e in told.trained],
            "seconds": [e.seconds for _, e in told.trained],
        }
    )
