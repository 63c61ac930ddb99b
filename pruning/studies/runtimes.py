"""How fast a run's models are in runtimes that take long to prepare, beside the dense one."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

from pruning.adapted import adapted_like
from pruning.errors import RunError
from pruning.measurement import time_in_onnx
from pruning.prepare import ready
from pruning.structure.shrink import shrink
from pruning.studies.weights import Arrays
from pruning.types import Masks, Workpiece

FinishedRun = Callable[[str], tuple[Workpiece, Masks | None]]
"""Run id -> the model that it ended with, and its masks where it left a compact model too."""


def runtimes(
    spec: dict[str, Any], work: Workpiece, finished: FinishedRun | None
) -> tuple[dict[str, Any], Arrays]:
    """spec["run"]: the id of a finished run that started from `work`.

    json: dense, final and, where the run left one, compact: each a list of timings.
    Raises RunError where no finished run is handed in.
    """
    if finished is None:
        raise RunError("Runtimes are measured of a finished run: choose one.")
    # Late, because most studies need no run, and loading one takes a while.
    final, masks = finished(spec["run"])
    final = ready(final)
    works = {"dense": work.reference, "final": final}
    if masks is not None and work.example is not None:
        compact = shrink(final.model, masks, work.example)
        works["compact"] = replace(work, model=adapted_like(compact, final.model))
    data: dict[str, Any] = {"run": spec["run"]}
    # All at once, so that they are timed in the same rounds and a busy machine slows each alike.
    for name, timings in zip(works, time_in_onnx(list(works.values())), strict=True):
        data[name] = [asdict(timing) for timing in timings]
    return data, {}
