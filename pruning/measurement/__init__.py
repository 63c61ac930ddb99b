"""Measure a model: accuracy, loss, weights, MACs, bytes, memory, energy, latency, behaviour.

`measure` and `take_snapshot` are quick; `finalize` adds what only the end of a run waits for, with
models beside each other. One file for each kind of figure.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pruning.devices import CPU, device_of, on_cpu, to
from pruning.measurement.counts import count_uses, layer_counts, macs, output_layer, output_shapes
from pruning.measurement.energy import energy, joules
from pruning.measurement.onnx import onnx_timings
from pruning.measurement.quality import (
    Quality,
    answered,
    behaviour,
    classes_predicted,
    correct,
    evaluate,
    logits,
    mean_loss,
    not_measured,
    paired,
    score_change,
)
from pruning.measurement.remembered import remembered_outputs
from pruning.measurement.sizes import dense_bytes, memory, size
from pruning.measurement.speed import BATCHES, latencies, runtime, timings
from pruning.metrics import Energy, Latency, Measurement, Timing
from pruning.prepare import ready
from pruning.types import Batches, Workpiece, prunable

__all__ = [
    "Quality",
    "Snapshot",
    "answered",
    "beside_dense",
    "classes_predicted",
    "correct",
    "count_uses",
    "dense_bytes",
    "evaluate",
    "finalize",
    "latencies",
    "layer_counts",
    "logits",
    "macs",
    "mean_loss",
    "measure",
    "output_layer",
    "output_shapes",
    "remembered_outputs",
    "size",
    "take_snapshot",
    "time_in_onnx",
]


class Snapshot(NamedTuple):
    """A model, what was quickly measured of it, and its outputs.

    logits: (n, classes) on test data, None where there is none
    folder: where outputs are kept from one run to the next, None where they are not
    seconds: that the pass over the data took, when it was last made; None where it was not timed
    """

    work: Workpiece
    measurement: Measurement
    logits: Tensor | None
    folder: Path | None = None
    seconds: float | None = None

    def outputs(self, data: Batches) -> Tensor:
        """(n, classes) of the model for other examples."""
        return remembered_outputs(self.work.model, data, self.folder).logits


def measure(
    work: Workpiece, split: str = "test", *, latency: bool = True, full: bool = False
) -> Measurement:
    """What can be measured of `work.model` quickly, on one split of its data (None without data).

    full: also what `finalize` adds, with the model as its own reference
    """
    work = ready(work)
    snapshot = take_snapshot(work, split)
    if full:
        return finalize([snapshot])[0]
    if latency and work.example is not None:
        return replace(snapshot.measurement, latency=latencies([work.model], work.example)[0])
    return snapshot.measurement


def take_snapshot(
    work: Workpiece,
    split: str = "test",
    *,
    outputs: Tensor | None = None,
    folder: Path | None = None,
) -> Snapshot:
    """What needs one pass over the data, and no clock.

    outputs: (n, classes) logits of this model for all of that split, where they are known.
    folder: of outputs that earlier runs computed; worth it for models that come again.
    """
    data: Batches | None = getattr(work, split)
    accuracy = loss = score = seconds = None
    if data is not None:
        if outputs is None:
            outputs, seconds = remembered_outputs(work.model, data, folder)
        accuracy, loss, score = answered(outputs, data, work.loss, work.metric)
    # without an example, how often each weight is used is not known
    uses = count_uses(work.model, work.example) if work.example is not None else None
    layers = layer_counts(work.model, uses)
    measurement = Measurement(
        accuracy=accuracy,
        loss=loss,
        weights=sum(w.numel() for w in prunable(work.model).values()),
        kept=sum(layer.kept for layer in layers),
        parameters=sum(p.numel() for p in work.model.parameters()),
        macs=sum(layer.macs for layer in layers) if uses else None,
        macs_kept=sum(layer.macs_kept for layer in layers) if uses else None,
        macs_other=uses.other if uses else None,
        size=size(work.model),
        latency=None,
        layers=layers,
        score=score,
        not_measured=not_measured(outputs, work),
    )
    return Snapshot(work, measurement, outputs, folder, seconds)


def beside_dense(snapshot: Snapshot, dense: Snapshot) -> Measurement:
    """What was quickly measured of a model, with its answers paired with the dense model's."""
    return replace(snapshot.measurement, **_compared(snapshot, dense))


def _compared(snapshot: Snapshot, dense: Snapshot) -> dict[str, Any]:
    """Answers beside the dense model's, by the task's metric."""
    pair = (snapshot.logits, dense.logits, snapshot.work.test, snapshot.work.metric)
    return {"paired": paired(*pair), "score_change": score_change(*pair)}


def finalize(snapshots: Sequence[Snapshot]) -> list[Measurement]:
    """Measurements completed with what is only measured at the end of a run.

    Memory, energy, timings, behaviour. snapshots: the dense model's first. All models are timed in
    the same rounds, so that they meet the same machine, beside a copy of the first as control; all
    are compared on the same examples. The models are left as found.
    """
    dense = snapshots[0]
    times = _times([snapshot.work for snapshot in snapshots])
    measurements = []
    for snapshot, timed in zip(snapshots, times, strict=True):
        work, outputs = snapshot.work, snapshot.logits
        completed = replace(
            snapshot.measurement,
            latency=_first(timed),
            memory=memory(work.model, work.example),
            energy=_energy(snapshot),
            timings=tuple(timed),
            behaviour=behaviour(work, outputs, snapshot.outputs),
            # Beside itself the dense model says nothing.
            **({} if snapshot is dense else _compared(snapshot, dense)),
        )
        measurements.append(completed)
    return measurements


def time_in_onnx(works: Sequence[Workpiece]) -> list[tuple[Timing, ...]]:
    """For each model, its timings in ONNX Runtime, at every batch size; the first is the reference.

    Takes seconds for each model, so it is no part of `finalize`: a run should not wait for it.
    """

    example = works[0].example
    if example is None:
        return [() for _ in works]
    models = [on_cpu(work.model) for work in works]  # ONNX Runtime is the CPU's here
    times = onnx_timings(models, to(example, CPU), batches=BATCHES)
    return [tuple(timed) for timed in times]


def _energy(snapshot: Snapshot) -> Energy | None:
    work, measurement = snapshot.work, snapshot.measurement
    total, kept = measurement.all_macs, measurement.all_macs_kept
    if total is None or kept is None or work.example is None:
        return None
    return energy(total, kept, joules(work.model, work.example))


def _times(works: Sequence[Workpiece]) -> list[list[Timing]]:
    """For each model, its timings in torch, at every batch size."""
    example = works[0].example
    times: list[list[Timing]] = [[] for _ in works]
    if example is None:
        return times
    for batch in BATCHES:
        try:
            timed = timings([work.model for work in works], example, batch=batch)
        except Exception as error:  # a model that takes one size of batch alone, say
            # A run that has trained is not lost for a figure of time.
            why = f"A batch of {batch} cannot be timed ({type(error).__name__})."
            threads = torch.get_num_threads()
            here = runtime(device_of(works[0].model))
            timed = [[Timing(here, batch, threads, why=why)] for _ in works]
        for total, added in zip(times, timed, strict=True):
            total.extend(added)
    return times


def _first(timed: Sequence[Timing]) -> Latency | None:
    """Of one example in torch: the latency that is shown large."""
    for timing in timed:
        if timing.batch == 1 and timing.runtime.partition(" on ")[0] == "torch":
            return timing.latency
    return None
