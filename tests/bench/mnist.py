"""LeNet-300-100 and LeNet-5 on MNIST, a twelfth of the weights kept, beside published numbers.

Writes tests/bench/results/mnist.md. Minutes on one core; needs MNIST (`PRUNING_DATA` or ./data),
and says so where it is absent.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from pathlib import Path
from statistics import fmean

import torch
from bench._table import conditions

import pruning
import sample_models
from pruning.errors import DataError
from pruning.events import Finished
from pruning.recipe import Recipe

RESULTS = Path(__file__).parent / "results" / "mnist.md"
TWELFTH = 1 - 1 / 12
LIMIT = 0.3  # percentage points of accuracy below dense, at most
CASES = {
    "LeNet-300-100": (
        Recipe(
            model="mnist-lenet300",
            sparsity=TWELFTH,
            schedule="geometric",
            steps=4,
            epochs=3,
            lr=0.05,
            batch=128,
        ),
        (0, 1, 2),
        "Han et al. 2015: 1.64 → 1.59 at 12×; DNS (Guo et al. 2016): 1.99 at 56×",
    ),
    "LeNet-5": (
        Recipe(
            model="mnist-lenet5",
            sparsity=TWELFTH,
            schedule="geometric",
            steps=2,
            epochs=1,
            lr=0.02,
            batch=128,
        ),
        (0, 1, 2),
        "Han et al. 2015: 0.80 → 0.77 at 12×; DNS (Guo et al. 2016): 0.91 at 111×",
    ),
}


def finished(recipe: Recipe) -> tuple[Finished, float]:
    """A run's last event, and the seconds of processor time it took."""
    work = sample_models.load(recipe.model)
    began = time.process_time()
    *_, last = pruning.run(recipe, work)
    assert isinstance(last, Finished)
    return last, time.process_time() - began


def mean_error(runs: list[Finished], stage: str) -> float:
    """Test error, %, of one stage: dense, pruned or final."""
    return fmean(100 * (1 - getattr(run, stage).accuracy.value) for run in runs)


def main() -> int:
    torch.set_num_threads(1)
    lines = [
        "# A twelfth of the weights, on MNIST",
        "",
        "Magnitude, anywhere in the model, in rounds of one rate, fine-tuned after each. Test",
        "error in %; means over seeds. *Control*: not pruned, trained as long from the same seeds.",
        "Made by `python3 run.py bench mnist`; seconds are processor time on one thread.",
        conditions(),
        "",
        "| model | seeds | kept | dense | pruned, not trained | fine-tuned | over dense | control "
        "| over control | seconds | published |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    over = False
    for name, (recipe, seeds, published) in CASES.items():
        try:
            results = [finished(replace(recipe, seed=seed)) for seed in seeds]
            controls = [finished(replace(recipe, seed=seed, sparsity=0.0))[0] for seed in seeds]
        except DataError as missing:
            print(f"Not measured: {missing}")
            return 1
        runs = [run for run, _ in results]
        dense, pruned, final = (mean_error(runs, stage) for stage in ("dense", "pruned", "final"))
        over |= final - dense > LIMIT
        model = runs[0].final
        kept = f"{model.kept:,} of {model.weights:,} ({model.weights / model.kept:.1f}×)"
        seconds = fmean(seconds for _, seconds in results)
        control = mean_error(controls, "final")
        cells = [
            name,
            f"{len(seeds)}",
            kept,
            f"{dense:.2f}",
            f"{pruned:.2f}",
            f"{final:.2f}",
            f"{final - dense:+.2f}",
            f"{control:.2f}",
            f"{final - control:+.2f}",
            f"{seconds:.0f}",
            published,
        ]
        lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    verdict = "Not met." if over else "Met."
    lines += ["", f"Wanted: within {LIMIT} percentage points of dense. {verdict}"]
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return int(over)


if __name__ == "__main__":
    sys.exit(main())
