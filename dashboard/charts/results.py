"""A run's result: the finding in a sentence, the large numbers, the table of stages. Pure."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from dashboard import words
from dashboard.charts.prune import RunHistory, sparse_file
from pruning.describe import RunFacts
from pruning.events import Finished, Measurement
from pruning.metrics import Quality, quality_change
from pruning.recipe import Recipe

WHOLE_MACS = "MACs of the whole model"
"""With those that belong to no weight: what published figures count."""

NO_CHANGE = 1.05  # ratios below it are not called an improvement


def stages(end: Finished, recipe: Recipe) -> dict[str, Measurement]:
    """What was measured on the way, by its name for people, in order."""
    measured = {"dense": end.dense}
    if end.pruned:
        measured[pruned_stage(recipe)] = end.pruned
    if end.recalibrated and recipe.epochs:
        measured["recalibrated"] = end.recalibrated
    if end.reconstructed and recipe.epochs:
        measured["reconstructed"] = end.reconstructed
    if recipe.epochs:
        last = "after fine-tuning"
    elif end.pruned:  # without training it was measured only because a repair followed
        last = "reconstructed" if recipe.reconstruct else "recalibrated"
    else:
        last = "pruned"
    measured[last] = end.final
    if end.compact:
        measured["compact"] = end.compact
    return measured


def pruned_stage(recipe: Recipe) -> str:
    """When "pruned" was measured, in words. With several steps much was fine-tuned before it."""
    if recipe.steps == 1:
        return "right after one-shot pruning"
    if (
        recipe.schedule == "one_shot"
    ):  # all is removed in the first step; it is measured in the last
        return "before the last fine-tuning"
    return "after the last pruning step"


# ---------------------------------------------------------------- the table of stages


def stage_table(
    end: Finished, recipe: Recipe, validation: Mapping[str, Quality] | None = None
) -> pd.DataFrame:
    """What each stage measured, in words: a column for each, and the change from dense to the
    model that the run is for.

    validation: stage of its event ("dense", "pruned", "final" ...) -> on validation data, by the
    same metric.
    """
    more = has_other_macs(end)
    names = [
        f"{_metric(end)} (test)",
        "loss (test)",
        "weights",
        "MACs of these weights" if more else "MACs",
        *([WHOLE_MACS] if more else []),
        "sparse file (bitmask)",
        "sparse file, compressed",
        "latency, one example",
    ]
    columns = {"measured": names}
    for name, stage in stages(end, recipe).items():
        columns[name] = [
            words.percent(stage.quality),
            words.NOT_MEASURED if stage.loss is None else f"{stage.loss:.3f}",
            words.whole(stage.kept),
            words.count(stage.macs_kept),
            *([words.count(stage.all_macs_kept)] if more else []),
            words.size(stage.size.sparse),
            words.size(stage.size.compressed),
            _latency(stage, end),
        ]
    columns["change"] = _changes(end, more)
    table = pd.DataFrame(columns)
    if not validation:
        return table
    row = {"measured": f"{_metric(end)} (validation)"}
    for name, stage in stages(end, recipe).items():
        row[name] = words.percent(validation.get(_event_stage(stage, end)))
    row["change"] = words.points(validation.get("final"), validation.get("dense"))
    return pd.concat([table[:1], pd.DataFrame([row]), table[1:]], ignore_index=True)


def _metric(end: Finished) -> str:
    """What the task is judged by."""
    quality = end.deliverable.quality or end.dense.quality
    return quality.name if quality else "accuracy"


def _event_stage(stage: Measurement, end: Finished) -> str:
    """The event that measured a stage; the compact model answers as the masked one at the end."""
    way = {
        "dense": end.dense,
        "pruned": end.pruned,
        "recalibrated": end.recalibrated,
        "reconstructed": end.reconstructed,
    }
    return next((name for name, measured in way.items() if measured is stage), "final")


def has_other_macs(end: Finished) -> bool:
    """Whether some of the model's MACs belong to no weight: attention's two products."""
    return bool(end.dense.macs_other)


def _between(end: Finished) -> tuple[Measurement | None, ...]:
    """What was measured on the way from dense to the end."""
    return (end.pruned, end.recalibrated, end.reconstructed)


def _latency(stage: Measurement, end: Finished) -> str:
    """Stages on the way are not timed: masks alone change no latency."""
    if stage.latency is None and stage in _between(end):
        return "as dense"
    return words.ms(stage.latency)


def _changes(end: Finished, more: bool) -> list[str]:
    """From dense to the last column, in the order of the table's rows. more: `has_other_macs`."""
    dense, final = end.dense, end.deliverable
    accuracy = ""
    if dense.quality and final.quality:
        accuracy = words.points(final.quality, dense.quality)
    loss = ""
    if dense.loss is not None and final.loss is not None:
        loss = f"{final.loss - dense.loss:+.3f}".replace("-", "−")
    latency = ""
    if dense.latency and final.latency:
        latency = f"{words.times(final.latency.median / dense.latency.median)} the time"
    whole_macs = [_less(dense.all_macs_kept, final.all_macs_kept, "fewer")] if more else []
    return [
        accuracy,
        loss,
        _less(dense.kept, final.kept, "fewer"),
        _less(dense.macs_kept, final.macs_kept, "fewer"),
        *whole_macs,
        _less(dense.size.sparse, final.size.sparse, "smaller"),
        _less(dense.size.compressed, final.size.compressed, "smaller"),
        latency,
    ]


