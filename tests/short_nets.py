"""torchvision's families with each kind of block once: what deeper ones are made of, in less time.

`python3 run.py bench structure` takes the families whole, all of torchvision's and timm's.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
import torchvision
from torch import nn
from torchvision.models.googlenet import BasicConv2d, Inception
from torchvision.models.swin_transformer import PatchMerging, SwinTransformerBlock
from torchvision.ops import Permute

models = torchvision.models
inverted = models.mobilenetv3.InvertedResidualConfig
MBConv = models.efficientnet.MBConvConfig
convnext = models.convnext.CNBlockConfig

# (channels in, kernel, expanded, out, squeeze-and-excitation, activation, stride, dilation, width)
MOBILE = [
    inverted(16, 3, 16, 16, True, "RE", 2, 1, 1.0),
    inverted(16, 3, 72, 24, False, "RE", 2, 1, 1.0),
    inverted(24, 3, 88, 24, False, "RE", 1, 1, 1.0),
    inverted(24, 5, 96, 40, True, "HS", 2, 1, 1.0),
    inverted(40, 5, 240, 40, True, "HS", 1, 1, 1.0),
]
EFFICIENT = [
    MBConv(1, 3, 1, 32, 16, 1),
    MBConv(6, 3, 2, 16, 24, 2),
    MBConv(6, 5, 2, 24, 40, 1),
]
REGULAR = models.regnet.BlockParams(
    depths=[1, 2],
    widths=[48, 96],
    group_widths=[8, 8],
    bottleneck_multipliers=[1.0, 1.0],
    strides=[2, 2],
    se_ratio=0.25,
)


def inception(num_classes: int) -> nn.Module:
    """Two of GoogLeNet's modules, one reading the other's four joined branches."""
    return nn.Sequential(
        BasicConv2d(3, 24, kernel_size=3, stride=2),
        Inception(24, 16, 12, 24, 4, 8, 8),
        nn.MaxPool2d(3, 2),
        Inception(56, 24, 16, 32, 4, 12, 12),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(80, num_classes),
    )


def windows(num_classes: int) -> nn.Module:
    """Swin's attention in shifted windows, of which plain ones are a part, and what it merges."""
    return nn.Sequential(
        nn.Conv2d(3, 24, 2, 2),
        Permute([0, 2, 3, 1]),
        SwinTransformerBlock(24, 2, window_size=[2, 2], shift_size=[1, 1]),
        PatchMerging(24),
        nn.LayerNorm(48),
        Permute([0, 3, 1, 2]),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(48, num_classes),
    )


SHORT: dict[str, tuple[Callable[..., nn.Module], int]] = {
    "squeezenet": (partial(models.SqueezeNet, "1_1"), 32),
    "resnet": (partial(models.ResNet, models.resnet.BasicBlock, [2, 1, 1, 1]), 32),
    "bottlenecks": (
        partial(models.ResNet, models.resnet.Bottleneck, [2, 1, 1, 1], width_per_group=16),
        32,
    ),
    "mobilenet_v2": (
        partial(models.MobileNetV2, inverted_residual_setting=[[1, 16, 1, 1], [6, 24, 2, 2]]),
        32,
    ),
    "mobilenet_v3": (partial(models.MobileNetV3, MOBILE, 128), 32),
    "shufflenet": (partial(models.ShuffleNetV2, [2, 1, 1], [8, 16, 32, 64, 64]), 32),
    "efficientnet": (partial(models.EfficientNet, EFFICIENT, 0.2), 32),
    "regnet": (partial(models.RegNet, REGULAR), 32),
    "densenet": (partial(models.DenseNet, 8, (3, 2), 16), 32),
    "inception": (inception, 32),
    "convnext": (partial(models.ConvNeXt, [convnext(24, 48, 2), convnext(48, None, 1)]), 32),
    "swin": (windows, 8),
    "vit": (partial(models.VisionTransformer, 16, 8, 2, 4, 32, 64), 16),
}
"""Family -> how it is made, and the side of its pictures."""


def short(name: str) -> nn.Module:
    """The family's network for ten classes, of the same weights each time, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return SHORT[name][0](num_classes=10).eval()


def pictures(name: str) -> torch.Tensor:
    """Two pictures that it takes. (2, 3, side, side)"""
    side = SHORT[name][1]
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
