"""One plain training loop: what the sample models were trained with."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pruning.types import Batches
from sample_models.catalogue import Training


def train(
    model: nn.Module,
    data: Batches,
    validation: Batches,
    how: Training,
    seed: int,
    say: Callable[[str], None],
) -> nn.Module:
    """Train in place and leave the model in eval mode; `say` gets one line an epoch. Same seed and thread count: same bits."""
    draw = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model.to(memory_format=torch.channels_last)
    optimizer = _optimizer(model, how)
    steps = how.epochs * math.ceil(len(data.x) / how.batch)
    plan = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: pace((step + 1) / steps))
    for epoch in range(1, how.epochs + 1):
        start, total = time.perf_counter(), 0.0
        model.train()
        for x, y in data.shuffled(draw, how.batch):
            x = augment(x, how, draw)
            with torch.autocast("cpu", torch.bfloat16, enabled=how.bfloat16):
                loss = F.cross_entropy(model(x), y, label_smoothing=how.smoothing)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            plan.step()
            total += float(loss.detach()) * len(y)
        right = correct(model, validation)
        spent = time.perf_counter() - start
        say(
            f"epoch {epoch}/{how.epochs}  loss {total / len(data.x):.4f}  validation {right}/{len(validation.x)}  {spent:.1f} s"
        )
    return model.eval().to(memory_format=torch.contiguous_format)


def pace(progress: float) -> float:
    """Share of the learning rate: linear up to 1 over the first tenth, then a cosine to 0."""
    return (
        progress / 0.1 if progress < 0.1 else 0.5 * (1 + math.cos(math.pi * (progress - 0.1) / 0.9))
    )


def correct(model: nn.Module, data: Batches) -> int:
    """Right answers in eval mode."""
    model.eval()
    with torch.inference_mode():
        return sum(int((model(x).argmax(1) == y).sum()) for x, y in data)


def augment(x: Tensor, how: Training, draw: torch.Generator) -> Tensor:
    """(n, channels, height, width) pictures moved and mirrored, each by its own draw."""
    if how.shift:
        x = shifted(x, how.shift, draw)
    if how.flip:
        mirror = torch.rand(len(x), generator=draw) < 0.5
        x = torch.where(mirror[:, None, None, None], x.flip(-1), x)
    return x


def shifted(x: Tensor, most: int, draw: torch.Generator) -> Tensor:
    """Each picture moved by up to `most` pixels down and across; the background fills in."""
    n, _, height, width = x.shape
    wide = F.pad(x, (most,) * 4, value=float(x.min()))
    down, across = torch.randint(0, 2 * most + 1, (2, n), generator=draw)
    rows = (down[:, None] + torch.arange(height))[:, :, None]
    columns = (across[:, None] + torch.arange(width))[:, None, :]
    return wide[torch.arange(n)[:, None, None], :, rows, columns].permute(0, 3, 1, 2)


def _optimizer(model: nn.Module, how: Training) -> torch.optim.Optimizer:
    if how.optimizer == "adamw":
        return torch.optim.AdamW(
            model.parameters(), how.lr, weight_decay=how.weight_decay, fused=True
        )
    return torch.optim.SGD(
        model.parameters(), how.lr, how.momentum, weight_decay=how.weight_decay, nesterov=True
    )
