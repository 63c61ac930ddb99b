"""Small classes that a written-out network may need beside torch's own. Copied into its file."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """Layers, parameters and buffers by name."""

    def __init__(self, /, **parts: nn.Module | Tensor) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, nn.Module | nn.Parameter):
                setattr(self, name, part)
            else:
                self.register_buffer(name, part)


class DropPath(nn.Module):
    """Stochastic depth: in training, leaves whole examples (or the batch) out at random."""

    def __init__(self, p: float, mode: str = "row") -> None:
        super().__init__()
        self.p = p
        self.mode = mode

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        examples = len(x) if self.mode == "row" else 1
        keep = torch.rand(examples, *[1] * (x.dim() - 1), device=x.device) >= self.p
        return x * keep / (1 - self.p) if self.p < 1 else x * keep
