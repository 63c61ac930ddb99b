"""The sensitivity map of a trained ResNet-20, 22 layers by 9 ratios, against a loop as Distiller's: deep copy, prune, DataLoader.

One process, one thread, the two in turn on parts of the validation images, so that both meet the same machine; seconds are the
processor's, so that others on it cost less of the truth. Writes tests/bench/results/sensitivity.md.
"""

from __future__ import annotations

import copy
import resource
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

import pruning
import sample_models
from pruning.events import Point
from pruning.masks import choose
from pruning.pipeline import machine
from pruning.recipe import Recipe
from pruning.sensitivity_map.measure import LEVELS
from pruning.types import Batches, Workpiece

MODEL = "fashion-resnet20"
PARTS, PART = 4, 256
RESULT = Path(__file__).parent / "results" / "sensitivity.md"


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Images as torchvision's own data sets give them: bytes, a PIL picture, ToTensor, Normalize, one at a time."""

    def __init__(self, data: Batches, mean: float, std: float) -> None:
        self.bytes = ((data.x * std + mean) * 255).round().to(torch.uint8)[:, 0].numpy()
        self.targets = data.y.tolist()
        self.transform = transforms.Compose(
            [transforms.ToTensor(), transforms.Normalize([mean], [std])]
        )

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.bytes[i])), self.targets[i]


def distiller_like(work: Workpiece, layers: list[str]) -> dict[tuple[str, float], int]:
    """Right answers of each cell, the plain way: for each layer and ratio a deep copy, pruned, and all images through a DataLoader."""
    about = sample_models.cards.dataset("fashion-mnist")
    loader = DataLoader(
        Pictures(work.need("validation", "The loop"), about.mean, about.std), batch_size=256
    )
    found = {}
    for layer in layers:
        for level in LEVELS:
            model = copy.deepcopy(work.model).eval()
            pruning.apply(choose(Recipe(scope="manual", ratios={layer: level}), work), model)
            with torch.no_grad():
                found[layer, level] = sum(right(model, work, x, y) for x, y in loader)
    return found


def right(model: torch.nn.Module, work: Workpiece, x: torch.Tensor, y: torch.Tensor) -> int:
    """Right answers of one batch; its loss is worked out too, as a validation loop does."""
    out = model(x)
    float(work.loss(out, y))
    return int((out.argmax(1) == y).sum())


def timed(do: object) -> tuple[float, list[Point]]:
    began = time.process_time()
    points = list(do)  # type: ignore[call-overload]
    return time.process_time() - began, points


def part_of(work: Workpiece, i: int) -> Workpiece:
    data = work.need("validation", "The benchmark")
    cut = slice(i * PART, (i + 1) * PART)
    return replace(work, validation=Batches(data.x[cut], data.y[cut], PART))


def spearman(a: list[float], b: list[float]) -> float:
    ranks = torch.tensor([a, b], dtype=torch.float64).argsort(1).argsort(1).double()
    return float(torch.corrcoef(ranks)[0, 1])


def against_the_loop(
    work: Workpiece,
) -> tuple[list[tuple[float, float]], int, dict[tuple[str, float], float]]:
    """(seconds of the loop, of the exact tier) for each part; cells whose right answers differ; change of the loss by cell."""
    times, differ, change = [], 0, dict[tuple[str, float], float]()
    for i in range(PARTS):
        part = part_of(work, i)
        ours, points = timed(pruning.sensitivity(part, keep=None))
        began = time.process_time()
        theirs = distiller_like(part, list(dict.fromkeys(p.layer for p in points)))
        times.append((time.process_time() - began, ours))
        differ += sum(
            theirs[p.layer, p.level] != (p.accuracy.correct if p.accuracy else -1) for p in points
        )
        for p in points:
            change[p.layer, p.level] = (
                change.get((p.layer, p.level), 0.0) + (p.loss - p.loss_dense) / PARTS
            )
        print(
            f"part {i + 1} of {PARTS}: loop {times[-1][0]:.1f} s, exact {ours:.1f} s, cells that differ so far: {differ}",
            flush=True,
        )
    return times, differ, change


