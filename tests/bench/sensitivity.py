"""The sensitivity map of a trained ResNet-20, 22 layers by 9 ratios, against a plain loop.

The loop is Distiller's: deep copy, prune, DataLoader. One process, one thread, the two in turn on
parts of the validation images, so that both meet the same machine; seconds are the processor's, so
that others on it disturb less. Writes tests/bench/results/sensitivity.md.
"""

from __future__ import annotations

import copy
import resource
import subprocess
import sys
import time
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

import pruning
import sample_models
from pruning.events import Point
from pruning.pipeline import machine
from pruning.recipe import Recipe
from pruning.sensitivity_map.sensitivity import LEVELS
from pruning.types import Batches, Workpiece
from pruning.units.layout import lay_out
from sample_models.catalogue import dataset

MODEL = "fashion-resnet20"
PARTS, PART = 2, 256
RESULT = Path(__file__).parent / "results" / "sensitivity.md"


class Pictures(Dataset[tuple[torch.Tensor, int]]):
    """Images as torchvision's data sets give them: bytes, PIL, ToTensor, Normalize, one by one."""

    def __init__(self, data: Batches, mean: float, std: float) -> None:
        self.bytes = ((data.x * std + mean) * 255).round().to(torch.uint8)[:, 0].numpy()
        self.targets = data.y.tolist()
        steps = [transforms.ToTensor(), transforms.Normalize([mean], [std])]
        self.transform = transforms.Compose(steps)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, int]:
        return self.transform(Image.fromarray(self.bytes[i])), self.targets[i]


def distiller_like(work: Workpiece, layers: list[str]) -> dict[tuple[str, float], int]:
    """Correct predictions of each cell, the plain way.

    For each layer and ratio a deep copy, pruned, and all images through a DataLoader.
    """
    about = dataset("fashion-mnist")
    pictures = Pictures(work.need("validation", "The loop"), about.mean, about.std)
    loader = DataLoader(pictures, batch_size=256)
    counts = {}
    for layer in layers:
        for level in LEVELS:
            model = copy.deepcopy(work.model).eval()
            pruning.apply(
                pruning.choose(Recipe(scope="manual", ratios={layer: level}), work), model
            )
            with torch.no_grad():
                counts[layer, level] = sum(correct(model, work, x, y) for x, y in loader)
    return counts


def correct(model: torch.nn.Module, work: Workpiece, x: torch.Tensor, y: torch.Tensor) -> int:
    """Correct predictions of one batch; its loss is computed too, as a validation loop does."""
    out = model(x)
    float(work.loss(out, y))
    return int((out.argmax(1) == y).sum())


def timed(cells: Iterable[Point]) -> tuple[float, list[Point]]:
    began = time.process_time()
    points = list(cells)
    return time.process_time() - began, points


def by_two(part: Workpiece, points: list[Point]) -> tuple[float, float, float, int]:
    """Seconds by the clock on the wall of the loop, of one worker and of two; and how many points
    of two workers differ from `points`, one worker's.
    """
    began = time.perf_counter()
    list(pruning.sensitivity(part, keep=None))
    one = time.perf_counter() - began
    began = time.perf_counter()
    again = list(pruning.sensitivity(part, keep=None, workers=2))
    two = time.perf_counter() - began
    began = time.perf_counter()
    distiller_like(part, list(dict.fromkeys(p.layer for p in points)))
    loop = time.perf_counter() - began
    counts = {(p.layer, p.level): p.accuracy for p in points}
    return loop, one, two, sum(counts[p.layer, p.level] != p.accuracy for p in again)


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
    """(seconds of the loop, of the exact tier) for each part; cells that differ; loss changes.

    A cell differs when its counts of correct predictions do.
    """
    times = []
    differ = 0
    change: dict[tuple[str, float], float] = {}
    for i in range(PARTS):
        part = part_of(work, i)
        ours, points = timed(pruning.sensitivity(part, keep=None))
        began = time.process_time()
        theirs = distiller_like(part, list(dict.fromkeys(p.layer for p in points)))
        times.append((time.process_time() - began, ours))
        for p in points:
            cell = (p.layer, p.level)
            differ += theirs[cell] != (p.accuracy.correct if p.accuracy else -1)
            change[cell] = change.get(cell, 0.0) + (p.loss - p.loss_dense) / PARTS
        print(
            f"part {i + 1} of {PARTS}: loop {times[-1][0]:.1f} s, exact {ours:.1f} s, "
            f"cells that differ so far: {differ}",
            flush=True,
        )
    return times, differ, change


