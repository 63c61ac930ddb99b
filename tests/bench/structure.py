"""Does a compact model compute what the masked one does?

Every torchvision classifier that fits, and timm's: half of each dependency group is removed by
magnitude, the compact model runs forward and backward and is certified in float64.
`python3 run.py bench structure [torchvision] [timm] [NAME ...]`
"""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from torch import Tensor, nn

from pruning.errors import ModelError
from pruning.structure import dependency_graph as graphs
from pruning.structure.dependency_graph import DependencyGraph, dependency_graph
from pruning.structure.shrink import shrink_certified
from pruning.structure.unit_masks import masks_without
from pruning.units.pooling import Pooling, pool_group

RESULTS = Path(__file__).parent / "results"
LARGEST = 150e6
"""Parameters. A certificate holds the model four times in float64, and the machine is shared."""

SIDES = {"vit_": 224, "maxvit": 224, "inception": 96}
TIMM = """
    resnet10t resnet26d resnetv2_50 seresnet50 ecaresnet26t skresnet18 resnest14d
    res2net50_26w_4s gernet_s densenet121 dla34 dpn68 hrnet_w18_small vovnet39a cspresnet50
    cspdarknet53 repvgg_a2 xception41 mobilenetv4_conv_small mobileone_s0 efficientnet_lite0
    tf_efficientnetv2_b0 mixnet_s ghostnet_100 rexnet_100 fbnetc_100 hardcorenas_a spnasnet_100
    tinynet_a regnetz_b16 nfnet_f0 nf_resnet26 convnextv2_atto convnext_atto convmixer_768_32
    edgenext_xx_small mobilevit_xxs mobilevitv2_050 poolformer_s12 resmlp_12_224 mixer_s32_224
    gmlp_ti16_224 vit_tiny_patch16_224 deit_tiny_patch16_224 cait_xxs24_224 crossvit_tiny_240
    pit_ti_224 levit_128s coat_tiny swin_tiny_patch4_window7_224 twins_svt_small visformer_tiny
    xcit_nano_12_p16_224 beit_base_patch16_224 eva02_tiny_patch14_224 volo_d1_224 pvt_v2_b0
    nest_tiny tnt_s_patch16_224 efficientformer_l1 fastvit_t8 inception_next_tiny repvit_m0_9
    starnet_s1 vgg11 selecsls42 lcnet_050 focalnet_tiny_srf
"""


