"""Automatic mixed precision: products in half precision where that is safe, weights in float32.

Of training alone: scores, masks and what is measured stay in float32. float16 loses small
gradients, so that the loss is scaled up before they are taken and they are scaled down after,
Micikevicius et al., 2018, https://arxiv.org/abs/1710.03740; bfloat16 has float32's range.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

KINDS = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Precision of a recipe -> what products are computed in."""


class MixedPrecision:
    """One training in a precision, on a device. A class because float16's scale is found on the
    way: it falls where gradients overflow, and that step is left out.
    """

    def __init__(self, precision: str, device: torch.device) -> None:
        self.kind = KINDS[precision]
        self.device = device.type
        halved = self.kind is torch.float16
        self.scaler = torch.amp.GradScaler(device.type) if halved else None

    def forward(self) -> AbstractContextManager[object]:
        """In which the model runs; losses are taken outside of it."""
        mixed = self.kind is not torch.float32
        # Off, it is not entered at all: not every device has it.
        return torch.autocast(self.device, self.kind) if mixed else nullcontext()

    def backward(self, objective: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Gradients of the objective, at their own scale."""
        if self.scaler is None:
            objective.backward()  # type: ignore[no-untyped-call]
            return
        self.scaler.scale(objective).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(optimizer)

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """An optimizer step, where no gradient has overflowed."""
        if self.scaler is None:
            optimizer.step()
            return
        self.scaler.step(optimizer)
        self.scaler.update()

    def state(self) -> dict[str, Any]:
        """What it has found on the way, as plain numbers."""
        return {} if self.scaler is None else self.scaler.state_dict()

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on with what `state` gave."""
        if self.scaler is not None and state:
            self.scaler.load_state_dict(state)
