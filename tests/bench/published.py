"""Three published findings, held against our own models: `python3 run.py bench published`.

One-shot against iterative pruning with the same number of epochs; L1, L2 and geometric median for
channels after fine-tuning; the shape of sensitivity curves on a residual network. Each beside the
controls that a sceptic would ask for: dense trained as long, and random at the same sparsity.

Writes tests/bench/results/published.md. About ten minutes on one core; the curves need
Fashion-MNIST (PRUNING_DATA) and are left out, and said to be, without it.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from bench._table import conditions

import pruning
import sample_models
from pruning.errors import DataError
from pruning.events import Finished, Point
from pruning.recipe import Recipe

RESULT = Path(__file__).parent / "results" / "published.md"
SEEDS = (0, 1, 2)
LEVELS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
FLAT = 1.0
"""Percentage points within which a layer counts as not yet hurt."""


def accuracy(recipe: Recipe, seed: int) -> tuple[float, float]:
    """(right after the last pruning step, at the end), test accuracy in %."""
    *_, end = pruning.run(replace(recipe, seed=seed), sample_models.load(recipe.model))
    assert isinstance(end, Finished) and end.final.accuracy
    after = end.pruned or end.final
    assert after.accuracy
    return 100 * after.accuracy.value, 100 * end.final.accuracy.value


def summary(values: list[float]) -> str:
    """Mean and range over the seeds."""
    return f"{statistics.fmean(values):.1f} ({min(values):.1f} to {max(values):.1f})"


def row(name: str, recipe: Recipe) -> str:
    runs = [accuracy(recipe, seed) for seed in SEEDS]
    after, end = ([run[i] for run in runs] for i in (0, 1))
    print(f"{recipe.model}, {name}: {summary(end)}", flush=True)
    return f"| {recipe.model} | {name} | {summary(after)} | {summary(end)} |"


HEAD = "| model | recipe | after the last pruning step | after fine-tuning |\n|---|---|---|---|"


def one_shot_and_iterative() -> Iterator[str]:
    """Han et al., 2015: pruning and training in turns keeps what one shot loses."""
    yield "## One-shot against iterative, with fine-tuning"
    yield ""
    yield "Magnitude, global, 98 % of the weights, 10 epochs of fine-tuning in all."
    yield ""
    yield HEAD
    for model in ("digits-mlp", "digits-cnn"):
        one_shot = Recipe(model=model, sparsity=0.98, epochs=10)
        iterative = replace(one_shot, schedule="cubic", steps=5, epochs=2)
        yield row("one shot, then 10 epochs", one_shot)
        yield row("5 steps (cubic), 2 epochs after each", iterative)
        yield row("random weights, 5 steps", replace(iterative, criterion="random"))
        yield row("dense, trained as long", replace(one_shot, sparsity=0.0))


def norms_and_geometric_median() -> Iterator[str]:
    """L1, L2 and FPGM differ little once fine-tuned: NNI's comparison, Li et al., 2017; He et al.,
    2019.
    """
    yield "## L1, L2 and geometric median for channels"
    yield ""
    yield "Half of the channels of each dependency group, then 10 epochs."
    yield ""
    yield HEAD
    for model in ("digits-cnn", "digits-resnet"):
        common = {"granularity": "channel", "scope": "per_layer", "sparsity": 0.5, "epochs": 10}
        l1 = Recipe(model=model, **common)  # type: ignore[arg-type]
        yield row("L1 norm", l1)
        yield row("L2 norm", replace(l1, options={"norm": "l2"}))
        yield row("geometric median (FPGM)", replace(l1, criterion="geometric_median"))
        yield row("random channels", replace(l1, criterion="random"))
        yield row("dense, trained as long", replace(l1, sparsity=0.0))


def sensitivity_curves() -> Iterator[str]:
    """Distiller's finding: most layers are flat to 70 %, a few are cliffs."""
    yield "## Sensitivity curves of a ResNet-20"
    yield ""
    try:
        work = sample_models.load("fashion-resnet20")
    except DataError as missing:
        yield f"Not measured: {missing}"
        return
    rows: dict[str, list[Point]] = {}
    for point in pruning.sensitivity(work, levels=LEVELS, examples=1000):
        rows.setdefault(point.layer, []).append(point)
    yield "Single weights by magnitude, each layer alone, 1,000 validation images."
    yield ""
    yield f"| layer | pruned while within {FLAT:g} point | change at 70 % | change at 95 % |"
    yield "|---|---|---|---|"
    flat = 0
    for layer, points in rows.items():
        changes = {point.level: 100 * (point.change or 0.0) for point in points}
        within = 0.0
        for level in sorted(changes):
            if changes[level] < -FLAT:
                break
            within = level
        flat += within >= 0.7
        yield f"| {layer} | {within:.0%} | {changes[0.7]:+.1f} | {changes[0.95]:+.1f} |"
    yield ""
    yield f"Flat to 70 %: {flat} of {len(rows)} layers."


def main() -> int:
    torch.set_num_threads(1)
    lines = [
        "# Three published findings on our own models",
        "",
        "Made by `python3 run.py bench published`. Test accuracy in %, mean over 3 seeds (lowest "
        f"to highest). One thread; {conditions()}",
        "",
    ]
    for part in (one_shot_and_iterative, norms_and_geometric_median, sensitivity_curves):
        lines += [*part(), ""]
        RESULT.write_text("\n".join(lines), encoding="utf-8")  # what is there survives a stop
    return 0


if __name__ == "__main__":
    sys.exit(main())
