"""Searches that somebody asked for and does not wait for: on disk, and driven by a process.

    python -m pruning.sweeps.driver      (a page starts it by itself, where a search is under way)

Such a search is its sweep, its study, and a file in the workspace that says what was asked and what
came of it by now, which pages read without Optuna. One process for a workspace proposes what is
next. It ends with the server that started it; the next server's goes on. No torch.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pruning.errors import PruningError, RunError, StoreError
from pruning.recipe import Recipe
from pruning.runs import engines, pool
from pruning.runs.log import log
from pruning.runs.store import Store
from pruning.runs.worker import Shutdown
from pruning.storage import default_workspace, disk_errors, write_json
from pruning.sweeps import search, sweeps
from pruning.sweeps.goal import Goal, Outcome
from pruning.sweeps.search import Answer, Search
from pruning.sweeps.sweeps import Progress

ROOT = Path(__file__).resolve().parents[2]
FOLDER = "searches"
LOCK = "searches.lock"
NAME = re.compile(r"[0-9a-f]{12}")
"""A sweep's id, which is its file's name."""

LOOK = 0.3
"""Seconds between looks at the searches."""

UNCHANGED = 5.0
"""Seconds after which a search is advanced in any case, with or without news of its runs."""

REST = 20.0
"""Seconds without a search that goes on after which the process ends."""

TRIES = 5
"""Times in a row that a search may fail for a reason of ours until it is given up."""

BROKEN = (
    "This search met a mistake of the workbench itself ({kind}): press Resume to try again, and "
    "report it together with the file searches.log in the workspace."
)


# ---------------------------------------------------------------- what was asked, what came of it


@dataclass(frozen=True)
class Line:
    """One line's trials by now. allowed: of those done, the ones that keep every limit."""

    name: str
    tried: int
    done: int
    failed: int
    allowed: int


@dataclass(frozen=True)
class LineAnswer:
    """What a line came to by now. mean: over its seeds, of validation data; run: of the first."""

    line: str
    number: int
    recipe: Recipe
    mean: Outcome
    seeds: int
    run: str | None


