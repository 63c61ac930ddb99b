"""What a run gained and what it did not: every promise of pruning, dense | masked | slimmed, each with its interval. Pure.

A line is one figure. "times" figures are better the larger the ratio to dense is; "points" figures are differences from dense,
turned so that more is better. A gain that did not come has one sentence that says why.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from dashboard import words
from dashboard.charts import reasons
from pruning.events import Finished
from pruning.metrics import (
    TOLERANCE,
    Accuracy,
    Measurement,
    Spread,
    Timing,
    accuracy_change,
    train_test_gap,
)
from pruning.stats import difference

STATES = ("dense", "masked", "compact")


@dataclass(frozen=True)
class Gain:
    """How a state stands to dense. kind: "times" or "points"; verdict: "better", "same", "worse", "no verdict" or
    "not measured"; why: one sentence where an expected gain is absent."""

    kind: str
    change: Spread | None
    verdict: str
    why: str = ""


@dataclass(frozen=True)
class Line:
    """One figure. cells: state -> value with unit and spread; gains: state -> how it stands to dense. modelled: counted, not measured;
    quiet: told in the table alone."""

    promise: str
    name: str
    cells: dict[str, str]
    gains: dict[str, Gain] = field(default_factory=dict)
    raw: dict[str, float | None] = field(default_factory=dict)
    unit: str = ""
    modelled: bool = False
    quiet: bool = False


@dataclass(frozen=True)
class Panel:
    """A finished run as its promises. absent: why a state is not there."""

    lines: list[Line]
    states: tuple[str, ...]
    absent: dict[str, str]


Figure = Callable[[Measurement], float | None]


def panel(
    end: Finished, *, structured: bool, elsewhere: dict[str, tuple[Timing, ...]] | None = None
) -> Panel:
    """elsewhere: timings that were measured apart from the run, by state ("dense", "masked", "slimmed")."""
    compact: Measurement | None = getattr(end, "compact", None)
    held = {"dense": end.dense, "masked": end.final, **({"compact": compact} if compact else {})}
    for name, more in (elsewhere or {}).items():
        if name in held:
            held[name] = replace(held[name], timings=(*held[name].timings, *more))
    lines = [
        *_answers(held),
        *_size(held),
        *_speed(held, structured),
        *_energy(held),
        *_bandwidth(held),
        *_general(held),
    ]
    return Panel(
        lines, tuple(held), {} if compact else {"compact": reasons.no_compact(end, structured)}
    )


# ---------------------------------------------------------------- the promises


def _answers(held: dict[str, Measurement]) -> list[Line]:
    cells = {name: words.percent(m.accuracy) for name, m in held.items()}
    raw = {name: m.accuracy.value if m.accuracy else None for name, m in held.items()}
    gains = {
        name: _points("accuracy", accuracy_change(m, held["dense"]))
        for name, m in held.items()
        if name != "dense"
    }
    return [Line("Accuracy", "accuracy on test data", cells, gains, raw, "share")]


def _size(held: dict[str, Measurement]) -> list[Line]:
    def file(m: Measurement) -> float | None:
        return m.size.dense if m is held["dense"] else m.size.entropy_coded

    lines = [
        _times(
            "Size",
            "weights that are not zero",
            held,
            lambda m: m.kept,
            words.count,
            "weights",
            "weights",
        ),
        _times("Size", "file", held, file, words.size, "bytes", "file"),
        _times(
            "Size",
            "file, a bit a weight and the values",
            held,
            lambda m: m.size.sparse,
            words.size,
            "bytes",
            "file",
            quiet=True,
        ),
        _times(
            "Memory",
            "weights in memory",
            held,
            lambda m: m.memory.weights if m.memory else None,
            words.size,
            "bytes",
            "memory",
        ),
        _times(
            "Memory",
            "activations at their peak",
            held,
            lambda m: m.memory.activations if m.memory else None,
            words.size,
            "bytes",
            "activations",
        ),
    ]
    limits = {name: m.size.limit for name, m in held.items()}
    limit = Line(
        "Size",
        "entropy limit of the file",
        {n: words.size(v) for n, v in limits.items()},
        {},
        dict(limits),
        "bytes",
        quiet=True,
    )
    return [*lines[:3], limit, *lines[3:]]


def _bandwidth(held: dict[str, Measurement]) -> list[Line]:
    return [
        _times(
            "Bandwidth",
            "bytes that travel",
            held,
            lambda m: m.size.compressed,
            words.size,
            "bytes",
            "travel",
        )
    ]


def _energy(held: dict[str, Measurement]) -> list[Line]:
    def joules(picojoules: float | int | None) -> str:
        return words.energy(picojoules)

    executed = _times(
        "Energy",
        "operations as run",
        held,
        lambda m: m.energy.executed if m.energy else None,
        joules,
        "pJ",
        "energy",
    )
    skipping = _times(
        "Energy",
        "operations, zeros skipped",
        held,
        lambda m: m.energy.skipping if m.energy else None,
        joules,
        "pJ",
        "skipping",
    )
    lines = [replace(line, modelled=True) for line in (executed, skipping)]
    if any(m.energy and m.energy.measured for m in held.values()):

        def counted(m: Measurement) -> float | None:
            return m.energy.measured * 1e12 if m.energy and m.energy.measured else None

        lines.append(_times("Energy", "one pass, measured", held, counted, joules, "pJ", "energy"))
    return lines


def _times(
    promise: str,
    name: str,
    held: dict[str, Measurement],
    get: Figure,
    write: Callable[[float | None], str],
    unit: str,
    about: str,
    quiet: bool = False,
) -> Line:
    """A figure without spread, of which less is better."""
    raw = {state: get(m) for state, m in held.items()}
    gains = {
        state: _ratio(raw["dense"], value, about, state)
        for state, value in raw.items()
        if state != "dense"
    }
    cells = {
        state: write(int(value)) if value is not None else words.NOT_MEASURED
        for state, value in raw.items()
    }
    return Line(promise, name, cells, gains, raw, unit, quiet=quiet)


def _ratio(dense: float | None, value: float | None, about: str, state: str) -> Gain:
    if not dense or not value:
        return Gain("times", None, "not measured", reasons.older())
    ratio = dense / value
    verdict = (
        "better" if ratio >= 1 + TOLERANCE else "worse" if ratio <= 1 / (1 + TOLERANCE) else "same"
    )
    return Gain(
        "times",
        Spread(ratio, ratio, ratio),
        verdict,
        "" if verdict == "better" else reasons.of(about, state, verdict),
    )


def _speed(held: dict[str, Measurement], structured: bool) -> list[Line]:
    keys = dict.fromkeys((t.runtime, t.batch, t.threads) for m in held.values() for t in m.timings)
    order = {"torch": 0, "torch CSR": 1, "ONNX Runtime": 2}
    return [
        _timed(held, structured, *key)
        for key in sorted(keys, key=lambda key: (order.get(key[0], 3), key[1]))
    ]


def _timed(
    held: dict[str, Measurement], structured: bool, runtime: str, batch: int, threads: int
) -> Line:
    def find(m: Measurement, runtime: str) -> Timing | None:
        return next(
            (t for t in m.timings if (t.runtime, t.batch, t.threads) == (runtime, batch, threads)),
            None,
        )

    found = {
        state: find(m, "torch" if state == "dense" and runtime == "torch CSR" else runtime)
        for state, m in held.items()
    }
    cells = {state: words.ms(t.latency) if t else "—" for state, t in found.items()}
    raw = {state: t.latency.median if t and t.latency else None for state, t in found.items()}
    gains = {
        state: _judged(t, state, structured)
        for state, t in found.items()
        if t is not None and state != "dense"
    }
    name = f"{words.runtime(runtime)}, {words.plural(batch, 'example')}"
    return Line("Speed", name, cells, gains, raw, f"ms, {words.plural(threads, 'CPU thread')}")


def _judged(t: Timing, state: str, structured: bool) -> Gain:
    verdict = {"faster": "better", "slower": "worse", "the same": "same"}.get(t.verdict, t.verdict)
    why = "" if verdict == "better" else reasons.of_timing(t, state, structured)
    return Gain("times", t.speedup, verdict, why)


def _general(held: dict[str, Measurement]) -> list[Line]:
    def noisy(m: Measurement) -> Accuracy | None:
        return m.behaviour.noisy if m.behaviour else None

    dense = held["dense"]
    pairs = {state: (noisy(m), noisy(dense)) for state, m in held.items() if state != "dense"}
    moved = {
        state: difference(a.spread, b.spread) if a and b else None
        for state, (a, b) in pairs.items()
    }
    sigma = dense.behaviour.sigma if dense.behaviour else None
    name = f"accuracy under noise (σ = {sigma:.2g})" if sigma else "accuracy under noise"
    under = Line(
        "Generalisation",
        name,
        {state: words.percent(noisy(m)) for state, m in held.items()},
        {
            state: _points("noise without it" if _worse(held[state], dense) else "noise", change)
            for state, change in moved.items()
        },
        {state: held_.value if (held_ := noisy(m)) else None for state, m in held.items()},
        "share",
    )
    gaps = _falling("train/test gap", held, train_test_gap, "gap")
    errors = _falling(
        "calibration error",
        held,
        lambda m: m.behaviour.calibration if m.behaviour else None,
        "calibration",
    )
    return [under, gaps, errors]


def _worse(m: Measurement, dense: Measurement) -> bool:
    """Whether it answers worse without noise already."""
    change = accuracy_change(m, dense)
    return change is not None and change.high < 0


def _falling(
    name: str, held: dict[str, Measurement], get: Callable[[Measurement], Spread | None], about: str
) -> Line:
    """A share with its interval, of which less is better: its change is turned round."""
    found = {state: get(m) for state, m in held.items()}
    before = found["dense"]
    gains = {
        state: _points(about, difference(before, after) if before and after else None)
        for state, after in found.items()
        if state != "dense"
    }
    return Line(
        "Generalisation",
        name,
        {state: words.span(spread) for state, spread in found.items()},
        gains,
        {state: spread.value if spread else None for state, spread in found.items()},
        "share",
    )


def _points(about: str, change: Spread | None) -> Gain:
    if change is None:
        return Gain("points", None, "not measured", reasons.older())
    verdict = "better" if change.low > 0 else "worse" if change.high < 0 else "same"
    return Gain(
        "points",
        change,
        verdict,
        "" if verdict == "better" else reasons.of(about, "masked", verdict),
    )


# ---------------------------------------------------------------- what came and what did not


def came(held: Panel) -> list[str]:
    """The gains that came, a short line each; accuracy that was kept is one."""
    gained = [
        f"{_head(line, state, held)}: {amount(line, line.gains[state])}"
        for line, state in _told(held, ("better",))
    ]
    kept = [(line, state) for line, state in _told(held, ("same",)) if line.promise == "Accuracy"]
    return [
        f"Accuracy kept{_which(state, held)}: {amount(line, line.gains[state])}, within the interval"
        for line, state in kept
    ] + gained


def missing(held: Panel) -> list[str]:
    """The gains that did not come, each with its reason; figures that share one are told together."""
    found: dict[tuple[str, str], list[str]] = {}
    for line, state in _told(held, ("same", "worse", "no verdict", "not measured")):
        gain = line.gains[state]
        if line.promise != "Accuracy" or gain.verdict != "same":
            found.setdefault((gain.why, line.promise), []).append(
                f"{_head(line, state, held)}: {amount(line, gain)}"
            )
    return [f"{'; '.join(said)}. {why}" for (why, _), said in found.items()]


def _told(held: Panel, verdicts: Sequence[str]) -> list[tuple[Line, str]]:
    return [
        (line, state)
        for line in held.lines
        if not line.quiet
        for state, gain in line.gains.items()
        if gain.verdict in verdicts
    ]


def _head(line: Line, state: str, held: Panel) -> str:
    return f"{line.name[:1].upper()}{line.name[1:]}{_which(state, held)}"


def _which(state: str, held: Panel) -> str:
    """Said only where there are two to tell apart."""
    return f", {state}" if len(held.states) > 2 else ""


def amount(line: Line, gain: Gain) -> str:
    """`8.4× smaller`, `1.6× as fast (1.5 to 1.7)`, `+0.6 points (−1.1 to +2.3)`."""
    if gain.change is None:
        return gain.verdict
    if gain.kind == "points":
        return words.change(gain.change)
    low, value, high = gain.change.low, gain.change.value, gain.change.high
    if line.promise == "Speed":
        digits = 2 if value < 1.995 else 1
        return f"{value:.{digits}f}× as fast ({low:.{digits}f}× to {high:.{digits}f}×)"
    less = "fewer" if line.unit == "weights" else "smaller" if line.promise == "Size" else "less"
    if gain.verdict == "same":
        return f"no {less}" if value < 1.005 else f"{words.ratio(value)} {less}"
    said = f"{words.ratio(value)} {less}" if value > 1 else f"{words.ratio(1 / value)} more"
    return f"{said}, modelled" if line.modelled else said
