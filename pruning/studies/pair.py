"""Two runs' answers to the same test examples: what tells apart two accuracies that lie close."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pruning.errors import DataError, RunError
from pruning.measurement.quality import logits, paired
from pruning.prepare import ready
from pruning.studies.runtimes import FinishedRun
from pruning.studies.weights import Arrays
from pruning.types import Workpiece


def pair(
    spec: dict[str, Any], work: Workpiece, finished: FinishedRun | None
) -> tuple[dict[str, Any], Arrays]:
    """spec["run"], spec["other"]: ids of two runs on models with the test data of `work`.

    json: "answers", a `Paired` in which `other` stands in the place of the dense model.
    Raises RunError where no runs are handed in, DataError without test data.
    """
    if finished is None:
        raise RunError("Answers are paired of two finished runs: choose two.")
    test = work.need("test", "Pairing answers")
    models = [ready(finished(spec[name])[0]).model for name in ("run", "other")]
    this, other = (logits(model, test) for model in models)
    answers = paired(this, other, test, work.metric)
    if answers is None:
        raise DataError(
            "Answers are paired where they are right or wrong, and these targets are not one class "
            "for each example: compare the metrics instead."
        )
    return {"run": spec["run"], "other": spec["other"], "answers": asdict(answers)}, {}
