"""A sensitivity map as a study: its points go to the store as they are known, so that a page can watch and nothing is lost."""

from __future__ import annotations

import time
from collections.abc import Callable

from pruning.runs.resolve import resolve
from pruning.runs.results import save_study
from pruning.runs.store import LIVE, Job, Store
from pruning.sensitivity_map.measure import LEVELS, free, sensitivity

FIELDS = ("criterion", "options", "granularity", "granularity_options", "seed")


PATIENCE = 10.0
"""Seconds without anybody looking after which a map makes way for another that waits."""


class _MakesWay(Exception):
    """Another map waits, and nobody looks at this one."""


def draw(store: Store, job: Job, stop: Callable[[], bool]) -> None:
    """The estimate, then what `tier` asks for, refined in the open; then finished. Raises Stopped, DataError.

    spec: model, the fields of `sensitivity` above, tier, and levels and within where they are not the usual ones.
    Where another map waits and nobody looks at this one, it goes back into the queue; what was measured is kept.
    """
    spec, looked = job.spec, time.monotonic()
    work = resolve(spec["model"], store.workspace, fetch=False)
    asked = {name: spec[name] for name in FIELDS if name in spec}
    levels, points = tuple(spec.get("levels", LEVELS)), 0
    try:
        for tier in dict.fromkeys(("estimate", spec["tier"])):
            how = {
                "tier": tier,
                "within": spec.get("within", 0.02),
                "running": True,
                "workers": free(),
            }
            for point in sensitivity(
                work, levels=levels, stop=stop, keep=store.workspace / "maps", **asked, **how
            ):
                store.append(job, point)
                points += 1
                if time.monotonic() - looked > 1.0:
                    looked = time.monotonic()
                    _make_way(store, job)
    except _MakesWay:
        store.release(job)
        return
    save_study(
        job.folder,
        {
            "what": "map",
            "model": spec["model"],
            "tier": spec["tier"],
            **asked,
            "levels": levels,
            "points": points,
        },
        {},
    )
    store.finish(job, "finished")


def _make_way(store: Store, job: Job) -> None:
    """Raises _MakesWay."""
    try:
        silent = time.time() - max((job.folder / "watched").stat().st_mtime, job.started or 0.0)
    except OSError:
        silent = time.time() - (job.started or 0.0)
    others = store.jobs("study", LIVE)
    if silent > PATIENCE and any(
        other.id != job.id and other.spec.get("what") == "map" for other in others
    ):
        raise _MakesWay
