"""Residual networks with BatchNorm: layers that add into each other must keep the same channels.

Deep Residual Learning, He et al., 2015, https://arxiv.org/abs/1512.03385
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class Block(nn.Module):
    """Two 3x3 convolutions added to the input, which a 1x1 convolution reshapes where need be."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        inner = self.norm1(self.conv1(x)).relu()
        y: Tensor = (self.norm2(self.conv2(inner)) + self.shortcut(x)).relu()
        return y


class ResNet(nn.Module):
    """A 3x3 convolution, stages of residual blocks, a mean over the picture, one linear layer.

    Later stages halve the picture. (n, 1, height, width) -> (n, 10)
    """

    def __init__(self, widths: Sequence[int] = (16, 32, 64), blocks: int = 3) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, widths[0], 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(widths[0])
        stages = []
        inputs = widths[0]
        for number, width in enumerate(widths):
            stage = [Block(inputs, width, stride=1 if number == 0 else 2)]
            stage += [Block(width, width) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(*stage))
            inputs = width
        self.stages = nn.Sequential(*stages)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(inputs, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x)).relu()
        y: Tensor = self.fc(self.pool(self.stages(x)).flatten(1))
        return y


def digits_resnet() -> nn.Module:
    """Three stages of one block each, for 8x8 digits."""
    return ResNet((16, 32, 48), blocks=1)


def resnet20() -> nn.Module:
    """ResNet-20 of the paper's section 4.2 (three stages of three blocks), for one grey channel."""
    return ResNet((16, 32, 64), blocks=3)
