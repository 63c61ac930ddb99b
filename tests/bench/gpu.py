"""A ResNet-50 on an accelerator: prune half the MACs, reconstruct, fine-tune, measure.

    python tests/bench/gpu.py [--device auto] [--out FILE] [--tiny]

Trained on it from random weights first, on synthetic pictures whose class can be learned, since
nothing is downloaded; to a real accuracy, so that what pruning does to it can be seen. Once in
float32 and once in bfloat16. Writes a table with the seconds of each stage there, and of those that
a CPU does in reasonable time on this machine's CPU too. --tiny: a ResNet-18 of a few small
pictures, to try the way.
"""

from __future__ import annotations

import argparse
import datetime
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))  # from the repository's folder alone, as on a borrowed machine

import torch  # noqa: E402
import torchvision  # noqa: E402
from torch import Tensor  # noqa: E402

import pruning  # noqa: E402
from pruning import devices  # noqa: E402
from pruning.events import Epoch, Finished, Measured, Notice, Pruned, Reconstructed  # noqa: E402
from pruning.masks import apply  # noqa: E402
from pruning.metrics import Measurement  # noqa: E402
from pruning.pipeline import machine  # noqa: E402
from pruning.recipe import Recipe  # noqa: E402
from pruning.selection import choose  # noqa: E402
from pruning.structure.shrink import compact_model  # noqa: E402
from pruning.training.finetune import finetune  # noqa: E402
from pruning.training.reconstruct import reconstruct  # noqa: E402
from pruning.types import Batches, Workpiece  # noqa: E402

OUT = Path(__file__).parent / "results" / "gpu.md"
CLASSES = 10
NOISE = 1.5
"""Deviation; a grating's own is about 0.7."""


@dataclass(frozen=True)
class Size:
    """architecture: of torchvision; train, test: pictures; side: pixels; epochs: of the first
    training, of fine-tuning.
    """

    architecture: str = "resnet50"
    train: int = 4000
    test: int = 1000
    side: int = 64
    epochs: tuple[int, int] = (40, 8)
    few: int = 512
    batch: int = 128


TINY = Size("resnet18", 64, 32, 32, (1, 1), few=16, batch=16)


@dataclass
class Report:
    """Seconds of stages by (stage, where), and the rows of the tables. A class because every stage
    adds to it, and what was reached is written even where a later one fails.
    """

    seconds: dict[tuple[str, str], float] = field(default_factory=dict)
    runs: list[str] = field(default_factory=list)
    speeds: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    control: str = "not measured"
    save: Callable[[], object] = lambda: None  # what was reached so far, after each stage


def pictures(count: int, side: int, seed: int) -> tuple[Tensor, Tensor]:
    """Pictures of one of ten gratings, each with a direction, a pitch and a colour, under noise.

    (n, 3, side, side), and their classes (n,). The phase and the brightness are random, so that
    neither a pixel nor a mean tells the class.
    """
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % CLASSES
    angle = y * (torch.pi / CLASSES)
    pitch = 3.0 + 2.0 * (y % 3)  # waves across the picture
    along = torch.linspace(0, 1, side)
    down, right = torch.meshgrid(along, along, indexing="ij")
    phase = torch.rand(count, 1, 1, generator=generator) * 2 * torch.pi
    place = (
        right * angle.cos().reshape(-1, 1, 1) + down * angle.sin().reshape(-1, 1, 1)
    ) * pitch.reshape(-1, 1, 1)
    waves = torch.sin(2 * torch.pi * place + phase)
    colour = 0.5 + torch.rand(count, 3, 1, 1, generator=generator)
    noise = torch.randn(count, 3, side, side, generator=generator)
    return waves.unsqueeze(1) * colour + NOISE * noise, y


