"""Sweeps of the workspace and of the samples, as pages use them. Imports no torch."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from statistics import median
from typing import Any

import numpy as np
import streamlit as st
from numpy.typing import NDArray

from dashboard import jobs, state, tables, visitors
from pruning.errors import PruningError, RunError
from pruning.metrics import Paired
from pruning.recipe import Recipe
from pruning.runs.store import Sweep
from pruning.storage import default_workspace
from pruning.sweeps import shipped, sweeps, table
from pruning.sweeps.comparison import Pairing, Row
from pruning.sweeps.plan import Plan
from pruning.sweeps.shipped import Shipped
from pruning.sweeps.sweeps import Progress

SHIPPED = "shipped:"
"""Begins the id of a sweep that comes with a sample model."""

TWENTIETH = 20
"""Of a sweep that works: its picture is drawn anew after each. With every run that ends, a figure
would be replaced under the pointer of whoever reads it."""

OWN_RUNS = 40
"""Newest runs of the workspace that a sample's picture shows beside its sweep."""

NOT_YOURS = (
    "This sweep is somebody else's: they can change it, and whoever started the server. Use its "
    "plan for one of your own."
)


def listed() -> list[Sweep]:
    """Of this workspace, newest first."""
    return [sweep for sweep in jobs.store().sweeps() if visitors.may_change(sweep.visitor)]


def submit(plan: Plan) -> str | None:
    """Queue a plan's runs; the sweep's id. Why it could not be is a warning."""
    try:
        jobs.ensure()
        return sweeps.submit(jobs.store(), plan, visitors.me())
    except PruningError as error:
        state.warn(str(error))
        return None


def expected(plan: Plan) -> float | None:
    """Seconds that a plan takes at most; None where nothing like it was timed on this machine."""
    return sweeps.expected(jobs.store(), plan)


def expected_elsewhere(plan: Plan) -> float | None:
    """The same by the runs of shipped sweeps, in proportion to the epochs; None for other models.

    They were timed on another machine, which is better to know than nothing.
    """
    seconds = 0.0
    for model in plan.models:
        sweep = shipped.find(model)
        if sweep is None:
            return None
        took = [row["seconds"] for row in sweep.rows if row["seconds"] is not None]
        epochs = max(1, max(point.recipe.training_epochs() for point in sweep.plan.points()))
        for point in plan.points():
            if point.model == model:
                seconds += median(took) * max(1, point.recipe.training_epochs()) / epochs
    return seconds / jobs.slots()


def progress(id: str) -> Progress:
    """Raises RunError for an id the store does not have."""
    return sweeps.state(jobs.store(), id)


def failures(id: str) -> dict[str, int]:
    """Why runs failed -> how many."""
    return sweeps.failures(jobs.store(), id)


def pause(id: str) -> None:
    attempt(sweeps.pause, id)


def resume(id: str) -> None:
    attempt(sweeps.resume, id)


def cancel(id: str) -> None:
    attempt(sweeps.cancel, id)


def rerun_failed(id: str) -> None:
    attempt(sweeps.rerun_failed, id)


def add_seeds(id: str, count: int) -> None:
    attempt(sweeps.add_seeds, id, count)


def may_change(now: Progress) -> bool:
    """Whether who looks may pause, cancel and extend it."""
    return visitors.may_change(now.visitor)


def attempt(change: Any, id: str, *args: Any) -> None:
    """Change a sweep, from a button: why it could not be is a warning."""
    try:
        if not visitors.may_change(jobs.store().sweep(id).visitor):
            raise RunError(NOT_YOURS)
        change(jobs.store(), id, *args)
        jobs.ensure_anew()  # after it: a search that goes on needs what drives it
    except PruningError as error:
        state.warn(str(error))


def rows(now: Progress) -> list[dict[str, Any]]:
    """Its points; of one that works, as they were at the last twentieth. Not to be changed."""
    mark = f"{now.done}.{now.failed}.{now.stopped}.{now.diverged}"
    if not now.ended:
        mark = f"live.{now.done // max(1, now.total // TWENTIETH)}"
    place = str(default_workspace())
    known: list[dict[str, Any]] = _rows(place, now.id, f"{now.plan.id}.{mark}")
    return known


# Kept for all tabs: each row is a file that was read.
@st.cache_resource(max_entries=32)
def _rows(place: str, id: str, mark: str) -> list[dict[str, Any]]:
    return sweeps.rows(jobs.store(), id)


def shipped_of(id: str) -> Shipped:
    """Raises RunError for a model that no sweep comes with."""
    model = id.removeprefix(SHIPPED)
    sweep = shipped.find(model)
    if sweep is None:
        raise RunError(
            f"No sweep comes with {model!r}: choose one from the list, or run your own plan."
        )
    return sweep


def shipped_pairing(sweep: Shipped) -> Pairing:
    """The answers of a shipped sweep's runs to the test examples, which came with it."""
    return sweep.paired


def pairing(first: Row, second: Row) -> Paired | None:
    """The answers of two runs of this workspace, as they were kept beside their results."""
    if not (first["run"] and second["run"]):
        return None
    place = str(default_workspace())
    this, other = (_right(place, row["run"]) for row in (first, second))
    if this is None or other is None or len(this) != len(other):
        return None
    return Paired.of(this, other)


# A page pairs every two techniques of a level for each seed; what a run answered never changes.
@lru_cache(maxsize=4096)
def _right(place: str, run: str) -> NDArray[np.bool_] | None:
    """(examples,) True where the run's answer is right; None where it kept none."""
    try:
        answers = jobs.run_files(jobs.job(run)).answers
    except PruningError:
        return None
    return None if answers is None else answers.right


def own_rows(sweep: Shipped, model: str) -> list[dict[str, Any]]:
    """The workspace's newest finished runs of a model as rows, to stand beside a shipped sweep."""
    made = []
    for job in jobs.finished(OWN_RUNS):
        if job.spec.get("model") != model or tables.is_example(job):
            continue
        recipe, end = jobs.recipe_of(job), jobs.result(job)
        if end is not None and recipe.prunes:
            point = table.point_of(recipe)
            name = _technique(sweep.plan, recipe) or point.technique
            made.append(table.row(replace(point, technique=name), end, run=job.id))
    return made


def _technique(plan: Plan, recipe: Recipe) -> str | None:
    """The technique of a plan that a recipe follows, whatever its level and seed."""
    for technique in plan.all_techniques():
        if plan.recipe(technique, recipe.model, recipe.sparsity, recipe.seed) == recipe:
            return technique.name
    return None
