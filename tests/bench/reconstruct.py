"""Reconstruction beside what else repairs a network that lost channels, without and with training.

Three seeds, at 30, 50 and 70 % of the channels, by magnitude in each layer and by the criterion
reconstruction anywhere. Writes tests/bench/results/reconstruct.md model by model. About an hour on
one core with fashion-resnet20, which needs PRUNING_DATA; name models to make their rows alone.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from bench._table import conditions
from torch import Tensor, nn

import pruning
import sample_models
from pruning.errors import DataError
from pruning.masks import apply
from pruning.recipe import Recipe
from pruning.training import reconstruct as module
from pruning.training.least_squares import Solved
from pruning.training.recalibrate import norms, recalibrate
from pruning.types import Batches, Masks, Workpiece

OUT = Path(__file__).parent / "results" / "reconstruct.md"
MODELS = ("digits-resnet", "digits-cnn", "digits-depthwise", "digits-vit", "fashion-resnet20")
SHARES = (0.3, 0.5, 0.7)
SEEDS = (0, 1, 2)
CHOICES = {
    "magnitude, each layer": {"criterion": "magnitude", "scope": "per_layer"},
    "reconstruction, anywhere": {"criterion": "reconstruction", "scope": "global"},
}
WANTED = {"digits-resnet": 97.5, "fashion-resnet20": 87.0}
"""Test accuracy at 50 % of the channels, reconstructed, at least; by either choice."""
TEST = 2000
"""Test examples, at most: fashion-resnet20 takes a minute for all 10,000."""
LR, BATCH = 0.02, 64

COLUMNS = (
    "model (dense)",
    "channels pruned",
    "criterion, scope",
    "weights pruned",
    "pruned",
    "recalibrated",
    "rescaled",
    "merged",
    "reconstructed",
    "seconds",
    "SGD, same time",
    "SGD, 8 ×",
)

HEAD = f"""# Reconstruction beside other repairs

Made by `python3 run.py bench reconstruct`. Channels pruned from the models as shipped; test
accuracy in %, mean of {len(SEEDS)} seeds (lowest to highest) where it differs between them; at most
{TEST:,} test examples. Nothing but the last two columns looks at labels, or trains.

*pruned*: as it is then. *recalibrated*: BatchNorm's statistics anew. *rescaled*: each output of
each layer gets the scale and the shift that bring it closest to the dense network's, layer by
layer, on the same examples. *merged*: each pruned channel is added to the kept one that it is most
correlated with, times the factor that fits best; then BatchNorm is recalibrated where that is
better. *reconstructed*: 512 training examples without labels, and its seconds of processor time on
one thread. *SGD*: with labels, masked, learning rate {LR}, batches of {BATCH}, for the same and for
eight times the processor time, and a recalibration at the end, whose time is not counted.

{{conditions}}

| {" | ".join(COLUMNS)} |
|{"---|" * len(COLUMNS)}
"""


# ---------------------------------------------------------------- other repairs


def recalibrated(work: Workpiece, model: nn.Module, seed: int) -> nn.Module:
    """A copy with BatchNorm's statistics anew."""
    other = copy.deepcopy(model)
    if norms(other):
        assert work.train
        recalibrate(other, work.train.sample(2048, seed), batch=128, seed=seed)
    return other


def rescaled(work: Workpiece, model: nn.Module, masks: Masks, seed: int) -> nn.Module:
    """Each layer's outputs scaled and shifted, unit by unit: reconstruction with less to solve."""
    other = copy.deepcopy(model)
    solve = module.solve
    module.solve = _scale_and_shift  # type: ignore[assignment]
    try:
        assert work.train
        module.reconstruct(other, work.model, masks, work.train, work.example, seed=seed)
    finally:
        module.solve = solve
    return other


def _scale_and_shift(
    weight: Tensor,
    bias: Tensor,
    keep: Tensor,
    inputs: Tensor,
    targets: Tensor,
    *,
    ridge: float,
    intercept: bool,
) -> Solved:
    """Least squares with one factor and one shift for each row."""
    weight = weight * keep
    outputs = (inputs @ weight.mT).double() + (0 if intercept else bias.unsqueeze(1))
    targets = targets.double()
    mean, wanted = outputs.mean(1, keepdim=True), targets.mean(1, keepdim=True)
    if not intercept:
        mean, wanted = torch.zeros_like(mean), torch.zeros_like(wanted)
    variance = (outputs - mean).square().sum(1)
    together = ((outputs - mean) * (targets - wanted)).sum(1)
    factor = torch.where(variance > 0, together / variance.clamp_min(1e-30), 1.0)
    shift = (wanted - factor.unsqueeze(1) * mean).squeeze(1)
    kept = keep.any(2)
    new_bias = torch.where(kept & torch.tensor(intercept), shift, bias.double())
    return Solved(weight * torch.where(kept, factor, 1).unsqueeze(2), new_bias, 0.0, 0.0)


