"""Are MACs those that others count?

Torchvision's published figures (the weights' own record, `_ops`, in G) for twelve architectures,
and torch.utils.flop_counter (two operations a MAC) over all of torchvision's small classifiers.
`python3 run.py bench macs`
"""

from __future__ import annotations

import gc
import sys
from pathlib import Path

import torch
import torchvision
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from pruning.evidence import frozen_eval
from pruning.measurement import count_uses, macs

RESULTS = Path(__file__).parent / "results"
PUBLISHED = """
    alexnet vgg16 resnet18 resnet50 resnext50_32x4d densenet121 mobilenet_v2 mobilenet_v3_large
    efficientnet_b0 convnext_tiny vit_b_16 swin_t
"""
LARGEST = 100e6
"""Parameters of the models that the second table takes."""


def counted(model: nn.Module, x: torch.Tensor) -> tuple[int, int]:
    """MACs of one example: of covered weights, and of what belongs to none."""
    return sum(macs(model, x).values()), count_uses(model, x).other


def flops(model: nn.Module, x: torch.Tensor) -> int:
    """MACs of one example by torch's own counter, which looks at each operation's shapes."""
    counter = FlopCounterMode(display=False)
    # Unfused, or attention is one operation that it knows nothing of.
    with torch.no_grad(), frozen_eval(model), counter:
        model(x)
    return counter.get_total_flops() // 2


def published(name: str) -> str:
    """A row: ours beside the figure that comes with the weights."""
    weights = torchvision.models.get_model_weights(name)
    default = weights.DEFAULT if name not in ("resnet50",) else weights.IMAGENET1K_V1
    side = default.transforms().crop_size[0]
    model = torchvision.models.get_model(name, weights=None)
    own, other = counted(model, torch.zeros(1, 3, side, side))
    theirs = default.meta["_ops"]
    off = (own + other) / 1e9 / theirs - 1
    figures = f"{own / 1e9:.3f} | {other / 1e9:.3f} | {(own + other) / 1e9:.3f} | {theirs:.3f}"
    return f"| {name} | {side} | {figures} | {off:+.2%} |"


def against_counter(name: str) -> str:
    """A row: ours beside torch's counter, at the smallest size that the model takes."""
    extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = torchvision.models.get_model(name, weights=None, **extra)
    if sum(p.numel() for p in model.parameters()) > LARGEST:
        return ""
    fixed = name.startswith(("vit_", "maxvit"))
    side = 224 if fixed else 96
    x = torch.zeros(1, 3, side, side)
    own, other = counted(model, x)
    theirs = flops(model, x)
    verdict = "equal" if own + other == theirs else f"{(own + other) / theirs - 1:+.3%}"
    return f"| {name} | {side} | {own:,} | {other:,} | {theirs:,} | {verdict} |"


def main() -> None:
    torch.set_num_threads(1)
    lines = [
        "# MACs, against others' counts",
        "",
        f"torch {torch.__version__}, torchvision {torchvision.__version__}. Counts, not times: any "
        'machine gives the same. "Of no weight" are attention\'s two products.',
        "",
        "## Torchvision's published figures, G",
        "",
        "| model | side | of weights | of no weight | all | published | off by |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in PUBLISHED.split():
        lines.append(published(name))
        print(lines[-1], flush=True)
        gc.collect()
    lines += [
        "",
        "## torch.utils.flop_counter (halved), over torchvision's classifiers under "
        f"{LARGEST / 1e6:.0f} M parameters",
        "",
        "| model | side | of weights | of no weight | torch's counter | |",
        "|---|---|---|---|---|---|",
    ]
    for name in torchvision.models.list_models(module=torchvision.models):
        row = against_counter(name)
        if row:
            lines.append(row)
            print(row, flush=True)
        gc.collect()
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "macs.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main())