def memory(*words: str) -> float:
    """MB that a process of its own needs at most for a map of one part."""
    done = subprocess.run(
        [sys.executable, __file__, *words], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def map_alone(cells: str) -> None:
    work = part_of(sample_models.load(MODEL), 0)
    names = list(pruning.masks.covered(Recipe(), work))  # type: ignore[attr-defined]
    few = {"levels": (0.5,), "exclude": names[2:]} if cells == "few" else {}
    list(pruning.sensitivity(work, keep=None, **few))  # type: ignore[arg-type]
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)


def main() -> int:
    torch.set_num_threads(1)
    work = sample_models.load(MODEL)
    data = work.need("validation", "The benchmark")
    times, differ, change = against_the_loop(work)
    loop, exact = (sum(column) for column in zip(*times, strict=True))
    seen = PARTS * PART
    whole = loop * len(data.x) / seen
    guess, points = timed(
        pruning.sensitivity(replace(work, validation=data.head(seen)), tier="estimate", keep=None)
    )
    rank = spearman(
        [change[p.layer, p.level] for p in points], [p.loss - p.loss_dense for p in points]
    )
    sure, cells = timed(pruning.sensitivity(work, tier="progressive", within=0.02, keep=None))
    halves = [(p.interval[1] - p.interval[0]) / 2 for p in cells if p.interval]
    wide = [p for p, half in zip(cells, halves, strict=True) if half > 0.02]
    images = sum(p.accuracy.total for p in cells if p.accuracy) / len(cells)
    few, all_ = memory("few"), memory("all")
    parts = ", ".join(f"{a / b:.1f}" for a, b in times)
    lowest = max((p.change or 0.0 for p in wide), default=0.0)
    lines = [
        "# The sensitivity map against a plain loop",
        "",
        f"`python3 run.py bench sensitivity`: {MODEL}, trained, {len(cells) // len(LEVELS)} layers × {len(LEVELS)} ratios. "
        f"One process, one thread ({machine()['processor']}, torch {torch.__version__.split('+')[0]}). "
        f"The loop makes a deep copy for each cell and reads images through a DataLoader (batch 256, torchvision's transforms); "
        f"the two take turns on {PARTS} parts of {PART} validation images.",
        "",
        "| | CPU seconds | against the loop | wanted |",
        "|---|---|---|---|",
        f"| loop, {seen:,} images | {loop:.1f} | 1 | |",
        f"| exact, {seen:,} images | {exact:.1f} | {loop / exact:.1f}× (parts: {parts}) | 3×, goal 5× |",
        f"| loop, all {len(data.x):,} images (from the {seen:,}) | {whole:.0f} | 1 | |",
        f"| progressive, ±2 points, paired | {sure:.1f} | {whole / sure:.0f}× | 8×, goal 20× |",
        f"| estimate | {guess:.1f} | {exact / guess:.0f}× less than exact on the same images | 5× |",
        "",
        f"- Exact: {differ} of {len(cells) * PARTS} cells (each part counted) differ from the loop in their right answers.",
        f"- Estimate: Spearman with the exact change of the loss {rank:.3f} (wanted 0.6, goal 0.8).",
        f"- Progressive: {images:.0f} images a cell on average. {len(wide)} cells stayed wider than ±2 points, because they or a lower "
        f"ratio of their row had surely collapsed (by more than 25 points); the least of them lost {-100 * lowest:.0f} points.",
        f"- Memory at its highest: {few:.0f} MB for a map of 2 layers × 1 ratio, {all_:.0f} MB for {len(cells)} cells.",
    ]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    return int(
        loop / exact < 3
        or whole / sure < 8
        or rank < 0.6
        or guess > exact / 5
        or differ > 0
        or all_ > 1.1 * few
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        map_alone(sys.argv[1])
    else:
        sys.exit(main())
