"""How long work takes and when its turn comes, from this machine's own past times. No torch."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from pruning import registry
from pruning.errors import RecipeError
from pruning.recipe import Recipe
from pruning.runs.store import Job, Store

RECENT = 400
"""Ended jobs that are looked at, newest first: older ones are of another workbench."""


MANY, AGE = 50, 2.0
"""Past jobs beyond which they are read anew only after so many seconds."""


@dataclass(frozen=True)
class Expected:
    """How long jobs like one took here, in seconds: their median, the shortest and the longest.

    times: how many; same_model: of this model, else of any.
    """

    seconds: float
    low: float
    high: float
    times: int
    same_model: bool


@dataclass(frozen=True)
class Wait:
    """Where a job stands. done: seconds it has worked; place: among those that wait, from 1, None
    once it works; begins: seconds until its turn, None where a job before it was never timed.
    """

    expected: Expected | None
    done: float = 0.0
    place: int | None = None
    begins: float | None = 0.0


def expected_seconds(store: Store, kind: str, spec: dict[str, Any]) -> Expected | None:
    """How long a job takes, by finished ones like it: of the same model if there are any.

    Like it: the same kind of study by the same criterion; runs in proportion to their epochs. None:
    nothing like it has been timed on this machine.
    """
    return _expected(_finished(store), kind, spec)


GRADIENT = 1e-4
FLOPS = 1e10
"""Seconds that a gradient of one example takes at least, and operations of a core in a second."""


def study_seconds(store: Store, spec: dict[str, Any], macs: int) -> float | None:
    """How long a study takes: by past ones of the same model, else estimated from its gradients.

    macs: of the model on one example; 0 where that is not known. None where nothing is known.
    """
    expected = expected_seconds(store, "study", spec)
    if expected is not None and expected.same_model:
        return expected.seconds
    # A forward and a backward pass are three products, each a multiply and an add.
    return gradients(spec) * (GRADIENT + 6 * macs / FLOPS) or None


def gradients(spec: dict[str, Any]) -> float:
    """Of a study by a criterion, how many gradients of one example that takes."""
    try:
        count = registry.gradients("criterion", spec["criterion"], spec.get("options") or {})
        if "scope" in spec:  # one that measures
            count += registry.gradients("scope", spec["scope"], {})
    except (KeyError, RecipeError):  # of no criterion, or of one that is no longer there
        return 0.0
    return count


def wait_of(store: Store, job: Job, slots: int) -> Wait:
    """Where a job stands now. slots: workers that take runs; one more takes studies alone."""
    past = _finished(store)
    now = time.time()
    expected = _expected(past, job.kind, job.spec)
    if job.state != "queued":
        # A clock that was set back makes it less than nothing.
        return Wait(expected, max(0.0, (job.ended or now) - (job.started or now)))
    queue, ahead = store.ahead(job.id)
    place = 1 + sum(other.state == "queued" for other in ahead)
    # Long studies are worked on one at a time; studies have the one worker for certain.
    workers = slots if queue == "run" else 1
    free = [0.0] * workers
    for other in ahead:
        takes = _expected(past, other.kind, other.spec)
        if takes is None:
            return Wait(expected, place=place, begins=None if len(ahead) >= workers else 0.0)
        worked = now - other.started if other.started else 0.0
        # Each worker is free once its job is over, and then takes the next that waits. A job that
        # takes longer than ever before may end at any moment.
        free[free.index(min(free))] += max(0.0, takes.seconds - worked)
    return Wait(expected, place=place, begins=min(free))


@dataclass(frozen=True)
class _Past:
    """Finished jobs as they were read last. newest: what tells whether more have finished; read:
    when, in monotonic seconds.

    answers: (kind, spec as text) -> what they say of it.
    """

    newest: tuple[int, float | None]
    jobs: list[Job]
    read: float
    answers: dict[tuple[str, str], Expected | None] = field(default_factory=dict)


_past: dict[Path, _Past] = {}
"""Store -> its past: pages ask at each move of a slider, and jobs finish seldom."""


def _finished(store: Store) -> _Past:
    newest = store.newest("finished")
    past = _past.get(store.file)
    # One more among many changes no median: a class finishes several a second.
    if past is not None and len(past.jobs) > MANY and time.monotonic() - past.read < AGE:
        return past
    if past is None or past.newest != newest:
        past = _Past(newest, store.jobs(states=("finished",), limit=RECENT), time.monotonic())
        _past.clear()  # of one store at a time: a process has one
        _past[store.file] = past
    return past


def _expected(past: _Past, kind: str, spec: dict[str, Any]) -> Expected | None:
    asked = (kind, json.dumps(spec, sort_keys=True))
    if asked not in past.answers:
        past.answers[asked] = _by_past(past.jobs, kind, spec)
    return past.answers[asked]


def _by_past(past: Iterable[Job], kind: str, spec: dict[str, Any]) -> Expected | None:
    alike = [job for job in past if job.kind == kind and job.started and job.ended]
    for same_model in (True, False):
        scaled = [_scaled(job, spec, same_model) for job in alike]
        times = [seconds for seconds in scaled if seconds is not None]
        if times:
            return Expected(median(times), min(times), max(times), len(times), same_model)
    return None


def _scaled(job: Job, spec: dict[str, Any], same_model: bool) -> float | None:
    """Seconds that `job` would have taken as `spec`; None where it says nothing of it."""
    assert job.started is not None and job.ended is not None
    seconds = job.ended - job.started
    if (job.spec.get("model") == spec.get("model")) is not same_model:
        return None
    if job.kind == "study":
        names = ("what", "criterion", "tier", "scope")
        if any(job.spec.get(name) != spec.get(name) for name in names):
            return None
        # Of a thousand probes a few say how long they take.
        asked, before = gradients(spec), gradients(job.spec)
        return seconds * asked / before if asked and before else seconds
    # Runs of a set share the machine with each other: their times say nothing of one alone. And an
    # epoch of another model says nothing of one of this.
    if job.batch is not None or not same_model:
        return None
    try:
        earlier, recipe = Recipe.from_dict(job.spec), Recipe.from_dict(spec)
    except RecipeError:  # of a technique that is no longer there
        return None
    epochs, trained = recipe.training_epochs(), earlier.training_epochs()
    if bool(epochs) is not bool(trained):
        return None
    if not epochs:
        return seconds if earlier.criterion == recipe.criterion else None
    if (earlier.batch, earlier.optimizer) != (recipe.batch, recipe.optimizer):
        return None
    return seconds * epochs / trained
