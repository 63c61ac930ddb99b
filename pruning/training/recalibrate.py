"""BatchNorm recalibration: after pruning, the running statistics are those of the dense network.

They are estimated anew on training data, as the plain average over batches; weights are kept.
Li et al., 2020 (EagleEye: "adaptive batch normalization"), https://arxiv.org/abs/2007.02491
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning.adapted import Widened
from pruning.errors import DataError
from pruning.evidence import evaluating
from pruning.types import Batches


def norms(model: nn.Module) -> list[_BatchNorm]:
    """The BatchNorm layers that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


@torch.no_grad()
def recalibrate(model: nn.Module, data: Batches, *, seed: int = 0, batch: int = 128) -> int:
    """Estimate every running mean and variance of `model` anew on `data`, in place.

    Returns how many BatchNorm layers it has. Parameters, modes and momenta are left as found.
    Raises DataError for fewer than two examples, which have no variance.
    """
    layers = norms(model)
    if not layers:
        return 0
    if data.examples < 2:
        raise DataError(
            "Recalibrating BatchNorm needs at least 2 training examples, and there is 1: "
            "give more, or switch it off."
        )
    # shuffled, since batches of data sorted by class would hide the spread between classes
    generator = torch.Generator().manual_seed(seed % 2**63)
    # only BatchNorm is in training mode: dropout drops nothing
    with Widened(model), evaluating(model), _averaging(layers):
        for x, _ in data.shuffled(generator, batch):
            model(x)
    return len(layers)


@contextmanager
def _averaging(layers: list[_BatchNorm]) -> Iterator[None]:
    """Training mode, statistics from nothing, each batch counting the same."""
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # torch's word for the plain average
        layer.train()
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum
