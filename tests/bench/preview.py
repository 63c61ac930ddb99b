"""How quickly do groups answer a slider? A new ratio's groups, weights and MACs after one analysis; and a re-slide to actual masks beside
Torch-Pruning, which copies the model, builds its graph and steps. `python3 run.py bench preview`
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch_pruning
import torchvision
from torch import nn

from pruning import masks
from pruning.recipe import Recipe
from pruning.types import Workpiece

FILE = Path(__file__).parent / "results" / "preview.md"
MODELS = {"resnet50": True, "vit_b_16": False, "densenet121": True}
"""Name -> whether Torch-Pruning can prune it without hand-given heads."""


def quartiles(work: Callable[[float], object], shares: list[float]) -> tuple[float, float, float]:
    """(low, median, high) milliseconds over the shares, after one to warm up."""
    taken = []
    work(0.5)
    for share in shares:
        began = time.perf_counter()
        work(share)
        taken.append((time.perf_counter() - began) * 1000)
    low, median, high = statistics.quantiles(taken, n=4)
    return low, median, high


def theirs(model: nn.Module, x: torch.Tensor, share: float) -> None:
    """What a new ratio takes there: a fresh copy, the graph, one step."""
    copied = copy.deepcopy(model)
    output = [module for module in copied.modules() if isinstance(module, nn.Linear)][-1]
    importance = torch_pruning.importance.GroupMagnitudeImportance(p=2)
    torch_pruning.pruner.BasePruner(
        copied, x, importance, pruning_ratio=share, ignored_layers=[output]
    ).step()


def ours(units: masks.Units, recipe: Recipe, model: nn.Module, share: float) -> None:
    """The same here: the units that go, and the masks of every tensor."""
    masks.verdict(units, units.ranking.drops(recipe, share), model)


def main() -> None:
    lines = [
        "# Previews",
        "",
        f"Milliseconds, median (quartiles) over ratios from 0.1 to 0.9; one thread; torch {torch.__version__}; times were taken beside "
        "other work. Preview: groups, weights and MACs left, under the scope global, from the index. Re-slide: the same and the masks "
        "of every tensor. Torch-Pruning: copy, build and step for the same change of ratio.",
        "",
        "| model | analysis and scores, once, s | preview | re-slide to masks | Torch-Pruning | ratio |",
        "|---|---|---|---|---|---|",
    ]
    for name, peer in MODELS.items():
        x = torch.randn(1, 3, 224, 224)
        model = torchvision.models.get_model(name, weights=None).eval()
        recipe, work, began = (
            Recipe(granularity="channel"),
            Workpiece(name, model, example=x),
            time.perf_counter(),
        )
        units = masks.rank(recipe, work)
        once = time.perf_counter() - began
        ranking = units.ranking
        preview = quartiles(partial(ranking.left, recipe), list(np.linspace(0.1, 0.9, 41)))
        slide = quartiles(partial(ours, units, recipe, model), list(np.linspace(0.1, 0.9, 9)))
        other = quartiles(partial(theirs, model, x), [0.3, 0.5, 0.7]) if peer else None
        ratio = f"{other[1] / slide[1]:.1f}×" if other else ""
        shown = [f"{m:.2f} ({a:.2f}–{b:.2f})" for a, m, b in (preview, slide)]
        shown.append(f"{other[1]:.0f}" if other else "fails without given heads")
        lines.append(f"| {name} | {once:.1f} | {' | '.join(shown)} | {ratio} |")
        print(lines[-1], flush=True)
    FILE.parent.mkdir(exist_ok=True)
    FILE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
