"""Do compact models recover? Half of the channels of every group pruned, then fine-tuned.

digits-resnet and digits-vit, fine-tuned as compact models: test accuracy beside the dense model's,
and beside the dense model's trained as long; three seeds. `python3 run.py bench finetune_compact`
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

from bench._table import conditions

import pruning
import sample_models
from pruning.events import Finished
from pruning.recipe import Recipe

RESULT = Path(__file__).parent / "results" / "finetune_compact.md"
MODELS: dict[str, dict[str, Any]] = {
    "digits-resnet": {"epochs": 12, "lr": 0.05},
    "digits-vit": {"epochs": 40, "lr": 0.002, "optimizer": "adamw"},
}
SEEDS = (0, 1, 2)

HEAD = """# Fine-tuning compact models

Half of the channels (and neurons) of every dependency group removed by mean |w|, then fine-tuned
as a compact model; control: nothing pruned, trained as long. Accuracy on the 360 test digits, %,
where one image is 0.28 percentage points; *fine-tuned* and *control* by seed. The certificate
compares the fine-tuned masked model with the compact one.

{conditions}

| model | weights | dense | after pruning | fine-tuned | control | mean − control | certificate |
|---|---|---|---|---|---|---|---|
"""


def finished(model: str, seed: int, sparsity: float) -> Finished:
    recipe = Recipe(
        granularity="channel",
        scope="per_layer",
        sparsity=sparsity,
        finetune_compact=sparsity > 0,
        seed=seed,
        **MODELS[model],
    )
    *_, last = pruning.run(recipe, sample_models.load(model))
    assert isinstance(last, Finished)
    return last


def percent(measured: Any) -> float:
    return 100 * measured.accuracy.value


def row(model: str) -> str:
    runs = [finished(model, seed, 0.5) for seed in SEEDS]
    control = [percent(finished(model, seed, 0.0).final) for seed in SEEDS]
    first = runs[0]
    assert first.compact is not None
    values = [percent(run.compact) for run in runs]
    dense = percent(first.dense)
    errors = [run.certificate.error for run in runs if run.certificate is not None]
    cells = [
        model,
        f"{first.dense.weights:,} → {first.compact.weights:,}",
        f"{dense:.1f}",
        f"{percent(first.pruned):.1f}",
        ", ".join(f"{value:.1f}" for value in values),
        ", ".join(f"{value:.1f}" for value in control),
        f"{statistics.mean(values) - statistics.mean(control):+.2f}",
        f"{max(errors):.0e}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    head = HEAD.format(conditions=conditions())
    rows = []
    for model in MODELS:
        rows.append(row(model))
        print(rows[-1], flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(head + "\n".join(rows) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