def _less(dense: int | None, final: int | None, word: str) -> str:
    """`3.4× fewer`."""
    if not final or (dense or 0) / final < NO_CHANGE:
        return "no change"
    return f"{words.times((dense or 0) / final)} {word}"


def verdict(end: Finished, recipe: Recipe, facts: RunFacts | None) -> str:
    """The finding, in two sentences: what was pruned and what it cost. Accuracies are on test.

    facts: what the run did, None where it pruned nothing.
    """
    dense, final = end.dense, end.deliverable
    did = words.outcome(facts)
    if not dense.quality or not final.quality:
        why = final.not_measured.get("accuracy", "there is no test data")
        return f"{did} Accuracy was not measured: {why}."
    between = [
        (name, stage) for name, stage in stages(end, recipe).items() if stage in _between(end)
    ]
    way = [f"{words.percent(stage.quality)} {name}" for name, stage in between]
    before = f" ({', '.join(way)})" if way else ""
    difference = words.points(final.quality, dense.quality)
    change = quality_change(final, dense)
    tie = ", which is within the interval" if change and change.crosses_zero else ""
    name = words.heading(final.quality.name)
    return f"{did} {name} is {words.percent(final.quality)}{before}: {difference} from dense{tie}."


def stopping(run: RunHistory) -> str:
    """What a run does that was asked to stop."""
    if run.halting is None:
        return "stopping with the batch that is under way"
    measuring = "measuring what it reached on test data"
    time = f", about {words.seconds(run.seconds)}" if run.seconds is not None else ""
    return f"stopped {run.halting.where}; {measuring}{time}"


def stopped(run: RunHistory) -> str:
    """How far a stopped run came, and what of it is kept."""
    halted = run.halted
    if halted is None or halted.result is None:
        return "Stopped before its first epoch or step was done: nothing of it is kept."
    return (
        f"Stopped {halted.where}. The weights and masks of that moment are kept, measured on test "
        "data but not timed: compare them, or continue from them."
    )


# ---------------------------------------------------------------- large numbers


def file_bytes(measured: Measurement) -> int:
    """Of the sparse file, which for a compact model is the plain one: the improvements' figure."""
    return measured.size.sparse


def tiles(run: RunHistory) -> list[tuple[str, str, str]]:
    """(label, value, what stands beside it): the numbers to read from three metres."""
    if run.result:
        return final_tiles(run.result)
    if run.dense is None:
        labels = ("Accuracy, validation", "Weights kept", "Sparse file", "Latency")
        return [(label, "—", "measuring dense") for label in labels]
    return _tiles_so_far(run, run.dense)


def final_tiles(end: Finished) -> list[tuple[str, str, str]]:
    """Of the compact model where there is one, for it is what one takes away; else masked."""
    dense, final = end.dense, end.deliverable
    of = ", compact" if end.compact else ""
    beside = f"dense {words.percent(dense.quality)}" if dense.quality else ""
    shown = [
        (f"{words.heading(_metric(end))}, test", words.percent(final.quality), beside),
        (f"Weights{of}", words.count(final.kept), f"dense {words.count(dense.kept)}"),
        (
            f"File{of}",
            words.size(file_bytes(final)),
            f"dense {words.size(dense.size.dense)}",
        ),
    ]
    if end.compact and final.memory and dense.memory:  # masks alone change no memory
        memory = words.size(final.memory.weights)
        shown.append((f"Memory{of}", memory, f"dense {words.size(dense.memory.weights)}"))
    return [*shown, (f"Latency{of}", _milliseconds(final), f"dense {_milliseconds(dense)}")]


def _milliseconds(measured: Measurement) -> str:
    """The median alone: its spread stands in the table."""
    if measured.latency is None:
        return words.NOT_MEASURED
    return words.ms(measured.latency).split(" (")[0]


def _tiles_so_far(run: RunHistory, dense: Measurement) -> list[tuple[str, str, str]]:
    quality = run.trained[-1][1].quality if run.trained else None
    known = quality or run.dense_validation or dense.quality
    layers = run.steps[-1][1].layers if run.steps else dense.layers
    kept = words.count(sum(layer.kept for layer in layers))
    size = words.size(sparse_file(dense, layers))
    return [
        (
            f"{words.heading(known.name if known else 'accuracy')}, validation",
            words.percent(quality) if quality else "—",
            f"dense {words.percent(run.dense_validation)}" if run.dense_validation else "",
        ),
        ("Weights kept", kept, f"of {words.count(dense.kept)}"),
        ("Sparse file", size, f"of {words.size(dense.size.dense)}"),
        ("Latency", "—", "at the end"),
    ]
