"""How the engine is measured against what people would use instead: cases, and how they are run.

A case names a competitor and gives two functions that do the same work, with an assertion that
their results are equal. Runs alternate in one process on one thread and are timed in CPU seconds,
because the machine has other work too; ratios are of neighbouring runs, so that a change of load
meets both. Ours is run twice a round: ours against itself says how far a ratio is to be trusted.
"""

from __future__ import annotations

import ctypes
import gc
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

ROUNDS = 9
"""Rounds of a case, at most."""

FEWEST = 3
"""Rounds of a case, however long they take."""

BUDGET = 60.0
"""CPU seconds from which no further round begins."""

SAME = 0.05
"""How far ours against ours may lie from 1 before a ratio is called uncertain."""


def nothing() -> None:
    """Between runs, where nothing has to be put back."""


@dataclass(frozen=True)
class Trial:
    """One case, ready to run.

    same: raises AssertionError where the results of `ours` and `theirs` differ. before: called
    before each run and not timed, such as a fresh copy of a model that a peer changes.
    """

    ours: Callable[[], Any]
    theirs: Callable[[], Any]
    same: Callable[[Any, Any], None]
    before: Callable[[], None] = nothing


@dataclass(frozen=True)
class Case:
    """What is compared with which peer.

    prepare: quick -> the trial; quick asks for a tiny model, for the assertions alone. Called when
    the case is run, so that one case's models are in memory at a time. gate, goal: ratios, theirs
    over ours, that are to be reached; before: the ratio before the work that this measures, as
    text. clock: seconds; processor time unless work is done in other processes.
    """

    name: str
    peer: str
    prepare: Callable[[bool], Trial]
    gate: float
    goal: float
    before: str
    clock: Callable[[], float] = time.process_time


@dataclass(frozen=True)
class Timed:
    """Seconds of each round: ours, ours again, theirs."""

    ours: tuple[float, ...]
    again: tuple[float, ...]
    theirs: tuple[float, ...]

    @property
    def ratios(self) -> list[float]:
        """Theirs over ours, round by round."""
        return [t / o for t, o in zip(self.theirs, self.ours, strict=True)]

    @property
    def control(self) -> float:
        """Ours over ours: 1, as far as the machine lets it be."""
        return statistics.median(a / o for a, o in zip(self.again, self.ours, strict=True))


def check(case: Case) -> None:
    """Both once, on a tiny model. Raises AssertionError where they differ."""
    trial = case.prepare(True)
    trial.before()
    ours = trial.ours()
    trial.before()
    trial.same(ours, trial.theirs())


def measure(case: Case, rounds: int = ROUNDS) -> Timed:
    """Both once to warm up and compared, then in turn. Raises AssertionError where they differ."""
    trial = case.prepare(False)
    trial.before()
    ours = trial.ours()
    trial.before()
    trial.same(ours, trial.theirs())
    del ours
    columns: dict[str, list[float]] = {"ours": [], "theirs": [], "again": []}
    runs = {"ours": trial.ours, "theirs": trial.theirs, "again": trial.ours}
    began = time.process_time()
    for number in range(rounds):
        if number >= FEWEST and time.process_time() - began > BUDGET:
            break
        # To and fro, so that what drifts (a clock, a cache) meets each as first and as last.
        order = list(runs) if number % 2 == 0 else list(runs)[::-1]
        for name in order:
            columns[name].append(_seconds(case, trial, runs[name]))
    return Timed(tuple(columns["ours"]), tuple(columns["again"]), tuple(columns["theirs"]))


def _seconds(case: Case, trial: Trial, run: Callable[[], Any]) -> float:
    trial.before()
    gc.collect()  # what the run before left is not for this one to pay
    start = case.clock()
    run()
    return case.clock() - start


HEAD = (
    "| case | against | before | ours, ms | theirs, ms | ratio (quartiles) | ours/ours | rounds "
    "| gate → goal | |\n|---|---|---|---|---|---|---|---|---|---|\n"
)


