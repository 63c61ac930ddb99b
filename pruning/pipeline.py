"""Recipe + workpiece -> events. The only file that knows the order: score, choose, remove, heal, measure."""

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

from pruning import masks as _masks
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
from pruning.measurement import Snapshot, evaluate, finalize, positions, take_snapshot
from pruning.recipe import Recipe
from pruning.sensitivity_map.forecast import Predicted, achieved, forecast
from pruning.training import compact, controls
from pruning.training.distill import teacher_logits
from pruning.training.finetune import Stop, finetune
from pruning.training.recalibrate import norms, recalibrate
from pruning.types import Masks, Workpiece, prunable

Keep = Callable[[nn.Module, Masks], None]
KeepCompact = Callable[[nn.Module, Certificate], None]


@dataclass
class Outcome:
    """Where the steps led: the dense model's look, what is kept, and what was measured on the way."""

    found: Snapshot
    gone: Masks
    pruned: Measurement | None = None
    recalibrated: Measurement | None = None


def run(
    recipe: Recipe,
    work: Workpiece,
    *,
    stop: Stop | None = None,
    keep: Keep | None = None,
    keep_compact: KeepCompact | None = None,
) -> Iterator[Event]:
    """Prune and heal a copy of `work.model`, step by step, saying what happens as it happens; the last event is Finished.

    stop: asked often; when true, Stopped is raised. keep: given the final model and its masks before the last measurement;
    keep_slim: then given the slim model and its certificate, where whole channels or heads went.
    The caller's model stays bit-identical; the same recipe, machine and thread count give the same numbers (times aside).

    Raises RecipeError, ModelError, DataError or RunError, each with the way out.
    """
    began = time.perf_counter()
    yield Started(recipe.to_dict(), machine(), controls.epochs(recipe, work))
    teacher = (
        teacher_logits(work.model, work.need("train", "Distillation"))
        if recipe.distill and recipe.epochs
        else None
    )
    steps = _heal if recipe.rewind == "none" else _draw_tickets
    copied = replace(
        work,
        model=copy.deepcopy(work.model)
        if recipe.start == "trained"
        else controls.drawn(work.model, recipe.seed),
    )
    outcome = yield from steps(recipe, work, copied, stop, teacher)
    _ask(stop, "before the last measurement")
    if keep is not None:
        keep(copied.model, outcome.gone)
    ended = (
        compact.ending(copied, outcome.gone)
        if recipe.prunes and compact.follows(recipe, copied)
        else None
    )
    if isinstance(ended, Notice):
        yield ended
    smaller, certificate = ended if isinstance(ended, tuple) else (None, None)
    if keep_compact is not None and smaller is not None and certificate is not None:
        keep_compact(smaller.work.model, certificate)
    dense, final, *rest = finalize(
        [outcome.found, take_snapshot(copied), *([smaller] if smaller else [])]
    )
    least = rest[0] if rest else None
    yield Measured("final", final)
    gone = _masks.sparsity(outcome.gone, _masks.covered(recipe, copied))
    seconds = time.perf_counter() - began
    yield Finished(
        gone, dense, outcome.pruned, final, seconds, outcome.recalibrated, least, certificate
    )


def _heal(
    recipe: Recipe, found: Workpiece, work: Workpiece, stop: Stop | None, teacher: Tensor | None
) -> Generator[Event, None, Outcome]:
    """Step by step: score, remove, recalibrate, fine-tune what is left; before all that, slim BatchNorm where that is asked for."""
    outcome = Outcome(take_snapshot(found), _masks.dense(work.model))
    yield Measured("dense", outcome.found.measurement)
    yield from _idle(recipe, work)
    yield from compact.told(recipe, work)
    if recipe.trains_first:
        yield from finetune(work, outcome.gone, recipe, step=0, stop=stop, teacher=teacher)
    mends = recipe.recalibrate and bool(norms(work.model))
    heal = (
        compact.heal
        if recipe.finetune_compact and compact.follows(recipe, work)
        else compact.finetune_masked
    )
    for step in range(1, recipe.steps + 1):
        last = step == recipe.steps
        yield from _remove(
            recipe, work, outcome, step, stop, measured=last and bool(recipe.epochs or mends)
        )
        if mends:
            yield _recalibrate(recipe, work, step)
        if mends and recipe.epochs and last:
            outcome.recalibrated = take_snapshot(work).measurement
            yield Measured("recalibrated", outcome.recalibrated)
        if recipe.epochs:
            yield from heal(recipe, work, outcome.gone, step=step, stop=stop, teacher=teacher)
    return outcome


