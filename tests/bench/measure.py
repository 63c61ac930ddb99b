"""What pruning gives and what it does not, measured: zeros against fewer channels in two runtimes, and files against the entropy limit.

Writes tests/bench/results/measure.md. Takes about two minutes; a busy machine shows in the control, and then there is no verdict.
"""

from __future__ import annotations

import copy
import os
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import sample_models
from pruning import masks
from pruning.errors import DataError
from pruning.masks import Masks
from pruning.measurement import macs, size
from pruning.measurement.onnx import onnx_timings
from pruning.measurement.speed import timings
from pruning.metrics import TOLERANCE, Timing
from pruning.pipeline import machine
from pruning.recipe import Recipe
from pruning.structure.dependency_graph import DependencyGraph, dependency_graph
from pruning.structure.shrink import shrink_certified
from pruning.structure.unit_masks import masks_without
from pruning.types import Workpiece

RESULT = Path(__file__).parent / "results" / "measure.md"
SHARES = (0.8, 0.9, 0.95, 0.99)
SECONDS = 20.0
"""Of timing, for each runtime and batch."""


def lowest_half(dependencies: DependencyGraph, model: nn.Module) -> NDArray[np.bool_]:
    """The half of each group's units with the smallest L2 norm over all that belongs to them."""
    squares = np.zeros(dependencies.units)
    state = dict(model.named_parameters())
    for (name, dim), unit in dependencies.unit_of_index.items():
        if name in state:
            each = (
                state[name].detach().square().transpose(0, dim).flatten(1).sum(1)
                if state[name].dim() > 1
                else state[name].detach().square()
            )
            np.add.at(squares, unit[unit >= 0], each.numpy()[unit >= 0])
    gone = np.zeros(dependencies.units, bool)
    for start, group in zip(dependencies.starts, dependencies.groups, strict=False):
        gone[
            start
            + np.argsort(squares[start : start + group.units], kind="stable")[: group.units // 2]
        ] = True
    return gone


def zeros(model: nn.Module, share: float) -> nn.Module:
    """A copy with that share of its weights zero, the smallest anywhere."""
    copied = copy.deepcopy(model)
    masks.apply(masks.choose(Recipe(sparsity=share), Workpiece("model", model)), copied)
    return copied


def masked(model: nn.Module, kept: Masks) -> nn.Module:
    copied = copy.deepcopy(model)
    masks.apply(kept, copied)
    return copied


# ---------------------------------------------------------------- speed


def resnet18() -> Iterator[str]:
    """Dense, 90 % zeros, half the channels as zeros, half the channels gone; batch 1 in both runtimes, on the threads torch has."""
    from torchvision.models import resnet18 as build

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(weights=None).eval()
    example = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    dependencies = dependency_graph(model, example)
    kept = masks_without(dependencies, lowest_half(dependencies, model), model)
    compact, certificate = shrink_certified(model, kept, example)
    models = {
        "dense": model,
        "90 % zeros": zeros(model, 0.9),
        "half the channels as zeros": masked(model, kept),
        "compact": compact,
    }
    weights = sum(p.numel() for p in compact.parameters())
    work = sum(macs(compact, example).values()) / 1e9
    yield f"Half of each group of ResNet-18's channels gone: {work:.3f} G MACs of convolutions and linear layers,"
    yield f"{weights / 1e6:.5f} M weights; certificate {certificate.error:.1e} relative in float64.\n"
    yield "| runtime | model | ms (quartiles) | times as fast as dense (95 %) | control | verdict |\n|---|---|---|---|---|---|"
    torch_told = [each[0] for each in timings(list(models.values()), example, budget=SECONDS)]
    onnx_told = [
        each[0]
        for each in onnx_timings(list(models.values()), example, batches=[1], budget=SECONDS)
    ]
    for told in (torch_told, onnx_told):
        yield from (row(name, timing) for name, timing in zip(models, told, strict=True))
    yield ""
    for runtime, told in (("torch", torch_told), ("ONNX Runtime", onnx_told)):
        yield from judged(runtime, told[0].control, told[1], told[3])


def row(name: str, t: Timing) -> str:
    if t.latency is None:
        return f"| {t.runtime} | {name} | not measured: {t.why} | | | |"
    fast = (
        f"{t.speedup.value:.2f} ({t.speedup.low:.2f} to {t.speedup.high:.2f})" if t.speedup else ""
    )
    took = f"{t.latency.median:.1f} ({t.latency.low:.1f} to {t.latency.high:.1f})"
    return f"| {t.runtime} | {name} | {took}, {t.latency.passes} passes | {fast} | {(t.control or 0) * 100:.1f} % | {t.verdict} |"


def judged(runtime: str, control: float | None, sparse: Timing, compact: Timing) -> Iterator[str]:
    held = control is not None and control <= TOLERANCE
    yield line(held, f"{runtime}: the A/A control is within 5 % ({(control or 0) * 100:.1f} %)")
    yield line(
        sparse.verdict == "the same",
        f"{runtime}: 90 % zeros are reported as no gain ({sparse.verdict})",
    )
    fast = (
        compact.speedup is not None and compact.verdict == "faster" and compact.speedup.value >= 1.5
    )
    yield line(
        fast,
        f"{runtime}: half the channels are at least 1.5 times as fast ({compact.speedup.value if compact.speedup else 0:.2f})",
    )


def line(holds: bool, said: str) -> str:
    """A line of the record: what was asked, and whether it holds."""
    return f"- {'holds' if holds else 'DOES NOT HOLD'}: {said}"


# ---------------------------------------------------------------- sparse linear layers


def sparse_rows() -> Iterator[str]:
    """A linear layer in CSR against dense, by its size and share of zeros: where the one catches up with the other."""
    yield (
        "| layer | batch | "
        + " | ".join(f"{share:.0%}".replace("%", " %") for share in (0.8, 0.9, 0.95, 0.98))
        + " |\n|---|---|---|---|---|---|"
    )
    for side in (128, 512, 2048):
        for batch in (1, 32):
            cells = []
            for share in (0.8, 0.9, 0.95, 0.98):
                dense = nn.Sequential(nn.Linear(side, side))
                (_,), (_, csr) = timings(
                    [dense, zeros(dense, share)], torch.randn(1, side), batch=batch, budget=0.5
                )
                cells.append(
                    f"{csr.speedup.value:.2f}"
                    + ("" if csr.verdict != "no verdict" else " (no verdict)")
                    if csr.speedup
                    else "—"
                )
            yield f"| {side} × {side} | {batch} | " + " | ".join(cells) + " |"


# ---------------------------------------------------------------- files


def files() -> Iterator[str]:
    """The sparse file over the entropy limit, and what travels over dense, for every trained sample model that is here."""
    head = " | ".join(f"{share * 100:g} % gone" for share in SHARES)
    yield f"| model | dense | {head} |\n|---|---|" + "---|" * len(SHARES)
    worst = 0.0
    for name in sample_models.names():
        try:
            work = sample_models.load(name, data=False)
        except DataError:
            continue
        cells = []
        for share in SHARES:
            found = size(zeros(work.model, share))
            assert found.entropy_coded is not None and found.limit is not None
            worst = max(worst, found.entropy_coded / found.limit)
            shares = [100 * part / found.dense for part in (found.entropy_coded, found.compressed)]
            cells.append(
                f"{found.entropy_coded / found.limit:.3f} ({shares[0]:.1f} %, travels {shares[1]:.1f} %)"
            )
        yield f"| {name} | {size(work.model).dense / 1000:.0f} kB | " + " | ".join(cells) + " |"
    yield ""
    yield line(
        worst <= 1.2, f"every sparse file is within 1.2 times its entropy limit (worst {worst:.3f})"
    )


def main() -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    told = machine()
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    text = ["# What pruning gives, measured\n"]
    text.append(
        f"torch {told['torch']}, 1 thread, {told['processor']}, {told['cores']} cores; load average {busy:.1f} at the start (over 1 is a"
    )
    text.append(
        "busy machine). Interleaved, median of ratios pass by pass with its 95 % interval; control: two copies of the dense model.\n"
    )
    sections = {
        "Speed: ResNet-18, one image of 224 × 224": resnet18,
        "Sparse linear layers: CSR, times as fast as dense": sparse_rows,
        "Files: the sparse file over the entropy limit (and as a share of dense)": files,
    }
    for title, section in sections.items():
        text.append(f"\n## {title}\n")
        for part in section():
            text.append(part)
            print(part, flush=True)
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text("\n".join(text) + "\n", encoding="utf-8")
    return int(any("DOES NOT HOLD" in part for part in text))


if __name__ == "__main__":
    sys.exit(main())
