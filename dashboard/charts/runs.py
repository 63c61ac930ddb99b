"""A run as it goes and as it ended: events in, plain data out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from dashboard import colours, words
from pruning.events import Accuracy, Epoch, Event, Finished, Layer, Measured, Measurement, Notice, Pruned, Started
from pruning.ranking import sparse_bytes

DASHES = {"solid": "none", "dot": "2 3", "dash": "6 4", "dashdot": "6 3 2 3", "longdash": "10 4"}
"""Plotly's names of dashes as SVG writes them."""


@dataclass
class Story:
    """What the events told so far. Each list holds (epochs done, event)."""

    epochs: int = 0
    dense: Measurement | None = None
    steps: list[tuple[int, Pruned]] = field(default_factory=list)
    trained: list[tuple[int, Epoch]] = field(default_factory=list)
    measured: list[tuple[int, Measured]] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    finished: Finished | None = None

    @property
    def now(self) -> int:
        """Epochs done."""
        return len(self.trained)


def story(events: Iterable[Event]) -> Story:
    """The events of one attempt, sorted into what the pictures need."""
    told = Story()
    for event in events:
        match event:
            case Started():
                told.epochs = event.epochs
            case Measured(stage="dense"):
                told.dense = event.measurement
            case Measured():
                told.measured.append((told.now, event))
            case Pruned():
                told.steps.append((told.now, event))
            case Epoch():
                told.trained.append((told.now + 1, event))
            case Notice():
                told.notices.append(event.text)
            case Finished():
                told.finished = event
    return told


# ---------------------------------------------------------------- curves


def curves(told: Story, run: str, criterion: str, *, dark: bool, arrive: bool = False) -> dict[str, Any]:
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
    id: str, kind: str, title: str, alt: str, lines: list[dict[str, Any]], dense: list[Any] | None, zero: bool = False
) -> dict[str, Any]:
    return {"id": id, "kind": kind, "title": title, "alt": alt, "lines": lines, "dense": dense, "zero": zero}


def _accuracy(told: Story) -> dict[str, Any]:
    by_epoch = [
        (at, e.accuracy, f"After epoch {at}: {words.percent(e.accuracy)} of the validation examples right.")
        for at, e in told.trained
        if e.accuracy
    ]
    names = {"pruned": "Pruned, before healing", "final": "At the end"}
    tested = [
        (at, e.measurement.accuracy, f"{names.get(e.stage, e.stage)}: {words.percent(e.measurement.accuracy)} of the test examples right.")
        for at, e in told.measured
        if e.measurement.accuracy
    ]
    dense = told.dense.accuracy if told.dense else None
    newest = tested[-1] if told.finished and tested else by_epoch[-1] if by_epoch else tested[-1] if tested else None
    title = f"Accuracy: {words.percent(newest[1])}" if newest else "Accuracy"
    lines = [{"style": "line", "points": [_point(*p) for p in by_epoch]}, {"style": "test", "points": [_point(*p) for p in tested]}]
    alt = f"{title}; dense {words.percent(dense)}." if newest else "Accuracy: no epoch is done yet."
    return _panel(
        "accuracy", "percent", title, alt, lines, [dense.value * 100, f"dense {words.percent(dense.value)} (test)"] if dense else None
    )


def _point(at: int, accuracy: Accuracy, text: str) -> list[Any]:
    low, high = accuracy.interval
    return [at, accuracy.value * 100, low * 100, high * 100, text]


def _loss(told: Story) -> dict[str, Any]:
    held = [
        [at, e.loss, None, None, f"Loss after epoch {at}: {e.loss:.3f} on validation data."] for at, e in told.trained if e.loss is not None
    ]
    train = [[at, e.train_loss, None, None, f"Loss in epoch {at}: {e.train_loss:.3f} on training data (dashed)."] for at, e in told.trained]
    dense = told.dense.loss if told.dense else None
    title = f"Loss: {held[-1][1]:.3f}" if held else "Loss"
    lines = [{"style": "line", "points": held}, {"style": "train", "points": train}]
    return _panel(
        "loss", "number", title, f"{title}.", lines, [dense, f"dense {dense:.3f} (test)"] if dense is not None else None, zero=True
    )


def _left(told: Story) -> dict[str, Any]:
    points = [
        (at, 100 * _kept(e.layers), f"Step {e.step} of {e.steps}: {words.percent(_kept(e.layers))} of the weights left.")
        for at, e in told.steps
    ]
    title = f"Weights left: {words.percent(points[-1][1] / 100)}" if points else "Weights left"
    return _panel("left", "percent", title, f"{title}.", [_stairs(points, 100.0, told.now)], [100.0, "dense 100 %"], zero=True)


