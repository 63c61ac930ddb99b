"""The figures of a finished run that lessons speak of: one number each, and how it is written.

The same function reads them from a run that is shipped and from one that a learner started.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dashboard import words
from pruning.events import Finished, Ticket
from pruning.metrics import Measurement, train_test_gap


@dataclass(frozen=True)
class Figure:
    """title: at the head of a column; write: a value in words; share: a difference of two is in
    percentage points.
    """

    title: str
    read: Callable[[Finished], float | None]
    write: Callable[[float], str]
    share: bool = False


def _accuracy(measured: Measurement | None) -> float | None:
    return measured.quality.value if measured and measured.quality else None


def _latency(measured: Measurement) -> float | None:
    return measured.latency.median if measured.latency else None


def _over(before: float | None, after: float | None) -> float | None:
    return before / after if before and after else None


def _speed(end: Finished) -> float | None:
    return _over(_latency(end.dense), _latency(end.deliverable))


def _energy(end: Finished) -> float | None:
    dense, small = end.dense.energy, end.deliverable.energy
    return _over(dense.executed, small.executed) if dense and small else None


def _energy_skipping(end: Finished) -> float | None:
    dense, small = end.dense.energy, end.deliverable.energy
    return _over(dense.executed, small.skipping) if dense and small else None


def _noise(measured: Measurement) -> float | None:
    noisy = measured.behaviour.noisy if measured.behaviour else None
    return noisy.value if noisy else None


def _gap(measured: Measurement) -> float | None:
    gap = train_test_gap(measured)
    return gap.value if gap else None


def _macs(end: Finished) -> float | None:
    before, after = end.dense.all_macs, end.deliverable.all_macs_kept
    return after / before if before and after is not None else None


def _milliseconds(value: float) -> str:
    return f"{value:.3g} ms"


FIGURES: dict[str, Figure] = {
    "accuracy": Figure("accuracy", lambda end: _accuracy(end.final), words.percent, share=True),
    "accuracy_pruned": Figure(
        "right after pruning",
        lambda end: _accuracy(end.pruned or end.final),
        words.percent,
        share=True,
    ),
    "dense": Figure("accuracy, dense", lambda end: _accuracy(end.dense), words.percent, share=True),
    "noisy": Figure(
        "accuracy under noise", lambda end: _noise(end.final), words.percent, share=True
    ),
    "noisy_dense": Figure(
        "accuracy under noise, dense", lambda end: _noise(end.dense), words.percent, share=True
    ),
    "gap": Figure("train/test gap", lambda end: _gap(end.final), words.percent, share=True),
    "gap_dense": Figure(
        "train/test gap, dense", lambda end: _gap(end.dense), words.percent, share=True
    ),
    "kept": Figure(
        "weights kept", lambda end: end.final.kept / end.dense.weights, words.percent, share=True
    ),
    "pruned": Figure("weights pruned", lambda end: end.final.sparsity, words.percent, share=True),
    "weights": Figure("weights", lambda end: end.final.kept, words.count),
    "weights_dense": Figure("weights, dense", lambda end: end.dense.weights, words.count),
    "macs": Figure("MACs kept", _macs, words.percent, share=True),
    "file": Figure("file", lambda end: end.deliverable.size.sparse, words.size),
    "file_dense": Figure("file, dense", lambda end: end.dense.size.dense, words.size),
    "smaller": Figure(
        "file, smaller by",
        lambda end: _over(end.dense.size.dense, end.deliverable.size.sparse),
        words.times,
    ),
    "latency": Figure("latency", lambda end: _latency(end.deliverable), _milliseconds),
    "latency_dense": Figure("latency, dense", lambda end: _latency(end.dense), _milliseconds),
    "faster": Figure("faster by", _speed, words.ratio),
    "energy": Figure("modelled energy, less by", _energy, words.ratio),
    "energy_skipping": Figure("the same where zeros are skipped", _energy_skipping, words.ratio),
    "ticket": Figure("ticket", lambda end: None, words.percent, share=True),
    "reinit": Figure("re-initialised", lambda end: None, words.percent, share=True),
    "random_mask": Figure("random mask", lambda end: None, words.percent, share=True),
    "one_shot": Figure("one shot", lambda end: None, words.percent, share=True),
}
"""Name -> figure. Those of lottery tickets are of the last round, and read from its events."""

TICKETS = ("ticket", "reinit", "random_mask", "one_shot")


Values = dict[str, float | None]
"""Figure -> value; None: not measured."""


def of_run(end: Finished, tickets: Sequence[Ticket] = ()) -> Values:
    """Every figure of a run. tickets: of its lottery, [] without one."""
    values = {name: _rounded(figure.read(end)) for name, figure in FIGURES.items()}
    last = max((ticket.step for ticket in tickets), default=0)
    for ticket in tickets:
        if ticket.step == last and ticket.kind in TICKETS and ticket.accuracy:
            values[ticket.kind] = _rounded(ticket.accuracy.value)
    return values


def of_row(row: Mapping[str, Any], dense: Mapping[str, Any], weights: int) -> Values:
    """The figures that a row of a sweep has. dense: of the same model as it is; weights: its own.

    Rows of single weights alone: a row does not say what else a compact model lacks.
    """
    values: Values = dict.fromkeys(FIGURES)
    kept = round(row["weights_kept"] * weights)
    values |= {name: row[name] for name in ("accuracy", "accuracy_pruned", "dense", "macs")}
    values |= {"kept": kept / weights, "pruned": 1 - kept / weights, "weights": kept}
    values |= {"weights_dense": weights, "file": row["bytes"], "file_dense": dense["bytes"]}
    values["latency"], values["latency_dense"] = row["latency_ms"], row["dense_latency_ms"]
    values["smaller"] = _over(values["file_dense"], values["file"])
    values["faster"] = _over(values["latency_dense"], values["latency"])
    # Modelled of operations counted: with zeros in place all of them are executed.
    values["energy"], values["energy_skipping"] = 1.0, _over(1.0, values["macs"])
    return {name: _rounded(value) for name, value in values.items()}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(float(value), 6)


def write(name: str, value: float | None) -> str:
    """A figure in words, `97.3 %`."""
    return words.NOT_MEASURED if value is None else FIGURES[name].write(value)


def difference(name: str, first: float | None, second: float | None) -> str:
    """How far two values of a figure are apart: `3.2 points`, of other figures in their unit."""
    if first is None or second is None:
        return words.NOT_MEASURED
    apart = first - second
    sign = "−" if apart < 0 else ""
    if FIGURES[name].share:
        return f"{sign}{abs(100 * apart):.1f} points"
    return f"{sign}{FIGURES[name].write(abs(apart))}"
