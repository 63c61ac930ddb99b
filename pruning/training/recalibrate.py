"""BatchNorm recalibration: after pruning, the running statistics are of a network that is no longer there.

They are estimated anew on training data, as the plain average over batches; weights stay as they are.
Li et al., 2020 (EagleEye: "adaptive batch normalization"), https://arxiv.org/abs/2007.02491
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning.errors import DataError
from pruning.evidence import evaluating
from pruning.types import Batches


def norms(model: nn.Module) -> list[_BatchNorm]:
    """The BatchNorm layers that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


@torch.no_grad()
def recalibrate(model: nn.Module, data: Batches, *, seed: int = 0, batch: int = 128) -> int:
    """Estimate every running mean and variance of `model` anew on `data`, in place; how many layers it has.

    Batches are drawn in an order of `seed`, since data sorted by class would hide the spread between classes. Only BatchNorm
    is in training mode: dropout draws nothing. Parameters, modes and momenta are left as found.
    Raises DataError for fewer than two examples, which have no variance.
    """
    found = norms(model)
    if not found:
        return 0
    if len(data.x) < 2:
        raise DataError(
            "Recalibrating BatchNorm needs at least 2 training examples, and there is 1: give more, or switch it off."
        )
    with evaluating(model), _counting(found):
        for x, _ in data.shuffled(torch.Generator().manual_seed(seed % 2**63), batch):
            model(x)
    return len(found)


@contextmanager
def _counting(found: list[_BatchNorm]) -> Iterator[None]:
    """Statistics from nothing, each batch counting the same (momentum None is torch's word for that)."""
    momenta = [norm.momentum for norm in found]
    for norm in found:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    try:
        yield
    finally:
        for norm, momentum in zip(found, momenta, strict=True):
            norm.momentum = momentum