@dataclass(frozen=True)
class Asked:
    """A search that was asked for.

    sweep: the id of its sweep, and its own; trials: of each line; over: nothing is proposed any
    more; why: for what reason, where that is not because all is done; lines: empty before the first
    trial; answers: of every line and of the default technique, by what is done.
    """

    sweep: str
    goal: Goal
    trials: int
    control: bool
    visitor: str | None = None
    over: bool = False
    why: str = ""
    lines: tuple[Line, ...] = ()
    answers: tuple[LineAnswer, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        answers = [{**asdict(each), "recipe": each.recipe.to_dict()} for each in self.answers]
        return {**asdict(self), "goal": self.goal.to_dict(), "answers": answers}

    @classmethod
    def from_dict(cls, data: Any) -> Asked:
        """Raises TypeError, KeyError or PruningError for what is none."""
        answers = [
            LineAnswer(
                **{
                    **each,
                    "recipe": Recipe.from_dict(each["recipe"]),
                    "mean": Outcome(**each["mean"]),
                }
            )
            for each in data["answers"]
        ]
        lines = [Line(**each) for each in data["lines"]]
        goal = Goal.from_dict(data["goal"])
        return cls(**{**data, "goal": goal, "lines": tuple(lines), "answers": tuple(answers)})


def ask(
    store: Store,
    goal: Goal,
    trials: int,
    *,
    control: bool = True,
    visitor: str | None = None,
) -> str:
    """Have a search begun, or gone on with; its sweep's id. It is on disk when this returns.

    An equal goal of the same visitor goes on, with more trials where more are asked for. Raises
    RecipeError for a model that this process must not run, StoreError.
    """
    for each in listed(store.workspace):
        if (each.goal, each.visitor) == (goal, visitor) and _exists(store, each.sweep):
            more = max(trials, each.trials)
            control = control or each.control
            _write(store.workspace, replace(each, trials=more, control=control, over=False, why=""))
            sweeps.resume(store, each.sweep)
            return each.sweep
    sweep = search.begin(store, goal, visitor)
    _write(store.workspace, Asked(sweep, goal, trials, control, visitor))
    return sweep


def resume(store: Store, sweep: str) -> None:
    """Go on with one that was paused or cancelled, or that came to an end for a reason."""
    sweeps.resume(store, sweep)
    asked = read(store.workspace, sweep)
    if asked is not None:
        _write(store.workspace, replace(asked, over=False, why=""))


def read(workspace: Path, sweep: str) -> Asked | None:
    """The search whose sweep this is; None of a sweep that is no search's."""
    if not NAME.fullmatch(sweep):
        return None
    try:
        text = _file(workspace, sweep).read_text(encoding="utf-8")
        return Asked.from_dict(json.loads(text))
    # Damaged, or of another version: its sweep is a sweep like others.
    except (OSError, ValueError, TypeError, KeyError, AttributeError, PruningError):
        return None


def listed(workspace: Path) -> list[Asked]:
    """All of a workspace, in no order."""
    files = (workspace / FOLDER).glob("*.json")
    asked = (read(workspace, file.stem) for file in files)
    return [each for each in asked if each is not None]


def changed(workspace: Path, sweep: str) -> int:
    """A number that is another once there is news of a search; 0 of none."""
    if not NAME.fullmatch(sweep):
        return 0
    try:
        return _file(workspace, sweep).stat().st_mtime_ns
    except OSError:
        return 0


def _file(workspace: Path, sweep: str) -> Path:
    return workspace / FOLDER / f"{sweep}.json"


def _write(workspace: Path, asked: Asked) -> None:
    write_json(_file(workspace, asked.sweep), asked.to_dict())


def _exists(store: Store, sweep: str) -> bool:
    try:
        store.sweep(sweep)
    except StoreError:
        raise
    except RunError:
        return False
    return True


def expected_runs(goal: Goal, trials: int, control: bool) -> int:
    """How many runs a search comes to, where each line's first candidate is its answer."""
    lines = 2 if control else 1
    further = 0 if goal.find == "front" else goal.confirm
    return len(search.first_plan(goal).points()) + lines * (trials + further)


def expected(store: Store, goal: Goal, trials: int, control: bool) -> float | None:
    """Seconds that a search takes, by this machine's runs; None where none was like its own."""
    plan = search.first_plan(goal)
    first = sweeps.expected(store, plan)
    if first is None:
        return None
    return first / len(plan.points()) * expected_runs(goal, trials, control)


# ---------------------------------------------------------------- driving them


class Driver:
    """Drives all searches of a workspace. A class because it keeps their studies open."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.open: dict[str, Search] = {}
        # Sweep -> its progress at the last advance, and when that was, in monotonic seconds.
        self.seen: dict[str, tuple[Progress, float]] = {}
        self.failures: dict[str, int] = {}

    def tick(self) -> bool:
        """One look at each; whether one goes on."""
        under_way = [self._look(asked) for asked in listed(self.store.workspace) if not asked.over]
        return any(under_way)

    def _look(self, asked: Asked) -> bool:
        sweep = asked.sweep
        try:
            progress = sweeps.state(self.store, sweep)
        except StoreError:
            raise
        except RunError:  # its sweep was deleted
            _file(self.store.workspace, sweep).unlink(missing_ok=True)
            return False
        if progress.state != "active":
            self._close(sweep)
            return False
        before, at = self.seen.get(sweep, (None, 0.0))
        if _counts(before) == _counts(progress) and time.monotonic() - at < UNCHANGED:
            return True
        try:
            self._advance(asked)
            self.failures.pop(sweep, None)
        except StoreError:
            raise
        except PruningError as error:
            # Somebody paused it in this moment: nothing went wrong.
            if self.store.sweep(sweep).state == "active":
                self._end(asked, str(error))
            self._close(sweep)
        except Exception as error:
            # Optuna's own store may be locked for a while; what is wrong for good stays wrong.
            log(f"search {sweep}: {error!r}")
            self.failures[sweep] = self.failures.get(sweep, 0) + 1
            self._close(sweep)
            if self.failures[sweep] >= TRIES:
                self._end(asked, BROKEN.format(kind=type(error).__name__))
        return True

    def _advance(self, asked: Asked) -> None:
        store, sweep = self.store, asked.sweep
        made = self.open.get(sweep)
        if made is None:
            made = search.open_search(store, asked.goal, control=asked.control, sweep=sweep)
            self.open[sweep] = made
        ahead = max(1, engines.slots(store.workspace) // len(made.studies))
        more = search.advance(made, asked.trials, ahead)
        progress = sweeps.state(store, sweep)
        self.seen[sweep] = (progress, time.monotonic())
        over = not more and progress.ended
        self._record(asked, over=over, lines=_lines(made), answers=_line_answers(made))
        if over:
            self._close(sweep)

    def _end(self, asked: Asked, why: str) -> None:
        self._record(asked, over=True, why=why)

    def _record(self, asked: Asked, **now: Any) -> None:
        # Read anew: somebody may have asked for more trials meanwhile.
        current = read(self.store.workspace, asked.sweep) or asked
        if current.trials > asked.trials:
            now["over"] = False
        record = replace(current, **now)
        if record != current:
            _write(self.store.workspace, record)

    def _close(self, sweep: str) -> None:
        self.open.pop(sweep, None)
        self.seen.pop(sweep, None)


def _counts(progress: Progress | None) -> tuple[int, ...]:
    if progress is None:
        return ()
    return (
        progress.done,
        progress.running,
        progress.waiting,
        progress.failed,
        progress.stopped,
        progress.diverged,
    )


def _lines(made: Search) -> tuple[Line, ...]:
    every = search.trials(made)
    lines = []
    for name in made.studies:
        own = [trial for trial in every if trial.line == name]
        done = [trial.outcome for trial in own if trial.outcome]
        failed = sum(trial.state == "failed" for trial in own)
        allowed = sum(map(made.goal.allows, done))
        lines.append(Line(name, len(own), len(done), failed, allowed))
    return tuple(lines)


def _line_answers(made: Search) -> tuple[LineAnswer, ...]:
    """Of each line what it came to by now, by one seed while none was confirmed; of the default."""
    every = search.trials(made)
    answers: list[Answer] = []
    for name in made.studies:
        chosen = search.answers(made, name)
        own = [trial for trial in every if trial.line == name]
        answers += chosen or _by_one_seed(made.goal, own)
    answers += _by_one_seed(made.goal, search.default(made))
    return tuple(
        LineAnswer(
            answer.trial.line,
            answer.trial.number,
            answer.trial.recipe,
            answer.mean,
            answer.seeds,
            search.run_id(made, answer.trial.recipe),
        )
        for answer in answers
    )


def _by_one_seed(goal: Goal, line: list[search.Trial]) -> list[Answer]:
    chosen = search.best(goal, line)
    return [Answer(trial, trial.outcome, 1) for trial in chosen if trial.outcome]


def drive(store: Store, over: Callable[[], bool], ensure: Callable[[], object]) -> None:
    """Drive all searches until none goes on for a while, or it is over.

    ensure: sees that somebody works on the runs.
    """
    driver, complaint = Driver(store), ""
    last = ensured = time.monotonic()
    while not over() and time.monotonic() - last < REST:
        try:
            if driver.tick():
                last = time.monotonic()
                if last - ensured > UNCHANGED:
                    ensure()
                    ensured = last
        except StoreError as error:  # a full disk or a locked file may pass
            if str(error) != complaint:
                log(str(error))
            complaint = str(error)
            last = time.monotonic()
            time.sleep(1)
        time.sleep(LOOK)


# ---------------------------------------------------------------- the process

_process: dict[Path, subprocess.Popen[bytes]] = {}
"""Workspace -> the driver that this process has started for it."""


def ensure(store: Store) -> bool:
    """Start the workspace's driver where a search goes on and this process has none; whether so.

    Takes a millisecond. Raises StoreError.
    """
    workspace = store.workspace
    process = _process.get(workspace)
    if process is not None and process.poll() is None:
        return False
    if not any(_under_way(store, asked) for asked in listed(workspace)):
        return False
    environment = {**os.environ, "PRUNING_HOME": str(workspace)}
    log_path = workspace / "searches.log"
    with disk_errors(log_path), open(log_path, "ab") as log_file:
        _process[workspace] = subprocess.Popen(
            [sys.executable, "-m", "pruning.sweeps.driver", "--server", str(os.getpid())],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
        )
    return True


def _under_way(store: Store, asked: Asked) -> bool:
    if asked.over or not _exists(store, asked.sweep):
        return False
    return store.sweep(asked.sweep).state == "active"


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pruning.sweeps.driver", description="Drive the workspace's searches."
    )
    server = "process that started it; it ends when that has ended"
    parser.add_argument("--server", type=int, help=server)
    args = parser.parse_args(argv)
    os.nice(5)  # as runs do, it yields to the page
    shutdown = Shutdown(args.server)
    signal.signal(signal.SIGTERM, shutdown.request)
    signal.signal(signal.SIGINT, shutdown.request)
    workspace = default_workspace()
    with open(workspace / LOCK, "a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # of another server, which goes on asking while that lives
            return 0
        drive(Store(workspace), shutdown.due, lambda: pool.ensure(workspace))
    return 0


if __name__ == "__main__":
    sys.exit(main())
