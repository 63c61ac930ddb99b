"""What a criterion may look at, each gathered once, when first asked for. The model is left exactly as found:
parameters, buffers, gradients, modes and hooks."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pruning.errors import DataError
from pruning.types import Batches, Loss, prunable


class Evidence:
    """What is known of a model on its data.

    model: read, never changed; data: training examples, for criteria that need them; limit: examples looked at, at most;
    seed: of everything drawn at random.
    """

    def __init__(
        self,
        model: nn.Module,
        data: Batches | None = None,
        loss: Loss = nn.functional.cross_entropy,
        *,
        seed: int = 0,
        limit: int = 1024,
    ) -> None:
        self.model, self._data, self.loss, self.seed, self.limit = model, data, loss, seed, limit

    @property
    def data(self) -> Batches:
        """The first `limit` training examples. Raises DataError when there are none."""
        if self._data is None:
            raise DataError("This criterion looks at training data, and the model has none: choose one that looks at weights alone.")
        return self._data.head(self.limit)

    @cached_property
    def weights(self) -> dict[str, Tensor]:
        """Prunable parameter name -> its values, detached."""
        return {name: weight.detach() for name, weight in prunable(self.model).items()}

    @cached_property
    def gradients(self) -> dict[str, Tensor]:
        """Prunable parameter name -> gradient of the mean loss over `data`, in eval mode."""
        leaves = {name: weight.clone().requires_grad_() for name, weight in self.weights.items()}
        total = {name: torch.zeros_like(weight) for name, weight in self.weights.items()}
        with evaluating(self.model), torch.enable_grad():
            for x, y in self.data:
                loss = self.loss(functional_call(self.model, leaves, (x,)), y)
                parts = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
                for name, part in zip(leaves, parts, strict=True):
                    if part is not None:
                        total[name] += part * (len(x) / len(self.data.x))
        return total

    def random(self, name: str) -> torch.Generator:
        """A generator of its own for each tensor, so that a layer draws the same whatever stands beside it."""
        place = list(self.weights).index(name)
        return torch.Generator().manual_seed((self.seed * 1_000_003 + place) % 2**63)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode inside, every module's own mode back outside."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training
