"""Measure what lessons speak of, once, so that thirty people who begin together train nothing.

    python -m dashboard.lesson_results [LESSON ...] [--folder FOLDER]

Every experiment of every lesson is a run like any other, with each of its seeds; equal ones are
run once, whichever lessons name them, and those that a shipped sweep has are taken from it. The
others go into a workspace of their own, so that it can be
interrupted and begun again: give a fresh folder after a change of the engine.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from dashboard import figures, learning, lesson, models, state, tickets
from dashboard.lesson import Experiment, Lesson
from dashboard.tickets import Lottery
from pruning.errors import PruningError, RunError
from pruning.events import Finished, Started, Ticket
from pruning.recipe import Recipe
from pruning.runs import process_id
from pruning.runs.store import Job, Store
from pruning.runs.worker import Shutdown, attend
from pruning.storage import default_workspace, whole
from pruning.sweeps import shipped
from pruning.sweeps.plan import DENSE


def recipes(experiment: Experiment) -> list[Recipe]:
    """One for each seed."""
    first = experiment.recipe.seed
    return [replace(experiment.recipe, seed=first + i) for i in range(experiment.seeds)]


def run_all(store: Store, wanted: Sequence[Recipe], shutdown: Shutdown) -> bool:
    """Do those that are not done; False where it was interrupted."""
    store.reap()
    for recipe in wanted:
        done = in_sweeps(recipe) is not None
        if not done and not any(
            job.state == "finished" for job in store.jobs_of("run", recipe.to_dict())
        ):
            store.submit("run", recipe.to_dict(), key=f"lesson:{recipe.id}")
    while not shutdown.due():
        job = store.claim(process_id.me(), ("run",))
        if job is None:
            return True
        waiting = len(store.jobs("run", ("queued",)))
        print(f"{job.spec['model']}, {waiting} wait", flush=True)
        attend(store, job, shutdown)
    return False


def in_sweeps(recipe: Recipe) -> dict[str, float | None] | None:
    """The figures of an equal run of a shipped sweep; None without one."""
    sweep = shipped.find(recipe.model)
    if sweep is None or recipe.granularity != "weight":
        return None
    rows = {row["recipe"]: row for row in sweep.rows}
    dense = [row for row in sweep.rows if row["control"] == DENSE]
    if recipe.id not in rows or not dense:
        return None
    weights = sum(block.weights for block in models.blocks_of(recipe.model, None))
    return figures.of_row(rows[recipe.id], dense[0], weights)


def finished(store: Store, recipe: Recipe) -> Job:
    """Raises RunError for a run that failed."""
    jobs = store.jobs_of("run", recipe.to_dict())
    for job in jobs:
        if job.state == "finished":
            return job
    why = jobs[0].message if jobs else "it was not run"
    raise RunError(f"The run of {recipe.to_json()} has no result: {why}")


def values(store: Store, recipe: Recipe) -> dict[str, float]:
    """The figures that a run has."""
    measured = in_sweeps(recipe)
    if measured is None:
        measured = of_store(store, recipe)
    return {name: value for name, value in measured.items() if value is not None}


def of_store(store: Store, recipe: Recipe) -> dict[str, float | None]:
    job = finished(store, recipe)
    end = store.last(job.id, Finished)
    assert isinstance(end, Finished)
    trained = [event for _, event in store.events(job.id) if isinstance(event, Ticket)]
    return figures.of_run(end, trained)


def write(store: Store, shown: Lesson) -> Path:
    """The file of a lesson's results. Raises RunError."""
    made: dict[str, Any] = {}
    machine: dict[str, Any] = {}
    for name, experiment in shown.results.items():
        of_seeds = recipes(experiment)
        runs = [values(store, recipe) for recipe in of_seeds]
        made[name] = {"recipe": experiment.recipe.id, "runs": runs}
        machine = machine or machine_of(store, of_seeds[0])
    file = learning.file_of(shown.name)
    file.parent.mkdir(parents=True, exist_ok=True)
    head = {"date": date.today().isoformat(), "machine": machine}
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in made.items()]
    text = json.dumps(head)[:-1] + ', "results": {\n' + ",\n".join(lines) + "\n}}\n"
    with whole(file) as draft:
        draft.write_text(text, encoding="utf-8")
    return file


def write_lottery(store: Store, experiment: Experiment) -> None:
    """Its tickets, for the Lottery page to open on."""
    runs = [finished(store, recipe) for recipe in recipes(experiment)]
    seeds = [
        [event for _, event in store.events(run.id) if isinstance(event, Ticket)] for run in runs
    ]
    machine = machine_of(store, experiment.recipe)
    today = date.today().isoformat()
    tickets.write(Lottery(experiment.recipe, today, machine, seeds))


def machine_of(store: Store, recipe: Recipe) -> dict[str, Any]:
    """Where a run was made; {} of one in a sweep, which says so itself."""
    if in_sweeps(recipe) is not None:
        return {}
    started = store.last(finished(store, recipe).id, Started)
    assert isinstance(started, Started)
    return started.machine


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m dashboard.lesson_results")
    parser.add_argument("lessons", nargs="*", metavar="LESSON", help="default: all")
    folder = "the workspace of the runs (default: lesson-runs in the workspace)"
    parser.add_argument("--folder", type=Path, help=folder)
    args = parser.parse_args(argv)
    shutdown = Shutdown()
    signal.signal(signal.SIGINT, shutdown.request)
    signal.signal(signal.SIGTERM, shutdown.request)
    try:
        shown = [lesson.find(name) for name in args.lessons or lesson.names()]
        store = Store((args.folder or default_workspace() / "lesson-runs").resolve())
        wanted = [
            recipe
            for each in shown
            for experiment in each.results.values()
            for recipe in recipes(experiment)
        ]
        if not run_all(store, wanted, shutdown):
            print("Interrupted: the same command continues.")
            return 130
        for each in shown:
            print(write(store, each))
            for experiment in each.results.values():
                if experiment.recipe == state.LOTTERY_RECIPE:
                    write_lottery(store, experiment)
    except PruningError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
