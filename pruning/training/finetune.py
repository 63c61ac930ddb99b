"""Fine-tuning: one plain training loop under masks.

Masked weights stay exactly zero: they are zeroed after each step, since momentum alone would revive
them. The optimizer's memory of them is left: each of its numbers is of one weight, so none that is
kept ever meets it, and clearing it would take two products more in every step of Adam.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Collection, Generator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning.adapted import Widened
from pruning.devices import device_of, seeded
from pruning.errors import Diverged, ModelError, RunError, Stopped
from pruning.events import Epoch
from pruning.masks import sparsity
from pruning.measurement import evaluate
from pruning.recipe import Recipe
from pruning.tasks import HALF, class_dimension, main_output
from pruning.training.checkpoint import SaveTraining, Training
from pruning.training.distill import distillation_loss
from pruning.training.memory_format import channels_last, pays
from pruning.training.mixed_precision import MixedPrecision
from pruning.training.rewind import State, state_of
from pruning.types import Augment, Inputs, Masks, Workpiece, parts_of

Stop = Callable[[], bool]


def finetune(
    work: Workpiece,
    masks: Masks,
    recipe: Recipe,
    *,
    covered: Collection[str] | None = None,
    step: int = 1,
    stop: Stop | None = None,
    teacher: Tensor | None = None,
    begin: int = 0,
    remember: int | None = None,
    branch: str = "",
    save: SaveTraining | None = None,
    resume: Training | None = None,
) -> Generator[Epoch, None, State | None]:
    """Train `work.model` in place for `recipe.epochs`, under `masks`; an Epoch after each.

    covered: the weights that the reported sparsity is a share of; None: all masked ones.
    teacher: (n, classes) the dense model's logits for the training examples in order, where
        `recipe.distill` wants them.
    begin: the optimizer step to start at, as if those before it were done: learning rate and
        examples are those of that moment.
    remember: an optimizer step after which a copy of the state is taken, and returned in the end.
    branch: the control that is trained, for the events.
    save: given what a later attempt resumes from, after each epoch, once its event was taken;
        resume: what it was given in an earlier attempt at this very training, whose next epoch is
        the first here.
    The learning rate falls from `recipe.lr` to 0 along a cosine, or is constant. Convolutional nets
    train with channels innermost where that pays; between epochs they are as they were. Examples
    come to the model's device batch by batch.
    Raises Diverged, Stopped, or DataError without training data.
    """
    data = work.need("train", "Fine-tuning")
    there = device_of(work.model)
    few, _ = data.at(slice(2))
    inside = pays(work.model, few, min(recipe.batch, data.examples))
    mixed = MixedPrecision(recipe.precision, there)
    # The small steps of training are lost in half precision: it is done in float32.
    with Widened(work.model) as wide:
        zeros = ZeroKeeper(work.model, masks)
        # Network slimming is a training of its own, before anything is pruned: step 0.
        scales = _batch_norm_scales(work.model) if recipe.slimming and step == 0 else []
        # A fresh optimizer: momentum from before pruning points at a model no longer there.
        optimizer = _optimizer(recipe, work.model)
        steps_per_epoch = recipe.steps_per_epoch(data.examples)
        all_steps = recipe.epochs * steps_per_epoch
        share = sparsity(masks, covered) if masks else 0.0
        done = begin
        remembered = state_of(work.model) if remember == begin else None
        if resume is not None:
            _go_on(resume, work.model, optimizer, mixed)
            done = resume.steps
            remembered = resume.remembered
        # A training from random weights is one of its own, as lottery tickets' papers have it.
        augments = recipe.augment and recipe.start == "trained" and teacher is None
        augment = work.augment if augments else None
        epochs_done = begin // steps_per_epoch if resume is None else resume.epoch
        for epoch in range(1 + epochs_done, recipe.epochs + 1):
            start = time.perf_counter()
            lr = _learning_rate(
                recipe, done / all_steps
            )  # reported: the rate that the epoch starts at
            loss_sum = distance_sum = 0.0
            seen = 0
            seed = _seed(recipe.seed, step, epoch)
            generator = torch.Generator().manual_seed(seed)
            batches = data.order(generator, recipe.batch)
            if done == begin:  # a training that is resumed in the middle of an epoch
                batches = batches[done % steps_per_epoch :]
            # Dropout and the like draw from the recipe's seed, not the caller's.
            with seeded(seed, there), channels_last(work.model, inside) as order:
                work.model.train()
                for batch in batches:
                    if stop is not None and stop():
                        raise Stopped(f"Stopped in step {step}, epoch {epoch}.")
                    _set_learning_rate(optimizer, _learning_rate(recipe, done / all_steps))
                    logits = teacher[batch].to(there) if teacher is not None else None
                    x, y = data.at(batch)
                    if augment is not None:
                        x = augmented(x, augment, generator)
                    if inside:
                        x = in_order(x, order)
                    loss, distance = _train_on(work, optimizer, x, y, recipe, logits, scales, mixed)
                    # Found at once, not at the end of an epoch: a diverged run wastes minutes.
                    if not math.isfinite(loss + distance):
                        raise Diverged(step, epoch, recipe.lr)
                    zeros.restore()
                    loss_sum += loss * len(batch)
                    distance_sum += distance * len(batch)
                    seen += len(batch)
                    done += 1
                    if done == remember:
                        remembered = state_of(work.model)
            work.model.eval()
            zeros.check()
            with wide.rounded():  # what is measured and kept is what the run ends with
                quality = None
                if work.validation:
                    quality = evaluate(work.model, work.validation, work.loss, work.metric)
                yield Epoch(
                    step=step,
                    epoch=epoch,
                    epochs=recipe.epochs,
                    train_loss=loss_sum / seen,
                    loss=quality.loss if quality else None,
                    accuracy=quality.accuracy if quality else None,
                    sparsity=share,
                    lr=lr,
                    seconds=time.perf_counter() - start,
                    teacher=distance_sum / seen if teacher is not None else None,
                    branch=branch,
                    score=quality.score if quality else None,
                )
            if save is not None:
                weights, kept = work.model.state_dict(), optimizer.state_dict()["state"]
                save(Training(epoch, done, weights, kept, mixed.state(), remembered))
    return remembered


def _go_on(
    training: Training,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    mixed: MixedPrecision,
) -> None:
    """Put weights, and what optimizer and scaler remember, back in place."""
    model.load_state_dict(training.weights)
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": training.optimizer, "param_groups": groups})
    mixed.load_state(training.scaler)


def _train_on(
    work: Workpiece,
    optimizer: torch.optim.Optimizer,
    x: Inputs,
    y: Tensor,
    recipe: Recipe,
    teacher: Tensor | None,
    scales: list[nn.Parameter],
    mixed: MixedPrecision,
) -> tuple[float, float]:
    """One optimizer step: the task's loss, and the distance to the teacher (0 without one).

    teacher: its logits for this batch. scales: BatchNorm's γ, pulled towards zero besides.
    """
    optimizer.zero_grad()  # to None, so that parameters without a gradient are left alone
    # In training some models give more than in eval mode: the outputs of auxiliary heads.
    with mixed.forward():
        out = main_output(work.model(x))
    if out is None:
        raise ModelError(
            "The model gives no tensor in training mode: say which of its outputs is trained with "
            "Workpiece(outputs=...)."
        )
    # Losses are taken in float32: their small differences are lost in half precision.
    out = out.float() if out.dtype in HALF else out
    loss = work.loss(out, y)
    if teacher is None:
        distance = torch.zeros((), device=out.device)
        objective = loss
    else:
        classes = class_dimension(out, y)
        distance = distillation_loss(out, teacher, recipe.temperature, classes)
        objective = (1 - recipe.distill) * loss + recipe.distill * distance
    mixed.backward(objective, optimizer)
    # The gradient of slimming · Σ|γ|: Liu et al., 2017, https://arxiv.org/abs/1708.06519
    for scale in scales:
        if scale.grad is not None:
            scale.grad.add_(scale.detach().sign(), alpha=recipe.slimming)
    mixed.step(optimizer)
    return float(loss.detach()), float(distance.detach())


def augmented(x: Inputs, augment: Augment, generator: torch.Generator) -> Inputs:
    """A batch as training sees it; of several inputs the first is augmented."""
    if isinstance(x, tuple):
        return augment(x[0], generator), *x[1:]
    return augment(x, generator)


def in_order(x: Inputs, order: torch.memory_format) -> Inputs:
    """The inputs of pictures in that memory format."""
    parts = tuple(p.to(memory_format=order) if p.dim() == 4 else p for p in parts_of(x))
    return parts if isinstance(x, tuple) else parts[0]


def _batch_norm_scales(model: nn.Module) -> list[nn.Parameter]:
    """BatchNorm's γ."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    return [norm.weight for norm in norms if isinstance(norm.weight, nn.Parameter)]


