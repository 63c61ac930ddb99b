"""The scope by_sensitivity against per_layer and global, at equal sparsity, before fine-tuning.

Five trainings of each small sample model, each from its own seed: neither magnitude nor the scopes
are random, so that what varies is the model. Ratios are chosen on validation images, accuracy is of
the test images. Writes tests/bench/results/by_sensitivity.md model by model.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from bench._table import conditions

import pruning
import sample_models
from pruning.measurement import evaluate
from pruning.recipe import Recipe
from pruning.types import Workpiece
from sample_models.catalogue import sample
from sample_models.training import train

MODELS = (
    "digits-cnn",
    "digits-resnet",
    "mnist1d-cnn",
    "digits-depthwise",
    "digits-mlp",
    "mnist1d-mlp",
    "digits-vit",
)
SCOPES = ("per_layer", "global", "by_sensitivity")
SPARSITIES = (0.8, 0.9)
SEEDS = range(5)
RESULT = Path(__file__).parent / "results" / "by_sensitivity.md"

Rows = dict[float, dict[str, list[float]]]


def trained(name: str, seed: int) -> Workpiece:
    """The sample model, trained anew from this seed as the shipped one was."""
    work = sample_models.load(name)
    model = sample_models.build(name, seed)
    data = work.need("train", "Training")
    validation = work.need("validation", "Training")
    recipe = sample(name).training
    return replace(work, model=train(model, data, validation, recipe, seed, lambda line: None))


def accuracies(work: Workpiece) -> Rows:
    """Sparsity -> scope -> accuracy on test data, %, right after pruning."""
    rows: Rows = {}
    for sparsity in SPARSITIES:
        for scope in SCOPES:
            model = copy.deepcopy(work.model)
            pruning.apply(pruning.choose(Recipe(scope=scope, sparsity=sparsity), work), model)
            accuracy, *_ = evaluate(model, work.need("test", "The comparison"), work.loss)
            rows.setdefault(sparsity, {}).setdefault(scope, []).append(100 * accuracy.value)
    return rows


def over(row: dict[str, list[float]], other: str) -> str:
    """How far by_sensitivity is above another scope: the mean, and in how many trainings."""
    gains = [a - b for a, b in zip(row["by_sensitivity"], row[other], strict=True)]
    wins = sum(gain > 0 for gain in gains)
    return f"{statistics.mean(gains):+.1f} ({wins} of {len(gains)})"


def line(name: str, sparsity: float, row: dict[str, list[float]]) -> str:
    means = {scope: statistics.mean(values) for scope, values in row.items()}
    mean = means["by_sensitivity"]
    if mean > max(means["per_layer"], means["global"]):
        beats = "both"
    else:
        beats = "per_layer" if mean > means["per_layer"] else "neither"
    cells = [name, f"{sparsity:.0%}"]
    for scope in SCOPES:
        cells.append(f"{means[scope]:.1f} ({min(row[scope]):.1f} to {max(row[scope]):.1f})")
    cells += [over(row, "per_layer"), over(row, "global"), beats]
    return f"| {' | '.join(cells)} |"


def write(lines: list[str], wins: list[str], started: str) -> None:
    text = [
        "# by_sensitivity at equal sparsity, before fine-tuning",
        "",
        "`python3 run.py bench by_sensitivity`: magnitude, single weights, one shot; mean of "
        f"{len(SEEDS)} trainings (lowest to highest), test accuracy in %. Ratios chosen on at most "
        f"256 validation images. *Wins*: trainings in which it is ahead. One thread; {started}",
        "",
        "| model | pruned | per_layer | global | by_sensitivity | over per_layer (wins) "
        "| over global (wins) | ahead of, by the mean |",
        "|---|---|---|---|---|---|---|---|",
        *lines,
        "",
        f"Better than both at 80 % and at 90 %, by the mean: {', '.join(wins) or 'none'}.",
    ]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(text) + "\n", encoding="utf-8")


def main() -> int:
    torch.set_num_threads(1)
    started = conditions()
    lines: list[str] = []
    wins: list[str] = []
    for name in MODELS:
        began = time.perf_counter()
        rows: Rows = {}
        for seed in SEEDS:
            for sparsity, by_scope in accuracies(trained(name, seed)).items():
                for scope, values in by_scope.items():
                    rows.setdefault(sparsity, {}).setdefault(scope, []).extend(values)
        new = [line(name, sparsity, row) for sparsity, row in rows.items()]
        lines += new
        if all(text.endswith("| both |") for text in new):
            wins.append(name)
        write(lines, wins, started)
        print("\n".join(new), f"  {time.perf_counter() - began:.0f} s", flush=True)
    return int(len(wins) < 3)


if __name__ == "__main__":
    sys.exit(main())
