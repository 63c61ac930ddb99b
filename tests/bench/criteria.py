"""Every criterion at four sparsities, before and after fine-tuning, on digits.

Single weights of five MLPs, and channels of one ResNet. Writes tests/bench/results/criteria.md. The
MLPs are trained here from five seeds, as the shipped one was; the ResNet is the shipped one,
fine-tuned from five seeds. Takes about ten minutes on one core.
"""

from __future__ import annotations

import copy
import statistics
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch
from bench._table import conditions

import sample_models
from pruning import masks, registry, selection
from pruning.allocation.ranked import rank
from pruning.measurement import evaluate
from pruning.recipe import Recipe
from pruning.training.finetune import finetune
from pruning.types import Workpiece
from sample_models.catalogue import sample
from sample_models.training import train

OUT = Path(__file__).parent / "results" / "criteria.md"
SPARSITIES = (0.5, 0.8, 0.9, 0.95)
SEEDS = range(5)
STEPS = 10  # of pruning without fine-tuning, each scored anew
OTHERS = (
    "digits-cnn",
    "digits-resnet",
    "digits-depthwise",
    "digits-vit",
    "mnist1d-mlp",
    "mnist1d-cnn",
)
COMPARED = ("random", "magnitude", "wanda", "taylor", "obd", "obs")
CONTROL = "dense, trained as long"
SLIMMING = "bn_scale, slimming"  # network slimming: trained with an L1 penalty on the scales
Accuracies = dict[str, list[float]]  # "criterion|column" -> accuracies, one a seed


HEAD = """# Every criterion, before and after fine-tuning

Made by `python3 run.py bench criteria`. Accuracy on the 360 test digits, in %, mean ± standard
deviation over 5 seeds; one image is 0.28 percentage points, and the 95 % interval of one network's
accuracy is about ± 1.5 points at 98 % and ± 4.5 at 75 %. Each criterion with its default options.
*{control}*: not pruned, fine-tuned with the same seeds; what pruning costs is the distance to it.
{conditions}

## Single weights, anywhere in the model

digits-mlp trained from 5 seeds, dense {single}. One step; after: 5 epochs at learning rate 0.02.
*steps*: 0.9 before fine-tuning when it is reached in {steps} rounds of one rate, each scored anew
and none fine-tuned. Sorted by *0.9 before*.

{weights}

## Single weights of other models, before fine-tuning

One step, anywhere in the model, as shipped, at 0.5 · 0.8 · 0.9. OBS also changes the weights that
are kept.

{others}

## Whole channels, the same share in each layer

digits-resnet as shipped, dense {whole}; the output layer is not pruned. One step; after: 2 epochs
at learning rate 0.02, from 5 seeds. Scored once, so before fine-tuning only *random* differs
between seeds. *{slimming}*: first 10 epochs with an L1 penalty of 0.03 on BatchNorm's scales
(learning rate 0.05). Sorted by *0.5 after*. *weights*: the share of all weights that goes with 0.5
and with 0.9 of the channels.

{channels}
"""


def accuracy(work: Workpiece) -> float:
    """On test data, in percent."""
    assert work.test
    return 100 * evaluate(work.model, work.test, work.loss)[0].value


def fresh(work: Workpiece) -> Workpiece:
    return replace(work, model=copy.deepcopy(work.model))


def trained(seed: int) -> Workpiece:
    """The digits MLP, trained from a seed as its card says."""
    work = sample_models.load("digits-mlp")
    assert work.train and work.validation
    untrained = sample_models.build("digits-mlp", seed)
    recipe = sample("digits-mlp").training
    model = train(untrained, work.train, work.validation, recipe, seed, lambda _: None)
    return replace(work, model=model)


def measured(
    recipe: Recipe, work: Workpiece, units: masks.Units, epochs: int
) -> Iterator[tuple[str, float]]:
    """(column, accuracy): for each sparsity before and after fine-tuning."""
    for sparsity in SPARSITIES:
        recipe = replace(recipe, sparsity=sparsity, epochs=epochs)
        keep = units.masks(units.ranking.drops(recipe), work.model)
        copied = fresh(work)
        selection.remove(recipe, copied, keep)
        yield f"{sparsity} before", accuracy(copied)
        for _ in finetune(copied, keep, recipe):
            pass
        yield f"{sparsity} after", accuracy(copied)


def as_long(recipe: Recipe, work: Workpiece, epochs: int) -> Iterator[tuple[str, float]]:
    """The control's columns: the same fine-tuning of all weights, beside every sparsity."""
    copied = fresh(work)
    keep = masks.dense(copied.model)
    for _ in finetune(copied, keep, replace(recipe, sparsity=0.0, epochs=epochs)):
        pass
    before, after = accuracy(work), accuracy(copied)
    for sparsity in SPARSITIES:
        yield f"{sparsity} before", before
        yield f"{sparsity} after", after


def in_steps(recipe: Recipe, work: Workpiece) -> float:
    """Accuracy at 0.9, reached in rounds of one rate, each scored anew and none fine-tuned."""
    copied = fresh(work)
    keep = masks.dense(work.model)
    recipe = replace(recipe, sparsity=0.9)
    for step in range(1, STEPS + 1):
        keep = selection.choose(recipe, copied, keep, share=(1 - 0.1 ** (step / STEPS)) / 0.9)
        selection.remove(recipe, copied, keep)
    return accuracy(copied)


