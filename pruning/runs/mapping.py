"""A sensitivity map as a study: its points go to the store as they are known, so that a page can watch and nothing is lost."""

from __future__ import annotations

from collections.abc import Callable

from pruning.runs.resolve import resolve
from pruning.runs.results import save_study
from pruning.runs.store import Job, Store
from pruning.sensitivity import LEVELS, free, sensitivity

FIELDS = ("criterion", "options", "granularity", "granularity_options", "seed")


def draw(store: Store, job: Job, stop: Callable[[], bool]) -> None:
    """The estimate, then what `tier` asks for, refined in the open; then finished. Raises Stopped, DataError.

    spec: model, the fields of `sensitivity` above, tier, and levels and within where they are not the usual ones.
    """
    spec = job.spec
    work = resolve(spec["model"], store.home, fetch=False)
    asked = {name: spec[name] for name in FIELDS if name in spec}
    levels, points = tuple(spec.get("levels", LEVELS)), 0
    for tier in dict.fromkeys(("estimate", spec["tier"])):
        how = {"tier": tier, "within": spec.get("within", 0.02), "running": True, "workers": free()}
        for point in sensitivity(work, levels=levels, stop=stop, keep=store.home / "maps", **asked, **how):
            store.append(job, point)
            points += 1
    save_study(job.folder, {"what": "map", "model": spec["model"], "tier": spec["tier"], **asked, "levels": levels, "points": points}, {})
    store.finish(job, "finished")
