"""ONNX in: torchvision's architectures, exported, brought back, pruned by channel, fine-tuned.

    .venv/bin/python tests/bench/onnx_in.py                     both exporters of torch: 20 minutes
    .venv/bin/python tests/bench/onnx_in.py older               the older one alone: 3 minutes
    .venv/bin/python tests/bench/onnx_in.py older resnet18      some architectures
    .venv/bin/python tests/bench/onnx_in.py mutations 3000      hostile files: all refused or read

Weights are random, of a fixed seed, with the statistics of norms taken from a batch: without them
what the first layers compute is lost before the last. Writes results/onnx_in.md, in which lines of
another call stay.
"""

from __future__ import annotations

import logging
import random
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torchvision
from torch import Tensor, fx, nn

import pruning
from pruning.formats import accept
from pruning.formats.uploads import ONNX
from pruning.runs.resolve import resolve
from pruning.structure.shrink import shrink_certified
from tests.test_onnx_hostile import mutated, refused_or_read, renamed, sound

TITLE = "ONNX in: torchvision's architectures come back"
RESULTS = Path(__file__).parent / "results" / "onnx_in.md"
NAMES = (
    "resnet18",
    "resnet50",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "densenet121",
    "squeezenet1_1",
    "shufflenet_v2_x1_0",
    "mnasnet0_5",
    "regnet_y_400mf",
    "googlenet",
    "alexnet",
    "convnext_tiny",
    "vit",
)
OWN_SIZE = {"alexnet": 224}
"""Its pooling to 6×6 cannot be exported at 64 pixels."""

EXPORTERS = ("older", "newer")
HEAD = (
    "| architecture | exporter | nodes | largest difference | read | compact parameters | compact "
    "equals masked to | fine-tuned |\n|---|---|---:|---:|---:|---:|---:|---|"
)


def built(name: str) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module
    if name == "vit":
        made = torchvision.models.VisionTransformer(64, 8, 4, 4, 128, 256, num_classes=10)
        nn.init.normal_(made.get_parameter("heads.head.weight"))
        return made.eval()
    extra = {"aux_logits": False, "init_weights": True} if name == "googlenet" else {}
    made = torchvision.models.get_model(name, num_classes=10, **extra)
    return alive(made, torch.randn(8, 3, 64, 64))


def alive(model: nn.Module, x: Tensor) -> nn.Module:
    """Weights with which what the first layers compute is not lost before the last, in place.

    Statistics of batch norms are those of a batch; without any, layers are drawn as He et al. do,
    and ConvNeXt's scales, which begin at 1e-6, are not nothing.
    """
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    model.eval()
    for norm in norms:
        norm.momentum = None  # the plain average of what it sees
        norm.train()
    for module in model.modules():
        if not norms and isinstance(module, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(module.weight)
        if isinstance(getattr(module, "layer_scale", None), nn.Parameter):
            nn.init.constant_(module.layer_scale, 0.5)  # type: ignore[arg-type]
    with torch.no_grad():
        model(x)
    return model.eval()


def exported(model: nn.Module, x: Tensor, exporter: str, file: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if exporter == "older":
            axes = {"x": {0: "batch"}}
            torch.onnx.export(model, (x,), file, dynamo=False, input_names=["x"], dynamic_axes=axes)
        else:
            sizes = ({0: torch.export.Dim("batch")},)
            torch.onnx.export(
                model,
                (x,),
                file,
                dynamo=True,
                external_data=False,
                dynamic_shapes=sizes,
                verbose=False,
            )


def line(name: str, exporter: str) -> str:
    """A row of the table: everything that was done, or what stopped it."""
    size = OWN_SIZE.get(name, 64)
    model, x = built(name), torch.randn(2, 3, size, size)
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"{name}.onnx"
        exported(model, x, exporter, file)
        began = time.perf_counter()
        upload = accept(file, ONNX, Path(folder))
        taken = time.perf_counter() - began
        work = resolve(upload.model, Path(folder))
        assert isinstance(work.model, fx.GraphModule)
        nodes = len(work.model.graph.nodes)
    with torch.no_grad():
        other = torch.randn(3, 3, size, size)
        apart = (work.model(other) - model(other)).abs().max() / model(other).abs().max()
    recipe = pruning.Recipe(granularity="channel", scope="per_layer", sparsity=0.5)
    masks = pruning.choose(recipe, work)
    compact, certificate = shrink_certified(work.model, masks, x)
    losses = [loss.item() for loss in few_steps(compact, x)]
    return (
        f"| {name} | {exporter} | {nodes} | {apart:.0e} | {taken:.1f} s | "
        f"{certificate.kept:,} of {certificate.parameters:,} | {certificate.error:.0e} | "
        f"loss {losses[0]:.2f} to {losses[-1]:.2f} |"
    )


def few_steps(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The losses of a few steps on one batch: gradients reach every layer."""
    model.train()
    optimizer = torch.optim.SGD(model.parameters(), 0.01)
    losses = []
    for _ in range(5):
        loss = nn.functional.cross_entropy(model(x), torch.tensor([1, 2]))
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.detach())
    return losses


def mutations(count: int) -> str:
    generator = random.Random(0)
    content = sound().SerializeToString()
    outcomes = Counter(
        refused_or_read(mutated(content, generator) if i % 2 else renamed(sound(), generator))
        for i in range(count)
    )
    return (
        f"{count:,} mutations of a valid file, half of its bytes and half of its graph: "
        f"{outcomes[False]:,} refused in words, {outcomes[True]:,} read, nothing else."
    )


def main(arguments: list[str]) -> int:
    logging.disable(logging.WARNING)
    lines = earlier()
    if arguments[:1] == ["mutations"]:
        lines["mutations"] = mutations(int(arguments[1]))
        print(lines["mutations"])
        write(lines)
    else:
        exporters = [one for one in arguments if one in EXPORTERS] or EXPORTERS
        names = [one for one in arguments if one in NAMES] or NAMES
        for exporter in exporters:
            for name in names:
                lines[f"{name} {exporter}"] = row = line(name, exporter)
                print(row, flush=True)
                write(lines)
    return 0


def earlier() -> dict[str, str]:
    """The lines that the results hold already, by what they are of."""
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.is_file() else ""
    rows = [row for row in text.splitlines() if row.startswith("| ") and row.count("|") == 9]
    lines = {" ".join(row.replace("|", " ").split()[:2]): row for row in rows}
    counted = [row for row in text.splitlines() if " mutations of " in row]
    return lines | dict.fromkeys(["mutations"][: len(counted)], "".join(counted[:1]))


def write(lines: dict[str, str]) -> None:
    keys = [f"{name} {exporter}" for name in NAMES for exporter in EXPORTERS]
    rows = [lines[key] for key in keys if key in lines]
    about = (
        f"torch {torch.__version__}, torchvision {torchvision.__version__}. Inputs of 64 pixels "
        "(alexnet: 224). Difference: as a share of the largest answer, on another batch than the "
        "export's. Read: in the confined process, its start included. Half of every layer's "
        "channels are pruned."
    )
    text = [f"# {TITLE}", "", about, "", HEAD, *rows, "", lines.get("mutations", "")]
    RESULTS.write_text("\n".join(text).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
