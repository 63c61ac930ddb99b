"""Movement: keep the weights that training under a mask moves away from zero.

S = −Σ w · ∂L/∂w' over the steps of training, w' = w ⊙ mask and the mask the weights of the highest
S so far: the gradient passes straight through it, so that masked weights are scored on and can come
back. Sanh et al., 2020, https://arxiv.org/abs/2005.07683
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import islice
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from pruning.devices import device_of, seeded
from pruning.errors import ModelError
from pruning.evidence import Evidence
from pruning.ranges import Range
from pruning.registry import criterion
from pruning.tasks import main_output
from pruning.types import Batches, Inputs, Masks, Scores, prunable

WARM_UP, COOL_DOWN = 0.1, 0.3
"""Shares of the steps before the mask begins to grow, and after it has reached its target."""


@criterion(
    group="gradients",
    needs="data",
    gradients=(1, "steps", "batch"),
    cost="trains a copy for as many steps as you ask: 400 forward and backward passes",
)
def movement(
    seen: Evidence,
    *,
    under: Literal["mask", "nothing"] = "mask",
    target: Annotated[float, Range(0, 1, below=True)] = 0.9,
    steps: Annotated[int, Range(1, 100_000)] = 400,
    lr: Annotated[float, Range(0, 100, above=True)] = 0.1,
    batch: Annotated[int, Range(1, 10_000)] = 64,
) -> Scores:
    """Remove the weights that shrink while a copy of the model is trained under a growing mask.

    The paper keeps the weights of that training; here its scores are taken, and the run fine-tunes
    its own weights under the mask that they rank.

    under: mask is the method: the copy trains without the weights that score lowest by then; with
        nothing it trains whole, and the score is no more than how its weights moved.
    target: sparsity that the mask reaches, by a cubic schedule. The scores rank for any sparsity,
        and are the paper's at this one: set it to the recipe's.
    steps: of training that the movement is added up over, on all training data. A converged model
        needs many. What is zero remains zero.
    lr: learning rate of that training, by plain gradient descent.
    batch: examples in a step.
    """
    model = copy.deepcopy(seen.model).train()
    weights = prunable(model)
    full = {name: w.detach().clone() for name, w in weights.items()}  # w, also where it is masked
    keep = {name: w != 0 for name, w in full.items()}
    scores = {name: torch.zeros_like(w) for name, w in full.items()}
    order = torch.Generator().manual_seed(seen.seed)
    # dropout draws from torch's own generator: seeded here, and put back for the caller
    with seeded(seen.seed, device_of(model)), torch.enable_grad():
        for step, (x, y) in enumerate(islice(_endless(seen.all_data, order, batch), steps)):
            share = target * _grown(step / steps) if under == "mask" else 0.0
            masks = _highest(scores, keep, share)
            _put(weights, full, masks)
            model.zero_grad()
            # In training some models give more, such as the outputs of auxiliary heads.
            out = main_output(model(x))
            assert out is not None, "it gave a tensor in eval mode"
            seen.loss(out, y).backward()  # type: ignore[no-untyped-call]
            _step(model, weights, full, masks, scores, lr)
    if not all(torch.isfinite(values).all() for values in scores.values()):
        raise ModelError(
            f"Training for movement diverged at learning rate {lr:g}: "
            "try a tenth of it (option lr)."
        )
    return scores


def _endless(data: Batches, order: torch.Generator, batch: int) -> Iterator[tuple[Inputs, Tensor]]:
    """Epoch after epoch."""
    while True:
        yield from data.shuffled(order, batch)


def _grown(progress: float) -> float:
    """The share of the target that is masked at a progress of the training, in [0, 1]."""
    t = (progress - WARM_UP) / (1 - WARM_UP - COOL_DOWN)
    return float(1 - (1 - min(max(t, 0.0), 1.0)) ** 3)


def _highest(scores: Scores, keep: Masks, share: float) -> Masks:
    """Without the lowest `share` of all weights; those outside `keep` are the first of them."""
    ranked = {name: s.masked_fill(~keep[name], -torch.inf) for name, s in scores.items()}
    flat = torch.cat([values.flatten() for values in ranked.values()])
    count = round(share * len(flat))
    if count == 0:
        return keep
    threshold = flat.kthvalue(count).values
    return {name: values > threshold for name, values in ranked.items()}


@torch.no_grad()
def _put(weights: dict[str, nn.Parameter], full: dict[str, Tensor], masks: Masks) -> None:
    """w' = w ⊙ mask, into the model."""
    for name, w in weights.items():
        w.copy_(full[name] * masks[name])


@torch.no_grad()
def _step(
    model: nn.Module,
    weights: dict[str, nn.Parameter],
    full: dict[str, Tensor],
    masks: Masks,
    scores: Scores,
    lr: float,
) -> None:
    """Add up −w · ∂L/∂w', then go down the gradient: of w it is that of w', where it is kept."""
    for name, w in weights.items():
        if w.grad is not None:
            scores[name] -= full[name] * w.grad
            full[name] -= lr * w.grad * masks[name]
    ours = {id(w) for w in weights.values()}
    for parameter in model.parameters():
        if parameter.grad is not None and id(parameter) not in ours:
            parameter.sub_(parameter.grad, alpha=lr)
