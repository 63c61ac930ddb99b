"""Recipe + workpiece -> events. The only file that knows the order: score, select, remove,
fine-tune, measure.
"""

from __future__ import annotations

import copy
import os
import platform
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pruning.allocation.schedules import grow
from pruning.errors import Stopped
from pruning.events import (
    Certificate,
    Event,
    Finished,
    Layer,
    Measured,
    Measurement,
    Notice,
    Pruned,
    Recalibrated,
    Started,
    Ticket,
)
from pruning.masks import by_layer, dense, overlap, sparsity
from pruning.measurement import Snapshot, evaluate, finalize, positions, take_snapshot
from pruning.recipe import Recipe
from pruning.selection import rank_with_path, remove, select
from pruning.sensitivity_map.forecast import Predicted, achieved, forecast
from pruning.training.compact import CompactResult, final_compact, finetune_compact, notices
from pruning.training.controls import control, reinitialised
from pruning.training.distill import teacher_logits
from pruning.training.finetune import Stop, finetune
from pruning.training.recalibrate import norms, recalibrate
from pruning.training.rewind import epochs_of_run, first_step, put_back, state_of
from pruning.types import Masks, Workpiece, prunable
from pruning.units.layout import Units, lay_out

Keep = Callable[[nn.Module, Masks], None]
KeepCompact = Callable[[nn.Module, Certificate], None]


@dataclass
class _State:
    """A run on its way. work: the copy that is pruned; masks: what is kept by now.

    dense: the model before anything was pruned; pruned, recalibrated: measured on the way.
    """

    recipe: Recipe
    work: Workpiece
    units: Units
    covered: set[str]
    masks: Masks
    dense: Snapshot
    teacher: Tensor | None
    stop: Stop | None
    cache: Path | None
    pruned: Measurement | None = None
    recalibrated: Measurement | None = None

    @property
    def compact(self) -> bool:
        """Whether what is pruned can be left out of the model."""
        return self.recipe.dependency_groups and self.units.why_by_layer is None


def run(
    recipe: Recipe,
    work: Workpiece,
    *,
    stop: Stop | None = None,
    keep: Keep | None = None,
    keep_compact: KeepCompact | None = None,
    cache: Path | None = None,
) -> Iterator[Event]:
    """Prune and fine-tune a copy of `work.model`, step by step; an event for each thing that
    happens, the last one Finished.

    stop: asked often; when true, Stopped is raised.
    keep: given the final model and its masks before the last measurement.
    keep_compact: then given the compact model and its certificate, where whole channels or heads
        were pruned.
    cache: a folder for measured allocation paths (scope by_sensitivity).
    The caller's model stays bit-identical; the same recipe, machine and thread count give the same
    numbers (times aside).

    Raises RecipeError, ModelError, DataError or RunError, each with the way out.
    """
    start = time.perf_counter()
    # Counted before anything is loaded or trained: a rewind step past the end is refused here.
    yield Started(recipe.to_dict(), machine(), epochs_of_run(recipe, work))
    # The teacher is the dense model as handed in, so its logits are computed once and kept.
    teacher = None
    if recipe.distill and recipe.epochs:
        teacher = teacher_logits(work.model, work.need("train", "Distillation"))
    if recipe.start == "trained":
        model = copy.deepcopy(work.model)
    else:
        model = reinitialised(work.model, recipe.seed)
    copied = replace(work, model=model)
    # Two orders of the same pieces: fine-tune what was pruned, or rewind and train again.
    order = _prune_and_finetune if recipe.rewind == "none" else _lottery
    state = yield from order(recipe, work, copied, teacher, stop, cache)
    _raise_if_stopped(stop, "before the last measurement")
    # Saved before the last measurement: timing takes seconds, and a kill must not lose the model.
    if keep is not None:
        keep(model, state.masks)
    result = CompactResult()
    if recipe.prunes and state.compact:
        result = final_compact(copied, state.masks)
    if result.notice is not None:
        yield result.notice
    if keep_compact is not None and result.snapshot and result.certificate:
        keep_compact(result.snapshot.work.model, result.certificate)
    # All are timed in the same rounds: latencies compare only on the same machine at the same time.
    snapshots = [state.dense, take_snapshot(copied)]
    if result.snapshot is not None:
        snapshots.append(result.snapshot)
    dense_end, final, *compact_end = finalize(snapshots)
    yield Measured("final", final)
    yield Finished(
        sparsity=sparsity(state.masks, state.covered),
        dense=dense_end,
        pruned=state.pruned,
        final=final,
        seconds=time.perf_counter() - start,
        recalibrated=state.recalibrated,
        compact=compact_end[0] if compact_end else None,
        certificate=result.certificate,
    )


