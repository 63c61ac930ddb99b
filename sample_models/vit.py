"""A small vision transformer.

Queries, keys and values are plain linear layers, so that a head is a run of their rows.

An Image is Worth 16x16 Words, Dosovitskiy et al., 2020, https://arxiv.org/abs/2010.11929
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Attention(nn.Module):
    """Multi-head self-attention. (n, tokens, width) -> the same.

    Head h owns rows h*d to (h+1)*d of query, key and value.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        parts = [layer(x) for layer in (self.query, self.key, self.value)]
        # Each (n, heads, tokens, d).
        query, key, value = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in parts)
        mixed = F.scaled_dot_product_attention(query, key, value)
        y: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return y


class Block(nn.Module):
    """Attention, then an MLP, each added to its input, with LayerNorm before it."""

    def __init__(self, width: int, heads: int, hidden: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.fc1 = nn.Linear(width, hidden)
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        y: Tensor = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return y


class ViT(nn.Module):
    """2x2 patches as tokens, and the mean over them at the end. (n, 1, 8, 8) -> (n, 10)."""

    def __init__(self, width: int = 48, heads: int = 4, hidden: int = 96, depth: int = 3) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, 2, stride=2)  # 8x8 -> 4x4 tokens
        self.position = nn.Parameter(torch.randn(1, 16, width) * 0.02)
        self.blocks = nn.Sequential(*(Block(width, heads, hidden) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.position
        y: Tensor = self.fc(self.norm(self.blocks(tokens)).mean(1))
        return y


def digits_vit() -> nn.Module:
    return ViT()
