"""Recipe + workpiece -> events. The only file that knows the order: score, choose, remove, heal, measure."""

from __future__ import annotations

import copy
import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pruning import masks as _masks
from pruning.distill import answers
from pruning.errors import Stopped
from pruning.events import Event, Finished, Layer, Measured, Notice, Pruned, Recalibrated, Started
from pruning.finetune import Stop, finetune
from pruning.measure import look, positions, settle
from pruning.recalibrate import norms, recalibrate
from pruning.recipe import Recipe
from pruning.schedules import grow
from pruning.types import Masks, Workpiece

Keep = Callable[[nn.Module, Masks], None]


def run(recipe: Recipe, work: Workpiece, *, stop: Stop | None = None, keep: Keep | None = None) -> Iterator[Event]:
    """Prune and heal a copy of `work.model`, step by step, saying what happens as it happens; the last event is Finished.

    stop: asked often; when true, Stopped is raised. keep: given the final model and its masks before the last measurement.
    The caller's model stays bit-identical; the same recipe, machine and thread count give the same numbers (times aside).

    Raises RecipeError, ModelError, DataError or RunError, each with the way out.
    """
    began, pruned, recalibrated = time.perf_counter(), None, None
    yield Started(recipe.to_dict(), machine(), recipe.epochs * recipe.steps)
    found = look(work)
    yield Measured("dense", found.figures)
    work = replace(work, model=_fresh(recipe, work.model))
    used = positions(work.model, work.example) if work.example is not None else {}
    covered = _masks.covered(recipe, work)
    gone = _masks.dense(work.model)
    teacher = answers(found.work.model, work.need("train", "Distillation")) if recipe.distill and recipe.epochs else None
    yield from _idle(recipe, work)
    for step in range(1, recipe.steps + 1):
        _ask(stop, f"before step {step}")
        gone = _prune(recipe, work, gone, step)
        layers = _masks.by_layer(gone, used)
        yield Pruned(step, recipe.steps, _masks.sparsity(gone, covered), layers)
        mends = recipe.recalibrate and bool(norms(work.model))
        if (recipe.epochs or mends) and step == recipe.steps:
            yield from _notices(recipe, layers, covered, _masks.sparsity(gone, covered))
            pruned = look(work).figures
            yield Measured("pruned", pruned)
        if mends:
            yield _recalibrate(recipe, work, step)
        if mends and recipe.epochs and step == recipe.steps:
            recalibrated = look(work).figures
            yield Measured("recalibrated", recalibrated)
        if recipe.epochs:
            yield from finetune(work, gone, recipe, step=step, stop=stop, teacher=teacher)
    _ask(stop, "before the last measurement")
    if keep is not None:
        keep(work.model, gone)
    dense, final = settle([found, look(work)])
    yield Measured("final", final)
    yield Finished(_masks.sparsity(gone, covered), dense, pruned, final, time.perf_counter() - began, recalibrated)


def _idle(recipe: Recipe, work: Workpiece) -> Iterator[Notice]:
    """What the recipe asks for and this run has no use for."""
    if recipe.recalibrate and not norms(work.model):
        yield Notice(f"Nothing was recalibrated: {work.name} has no BatchNorm with running statistics.")
    if recipe.distill and not recipe.epochs:
        yield Notice("Nothing was distilled: the dense model teaches while the pruned one is healed, and this recipe heals 0 epochs.")


def _recalibrate(recipe: Recipe, work: Workpiece, step: int) -> Recalibrated:
    """BatchNorm's statistics after this pruning, of the network that is left."""
    data, began = work.need("train", "Recalibrating BatchNorm"), time.perf_counter()
    layers = recalibrate(work.model, data, seed=recipe.seed, batch=max(recipe.batch, data.batch))
    return Recalibrated(step, layers, len(data.x), time.perf_counter() - began)


def _prune(recipe: Recipe, work: Workpiece, gone: Masks, step: int) -> Masks:
    """Masks after this step, applied to the model. Nothing is scored when nothing is to go."""
    if not recipe.removes:
        return gone
    final = max(recipe.ratios.values(), default=0.0) if recipe.scope == "by_hand" else recipe.sparsity
    share = grow(recipe.schedule, step / recipe.steps, final, recipe.schedule_options)
    gone = _masks.choose(recipe, work, gone, share)
    _masks.remove(recipe, work, gone)
    return gone


def _fresh(recipe: Recipe, model: nn.Module) -> nn.Module:
    """A copy to work on: with the weights as found, or drawn anew from the seed."""
    copied = copy.deepcopy(model)
    if recipe.start == "random":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            for module in copied.modules():
                _draw(module)
    return copied


@torch.no_grad()
def _draw(module: nn.Module) -> None:
    """A module's own initialisation; parameters of modules that have none are drawn from a normal of deviation 0.02."""
    reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    if reset is not None:
        reset()
        return
    for parameter in module.parameters(recurse=False):
        parameter.normal_(0, 0.02)


def _notices(recipe: Recipe, layers: tuple[Layer, ...], covered: set[str], gone: float) -> Iterator[Notice]:
    """What people should know: a target that floors kept out of reach, layers that all but vanished."""
    total = sum(layer.total for layer in layers if layer.name in covered)
    if not recipe.budgeted and recipe.scope != "by_hand":
        yield Notice(f"{gone:.1%} of the weights went: {recipe.scope} says what goes, and the recipe's sparsity is not used.")
    elif recipe.budgeted and recipe.granularity == "n_of_m" and recipe.sparsity - gone > 1 / total:
        yield Notice(f"{gone:.1%} of the weights went, not {recipe.sparsity:.1%}: of every group, n weights stay whatever is asked.")
    elif recipe.budgeted and recipe.granularity == "weight" and recipe.sparsity - gone > 1 / total:
        slow = recipe.scope == "per_layer" and recipe.scope_options.get("output", 1.0) != 1.0
        why = "the output layer is pruned more slowly" if slow else f"every layer keeps at least {recipe.floor:,}"
        yield Notice(f"{gone:.1%} of the weights went, not {recipe.sparsity:.1%}: {why}.")
    thin = [layer for layer in layers if layer.name in covered and layer.kept < 0.02 * layer.total]
    if thin:
        names = ", ".join(f"{layer.name} ({layer.kept:,} of {layer.total:,})" for layer in thin)
        yield Notice(f"Layers with less than 2 % of their weights left may pass no signal: {names}.")


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
