"""Lottery tickets: on digits in two minutes, and on real MNIST as Frankle & Carbin tickets them.

Writes tests/bench/results/lottery-digits.md and lottery-mnist.md; name one of them to make that
alone. MNIST takes minutes a seed on one core.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import fmean

import torch
from bench._table import conditions
from torch import nn

import pruning
import sample_models
from pruning.errors import DataError
from pruning.events import Ticket
from pruning.measurement import evaluate
from pruning.recipe import Recipe
from pruning.training import controls
from pruning.training.finetune import finetune
from pruning.types import Masks, Workpiece

RESULTS = Path(__file__).parent / "results"
DIGITS = Recipe(
    model="digits-mlp",
    start="random",
    rewind="init",
    schedule="geometric",
    steps=17,
    sparsity=0.977,
    epochs=20,
    optimizer="adam",
    lr=4e-3,
    controls=("reinit", "random_mask", "one_shot"),
)
MNIST = Recipe(
    model="mnist-lenet300",
    start="random",
    rewind="init",
    schedule="geometric",
    steps=15,
    sparsity=1 - 0.8**15,
    epochs=5,
    scope="per_layer",
    scope_options={"output": 0.4722},
    optimizer="adam",
    lr=1.2e-3,
    batch=60,
    decay="cosine",
)
"""As in the paper: 20 % a round, 10 % of the output layer (0.4722 = log 0.9 / log 0.8), Adam at
1.2e-3, batches of 60. Not as in the paper: the rate falls along a cosine. At a constant rate, five
epochs leave the dense network 0.8 percentage points short, and any ticket would beat it."""

PEAK, LAST = 9, 15
PUBLISHED = {PEAK: "accuracy peaks near 13.5 %", LAST: "equals dense at 3.6 %"}
NEAR_PEAK = range(PEAK - 1, PEAK + 2)
"""Rounds that count as near the published peak: its own and one to each side."""
EQUAL = 0.3
"""Percentage points within which a ticket counts as equal to dense."""


def mean(values: Sequence[float]) -> str:
    return f"{fmean(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def percent(ticket: Ticket) -> float:
    assert ticket.accuracy is not None
    return 100 * ticket.accuracy.value


def digits() -> int:
    """Tickets keep the dense accuracy where one shot collapses."""
    work = sample_models.load(DIGITS.model)
    tickets: dict[tuple[int, str], list[float]] = {}
    kept: dict[int, float] = {}
    started = conditions()
    began = time.process_time()
    for seed in range(5):
        for event in pruning.run(replace(DIGITS, seed=seed), work):
            if isinstance(event, Ticket):
                tickets.setdefault((event.step, event.kind), []).append(percent(event))
                kept[event.step] = 100 * (1 - event.sparsity)
        print(f"seed {seed}: {percent_of(tickets, seed)}", flush=True)
    seconds = (time.process_time() - began) / 5
    lines = [
        "# Lottery tickets on digits",
        "",
        "MLP 64-300-100-10, 17 rounds, Adam 4e-3, 20 epochs each.",
        "Accuracy on 360 test images in %, mean of 5 seeds (lowest to highest).",
        f"Made by `python3 run.py bench lottery`; {seconds:.0f} s of processor time a seed, "
        f"controls too. {started}",
        "",
        f"Dense: {mean(tickets[0, 'dense'])}",
        "",
        "| weights kept | tickets | one shot, trained from the same start | re-initialised "
        "| random mask |",
        "|---|---|---|---|---|",
    ]
    for step in sorted(kept):
        if step:
            kinds = ("ticket", "one_shot", "reinit", "random_mask")
            cells = [f"{kept[step]:.1f} %", *(mean(tickets[step, kind]) for kind in kinds)]
            lines.append(f"| {' | '.join(cells)} |")
    dense = fmean(tickets[0, "dense"])
    ticket = fmean(tickets[DIGITS.steps, "ticket"]) - dense
    one_shot = fmean(tickets[DIGITS.steps, "one_shot"]) - dense
    met = ticket >= -1 and one_shot < -20
    lines += [
        "",
        "Wanted at 97.7 %: tickets within 1 percentage point of dense where one shot loses over "
        f"20: tickets {ticket:+.1f} from dense, one shot {one_shot:+.1f}. "
        f"{'Met.' if met else 'Not met.'}",
    ]
    write("lottery-digits.md", lines)
    return int(not met)


def percent_of(tickets: dict[tuple[int, str], list[float]], seed: int) -> str:
    ends = [key for key in tickets if key[0] in (0, DIGITS.steps)]
    return ", ".join(f"{kind} {tickets[step, kind][seed]:.1f}" for step, kind in ends)


def mnist() -> int:
    """Tickets with 3.6 % of the weights, beside their own re-initialisation."""
    try:
        work = sample_models.load(MNIST.model)
    except DataError as missing:
        print(f"Not measured: {missing}")
        return 1
    tickets: dict[int, list[float]] = {}
    kept: dict[int, float] = {}
    reinit: list[float] = []
    started = conditions()
    seconds: list[float] = []  # of the processor
    clock: list[float] = []
    for seed in range(3):
        recipe = replace(MNIST, seed=seed)
        processor_began = time.process_time()
        clock_began = time.perf_counter()
        results: list[tuple[nn.Module, Masks]] = []
        keep_result = partial(record, results)
        for event in pruning.run(recipe, work, keep=keep_result):
            if isinstance(event, Ticket):
                tickets.setdefault(event.step, []).append(percent(event))
                kept[event.step] = 100 * (1 - event.sparsity)
        reinit.append(reinitialised(recipe, work, results[0][1]))
        seconds.append(time.process_time() - processor_began)
        clock.append(time.perf_counter() - clock_began)
        print(
            f"seed {seed}: dense {tickets[0][seed]:.2f}, ticket {tickets[MNIST.steps][seed]:.2f}, "
            f"re-initialised {reinit[-1]:.2f}, {seconds[-1]:.0f} s",
            flush=True,
        )
    means = {step: fmean(values) for step, values in tickets.items()}
    best = max(means, key=means.__getitem__)
    over_dense = means[LAST] - means[0]
    over_reinit = means[LAST] - fmean(reinit)
    # Each is the paper's claim and what was measured here, in percentage points.
    shapes = [
        (
            "accuracy peaks near 13.5 %, above dense",
            f"highest at {kept[best]:.1f} % ({means[best] - means[0]:+.2f} from dense); at 13.5 % "
            f"{means[PEAK] - means[0]:+.2f}",
            best in NEAR_PEAK and means[best] > means[0],
        ),
        (
            f"dense's accuracy at 3.6 %, to {EQUAL} points",
            f"{over_dense:+.2f} from dense",
            over_dense >= -EQUAL,
        ),
        (
            "the ticket above its own mask re-initialised",
            f"{over_reinit:+.2f}",
            over_reinit > 0,
        ),
    ]
    lines = [
        "# Lottery tickets on MNIST",
        "",
        "LeNet-300-100 as in Frankle & Carbin (2019): Adam 1.2e-3, batches of 60, 20 % a round and",
        "10 % of the output layer; 5 epochs each along a cosine rate (4,585 steps; the paper",
        "trains 50,000 at a constant rate and stops early). Accuracy on 10,000 test images in %,",
        f"mean of {len(reinit)} seeds (lowest to highest). {started}",
        f"Made by `python3 run.py bench lottery`: {mean(seconds)} s of one core a seed,",
        f"{mean(clock)} s on the clock of a busy machine.",
        "",
        "| weights kept | accuracy | published |",
        "|---|---|---|",
    ]
    for step in sorted(kept):
        lines.append(f"| {kept[step]:.1f} % | {mean(tickets[step])} | {PUBLISHED.get(step, '')} |")
    last = f"{kept[MNIST.steps]:.1f} %, same mask, re-initialised"
    lines += [
        f"| {last} | {mean(reinit)} | below the ticket |",
        "",
        "| published shape | here | |",
        "|---|---|---|",
    ]
    for claim, measured, met in shapes:
        lines.append(f"| {claim} | {measured} | {'met' if met else 'missed'} |")
    write("lottery-mnist.md", lines)
    # A shape that is missed is a finding; a ticket below its own control is a fault of ours.
    return int(not shapes[2][2])


def record(results: list[tuple[nn.Module, Masks]], model: nn.Module, keep: Masks) -> None:
    results.append((model, keep))


def reinitialised(recipe: Recipe, work: Workpiece, masks: Masks) -> float:
    """Accuracy of the last ticket's mask on other first weights, trained as the ticket was."""
    other, same = controls.control("reinit", recipe, work, {}, masks, {}, recipe.steps)
    for _ in finetune(other, same, recipe, step=recipe.steps):
        pass
    assert other.test is not None
    return 100 * evaluate(other.model, other.test, other.loss)[0].value


def write(name: str, lines: list[str]) -> None:
    print("\n".join(lines))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / name).write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> int:
    torch.set_num_threads(1)
    tables = {"digits": digits, "mnist": mnist}
    return max(tables[name]() for name in sys.argv[1:] or tables)


if __name__ == "__main__":
    sys.exit(main())