def row(case: Case, timed: Timed) -> str:
    """A line of the table."""
    low, median, high = quartiles(timed.ratios)
    ours, theirs = statistics.median(timed.ours), statistics.median(timed.theirs)
    cells = (
        case.name,
        case.peer,
        case.before,
        f"{1e3 * ours:,.1f}",
        f"{1e3 * theirs:,.1f}",
        f"**{_times(median)}** ({_times(low)} to {_times(high)})",
        f"{timed.control:.2f}",
        str(len(timed.ours)),
        f"{case.gate:g}× → {case.goal:g}×",
        verdict(case, timed),
    )
    return f"| {' | '.join(cells)} |"


def verdict(case: Case, timed: Timed) -> str:
    """Whether gate and goal are met, by the median."""
    ratio = statistics.median(timed.ratios)
    if ratio >= case.goal:
        text = "goal met"
    elif ratio >= case.gate:
        text = "gate met"
    else:
        text = "missed"
    if abs(timed.control - 1) > SAME:
        text += ", uncertain: ours and ours differ"
    return text


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """(low, median, high)."""
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, median, high


def _times(ratio: float) -> str:
    return f"{ratio:.2f}×" if ratio < 10 else f"{ratio:.0f}×"


# ---------------------------------------------------------------- memory and growth


@dataclass(frozen=True)
class Growth:
    """What a larger model costs.

    prepare: (step, quick) -> (weights of that model, what is measured); steps 0 to 3, each about
    four times as large as the one before.
    """

    name: str
    prepare: Callable[[int, bool], tuple[int, Callable[[], Any]]]


GROWTH_HEAD = (
    "| | weights, M | CPU ms | extra memory at the peak, MB | times the weights' bytes "
    "| slope of time | slope of memory |\n|---|---|---|---|---|---|---|\n"
)


def grow(growth: Growth, quick: bool = False) -> str:
    """A line of the table: four sizes, and by which power of the weights each figure grows.

    1 is in proportion, 0 not at all; a least-squares line through the logarithms.
    """
    weights, times, peaks = [], [], []
    for step in range(4):
        count, run = growth.prepare(step, quick)
        run()  # warm
        seconds = []
        for _ in range(1 if quick else 5):
            gc.collect()
            start = time.process_time()
            run()
            seconds.append(time.process_time() - start)
        weights.append(count)
        times.append(statistics.median(seconds))
        peaks.append(extra_memory(run))
    share = "not measured here"
    memory = "not measured here"
    slope = ""
    if all(peaks):
        share = " / ".join(f"{p / (4 * w):.2f}" for p, w in zip(peaks, weights, strict=True))
        memory = " / ".join(f"{p / 1e6:,.0f}" for p in peaks)
        slope = f"{_slope(weights, peaks):.2f}"
    cells = (
        growth.name,
        " / ".join(f"{w / 1e6:.1f}" for w in weights),
        " / ".join(f"{1e3 * t:.1f}" for t in times),
        memory,
        share,
        f"{_slope(weights, times):.2f}",
        slope,
    )
    return f"| {' | '.join(cells)} |"


def _slope(sizes: Sequence[float], values: Sequence[float]) -> float:
    logs = [math.log(max(value, 1e-9)) for value in values]
    return statistics.linear_regression([math.log(size) for size in sizes], logs).slope


def extra_memory(run: Callable[[], Any]) -> int:
    """Bytes resident at the peak of a run above those before it; 0 where that cannot be asked.

    What the result takes is in it. Linux alone says it, and lets the peak be set back.
    """
    gc.collect()
    with suppress(OSError, AttributeError):
        # Else free memory that the allocator holds would hide what the run takes.
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
        before = _resident("VmRSS")
        result = run()
        peak = _resident("VmHWM")
    except (OSError, StopIteration):
        return 0
    del result
    return max(0, peak - before)


def _resident(field: str) -> int:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    line = next(line for line in lines if line.startswith(f"{field}:"))
    return 1024 * int(line.split()[1])


def one_thread() -> None:
    """Times and results are of one thread."""
    torch.set_num_threads(1)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
