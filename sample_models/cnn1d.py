"""A convolutional network over curves.

After the one in Scaling Down Deep Learning, Greydanus, 2020, https://arxiv.org/abs/2011.14439
"""

from __future__ import annotations

from torch import Tensor, nn


class CNN1d(nn.Module):
    """Three convolutions, each halving the curve, and one linear layer. (n, 1, 40) -> (n, 10)."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(1, width, 5, stride=2, padding=2)  # 40 -> 20
        self.conv2 = nn.Conv1d(width, width, 3, stride=2, padding=1)  # 20 -> 10
        self.conv3 = nn.Conv1d(width, width, 3, stride=2, padding=1)  # 10 -> 5
        self.fc = nn.Linear(width * 5, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).relu()
        x = self.conv2(x).relu()
        x = self.conv3(x).relu()
        y: Tensor = self.fc(x.flatten(1))
        return y


def mnist1d_cnn() -> nn.Module:
    return CNN1d()
