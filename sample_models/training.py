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
    recipe: Training,
    seed: int,
    say: Callable[[str], None],
) -> nn.Module:
    """Train in place and leave the model in eval mode; `say` gets one line an epoch.

    Same seed and thread count: same bits.
    """
    generator = torch.Generator().manual_seed(seed)
    torch.manual_seed(seed)
    model.to(memory_format=torch.channels_last)  # convolutions are faster so on a CPU
    optimizer = _optimizer(model, recipe)
    steps = recipe.epochs * math.ceil(len(data.x) / recipe.batch)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: pace((step + 1) / steps))
    for epoch in range(1, recipe.epochs + 1):
        start = time.perf_counter()
        total = 0.0
        model.train()
        for x, y in data.shuffled(generator, recipe.batch):
            assert isinstance(x, Tensor)  # samples have one input
            x = augment(x, generator, recipe=recipe)
            with torch.autocast("cpu", torch.bfloat16, enabled=recipe.bfloat16):
                loss = F.cross_entropy(model(x), y, label_smoothing=recipe.smoothing)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
            total += float(loss.detach()) * len(y)
        right = correct(model, validation)
        seconds = time.perf_counter() - start
        loss_text = f"loss {total / len(data.x):.4f}"
        accuracy = f"validation {right}/{len(validation.x)}"
        say(f"epoch {epoch}/{recipe.epochs}  {loss_text}  {accuracy}  {seconds:.1f} s")
    return model.eval().to(memory_format=torch.contiguous_format)


def pace(progress: float) -> float:
    """Share of the learning rate: linear up to 1 over the first tenth, then a cosine to 0."""
    if progress < 0.1:
        return progress / 0.1
    return 0.5 * (1 + math.cos(math.pi * (progress - 0.1) / 0.9))


def correct(model: nn.Module, data: Batches) -> int:
    """Examples whose class is predicted, in eval mode."""
    model.eval()
    with torch.inference_mode():
        return sum(int((model(x).argmax(1) == y).sum()) for x, y in data)


def augment(x: Tensor, generator: torch.Generator, *, recipe: Training) -> Tensor:
    """(n, channels, height, width) pictures, each moved and mirrored at random."""
    if recipe.shift:
        x = shifted(x, recipe.shift, generator)
    if recipe.flip:
        mirror = torch.rand(len(x), generator=generator) < 0.5
        x = torch.where(mirror[:, None, None, None], x.flip(-1), x)
    return x


def shifted(x: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Each picture moved by up to `most` pixels down and across; the background fills in.

    x: (n, channels, height, width)
    """
    n, _, height, width = x.shape
    wide = F.pad(x, (most,) * 4, value=float(x.min()))
    down, across = torch.randint(0, 2 * most + 1, (2, n), generator=generator)
    rows = (down[:, None] + torch.arange(height))[:, :, None]
    columns = (across[:, None] + torch.arange(width))[:, None, :]
    # Advanced indices around a slice put the sliced dimension last: (n, height, width, channels).
    return wide[torch.arange(n)[:, None, None], :, rows, columns].permute(0, 3, 1, 2)


def _optimizer(model: nn.Module, recipe: Training) -> torch.optim.Optimizer:
    parameters = model.parameters()
    decay = recipe.weight_decay
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(parameters, recipe.lr, weight_decay=decay, fused=True)
    return torch.optim.SGD(
        parameters, recipe.lr, recipe.momentum, weight_decay=decay, nesterov=True
    )
