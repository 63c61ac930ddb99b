"""Events and measurements for a shell: flat names with units, and lines of words. No torch."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from pruning import describe, events
from pruning.describe import RunFacts
from pruning.metrics import (
    Accuracy,
    Measurement,
    Quality,
    Score,
    Spread,
    Timing,
    train_test_gap,
)

# ---------------------------------------------------------------- plain data


def flat(m: Measurement) -> dict[str, Any]:
    """Every figure under one name that says its unit. None: not measured."""
    size, memory, energy, behaviour = m.size, m.memory, m.energy, m.behaviour
    data: dict[str, Any] = {
        "weights_total": m.weights,
        "weights_nonzero": m.kept,
        "macs_dense": m.macs,
        "macs_nonzero": m.macs_kept,
        "macs_of_no_weight": m.macs_other,
        "dense_file_bytes": size.dense,
        "sparse_file_bytes": size.sparse,
        "entropy_limit_bytes": size.limit,
        "compressed_file_bytes": size.compressed,
        "memory_weights_bytes": memory.weights if memory else None,
        "memory_activations_bytes": memory.activations if memory else None,
        "energy_executed_pj_modelled": energy.executed if energy else None,
        "energy_skipping_zeros_pj_modelled": energy.skipping if energy else None,
        "energy_joules_measured": energy.measured if energy else None,
        "accuracy_change_points": _points(m.paired.change if m.paired else None),
        "train_test_gap_points": _points(train_test_gap(m)),
        "metric": score(m.score),
        "metric_change": asdict(m.score_change) if m.score_change else None,
        "not_measured": m.not_measured,
        "noisy_accuracy": share(behaviour.noisy if behaviour else None),
        "noise_sigma": behaviour.sigma if behaviour else None,
        "calibration_error_points": _points(behaviour.calibration if behaviour else None),
    }
    for timing in m.timings:
        data |= _timing(timing)
    return data


def share(accuracy: Accuracy | None) -> dict[str, Any] | None:
    """An accuracy with its interval and counts."""
    if accuracy is None:
        return None
    return {"value": accuracy.value, "interval": accuracy.interval, **asdict(accuracy)}


def score(value: Score | None) -> dict[str, Any] | None:
    """A metric of the task's own: name, value, interval, unit and which way is better."""
    return None if value is None else asdict(value)


def _points(spread: Spread | None) -> dict[str, float] | None:
    """A share in percentage points."""
    if spread is None:
        return None
    return {"value": 100 * spread.value, "low": 100 * spread.low, "high": 100 * spread.high}


def _timing(t: Timing) -> dict[str, Any]:
    # One flat name for each figure, so that a script needs no loop to find a runtime's.
    name = f"{t.runtime.lower().replace(' ', '_')}_batch{t.batch}"
    if t.latency is None:
        return {f"{name}_ms": None, f"{name}_why": t.why}
    data: dict[str, Any] = {
        f"{name}_ms": t.latency.median,
        f"{name}_ms_quartiles": [t.latency.low, t.latency.high],
        f"{name}_threads": t.threads,
        f"{name}_control_share": t.control,
        f"{name}_verdict": t.verdict,
    }
    if t.speedup:
        data[f"{name}_speedup"] = [t.speedup.low, t.speedup.value, t.speedup.high]
    return data


# ---------------------------------------------------------------- words


def quality(value: Quality | None, m: Measurement | None = None) -> str:
    """An accuracy, or the task's own metric by its name, with its interval.

    m: says why there is none.
    """
    if value is None:
        why = m.not_measured.get("accuracy", "no data") if m else "no data, or no classes"
        return f"accuracy not measured ({why})"
    if isinstance(value, Accuracy):
        low, high = value.interval
        return f"{value.value:.1%} ({low:.1%} to {high:.1%})"
    if value.spread is None:
        return f"{value.name} {value.text}"
    low_text, high_text = value.shown(value.spread.low), value.shown(value.spread.high)
    return f"{value.name} {value.text} ({low_text} to {high_text})"


