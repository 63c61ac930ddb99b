"""What a lesson's panel knows: whether a goal is met, what was measured, what people predicted."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import fmean
from typing import Any

from dashboard import figures, jobs, lesson, rooms, state, visitors
from dashboard.figures import Values
from dashboard.lesson import Check, Lesson, Measured, Step
from pruning.recipe import Recipe
from pruning.runs.store import Job
from pruning.storage import SAMPLES, default_workspace

SHIPPED = SAMPLES / "lessons"
"""Results of the shipped lessons; those of one's own lessons lie beside their files."""


@dataclass(frozen=True)
class Results:
    """Of a lesson. date, machine: where they were made; of: result -> figures of each seed."""

    date: str
    machine: Mapping[str, Any]
    of: Mapping[str, Sequence[Values]]


NO_RESULTS = Results("", {}, {})


def file_of(name: str) -> Path:
    """Where the results of a lesson are, or will be."""
    own = lesson.files().get(name)
    shipped = own is None or own.parent == lesson.SHIPPED
    return (SHIPPED if shipped else default_workspace() / lesson.OWN) / f"{name}.json"


def results(shown: Lesson) -> Results:
    """What was measured of a lesson; of a recipe that was changed since, nothing."""
    file = file_of(shown.name)
    try:
        known = _read(file, file.stat().st_mtime_ns)
    except (OSError, ValueError, KeyError, TypeError):  # not made yet, or torn
        return NO_RESULTS
    current = {
        name: known[2][name]["runs"]
        for name, experiment in shown.results.items()
        if name in known[2] and known[2][name]["recipe"] == experiment.recipe.id
    }
    return Results(known[0], known[1], current)


@lru_cache(maxsize=64)
def _read(file: Path, changed: int) -> tuple[str, Any, Any]:
    data = json.loads(file.read_text(encoding="utf-8"))
    return data["date"], data["machine"], data["results"]


def means(known: Results) -> Measured:
    """Each figure's mean over seeds; of one that a run lacks, of the others."""
    return {name: _mean(runs) for name, runs in known.of.items()}


def _mean(runs: Sequence[Values]) -> Values:
    values: Values = {}
    for figure in figures.FIGURES:
        measured = _of_seeds(runs, figure)
        values[figure] = fmean(measured) if measured else None
    return values


def _of_seeds(runs: Sequence[Values], figure: str) -> list[float]:
    values = [run.get(figure) for run in runs]
    return [value for value in values if value is not None]


def ranges(known: Results, name: str, figure: str) -> tuple[float, float] | None:
    """The lowest and the highest seed of a figure; None where there are not two."""
    values = _of_seeds(known.of.get(name, ()), figure)
    return (min(values), max(values)) if len(values) > 1 else None


# ---------------------------------------------------------------- the learner's own runs


def own_run(recipe: Recipe) -> Job | None:
    """The newest run of an equal recipe, whoever started it: equal ones are run once."""
    return jobs.run_of(recipe)


def own_figures(recipe: Recipe) -> Values | None:
    """Of that run, once it is finished."""
    job = own_run(recipe)
    end = jobs.result(job) if job is not None and job.state == "finished" else None
    return None if job is None or end is None else figures.of_run(end, jobs.tickets(job))


# ---------------------------------------------------------------- goals


def actual(check: Check, page: str) -> Any:
    """What a goal's check looks at, as it is in this tab; None where it is not known.

    page: the one that is open.
    """
    what, _, rest = check.figure.partition(".")
    recipe = state.recipe()
    match what:
        case "page":
            return page
        case "layer":
            return state.layer()
        case "recipe":
            return getattr(recipe, rest)
        case "ratio":
            return recipe.ratios.get(rest, 0.0) if recipe.scope == "manual" else None
        case "drop":
            return _drop(recipe, rest)
        case _:
            values = own_figures(recipe)
            return None if values is None else values[rest]


def expect_run(now: Step) -> None:
    """Draw the page anew when the run ends that a goal looks at."""
    if now.goal is None or not any(check.figure.startswith("run.") for check in now.goal.checks):
        return
    job = own_run(state.recipe())
    if job is not None and job.state in jobs.LIVE:
        state.expect(job.id)


def _drop(recipe: Recipe, layer: str) -> float | None:
    """Points of accuracy that the map measured for the recipe's ratio of a layer."""
    ratio = recipe.ratios.get(layer, 0.0) if recipe.scope == "manual" else 0.0
    for job in jobs.maps_of(recipe) if ratio else ():
        for point in jobs.points(job):
            if point.layer == layer and point.accuracy and abs(point.level - ratio) < 1e-6:
                return 100 * (point.lost - point.won) / point.accuracy.total
    return None


def is_met(now: Step, page: str) -> bool:
    """Whether the goal of a step is reached; one without a goal has nothing to reach."""
    if now.goal is None:
        return True
    return all(lesson.met(check, actual(check, page)) for check in now.goal.checks)


# ---------------------------------------------------------------- predictions


def predictions() -> list[float]:
    """Everybody's of this step, in a class room; one's own without."""
    now = state.place()
    if now is None:
        return []
    values = rooms.predictions(visitors.me(), now.lesson, now.step)
    own = state.own_prediction()
    # A browser that keeps no cookies is nobody to the rooms, and still predicted something.
    return values or ([own] if own is not None else [])
