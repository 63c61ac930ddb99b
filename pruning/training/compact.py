"""The slim model of a structured run: healed in the masked one's place if the recipe says so, and at the end certified and measured."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import replace
from typing import Any

from torch import Tensor

from pruning import masks as _masks
from pruning.errors import ModelError
from pruning.events import Certificate, Epoch, Layer, Notice
from pruning.measurement import Snapshot, positions, take_snapshot
from pruning.recipe import Recipe
from pruning.structure.modules import paste
from pruning.structure.shrink import compact_model
from pruning.training.finetune import Stop, finetune
from pruning.types import Masks, Workpiece, prunable


def told(recipe: Recipe, work: Workpiece) -> Iterator[Notice]:
    """Why this run takes whole units without following them through the model, or heals what it was not asked to."""
    why = _masks.layer_by_layer(recipe, work) if recipe.dependency_groups else None
    if why is not None:
        yield Notice(f"Units are taken layer by layer, and no slim model is made: {why}")
    if recipe.finetune_compact and (why is not None or not recipe.dependency_groups):
        yield Notice("The masked model is healed: there is no slim one to heal.")


def follows(recipe: Recipe, work: Workpiece) -> bool:
    """Whether what goes can be left out of the model."""
    return recipe.dependency_groups and _masks.layer_by_layer(recipe, work) is None


def heal(
    recipe: Recipe,
    work: Workpiece,
    masks: Masks,
    *,
    step: int,
    stop: Stop | None,
    teacher: Tensor | None,
) -> Generator[Epoch | Notice, None, None]:
    """Fine-tune the slim model, and put what it learned back into `work.model`: what the masked one would have learned, in less time."""
    assert work.example is not None
    try:
        compact, _ = compact_model(work.model, masks, work.example)
    except ModelError as error:
        yield Notice(f"The masked model is healed, for there is no slim one: {error}")
        yield from finetune_masked(recipe, work, masks, step=step, stop=stop, teacher=teacher)
        return
    share = _masks.sparsity(masks, _masks.covered(recipe, work))
    for epoch in finetune(
        replace(work, model=compact.module), {}, recipe, step=step, stop=stop, teacher=teacher
    ):
        yield replace(epoch, sparsity=share)
    paste(compact.module, compact.liveness, work.model)


def finetune_masked(
    recipe: Recipe,
    work: Workpiece,
    masks: Masks,
    *,
    step: int,
    stop: Stop | None,
    teacher: Tensor | None,
) -> Generator[Epoch | Notice, None, None]:
    """Fine-tune the masked model in place."""
    yield from finetune(work, masks, recipe, step=step, stop=stop, teacher=teacher)


def ending(work: Workpiece, masks: Masks) -> tuple[Snapshot, Certificate] | Notice:
    """The slim model of `work` as it ended, looked at, with its certificate; or why there is none."""
    assert work.example is not None
    try:
        compact, certificate = compact_model(work.model, masks, work.example)
    except ModelError as error:
        return Notice(f"No slim model was made: {error}")
    return seen(replace(work, model=compact.module.eval()), work), certificate


def seen(compact: Workpiece, masked: Workpiece) -> Snapshot:
    """A slim model, looked at. Its layers are the masked one's: packed attention is no module of its own any more."""
    assert masked.example is not None
    found, used = take_snapshot(compact), positions(masked.model, masked.example)
    held: dict[str, Any] = dict(compact.model.named_parameters(remove_duplicate=False))
    layers = tuple(
        Layer(
            name,
            total := held[name].numel(),
            kept := int(held[name].detach().count_nonzero()),
            total * times,
            kept * times,
        )
        for name in prunable(masked.model)
        if name in held
        for times in (used.get(name, 0),)
    )
    figures = replace(
        found.measurement,
        weights=sum(layer.total for layer in layers),
        kept=sum(layer.kept for layer in layers),
        macs=sum(layer.macs for layer in layers),
        macs_kept=sum(layer.macs_kept for layer in layers),
        layers=layers,
    )
    return Snapshot(compact, figures, found.logits)
