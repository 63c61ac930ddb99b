"""One plain training loop. Masked weights stay exactly zero: they are zeroed after each step, and what the optimizer
remembers of them is cleared, since momentum alone would revive them."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning.errors import Diverged, RunError, Stopped
from pruning.events import Epoch
from pruning.masks import covered, sparsity
from pruning.measurement import evaluate
from pruning.recipe import Recipe
from pruning.training.controls import snapshot
from pruning.training.distill import distillation_loss
from pruning.types import Masks, Workpiece

Stop = Callable[[], bool]


def finetune(
    work: Workpiece,
    masks: Masks,
    recipe: Recipe,
    *,
    step: int = 1,
    stop: Stop | None = None,
    teacher: Tensor | None = None,
    begin: int = 0,
    remember: int | None = None,
    branch: str = "",
) -> Generator[Epoch, None, dict[str, Tensor] | None]:
    """Train `work.model` in place for `recipe.epochs`, under `masks`, and say how each epoch went.

    teacher: the dense model's logits for the training examples in order, (n, classes), where `recipe.distill` wants them.
    begin: the optimizer step to start at, as if those before it were done: learning rate and examples are those of that moment.
    remember: an optimizer step after which a copy of the state is kept, and returned in the end.
    branch: the control that is trained, for the events.
    The learning rate falls from `recipe.lr` to 0 along a cosine, or stays. Raises Diverged, Stopped, or DataError without training data.
    """
    data = work.need("train", "Fine-tuning")
    keeper, scales = (
        Keeper(work.model, masks),
        _scales(work.model) if recipe.slimming and step == 0 else [],
    )
    optimizer = _optimizer(recipe, work.model)
    each = -(-len(data.x) // recipe.batch)
    steps = recipe.epochs * each
    share = sparsity(masks, covered(recipe, work)) if masks else 0.0
    done, kept = begin, snapshot(work.model) if remember == begin else None
    for epoch in range(1 + begin // each, recipe.epochs + 1):
        began, total, told, seen = time.perf_counter(), 0.0, 0.0, 0
        lr = _rate(recipe, done / steps)
        order = torch.Generator().manual_seed(_seed(recipe.seed, step, epoch))
        with torch.random.fork_rng(
            devices=[]
        ):  # dropout and the like draw from the recipe's seed, not from the caller's
            torch.manual_seed(_seed(recipe.seed, step, epoch))
            work.model.train()
            for part in data.order(order, recipe.batch)[done % each if done == begin else 0 :]:
                if stop is not None and stop():
                    raise Stopped(f"Stopped in step {step}, epoch {epoch}.")
                _set_lr(optimizer, _rate(recipe, done / steps))
                loss, apart = _one(
                    work,
                    optimizer,
                    data.x[part],
                    data.y[part],
                    recipe,
                    None if teacher is None else teacher[part],
                    scales,
                )
                if not math.isfinite(loss + apart):
                    raise Diverged(step, epoch, recipe.lr)
                keeper.hold(optimizer)
                total, told, seen = (
                    total + loss * len(part),
                    told + apart * len(part),
                    seen + len(part),
                )
                done += 1
                kept = snapshot(work.model) if done == remember else kept
        work.model.eval()
        keeper.check()
        accuracy, loss_now = (
            evaluate(work.model, work.validation, work.loss) if work.validation else (None, None)
        )
        yield Epoch(
            step=step,
            epoch=epoch,
            epochs=recipe.epochs,
            train_loss=total / seen,
            loss=loss_now,
            accuracy=accuracy,
            sparsity=share,
            lr=lr,
            seconds=time.perf_counter() - began,
            teacher=None if teacher is None else told / seen,
            branch=branch,
        )
    return kept


def _one(
    work: Workpiece,
    optimizer: torch.optim.Optimizer,
    x: Tensor,
    y: Tensor,
    recipe: Recipe,
    teacher: Tensor | None,
    scales: list[nn.Parameter],
) -> tuple[float, float]:
    """One step of training: the task's loss, and the distance to the teacher (0 without one). slim: pulled towards zero besides."""
    optimizer.zero_grad()
    out = work.model(x)
    loss = work.loss(out, y)
    apart = (
        distillation_loss(out, teacher, recipe.temperature)
        if teacher is not None
        else torch.zeros(())
    )
    trained = loss if teacher is None else (1 - recipe.distill) * loss + recipe.distill * apart
    trained.backward()  # type: ignore[no-untyped-call]
    for scale in scales:  # the gradient of slimming · Σ|γ|: network slimming, Liu et al., 2017, https://arxiv.org/abs/1708.06519
        if scale.grad is not None:
            scale.grad.add_(scale.detach().sign(), alpha=recipe.slimming)
    optimizer.step()
    return float(loss.detach()), float(apart.detach())


def _scales(model: nn.Module) -> list[nn.Parameter]:
    """BatchNorm's γ."""
    found = [module.weight for module in model.modules() if isinstance(module, _BatchNorm)]
    return [scale for scale in found if isinstance(scale, nn.Parameter)]


class Keeper:
    """Holds masked weights at exactly zero through training. A class because it keeps the masks as floats: several times faster."""

    def __init__(self, model: nn.Module, masks: Masks) -> None:
        parameters = dict(model.named_parameters(remove_duplicate=False))
        open_ = {name: keep for name, keep in masks.items() if not bool(keep.all())}
        self.names = list(open_)
        self.weights: list[Tensor] = [parameters[name] for name in open_]
        self.keep = [keep.to(parameters[name].dtype) for name, keep in open_.items()]
        self.gone = [~keep for keep in open_.values()]
        self.held: list[list[Tensor]] | None = None

    @torch.no_grad()
    def hold(self, optimizer: torch.optim.Optimizer) -> None:
        """Zero what is masked, in the weights and in what the optimizer remembers of them."""
        if not self.weights:
            return
        if self.held is None:  # an optimizer makes its memory in its first step and keeps it
            memory = [
                (value, keep)
                for weight, keep in zip(self.weights, self.keep, strict=True)
                for value in optimizer.state[weight].values()
                if isinstance(value, Tensor) and value.shape == keep.shape
            ]
            self.held = [
                [*self.weights, *(value for value, _ in memory)],
                [*self.keep, *(keep for _, keep in memory)],
            ]
        torch._foreach_mul_(*self.held)

    def check(self) -> None:
        """Raises RunError when a masked weight is not exactly zero."""
        for name, weight, gone in zip(self.names, self.weights, self.gone, strict=True):
            alive = int(weight.detach()[gone].count_nonzero())
            if alive:
                raise RunError(
                    f"{alive:,} pruned weights of {name} came back during training: please report this recipe."
                )


def _optimizer(recipe: Recipe, model: nn.Module) -> torch.optim.Optimizer:
    """Fused: one pass over the weights for each step, which is half of a small network's time."""
    decay: dict[str, Any] = {"lr": recipe.lr, "weight_decay": recipe.weight_decay, "fused": True}
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(model.parameters(), **decay)
    if recipe.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), **decay)
    return torch.optim.SGD(model.parameters(), momentum=recipe.momentum, **decay)


def _rate(recipe: Recipe, progress: float) -> float:
    return recipe.lr * (
        0.5 * (1 + math.cos(math.pi * progress)) if recipe.decay == "cosine" else 1.0
    )


def _set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = lr


def _seed(*parts: int) -> int:
    """One seed of several numbers, so that each epoch draws its own order."""
    mixed = 0
    for part in parts:
        mixed = (mixed * 1_000_003 + part + 1) % 2**63
    return mixed