def half(graph: DependencyGraph, model: nn.Module) -> np.ndarray[Any, Any]:
    """The lower half of each group by mean |w| over all its weights."""
    scores = {name: p.detach().abs() for name, p in model.named_parameters() if p.dim() > 1}
    removed = np.zeros(graph.units, bool)
    for i, group in enumerate(graph.groups):
        unit_of = {
            (m.parameter, m.dim): graph.unit_of_index[m.parameter, m.dim] - graph.starts[i]
            for m in group.members
        }
        pooled = pool_group(group, unit_of, scores, Pooling(), {})
        order = (
            np.arange(group.units) if pooled is None else np.argsort(pooled.numpy(), kind="stable")
        )
        removed[graph.starts[i] + order[: group.units // 2]] = True
    return removed


def one(name: str, make: Callable[[], nn.Module], side: int) -> str:
    """A row of the table."""
    torch.manual_seed(0)
    model = make().eval()
    weights = sum(p.numel() for p in model.parameters())
    if weights > LARGEST:
        why = f"left out: over {LARGEST / 1e6:.0f} M parameters"
        return f"| {name} | {weights / 1e6:.1f} | | | | | | {why} |"
    for parameter in model.parameters():  # a head that starts at zero would compare nothing
        if not parameter.any():
            nn.init.normal_(parameter, 0, 0.02)
    x = torch.randn(2, 3, side, side)
    start = time.perf_counter()
    graph = dependency_graph(model, x)
    analysed = time.perf_counter() - start
    masks = masks_without(graph, half(graph, model), model)
    start = time.perf_counter()
    compact, certificate = shrink_certified(model, masks, x)
    shrunk = time.perf_counter() - start
    compact.train()
    loss = _sum(compact(x))
    loss.backward()  # type: ignore[no-untyped-call]
    assert torch.isfinite(loss)
    assert all(p.grad is None or torch.isfinite(p.grad).all() for p in compact.parameters())
    notes = [f"kept {f.group} ({f.units}): {f.why}" for f in certificate.frozen]
    if not notes and not certificate.removed:
        notes.append("nothing can be removed: " + _why(graph))
    if graph.captured.how != "torch.export":
        notes.insert(0, graph.captured.how)
    cells = (
        name,
        f"{weights / 1e6:.2f}",
        f"{certificate.kept / 1e6:.2f}",
        f"{certificate.removed:,} of {certificate.units:,}",
        f"{analysed:.1f}",
        f"{shrunk:.1f}",
        f"{certificate.error:.0e}",
        "; ".join(notes),
    )
    return f"| {' | '.join(cells)} |"


def _why(graph: DependencyGraph) -> str:
    return "; ".join(
        dict.fromkeys(f"{b.why} ({b.operation})" for b in graph.blocked if b.dim == 0)
    )[:200]


def _sum(out: Any) -> Tensor:
    leaves = torch.utils._pytree.tree_leaves(out)
    return torch.stack(
        [leaf.float().square().mean() for leaf in leaves if isinstance(leaf, Tensor)]
    ).sum()


def side(name: str) -> int:
    return next((value for start, value in SIDES.items() if name.startswith(start)), 96)


def zoo(which: list[str]) -> Iterator[tuple[str, Callable[[], nn.Module], int]]:
    if "torchvision" in which:
        for name in torchvision.models.list_models(module=torchvision.models):
            extra = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
            yield (
                f"torchvision {name}",
                lambda name=name, extra=extra: torchvision.models.get_model(
                    name, weights=None, **extra
                ),
                side(name),
            )
    if "timm" in which:
        import timm

        for name in TIMM.split():
            config = timm.get_pretrained_cfg(name)
            size = (
                config.input_size[1]
                if config is not None
                and (config.fixed_input_size or "224" in name or "240" in name)
                else 128
            )
            yield f"timm {name}", lambda name=name: timm.create_model(name, pretrained=False), size


def main(arguments: list[str]) -> None:
    kinds = [a for a in arguments if a in ("torchvision", "timm")] or ["torchvision", "timm"]
    names = [a for a in arguments if a not in kinds]
    file = RESULTS / "structure.md"
    RESULTS.mkdir(exist_ok=True)
    columns = (
        "model",
        "M parameters",
        "compact",
        "units removed",
        "analysed, s",
        "shrunk and certified, s",
        "max error, relative",
        "",
    )
    head = f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}\n"
    rows: list[str] = []
    for name, make, size in zoo(kinds):
        if names and name.split()[1] not in names:
            continue
        try:
            row = one(name, make, size)
        except ModelError as error:  # refused with the reason: what the table is to show
            row = f"| {name} | | | | | | | refused: {str(error)[:300]} |"
        except Exception as error:  # not foreseen: shown as such
            message = str(error).splitlines()[0][:200]
            row = f"| {name} | | | | | | | FAILED: {type(error).__name__}: {message} |"
        rows.append(row.replace("\n", " "))
        print(rows[-1], flush=True)
        graphs._known.clear()
        gc.collect()
        if not names:
            file.write_text(_titled(head + "\n".join(rows) + "\n"), encoding="utf-8")


def _titled(table: str) -> str:
    return (
        "# Structure\n\nHalf of each dependency group removed by magnitude (mean |w| over all of a "
        "unit's weights); the compact model run forward and backward in training mode, certified "
        "in float64: max |masked − compact| / max |masked|, its own and random weights. "
        f"One thread; torch {torch.__version__}, torchvision {torchvision.__version__}. "
        f"Times were taken beside other work.\n\n{table}"
    )


if __name__ == "__main__":
    main(sys.argv[1:])
