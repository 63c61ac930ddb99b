"""A model, measured: accuracy with its interval, weights, MACs, bytes, memory, energy, latency with its spread, behaviour.

`measure` and `look` are quick; `settle` adds what belongs to an ending, models beside each other. One file for each promise.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

from torch import Tensor

from pruning.measurement.counts import layer_counts, macs, output_layer, output_shapes, positions
from pruning.measurement.energy import energy, joules
from pruning.measurement.quality import answers, behaviour, evaluate, mean_loss, paired, right
from pruning.measurement.sizes import dense_bytes, memory, size
from pruning.measurement.speed import BATCHES, latencies, timings
from pruning.metrics import Energy, Latency, Measurement, Timing
from pruning.types import Batches, Workpiece, prunable

__all__ = [
    "Seen",
    "dense_bytes",
    "elsewhere",
    "evaluate",
    "latencies",
    "layer_counts",
    "look",
    "macs",
    "measure",
    "output_layer",
    "output_shapes",
    "positions",
    "settle",
    "size",
]


class Seen(NamedTuple):
    """A model, what was quickly measured of it, and what it answered. answers: (n, classes) on test data, None where there is none."""

    work: Workpiece
    figures: Measurement
    answers: Tensor | None


def measure(
    work: Workpiece, split: str = "test", *, latency: bool = True, full: bool = False
) -> Measurement:
    """What can be measured of `work.model` quickly, on one split of its data (None where there is no data).

    full: also what `settle` adds, with the model as its own reference.
    """
    seen = look(work, split)
    if full:
        return settle([seen])[0]
    timed = (
        latencies([work.model], work.example)[0] if latency and work.example is not None else None
    )
    return replace(seen.figures, latency=timed)


def look(work: Workpiece, split: str = "test") -> Seen:
    """What needs one pass over the data, and no clock."""
    data: Batches | None = getattr(work, split)
    told = answers(work.model, data) if data is not None else None
    layers = layer_counts(work.model, work.example)
    weights = prunable(work.model)
    found = Measurement(
        accuracy=right(told, data) if data is not None and told is not None else None,
        loss=mean_loss(told, data, work.loss) if data is not None and told is not None else None,
        weights=sum(w.numel() for w in weights.values()),
        kept=sum(layer.kept for layer in layers),
        parameters=sum(p.numel() for p in work.model.parameters()),
        macs=sum(layer.macs for layer in layers) if work.example is not None else None,
        macs_kept=sum(layer.macs_kept for layer in layers) if work.example is not None else None,
        size=size(work.model),
        latency=None,
        layers=layers,
    )
    return Seen(work, found, told)


def settle(seen: Sequence[Seen]) -> list[Measurement]:
    """Measurements completed with what belongs to an ending: memory, energy, timings, behaviour.

    seen: what `look` saw of each model, the dense one first. All are timed in the same rounds, so that they meet the same
    machine, beside a copy of the first as control; all are asked about the same examples. The models are left as found.
    """
    dense = seen[0]
    return [
        replace(
            one.figures,
            latency=_first(timed),
            memory=memory(one.work.model, one.work.example),
            energy=_energy(one),
            timings=tuple(timed),
            behaviour=behaviour(one.work, one.answers),
            paired=paired(one.answers, dense.answers, one.work.test) if one is not dense else None,
        )
        for one, timed in zip(seen, _times([one.work for one in seen]), strict=True)
    ]


def elsewhere(works: Sequence[Workpiece]) -> list[tuple[Timing, ...]]:
    """For each model, what it takes in ONNX Runtime, at every batch size; the first is the reference. Takes seconds: not for an ending."""
    from pruning.measurement.onnx import onnx_timings

    example = works[0].example
    if example is None:
        return [() for _ in works]
    return [
        tuple(timed)
        for timed in onnx_timings([work.model for work in works], example, batches=BATCHES)
    ]


def _energy(seen: Seen) -> Energy | None:
    work, macs, kept = seen.work, seen.figures.macs, seen.figures.macs_kept
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
