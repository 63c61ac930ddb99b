"""A run as it goes: its events as a history, and the history as live curves and a table. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, NamedTuple

import pandas as pd

from dashboard import colours, words
from pruning.errors import RecipeError
from pruning.events import (
    Accuracy,
    Epoch,
    Event,
    Finished,
    Forecast,
    Halted,
    Halting,
    Layer,
    Measured,
    Measurement,
    Notice,
    Pruned,
    Started,
)
from pruning.metrics import Quality, Score, sparse_bytes, sparse_head
from pruning.recorded import recorded

DASHES = {"solid": "none", "dot": "2 3", "dash": "6 4", "dashdot": "6 3 2 3", "longdash": "10 4"}
"""Plotly's names of dashes as SVG writes them."""

MOST_POINTS = 160
"""Of a live curve."""

STAGES = {
    "pruned": "Pruned",
    "recalibrated": "BatchNorm recalibrated",
    "reconstructed": "Layers reconstructed",
    "final": "At the end",
}


@dataclass
class RunHistory:
    """A run's events so far, sorted by what curves need. Each list holds (epochs done, event).

    epochs: that the run will train in all, without its controls; planned: with them, None before
    it began; passes, training: epochs trained by now, controls' too, and their seconds; dense: on
    test data;
    dense_validation, dense_validation_loss: the same model on the data that epochs are measured on,
    which runs before November 2026 did not measure; seconds: that a pass over the test data takes.
    """

    epochs: int = 0
    planned: int | None = None
    passes: int = 0
    training: float = 0.0
    dense: Measurement | None = None
    dense_validation: Quality | None = None
    dense_validation_loss: float | None = None
    steps: list[tuple[int, Pruned]] = field(default_factory=list)
    trained: list[tuple[int, Epoch]] = field(default_factory=list)
    measured: list[tuple[int, Measured]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    forecasts: list[Forecast] = field(default_factory=list)
    finished: Finished | None = None
    halting: Halting | None = None
    halted: Halted | None = None
    seconds: float | None = None

    @property
    def result(self) -> Finished | None:
        """What the run ended with; of a stopped run, what it had reached."""
        if self.finished is None and self.halted:
            return self.halted.result
        return self.finished

    @property
    def validation(self) -> dict[str, Quality]:
        """Stage that was measured -> its accuracy, or own metric, on validation data."""
        by_stage = {} if self.dense_validation is None else {"dense": self.dense_validation}
        for _, event in self.measured:
            if event.validation_quality is not None:
                by_stage[event.stage] = event.validation_quality
        return by_stage

    @property
    def done(self) -> int:
        """Epochs trained so far."""
        return len(self.trained)

    @property
    def finetunes(self) -> bool:
        """Something is trained after pruning."""
        return self.epochs > 0


def history(events: Iterable[Event], before: RunHistory | None = None) -> RunHistory:
    """The events of one attempt at a run.

    before: the history that they continue; it stays as it is, for somebody may be reading it.
    """
    run = RunHistory() if before is None else _copied(before)
    for event in events:
        if isinstance(event, Epoch):
            run.passes += 1
            run.training += event.seconds
        match event:
            case Started():
                run.planned = event.epochs
                run.epochs = event.epochs - control_epochs(event.recipe)
            case Measured(stage="dense"):
                run.dense = event.measurement
                run.dense_validation = event.validation_quality
                run.dense_validation_loss = event.validation_loss
                run.seconds = event.seconds
            case Measured():
                run.measured.append((run.done, event))
            case Pruned():
                run.steps.append((run.done, event))
            case Epoch(branch=""):  # a control's epochs are no part of the pruned network's curve
                run.trained.append((run.done + 1, event))
            case Notice():
                run.notices.append(event.text)
            case Forecast():
                run.forecasts.append(event)
            case Finished():
                run.finished = event
            case Halting():
                run.halting = event
            case Halted():
                run.halted = event
    return run


def _copied(run: RunHistory) -> RunHistory:
    """With lists of its own; the events in them are frozen."""
    lists: dict[str, Any] = {
        each.name: list(getattr(run, each.name))
        for each in fields(run)
        if isinstance(getattr(run, each.name), list)
    }
    return replace(run, **lists)


def control_epochs(recipe: dict[str, Any]) -> int:
    """Epochs that train the controls of a lottery. recipe: as plain data."""
    try:
        return recorded(recipe).control_epochs()
    except RecipeError:  # of a technique that is no longer there
        return 0


# ---------------------------------------------------------------- curves


def curves(
    run: RunHistory,
    id: str,
    criterion: str,
    *,
    dark: bool,
    arrive: bool = False,
    short: bool = False,
) -> dict[str, Any]:
    """The data of the live curves.

    arrive: bring them into view when they first appear; short: accuracy and file size alone.
    """
    style = colours.technique(criterion, dark)
    panels = [_accuracy(run), _file_size(run)]
    if not short:
        panels = [_accuracy(run), _loss(run), _kept_weights(run), _file_size(run)]
    takeaways = " ".join(panel["alt"] for panel in panels)
    return {
        "run": id,
        "colour": style.colour,
        "dash": DASHES.get(style.dash, "none"),
        "end": max(run.epochs, run.done),
        "xlabel": "epochs",
        "alt": f"{run.done} of {run.epochs} epochs. {takeaways}",
        "arrive": arrive,
        "short": short,
        "panels": panels,
    }


def _points_shown(trained: Sequence[tuple[int, Epoch]]) -> list[tuple[int, Epoch]]:
    """The epochs that a curve is drawn through: of very many every second, fourth ... and the last.

    A panel has no more pixels, and each of them is sent to every tab whenever the run goes on. The
    table has all.
    """
    apart = 1
    while len(trained) > MOST_POINTS * apart:
        apart *= 2  # doubled, so that the points drawn before stay among those drawn now
    return [*trained[:-1:apart], *trained[-1:]]


def _accuracy(run: RunHistory) -> dict[str, Any]:
    """Validation and its dense line; test as diamonds, dense's own at epoch 0 in neutral colour.

    Of the task's own metric where that is not accuracy.
    """
    validation = []
    for epoch, event in _points_shown(run.trained):
        if event.quality:
            text = f"After epoch {epoch}: {_on(event.quality, 'validation')}."
            validation.append(_accuracy_point(epoch, event.quality, text))
    test = []
    dense = []
    if run.dense and run.dense.quality:
        text = f"Dense: {_on(run.dense.quality, 'test')}."
        dense.append([*_accuracy_point(0, run.dense.quality, text), True, ""])
    for epoch, measured in run.measured:
        quality = measured.measurement.quality
        if quality:
            stage = STAGES.get(measured.stage, measured.stage)
            text = f"{stage}: {_on(quality, 'test')}."
            label = "" if measured.stage == "final" else measured.stage
            test.append([*_accuracy_point(epoch, quality, text), True, label])
    newest = newest_accuracy(run)
    of = newest.accuracy if newest else run.dense_validation
    title = words.heading(of.name if of else "accuracy")
    alt = f"{title}: no epoch is done yet."
    if newest:
        title = f"{title}, {newest.split}: {words.percent(newest.accuracy)}"
        alt = f"{title}; dense {words.percent(newest.dense)}."
    return {
        "id": "accuracy",
        "kind": "number" if of is not None and scale(of) == 1 else "percent",
        "title": title,
        "alt": alt,
        "lines": [
            {"style": "line", "name": "validation", "points": validation},
            {"style": "dense", "name": "dense, test", "points": dense},
            {"style": "test", "name": "test", "points": test},
        ],
        "dense": _dense_line(_height(run.dense_validation)) if run.dense_validation else None,
        "zero": False,
    }


class NewestAccuracy(NamedTuple):
    """An accuracy, and the dense model's of the same split, "validation" or "test"."""

    split: str
    accuracy: Quality
    dense: Quality | None


def newest_accuracy(run: RunHistory) -> NewestAccuracy | None:
    """A finished run's on test data; of one under way, the last epoch's on validation data."""
    dense_test = run.dense.quality if run.dense else None
    validation = [
        NewestAccuracy("validation", event.quality, run.dense_validation)
        for _, event in run.trained
        if event.quality
    ]
    test = [
        NewestAccuracy("test", measured.measurement.quality, dense_test)
        for _, measured in run.measured
        if measured.measurement.quality
    ]
    newest = [*validation, *test] if run.result else [*test, *validation]
    return newest[-1] if newest else None


class AsPruned(NamedTuple):
    """A run's model as its last pruning step left it, beside dense on the same data.

    split: "validation", or "test" in runs that did not measure the former; loss: its change.
    """

    split: str
    dense: Quality
    pruned: Quality
    loss: float | None


def as_pruned(run: RunHistory) -> AsPruned | None:
    """None without data. Where nothing was done after pruning, the final model is as pruned."""
    stages = {measured.stage: measured for _, measured in run.measured}
    measured = stages.get("pruned") or stages.get("final")
    if measured is None or run.dense is None:
        return None
    now = measured.measurement
    if measured.validation_quality and run.dense_validation:
        accuracies = ("validation", run.dense_validation, measured.validation_quality)
        losses = run.dense_validation_loss, measured.validation_loss
    elif now.quality and run.dense.quality:
        accuracies = ("test", run.dense.quality, now.quality)
        losses = run.dense.loss, measured.measurement.loss
    else:
        return None
    before, after = losses
    change = after - before if after is not None and before is not None else None
    return AsPruned(*accuracies, change)


def _dense_line(value: float) -> list[Any]:
    """[value, its name in two lines]: the dense model on validation data, as the curve is."""
    return [value, "dense,\nvalidation"]


def _accuracy_point(epoch: int, quality: Quality, text: str) -> list[Any]:
    """[epoch, value, lowest, highest, what hovering says]; shares in percent."""
    spread, factor = quality.spread, scale(quality)
    if spread is None:
        return [epoch, _height(quality), None, None, text]
    return [epoch, _height(quality), spread.low * factor, spread.high * factor, text]


def scale(quality: Quality) -> float:
    """What values are drawn times: shares in percent, others as they are."""
    return 1.0 if isinstance(quality, Score) and quality.unit != "%" else 100.0


def _height(quality: Quality) -> float:
    return quality.value * scale(quality)


def _on(quality: Quality, split: str) -> str:
    """`98.1 % ± 1.4 of the validation examples right`, or another metric on them."""
    if isinstance(quality, Accuracy):
        return f"{words.percent(quality)} of the {split} examples right"
    return f"{quality.name} {words.percent(quality)} on the {split} examples"


def _loss(run: RunHistory) -> dict[str, Any]:
    validation = []
    training = []
    for epoch, event in _points_shown(run.trained):
        text = f"Loss in epoch {epoch}: {event.train_loss:.3f} on training data (dashed)."
        training.append([epoch, event.train_loss, None, None, text])
        if event.loss is not None:
            text = f"Loss after epoch {epoch}: {event.loss:.3f} on validation data."
            validation.append([epoch, event.loss, None, None, text])
    dense = run.dense_validation_loss
    title = f"Loss, validation: {validation[-1][1]:.3f}" if validation else "Loss"
    return {
        "id": "loss",
        "kind": "number",
        "title": title,
        "alt": f"{title}.",
        "lines": [
            {"style": "line", "name": "validation", "points": validation},
            {"style": "train", "name": "training", "points": training},
        ],
        "dense": None if dense is None else _dense_line(dense),
        "zero": True,
    }


def _kept_weights(run: RunHistory) -> dict[str, Any]:
    title = "Weights kept"
    points = []
    for epoch, event in run.steps:
        kept = sum(layer.kept for layer in event.layers)
        share = kept / max(1, sum(layer.total for layer in event.layers))
        text = f"Step {event.step} of {event.steps}: {words.percent(share)} of the weights kept."
        title = f"Weights kept: {words.percent(share)}"
        points.append((epoch, 100 * share, text))
    return {
        "id": "kept",
        "kind": "percent",
        "title": title,
        "alt": f"{title}.",
        "lines": [_stairs(points, 100.0, run.done)],
        "dense": [100.0, "dense"],
        "zero": True,
    }


def _file_size(run: RunHistory) -> dict[str, Any]:
    panel = {"id": "size", "kind": "bytes", "zero": True}
    title = "Sparse file (bitmask)"
    if run.dense is None:
        alt = "File size: not measured yet."
        return {**panel, "title": title, "alt": alt, "lines": [], "dense": None}
    dense = run.dense.size.dense
    points = []
    for epoch, event in run.steps:
        size = sparse_file(run.dense, event.layers)
        stored = f"{words.size(size)}, a bit for each weight and the values kept"
        title = f"Sparse file (bitmask): {words.size(size)}"
        points.append((epoch, size, f"Step {event.step} of {event.steps}: {stored}."))
    return {
        **panel,
        "title": title,
        "alt": f"{title}; dense {words.size(dense)}.",
        "lines": [_stairs(points, dense, run.done)],
        "dense": [dense, "dense"],
    }


def _stairs(points: Sequence[tuple[int, float, str]], start: float, end: int) -> dict[str, Any]:
    """A line that drops where weights were removed and runs level between, up to epoch `end`.

    points: (epoch, value after the drop, what hovering says).
    """
    corners = [[0, start, None, None, "", False]]
    level = start
    for epoch, value, text in points:
        corners.append([epoch, level, None, None, "", False])
        corners.append([epoch, value, None, None, text, True])
        level = value
    corners.append([end, level, None, None, "", False])
    return {"style": "steps", "points": corners}


def sparse_file(dense: Measurement, layers: Sequence[Layer]) -> int:
    """Bytes of the file as a bit for each weight and the values kept, dense where that is smaller.

    What no recipe covers (biases, norms) stays as it is.
    """
    others = dense.size.dense - 4 * sum(layer.total for layer in layers)
    others += sparse_head(layer.name for layer in layers)
    sparse = sum(sparse_bytes(layer.total, layer.kept) for layer in layers)
    return min(dense.size.dense, others + sparse)


# ---------------------------------------------------------------- the table of the curves


def epochs_table(run: RunHistory) -> pd.DataFrame:
    """One row for each epoch; the teacher's loss only where there is a teacher."""
    table = pd.DataFrame([_epoch_row(number, event) for number, event in run.trained])
    if "loss, teacher" in table and table["loss, teacher"].isna().all():
        return table.drop(columns="loss, teacher")
    return table


def _epoch_row(number: int, event: Epoch) -> dict[str, Any]:
    quality = event.quality
    spread = quality.spread if quality else None
    name = quality.name if quality else "accuracy"
    return {
        "epoch": number,
        "step": event.step,
        f"{name}, validation": quality.value if quality else None,
        "from": spread.low if spread else None,
        "to": spread.high if spread else None,
        "loss, validation": event.loss,
        "loss, training": event.train_loss,
        "loss, teacher": event.teacher,
        "sparsity": event.sparsity,
        "learning rate": event.lr,
        "seconds": event.seconds,
    }