def weights() -> tuple[Accuracies, list[float]]:
    """Single weights; the dense accuracies beside them."""
    results: Accuracies = {}
    works = [trained(seed) for seed in SEEDS]
    for seed, work in zip(SEEDS, works, strict=True):
        for column, value in as_long(Recipe(lr=0.02, seed=seed), work, epochs=5):
            results.setdefault(f"{CONTROL}|{column}", []).append(value)
    for name in registry.names("criterion"):
        if registry.misfit(name, "weight"):
            continue
        for seed, work in zip(SEEDS, works, strict=True):
            recipe = Recipe(criterion=name, scope="global", lr=0.02, seed=seed)
            for column, value in measured(recipe, work, rank(recipe, work), epochs=5):
                results.setdefault(f"{name}|{column}", []).append(value)
            if name != "obs":  # which needs no steps, and takes seconds for each
                results.setdefault(f"{name}|steps", []).append(in_steps(recipe, work))
        show(name, results)
    return results, [accuracy(work) for work in works]


def channels() -> tuple[Accuracies, list[float]]:
    results: Accuracies = {}
    work = sample_models.load("digits-resnet")
    for seed in SEEDS:
        for column, value in as_long(Recipe(lr=0.02, seed=seed), work, epochs=2):
            results.setdefault(f"{CONTROL}|{column}", []).append(value)
    for name in [*registry.names("criterion"), SLIMMING]:
        criterion = name.split(",")[0]
        if registry.misfit(criterion, "channel"):
            continue
        recipe = Recipe(criterion=criterion, granularity="channel", scope="per_layer", lr=0.02)
        start = slimming(work, recipe) if name == SLIMMING else work
        units = rank(recipe, start)
        for sparsity in (0.5, 0.9):
            share = 100 * weights_pruned(units, replace(recipe, sparsity=sparsity), start)
            results[f"{name}|weights at {sparsity}"] = [share, share]
        for seed in SEEDS:
            recipe = replace(recipe, seed=seed)
            if criterion == "random":
                units = rank(recipe, start)
            for column, value in measured(recipe, start, units, epochs=2):
                results.setdefault(f"{name}|{column}", []).append(value)
        show(name, results)
    return results, [accuracy(work)]


def weights_pruned(units: masks.Units, recipe: Recipe, work: Workpiece) -> float:
    """The share of all prunable weights that goes, 0 to 1."""
    keep = units.masks(units.ranking.drops(recipe), work.model)
    return 1 - sum(int(mask.sum()) for mask in keep.values()) / sum(
        m.numel() for m in keep.values()
    )


def show(name: str, results: Accuracies) -> None:
    means = {key: round(statistics.mean(values), 2) for key, values in results.items()}
    columns = {key.split("|")[1]: mean for key, mean in means.items() if key.startswith(f"{name}|")}
    print(name, columns, flush=True)


def others() -> list[str]:
    """A table of models and criteria: the accuracy at three sparsities."""
    lines = [
        "| model | dense | " + " | ".join(COMPARED) + " |",
        "|---|---:|" + "---:|" * len(COMPARED),
    ]
    for name in OTHERS:
        work = sample_models.load(name)
        cells = []
        for criterion in COMPARED:
            recipe = Recipe(criterion=criterion, scope="global")
            units = rank(recipe, work)
            values = []
            for sparsity in (0.5, 0.8, 0.9):
                drops = units.ranking.drops(replace(recipe, sparsity=sparsity))
                copied = fresh(work)
                selection.remove(recipe, copied, units.masks(drops, work.model))
                values.append(f"{accuracy(copied):.1f}")
            cells.append(" · ".join(values))
        lines.append(f"| {name} | {accuracy(work):.1f} | " + " | ".join(cells) + " |")
        print(lines[-1], flush=True)
    return lines


def slimming(work: Workpiece, recipe: Recipe) -> Workpiece:
    """After 10 epochs with the penalty on BatchNorm's scales."""
    copied = fresh(work)
    recipe = replace(recipe, epochs=10, slimming=0.03, lr=0.05)
    for _ in finetune(copied, masks.dense(copied.model), recipe, step=0):
        pass
    return copied


def table(results: Accuracies, columns: list[str], by: str) -> list[str]:
    """A row for each criterion, the best first."""
    names = list(dict.fromkeys(key.split("|")[0] for key in results))
    lines = ["| criterion | " + " | ".join(columns) + " |", "|---|" + "---:|" * len(columns)]
    names.sort(key=lambda name: -statistics.mean(results[f"{name}|{by}"]))
    for name in names:
        cells = [cell(results.get(f"{name}|{column}", [])) for column in columns]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def cell(values: list[float]) -> str:
    """Mean ± standard deviation."""
    if not values:
        return "—"
    return f"{statistics.mean(values):.1f} ± {statistics.stdev(values):.1f}"


def main() -> int:
    torch.set_num_threads(1)
    started = conditions()
    single, dense = weights()
    more = others()
    whole, other = channels()
    ratios = [f"{sparsity} {when}" for when in ("before", "after") for sparsity in SPARSITIES]
    text = HEAD.format(
        single=f"{statistics.mean(dense):.1f} ± {statistics.stdev(dense):.1f}",
        whole=f"{other[0]:.1f}",
        steps=STEPS,
        control=CONTROL,
        conditions=started,
        slimming=SLIMMING,
        others="\n".join(more),
        weights="\n".join(table(single, [*ratios, "steps"], "0.9 before")),
        channels="\n".join(
            table(whole, [*ratios, "weights at 0.5", "weights at 0.9"], "0.5 after")
        ),
    )
    OUT.write_text(text, encoding="utf-8")
    print(f"Written: {OUT.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
