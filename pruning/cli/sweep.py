"""`python -m pruning sweep`: techniques × levels × seeds, as a plan says."""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from pathlib import Path
from statistics import mean
from typing import Any

from pruning.cli import options
from pruning.errors import RunError
from pruning.runs import engines, pool
from pruning.runs.resolve import describe
from pruning.runs.store import Store
from pruning.runs.worker import Shutdown
from pruning.sweeps import sweeps
from pruning.sweeps.here import run_here
from pruning.sweeps.plan import Plan
from pruning.sweeps.sweeps import Progress

HELP = "run every technique of a plan at every level with every seed; at the end a table"

LOOK = 1.0
"""Seconds between looks at how far it has come."""

SELDOM = 10.0
"""Seconds between lines of progress where they cannot overwrite each other."""


def arguments(sub: argparse.ArgumentParser) -> None:
    plan = 'a plan file (JSON), e.g. {"models": ["digits-mlp"], "sparsities": [0.5, 0.9]}'
    sub.add_argument("plan", type=Path, help=plan)
    sub.add_argument("--wait", action="store_true", help="wait for its end (so does --json)")
    options.of_sweep(sub)


def execute(args: argparse.Namespace) -> None:
    """Run a plan's sweep. The same call again goes on with what is missing, and what failed."""
    plan = Plan.from_json(options.content(args.plan, "plan"))
    wait = options.use_engine(args) or args.wait
    store = options.store_of(args)
    for model in plan.models:  # a name that nobody knows would fail in every run
        describe(model, store.workspace)
    id = sweeps.submit(store, plan, label=args.label)
    sweeps.rerun_failed(store, id)
    again = f"python -m pruning sweep {args.plan}"
    progress = sweeps.state(store, id)
    if not (args.here or wait or args.json or progress.ended):
        print(f"Sweep {id}: {_in_words(progress)}.")
        print(f"Workers of the workbench run it while that is open; or wait: `{again} --wait`.")
        return
    try:
        _run_here(store, id) if args.here else _wait(store, id)
    except KeyboardInterrupt:
        sweeps.pause(store, id)
        done = sweeps.state(store, id)
        print(
            f"Paused: {done.done} of {done.total} done. `{again} {_flags(args)}` continues.",
            file=sys.stderr,
        )
        raise
    rows = sweeps.rows(store, id)
    for line in map(json.dumps, rows) if args.json else table(rows):
        print(line)
    _complain(store, id)


def _flags(args: argparse.Namespace) -> str:
    flags = ["--here" if args.here else "--wait"]
    if args.engine is not None:
        flags.append(f"--engine {args.engine}")
    if args.workspace is not None:
        flags.append(f"--workspace {args.workspace}")
    return " ".join(flags)


def _complain(store: Store, id: str) -> None:
    """Raises RunError where runs failed, with the reason of most of them."""
    reasons = sweeps.failures(store, id)
    if reasons:
        most = max(reasons, key=lambda reason: reasons[reason])
        count = sum(reasons.values())
        raise RunError(
            f"{count} run{'s' if count > 1 else ''} of this sweep failed: {most} The same command "
            "runs them again."
        )


# ---------------------------------------------------------------- while it works


def _wait(store: Store, id: str) -> None:
    line = Line()
    try:
        while True:
            pool.ensure(store.workspace)
            progress = sweeps.state(store, id)
            trouble = engines.trouble(store.workspace)
            line.say(trouble) if trouble else line.show(progress)
            if progress.ended:
                return
            if progress.state != "active" and not progress.running:
                raise RunError(
                    f"This sweep was {progress.state} elsewhere: the same command continues."
                )
            time.sleep(LOOK)
    finally:
        line.end()


def _run_here(store: Store, id: str) -> None:
    """Raises KeyboardInterrupt once the run that Ctrl+C interrupted was put back."""
    line, shutdown = Line(), Shutdown()
    before = signal.signal(signal.SIGINT, shutdown.request)
    try:
        run_here(store, id, shutdown, line.show)
    finally:
        signal.signal(signal.SIGINT, before)
        line.end()
    if shutdown.requested:
        raise KeyboardInterrupt


class Line:
    """One line that says how far it has come. A class because it knows what stands there now."""

    def __init__(self) -> None:
        self.width = 0
        self.at = float("-inf")
        self.text = ""

    def show(self, progress: Progress) -> None:
        self.say(_in_words(progress), progress.ended)

    def say(self, text: str, last: bool = False) -> None:
        if sys.stderr.isatty():
            print(f"\r{text:<{self.width}}", end="", file=sys.stderr, flush=True)
            self.width = len(text)
        elif text != self.text and (time.monotonic() - self.at > SELDOM or last):
            print(text, file=sys.stderr, flush=True)
            self.at = time.monotonic()
        self.text = text

    def end(self) -> None:
        if self.width:
            print(file=sys.stderr)
            self.width = 0


def _in_words(progress: Progress) -> str:
    parts = [f"{progress.done} of {progress.total} done"]
    counts = {
        "running": progress.running,
        "failed": progress.failed,
        "cancelled": progress.stopped,
        "diverged": progress.diverged,
    }
    parts += [f"{count} {name}" for name, count in counts.items() if count]
    if not progress.ended:
        seconds = progress.seconds_remaining
        known = "not timed on this machine yet" if seconds is None else f"about {duration(seconds)}"
        parts.append(f"{known} remaining" if seconds is not None else known)
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """`40 s`, `3 min`, `2.5 h`."""
    if seconds < 90:
        return f"{max(1, seconds):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


# ---------------------------------------------------------------- the table


def table(rows: list[dict[str, Any]]) -> list[str]:
    """Lines: for each model a technique a line and a level a column, means over the seeds."""
    lines: list[str] = []
    for model in dict.fromkeys(row["model"] for row in rows):
        lines += [*([""] if lines else []), *_table_of([r for r in rows if r["model"] == model])]
    return lines


def _table_of(rows: list[dict[str, Any]]) -> list[str]:
    levels = sorted({row["sparsity"] for row in rows})
    metric = next((row["metric"] for row in rows if row["metric"]), "accuracy")
    seeds = len({row["seed"] for row in rows})
    heads = [f"{level:.1%}".replace(".0%", "%") for level in levels]
    techniques = list(dict.fromkeys(row["technique"] for row in rows))
    wide = max(len("sparsity"), *map(len, techniques))
    lines = [f"{rows[0]['model']}: {metric} on test data, mean of {seeds} seed{'s'[: seeds > 1]}"]
    lines.append("  ".join([f"{'sparsity':<{wide}}", *(f"{head:>7}" for head in heads)]))
    for technique in techniques:
        own = [row for row in rows if row["technique"] == technique]
        cells = (_cell([row for row in own if row["sparsity"] == level]) for level in levels)
        lines.append("  ".join([f"{technique:<{wide}}", *(f"{cell:>7}" for cell in cells)]))
    return lines


def _cell(rows: list[dict[str, Any]]) -> str:
    values = [row["accuracy"] for row in rows if row["accuracy"] is not None]
    if not values:
        return "·" if not rows else "–"
    share = rows[0]["metric"] == "accuracy"
    return f"{mean(values):.1%}" if share else f"{mean(values):.4g}"
