"""Searches as pages use them: started, followed, and told in a sentence. Imports no torch, and no
Optuna: a process of its own drives them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from dashboard import jobs, state, sweeps, visitors, words
from pruning.errors import PruningError
from pruning.storage import default_workspace
from pruning.sweeps import driver, search
from pruning.sweeps.driver import Asked, LineAnswer
from pruning.sweeps.goal import Goal
from pruning.sweeps.plan import RANDOM_SEARCH, SEARCH
from pruning.sweeps.sweeps import Progress

FINDS = {
    "smallest": "the smallest file",
    "fastest": "the fastest",
    "fewest macs": "the fewest MACs",
    "most accurate": "the most accurate",
    "front": "the front of accuracy and bytes",
}
"""Thing to find -> as people choose it."""

NAMES = {SEARCH: "The search", RANDOM_SEARCH: "Random search"}
DEFAULT = "The default technique"
MOST_OF_FRONT = 6
"""Answers of a front that are listed; the picture has all."""


@dataclass(frozen=True)
class Form:
    """A goal as people enter it. kb: thousands of bytes; weights, macs: percent of dense's."""

    find: str = "smallest"
    within: float | None = None
    kb: float | None = None
    weights: float | None = None
    macs: float | None = None
    epochs: int = 4

    @property
    def limited(self) -> bool:
        """Whether its size is."""
        return any(limit is not None for limit in (self.kb, self.weights, self.macs))

    def goal(self, model: str) -> Goal:
        """Raises RecipeError for what cannot be looked for."""
        return Goal(
            model,
            find=self.find,
            within_points=self.within,
            most_bytes=None if self.kb is None else round(1000 * self.kb),
            most_weights=_share(self.weights),
            most_macs=_share(self.macs),
            epochs=self.epochs,
        )


def _share(percent: float | None) -> float | None:
    return None if percent is None else round(percent / 100, 10)


# ---------------------------------------------------------------- asking


def installed() -> bool:
    return search.installed()


def start(goal: Goal, trials: int, control: bool) -> str | None:
    """Have it begun, or gone on with; its sweep's id. Why it could not be is a warning."""
    try:
        me = visitors.me()
        sweep = driver.ask(jobs.store(), goal, trials, control=control, visitor=me)
        jobs.ensure_anew()  # what drives it, at once
    except PruningError as error:
        state.warn(str(error))
        return None
    return sweep


def resume(sweep: str) -> None:
    """From a button: why it could not be is a warning."""
    sweeps.attempt(driver.resume, sweep)


def expected(goal: Goal, trials: int, control: bool) -> float | None:
    """Seconds; None where nothing like it was timed here, nor in a shipped sweep."""
    seconds = driver.expected(jobs.store(), goal, trials, control)
    if seconds is not None:
        return seconds
    plan = search.first_plan(goal)
    elsewhere = sweeps.expected_elsewhere(plan)
    if elsewhere is None:
        return None
    return elsewhere / len(plan.points()) * runs(goal, trials, control)


def runs(goal: Goal, trials: int, control: bool) -> int:
    return driver.expected_runs(goal, trials, control)


def runs_text(goal: Goal, trials: int, control: bool) -> str:
    """`133 runs: 60 trials of the search, 60 at random, and the default technique`."""
    beside = f", {trials} at random" if control else ""
    trial = words.plural(trials, "trial")
    return f"{runs(goal, trials, control):,} runs: {trial}{beside}, and the default technique"


# ---------------------------------------------------------------- how far it is


def of(sweep: str) -> Asked | None:
    """The search of a sweep; None of one that is no search's."""
    return driver.read(default_workspace(), sweep)


def is_over(now: Progress, asked: Asked | None) -> bool:
    """Whether nothing changes any more by itself: between two trials no run of it works."""
    if not now.ended:
        return False
    return asked is None or asked.over or now.state != "active"


def tried_text(asked: Asked) -> str:
    """`search 12 of 60 tried, random search 11 of 60, 2 failed`."""
    if not asked.lines:
        return f"{asked.trials} trials to come"
    parts = [f"{line.name} {line.done + line.failed} of {asked.trials}" for line in asked.lines]
    failed = sum(line.failed for line in asked.lines)
    return ", ".join([*parts, *([f"{failed} failed"] if failed else [])])


def share(now: Progress, asked: Asked) -> float:
    """Of its runs that have ended, in [0, 1]."""
    if asked.over and now.ended:
        return 1.0
    whole = runs(asked.goal, asked.trials, asked.control)
    return min(1.0, (now.total - now.running - now.waiting) / max(whole, now.total))


def remaining(now: Progress, asked: Asked) -> float | None:
    """Seconds, by its own runs; None before the first is done."""
    took = [row["seconds"] for row in sweeps.rows(now) if row["seconds"] is not None]
    if not took:
        return None
    whole = max(runs(asked.goal, asked.trials, asked.control), now.total)
    left_over = whole - (now.total - now.running - now.waiting)
    return median(took) * left_over / jobs.slots()


def dashboard_command() -> str | None:
    """That opens Optuna's dashboard; None for who is not the owner: it names the server's files."""
    return search.dashboard_command(default_workspace()) if visitors.is_owner() else None


# ---------------------------------------------------------------- what came of it


def answers(asked: Asked, line: str) -> list[LineAnswer]:
    return [each for each in asked.answers if each.line == line]


def of_default(asked: Asked) -> list[LineAnswer]:
    return [each for each in asked.answers if each.line not in (SEARCH, RANDOM_SEARCH)]


def sentences(asked: Asked) -> list[str]:
    """What each line came to, the search first."""
    names = [line.name for line in asked.lines]
    made = [_line_sentence(asked, name, answers(asked, name)) for name in names]
    if asked.lines:
        made.append(_line_sentence(asked, "", of_default(asked)))
    return made


def _line_sentence(asked: Asked, line: str, answers: Sequence[LineAnswer]) -> str:
    name = NAMES.get(line, DEFAULT)
    so_far = "" if asked.over else " so far"
    if not answers:
        return f"{name}: none keeps the limit{so_far}."
    if asked.goal.find == "front":
        first, last = answers[0].mean, answers[-1].mean
        if len(answers) == 1:
            return f"{name}{so_far}: one recipe that no other beats, {_figures(asked, first)}."
        ends = f"from {_figures(asked, first)} to {_figures(asked, last)}"
        return f"{name}{so_far}: {len(answers)} recipes that no other beats, {ends}."
    best = answers[0]
    seeds = "one seed" if best.seeds == 1 else f"mean of {best.seeds} seeds"
    return f"{name}{so_far}: {_figures(asked, best.mean)} ({seeds})."


def _figures(asked: Asked, mean: Any) -> str:
    """`12.3 kB, 4.1 % of the weights, 0.94 points below dense`, what is looked for first."""
    way = "below" if mean.points >= 0 else "above"
    points = f"{abs(mean.points):.2f} points {way} dense"
    weights = f"{words.percent(mean.weights)} of the weights"
    figures = {"bytes": words.size(mean.bytes), "weights": weights, "points": points}
    if mean.macs is not None:
        figures["macs"] = f"{words.percent(mean.macs)} of the MACs"
    if mean.latency is not None:
        figures["latency"] = f"{words.percent(mean.latency)} of dense's time"
    order = {
        "smallest": ("bytes", "weights", "points"),
        "fastest": ("latency", "bytes", "points"),
        "fewest macs": ("macs", "bytes", "points"),
        "most accurate": ("points", "bytes", "weights"),
        "front": ("bytes", "points"),
    }[asked.goal.find]
    return ", ".join(figures[name] for name in order if name in figures)