def _draw_tickets(
    recipe: Recipe, found: Workpiece, work: Workpiece, stop: Stop | None, teacher: Tensor | None
) -> Generator[Event, None, Outcome]:
    """Train the dense network from its start, then round by round: score the trained weights, remove, rewind, train again from there.

    Controls are trained after each ticket, on copies: they leave the ticket, and the rounds to come, as they are. "dense" is measured
    of the network that was trained first; "pruned" of the last round's trained weights under their new mask, before they are rewound.
    """
    dense, begin = _masks.dense(work.model), controls.resumes(recipe, work)
    start = controls.snapshot(work.model)
    if recipe.trains_first:
        remembers = begin if recipe.rewind == "early" else None
        start = (
            yield from finetune(work, dense, recipe, step=0, stop=stop, remember=remembers)
        ) or start
    if recipe.rewind == "learning_rate":
        start = controls.snapshot(work.model)
    outcome = Outcome(take_snapshot(replace(work, model=copy.deepcopy(work.model))), dense)
    covered = _masks.covered(recipe, work)
    yield Measured("dense", outcome.found.measurement)
    yield _ticket("dense", recipe, work, dense, covered, 0)
    yield from _idle(recipe, work)
    first = _masks.rank(recipe, work) if recipe.prunes else None
    for step in range(1, recipe.steps + 1):
        before = outcome.gone
        yield from _remove(recipe, work, outcome, step, stop, measured=step == recipe.steps)
        if recipe.rewind != "learning_rate":
            controls.put_back(start, outcome.gone, work.model)
        yield from finetune(
            work, outcome.gone, recipe, step=step, stop=stop, teacher=teacher, begin=begin
        )
        shot = (
            _masks.verdict(
                first, first.ranking.drops(recipe, share=_share(recipe, step)), work.model
            )
            if first
            else dense
        )
        yield _ticket("ticket", recipe, work, outcome.gone, covered, step, (before, shot))
        for kind in recipe.controls:
            other, masks = controls.control(kind, recipe, work, start, outcome.gone, shot, step)
            again = 0 if kind == "reinit" else begin
            yield from finetune(
                other,
                masks,
                recipe,
                step=step,
                stop=stop,
                teacher=teacher,
                begin=again,
                branch=kind,
            )
            yield _ticket(kind, recipe, other, masks, covered, step)
    return outcome


def _remove(
    recipe: Recipe,
    work: Workpiece,
    outcome: Outcome,
    step: int,
    stop: Stop | None,
    *,
    measured: bool,
) -> Iterator[Event]:
    """One step's pruning. measured: look at what it did before anything mends it."""
    _ask(stop, f"before step {step}")
    covered = _masks.covered(recipe, work)
    outcome.gone, predicted = _prune(recipe, work, outcome.gone, step)
    used = positions(work.model, work.example) if work.example is not None else {}
    layers, share = (
        _masks.by_layer(outcome.gone, used, prunable(work.model)),
        _masks.sparsity(outcome.gone, covered),
    )
    yield Pruned(step, recipe.steps, share, layers)
    if predicted is not None:
        yield achieved(predicted, work)
    if measured:
        yield from _notices(recipe, layers, covered, share)
        outcome.pruned = take_snapshot(work).measurement
        yield Measured("pruned", outcome.pruned)


def _ticket(
    kind: str,
    recipe: Recipe,
    work: Workpiece,
    masks: Masks,
    covered: set[str],
    step: int,
    beside: tuple[Masks, Masks] | None = None,
) -> Ticket:
    """A network that was trained to its end, on test data. beside: the masks of the round before and of one shot."""
    accuracy, loss = evaluate(work.model, work.test, work.loss) if work.test else (None, None)
    kept = sum(int(masks[name].sum()) for name in covered)
    shares = [controls.overlap(masks, other, covered) for other in beside or ()]
    return Ticket(
        step, recipe.steps, kind, _masks.sparsity(masks, covered), kept, accuracy, loss, *shares
    )