def workpiece(size: Size) -> Workpiece:
    """The untrained network and its pictures."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(size.architecture, num_classes=CLASSES)
    train, validation, test = (
        Batches(*pictures(count, size.side, seed), batch=256)
        for seed, count in enumerate((size.train, size.test // 2, size.test))
    )
    return Workpiece(size.architecture, model.eval(), train, validation, test, example=train.x[:1])


@contextmanager
def timed(report: Report, stage: str, device: torch.device) -> Iterator[None]:
    """Print and keep how long a stage takes; a failure is printed whole, and all goes on."""
    devices.synchronize(device)
    start = time.perf_counter()
    try:
        yield
    except Exception as error:
        traceback.print_exc()
        report.failures.append(f"{stage} on {device}: {type(error).__name__}: {error}"[:300])
        return
    devices.synchronize(device)
    seconds = time.perf_counter() - start
    report.seconds[stage, device.type] = seconds
    print(f"{stage} on {device}: {seconds:.2f} s", flush=True)
    report.save()


def trained(work: Workpiece, size: Size, precision: str) -> Workpiece:
    """The network after its first training, in place."""
    recipe = Recipe(
        epochs=size.epochs[0], lr=0.05, batch=size.batch, weight_decay=5e-4, precision=precision
    )
    for epoch in finetune(work, {}, recipe):
        shown = epoch.accuracy.text if epoch.accuracy else "-"
        print(
            f"  epoch {epoch.epoch}: loss {epoch.train_loss:.3f}, validation {shown}, "
            f"{epoch.seconds:.2f} s",
            flush=True,
        )
    return work


def recipe_of(size: Size, precision: str) -> Recipe:
    return Recipe(
        criterion="magnitude",
        granularity="channel",
        scope="per_layer",
        sparsity=0.5,
        budget="macs",
        reconstruct=True,
        finetune_compact=True,
        epochs=size.epochs[1],
        lr=0.01,
        batch=size.batch,
        precision=precision,
    )


def whole_run(work: Workpiece, size: Size, precision: str, report: Report) -> None:
    """One run as anybody would start it, its stages timed by its events."""
    there = devices.device_of(work.model)
    if there.type == "cuda":
        torch.cuda.reset_peak_memory_stats(there)
    accuracy: dict[str, str] = {}
    epochs: list[float] = []
    pruned = solved = 0.0
    last: Finished | None = None
    start = time.perf_counter()
    for event in pruning.run(recipe_of(size, precision), work):
        match event:
            case Measured() if event.measurement.accuracy:
                accuracy[event.stage] = event.measurement.accuracy.text
            case Pruned():
                pruned = event.share or 0.0
            case Reconstructed():
                solved = event.seconds
            case Epoch():
                epochs.append(event.seconds)
            case Notice():
                print(f"  note: {event.text}"[:300], flush=True)
            case Finished():
                last = event
        print(f"  {type(event).__name__} at {time.perf_counter() - start:.1f} s", flush=True)
    assert last is not None
    taken = time.perf_counter() - start
    report.seconds[f"whole run, {precision}", there.type] = taken
    peak = torch.cuda.max_memory_allocated(there) / 2**20 if there.type == "cuda" else float("nan")
    certificate = last.certificate
    cells = [
        precision,
        accuracy.get("dense", "-"),
        f"{pruned:.1%}",
        accuracy.get("pruned", "-"),
        accuracy.get("reconstructed", "-"),
        accuracy.get("final", "-"),
        f"{solved:.1f}",
        f"{sum(epochs) / max(1, len(epochs)):.2f}",
        f"{taken:.1f}",
        f"{peak:,.0f}",
        f"{certificate.error:.1e}" if certificate else "none",
    ]
    report.runs.append(f"| {' | '.join(cells)} |")
    if precision == "float32":
        speed_rows(last, report)


def dense_longer(work: Workpiece, size: Size, report: Report) -> None:
    """The control: the dense network trained as long as the compact one was."""
    longer = replace(work, model=pruning.plain(work.model))
    list(finetune(longer, {}, recipe_of(size, "float32")))
    accuracy = pruning.measure(longer, latency=False).accuracy
    report.control = accuracy.text if accuracy else "not measured"


def speed_rows(last: Finished, report: Report) -> None:
    """Latency, memory and size of the dense, the masked and the compact model."""
    models: dict[str, Measurement | None] = {
        "dense": last.dense,
        "masked": last.final,
        "compact": last.compact,
    }
    for name, m in models.items():
        if m is None:
            continue
        for timing in m.timings:
            if timing.latency is None:
                print(f"  {name}, batch {timing.batch}: {timing.why}")
                continue
            ratio = "1" if timing.speedup is None else f"{timing.speedup.value:.2f}"
            memory = m.memory.device if m.memory else None
            cells = [
                name,
                str(timing.batch),
                f"{timing.latency.median:.2f} ({timing.latency.low:.2f} to "
                f"{timing.latency.high:.2f})",
                f"{ratio}×",
                f"{100 * (timing.control or 0):.1f} %",
                timing.verdict,
                f"{(m.macs or 0) / 1e6:,.0f}",
                f"{m.parameters / 1e6:.1f}",
                "-" if memory is None else f"{memory / 2**20:.1f}",
            ]
            report.speeds.append(f"| {' | '.join(cells)} |")


def stages(work: Workpiece, size: Size, report: Report) -> None:
    """The pieces of a run, one by one, where the model lies."""
    there = devices.device_of(work.model)
    recipe = recipe_of(size, "float32")
    assert work.train and work.test and work.example is not None
    few = replace(work, train=work.train.head(size.few))
    by_taylor = replace(recipe, criterion="taylor", granularity="weight", budget="")
    with timed(report, f"choose weights, taylor on {size.few} pictures", there):
        choose(by_taylor, few)
    with timed(report, "choose channels, magnitude", there):
        masks = choose(recipe, work)
    pruned = pruning.plain(work.model)
    apply(masks, pruned)
    with timed(report, "reconstruct, 512 pictures", there):
        reconstruct(pruned, work.model, masks, work.train, work.example)
    with timed(report, "shrink and certify (on the CPU)", there):
        compact_model(pruned, masks, work.example)
    with timed(report, "measure the test pictures", there):
        pruning.measure(work, latency=False)


def short_training(work: Workpiece, size: Size, precision: str, report: Report) -> None:
    """One epoch on few pictures, for CPU and accelerator alike."""
    there = devices.device_of(work.model)
    assert work.train
    few = replace(work, model=pruning.plain(work.model), train=work.train.head(4 * size.batch))
    recipe = Recipe(epochs=1, batch=size.batch, precision=precision)
    if there.type != "cpu":
        list(finetune(few, {}, recipe))  # the libraries choose their kernels in the first one
    with timed(report, f"train {4 * size.batch} pictures, {precision}", there):
        list(finetune(few, {}, recipe))


def attempt(report: Report, what: str, part: Callable[[], Any]) -> Any:
    """Do a part; a failure is printed and noted, and the rest goes on."""
    print(f"== {what}", flush=True)
    try:
        return part()
    except Exception as error:
        traceback.print_exc()
        report.failures.append(f"{what}: {type(error).__name__}: {error}"[:300])
        return None


def table(report: Report, size: Size, device: torch.device, conditions: dict[str, Any]) -> str:
    """The whole file."""
    stages_of = dict.fromkeys(stage for stage, _ in report.seconds)
    rows = []
    for stage in stages_of:
        there = report.seconds.get((stage, device.type))
        here = report.seconds.get((stage, "cpu"))
        ratio = f"{here / there:.1f}×" if here and there and device.type != "cpu" else ""
        shown = ["-" if s is None else f"{s:.2f}" for s in (there, here)]
        rows.append(f"| {stage} | {shown[0]} | {shown[1]} | {ratio} |")
    where = conditions.get("accelerator") or "no accelerator"
    parts = [
        "# A ResNet-50 on an accelerator\n",
        f"Made by `python tests/bench/gpu.py`: {size.architecture} for {CLASSES} classes, "
        f"{size.train:,} training and {size.test:,} test pictures of {size.side} pixels a side "
        "(gratings in ten directions under noise: synthetic, to be learned, no benchmark of "
        f"accuracy), trained {size.epochs[0]} epochs from random weights, then one recipe: half "
        "of the MACs as whole channels by magnitude in each layer, every layer reconstructed, "
        f"the compact model fine-tuned {size.epochs[1]} epochs, certified on the CPU in float64, "
        "measured. Half precision is automatic mixed precision, in training alone.\n",
        f"{datetime.date.today()}, torch {conditions['torch']}, {where}, "
        f"{conditions['threads']} threads of {conditions['processor']}.\n",
        "## Runs\n",
        "Test accuracy at each stage; seconds of reconstruction, of an epoch of fine-tuning and "
        "of the whole run with all its measurements; most memory on the device in MiB; largest "
        "relative difference of compact and masked model.\n",
        "| precision | dense | MACs pruned | pruned | reconstructed | fine-tuned | reconstruct, s "
        "| epoch, s | run, s | memory, MiB | certificate |",
        "|" + "---|" * 11,
        *report.runs,
        f"\nDense, trained as many epochs more in float32: {report.control}.",
        "\n## Dense and compact, measured on the device\n",
        "Milliseconds of a pass, synchronised: median (quartiles); speed over dense, pass by "
        "pass; how far a copy of dense was from it; memory on the device of one picture's pass, "
        "weights included.\n",
        "| model | batch | ms | speed | control | verdict | MACs, million | parameters, million "
        "| memory, MiB |",
        "|" + "---|" * 9,
        *report.speeds,
        "\n## Stages, seconds\n",
        f"| stage | {device.type} | CPU | ratio |\n|---|---|---|---|",
        *rows,
    ]
    if report.failures:
        parts += ["\n## What failed\n", *(f"- {failure}" for failure in report.failures)]
    return "\n".join(parts) + "\n"


def main() -> int:
    parser = argparse.ArgumentParser(description="ResNet-50 on an accelerator.")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--tiny", action="store_true")
    args = parser.parse_args()
    size = TINY if args.tiny else Size()
    device = devices.chosen(args.device)
    if device.type == "cpu" and args.device == devices.AUTO:
        print("This machine has no accelerator: --device cpu runs it here, in hours.")
        return 0
    conditions = machine(device)
    print(conditions, flush=True)
    report = Report()
    cpu = workpiece(size)
    work = devices.on_device(cpu, device)

    def write() -> None:
        args.out.write_text(table(report, size, device, conditions), encoding="utf-8")

    report.save = write
    precision = "float32" if device.type == "cpu" else "bfloat16"
    with timed(report, f"first training, {size.epochs[0]} epochs, {precision}", device):
        attempt(report, "first training", lambda: trained(work, size, precision))
    attempt(report, "run, float32", lambda: whole_run(work, size, "float32", report))
    write()
    attempt(report, "run, bfloat16", lambda: whole_run(work, size, "bfloat16", report))
    write()
    attempt(report, "dense, trained as long", lambda: dense_longer(work, size, report))
    write()
    attempt(report, "stages", lambda: stages(work, size, report))
    kinds = ("float32", "bfloat16", "float16")
    for kind in kinds:
        attempt(report, kind, partial(short_training, work, size, kind, report))
    write()
    if device.type != "cpu":
        here = devices.on_device(work, "cpu")
        attempt(report, "stages on the CPU", lambda: stages(here, size, report))
        attempt(
            report, "training on the CPU", lambda: short_training(here, size, "float32", report)
        )
    write()
    print(args.out.read_text(encoding="utf-8"))
    return min(1, len(report.failures))


if __name__ == "__main__":
    sys.exit(main())
