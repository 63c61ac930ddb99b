"""What pruning gives and what it does not: zeros against fewer channels, files against entropy.

Speed in two runtimes, sizes against the entropy limit. Writes tests/bench/results/measure.md. Takes
about two minutes; a busy machine shows in the control, and then there is no verdict.
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
from pruning import masks, selection
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
SECONDS = 20.0  # of timing, for each runtime and batch


def lowest_half(dependencies: DependencyGraph, model: nn.Module) -> NDArray[np.bool_]:
    """The half of each group's units with the smallest L2 norm over all that belongs to them."""
    squares = np.zeros(dependencies.units)
    state = dict(model.named_parameters())
    for (name, dim), unit in dependencies.unit_of_index.items():
        if name not in state:
            continue
        square = state[name].detach().square()
        if square.dim() > 1:
            square = square.transpose(0, dim).flatten(1).sum(1)
        inside = unit >= 0
        np.add.at(squares, unit[inside], square.numpy()[inside])
    removed = np.zeros(dependencies.units, bool)
    for start, group in zip(dependencies.starts, dependencies.groups, strict=False):
        order = np.argsort(squares[start : start + group.units], kind="stable")
        removed[start + order[: group.units // 2]] = True
    return removed


def zeros(model: nn.Module, share: float) -> nn.Module:
    """A copy with that share of its weights zero, the smallest anywhere."""
    copied = copy.deepcopy(model)
    masks.apply(selection.choose(Recipe(sparsity=share), Workpiece("model", model)), copied)
    return copied


def masked(model: nn.Module, keep: Masks) -> nn.Module:
    copied = copy.deepcopy(model)
    masks.apply(keep, copied)
    return copied


# ---------------------------------------------------------------- speed


def resnet18() -> Iterator[str]:
    """Dense, 90 % zeros, half the channels as zeros, and the compact model without them.

    Batch 1 in both runtimes, on the threads torch has.
    """
    from torchvision.models import resnet18 as build

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build(weights=None).eval()
    example = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    dependencies = dependency_graph(model, example)
    keep = masks_without(dependencies, lowest_half(dependencies, model), model)
    compact, certificate = shrink_certified(model, keep, example)
    models = {
        "dense": model,
        "90 % zeros": zeros(model, 0.9),
        "half the channels as zeros": masked(model, keep),
        "compact": compact,
    }
    weights = sum(p.numel() for p in compact.parameters()) / 1e6
    billions = sum(macs(compact, example).values()) / 1e9
    yield "Half of each dependency group of ResNet-18's channels removed:"
    yield f"{billions:.3f} G MACs of convolutions and linear layers, {weights:.5f} M weights;"
    yield f"certificate {certificate.error:.1e} relative in float64.\n"
    yield (
        "| runtime | model | ms (quartiles) | times as fast as dense (95 %) | control | verdict |\n"
        "|---|---|---|---|---|---|"
    )
    every = list(models.values())
    in_torch = timings(every, example, budget=SECONDS)
    in_onnx = onnx_timings(every, example, batches=[1], budget=SECONDS)
    # Of each model, its timing at batch 1.
    runtimes = {
        "torch": [each[0] for each in in_torch],
        "ONNX Runtime": [each[0] for each in in_onnx],
    }
    for rows in runtimes.values():
        yield from (row(name, timing) for name, timing in zip(models, rows, strict=True))
    yield ""
    for runtime, (dense, sparse, _, small) in runtimes.items():
        yield from judged(runtime, dense.control, sparse, small)


def row(name: str, t: Timing) -> str:
    if t.latency is None:
        return f"| {t.runtime} | {name} | not measured: {t.why} | | | |"
    speedup = ""
    if t.speedup:
        speedup = f"{t.speedup.value:.2f} ({t.speedup.low:.2f} to {t.speedup.high:.2f})"
    took = f"{t.latency.median:.1f} ({t.latency.low:.1f} to {t.latency.high:.1f})"
    control = f"{(t.control or 0) * 100:.1f} %"
    cells = [t.runtime, name, f"{took}, {t.latency.passes} passes", speedup, control, t.verdict]
    return f"| {' | '.join(cells)} |"


def judged(runtime: str, control: float | None, sparse: Timing, compact: Timing) -> Iterator[str]:
    quiet = control is not None and control <= TOLERANCE
    yield line(quiet, f"{runtime}: the A/A control is within 5 % ({(control or 0) * 100:.1f} %)")
    no_gain = sparse.verdict == "the same"
    yield line(no_gain, f"{runtime}: 90 % zeros are reported as no gain ({sparse.verdict})")
    times = compact.speedup.value if compact.speedup else 0.0
    faster = compact.verdict == "faster" and times >= 1.5
    yield line(faster, f"{runtime}: half the channels are at least 1.5 times as fast ({times:.2f})")


def line(holds: bool, claim: str) -> str:
    """A line of the record: what was asked, and whether it holds."""
    return f"- {'holds' if holds else 'DOES NOT HOLD'}: {claim}"


# ---------------------------------------------------------------- sparse linear layers


def sparse_rows() -> Iterator[str]:
    """A linear layer in CSR against dense: from which size and share of zeros on it is faster."""
    shares = (0.8, 0.9, 0.95, 0.98)
    head = " | ".join(f"{100 * share:.0f} %" for share in shares)
    yield f"| layer | batch | {head} |\n|---|---|---|---|---|---|"
    for side in (128, 512, 2048):
        for batch in (1, 32):
            cells = []
            for share in shares:
                dense = nn.Sequential(nn.Linear(side, side))
                models = [dense, zeros(dense, share)]
                x = torch.randn(1, side)
                (_,), (_, csr) = timings(models, x, batch=batch, budget=0.5)
                doubt = " (no verdict)" if csr.verdict == "no verdict" else ""
                cells.append(f"{csr.speedup.value:.2f}{doubt}" if csr.speedup else "—")
            yield f"| {side} × {side} | {batch} | " + " | ".join(cells) + " |"


# ---------------------------------------------------------------- files


def files() -> Iterator[str]:
    """The sparse file over the entropy limit, and by gzip, for every trained sample model here.

    In brackets each as a share of the dense one.
    """
    head = " | ".join(f"{share * 100:g} % pruned" for share in SHARES)
    yield f"| model | dense | {head} |\n|---|---|" + "---|" * len(SHARES)
    worst = 0.0
    for name in sample_models.names():
        try:
            work = sample_models.load(name, data=False)
        except DataError:
            continue
        cells = []
        for share in SHARES:
            sizes = size(zeros(work.model, share))
            assert sizes.limit is not None
            plain, packed = sizes.sparse / sizes.limit, sizes.compressed / sizes.limit
            if share <= 0.95:
                worst = max(worst, packed)
            of_dense = [100 * part / sizes.dense for part in (sizes.sparse, sizes.compressed)]
            cells.append(
                f"{plain:.2f} ({of_dense[0]:.1f} %), gzip {packed:.2f} ({of_dense[1]:.1f} %)"
            )
        yield f"| {name} | {size(work.model).dense / 1000:.0f} kB | " + " | ".join(cells) + " |"
    yield ""
    claim = "up to 95 % every file by gzip is within 1.2 times the entropy limit"
    yield line(worst <= 1.2, f"{claim} (worst {worst:.2f})")


def main() -> int:
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    here = machine()
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    text = [
        "# What pruning gives, measured\n",
        f"torch {here['torch']}, 1 thread, {here['processor']}, {here['cores']} cores; load",
        f"average {busy:.1f} at the start (over 1 is a busy machine). Interleaved, median of",
        "ratios pass by pass with its 95 % interval; control: two copies of the dense model.\n",
    ]
    sections = {
        "Speed: ResNet-18, one image of 224 × 224": resnet18,
        "Sparse linear layers: CSR, times as fast as dense": sparse_rows,
        "Files: sparse, and by gzip, over the entropy limit (and as a share of dense)": files,
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