def _size(told: Story) -> dict[str, Any]:
    if told.dense is None:
        return _panel("size", "bytes", "File, packed", "File size: not measured yet.", [], None, zero=True)
    dense = told.dense.size.dense
    points = [(at, packed(told.dense, e.layers)) for at, e in told.steps]
    drawn = [
        (at, n, f"Step {e.step} of {e.steps}: {words.size(n)}, a bit for each weight and the values kept.")
        for (at, n), (_, e) in zip(points, told.steps, strict=True)
    ]
    title = f"File, packed: {words.size(points[-1][1])}" if points else "File, packed"
    return _panel(
        "size",
        "bytes",
        title,
        f"{title}; dense {words.size(dense)}.",
        [_stairs(drawn, dense, told.now)],
        [dense, f"dense {words.size(dense)}"],
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


def rows(told: Story) -> pd.DataFrame:
    """The table twin of the curves: one row an epoch."""
    return pd.DataFrame({
        "epoch": [at for at, _ in told.trained],
        "step": [e.step for _, e in told.trained],
        "accuracy, validation": [e.accuracy.value if e.accuracy else None for _, e in told.trained],
        "from": [e.accuracy.interval[0] if e.accuracy else None for _, e in told.trained],
        "to": [e.accuracy.interval[1] if e.accuracy else None for _, e in told.trained],
        "loss, validation": [e.loss for _, e in told.trained],
        "loss, training": [e.train_loss for _, e in told.trained],
        "sparsity": [e.sparsity for _, e in told.trained],
        "learning rate": [e.lr for _, e in told.trained],
        "seconds": [e.seconds for _, e in told.trained],
    })  # fmt: skip


# ---------------------------------------------------------------- results


def within(a: Accuracy | None, b: Accuracy | None) -> bool:
    """Whether two accuracies cannot be told apart: one lies in the other's interval."""
    if a is None or b is None:
        return False
    return a.interval[0] <= b.value <= a.interval[1] or b.interval[0] <= a.value <= b.interval[1]


def result(end: Finished) -> pd.DataFrame:
    """What each stage measured, in words: a column for each stage, and the change from dense to the end."""
    stages = {
        "dense": end.dense,
        **({"pruned, before healing": end.pruned} if end.pruned else {}),
        "after healing" if end.pruned else "pruned": end.final,
    }
    lines: dict[str, list[str]] = {
        "measured": ["accuracy (test)", "loss (test)", "weights", "MACs", "file, packed", "packed and deflated", "latency, one example"]
    }
    for name, held in stages.items():
        lines[name] = [
            words.percent(held.accuracy),
            f"{held.loss:.3f}" if held.loss is not None else words.NOT_MEASURED,
            words.whole(held.kept),
            words.count(held.macs_kept),
            words.size(held.size.sparse),
            words.size(held.size.compressed),
            words.ms(held.latency) if held.latency else ("as dense" if name.startswith("pruned,") else words.NOT_MEASURED),
        ]
    lines["change"] = _changes(end)
    return pd.DataFrame(lines)


def _changes(end: Finished) -> list[str]:
    a, b = end.dense, end.final
    loss = f"{b.loss - a.loss:+.3f}".replace("-", "−") if a.loss is not None and b.loss is not None else ""
    fewer = [(a.kept, b.kept), (a.macs_kept or 0, b.macs_kept or 0), (a.size.sparse, b.size.sparse), (a.size.compressed, b.size.compressed)]
    ratios = [f"{words.times(x / y)} less" if y and x / y >= 1.05 else "no change" for x, y in fewer]
    speed = f"{words.times(b.latency.median / a.latency.median)} the time" if a.latency and b.latency else ""
    moved = words.points(b.accuracy, a.accuracy) if a.accuracy and b.accuracy else ""
    return [moved, loss, *ratios, speed]


def verdict(end: Finished) -> str:
    """The finding, in one sentence: what was gained and what it cost."""
    a, b = end.dense, end.final
    gone = f"{words.share(round(end.sparsity, 4))} of the weights are gone" if end.sparsity else "No weight was removed"
    if not a.accuracy or not b.accuracy:
        return f"{gone}; accuracy was not measured, for there is no test data."
    moved = words.points(b.accuracy, a.accuracy)
    told = ", which is within the interval" if within(a.accuracy, b.accuracy) else ""
    healed = f" ({words.percent(end.pruned.accuracy)} before healing)" if end.pruned and end.pruned.accuracy else ""
    return f"{gone}, and accuracy is {words.percent(b.accuracy)}{healed}: {moved} from dense{told}."


def unimproved(end: Finished) -> str | None:
    """What did not get better, and why, in one sentence; None where nothing was promised."""
    a, b = end.dense.latency, end.final.latency
    if not end.sparsity or a is None or b is None or b.median < 0.8 * a.median:
        return None
    threads = words.plural(b.threads, "CPU thread")
    return (
        f"Not faster: {b.median:.2f} ms against {a.median:.2f} ms for one example on {threads}, "
        "because what was removed is kept as zeros, and zeros are multiplied like any number."
    )


def tiles(end: Finished) -> list[tuple[str, str, str]]:
    """(label, value, what stands beside it): the four numbers to read from three metres."""
    a, b = end.dense, end.final
    moved = words.points(b.accuracy, a.accuracy) if a.accuracy and b.accuracy else ""
    moved += ", within the interval" if within(a.accuracy, b.accuracy) and moved else ""
    return [
        ("Accuracy, test", words.percent(b.accuracy), moved and f"{moved}"),
        ("Weights", words.count(b.kept), f"{words.times(a.kept / max(1, b.kept))} fewer than {words.count(a.kept)}"),
        ("File, packed", words.size(b.size.sparse), f"{words.times(a.size.dense / b.size.sparse)} smaller than {words.size(a.size.dense)}"),
        (
            "Latency",
            f"{b.latency.median:.2f} ms" if b.latency else words.NOT_MEASURED,
            f"dense {a.latency.median:.2f} ms" if a.latency else "",
        ),
    ]
