"""A run's result: the finding in a sentence, the large numbers, the table of stages. Pure."""

from __future__ import annotations

import pandas as pd

from dashboard import words
from dashboard.charts.prune import RunHistory, sparse_file
from pruning.events import Finished, Measurement
from pruning.metrics import accuracy_change

NO_CHANGE = 1.05  # ratios below it are not called an improvement


def stages(end: Finished, finetuned: bool) -> dict[str, Measurement]:
    """What was measured on the way, by its name for people, in order.

    finetuned: something was trained after pruning. Else a recalibrated model is the final one.
    """
    measured = {"dense": end.dense}
    if end.pruned:
        alone = finetuned and not end.recalibrated
        measured["pruned, before fine-tuning" if alone else "pruned"] = end.pruned
    if end.recalibrated and finetuned:
        measured["recalibrated"] = end.recalibrated
    if finetuned:
        last = "after fine-tuning"
    elif end.pruned:
        last = "recalibrated"
    else:
        last = "pruned"
    measured[last] = end.final
    return measured


# ---------------------------------------------------------------- the table of stages


def stage_table(end: Finished, finetuned: bool = True) -> pd.DataFrame:
    """What each stage measured, in words: a column for each, and the change from dense to final."""
    columns = {
        "measured": [
            "accuracy (test)",
            "loss (test)",
            "weights",
            "MACs",
            "sparse file",
            "sparse file, compressed",
            "latency, one example",
        ]
    }
    for name, stage in stages(end, finetuned).items():
        columns[name] = [
            words.percent(stage.accuracy),
            words.NOT_MEASURED if stage.loss is None else f"{stage.loss:.3f}",
            words.whole(stage.kept),
            words.count(stage.macs_kept),
            words.size(stage.size.sparse),
            words.size(stage.size.compressed),
            _latency(stage, end),
        ]
    columns["change"] = _changes(end)
    return pd.DataFrame(columns)


def _latency(stage: Measurement, end: Finished) -> str:
    """Only the dense and the final model are timed: masks alone change no latency."""
    if stage.latency is None and stage is not end.dense and stage is not end.final:
        return "as dense"
    return words.ms(stage.latency)


def _changes(end: Finished) -> list[str]:
    """From dense to final, in the order of the table's rows."""
    dense, final = end.dense, end.final
    accuracy = ""
    if dense.accuracy and final.accuracy:
        accuracy = words.points(final.accuracy, dense.accuracy)
    loss = ""
    if dense.loss is not None and final.loss is not None:
        loss = f"{final.loss - dense.loss:+.3f}".replace("-", "−")
    latency = ""
    if dense.latency and final.latency:
        latency = f"{words.times(final.latency.median / dense.latency.median)} the time"
    return [
        accuracy,
        loss,
        _less(dense.kept, final.kept, "fewer"),
        _less(dense.macs_kept, final.macs_kept, "fewer"),
        _less(dense.size.sparse, final.size.sparse, "smaller"),
        _less(dense.size.compressed, final.size.compressed, "smaller"),
        latency,
    ]


def _less(dense: int | None, final: int | None, word: str) -> str:
    """`3.4× fewer`."""
    if not final or (dense or 0) / final < NO_CHANGE:
        return "no change"
    return f"{words.times((dense or 0) / final)} {word}"


def verdict(end: Finished, finetuned: bool = True) -> str:
    """The finding, in one sentence: what was gained and what it cost."""
    dense, final = end.dense, end.final
    removed = "No weight was removed"
    if end.sparsity:
        removed = f"{words.share(round(end.sparsity, 4))} of the weights are removed"
    if not dense.accuracy or not final.accuracy:
        return f"{removed}; accuracy was not measured, for there is no test data."
    between = list(stages(end, finetuned).items())[1:-1]
    way = [
        f"{words.percent(stage.accuracy)} {name.removeprefix('pruned, ')}"
        for name, stage in between
    ]
    before = f" ({', '.join(way)})" if way else ""
    difference = words.points(final.accuracy, dense.accuracy)
    change = accuracy_change(final, dense)
    tie = ", which is within the interval" if change and change.crosses_zero else ""
    accuracy = words.percent(final.accuracy)
    return f"{removed}, and accuracy is {accuracy}{before}: {difference} from dense{tie}."


# ---------------------------------------------------------------- large numbers


def tiles(run: RunHistory) -> list[tuple[str, str, str]]:
    """(label, value, what stands beside it): the four numbers to read from three metres."""
    if run.finished:
        return _final_tiles(run.finished)
    if run.dense is None:
        labels = ("Accuracy, validation", "Weights kept", "Sparse file", "Latency")
        return [(label, "—", "measuring dense") for label in labels]
    return _tiles_so_far(run, run.dense)


def _final_tiles(end: Finished) -> list[tuple[str, str, str]]:
    dense, final = end.dense, end.final
    change = ""
    if dense.accuracy and final.accuracy:
        change = words.points(final.accuracy, dense.accuracy)
    latency = f"{final.latency.median:.2f} ms" if final.latency else words.NOT_MEASURED
    dense_latency = f"dense {dense.latency.median:.2f} ms" if dense.latency else ""
    return [
        ("Accuracy, test", words.percent(final.accuracy), change),
        ("Weights kept", words.count(final.kept), f"of {words.count(dense.kept)}"),
        ("Sparse file", words.size(final.size.sparse), f"of {words.size(dense.size.dense)}"),
        ("Latency", latency, dense_latency),
    ]


def _tiles_so_far(run: RunHistory, dense: Measurement) -> list[tuple[str, str, str]]:
    accuracy = run.trained[-1][1].accuracy if run.trained else None
    layers = run.steps[-1][1].layers if run.steps else dense.layers
    kept = words.count(sum(layer.kept for layer in layers))
    size = words.size(sparse_file(dense, layers))
    return [
        (
            "Accuracy, validation",
            words.percent(accuracy) if accuracy else "—",
            f"dense {words.percent(dense.accuracy)} (test)",
        ),
        ("Weights kept", kept, f"of {words.count(dense.kept)}"),
        ("Sparse file", size, f"of {words.size(dense.size.dense)}"),
        ("Latency", "—", "at the end"),
    ]