class ZeroKeeper:
    """Holds masked weights at exactly zero through training.

    A class because it keeps the masks as floats: a float product is several times faster.
    """

    def __init__(self, model: nn.Module, masks: Masks) -> None:
        parameters = dict(model.named_parameters(remove_duplicate=False))
        pruned = {name: keep for name, keep in masks.items() if not bool(keep.all())}
        self.masks = pruned
        self.weights = [parameters[name] for name in pruned]
        self.products: tuple[list[Tensor], list[Tensor]] | None = None

    @torch.no_grad()
    def restore(self) -> None:
        """Zero what is masked, after an optimizer's step."""
        if not self.weights:
            return
        if self.products is None:
            # In the order that each weight has in memory: else the product is no single pass.
            pairs = zip(self.weights, self.masks.values(), strict=True)
            keep = [torch.empty_like(weight).copy_(mask) for weight, mask in pairs]
            self.products = (list(self.weights), keep)
        torch._foreach_mul_(*self.products)

    def check(self) -> None:
        """Raises RunError when a masked weight is not exactly zero."""
        for (name, keep), weight in zip(self.masks.items(), self.weights, strict=True):
            revived = int(weight.detach()[~keep.to(weight.device)].count_nonzero())
            if revived:
                raise RunError(
                    f"{revived:,} pruned weights of {name} came back during training: please "
                    "report this recipe."
                )


def _optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    # Fused: one pass over the weights for each step, which is half of a small network's time.
    common: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), **common)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), **common)
    return torch.optim.SGD(model.parameters(), momentum=recipe.momentum, **common)


def _learning_rate(recipe: Recipe, progress: float) -> float:
    if recipe.decay == "cosine":
        return recipe.lr * (0.5 * (1 + math.cos(math.pi * progress)))
    return recipe.lr


def _set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def _seed(*parts: int) -> int:
    """One seed of several numbers, so that each epoch has an order of its own."""
    mixed = 0
    for part in parts:
        mixed = (mixed * 1_000_003 + part + 1) % 2**63
    return mixed
