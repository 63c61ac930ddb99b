"""Criterion check: every criterion against the leave-one-out loss change, on trained models.

`python3 run.py bench criterion_check` prints the tables, for single weights and for channels, and
keeps them in tests/bench/results/criterion_check.md.
"""

from __future__ import annotations

import statistics
import time
from pathlib import Path

import torch
from bench._table import conditions

import sample_models
from pruning import registry
from pruning.analysis.criterion_check import (
    Check,
    CheckPlan,
    CheckResult,
    LayerCheck,
    criterion_check,
)
from pruning.stats import Correlation

RESULT = Path(__file__).parent / "results" / "criterion_check.md"
MODELS = ("digits-cnn", "digits-resnet")
UNITS = {"weight": 256, "channel": 256}  # of each layer, at most; smaller layers whole

HEAD = """# Criterion check: scores against the leave-one-out loss change

Spearman's rank correlation of each criterion's score with the change in validation loss when that
unit alone is removed (leave-one-out, eval mode), made by `python3 run.py bench criterion_check`.
**Size**: with |change|, which most formulas claim to estimate. **Increase**: with the signed
change, where a unit whose removal helps should be pruned first. *In layers*: the median over the
layers, and lowest to highest; *all layers*: over the units of all layers at once, with the 95 %
bootstrap interval, which is what `global` pruning relies on. Criteria are asked with their default
options and see training data only.
"""


def minus(text: str) -> str:
    return text.replace("-", "−")


def spread(correlations: list[Correlation]) -> str:
    values = [each.value for each in correlations if each.value is not None]
    if not values:
        return "no order"
    low, median, high = min(values), statistics.median(values), max(values)
    return minus(f"{median:+.2f} ({low:+.2f} to {high:+.2f})")


def interval(correlation: Correlation) -> str:
    if correlation.value is None or correlation.low is None:
        return "no order"
    return minus(f"{correlation.value:+.2f} ({correlation.low:+.2f} to {correlation.high:+.2f})")


def row(name: str, reports: tuple[LayerCheck, ...]) -> str:
    """reports: one for each layer, then one over all layers at once."""
    *layers, whole = reports
    cells = [
        name,
        spread([layer.absolute[name] for layer in layers]),
        interval(whole.absolute[name]),
        spread([layer.signed[name] for layer in layers]),
        interval(whole.signed[name]),
    ]
    return f"| {' | '.join(cells)} |"


def table(model: str, granularity: str) -> list[str]:
    work = sample_models.load(model)
    began = time.perf_counter()
    check = Check(granularity=granularity, units=UNITS[granularity])
    criteria: dict[str, dict[str, object]] = {name: {} for name in registry.names("criterion")}
    plan, *_, report = criterion_check(work, check, criteria)
    assert isinstance(plan, CheckPlan) and isinstance(report, CheckResult)
    seconds = time.perf_counter() - began
    whole = report.layers[-1]

    def by_size(name: str) -> float:
        return whole.absolute[name].value or -2  # below every correlation

    lines = [
        f"\n## {model}, {granularity}s",
        f"\n{whole.units:,} {granularity}s of {len(plan.units)} layers on {plan.examples:,} "
        f"validation examples, loss {plan.loss:.4f}; {seconds:.0f} s with scoring.\n",
        "| criterion | size, in layers | size, all layers "
        "| increase, in layers | increase, all layers |",
        "|---|---|---|---|---|",
    ]
    ranked = sorted(whole.criteria, key=by_size, reverse=True)
    lines += [row(name, report.layers) for name in ranked]
    if plan.refused:
        lines += ["", *(f"- left out: {why}" for why in plan.refused.values())]
    return lines


def main() -> None:
    torch.set_num_threads(1)
    lines = [HEAD]
    started = conditions()
    for model in MODELS:
        for granularity in UNITS:
            rows = table(model, granularity)
            print("\n".join(rows), flush=True)
            lines += rows
    lines.append(f"\nOne thread; {started}")
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
