"""A small convolutional network, without norms: filters, pooling, two linear layers."""

from __future__ import annotations

from torch import Tensor, nn


class CNN(nn.Module):
    """(n, 1, 8, 8) -> (n, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.pool1 = nn.MaxPool2d(2)  # 8 -> 4
        self.conv3 = nn.Conv2d(32, 64, 3, padding=1)
        self.pool2 = nn.MaxPool2d(2)  # 4 -> 2
        self.fc1 = nn.Linear(64 * 2 * 2, 64)
        self.fc2 = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).relu()
        x = self.pool1(self.conv2(x).relu())
        x = self.pool2(self.conv3(x).relu())
        y: Tensor = self.fc2(self.fc1(x.flatten(1)).relu())
        return y


def digits_cnn() -> nn.Module:
    return CNN()
