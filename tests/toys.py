"""Small models that the laws are tried on: each has something that has broken a pruner before.

And what tests compare models by: `snapshot`, `same`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from pruning.types import Batches, Workpiece
from sample_models.vit import Attention


class Residual(nn.Module):
    """Two convolutions with BatchNorm, the second added to the first; then a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(self.first(x)).relu()
        x = (x + self.norm2(self.second(x))).relu()
        out: Tensor = self.head(x.mean((2, 3)))
        return out


class Tied(nn.Module):
    """One weight used twice, and dropout between: training draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(5, 5)
        self.b = nn.Linear(5, 5)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(5, 3)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.drop(self.b(self.a(x).relu()).relu()))
        return out


class Attending(nn.Module):
    """Two attention blocks of two heads: queries, keys and values apart, then packed in one."""

    def __init__(self) -> None:
        super().__init__()
        self.apart = Attention(8, 2)
        self.packed = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.apart(x)
        x = x + self.packed(x, x, x, need_weights=False)[0]
        out: Tensor = self.head(x.mean(1))
        return out


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 3))


def one_unit() -> nn.Module:
    """A layer of a single unit, which nothing may empty."""
    return nn.Sequential(nn.Linear(5, 1), nn.Tanh(), nn.Linear(1, 9), nn.ReLU(), nn.Linear(9, 3))


def ties() -> nn.Module:
    """Every weight is one of three magnitudes: thresholds overspend here, ranks do not."""
    model = mlp()
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_((weight.sign() * (weight.abs() * 7).round().clamp(1, 3)) / 3)
    return model


def depthwise() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 3),
    )


TOYS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "mlp": (mlp, (5,)),
    "one_unit": (one_unit, (5,)),
    "ties": (ties, (5,)),
    "tied": (Tied, (5,)),
    "residual": (Residual, (1, 6, 6)),
    "depthwise": (depthwise, (1, 6, 6)),
    "attention": (Attending, (3, 8)),
}


def toy(name: str, seed: int = 0) -> Workpiece:
    """A workpiece with 48 examples of 3 classes that a linear rule separates, nearly."""
    make, shape = TOYS[name]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make().eval()
        x = torch.randn(48, *shape)
        y = x.flatten(1)[:, :3].argmax(1)
    data = Batches(x, y, batch=20)
    return Workpiece(name, model, data, data, data, example=x[:1], classes=("a", "b", "c"))


def snapshot(model: nn.Module) -> dict[str, object]:
    """All that a careless technique could change."""
    modules = list(model.modules())
    parameters = list(model.parameters())
    hooks = [(m._forward_hooks, m._forward_pre_hooks, m._backward_hooks) for m in modules]
    return {
        "state": {name: value.clone() for name, value in model.state_dict().items()},
        "modes": [m.training for m in modules],
        "hooks": [sum(map(len, kinds)) for kinds in hooks],
        "gradients": [None if p.grad is None else p.grad.clone() for p in parameters],
        "requires_grad": [p.requires_grad for p in parameters],
    }


def same(a: object, b: object) -> bool:
    """Equal to the bit, through dicts and lists of tensors."""
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.equal(a, b)
    return a == b
