"""Improvements of a pruned model over its dense one, figure by figure, with intervals. Pure.

The states of a model are dense, masked (zeros in place) and compact (physically smaller).
Every figure is turned so that more is better: costs become ratios ("times"), dense over this one;
shares become differences from dense ("points"). No improvement has one sentence that says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from dashboard import words
from dashboard.charts import reasons
from pruning.events import Finished
from pruning.metrics import (
    TOLERANCE,
    Accuracy,
    Measurement,
    Quality,
    Score,
    Spread,
    Timing,
    accuracy_change,
    train_test_gap,
)
from pruning.stats import difference

States = dict[str, Measurement]
Timings = Mapping[str, tuple[Timing, ...]]
"""State -> its timings."""


@dataclass(frozen=True)
class Improvement:
    """How a state compares with dense.

    kind: "times", "points" or "value" (in the unit of a metric of the task's own); verdict:
    "better", "same", "worse", "no verdict" or "not measured"; why: one sentence where an expected
    improvement is absent.
    """

    kind: str
    change: Spread | None
    verdict: str
    why: str = ""


@dataclass(frozen=True)
class FigureRow:
    """One figure of all states.

    aspect: its heading, such as "Size"; cells: state -> value with unit and spread;
    improvements: state -> how it compares with dense; raw: state -> number in `unit`;
    modelled: counted, not measured; table_only: neither drawn nor listed among the improvements.
    """

    aspect: str
    name: str
    cells: dict[str, str]
    improvements: dict[str, Improvement] = field(default_factory=dict)
    raw: Mapping[str, float | None] = field(default_factory=dict)
    unit: str = ""
    modelled: bool = False
    table_only: bool = False


@dataclass(frozen=True)
class ResultPanel:
    """A finished run, figure by figure. absent: state that the run does not have -> why."""

    rows: list[FigureRow]
    states: tuple[str, ...]
    absent: dict[str, str]

    @property
    def shown(self) -> str:
        """The state that pictures and sentences are of: compact where there is one, else masked.

        The other states are columns of the table: a compact model is what one takes away.
        """
        return self.states[-1]


Figures = list[tuple[FigureRow, Improvement]]
"""Figures of one state, each with how it compares with dense."""


class NotImproved(NamedTuple):
    """Figures that did not improve, and the one reason that they share.

    names: short, for a line that is folded; what: with their amounts.
    """

    names: str
    what: str
    why: str


def against_dense(
    end: Finished,
    *,
    structured: bool,
    onnx_timings: Timings | None = None,
    unmeasured: str = reasons.NOT_IN_THIS_RUN,
) -> ResultPanel:
    """Compare the masked and the compact model of a run with its dense one.

    onnx_timings: measured after the run, when somebody asked for them; unmeasured: why a figure is
    not there, as a stopped run has another reason than an old one.
    """
    states = {"dense": end.dense, "masked": end.final}
    absent = {}
    if end.compact:
        states["compact"] = end.compact
    else:
        absent["compact"] = reasons.why_no_compact(end, structured, unmeasured)
    for state, timings in (onnx_timings or {}).items():
        if state in states:
            measured = states[state]
            states[state] = replace(measured, timings=(*measured.timings, *timings))
    rows = [
        _accuracy(states),
        *(_cost_row(cost, states) for cost in STORAGE),
        *_speed(states, structured),
        *(_cost_row(cost, states) for cost in ENERGY),
        *_measured_energy(states),
        _cost_row(BANDWIDTH, states),
        _accuracy_under_noise(states),
        _share_row("train/test gap", states, train_test_gap, "gap"),
        _share_row("calibration error", states, _calibration, "calibration"),
    ]
    rows = [_explained(row, unmeasured) for row in rows]
    return ResultPanel(rows, tuple(states), absent)


def _explained(row: FigureRow, unmeasured: str) -> FigureRow:
    """The row with the run's own reason for what was not measured."""
    improvements = {
        state: replace(improvement, why=unmeasured)
        if improvement.why == reasons.NOT_IN_THIS_RUN
        else improvement
        for state, improvement in row.improvements.items()
    }
    return replace(row, improvements=improvements)


# ---------------------------------------------------------------- costs: less is better


@dataclass(frozen=True)
class Cost:
    """A figure without spread of which less is better. reason: its key in `reasons`.

    read_dense: where dense is read in another way; compared: whether it counts as an improvement.
    """

    aspect: str
    name: str
    unit: str
    reason: str
    read: Callable[[Measurement], float | None]
    write: Callable[[float | None], str] = words.size
    read_dense: Callable[[Measurement], float | None] | None = None
    compared: bool = True
    modelled: bool = False
    table_only: bool = False


STORAGE = (
    Cost(
        "Size",
        "weights that are not zero",
        "weights",
        "weights",
        lambda m: m.kept,
        words.count,
    ),
    Cost(
        "Size",
        "file",
        "bytes",
        "file",
        lambda m: m.size.sparse,
        # Dense weights are stored as they are: bits for their zeros would only add to them.
        read_dense=lambda m: m.size.dense,
    ),
    Cost(
        "Size",
        "entropy limit of independent positions",
        "bytes",
        "file",
        lambda m: m.size.limit,
        compared=False,  # of independent positions: whole channels fall below it
        table_only=True,
    ),
    Cost(
        "Memory",
        "weights in memory",
        "bytes",
        "memory",
        lambda m: m.memory.weights if m.memory else None,
    ),
    Cost(
        "Memory",
        "activations at their peak",
        "bytes",
        "activations",
        lambda m: m.memory.activations if m.memory else None,
    ),
)
ENERGY = (
    Cost(
        "Energy",
        "operations as run",
        "pJ",
        "energy",
        lambda m: m.energy.executed if m.energy else None,
        words.energy,
        modelled=True,
    ),
    Cost(
        "Energy",
        "operations, zeros skipped",
        "pJ",
        "skipping",
        lambda m: m.energy.skipping if m.energy else None,
        words.energy,
        modelled=True,
    ),
)
BANDWIDTH = Cost(
    "Bandwidth", "bytes, compressed", "bytes", "compressed", lambda m: m.size.compressed
)


def _measured_energy(states: States) -> list[FigureRow]:
    """Joules by the processor's own counter, where it could be read: most machines have none."""

    def picojoules(m: Measurement) -> float | None:
        return m.energy.measured * 1e12 if m.energy and m.energy.measured else None

    if not any(picojoules(m) for m in states.values()):
        return []
    cost = Cost("Energy", "one pass, measured", "pJ", "energy", picojoules, words.energy)
    return [_cost_row(cost, states)]


def _cost_row(cost: Cost, states: States) -> FigureRow:
    raw = {state: cost.read(m) for state, m in states.items()}
    if cost.read_dense:
        raw["dense"] = cost.read_dense(states["dense"])
    cells = {}
    improvements = {}
    for state, value in raw.items():
        cells[state] = words.NOT_MEASURED if value is None else cost.write(int(value))
        if cost.compared and state != "dense":
            improvements[state] = _ratio(raw["dense"], value, cost.reason, state)
    return FigureRow(
        cost.aspect,
        cost.name,
        cells,
        improvements,
        raw,
        cost.unit,
        cost.modelled,
        cost.table_only,
    )


def _ratio(dense: float | None, value: float | None, reason: str, state: str) -> Improvement:
    if not dense or not value:
        return Improvement("times", None, "not measured", reasons.NOT_IN_THIS_RUN)
    ratio = dense / value
    change = Spread(ratio, ratio, ratio)  # counted exactly: no interval
    if ratio >= 1 + TOLERANCE:
        return Improvement("times", change, "better")
    verdict = "worse" if ratio <= 1 / (1 + TOLERANCE) else "same"
    return Improvement("times", change, verdict, reasons.why_not_better(reason, state, verdict))


# ---------------------------------------------------------------- speed

RUNTIMES = ("torch", "torch CSR", "ONNX Runtime")
UNTIMED = "PyTorch, 1 example"
VERDICTS = {"faster": "better", "slower": "worse", "the same": "same"}
"""A timing's verdict -> an improvement's; the others are the same word."""


def _speed(states: States, structured: bool) -> list[FigureRow]:
    """One row for each runtime, batch size and thread count that any state was timed with."""
    timings = [timing for m in states.values() for timing in m.timings]
    if not timings:  # else nothing would say that speed was not measured
        missing = Improvement("times", None, "not measured", reasons.NOT_IN_THIS_RUN)
        cells = {state: words.ms(m.latency) for state, m in states.items()}
        improvements = {state: missing for state in states if state != "dense"}
        return [FigureRow("Speed", UNTIMED, cells, improvements)]
    setups = dict.fromkeys((timing.runtime, timing.batch, timing.threads) for timing in timings)

    def place(setup: tuple[str, int, int]) -> tuple[int, int]:
        runtime, batch, _ = setup
        known = runtime in RUNTIMES
        return RUNTIMES.index(runtime) if known else len(RUNTIMES), batch

    return [_speed_row(states, structured, *setup) for setup in sorted(setups, key=place)]


def _speed_row(
    states: States, structured: bool, runtime: str, batch: int, threads: int
) -> FigureRow:
    cells = {}
    raw = {}
    improvements = {}
    for state, m in states.items():
        # A dense model has no zeros to skip: sparse rows are compared with dense kernels.
        wanted = "torch" if state == "dense" and runtime == "torch CSR" else runtime
        timing = _timing(m, wanted, batch, threads)
        cells[state] = words.ms(timing.latency) if timing else "—"
        raw[state] = timing.latency.median if timing and timing.latency else None
        if timing and state != "dense":
            improvements[state] = _speedup(timing, state, structured)
    name = f"{words.runtime(runtime)}, {words.plural(batch, 'example')}"
    unit = "ms" if " on " in runtime else f"ms, {words.plural(threads, 'CPU thread')}"
    return FigureRow("Speed", name, cells, improvements, raw, unit)


def _timing(m: Measurement, runtime: str, batch: int, threads: int) -> Timing | None:
    for timing in m.timings:
        if (timing.runtime, timing.batch, timing.threads) == (runtime, batch, threads):
            return timing
    return None


def _speedup(timing: Timing, state: str, structured: bool) -> Improvement:
    verdict = VERDICTS.get(timing.verdict, timing.verdict)
    why = "" if verdict == "better" else reasons.why_not_faster(timing, state, structured)
    return Improvement("times", timing.speedup, verdict, why)


# ---------------------------------------------------------------- answers: shares with intervals


def _accuracy(states: States) -> FigureRow:
    """Accuracy, or what the task is judged by in its place."""
    dense = states["dense"]
    name = dense.quality.name if dense.quality else "accuracy"
    share = dense.score is None or dense.score.unit == "%"
    return FigureRow(
        "Accuracy",
        f"{name} on test data",
        {state: words.percent(m.quality) for state, m in states.items()},
        {state: _kept(m, dense) for state, m in states.items() if state != "dense"},
        {state: m.quality.value if m.quality else None for state, m in states.items()},
        "share" if share else name,
    )


def _kept(m: Measurement, dense: Measurement) -> Improvement:
    """How a state's accuracy, or the task's own metric, compares with dense."""
    if m.score is None:
        missing = m.not_measured.get("accuracy")
        if missing:
            return Improvement("points", None, "not measured", f"{words.heading(missing)}.")
        return _points("accuracy", accuracy_change(m, dense))
    change = m.score_change
    if change is None:
        why = f"{words.heading(m.score.name)} is one number here, without an interval."
        return Improvement("value", None, "no verdict", why)
    if not m.score.higher_is_better:
        change = Spread(-change.high, -change.value, -change.low)
    compared = _points("accuracy", change)
    if m.score.unit == "%" and m.score.higher_is_better:
        return compared
    return replace(compared, kind="value", change=m.score_change)


def _change(after: Accuracy | None, before: Accuracy | None) -> Spread | None:
    return difference(after.spread, before.spread) if after and before else None


def _under_noise(
    reason: str, after: Quality | None, before: Quality | None, m: Measurement
) -> Improvement:
    """How answers to noisy inputs compare; another metric than accuracy is shown, not judged."""
    if isinstance(after, Score) or isinstance(before, Score):
        why = "Under noise, two values of this metric are not paired example by example."
        return Improvement("value", None, "no verdict", why)
    missing = m.not_measured.get("noise") or m.not_measured.get("accuracy")
    if after is None and missing:
        return Improvement("points", None, "not measured", f"{words.heading(missing)}.")
    return _points(reason, _change(after, before))


def _accuracy_under_noise(states: States) -> FigureRow:
    def noisy(m: Measurement) -> Quality | None:
        return (m.behaviour.noisy_score or m.behaviour.noisy) if m.behaviour else None

    dense = states["dense"]
    sigma = dense.behaviour.sigma if dense.behaviour else None
    name = dense.quality.name if dense.quality else "accuracy"
    improvements = {}
    for state, m in states.items():
        if state == "dense":
            continue
        clean = accuracy_change(m, dense)
        # What is worse without noise too has lost answers, not robustness.
        lost = clean is not None and clean.high < 0
        reason = "worse without noise" if lost else "noise"
        improvements[state] = _under_noise(reason, noisy(m), noisy(dense), m)
    accuracies = {state: noisy(m) for state, m in states.items()}
    return FigureRow(
        "Generalisation",
        f"{name} under noise (σ = {sigma:.2g})" if sigma else f"{name} under noise",
        {state: words.percent(accuracy) for state, accuracy in accuracies.items()},
        improvements,
        {state: accuracy.value if accuracy else None for state, accuracy in accuracies.items()},
        "share" if dense.score is None or dense.score.unit == "%" else name,
    )


def _calibration(m: Measurement) -> Spread | None:
    return m.behaviour.calibration if m.behaviour else None


def _share_row(
    name: str, states: States, read: Callable[[Measurement], Spread | None], reason: str
) -> FigureRow:
    """A share with its interval, of which less is better: its change is dense less this one."""
    spreads = {state: read(m) for state, m in states.items()}
    dense = spreads["dense"]
    improvements = {}
    for state, spread in spreads.items():
        if state != "dense":
            change = difference(dense, spread) if dense and spread else None
            improvements[state] = _points(reason, change)
            missing = states[state].not_measured.get("accuracy")
            if change is None and missing:
                why = f"{words.heading(missing)}."
                improvements[state] = replace(improvements[state], why=why)
    return FigureRow(
        "Generalisation",
        name,
        {state: words.span(spread) for state, spread in spreads.items()},
        improvements,
        {state: spread.value if spread else None for state, spread in spreads.items()},
        "share",
    )


def _points(reason: str, change: Spread | None) -> Improvement:
    if change is None:
        return Improvement("points", None, "not measured", reasons.NOT_IN_THIS_RUN)
    if change.low > 0:
        return Improvement("points", change, "better")
    verdict = "worse" if change.high < 0 else "same"
    # The reason depends on the verdict alone, so that any state will do.
    return Improvement("points", change, verdict, reasons.why_not_better(reason, "masked", verdict))


# ---------------------------------------------------------------- improvements in words


def improved(panel: ResultPanel) -> list[str]:
    """The improvements, a short line each; accuracy that was kept is one, and comes first."""
    kept = [
        f"{_heading(row).removesuffix(' on test data')} kept: {amount(row, improvement)}, "
        "within the interval"
        for row, improvement in _listed(panel, ("same",))
        if row.aspect == "Accuracy"
    ]
    better = [
        f"{_heading(row)}: {amount(row, improvement)}"
        for row, improvement in _listed(panel, ("better",))
    ]
    return kept + better


def not_improved(panel: ResultPanel) -> list[NotImproved]:
    """What did not improve, each with its reason; figures that share one stand in one line."""
    by_reason: dict[tuple[str, str], Figures] = {}
    verdicts = ("same", "worse", "no verdict", "not measured")
    for row, improvement in _listed(panel, verdicts):
        if row.aspect == "Accuracy" and improvement.verdict == "same":
            continue  # kept accuracy is an improvement
        by_reason.setdefault((improvement.why, row.aspect), []).append((row, improvement))
    split = _runtimes_with_two_reasons(by_reason.values())
    lines = []
    for (why, aspect), figures in by_reason.items():
        names = ", ".join(dict.fromkeys(_short_name(row, split) for row, _ in figures))
        if aspect == "Speed":
            names = f"Speed in {names}"
        amounts = [f"{_heading(row)}: {amount(row, improvement)}" for row, improvement in figures]
        lines.append(NotImproved(names, "; ".join(amounts), why))
    for state, why in panel.absent.items():
        name = f"{state.capitalize()} model"
        lines.append(NotImproved(name, f"{name}: none", why))
    return lines


def _runtimes_with_two_reasons(groups: Iterable[Figures]) -> set[str]:
    """Runtimes whose batches do not share their reason: their lines have to name the batch."""
    once: set[str] = set()
    twice: set[str] = set()
    for figures in groups:
        runtimes = {_runtime(row) for row, _ in figures if row.aspect == "Speed"}
        twice |= runtimes & once
        once |= runtimes
    return twice


def _runtime(row: FigureRow) -> str:
    """Of a speed's row, `PyTorch, 1 example`."""
    return row.name.rsplit(",", 1)[0]


def _short_name(row: FigureRow, split: set[str]) -> str:
    """`Weights in memory`; of a speed the runtime alone where its batches share their reason."""
    if row.aspect != "Speed":
        return _heading(row)
    return row.name if _runtime(row) in split else _runtime(row)


def _listed(panel: ResultPanel, verdicts: Sequence[str]) -> Iterator[tuple[FigureRow, Improvement]]:
    for row in panel.rows:
        improvement = row.improvements.get(panel.shown)
        if improvement and improvement.verdict in verdicts and not row.table_only:
            yield row, improvement


def _heading(row: FigureRow) -> str:
    return f"{row.name[:1].upper()}{row.name[1:]}"


def amount(row: FigureRow, improvement: Improvement) -> str:
    """`8.4× smaller`, `1.6× as fast (1.5 to 1.7)`, `+0.6 points (−1.1 to +2.3)`."""
    change = improvement.change
    if change is None:
        return improvement.verdict
    if improvement.kind == "points":
        return words.change(change)
    if improvement.kind == "value":
        factor, unit = (100, " points") if row.unit == "share" else (1, "")
        ends = (factor * value for value in (change.value, change.low, change.high))
        middle, low, high = (f"{value:+.3g}".replace("-", "−") for value in ends)
        return f"{middle}{unit} ({low} to {high})"
    if row.aspect == "Speed":
        digits = 2 if change.value < 1.995 else 1
        interval = f"{change.low:.{digits}f}× to {change.high:.{digits}f}×"
        return f"{change.value:.{digits}f}× as fast ({interval})"
    less = _comparative(row)
    if improvement.verdict == "same":
        return f"no {less}" if change.value < 1.005 else f"{words.ratio(change.value)} {less}"
    if change.value > 1:
        text = f"{words.ratio(change.value)} {less}"
    else:
        text = f"{words.ratio(1 / change.value)} more"
    return f"{text}, modelled" if row.modelled else text


def _comparative(row: FigureRow) -> str:
    if row.unit == "weights":
        return "fewer"
    return "smaller" if row.aspect == "Size" else "less"