def _prune_and_finetune(
    recipe: Recipe,
    original: Workpiece,
    work: Workpiece,
    teacher: Tensor | None,
    stop: Stop | None,
    cache: Path | None,
) -> Generator[Event, None, _State]:
    """Step by step: score, remove, recalibrate, fine-tune.

    Before all that comes the training of network slimming, where it is asked for.
    """
    snapshot = take_snapshot(original)
    yield Measured("dense", snapshot.measurement)
    # Laid out after the first event: what cannot be pruned is said beside the dense figures.
    state = _begin(recipe, work, snapshot, teacher, stop, cache)
    yield from _without_use(recipe, work)
    yield from notices(recipe, state.units.why_by_layer)
    common: dict[str, Any] = {"covered": state.covered, "stop": stop, "teacher": teacher}
    if recipe.trains_first:
        yield from finetune(work, state.masks, recipe, step=0, **common)
    recalibrates = recipe.recalibrate and bool(norms(work.model))
    train: Callable[..., Iterator[Event]] = finetune
    if recipe.finetune_compact and state.compact:
        train = finetune_compact
    for step in range(1, recipe.steps + 1):
        last = step == recipe.steps
        # What pruning did is worth a measurement only where something repairs it afterwards.
        repaired = bool(recipe.epochs or recalibrates)
        yield from _prune_step(state, step, measure=last and repaired)
        # Before fine-tuning: training from statistics of the dense network would start off wrong.
        if recalibrates:
            yield _recalibrate(recipe, work, step)
        if recalibrates and recipe.epochs and last:
            state.recalibrated = take_snapshot(work).measurement
            yield Measured("recalibrated", state.recalibrated)
        if recipe.epochs:
            yield from train(work, state.masks, recipe, step=step, **common)
    return state


