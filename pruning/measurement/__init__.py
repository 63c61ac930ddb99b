"""A model, measured: accuracy with its interval, weights, MACs, bytes, memory, energy, latency with its spread, behaviour.

`measure` and `take_snapshot` are quick; `finalize` adds what belongs to an ending, models beside each other. One file for each promise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from pruning.measurement.counts import layer_counts, macs, output_layer, output_shapes, positions
from pruning.measurement.energy import energy, joules
from pruning.measurement.quality import behaviour, correct, evaluate, logits, mean_loss, paired
from pruning.measurement.sizes import dense_bytes, memory, size
from pruning.measurement.speed import BATCHES, latencies, timings
from pruning.metrics import Energy, Latency, Measurement, Timing
from pruning.types import Batches, Workpiece, prunable

__all__ = [
    "Snapshot",
    "dense_bytes",
    "evaluate",
    "finalize",
    "latencies",
    "layer_counts",
    "macs",
    "measure",
    "output_layer",
    "output_shapes",
    "positions",
    "size",
    "take_snapshot",
    "time_in_onnx",
]


class Snapshot(NamedTuple):
    """A model, what was quickly measured of it, and its outputs. logits: (n, classes) on test data, None where there is none."""

    work: Workpiece
    measurement: Measurement
    logits: Tensor | None


def measure(
    work: Workpiece, split: str = "test", *, latency: bool = True, full: bool = False
) -> Measurement:
    """What can be measured of `work.model` quickly, on one split of its data (None where there is no data).

    full: also what `finalize` adds, with the model as its own reference.
    """
    seen = take_snapshot(work, split)
    if full:
        return finalize([seen])[0]
    timed = (
        latencies([work.model], work.example)[0] if latency and work.example is not None else None
    )
    return replace(seen.measurement, latency=timed)


def take_snapshot(work: Workpiece, split: str = "test") -> Snapshot:
    """What needs one pass over the data, and no clock."""
    data: Batches | None = getattr(work, split)
    outputs = logits(work.model, data) if data is not None else None
    layers = layer_counts(work.model, work.example)
    weights = prunable(work.model)
    found = Measurement(
        accuracy=correct(outputs, data) if data is not None and outputs is not None else None,
        loss=mean_loss(outputs, data, work.loss)
        if data is not None and outputs is not None
        else None,
        weights=sum(w.numel() for w in weights.values()),
        kept=sum(layer.kept for layer in layers),
        parameters=sum(p.numel() for p in work.model.parameters()),
        macs=sum(layer.macs for layer in layers) if work.example is not None else None,
        macs_kept=sum(layer.macs_kept for layer in layers) if work.example is not None else None,
        size=size(work.model),
        latency=None,
        layers=layers,
    )
    return Snapshot(work, found, outputs)


def finalize(seen: Sequence[Snapshot]) -> list[Measurement]:
    """Measurements completed with what belongs to an ending: memory, energy, timings, behaviour.

    seen: what `take_snapshot` saw of each model, the dense one first. All are timed in the same rounds, so that they meet the same
    machine, beside a copy of the first as control; all are asked about the same examples. The models are left as found.
    """
    dense = seen[0]
    return [
        replace(
            one.measurement,
            latency=_first(timed),
            memory=memory(one.work.model, one.work.example),
            energy=_energy(one),
            timings=tuple(timed),
            behaviour=behaviour(one.work, one.logits),
            paired=paired(one.logits, dense.logits, one.work.test) if one is not dense else None,
        )
        for one, timed in zip(seen, _times([one.work for one in seen]), strict=True)
    ]


def time_in_onnx(works: Sequence[Workpiece]) -> list[tuple[Timing, ...]]:
    """For each model, what it takes in ONNX Runtime, at every batch size; the first is the reference. Takes seconds: not for an ending."""
    from pruning.measurement.onnx import onnx_timings

    example = works[0].example
    if example is None:
        return [() for _ in works]
    return [
        tuple(timed)
        for timed in onnx_timings([work.model for work in works], example, batches=BATCHES)
    ]


def _energy(seen: Snapshot) -> Energy | None:
    work, macs, kept = seen.work, seen.measurement.macs, seen.measurement.macs_kept
    if macs is None or kept is None or work.example is None:
        return None
    return energy(macs, kept, joules(work.model, work.example))


def _times(works: Sequence[Workpiece]) -> list[list[Timing]]:
    """For each model, what it takes in torch, at every batch size."""
    example = works[0].example
    if example is None:
        return [[] for _ in works]
    by_batch = [timings([work.model for work in works], example, batch=batch) for batch in BATCHES]
    return [[timing for batch in by_batch for timing in batch[i]] for i in range(len(works))]


def _first(timed: Sequence[Timing]) -> Latency | None:
    """One example in torch: the latency that is shown large."""
    return next(
        (timing.latency for timing in timed if timing.batch == 1 and timing.runtime == "torch"),
        None,
    )
