"""How quickly does the preview of dependency groups follow a slider?

A new ratio's groups, weights and MACs after one analysis; and the masks of every tensor beside
Torch-Pruning, which copies the model, builds its graph and steps. `python3 run.py bench preview`
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch_pruning
import torchvision
from torch import nn

from pruning.allocation.ranked import RankedUnits, rank
from pruning.recipe import Recipe
from pruning.types import Workpiece

FILE = Path(__file__).parent / "results" / "preview.md"
# Name -> whether Torch-Pruning can prune it without being given its heads.
MODELS = {"resnet50": True, "vit_b_16": False, "densenet121": True}

HEAD = f"""# Previews

Milliseconds, median (quartiles) over ratios from 0.1 to 0.9; one thread; torch
{torch.__version__}; times were taken beside other work. Preview: groups, weights and MACs kept,
under the scope global, from the index. Masks: the same and the masks of every tensor.
Torch-Pruning: copy, build and step for the same change of ratio.

| model | analysis and scores, once, s | preview | masks | Torch-Pruning | ratio |
|---|---|---|---|---|---|
"""


def quartiles(work: Callable[[float], object], shares: list[float]) -> tuple[float, float, float]:
    """(low, median, high) milliseconds over the shares, after one to warm up."""
    times = []
    work(0.5)
    for share in shares:
        began = time.perf_counter()
        work(share)
        times.append((time.perf_counter() - began) * 1000)
    low, median, high = statistics.quantiles(times, n=4)
    return low, median, high


def theirs(model: nn.Module, x: torch.Tensor, share: float) -> None:
    """What a new ratio takes there: a fresh copy, the graph, one step."""
    copied = copy.deepcopy(model)
    output = [module for module in copied.modules() if isinstance(module, nn.Linear)][-1]
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    options = {"pruning_ratio": share, "ignored_layers": [output]}
    torch_pruning.pruner.BasePruner(copied, x, importance, **options).step()


def previewed(units: RankedUnits, recipe: Recipe, share: float) -> None:
    """What the dial asks for when it is turned."""
    units.ranking.preview(replace(recipe, sparsity=share))


def ours(units: RankedUnits, recipe: Recipe, model: nn.Module, share: float) -> None:
    """The same here: the units pruned, and the masks of every tensor."""
    units.masks(units.ranking.drops(replace(recipe, sparsity=share)), model)


def main() -> None:
    lines = []
    for name, peer in MODELS.items():
        x = torch.randn(1, 3, 224, 224)
        model = torchvision.models.get_model(name, weights=None).eval()
        recipe = Recipe(granularity="channel")
        work = Workpiece(name, model, example=x)
        began = time.perf_counter()
        units = rank(recipe, work)
        once = time.perf_counter() - began
        many = list(np.linspace(0.1, 0.9, 41))
        few = list(np.linspace(0.1, 0.9, 9))
        preview = quartiles(partial(previewed, units, recipe), many)
        all_masks = quartiles(partial(ours, units, recipe, model), few)
        cells = [name, f"{once:.1f}"]
        cells += [f"{m:.2f} ({low:.2f}–{high:.2f})" for low, m, high in (preview, all_masks)]
        if peer:
            _, median, _ = quartiles(partial(theirs, model, x), [0.3, 0.5, 0.7])
            cells += [f"{median:.0f}", f"{median / all_masks[1]:.1f}×"]
        else:
            cells += ["fails without given heads", ""]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text(HEAD + "\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
