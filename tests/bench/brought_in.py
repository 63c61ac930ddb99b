"""What comes of models that people bring: read, pruned, shrunk, fine-tuned, taken home?

Fine-tuned torchvision files of 5 classes, timm's architectures, Hugging Face directories of tiny
configuration; half of every dependency group pruned, one epoch on noise.
`python3 run.py bench brought_in [NAME ...]`
"""

from __future__ import annotations

import gc
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from bench._table import conditions

import pruning
import sample_models
from pruning import formats
from pruning.errors import PruningError
from pruning.events import Certificate, Finished
from pruning.export import bundle
from pruning.export.result import Result
from pruning.recipe import Recipe
from pruning.runs import own_models
from pruning.runs.resolve import resolve
from pruning.types import Batches, Workpiece, count, take

RESULT = Path(__file__).parent / "results" / "brought_in.md"
CLASSES, EXAMPLES = 5, 4
TORCHVISION = """
    alexnet convnext_tiny densenet121 efficientnet_b0 efficientnet_v2_s googlenet inception_v3
    mnasnet0_5 mobilenet_v2 mobilenet_v3_small regnet_x_400mf regnet_y_400mf resnet18 resnet50
    resnext50_32x4d shufflenet_v2_x0_5 squeezenet1_1 swin_t vgg11_bn vit_b_16
"""
TIMM = """
    resnet10t resnet26d seresnet50 mobilenetv4_conv_small ghostnet_100 convnextv2_atto
    efficientnet_lite0 vit_tiny_patch16_224 mixer_s32_224 repvit_m0_9
"""
TRANSFORMERS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "bert": (
        "BertConfig",
        "BertForSequenceClassification",
        {"vocab_size": 64, "max_position_embeddings": 32},
    ),
    "vit": ("ViTConfig", "ViTForImageClassification", {"image_size": 32, "patch_size": 8}),
    "distilbert": (
        "DistilBertConfig",
        "DistilBertForSequenceClassification",
        {"vocab_size": 64, "dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 4},
    ),
}
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}

HEAD = """# Models that were brought in

Files of torchvision architectures with 5 classes, under `module.` and beside an optimizer; timm's
architectures by name; Hugging Face directories of tiny configuration. Half of the units of every
dependency group pruned by magnitude, one epoch on {examples} examples of noise. *Shrunk*:
parameters of the compact model, as a share, and its largest relative difference from the masked
one. *Taken home*: files of the bundle beside the weights.

{conditions}

| model | read | pruned | shrunk | fine-tuned | taken home | s |
|---|---|---|---|---|---|---|
"""


def torchvision_file(name: str, folder: Path) -> Workpiece:
    torch.manual_seed(0)
    state = sample_models.build(f"torchvision:{name}", seed=1, classes=CLASSES).state_dict()
    beside = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    file = folder / f"{name}.pt"
    wrapped = {f"module.{key}": value for key, value in state.items()}
    torch.save({"state_dict": wrapped, "optimizer": beside}, file)
    return resolve(
        formats.accept(file, f"torchvision:{name}", folder / "home").model, folder / "home"
    )


def timm_name(name: str, folder: Path) -> Workpiece:
    return resolve(f"timm:{name}", folder)


def hugging_face(name: str, folder: Path) -> Workpiece:
    import transformers  # type: ignore[import-untyped, unused-ignore]

    config, kind, options = TRANSFORMERS[name]
    small = SMALL if "dim" not in options else {}
    made = getattr(transformers, config)(**small, **options, num_labels=CLASSES)
    torch.manual_seed(0)
    getattr(transformers, kind)(made).save_pretrained(folder / name)
    return resolve(own_models.name(f"hf:{folder / name}"), folder)


def with_noise(work: Workpiece) -> Workpiece:
    """As much data as an epoch takes."""
    assert work.example is not None
    generator = torch.Generator().manual_seed(0)
    picked = torch.randint(0, count(work.example), (EXAMPLES,), generator=generator)
    x = take(work.example, picked)
    data = Batches(x, torch.arange(EXAMPLES) % CLASSES, batch=2)
    return replace(work, train=data, validation=data, test=data)


def row(name: str, load: Callable[[str, Path], Workpiece]) -> str:
    """A line of the table: how far it came, and why no farther."""
    began = time.perf_counter()
    cells = ["", "", "", "", ""]
    with TemporaryDirectory() as place:
        folder = Path(place)
        os.environ["PRUNING_HOME"] = str(folder)
        try:
            work = with_noise(load(name, folder))
            cells[0] = "yes"
            _work(work, cells, folder)
        except PruningError as error:
            cells[cells.index("")] = str(error)[:160]
        except Exception as error:  # what nobody foresaw is a row too, and the worst kind
            cells[cells.index("")] = f"FAILED: {type(error).__name__}: {error}"[:160]
    gc.collect()
    return f"| {name} | {' | '.join(cells)} | {time.perf_counter() - began:.0f} |"


def _work(work: Workpiece, cells: list[str], folder: Path) -> None:
    recipe = Recipe(granularity="channel", sparsity=0.5, scope="per_layer", epochs=1, lr=1e-3)
    kept: dict[str, Any] = {}
    compact: list[Certificate] = []
    *_, end = pruning.run(
        recipe,
        work,
        keep=lambda model, masks: kept.update(model=model, masks=masks),
        keep_compact=lambda model, certificate: compact.append(certificate),
    )
    assert isinstance(end, Finished)
    cells[1] = f"{end.sparsity:.0%}"
    if end.compact is not None:
        share = end.compact.parameters / end.dense.parameters
        cells[2] = f"{share:.0%}, {compact[0].error:.0e}" if compact else f"{share:.0%}"
    else:
        cells[2] = "no"
    cells[3] = "yes"
    result = Result(
        "brought", replace(work, model=kept["model"]), kept["masks"], recipe, finished=end
    )
    files = bundle.write(result, folder / "out").files
    cells[4] = ", ".join(file for file in ("model.py", "model.onnx") if file in files) or "weights"


def main(words: list[str]) -> int:
    table = HEAD.format(conditions=conditions(), examples=EXAMPLES)
    print(table, end="", flush=True)
    kinds = (
        (TORCHVISION.split(), torchvision_file),
        (TIMM.split(), timm_name),
        (list(TRANSFORMERS), hugging_face),
    )
    for names, load in kinds:
        for name in names:
            if not words or name in words:
                line = row(name, load)
                print(line, flush=True)
                table += line + "\n"
    if not words:
        RESULT.write_text(table)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
