"""Movement: keep the weights that training moves away from zero, remove those it moves towards it.

S = −Σ w · ∂L/∂w over the steps of training, Sanh et al., 2020, https://arxiv.org/abs/2005.07683
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import islice

import torch
from torch import nn

from pruning.errors import ModelError
from pruning.evidence import Evidence
from pruning.registry import criterion
from pruning.types import Batches, Scores, prunable


@criterion(
    group="gradients",
    needs="data",
    cost="trains a copy for as many steps as you ask: 200 forward and backward passes",
)
def movement(seen: Evidence, *, steps: int = 200, lr: float = 0.1, batch: int = 64) -> Scores:
    """Remove the weights that shrink while a copy of the model is trained on.

    steps: of training that the movement is added up over, on all training data. A converged model
        needs many. What is zero remains zero.
    lr: learning rate of that training, by plain gradient descent.
    batch: examples in a step.
    """
    model = copy.deepcopy(seen.model).train()
    weights = prunable(model)
    keep = {name: w.detach() != 0 for name, w in weights.items()}
    total = {name: torch.zeros_like(w) for name, w in weights.items()}
    order = torch.Generator().manual_seed(seen.seed)
    # dropout draws from torch's own generator: seeded here, and put back for the caller
    with torch.random.fork_rng(devices=[]), torch.enable_grad():
        torch.manual_seed(seen.seed)
        for x, y in islice(_endless(seen.all_data, order, batch), steps):
            model.zero_grad()
            seen.loss(model(x), y).backward()  # type: ignore[no-untyped-call]
            _step(model, weights, keep, total, lr)
    if not all(torch.isfinite(values).all() for values in total.values()):
        raise ModelError(
            f"Training for movement diverged at learning rate {lr:g}: "
            "try a tenth of it (option lr)."
        )
    return total


def _endless(
    data: Batches, order: torch.Generator, batch: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Epoch after epoch."""
    while True:
        yield from data.shuffled(order, batch)


@torch.no_grad()
def _step(
    model: nn.Module,
    weights: dict[str, nn.Parameter],
    keep: dict[str, torch.Tensor],
    total: dict[str, torch.Tensor],
    lr: float,
) -> None:
    """Add up −w · ∂L/∂w, then go down the gradient."""
    for name, w in weights.items():
        if w.grad is not None:
            total[name] -= w * w.grad
    for parameter in model.parameters():
        if parameter.grad is not None:
            parameter.sub_(parameter.grad, alpha=lr)
    for name, w in weights.items():
        w.mul_(keep[name])
