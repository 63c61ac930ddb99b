"""A plan on its way through the store: submit, pause, resume, cancel, and how far it has come.

Each (model, recipe, seed) is one run, ever: a run of an equal recipe that waits, works or is
finished, whoever asked for it, is the point. Runs of sweeps wait behind those of people.
"""

from __future__ import annotations

import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median
from typing import Any

from pruning import recorded
from pruning.errors import RunError
from pruning.recipe import Recipe
from pruning.runs import engines, own_models
from pruning.runs.results import has_result, load_run
from pruning.runs.store import FAILED, LIVE, Job, Store
from pruning.runs.waits import between_runs, expected_seconds
from pruning.sweeps.plan import Plan, Point
from pruning.sweeps.table import figures, row

AGAIN = ("failed", "stopped")
"""States of runs that "run the failed again" replaces. One that diverged would do so again."""


@dataclass(frozen=True)
class Progress:
    """How far a sweep has come: its points by state.

    state: of the sweep, active, paused or cancelled; total: points, each counted once in done,
    running, waiting, failed, stopped or diverged; seconds_remaining: until the last is done, if the
    workers do nothing else, None while nothing like it was timed on this machine.
    """

    id: str
    plan: Plan
    state: str
    label: str | None
    visitor: str | None
    created: float
    total: int
    done: int
    running: int
    waiting: int
    failed: int
    stopped: int
    diverged: int
    seconds_remaining: float | None

    @property
    def ended(self) -> bool:
        """Whether nothing of it waits or works any more."""
        return not self.running and not self.waiting

    @property
    def share(self) -> float:
        """Of its points that have ended, in [0, 1]."""
        return 1 - (self.running + self.waiting) / self.total


def submit(
    store: Store,
    plan: Plan,
    visitor: str | None = None,
    label: str | None = None,
    *,
    anew: bool = False,
) -> str:
    """Queue a plan's runs; the sweep's id. An equal plan of the same visitor goes on instead.

    anew: never, as for a plan that will grow. Raises RecipeError for a model that this process must
    not run.
    """
    for model in plan.models:
        own_models.check(model)
    runs = _runs(plan.points())
    return store.begin_sweep(plan.to_dict(), runs, visitor=visitor, label=label, anew=anew)


def pause(store: Store, id: str) -> None:
    """Begin none of its waiting runs, but for those that others want; what works, works on."""
    store.pause_sweep(id)


def resume(store: Store, id: str) -> None:
    """Go on: also with what was stopped where it was cancelled, and with runs that were deleted."""
    again = ("stopped",) if store.sweep(id).state == "cancelled" else ()
    store.extend_sweep(id, _runs(plan_of(store, id).points()), again=again)


def cancel(store: Store, id: str) -> None:
    """Stop what no other sweep and no person wants; what is done stays."""
    store.cancel_sweep(id)


def rerun_failed(store: Store, id: str) -> None:
    """Run again what failed, or was stopped one by one."""
    store.extend_sweep(id, _runs(plan_of(store, id).points()), again=AGAIN)


def add_seeds(store: Store, id: str, count: int = 1) -> None:
    """Run everything with so many further seeds. Raises RecipeError where that is too much."""
    plan = plan_of(store, id).with_seeds(count)
    store.extend_sweep(id, _runs(plan.points()), plan=plan.to_dict())


def extend(
    store: Store, id: str, plan: Plan, again: Iterable[Recipe] = (), *, wake: bool = True
) -> bool:
    """Let it be of a plan that grew: what is new is queued, and it goes on; whether that was done.

    again: recipes of it whose runs are replaced where they failed or were stopped; wake: also where
    somebody paused or cancelled it, which else changes nothing.
    """
    if not store.extend_sweep(id, _runs(plan.points()), plan=plan.to_dict(), wake=wake):
        return False
    recipes = list(again)
    if recipes:
        store.extend_sweep(id, _keyed(recipes), again=AGAIN, wake=wake)
    return True


def plan_of(store: Store, id: str) -> Plan:
    """Raises RunError for an id the store does not have."""
    return Plan.from_dict(store.sweep(id).plan)


def state(store: Store, id: str, workers: int | None = None) -> Progress:
    """How far it has come. workers: runs that work at a time, None for those of the engine."""
    sweep = store.sweep(id)
    plan = Plan.from_dict(sweep.plan)
    runs = _jobs_of_points(store, id, plan)
    states = Counter(_state_of(job) for _, job in runs)
    return Progress(
        id=id,
        plan=plan,
        state=sweep.state,
        label=sweep.label,
        visitor=sweep.visitor,
        created=sweep.created,
        total=len(runs),
        done=states["finished"],
        running=states["running"],
        waiting=states["queued"],
        failed=states["failed"],
        stopped=states["stopped"],
        diverged=states["diverged"],
        seconds_remaining=seconds_remaining(store, runs, workers),
    )


def rows(store: Store, id: str) -> list[dict[str, Any]]:
    """Every point as a row (`table.COLUMNS`); one that has no result yet has no figures."""
    made = []
    for point, job in _jobs_of_points(store, id, plan_of(store, id)):
        empty = row(point, run=job.id if job else None, state=_state_of(job))
        made.append(empty | _figures_of(job))
    return made