def memory(*words: str) -> float:
    """MB that a process of its own needs at most for a map of one part."""
    command = [sys.executable, __file__, *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(done.stdout.split()[-1])


def map_alone(cells: str) -> None:
    work = part_of(sample_models.load(MODEL), 0)
    names = list(lay_out(Recipe(), work).covered())
    few = {"levels": (0.5,), "exclude": names[2:]} if cells == "few" else {}
    list(pruning.sensitivity(work, keep=None, **few))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000)


def main() -> int:
    torch.set_num_threads(1)
    work = sample_models.load(MODEL)
    data = work.need("validation", "The benchmark")
    times, differ, change = against_the_loop(work)
    loop, exact = (sum(column) for column in zip(*times, strict=True))
    images = PARTS * PART
    whole = loop * len(data.x) / images
    part = replace(work, validation=data.head(images))
    estimate, points = timed(pruning.sensitivity(part, tier="estimate", keep=None))
    exact_changes = [change[p.layer, p.level] for p in points]
    rank = spearman(exact_changes, [p.loss - p.loss_dense for p in points])
    tier = pruning.sensitivity(work, tier="progressive", within=0.02, keep=None)
    progressive, cells = timed(tier)
    halves = [(p.interval[1] - p.interval[0]) / 2 for p in cells if p.interval]
    wide = [p for p, half in zip(cells, halves, strict=True) if half > 0.02]
    images_a_cell = sum(p.accuracy.total for p in cells if p.accuracy) / len(cells)
    last = part_of(work, PARTS)
    by_one = list(pruning.sensitivity(last, keep=None))
    turns = [by_two(last, by_one) for _ in range(2)]
    wall_loop, wall_one, wall_two, differ_two = (sum(column) for column in zip(*turns, strict=True))
    memory_few = memory("few")
    memory_all = memory("all")
    parts = ", ".join(f"{a / b:.1f}" for a, b in times)
    lowest = max((p.change or 0.0 for p in wide), default=0.0)
    version = torch.__version__.split("+")[0]
    lines = [
        "# The sensitivity map against a plain loop",
        "",
        f"`python3 run.py bench sensitivity`: {MODEL}, trained, {len(cells) // len(LEVELS)} layers "
        f"× {len(LEVELS)} ratios. One process, one thread ({machine()['processor']}, torch "
        f"{version}). The loop makes a deep copy for each cell and reads images through a "
        "DataLoader (batch 256, torchvision's transforms); the two take turns on "
        f"{PARTS} parts of {PART} validation images.",
        "",
        "| | CPU seconds | against the loop | wanted |",
        "|---|---|---|---|",
        f"| loop, {images:,} images | {loop:.1f} | 1 | |",
        f"| exact, {images:,} images | {exact:.1f} | {loop / exact:.1f}× (parts: {parts}) "
        "| 3×, goal 5× |",
        f"| loop, all {len(data.x):,} images (from the {images:,}) | {whole:.0f} | 1 | |",
        f"| progressive, ±2 percentage points, paired | {progressive:.1f} "
        f"| {whole / progressive:.0f}× | 8×, goal 20× |",
        f"| estimate | {estimate:.1f} | {exact / estimate:.0f}× less than exact on the same "
        "images | 5× |",
        "",
        f"- Exact: {differ} of {len(cells) * PARTS} cells (each part counted) differ from the loop "
        "in their correct predictions.",
        "- Two workers, each with a core of its own, by the clock on the wall: "
        f"{wall_two / len(turns):.1f} s for {PART} images, one worker "
        f"{wall_one / len(turns):.1f} s, the loop {wall_loop / len(turns):.1f} s. "
        f"**{wall_loop / wall_two:.1f}×** the loop, one worker {wall_loop / wall_one:.1f}× "
        f"(wanted 4×, goal 5×); {differ_two} points differ.",
        f"- Estimate: Spearman with the exact change of the loss {rank:.3f} (wanted 0.6, goal "
        "0.8).",
        f"- Progressive: {images_a_cell:.0f} images a cell on average. {len(wide)} cells stayed "
        "wider than ±2 percentage points, because they or a lower ratio of their row had surely "
        f"collapsed (by more than 25); the least of them lost {-100 * lowest:.0f}.",
        f"- Memory at its highest: {memory_few:.0f} MB for a map of 2 layers × 1 ratio, "
        f"{memory_all:.0f} MB for {len(cells)} cells.",
    ]
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))
    too_slow = loop / exact < 3 or whole / progressive < 8 or estimate > exact / 5
    wrong = rank < 0.6 or differ + differ_two > 0
    return int(too_slow or wrong or memory_all > 1.1 * memory_few)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        map_alone(sys.argv[1])
    else:
        sys.exit(main())
