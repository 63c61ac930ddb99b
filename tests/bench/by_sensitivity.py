"""by_sensitivity against the same share from each layer and the lowest scores anywhere, at equal sparsity, before any healing.

Five trainings of each small sample model, each from its own seed: magnitude and the scopes draw nothing, so that what varies is the model.
Ratios are chosen on validation images, accuracy is of the test images. Writes tests/bench/results/by_sensitivity.md as it goes.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch

import pruning
import sample_models
from pruning.measurement import evaluate
from pruning.pipeline import machine
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
    data, validation = work.need("train", "Training"), work.need("validation", "Training")
    return replace(
        work, model=train(model, data, validation, sample(name).training, seed, lambda line: None)
    )


def accuracies(work: Workpiece) -> Rows:
    """Sparsity -> scope -> accuracy on test data, %, right after pruning."""
    rows: Rows = {}
    for sparsity in SPARSITIES:
        for scope in SCOPES:
            model = copy.deepcopy(work.model)
            pruning.apply(pruning.choose(Recipe(scope=scope, sparsity=sparsity), work), model)
            accuracy, _ = evaluate(model, work.need("test", "The comparison"), work.loss)
            rows.setdefault(sparsity, {}).setdefault(scope, []).append(100 * accuracy.value)
    return rows


def line(name: str, sparsity: float, row: dict[str, list[float]]) -> str:
    means = {scope: statistics.mean(values) for scope, values in row.items()}
    best = "both" if means["by_sensitivity"] > max(means["per_layer"], means["global"]) else ""
    best = best or ("per_layer" if means["by_sensitivity"] > means["per_layer"] else "neither")
    gain = [a - b for a, b in zip(row["by_sensitivity"], row["global"], strict=True)]
    told = " | ".join(
        f"{means[scope]:.1f} ({min(row[scope]):.1f} to {max(row[scope]):.1f})" for scope in SCOPES
    )
    return f"| {name} | {sparsity:.0%} | {told} | {statistics.mean(gain):+.1f} ({sum(g > 0 for g in gain)} of {len(gain)}) | {best} |"


def write(lines: list[str], wins: list[str]) -> None:
    text = [
        "# by_sensitivity at equal sparsity, before healing",
        "",
        f"`python3 run.py bench by_sensitivity`: magnitude, single weights, one shot; mean of {len(SEEDS)} trainings (lowest to highest), "
        f"test accuracy in %. Ratios chosen on at most 256 validation images. torch {machine()['torch'].split('+')[0]}, one thread.",
        "",
        "| model | removed | per_layer | global | by_sensitivity | over global (wins) | beats |",
        "|---|---|---|---|---|---|---|",
        *lines,
        "",
        f"Better than both at 80 % and at 90 %, by the mean: {', '.join(wins) or 'none'}.",
    ]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(text) + "\n", encoding="utf-8")


def main() -> int:
    torch.set_num_threads(1)
    lines: list[str] = []
    wins: list[str] = []
    for name in MODELS:
        began, rows = time.perf_counter(), dict[float, dict[str, list[float]]]()
        for seed in SEEDS:
            for sparsity, found in accuracies(trained(name, seed)).items():
                for scope, values in found.items():
                    rows.setdefault(sparsity, {}).setdefault(scope, []).extend(values)
        lines += [line(name, sparsity, row) for sparsity, row in rows.items()]
        if all(text.endswith("| both |") for text in lines[-len(SPARSITIES) :]):
            wins.append(name)
        write(lines, wins)
        print(
            "\n".join(lines[-len(SPARSITIES) :]),
            f"  {time.perf_counter() - began:.0f} s",
            flush=True,
        )
    return int(len(wins) < 3)


if __name__ == "__main__":
    sys.exit(main())
