"""What a run came to: the finding, the large numbers, the table, and what did not improve. Pure."""

from __future__ import annotations

import pandas as pd

from dashboard import words
from dashboard.charts.prune import RunHistory, packed
from pruning.events import Finished, Measurement
from pruning.metrics import accuracy_change


def stages(end: Finished, healed: bool) -> dict[str, Measurement]:
    """What was measured on the way, by its name for people, in order. healed: something was trained after pruning."""
    last = "after healing" if healed else "recalibrated" if end.pruned else "pruned"
    before = "pruned, before healing" if healed and not end.recalibrated else "pruned"
    between = {before: end.pruned, "recalibrated": end.recalibrated if healed else None}
    return {
        "dense": end.dense,
        **{name: held for name, held in between.items() if held},
        last: end.final,
    }


def result(end: Finished, healed: bool = True) -> pd.DataFrame:
    """What each stage measured, in words: a column for each stage, and the change from dense to the end."""
    lines: dict[str, list[str]] = {
        "measured": [
            "accuracy (test)",
            "loss (test)",
            "weights",
            "MACs",
            "file, packed",
            "packed and deflated",
            "latency, one example",
        ]
    }
    for name, held in stages(end, healed).items():
        lines[name] = [
            words.percent(held.accuracy),
            f"{held.loss:.3f}" if held.loss is not None else words.NOT_MEASURED,
            words.whole(held.kept),
            words.count(held.macs_kept),
            words.size(held.size.sparse),
            words.size(held.size.compressed),
            words.ms(held.latency)
            if held.latency
            else ("as dense" if held is not end.final and name != "dense" else words.NOT_MEASURED),
        ]
    lines["change"] = _changes(end)
    return pd.DataFrame(lines)


def _changes(end: Finished) -> list[str]:
    a, b = end.dense, end.final
    loss = (
        f"{b.loss - a.loss:+.3f}".replace("-", "−")
        if a.loss is not None and b.loss is not None
        else ""
    )
    fewer = [
        (a.kept, b.kept),
        (a.macs_kept or 0, b.macs_kept or 0),
        (a.size.sparse, b.size.sparse),
        (a.size.compressed, b.size.compressed),
    ]
    less = ("fewer", "fewer", "smaller", "smaller")
    ratios = [
        f"{words.times(x / y)} {said}" if y and x / y >= 1.05 else "no change"
        for (x, y), said in zip(fewer, less, strict=True)
    ]
    speed = (
        f"{words.times(b.latency.median / a.latency.median)} the time"
        if a.latency and b.latency
        else ""
    )
    moved = words.points(b.accuracy, a.accuracy) if a.accuracy and b.accuracy else ""
    return [moved, loss, *ratios, speed]


def verdict(end: Finished, healed: bool = True) -> str:
    """The finding, in one sentence: what was gained and what it cost."""
    a, b = end.dense, end.final
    gone = (
        f"{words.share(round(end.sparsity, 4))} of the weights are gone"
        if end.sparsity
        else "No weight was removed"
    )
    if not a.accuracy or not b.accuracy:
        return f"{gone}; accuracy was not measured, for there is no test data."
    moved = words.points(b.accuracy, a.accuracy)
    change = accuracy_change(b, a)
    told = ", which is within the interval" if change and change.crosses_zero else ""
    before = [
        f"{words.percent(held.accuracy)} {name}"
        for name, held in list(stages(end, healed).items())[1:-1]
    ]
    way = f" ({', '.join(before).replace('pruned, before', 'before')})" if before else ""
    return f"{gone}, and accuracy is {words.percent(b.accuracy)}{way}: {moved} from dense{told}."


def tiles(told: RunHistory) -> list[tuple[str, str, str]]:
    """(label, value, what stands beside it): the four numbers to read from three metres, while it runs and when it has ended."""
    if told.finished is None:
        return _tiles_so_far(told)
    a, b = told.finished.dense, told.finished.final
    return [
        (
            "Accuracy, test",
            words.percent(b.accuracy),
            words.points(b.accuracy, a.accuracy) if a.accuracy and b.accuracy else "",
        ),
        ("Weights left", words.count(b.kept), f"of {words.count(a.kept)}"),
        ("File, packed", words.size(b.size.sparse), f"of {words.size(a.size.dense)}"),
        (
            "Latency",
            f"{b.latency.median:.2f} ms" if b.latency else words.NOT_MEASURED,
            f"dense {a.latency.median:.2f} ms" if a.latency else "",
        ),
    ]


def _tiles_so_far(told: RunHistory) -> list[tuple[str, str, str]]:
    if told.dense is None:
        return [
            (label, "—", "measuring dense")
            for label in ("Accuracy, validation", "Weights left", "File, packed", "Latency")
        ]
    dense = told.dense
    accuracy = told.trained[-1][1].accuracy if told.trained else None
    layers = told.steps[-1][1].layers if told.steps else dense.layers
    return [
        (
            "Accuracy, validation",
            words.percent(accuracy) if accuracy else "—",
            f"dense {words.percent(dense.accuracy)} (test)",
        ),
        (
            "Weights left",
            words.count(sum(layer.kept for layer in layers)),
            f"of {words.count(dense.kept)}",
        ),
        ("File, packed", words.size(packed(dense, layers)), f"of {words.size(dense.size.dense)}"),
        ("Latency", "—", "at the end"),
    ]
