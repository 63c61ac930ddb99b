"""A measurement told to a shell: flat names with their units, and lines of words. No torch."""

from __future__ import annotations

from typing import Any

from pruning.metrics import Accuracy, Measurement, Spread, Timing, train_test_gap


def flat(m: Measurement) -> dict[str, Any]:
    """Every figure under one name that says its unit. None: not measured."""
    size, memory, energy, behaviour = m.size, m.memory, m.energy, m.behaviour
    return {
        "weights_total": m.weights,
        "weights_nonzero": m.kept,
        "macs_dense": m.macs,
        "macs_nonzero": m.macs_kept,
        "dense_file_bytes": size.dense,
        "sparse_file_bytes": size.entropy_coded,
        "entropy_limit_bytes": size.limit,
        "travel_bytes": size.compressed,
        "memory_weights_bytes": memory.weights if memory else None,
        "memory_activations_bytes": memory.activations if memory else None,
        "energy_executed_pj_modelled": energy.executed if energy else None,
        "energy_skipping_zeros_pj_modelled": energy.skipping if energy else None,
        "energy_joules_measured": energy.measured if energy else None,
        "accuracy_change_points": _points(m.paired.change) if m.paired else None,
        "train_test_gap_points": _points(train_test_gap(m)),
        "noisy_accuracy": _share(behaviour.noisy) if behaviour else None,
        "noise_sigma": behaviour.sigma if behaviour else None,
        "calibration_error_points": _points(behaviour.calibration) if behaviour else None,
        **{name: value for timing in m.timings for name, value in _timing(timing).items()},
    }


def _points(spread: Spread | None) -> dict[str, float] | None:
    return (
        {"value": 100 * spread.value, "low": 100 * spread.low, "high": 100 * spread.high}
        if spread
        else None
    )


def _share(accuracy: Accuracy | None) -> dict[str, Any] | None:
    return {"value": accuracy.value, "interval": accuracy.interval} if accuracy else None


def _timing(t: Timing) -> dict[str, Any]:
    name = f"{t.runtime.lower().replace(' ', '_')}_batch{t.batch}"
    if t.latency is None:
        return {f"{name}_ms": None, f"{name}_why": t.why}
    told: dict[str, Any] = {
        f"{name}_ms": t.latency.median,
        f"{name}_ms_quartiles": [t.latency.low, t.latency.high],
        f"{name}_threads": t.threads,
        f"{name}_control_share": t.control,
        f"{name}_verdict": t.verdict,
    }
    return told | (
        {f"{name}_speedup": [t.speedup.low, t.speedup.value, t.speedup.high]} if t.speedup else {}
    )


# ---------------------------------------------------------------- words


def lines(m: Measurement) -> list[str]:
    """A few aligned lines for people."""
    said = [f"weights  {m.kept:,} of {m.weights:,}", f"file     {m.size.dense:,} bytes dense"]
    if m.size.entropy_coded is not None:
        said[-1] += (
            f", {m.size.entropy_coded:,} as a sparse file (entropy limit {m.size.limit:,}), {m.size.compressed:,} deflated (what travels)"
        )
    if m.memory:
        peak = (
            f", {m.memory.activations:,} of activations at most"
            if m.memory.activations is not None
            else ""
        )
        said.append(f"memory   {m.memory.weights:,} bytes of weights{peak} at run time")
    said += [f"time     {_took(timing)}" for timing in m.timings]
    if m.energy:
        said.append(
            f"energy   {m.energy.executed / 1e6:.3g} µJ an example modelled, {m.energy.skipping / 1e6:.3g} where zeros are skipped"
        )
        said[-1] += f"; {m.energy.measured:.3g} J measured" if m.energy.measured is not None else ""
    if (b := m.behaviour) is not None:
        said.append("answers  " + ", ".join(_answers(m, b.noisy, b.sigma, b.calibration)))
    return said


def _took(t: Timing) -> str:
    where = f"{t.runtime}, batch {t.batch}, {t.threads} thread" + ("" if t.threads == 1 else "s")
    if t.latency is None:
        return f"{where}: not measured ({t.why.rstrip('.')})"
    said = f"{where}: {t.latency.median:.3g} ms ({t.latency.low:.3g} to {t.latency.high:.3g})"
    if t.speedup is None:
        return said
    return f"{said}, {t.speedup.value:.2f} times as fast as dense ({t.speedup.low:.2f} to {t.speedup.high:.2f}): {t.verdict}"


def _answers(
    m: Measurement, noisy: Accuracy | None, sigma: float, calibration: Spread | None
) -> list[str]:
    said = []
    if (between := train_test_gap(m)) is not None:
        said.append(f"train/test gap {100 * between.value:.1f} points")
    if noisy is not None:
        said.append(f"{noisy.value:.1%} right under noise of {sigma:.2g}")
    if calibration is not None:
        said.append(f"calibration error {100 * calibration.value:.1f} points")
    return said