def event(event: events.Event, facts: RunFacts | None = None) -> str:
    """One line for people; of the result, several. facts: what the run did up to this event."""
    # The first word is padded, so that a run reads as a table.
    match event:
        case events.Started(recipe=r, epochs=epochs):
            technique = f"{r['criterion']} by {r['granularity']}, {r['scope']}"
            return f"{r['model']}: {technique}, {epochs} epochs of fine-tuning"
        case events.Measured(stage=stage, measurement=m):
            kept = f"{m.kept:,} of {m.weights:,} weights"
            size = f"{m.size.sparse:,} bytes as a sparse file"
            return f"{stage:8} test {quality(m.quality, m)}, {kept}, {size}"
        case events.Pruned(step=step, steps=steps):
            return f"pruned   step {step} of {steps}: {describe.outcome(facts)}"
        case events.Recalibrated(layers=layers, examples=n, seconds=seconds):
            where = f"{layers} BatchNorm layers recalibrated on {n:,} examples"
            return f"norms    {where}, {seconds:.2f} s"
        case events.Reconstructed(layers=layers, examples=n, seconds=seconds):
            return f"solved   {layers} layers reconstructed on {n:,} examples, {seconds:.2f} s"
        case events.Epoch():
            return _epoch(event)
        case events.Ticket(step=step, steps=steps, kind=kind, kept=kept):
            weights = f"{kept:,} weights kept ({1 - event.sparsity:.2%})"
            return f"{kind:11} round {step} of {steps}: {weights}, test {quality(event.quality)}"
        case events.Notice(text=notice):
            return f"note     {notice}"
        case events.Finished(seconds=seconds, final=final):
            end = f"finished {describe.outcome(facts)}, {seconds:.1f} s"
            return "\n".join([*lines(final), end])
        # Cells and forecasts have pages of their own; here their JSON says enough.
        case _:
            return events.to_json(event)


def _epoch(e: events.Epoch) -> str:
    control = f" of the control {e.branch}" if e.branch else ""
    teacher = "" if e.teacher is None else f", against the dense model {e.teacher:.4f}"
    return (
        f"epoch    {e.epoch} of {e.epochs}{control}: training loss {e.train_loss:.4f}{teacher}, "
        f"validation {quality(e.quality)}, {e.seconds:.2f} s"
    )


def lines(m: Measurement) -> list[str]:
    """A measurement in a few aligned lines."""
    lines = [f"weights  {m.kept:,} of {m.weights:,}", _file(m)]
    if m.memory:
        peak = m.memory.activations
        activations = "" if peak is None else f", {peak:,} of activations at most"
        lines.append(f"memory   {m.memory.weights:,} bytes of weights{activations} at run time")
    lines += [f"time     {_time(timing)}" for timing in m.timings]
    if m.energy:
        run, skipping = m.energy.executed / 1e6, m.energy.skipping / 1e6
        measured = "" if m.energy.measured is None else f"; {m.energy.measured:.3g} J measured"
        lines.append(
            f"energy   {run:.3g} µJ an example modelled, "
            f"{skipping:.3g} where zeros are skipped{measured}"
        )
    if m.behaviour:
        answers = _answers(m)
        if answers:
            lines.append("answers  " + ", ".join(answers))
    for what, why in m.not_measured.items():
        lines.append(f"note     {what} is not measured: {why}")
    return lines


def _file(m: Measurement) -> str:
    size = m.size
    dense = f"file     {size.dense:,} bytes dense"
    # The limit is of independent positions: whole channels need far fewer bytes.
    limit = "" if size.limit is None else f" (limit for independent positions {size.limit:,})"
    return f"{dense}, {size.sparse:,} as a sparse file{limit}, {size.compressed:,} compressed"


def _time(t: Timing) -> str:
    plural = "" if t.threads == 1 else "s"
    where = f"{t.runtime}, batch {t.batch}, {t.threads} thread{plural}"
    if t.latency is None:
        return f"{where}: not measured ({t.why.rstrip('.')})"
    took = f"{where}: {t.latency.median:.3g} ms ({t.latency.low:.3g} to {t.latency.high:.3g})"
    if t.speedup is None:
        return took
    low, value, high = t.speedup.low, t.speedup.value, t.speedup.high
    return f"{took}, {value:.2f} times as fast as dense ({low:.2f} to {high:.2f}): {t.verdict}"


def _answers(m: Measurement) -> list[str]:
    behaviour, gap = m.behaviour, train_test_gap(m)
    parts = []
    if gap:
        parts.append(f"train/test gap {100 * gap.value:.1f} percentage points")
    if behaviour and behaviour.noisy:
        parts.append(f"{behaviour.noisy.value:.1%} correct under noise of {behaviour.sigma:.2g}")
    if behaviour and behaviour.noisy_score:
        noisy = behaviour.noisy_score
        parts.append(f"{noisy.name} {noisy.text} under noise of {behaviour.sigma:.2g}")
    if behaviour and behaviour.calibration:
        error = 100 * behaviour.calibration.value
        parts.append(f"calibration error {error:.1f} percentage points")
    return parts
