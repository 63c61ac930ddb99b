"""Normalisation over channels of which some are removed, and attention with dropout.

The masked model has zeros in the place of removed channels, and zeros count in a mean. So sums are
divided by the original width, and the compact model computes what the masked one does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None,
    bias: Tensor | None,
    eps: float,
    width: int,
) -> Tensor:
    """Layer norm over the last dimensions, of `width` values.

    Those that are not in `input` are zero: normalized_shape is what is kept of them.
    """
    dims = tuple(range(-len(normalized_shape), 0))
    removed = width - math.prod(normalized_shape)
    mean = input.sum(dims, keepdim=True) / width
    centred = input - mean
    # Each removed zero is as far from the mean as the mean is from zero.
    squares = centred.square().sum(dims, keepdim=True) + removed * mean.square()
    y = centred * torch.rsqrt(squares / width + eps)
    if weight is not None:
        y = y * weight
    return y if bias is None else y + bias


def rms_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None,
    eps: float | None,
    width: int,
) -> Tensor:
    """RMS norm over the last dimensions, of `width` values of which removed ones are zero."""
    dims = tuple(range(-len(normalized_shape), 0))
    if eps is None:
        eps = torch.finfo(input.dtype).eps
    squares = input.square().sum(dims, keepdim=True)  # removed zeros add nothing
    y = input * torch.rsqrt(squares / width + eps)
    return y if weight is None else y * weight


def group_norm(
    input: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float, width: int
) -> Tensor:
    """Group norm in one group over all of `width` channels, of which removed ones are zero."""
    dims = tuple(range(1, input.dim()))
    positions = math.prod(input.shape[2:])
    count = width * positions
    mean = input.sum(dims, keepdim=True) / count
    centred = input - mean
    removed = (width - input.shape[1]) * positions
    squares = centred.square().sum(dims, keepdim=True) + removed * mean.square()
    y = centred * torch.rsqrt(squares / count + eps)
    sizes = [-1] + [1] * (input.dim() - 2)
    if weight is not None:
        y = y * weight.view(sizes)
    return y if bias is None else y + bias.view(sizes)


def var_mean(
    input: Tensor,
    one: Tensor,
    dims: Sequence[int],
    correction: float,
    keepdim: bool,
    removed: int,
) -> tuple[Tensor, Tensor]:
    """Variance and mean of `input` and `removed` times `one`, 1 long where they were removed."""
    count = math.prod(input.shape[d] for d in dims)
    count_removed = removed * math.prod(one.shape[d] for d in dims)
    dims = tuple(dims)
    total = input.sum(dims, keepdim=True) + removed * one.sum(dims, keepdim=True)
    mean = total / (count + count_removed)
    squares = (input - mean).square().sum(dims, keepdim=True)
    squares = squares + removed * (one - mean).square().sum(dims, keepdim=True)
    variance = squares / (count + count_removed - correction)
    if keepdim:
        return variance, mean
    return variance.squeeze(dims), mean.squeeze(dims)


def var(
    input: Tensor,
    one: Tensor,
    dims: Sequence[int],
    correction: float,
    keepdim: bool,
    removed: int,
) -> Tensor:
    """The variance of `var_mean`."""
    return var_mean(input, one, dims, correction, keepdim, removed)[0]


def std(
    input: Tensor,
    one: Tensor,
    dims: Sequence[int],
    correction: float,
    keepdim: bool,
    removed: int,
) -> Tensor:
    """The square root of the variance of `var_mean`."""
    return var(input, one, dims, correction, keepdim, removed).sqrt()


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


class WideGroupNorm(nn.GroupNorm):
    """A GroupNorm in one group that remembers how many channels it had."""

    def __init__(self, channels: int, eps: float, width: int) -> None:
        super().__init__(1, channels, eps=eps)
        self.width = width

    def forward(self, x: Tensor) -> Tensor:
        return group_norm(x, self.weight, self.bias, self.eps, self.width)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, width={self.width}"


class Attention(nn.Module):
    """Scaled dot-product attention that drops weights in training.

    The module it was recorded in does so; a function recorded in eval mode does not.
    """

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