def point_of_row(plan: Plan, row: dict[str, Any]) -> Point | None:
    """The point that a row is of, with its recipe; None where the plan has none such."""
    same = (p for p in plan.points() if p.technique == row["technique"])
    return next((point for point in same if point.recipe.id == row["recipe"]), None)


def failures(store: Store, id: str) -> dict[str, int]:
    """Why runs of it failed, in their own words -> how many."""
    failed = [job for job in store.runs_of_sweep(id) if job.state in FAILED]
    return dict(Counter(job.message or "No reason is known." for job in failed))


# ---------------------------------------------------------------- points and their runs


def _runs(points: Iterable[Point]) -> dict[str, dict[str, Any]]:
    """Key -> spec. The key is the one that any run of the recipe has that is asked for once."""
    return _keyed(point.recipe for point in points)


def _keyed(recipes: Iterable[Recipe]) -> dict[str, dict[str, Any]]:
    runs = {}
    for recipe in recipes:
        recorded.check(recipe)
        runs[f"run:{recipe.id}"] = recipe.to_dict()
    return runs


def _jobs_of_points(store: Store, id: str, plan: Plan) -> list[tuple[Point, Job | None]]:
    """Each point with its newest run; None where that was deleted."""
    jobs = {_key(job.spec): job for job in store.runs_of_sweep(id)}
    return [(point, jobs.get(key)) for point, key in _keys(plan)]


@lru_cache(maxsize=64)
def _keys(plan: Plan) -> tuple[tuple[Point, str], ...]:
    return tuple((point, _key(point.recipe.to_dict())) for point in plan.points())


def _key(spec: dict[str, Any]) -> str:
    return json.dumps(spec, sort_keys=True)


def _state_of(job: Job | None) -> str:
    """A run that was deleted is as good as stopped: the sweep goes on without it."""
    if job is None:
        return "stopped"
    # Its files were deleted under it: there is nothing to show, and it can be run again.
    if job.state == "finished" and not has_result(job.folder):
        return "stopped"
    return job.state


def _figures_of(job: Job | None) -> dict[str, Any]:
    """Nothing for what has no result, or lost its files in this moment."""
    if job is None or _state_of(job) != "finished":
        return {}
    with suppress(RunError):
        return _figures(job.folder, job.attempt)
    return {}


# Pages ask for all rows at each tick: only what is new is read. Kept are figures alone, since a
# result holds every layer. The attempt is part of the key: a second one writes to the same folder.
@lru_cache(maxsize=8192)
def _figures(folder: Path, attempt: int) -> dict[str, Any]:
    return figures(load_run(folder).finished)


# ---------------------------------------------------------------- how long it takes


def seconds_remaining(
    store: Store, runs: Iterable[tuple[Point, Job | None]], workers: int | None = None
) -> float | None:
    """Until the last of these runs is done; None where nothing like one of them was timed here.

    By the same technique's runs of the sweep, else by the model's in proportion to their epochs,
    else by this machine's other runs of the model.
    """
    runs = list(runs)
    took: dict[tuple[str, str], list[float]] = defaultdict(list)
    by_epoch: dict[str, list[float]] = defaultdict(list)
    for point, job in runs:
        if job and job.state == "finished" and job.started and job.ended:
            spent = max(0.0, job.ended - job.started)
            took[point.model, point.technique].append(spent)
            # What trains nothing says nothing of an epoch.
            if epochs := point.recipe.training_epochs():
                by_epoch[point.model].append(spent / epochs)
    known: dict[tuple[str, str], float | None] = {key: median(all) for key, all in took.items()}
    work, longest, now = 0.0, 0.0, time.time()
    between = between_runs(store)
    for point, job in runs:
        if job is None or job.state not in LIVE:
            continue
        key = (point.model, point.technique)
        if key not in known:
            known[key] = _first_guess(store, point, by_epoch[point.model])
        seconds = known[key]
        if seconds is None:
            return None
        worked = now - job.started if job.state == "running" and job.started else 0.0
        # A clock that was set back makes it less than nothing.
        rest = min(seconds, max(0.0, seconds - worked))
        if job.state == "queued":
            rest += between
        work += rest
        longest = max(longest, rest)
    return max(longest, work / max(1, workers or engines.slots(store.workspace)))


def expected(store: Store, plan: Plan, workers: int | None = None) -> float | None:
    """How long a plan takes that was not submitted yet, if none of its runs were there.

    Each run takes its worker as long as ones like it took, and what lies between two runs.
    """
    seconds: dict[tuple[str, str], float | None] = {}
    total, between = 0.0, between_runs(store)
    for point in plan.points():
        key = (point.model, point.technique)
        if key not in seconds:
            seconds[key] = _first_guess(store, point, [])
        each = seconds[key]
        if each is None:
            return None
        total += each + between
    return total / max(1, workers or engines.slots(store.workspace))


def _first_guess(store: Store, point: Point, by_epoch: list[float]) -> float | None:
    """Seconds of a run whose technique was not timed in this sweep yet."""
    epochs = point.recipe.training_epochs()
    if by_epoch and epochs:
        return median(by_epoch) * epochs
    # A technique's levels take much the same: one of them is asked for.
    past = expected_seconds(store, "run", point.recipe.to_dict())
    return past.seconds if past else None
