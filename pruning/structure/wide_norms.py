"""Normalisation over channels of which some are gone: dead ones were zeros, and zeros count in a mean. So sums are divided by the
original width, and the slim model computes what the masked one does."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def layer_norm(
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    width: int,
) -> Tensor:
    """Layer norm over the last dimensions, of `width` values of which those that are not in `x` are zero."""
    dims = tuple(range(-len(shape), 0))
    gone = width - _product(shape)
    mean = x.sum(dims, keepdim=True) / width
    centred = x - mean
    variance = (centred.square().sum(dims, keepdim=True) + gone * mean.square()) / width
    y = centred * torch.rsqrt(variance + eps)
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


def rms_norm(
    x: Tensor, shape: Sequence[int], weight: Tensor | None, eps: float | None, width: int
) -> Tensor:
    """RMS norm over the last dimensions, of `width` values of which those that are not in `x` are zero."""
    dims = tuple(range(-len(shape), 0))
    least = torch.finfo(x.dtype).eps if eps is None else eps
    y = x * torch.rsqrt(x.square().sum(dims, keepdim=True) / width + least)
    return y if weight is None else y * weight


def _product(shape: Sequence[int]) -> int:
    total = 1
    for n in shape:
        total *= n
    return total


class WideLayerNorm(nn.LayerNorm):
    """A LayerNorm that remembers how wide it was."""

    def __init__(self, shape: Sequence[int], eps: float, width: int) -> None:
        super().__init__(list(shape), eps=eps)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps, self.width)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, width={self.width}"


class WideRMSNorm(nn.RMSNorm):
    """An RMSNorm that remembers how wide it was."""

    def __init__(self, shape: Sequence[int], eps: float | None, width: int) -> None:
        super().__init__(list(shape), eps=eps)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return rms_norm(x, self.normalized_shape, self.weight, self.eps, self.width)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, width={self.width}"


class Attention(nn.Module):
    """Scaled dot-product attention that drops weights in training, as the module it was recorded in does."""

    def __init__(self, p: float) -> None:
        super().__init__()
        self.p = p

    def forward(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        mask: Tensor | None = None,
        is_causal: bool = False,
        scale: float | None = None,
    ) -> Tensor:
        p = self.p if self.training else 0.0
        return nn.functional.scaled_dot_product_attention(q, k, v, mask, p, is_causal, scale=scale)
