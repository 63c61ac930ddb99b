"""Which scores tell the truth: every criterion against the true change in loss, on trained sample models, weights and channels.

`python3 run.py bench truth` prints the tables and keeps them in tests/bench/results/truth.md.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import torch

import sample_models
from pruning import registry
from pruning.analysis.criterion_check import Plan, Question, Told, Truth, truth
from pruning.pipeline import machine
from pruning.stats import Correlation

RESULTS = Path(__file__).parent / "results" / "truth.md"
MODELS = ("digits-cnn", "digits-resnet")
UNITS = {"weight": 256, "channel": 256}
"""Of each layer, at most; a layer of fewer is measured whole."""

HEAD = """# Does the score tell the truth?

Spearman's rank correlation of each criterion's score with the true change in validation loss when that unit alone is removed
(leave-one-out, eval mode), made by `python3 run.py bench truth`. **Size**: with |change|, which most formulas claim to estimate.
**Harm**: with the signed change, where a unit whose removal helps should go first. *In layers*: the median over the layers, and
lowest to highest; *all together*: over the units of all layers at once, with the 95 % bootstrap interval, which is what `global`
pruning relies on. Criteria are asked with their default options and see training data only.
"""


def spread(held: list[Correlation]) -> str:
    values = [found.value for found in held if found.value is not None]
    if not values:
        return "no order"
    return f"{statistics.median(values):+.2f} ({min(values):+.2f} to {max(values):+.2f})".replace(
        "-", "−"
    )


def interval(held: Correlation) -> str:
    if held.value is None or held.low is None:
        return "no order"
    return f"{held.value:+.2f} ({held.low:+.2f} to {held.high:+.2f})".replace("-", "−")


def row(name: str, layers: tuple[Truth, ...]) -> str:
    *each, whole = layers
    cells = [
        spread([held.size[name] for held in each]),
        interval(whole.size[name]),
        spread([held.harm[name] for held in each]),
    ]
    return f"| {name} | " + " | ".join([*cells, interval(whole.harm[name])]) + " |"


def table(model: str, granularity: str) -> list[str]:
    work, began = sample_models.load(model), time.perf_counter()
    plan, *_, end = truth(
        work,
        Question(granularity=granularity, units=UNITS[granularity]),
        {name: {} for name in registry.names("criterion")},
    )
    assert isinstance(plan, Plan) and isinstance(end, Told)
    whole = end.layers[-1]
    ranked = sorted(whole.criteria, key=lambda name: whole.size[name].value or -2, reverse=True)
    lines = [
        f"\n## {model}, {granularity}s",
        f"\n{whole.units:,} {granularity}s of {len(plan.units)} layers on {plan.examples:,} validation examples, loss {plan.loss:.4f}; "
        f"{time.perf_counter() - began:.0f} s, scores and all.\n",
        "| criterion | size, in layers | size, all together | harm, in layers | harm, all together |",
        "|---|---|---|---|---|",
        *(row(name, end.layers) for name in ranked),
    ]
    if plan.refused:
        lines += ["", *(f"- left out: {why}" for why in plan.refused.values())]
    return lines


def main() -> None:
    torch.set_num_threads(1)
    lines = [HEAD]
    for model in MODELS:
        for granularity in UNITS:
            found = table(model, granularity)
            print("\n".join(found), flush=True)
            lines += found
    held = machine()
    lines.append(f"\nMeasured with torch {held['torch']} on {held['processor']}, 1 thread.")
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
