"""Depthwise separable convolutions: one filter a channel, then a 1x1 convolution that mixes them.

MobileNets, Howard et al., 2017, https://arxiv.org/abs/1704.04861
"""

from __future__ import annotations

from torch import Tensor, nn


class Separable(nn.Module):
    """Depthwise 3x3 and pointwise 1x1, each with BatchNorm and ReLU."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(inputs, inputs, 3, stride, padding=1, groups=inputs, bias=False)
        self.norm1 = nn.BatchNorm2d(inputs)
        self.pointwise = nn.Conv2d(inputs, outputs, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.depthwise(x)).relu()
        y: Tensor = self.norm2(self.pointwise(x)).relu()
        return y


class Depthwise(nn.Module):
    """(n, 1, 8, 8) -> (n, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 24, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(24)
        self.blocks = nn.Sequential(
            Separable(24, 48),
            Separable(48, 64, stride=2),  # 8 -> 4
            Separable(64, 96),
            Separable(96, 96, stride=2),  # 4 -> 2
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(96, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu()
        y: Tensor = self.fc(self.pool(self.blocks(x)).flatten(1))
        return y


def digits_depthwise() -> nn.Module:
    return Depthwise()
