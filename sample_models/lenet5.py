"""LeNet-5 in the widened form that the pruning literature measures on.

20 and 50 filters, 500 hidden units; 430,500 weights. Learning both Weights and Connections for
Efficient Neural Networks, Han et al., 2015, https://arxiv.org/abs/1506.02626
"""

from __future__ import annotations

from torch import Tensor, nn


class LeNet5(nn.Module):
    """(n, 1, 28, 28) -> (n, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 20, 5)  # 28 -> 24
        self.pool1 = nn.MaxPool2d(2)  # 24 -> 12
        self.conv2 = nn.Conv2d(20, 50, 5)  # 12 -> 8
        self.pool2 = nn.MaxPool2d(2)  # 8 -> 4
        self.fc1 = nn.Linear(50 * 4 * 4, 500)
        self.fc2 = nn.Linear(500, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool1(self.conv1(x).relu())
        x = self.pool2(self.conv2(x).relu())
        y: Tensor = self.fc2(self.fc1(x.flatten(1)).relu())
        return y


def lenet5() -> nn.Module:
    return LeNet5()
