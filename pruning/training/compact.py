"""The compact model of a structured run: fine-tuned in the masked one's place if the recipe says
so, and at the end certified and measured.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor

from pruning.adapted import adapted_like
from pruning.devices import device_of, moved
from pruning.errors import ModelError
from pruning.events import Certificate, Epoch, Notice
from pruning.masks import sparsity
from pruning.measurement import Snapshot, count_uses, layer_counts, take_snapshot
from pruning.recipe import Recipe
from pruning.structure.modules import paste
from pruning.structure.shrink import compact_model
from pruning.training.checkpoint import SaveTraining, Training
from pruning.training.finetune import Stop, finetune
from pruning.types import Masks, Workpiece, prunable


class CompactResult(NamedTuple):
    """How a structured run ended: a compact model with its certificate, or why there is none."""

    snapshot: Snapshot | None = None
    certificate: Certificate | None = None
    notice: Notice | None = None


def notices(recipe: Recipe, why_by_layer: str | None) -> Iterator[Notice]:
    """Why this run does not follow dependency groups, or fine-tunes what it was not asked to.

    why_by_layer: why units are taken layer by layer here, although the granularity is of groups.
    """
    if why_by_layer is not None:
        yield Notice(
            f"Units are taken layer by layer, and no compact model is made: {why_by_layer}"
        )
    if recipe.finetune_compact and (why_by_layer is not None or not recipe.dependency_groups):
        yield Notice("The masked model is fine-tuned: there is no compact one to fine-tune.")


def finetune_compact(
    work: Workpiece,
    masks: Masks,
    recipe: Recipe,
    *,
    covered: set[str],
    step: int,
    stop: Stop | None,
    teacher: Tensor | None,
    save: SaveTraining | None = None,
    resume: Training | None = None,
) -> Generator[Epoch | Notice, None, None]:
    """Fine-tune the compact model, and put what it learned back into `work.model` each epoch.

    That is what the masked one would have learned, in less time.
    """
    assert work.example is not None
    training: dict[str, Any] = {
        "stop": stop,
        "teacher": teacher,
        "save": save,
        "resume": resume,
    }
    try:
        compact, _ = compact_model(work.model, masks, work.example)
    except ModelError as error:
        if resume is None:  # said once
            yield Notice(f"The masked model is fine-tuned, for there is no compact one: {error}")
        yield from finetune(work, masks, recipe, covered=covered, step=step, **training)
        return
    # The compact model has no zeros to count: what was pruned is not in it.
    share = sparsity(masks, covered)
    module = moved(compact.module, device_of(work.model))
    smaller = replace(work, model=adapted_like(module, work.model))
    # Without masks: everything that is in the compact model is kept.
    for epoch in finetune(smaller, {}, recipe, step=step, **training):
        # Before the event: a run that is stopped keeps the weights of its last whole epoch.
        paste(module, compact.liveness, work.model)
        yield replace(epoch, sparsity=share)


def final_compact(work: Workpiece, masks: Masks) -> CompactResult:
    """The compact model of `work` as it ended, measured, with its certificate."""
    assert work.example is not None
    try:
        compact, certificate = compact_model(work.model, masks, work.example)
    except ModelError as error:
        return CompactResult(notice=Notice(f"No compact model was made: {error}"))
    # The compact module is traced anew and starts in training mode.
    module = moved(compact.module.eval(), device_of(work.model))
    smaller = replace(work, model=adapted_like(module, work.model))
    return CompactResult(compact_snapshot(smaller, work), certificate)


def compact_snapshot(compact: Workpiece, masked: Workpiece) -> Snapshot:
    """What was quickly measured of a compact model, by the masked one's layers.

    Packed attention is no module of its own in the compact model: its own count would miss it.
    """
    assert masked.example is not None
    snapshot = take_snapshot(compact)
    parameters = dict(compact.model.named_parameters(remove_duplicate=False))
    weights = {name: parameters[name] for name in prunable(masked.model) if name in parameters}
    uses = count_uses(compact.model, masked.example, weights)
    layers = layer_counts(compact.model, uses, weights)
    measurement = replace(
        snapshot.measurement,
        weights=sum(layer.total for layer in layers),
        kept=sum(layer.kept for layer in layers),
        macs=sum(layer.macs for layer in layers),
        macs_kept=sum(layer.macs_kept for layer in layers),
        macs_other=uses.other,
        layers=layers,
    )
    return Snapshot(compact, measurement, snapshot.logits)