def _lottery(
    recipe: Recipe,
    original: Workpiece,
    work: Workpiece,
    teacher: Tensor | None,
    stop: Stop | None,
    cache: Path | None,
) -> Generator[Event, None, _State]:
    """Lottery tickets: train the dense network, then in rounds score, remove, rewind, train again.

    Controls are trained after each ticket, on copies: they leave the ticket, and the rounds to
    come, as they are. "dense" is measured of the network that was trained first; "pruned" of the
    last round's trained weights under their new mask, before they are rewound.
    """
    keeps_all = dense(work.model)
    begin = first_step(recipe, work)
    # "init" rewinds to here: the weights before any training.
    rewound = state_of(work.model)
    if recipe.trains_first:
        remember = begin if recipe.rewind == "early" else None
        trained = finetune(work, keeps_all, recipe, step=0, stop=stop, remember=remember)
        rewound = (yield from trained) or rewound
    if recipe.rewind == "learning_rate":  # the weights stay: they are "put back" as they are now
        rewound = state_of(work.model)
    # A copy: the snapshot is timed at the end, when `work.model` has long been pruned.
    snapshot = take_snapshot(replace(work, model=copy.deepcopy(work.model)))
    state = _begin(recipe, work, snapshot, teacher, stop, cache)
    yield Measured("dense", snapshot.measurement)
    yield _ticket("dense", state, work, keeps_all, 0)
    yield from _without_use(recipe, work)
    # What one shot of the trained dense network would keep, at each round's sparsity.
    at_once = rank_with_path(recipe, work, state.units, cache=cache) if recipe.prunes else None
    common: dict[str, Any] = {"covered": state.covered, "stop": stop, "teacher": teacher}
    for step in range(1, recipe.steps + 1):
        before = state.masks
        yield from _prune_step(state, step, measure=step == recipe.steps)
        if recipe.rewind != "learning_rate":
            put_back(rewound, state.masks, work.model)
        yield from finetune(work, state.masks, recipe, step=step, begin=begin, **common)
        one_shot = keeps_all
        if at_once is not None:
            drops = at_once.ranking.drops(recipe, share=_share(recipe, step))
            one_shot = at_once.masks(drops, work.model)
        yield _ticket("ticket", state, work, state.masks, step, (before, one_shot))
        for kind in recipe.controls:
            other, masks = control(kind, recipe, work, rewound, state.masks, one_shot, step)
            # New weights have no training to resume: theirs starts at its beginning.
            first = 0 if kind == "reinit" else begin
            yield from finetune(other, masks, recipe, step=step, begin=first, branch=kind, **common)
            yield _ticket(kind, state, other, masks, step)
    return state


def _begin(
    recipe: Recipe,
    work: Workpiece,
    snapshot: Snapshot,
    teacher: Tensor | None,
    stop: Stop | None,
    cache: Path | None,
) -> _State:
    units = lay_out(recipe, work)
    covered = units.covered(recipe.exclude)
    # Masks only ever intersect, so they start by keeping everything.
    masks = dense(work.model)
    return _State(recipe, work, units, covered, masks, snapshot, teacher, stop, cache)


def _prune_step(state: _State, step: int, *, measure: bool) -> Iterator[Event]:
    """One step's pruning. measure: what it did, before anything repairs it."""
    recipe, work = state.recipe, state.work
    _raise_if_stopped(state.stop, f"before step {step}")
    predicted = _prune(state, step) if recipe.prunes else None
    # Without an example input nothing is known of MACs: layers then count weights alone.
    uses = positions(work.model, work.example) if work.example is not None else {}
    layers = by_layer(state.masks, uses, prunable(work.model))
    pruned = sparsity(state.masks, state.covered)
    yield Pruned(step, recipe.steps, pruned, layers)
    if predicted is not None:
        yield achieved(predicted, work)
    if measure:
        yield from _target_notices(recipe, layers, state.covered, pruned)
        state.pruned = take_snapshot(work).measurement
        yield Measured("pruned", state.pruned)


def _prune(state: _State, step: int) -> Predicted | None:
    """Select and remove, in place; what was predicted of it."""
    recipe, work = state.recipe, state.work
    # Scored anew in each step: what fine-tuning did to the weights changes which matter.
    share = _share(recipe, step)
    selection = select(recipe, work, state.units, state.masks, share, state.cache)
    state.masks = selection.masks
    remove(recipe, work, selection.masks)
    return forecast(recipe, selection.ranking, step, share)


def _share(recipe: Recipe, step: int) -> float:
    """Of the final sparsity, after this step."""
    # A geometric schedule needs to know where it ends: for ratios by layer, at the largest.
    final = recipe.sparsity
    if recipe.scope == "manual":
        final = max(recipe.ratios.values(), default=0.0)
    return grow(recipe.schedule, step / recipe.steps, final, recipe.schedule_options)


def _recalibrate(recipe: Recipe, work: Workpiece, step: int) -> Recalibrated:
    """BatchNorm's statistics after this pruning, of the network as it is now."""
    data = work.need("train", "Recalibrating BatchNorm")
    start = time.perf_counter()
    layers = recalibrate(work.model, data, seed=recipe.seed, batch=max(recipe.batch, data.batch))
    return Recalibrated(step, layers, len(data.x), time.perf_counter() - start)


