"""Multi-layer perceptrons: the plainest thing to prune.

LeNet-300-100: Gradient-Based Learning Applied to Document Recognition, LeCun et al., 1998,
https://doi.org/10.1109/5.726791
"""

from __future__ import annotations

from torch import Tensor, nn


class MLP(nn.Module):
    """Two hidden layers with ReLU. (n, ...) with `inputs` values each -> (n, 10)."""

    def __init__(self, inputs: int, first: int, second: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(inputs, first)
        self.fc2 = nn.Linear(first, second)
        self.fc3 = nn.Linear(second, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x.flatten(1)).relu()
        x = self.fc2(x).relu()
        y: Tensor = self.fc3(x)
        return y


def digits_mlp() -> nn.Module:
    """64-300-100-10."""
    return MLP(64, 300, 100)


def mnist1d_mlp() -> nn.Module:
    """40-200-100-10."""
    return MLP(40, 200, 100)


def lenet300() -> nn.Module:
    """784-300-100-10."""
    return MLP(784, 300, 100)
