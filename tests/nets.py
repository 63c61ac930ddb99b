"""Small nets in which channels meet in every way that a graph allows.

Each has its dependency groups written beside it, to be checked in the head.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Net(nn.Module):
    """Layers by name, and a forward pass: the shortest way to write a net down."""

    def __init__(self, layers: dict[str, Callable[[], nn.Module]], run: Callable[..., Any]) -> None:
        super().__init__()
        for name, make in layers.items():
            self.add_module(name, make())
        self.run = run

    def forward(self, *x: Tensor) -> Any:
        return self.run(self, *x)


def conv(a: int, b: int, k: int = 1, **options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Conv2d(a, b, k, **options)


def linear(a: int, b: int, **options: Any) -> Callable[[], nn.Module]:
    return lambda: nn.Linear(a, b, **options)


def residual() -> nn.Module:
    layers = {
        "a": conv(1, 6, 3, padding=1),
        "n": lambda: nn.BatchNorm2d(6),
        "b": conv(6, 4),
        "c": conv(4, 6),
        "h": linear(6, 3),
    }

    def run(m: Any, x: Tensor) -> Tensor:
        x = m.n(m.a(x)).relu()
        out: Tensor = m.h((x + m.c(m.b(x).relu())).relu().mean((2, 3)))
        return out

    return Net(layers, run)


def concat() -> nn.Module:
    layers = {"a": conv(1, 4), "b": conv(1, 6), "c": conv(10, 8), "h": linear(8, 3)}
    return Net(
        layers, lambda m, x: m.h(m.c(torch.cat([m.a(x), m.b(x)], 1).relu()).relu().mean((2, 3)))
    )


def split() -> nn.Module:
    def run(m: Any, x: Tensor) -> Any:
        u, v = m.a(x).relu().chunk(2, 1)
        return m.h((m.b(u) * m.c(v)).mean((2, 3)))

    return Net({"a": conv(1, 8), "b": conv(4, 6), "c": conv(4, 6), "h": linear(6, 3)}, run)


def two_in_two_out() -> nn.Module:
    def run(m: Any, x: Tensor, y: Tensor) -> Any:
        z = (m.a(x) + m.b(y)).relu()
        return m.h(z), {"more": m.k(z)}

    return Net({"a": linear(5, 8), "b": linear(4, 8), "h": linear(8, 6), "k": linear(8, 2)}, run)


def shared() -> nn.Module:
    """One 6x6 weight used twice: its rows and its columns are the same neurons."""
    net = Net(
        {"i": linear(5, 6), "a": linear(6, 6), "b": linear(6, 6), "h": linear(6, 3)},
        lambda m, x: m.h(m.b(m.a(m.i(x)).relu()).relu()),
    )
    net.b.weight = net.a.weight  # type: ignore[union-attr]
    return net


def one_channel() -> nn.Module:
    return Net(
        {"a": conv(1, 1, 3), "b": conv(1, 6, 3), "c": conv(6, 1), "h": linear(16, 3)},
        lambda m, x: m.h(m.c(m.b(m.a(x).relu()).relu()).flatten(1)),
    )


def flatten() -> nn.Module:
    """4 channels of 3x3 become 36 inputs: a channel owns 9 columns."""
    return Net(
        {"a": conv(1, 4, 2), "b": linear(36, 5), "h": linear(5, 3)},
        lambda m, x: m.h(m.b(m.a(x).relu().flatten(1)).relu()),
    )


def grouped() -> nn.Module:
    """Depthwise (d, two outputs a channel), two wide groups (g), four narrow ones (w).

    Wide groups lose the same positions in each; narrow ones are removed whole.
    """
    layers = {
        "a": conv(1, 8),
        "d": conv(8, 16, 3, groups=8),
        "g": conv(16, 8, 1, groups=2),
        "w": conv(8, 8, 1, groups=4),
        "h": linear(8, 3),
    }
    return Net(layers, lambda m, x: m.h(m.w(m.g(m.d(m.a(x).relu()).relu()).relu()).mean((2, 3))))


def packed_attention() -> nn.Module:
    layers = {
        "i": linear(5, 12),
        "m": lambda: nn.MultiheadAttention(12, 3, batch_first=True),
        "n": lambda: nn.LayerNorm(12),
        "h": linear(12, 3),
    }

    def run(m: Any, x: Tensor) -> Any:
        x = m.i(x)
        return m.h(m.n(x + m.m(x, x, x)[0]).mean(1))

    return Net(layers, run)


def separate_attention() -> nn.Module:
    """Three heads: 4 numbers each in queries and keys, 6 in values."""
    layers = {
        "i": linear(5, 12),
        "q": linear(12, 12),
        "k": linear(12, 12),
        "v": linear(12, 18),
        "o": linear(18, 12),
        "h": linear(12, 3),
    }

    def run(m: Any, x: Tensor) -> Any:
        x = m.i(x)
        n, t, _ = x.shape
        q, k = (f(x).view(n, t, 3, 4).transpose(1, 2) for f in (m.q, m.k))
        v = m.v(x).view(n, t, 3, 6).transpose(1, 2)
        mixed = (q @ k.transpose(-1, -2) / 2).softmax(-1) @ v
        return m.h((x + m.o(mixed.transpose(1, 2).reshape(n, t, 18))).mean(1))

    return Net(layers, run)


def upward() -> nn.Module:
    layers = {
        "a": conv(1, 6),
        "u": lambda: nn.ConvTranspose2d(6, 8, 2, stride=2),
        "n": lambda: nn.BatchNorm2d(8),
        "d": lambda: nn.ConvTranspose2d(8, 8, 2, groups=8),
        "h": conv(8, 2),
    }
    return Net(layers, lambda m, x: m.h(m.d(m.n(m.u(m.a(x).relu())).relu())))


def looked_up() -> nn.Module:
    layers = {
        "e": lambda: nn.Embedding(7, 8),
        "l": linear(8, 10),
        "r": lambda: nn.RMSNorm(10),
        "h": linear(10, 3),
    }
    return Net(layers, lambda m, x: m.h(m.r(m.l(m.e(x)).relu()).mean(1)))


def recurrent() -> nn.Module:
    layers = {
        "e": lambda: nn.Embedding(7, 8),
        "l": lambda: nn.LSTM(8, 6, batch_first=True),
        "f": linear(6, 9),
        "h": linear(9, 3),
    }
    return Net(layers, lambda m, x: m.h(m.f(m.l(m.e(x))[0][:, -1]).relu()))


def repeated() -> nn.Module:
    layers = {"a": conv(1, 4), "b": conv(8, 4), "p": lambda: nn.PReLU(4), "h": linear(4, 3)}
    return Net(layers, lambda m, x: m.h(m.p(m.b(m.a(x).repeat(1, 2, 1, 1))).amax((2, 3))))


def shuffled() -> nn.Module:
    """A channel shuffle, GroupNorm in 4 groups of 2, and PixelShuffle, which makes 4 channels one.

    The last two tie channels.
    """
    layers = {
        "a": conv(1, 8),
        "s": lambda: nn.ChannelShuffle(2),
        "b": conv(8, 8),
        "g": lambda: nn.GroupNorm(4, 8),
        "p": lambda: nn.PixelShuffle(2),
        "h": conv(2, 3),
    }
    return Net(layers, lambda m, x: m.h(m.p(m.g(m.b(m.s(m.a(x).relu()))))))


def mixer() -> nn.Module:
    """A layer across tokens adds its bias to removed channels, and LayerNorm would count them.

    So nothing can be removed.
    """
    layers = {
        "i": linear(4, 8),
        "n": lambda: nn.LayerNorm(8),
        "t": linear(5, 5),
        "m": lambda: nn.LayerNorm(8),
        "h": linear(8, 3),
    }

    def run(m: Any, x: Tensor) -> Any:
        x = m.i(x)
        x = x + m.t(m.n(x).transpose(1, 2)).transpose(1, 2)
        return m.h(m.m(x).mean(1))

    return Net(layers, run)


def gated() -> nn.Module:
    """Squeeze and excitation: sigmoid(0) is a half, but it multiplies a removed zero."""
    layers = {"a": conv(1, 6), "f": conv(6, 4), "e": conv(4, 6), "h": linear(6, 3)}

    def run(m: Any, x: Tensor) -> Any:
        x = m.a(x).relu()
        gate = m.e(m.f(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
        return m.h((x * gate).mean((2, 3)))

    return Net(layers, run)


def padded() -> nn.Module:
    """A shortcut that pads channels with zeros, as the first ResNets for small pictures did."""
    layers = {"a": conv(1, 4), "b": conv(4, 8), "h": linear(8, 3)}

    def run(m: Any, x: Tensor) -> Any:
        x = m.a(x).relu()
        return m.h((F.pad(x, (0, 0, 0, 0, 2, 2)) + m.b(x)).relu().mean((2, 3)))

    return Net(layers, run)


def branching() -> nn.Module:
    def run(m: Any, x: Tensor) -> Any:
        x = m.a(x)
        if x.sum() > 0:
            return x
        return -x

    return Net({"a": linear(4, 4)}, run)


PICTURE, TOKENS, WORDS = torch.Size((1, 1, 4, 4)), torch.Size((1, 4, 5)), "words"

NETS: dict[str, tuple[Callable[[], nn.Module], Any, dict[str, tuple[str, int]]]] = {
    "residual": (residual, PICTURE, {"a.weight": ("channels", 6), "b.weight": ("channels", 4)}),
    "concat": (
        concat,
        PICTURE,
        {"a.weight": ("channels", 4), "b.weight": ("channels", 6), "c.weight": ("channels", 8)},
    ),
    "split": (
        split,
        PICTURE,
        {"a.weight": ("channels", 4), "a.weight (2)": ("channels", 4), "b.weight": ("channels", 6)},
    ),
    "two_in_two_out": (two_in_two_out, ((1, 5), (1, 4)), {"a.weight": ("neurons", 8)}),
    "shared": (shared, (1, 5), {"i.weight": ("neurons", 6)}),
    "one_channel": (one_channel, (1, 1, 8, 8), {"b.weight": ("channels", 6)}),
    "flatten": (flatten, PICTURE, {"a.weight": ("channels", 4), "b.weight": ("neurons", 5)}),
    "grouped": (grouped, (1, 1, 5, 5), {"a.weight": ("channels", 4), "g.weight": ("channels", 2)}),
    "packed_attention": (
        packed_attention,
        TOKENS,
        {"i.weight": ("neurons", 12), "m.in_proj_weight": ("heads", 3)},
    ),
    "separate_attention": (
        separate_attention,
        TOKENS,
        {"i.weight": ("neurons", 12), "q.weight": ("heads", 3)},
    ),
    "upward": (upward, PICTURE, {"a.weight": ("channels", 6), "d.weight": ("channels", 8)}),
    "looked_up": (looked_up, WORDS, {"e.weight": ("neurons", 8), "l.weight": ("neurons", 10)}),
    "recurrent": (recurrent, WORDS, {"f.weight": ("neurons", 9)}),
    "repeated": (repeated, PICTURE, {"a.weight": ("channels", 4), "b.weight": ("channels", 4)}),
    "shuffled": (shuffled, PICTURE, {"a.weight": ("channels", 8), "b.weight": ("channels", 2)}),
    "mixer": (mixer, (1, 5, 4), {}),
    "gated": (gated, PICTURE, {"a.weight": ("channels", 6), "f.weight": ("channels", 4)}),
    "padded": (padded, PICTURE, {"a.weight": ("channels", 4)}),
}
"""Name -> (make, the input's shape, groups: name -> (kind, units))."""


def net(name: str, seed: int = 0) -> tuple[nn.Module, Tensor | tuple[Tensor, ...]]:
    """A net in eval mode, BatchNorm statistics at random too, and an example: of the caller's own.

    A copy of one that is made once, which has the same function as its forward pass: to the
    dependency graph another function is another network, which it follows anew.
    """
    return copy.deepcopy(_made(name, seed))


@cache
def _made(name: str, seed: int) -> tuple[nn.Module, Tensor | tuple[Tensor, ...]]:
    make, shape, _ = NETS[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make().eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_()  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 2)  # type: ignore[union-attr]
                nn.init.normal_(module.bias)
        if shape == WORDS:
            return model, torch.randint(0, 7, (1, 6))
        if isinstance(shape[0], tuple):
            return model, tuple(torch.randn(s) for s in shape)
        return model, torch.randn(shape)