def _ticket(
    kind: str,
    state: _State,
    work: Workpiece,
    masks: Masks,
    step: int,
    compared: tuple[Masks, ...] = (),
) -> Ticket:
    """A network that was trained to its end, on test data.

    compared: the masks of the round before and of one shot, for their overlap with these.
    """
    accuracy = loss = None
    if work.test:
        accuracy, loss = evaluate(work.model, work.test, work.loss)
    kept = sum(int(masks[name].sum()) for name in state.covered)
    overlaps = [overlap(masks, other, state.covered) for other in compared]
    share = sparsity(masks, state.covered)
    return Ticket(step, state.recipe.steps, kind, share, kept, accuracy, loss, *overlaps)


def _without_use(recipe: Recipe, work: Workpiece) -> Iterator[Notice]:
    """What the recipe asks for and this run has no use for."""
    has_norms = bool(norms(work.model))
    no_norms = f"{work.name} has no BatchNorm with running statistics"
    if recipe.recalibrate and recipe.rewind != "none":
        yield Notice(
            "Nothing was recalibrated: after a rewind, training sets BatchNorm's statistics anyway."
        )
    elif recipe.recalibrate and not has_norms:
        yield Notice(f"Nothing was recalibrated: {no_norms}.")
    if recipe.slimming and not recipe.epochs:
        yield Notice("There was no network slimming: this recipe trains 0 epochs.")
    elif recipe.slimming and not has_norms:
        yield Notice(f"There was no network slimming: {no_norms}.")
    if recipe.distill and not recipe.epochs:
        yield Notice(
            "Nothing was distilled: the dense model teaches while the pruned one is fine-tuned, "
            "and this recipe fine-tunes for 0 epochs."
        )


def _target_notices(
    recipe: Recipe, layers: tuple[Layer, ...], covered: set[str], pruned: float
) -> Iterator[Notice]:
    """What people should know: a target out of reach, layers that all but vanished."""
    total = sum(layer.total for layer in layers if layer.name in covered)
    # One weight less than asked is rounding; more is something people should be told.
    missed = recipe.budgeted and recipe.sparsity - pruned > 1 / total
    asked = f"{pruned:.1%} of the weights were pruned, not {recipe.sparsity:.1%}"
    if not recipe.budgeted and recipe.scope != "manual":
        yield Notice(
            f"{pruned:.1%} of the weights were pruned: {recipe.scope} says which, and the recipe's "
            "sparsity is not used."
        )
    elif missed and recipe.granularity == "n_of_m":
        yield Notice(f"{asked}: of every group, n weights are kept whatever is asked.")
    elif missed and recipe.granularity == "weight":
        slow = recipe.scope == "per_layer" and recipe.scope_options.get("output", 1.0) != 1.0
        if slow:
            yield Notice(f"{asked}: the output layer is pruned more slowly.")
        else:
            yield Notice(f"{asked}: every layer keeps at least {recipe.min_units:,}.")
    # Below 2 % a layer of usual width has inputs that no weight reads.
    thin = [layer for layer in layers if layer.name in covered and layer.kept < 0.02 * layer.total]
    if thin:
        names = ", ".join(f"{layer.name} ({layer.kept:,} of {layer.total:,})" for layer in thin)
        yield Notice(
            f"Layers that keep less than 2 % of their weights may pass no signal: {names}."
        )


def _raise_if_stopped(stop: Stop | None, where: str) -> None:
    if stop is not None and stop():
        raise Stopped(f"Stopped {where}.")


def machine() -> dict[str, Any]:
    """What the numbers depend on beside the recipe: versions, threads, processor."""
    return {
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "cores": os.cpu_count(),
        "processor": _processor(),
        "system": platform.system(),
    }


def _processor() -> str:
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
