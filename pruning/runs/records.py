"""What is known of a run that ended, on paper: for its report, and for handouts. No torch."""

from __future__ import annotations

import time

from pruning.events import Epoch, Measured, Pruned, Started
from pruning.export.record import Record
from pruning.formats import datasets
from pruning.runs.resolve import describe, recipe_of, split
from pruning.runs.results import load_run
from pruning.runs.store import Store


def record_of(store: Store, id: str) -> Record:
    """A run that ended with a model. Raises RunError for one that has no result."""
    job = store.job(id)
    files = load_run(job.folder)
    events = [event for _, event in store.events(id)]
    recipe = recipe_of(job.spec)
    measured = (event for event in events if isinstance(event, Measured))
    dense = next((event for event in measured if event.stage == "dense"), None)
    started = next((event for event in events if isinstance(event, Started)), None)
    return Record(
        name=f"Run {id[:6]} on {name_of(recipe.model, store)}",
        recipe=recipe,
        finished=files.finished,
        dense_validation=dense.validation_quality if dense else None,
        stopped=job.state == "stopped",
        pruned=tuple(event for event in events if isinstance(event, Pruned)),
        epochs=tuple(event for event in events if isinstance(event, Epoch)),
        machine=started.machine if started else {},
        histograms=files.histograms,
        date=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(job.ended or job.submitted)),
    )


def name_of(model: str, store: Store) -> str:
    """What people call a model; by an id alone nobody knows an upload or a data set."""
    own, data = datasets.parted(model)
    if data is not None:
        return f"{name_of(own, store)} on {datasets.get(data, store.workspace).name}"
    kind, name = split(own)
    if kind == "upload":
        return str(describe(own, store.workspace)["name"])
    return name if kind == "code" else own
