"""`python -m pruning search`: the best recipe for a goal, and random search beside it."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pruning.cli import options
from pruning.cli.sweep import LOOK, Line
from pruning.ranges import Range
from pruning.runs import engines, pool
from pruning.runs.resolve import describe
from pruning.runs.worker import Shutdown
from pruning.sweeps import sweeps
from pruning.sweeps.goal import Goal
from pruning.sweeps.here import run_here
from pruning.sweeps.plan import MOST, SEARCH
from pruning.sweeps.search import (
    TRIALS,
    Answer,
    Search,
    Trial,
    advance,
    answers,
    best,
    default,
    open_search,
    trials,
)

HELP = "look for the smallest, fastest or most accurate within limits, by Optuna"


def arguments(sub: argparse.ArgumentParser) -> None:
    goal = 'a goal (JSON), e.g. {"model": "digits-cnn", "find": "smallest", "within_points": 1}'
    sub.add_argument("goal", type=Path, help=goal)
    count = "recipes that are tried, of each line (default %(default)s); more than before: go on"
    sub.add_argument("--trials", type=int, default=TRIALS, help=count)
    sub.add_argument("--alone", action="store_true", help="without random search beside it")
    options.of_sweep(sub)


def execute(args: argparse.Namespace) -> None:
    """Search for the recipe that a goal asks for. The same call again goes on where it ended."""
    goal = Goal.from_json(options.content(args.goal, "goal"))
    # The default technique and its controls are points of the plan, too.
    Range(1, MOST // 2 - 10).check("trials", args.trials, whole=True)
    options.use_engine(args)
    store = options.store_of(args)
    describe(goal.model, store.workspace)  # a name that nobody knows would fail in every run
    search = open_search(store, goal, control=not args.alone, label=args.label)
    try:
        _drive(search, args.trials, here=args.here)
    except KeyboardInterrupt:
        sweeps.pause(store, search.sweep)
        print(
            f"Paused at {_progress(search, args.trials)}: the same command continues.",
            file=sys.stderr,
        )
        raise
    for line in map(json.dumps, rows(search)) if args.json else report(search):
        print(line)


def _drive(search: Search, count: int, *, here: bool) -> None:
    """Until every line has so many trials, and all else of the sweep is done."""
    store, line, shutdown = search.store, Line(), Shutdown()
    before = signal.signal(signal.SIGINT, shutdown.request) if here else None
    try:
        while True:
            # Workers of a cluster come and go.
            workers = 1 if here else engines.slots(store.workspace)
            more = advance(search, count, max(1, workers // len(search.studies)))
            progress = sweeps.state(store, search.sweep)
            line.say(_progress(search, count), last=not more)
            if progress.ended and not more:
                return
            if here:
                run_here(store, search.sweep, shutdown)
            else:
                pool.ensure(store.workspace)
                time.sleep(LOOK)
            if shutdown.requested:
                raise KeyboardInterrupt
    finally:
        line.end()
        if before is not None:
            signal.signal(signal.SIGINT, before)


def _progress(search: Search, count: int) -> str:
    every = trials(search)
    parts = []
    for name in search.studies:
        own = [trial for trial in every if trial.line == name]
        done = sum(trial.state != "running" for trial in own)
        parts.append(f"{name} {done} of {count}")
    return ", ".join(parts)


# ---------------------------------------------------------------- what was found


def rows(search: Search) -> list[dict[str, Any]]:
    """Every trial and the default technique's runs as plain values.

    Of validation data, but for test_accuracy, which nothing is chosen by; best: its line's answer.
    """
    tested = _tested(search)
    made = []
    for line in _lines(search):
        chosen = {answer.trial.number: answer for answer in _answers(search, line)}
        for trial in line:
            allowed = trial.outcome is not None and search.goal.allows(trial.outcome)
            made.append(
                {
                    "line": trial.line,
                    "number": trial.number,
                    "state": trial.state,
                    "best": trial.number in chosen,
                    "allowed": allowed,
                    "seeds": chosen[trial.number].seeds if trial.number in chosen else 1,
                    "mean_points": _mean_points(chosen.get(trial.number)),
                    **(asdict(trial.outcome) if trial.outcome else {}),
                    "test_accuracy": tested.get(trial.recipe.id),
                    "why": trial.why,
                    "recipe": trial.recipe.short(),
                    "recipe_id": trial.recipe.id,
                }
            )
    return made


def report(search: Search) -> list[str]:
    """Lines: what each line found; the recipe that the search found; Optuna's dashboard."""
    tested = _tested(search)
    lines = [f"{search.goal.model}: {search.goal.in_words()}"]
    lines.append("  ".join([f"{'line':<14}", *(f"{head:>8}" for head in HEADS)]))
    for line in _lines(search):
        outcomes = [trial.outcome for trial in line if trial.outcome]
        allowed = sum(map(search.goal.allows, outcomes))
        chosen: list[Answer | None] = [*_answers(search, line)]
        for place, answer in enumerate(chosen or [None]):
            counts = (str(len(line)), str(allowed)) if place == 0 else ("", "")
            cells = [*counts, *_cells(answer, tested)]
            name = line[0].line if place == 0 else ""
            lines.append("  ".join([f"{name:<14}", *(f"{cell:>8}" for cell in cells)]))
    lines.append(
        "weights, MACs, latency: of the dense model's; points: below dense on validation data, "
        "which it is chosen by, mean over the seeds; test: accuracy of the first seed."
    )
    lines += [_in_words(answer.trial) for answer in answers(search, SEARCH)]
    lines.append(f"Optuna's own dashboard (pip install optuna-dashboard): {search.dashboard}")
    return lines


def _in_words(trial: Trial) -> str:
    return f"Found, recipe {trial.recipe.id}: {json.dumps(trial.recipe.short())}"


def _answers(search: Search, line: Sequence[Trial]) -> list[Answer]:
    """Of the search's lines by all seeds, of the default technique by its one."""
    if line[0].line in search.studies:
        return answers(search, line[0].line)
    chosen = best(search.goal, line)
    return [Answer(trial, trial.outcome, 1) for trial in chosen if trial.outcome]


def _mean_points(answer: Answer | None) -> float | None:
    return None if answer is None else answer.mean.points


HEADS = ("trials", "allowed", "bytes", "weights", "MACs", "latency", "points", "seeds", "test")


def _cells(answer: Answer | None, tested: dict[str, float]) -> list[str]:
    if answer is None:
        return ["none", *["–"] * (len(HEADS) - 3)]
    of = answer.mean
    test = tested.get(answer.trial.recipe.id)
    return [
        f"{of.bytes:,}",
        f"{of.weights:.1%}",
        _share(of.macs),
        _share(of.latency),
        f"{of.points:+.2f}",
        str(answer.seeds),
        "–" if test is None else f"{test:.4g}",
    ]


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _line(search: Search, name: str) -> list[Trial]:
    return [trial for trial in trials(search) if trial.line == name]


def _lines(search: Search) -> list[Sequence[Trial]]:
    every: list[Sequence[Trial]] = [_line(search, name) for name in search.studies]
    return [line for line in [*every, default(search)] if line]


def _tested(search: Search) -> dict[str, float]:
    """Recipe's id -> the metric on test data."""
    made = sweeps.rows(search.store, search.sweep)
    return {row["recipe"]: row["accuracy"] for row in made if row["accuracy"] is not None}
