"""How much of a short run is measuring: one epoch of a ResNet-20, the first run of a model and the
next one, which remembers the dense model's outputs.

One thread, processor seconds, each part of the run beside the whole in the same run. Writes
tests/bench/results/measuring.md.
"""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from bench._table import conditions

import pruning
import sample_models
from pruning import pipeline
from pruning.recipe import Recipe

MODEL = "fashion-resnet20"
RUNS = {
    "first run of a model": Recipe(model=MODEL, sparsity=0.9, epochs=1),
    "next run": Recipe(model=MODEL, sparsity=0.8, epochs=1, criterion="taylor"),
}
MOST = 0.15
"""Of the next run's time."""
MEASURES = ("take_snapshot", "finalize", "evaluate", "remembered_outputs", "count_uses")
"""What the pipeline calls to measure; an epoch's own validation is part of training."""
RESULT = Path(__file__).parent / "results" / "measuring.md"


def timed(call: Callable[..., Any], name: str, seconds: Counter[str]) -> Callable[..., Any]:
    """The same, with its processor seconds added up."""

    def wrapper(*values: Any, **options: Any) -> Any:
        start = time.process_time()
        result = call(*values, **options)
        seconds[name] += time.process_time() - start
        return result

    return wrapper


def main() -> int:
    when = conditions()
    torch.set_num_threads(1)
    work = sample_models.load(MODEL)
    seconds: Counter[str] = Counter()
    for name in MEASURES:
        setattr(pipeline, name, timed(getattr(pipeline, name), name, seconds))
    lines = []
    share = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for name, recipe in RUNS.items():
            seconds.clear()
            start = time.process_time()
            list(pruning.run(recipe, work, cache=Path(folder)))
            whole = time.process_time() - start
            share = sum(seconds.values()) / whole
            parts = ", ".join(f"{part} {took:.1f}" for part, took in seconds.most_common(3))
            lines.append(f"| {name} | {whole:.1f} s | {100 * share:.0f} % | {parts} |\n")
            print(lines[-1], end="", flush=True)
    RESULT.write_text(
        f"# Measuring in a run of one epoch\n\n{when} {MODEL}, one thread, processor seconds.\n\n"
        "| | whole run | of it measuring | most of that, seconds |\n|---|---|---|---|\n"
        + "".join(lines),
        encoding="utf-8",
    )
    return int(share > MOST)


if __name__ == "__main__":
    raise SystemExit(main())