@torch.no_grad()
def merged(work: Workpiece, masks: Masks, seed: int) -> nn.Module:
    """Each pruned input channel of each layer folded into the kept one that predicts it best."""
    model = copy.deepcopy(work.model)
    assert work.train
    x = work.train.sample(256, seed).x
    seen: dict[str, Tensor] = {}
    layers = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and getattr(layer, "groups", 1) == 1
    }

    def watch(name: str) -> Callable[..., None]:
        def record(layer: nn.Module, args: tuple[Tensor, ...]) -> None:
            inputs = args[0].movedim(1, -1) if isinstance(layer, nn.Conv2d) else args[0]
            seen[name] = inputs.reshape(-1, inputs.shape[-1])  # (places, channels)

        return record

    hooks = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    model.eval()(x)
    for hook in hooks:
        hook.remove()
    for name, layer in layers.items():
        keep = masks.get(f"{name}.weight")
        if keep is None:
            continue
        kept = keep.transpose(0, 1).flatten(1).any(1)
        if bool(kept.all()) or not bool(kept.any()):
            continue
        gram = seen[name].T @ seen[name]
        sizes = gram.diagonal().clamp_min(1e-12)
        likeness = gram / (sizes[:, None] * sizes).sqrt()
        likeness[:, ~kept] = -torch.inf
        for channel in (~kept).nonzero().flatten().tolist():
            partner = int(likeness[channel].argmax())
            factor = gram[channel, partner] / sizes[partner]
            layer.weight[:, partner] += factor * layer.weight[:, channel]
    apply(masks, model)
    return model


def trained(
    work: Workpiece, model: nn.Module, masks: Masks, seconds: float, seed: int
) -> nn.Module:
    """A copy after SGD with labels for so many seconds of processor time, then recalibrated."""
    other = copy.deepcopy(model).train()
    optimizer = torch.optim.SGD(other.parameters(), lr=LR, momentum=0.9)
    generator = torch.Generator().manual_seed(seed)
    assert work.train
    start = time.process_time()
    while time.process_time() - start < seconds:
        for x, y in work.train.shuffled(generator, BATCH):
            optimizer.zero_grad()
            work.loss(other(x), y).backward()
            optimizer.step()
            apply(masks, other)
            if time.process_time() - start >= seconds:
                break
    return recalibrated(work, other.eval(), seed)


# ---------------------------------------------------------------- rows


@torch.inference_mode()
def accuracy(model: nn.Module, data: Batches) -> float:
    right = sum(int((model.eval()(x).argmax(1) == y).sum()) for x, y in data)
    return 100 * right / len(data.x)


def row(work: Workpiece, choice: str, share: float) -> dict[str, Any]:
    """Column -> accuracies by seed, and what else is shown."""
    assert work.test and work.train
    test = work.test.sample(TEST)
    columns: dict[str, list[float]] = {}
    seconds: list[float] = []
    lost: list[float] = []
    for seed in SEEDS:
        recipe = Recipe(granularity="channel", sparsity=share, seed=seed, **CHOICES[choice])
        masks = pruning.choose(recipe, work)
        model = copy.deepcopy(work.model).eval()
        apply(masks, model)
        solved = copy.deepcopy(model)
        start = time.process_time()
        module.reconstruct(solved, work.model, masks, work.train, work.example, seed=seed)
        seconds.append(time.process_time() - start)
        joined = merged(work, masks, seed)
        candidates = (joined, recalibrated(work, joined, seed))
        repaired = {
            "pruned": accuracy(model, test),
            "recalibrated": accuracy(recalibrated(work, model, seed), test),
            "rescaled": accuracy(rescaled(work, model, masks, seed), test),
            "merged": max(accuracy(candidate, test) for candidate in candidates),
            "reconstructed": accuracy(solved, test),
            "SGD": accuracy(trained(work, model, masks, seconds[-1], seed), test),
            "SGD 8": accuracy(trained(work, model, masks, 8 * seconds[-1], seed), test),
        }
        for name, value in repaired.items():
            columns.setdefault(name, []).append(value)
        weights = {n: m for n, m in masks.items() if m.dim() > 1}
        kept = sum(int(mask.sum()) for mask in weights.values())
        lost.append(1 - kept / sum(mask.numel() for mask in weights.values()))
    return {"columns": columns, "seconds": statistics.median(seconds), "lost": lost[0]}


def spread(values: list[float]) -> str:
    """`98.4 (98.1 to 98.9)`, or one number where all are the same."""
    if max(values) - min(values) < 0.05:
        return f"{values[0]:.1f}"
    return f"{statistics.mean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def rows(name: str, best: dict[str, float]) -> Iterator[str]:
    try:
        work = sample_models.load(name)
    except DataError as error:
        print(f"{name} is left out: {error}")
        return
    assert work.test
    dense = accuracy(work.model, work.test.sample(TEST))
    for choice in CHOICES:
        for share in SHARES:
            result = row(work, choice, share)
            columns = result["columns"]
            if share == 0.5:
                value = statistics.mean(columns["reconstructed"])
                best[name] = max(best.get(name, 0.0), value)
            cells = [
                f"{name} ({dense:.1f})",
                f"{share:.0%}",
                choice,
                f"{result['lost']:.1%}",
                *(spread(columns[c]) for c in ("pruned", "recalibrated", "rescaled", "merged")),
                f"**{spread(columns['reconstructed'])}**",
                f"{result['seconds']:.1f}",
                spread(columns["SGD"]),
                spread(columns["SGD 8"]),
            ]
            yield f"| {' | '.join(cells)} |"


def main() -> int:
    torch.set_num_threads(1)
    text = HEAD.format(conditions=conditions())
    best: dict[str, float] = {}
    for name in sys.argv[1:] or MODELS:
        for line in rows(name, best):
            print(line, flush=True)
            text += line + "\n"
            OUT.write_text(text, encoding="utf-8")
    text += "\n"
    for name, wanted in WANTED.items():
        if name in best:
            met = "met" if best[name] >= wanted else "MISSED"
            text += f"- at 50 %, {name} at least {wanted}: {best[name]:.1f}, {met}\n"
    OUT.write_text(text, encoding="utf-8")
    return int(any(best.get(name, wanted) < wanted for name, wanted in WANTED.items()))


if __name__ == "__main__":
    sys.exit(main())
