"""The sensitivity map as a study: its points go to the store as they are measured."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

from torch import nn

from pruning.devices import on_device
from pruning.events import Point
from pruning.prepare import ready
from pruning.runs import server_device
from pruning.runs.resolve import resolve
from pruning.runs.results import save_study
from pruning.runs.store import LIVE, Job, Store
from pruning.sensitivity_map.sensitivity import LEVELS, free, sensitivity
from pruning.training.reconstruct import reconstruct
from pruning.types import Batches, Masks, Workpiece

FIELDS = ("criterion", "options", "granularity", "granularity_options", "embeddings", "seed")
"""Arguments of `sensitivity` that the spec may hold."""

PATIENCE = 10.0
"""Seconds without anybody watching after which a map makes way for another that waits."""


def measure_map(store: Store, job: Job, stop: Callable[[], bool]) -> None:
    """Measure the map and finish the job. Raises Stopped, DataError.

    spec: model, FIELDS, tier, and levels and within where they are not the defaults; reconstruct:
    true where every cell is reconstructed before it is measured. Where another
    map waits and nobody watches this one, it goes back into the queue; what was measured is cached.
    """
    spec = job.spec
    options = {name: spec[name] for name in FIELDS if name in spec}
    levels = tuple(spec.get("levels", LEVELS))
    points = _points(store, spec, levels, options, stop)
    count = 0
    checked = time.monotonic()
    for point in points:
        store.append(job, point)
        count += 1
        # Once a second is enough: it asks the store, and points may come by the hundred.
        if time.monotonic() - checked > 1.0:
            checked = time.monotonic()
            if _must_make_way(store, job):
                # Measuring ends first: once released, the job may be another worker's at once.
                points.close()
                store.release(job)
                return
    asked = {"model": spec["model"], "tier": spec["tier"], **options}
    asked["reconstruct"] = bool(spec.get("reconstruct"))
    save_study(job.folder, {"what": "map", **asked, "levels": levels, "points": count}, {})
    store.finish(job, "finished")


def _points(
    store: Store,
    spec: dict[str, Any],
    levels: tuple[float, ...],
    options: dict[str, Any],
    stop: Callable[[], bool],
) -> Generator[Point, None, None]:
    work = resolve(spec["model"], store.workspace, fetch=False)
    work = ready(on_device(work, server_device.name()))
    repair = None
    if spec.get("reconstruct"):
        data = work.need("train", "Reconstruction")
        repair = partial(reconstructed, work=work, data=data, seed=options.get("seed", 0))
    # The estimate comes first whatever was asked for: a page shows it within seconds. It knows
    # nothing of reconstruction.
    first = () if repair else ("estimate",)
    for tier in dict.fromkeys((*first, spec["tier"])):
        yield from sensitivity(
            work,
            levels=levels,
            tier=tier,
            within=spec.get("within", 0.02),
            running=True,
            workers=free(),
            stop=stop,
            keep=store.workspace / "maps",
            repair=repair,
            **options,
        )


def reconstructed(
    model: nn.Module, masks: Masks, *, work: Workpiece, data: Batches, seed: int
) -> None:
    """Reconstruct one cell's pruned model, in place."""
    reconstruct(model, work.model, masks, data, work.example, seed=seed)


def _must_make_way(store: Store, job: Job) -> bool:
    """Whether another map waits and nobody watches this one."""
    if time.time() - store.watched(job) <= PATIENCE:
        return False
    others = store.jobs("study", LIVE)
    return any(other.id != job.id and other.spec.get("what") == "map" for other in others)
