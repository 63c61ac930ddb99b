"""One run as a flat row of plain values: what charts, files and the shell take.

`pandas.DataFrame(rows)` is the table of a sweep, whether its runs are in the store or shipped.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

from pruning.events import Finished
from pruning.metrics import Measurement, Quality
from pruning.recipe import Recipe
from pruning.runs.store import state_word
from pruning.sweeps.plan import Point

COLUMNS = (
    "model",
    "technique",
    "control",
    "criterion",
    "granularity",
    "scope",
    "schedule",
    "sparsity",
    "seed",
    "recipe",
    "run",
    "state",
    "metric",
    "higher_is_better",
    "accuracy",
    "low",
    "high",
    "accuracy_pruned",
    "dense",
    "gained",
    "lost",
    "examples",
    "weights_kept",
    "macs",
    "bytes",
    "latency_ms",
    "dense_latency_ms",
    "seconds",
)
"""Of every row, in this order. None: not measured, or not yet.

control: "" or one of plan.CONTROLS; sparsity: the level that was asked for; recipe: its id; run:
the job's id, None where it was made elsewhere; state: queued, running, done, failed, cancelled or
diverged; accuracy: of the final model on test data, a share (or what the metric says), low and
high: its 95 % interval; accuracy_pruned: before fine-tuning; dense: of the dense model; gained,
lost: test examples that only the final model answers correctly, or only the dense one, of
`examples`; weights_kept, macs: shares of the dense model's; bytes: of the file with zeros left out;
latency_ms: of one example, dense's in the same rounds. From weights_kept on, of the compact model
where there is one. seconds: that the run took.
"""


def row(
    point: Point, finished: Finished | None = None, *, run: str | None = None, state: str = "done"
) -> dict[str, Any]:
    """A point as a row; without figures while it has no result. state: the job's or in words."""
    recipe = point.recipe
    values: dict[str, Any] = dict.fromkeys(COLUMNS)
    values |= {
        "model": point.model,
        "technique": point.technique,
        "control": point.control,
        "criterion": recipe.criterion,
        "granularity": recipe.granularity,
        "scope": recipe.scope,
        "schedule": recipe.schedule,
        "sparsity": point.sparsity,
        "seed": point.seed,
        "recipe": recipe.id,
        "run": run,
        "state": state_word(state),
    }
    return values if finished is None else values | figures(finished)


def point_of(recipe: Recipe) -> Point:
    """A run that is part of no sweep, as a point: its technique is called by its criterion."""
    return Point(recipe.model, recipe.criterion, recipe.sparsity, recipe.seed, recipe)


def figures(finished: Finished) -> dict[str, Any]:
    """What a run measured: the columns from `metric` on."""
    final, dense, small = finished.final, finished.dense, finished.deliverable
    quality = final.quality
    spread = quality.spread if quality else None
    pruned = finished.pruned or final
    paired = final.paired
    return {
        "metric": quality.name if quality else None,
        "higher_is_better": quality.higher_is_better if quality else None,
        "accuracy": _value(quality),
        "low": _number(spread.low) if spread else None,
        "high": _number(spread.high) if spread else None,
        "accuracy_pruned": _value(pruned.quality),
        "dense": _value(dense.quality),
        "gained": paired.gained if paired else None,
        "lost": paired.lost if paired else None,
        "examples": final.accuracy.total if final.accuracy else None,
        "weights_kept": _number(small.kept / dense.weights) if dense.weights else None,
        "macs": _share_of_macs(small, dense),
        "bytes": small.size.sparse,
        "latency_ms": _milliseconds(small),
        "dense_latency_ms": _milliseconds(dense),
        "seconds": round(finished.seconds, 2),
    }


def _value(quality: Quality | None) -> float | None:
    return None if quality is None else _number(quality.value)


def _number(value: float | None) -> float | None:
    """Rounded to what a picture can show; None for what is no number, which JSON cannot hold."""
    return round(float(value), 6) if value is not None and isfinite(value) else None


def _share_of_macs(small: Measurement, dense: Measurement) -> float | None:
    """Of the whole model's multiply-accumulates, without those of zero weights."""
    before, after = dense.all_macs, small.all_macs_kept
    return _number(after / before) if before and after is not None else None


def _milliseconds(measured: Measurement) -> float | None:
    return round(measured.latency.median, 5) if measured.latency else None