def _idle(recipe: Recipe, work: Workpiece) -> Iterator[Notice]:
    """What the recipe asks for and this run has no use for."""
    if recipe.recalibrate and recipe.rewind != "none":
        yield Notice(
            "Nothing was recalibrated: after a rewind, training sets BatchNorm's statistics anyway."
        )
    elif recipe.recalibrate and not norms(work.model):
        yield Notice(
            f"Nothing was recalibrated: {work.name} has no BatchNorm with running statistics."
        )
    if recipe.slimming and not (recipe.epochs and norms(work.model)):
        why = (
            f"{work.name} has no BatchNorm with running statistics"
            if recipe.epochs
            else "this recipe trains 0 epochs"
        )
        yield Notice(f"Nothing was slimmed: {why}.")
    if recipe.distill and not recipe.epochs:
        yield Notice(
            "Nothing was distilled: the dense model teaches while the pruned one is healed, and this recipe heals 0 epochs."
        )


def _recalibrate(recipe: Recipe, work: Workpiece, step: int) -> Recalibrated:
    """BatchNorm's statistics after this pruning, of the network that is left."""
    data, began = work.need("train", "Recalibrating BatchNorm"), time.perf_counter()
    layers = recalibrate(work.model, data, seed=recipe.seed, batch=max(recipe.batch, data.batch))
    return Recalibrated(step, layers, len(data.x), time.perf_counter() - began)


def _prune(
    recipe: Recipe, work: Workpiece, gone: Masks, step: int
) -> tuple[Masks, Predicted | None]:
    """Masks after this step, applied to the model; what was foretold of it. Nothing is scored when nothing is to go."""
    if not recipe.prunes:
        return gone, None
    share = _share(recipe, step)
    gone, ranking = _masks.decide(recipe, work, gone, share)
    _masks.remove(recipe, work, gone)
    return gone, forecast(recipe, ranking, step, share)


def _share(recipe: Recipe, step: int) -> float:
    """Of the final sparsity, after this step."""
    final = (
        max(recipe.ratios.values(), default=0.0) if recipe.scope == "manual" else recipe.sparsity
    )
    return grow(recipe.schedule, step / recipe.steps, final, recipe.schedule_options)


def _notices(
    recipe: Recipe, layers: tuple[Layer, ...], covered: set[str], gone: float
) -> Iterator[Notice]:
    """What people should know: a target that floors kept out of reach, layers that all but vanished."""
    total = sum(layer.total for layer in layers if layer.name in covered)
    if not recipe.budgeted and recipe.scope != "manual":
        yield Notice(
            f"{gone:.1%} of the weights went: {recipe.scope} says what goes, and the recipe's sparsity is not used."
        )
    elif recipe.budgeted and recipe.granularity == "n_of_m" and recipe.sparsity - gone > 1 / total:
        yield Notice(
            f"{gone:.1%} of the weights went, not {recipe.sparsity:.1%}: of every group, n weights stay whatever is asked."
        )
    elif recipe.budgeted and recipe.granularity == "weight" and recipe.sparsity - gone > 1 / total:
        slow = recipe.scope == "per_layer" and recipe.scope_options.get("output", 1.0) != 1.0
        why = (
            "the output layer is pruned more slowly"
            if slow
            else f"every layer keeps at least {recipe.min_units:,}"
        )
        yield Notice(f"{gone:.1%} of the weights went, not {recipe.sparsity:.1%}: {why}.")
    thin = [layer for layer in layers if layer.name in covered and layer.kept < 0.02 * layer.total]
    if thin:
        names = ", ".join(f"{layer.name} ({layer.kept:,} of {layer.total:,})" for layer in thin)
        yield Notice(
            f"Layers with less than 2 % of their weights left may pass no signal: {names}."
        )


def _ask(stop: Stop | None, where: str) -> None:
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
