"""From a recipe to masks: the slider, `choose`, the index, beside torch's and Torch-Pruning's."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch_pruning
import torchvision
from bench._cases import Case, Growth, Trial
from torch import Tensor, nn
from torch.nn.utils import prune

import pruning
from pruning import prepare
from pruning.allocation.ascending import Ascending
from pruning.allocation.ranked import rank
from pruning.recipe import Recipe
from pruning.storage import default_workspace
from pruning.structure import dependency_graph as graphs
from pruning.types import Masks, Workpiece, prunable

GLOBAL = "global_unstructured"
TORCH_PRUNE = "torch.nn.utils.prune with its copy"
TORCH_PRUNING = "Torch-Pruning: copy, graph and step"
CHANNEL = Recipe(
    criterion="magnitude",
    options={"norm": "l2"},
    granularity="channel",
    granularity_options={"pool": "sum"},
    scope="per_layer",
    budget="units",
    sparsity=0.5,
)
"""What Torch-Pruning prunes too: half of each group by the L2 norm over all layers it is in."""


def workpiece(name: str, quick: bool) -> Workpiece:
    """A torchvision model with random weights and its example; quick: a small one in its place."""
    torch.manual_seed(0)
    model = _small(name) if quick else torchvision.models.get_model(name, weights=None)
    # Of one scale: torch empties layers whose weights are all small, which we never do.
    for weight in prunable(model).values():
        nn.init.normal_(weight, std=0.05)
    for module in model.modules():
        # Torch-Pruning's scores leave depthwise kernels out: all of one size, they tip none.
        if isinstance(module, nn.Conv2d) and module.groups > 1:
            nn.init.constant_(module.weight, 0.05)
    side = 32 if quick else 224
    return Workpiece(name, model.eval(), example=torch.randn(1, 3, side, side))


def _small(name: str) -> nn.Module:
    models = torchvision.models
    if name == "vit_b_16":
        return models.VisionTransformer(32, 8, 2, 2, 8, 16, num_classes=4)
    if name == "mobilenet_v2":
        return models.MobileNetV2(4, width_mult=0.25)
    if name == "densenet121":
        return models.DenseNet(8, (2, 2), 16, num_classes=4)
    if name == "resnet18":
        return models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=4)
    block = models.resnet.Bottleneck
    return models.ResNet(block, [1, 1, 1, 1], num_classes=4, width_per_group=8)


# ---------------------------------------------------------------- single weights


def places(model: nn.Module) -> list[tuple[nn.Module, str]]:
    """Module and parameter's name of each prunable weight, as torch.nn.utils.prune takes them."""
    split = [name.rpartition(".") for name in prunable(model)]
    return [(model.get_submodule(path), name) for path, _, name in split]


def pruned_by_torch(model: nn.Module, share: float) -> nn.Module:
    """The same model, after `global_unstructured` by magnitude."""
    prune.global_unstructured(places(model), prune.L1Unstructured, amount=share)
    return model


def same_weights(model: nn.Module, ours: Masks, theirs: nn.Module) -> None:
    """Both keep the same weights; where magnitudes tie at the threshold, as many of them.

    torch breaks ties as its selection happens to find them, we by place.
    """
    weights = prunable(model)
    removed, kept_by_us, kept_by_them = 0.0, 0, 0
    differ = []
    for name, weight in weights.items():
        path, _, short = name.rpartition(".")
        mask = getattr(theirs.get_submodule(path), f"{short}_mask").bool()
        removed = max(removed, _largest(weight.detach()[~ours[name]]))
        differ.append(weight.detach()[ours[name] != mask].abs())
        kept_by_us += int(ours[name].sum())
        kept_by_them += int(mask.sum())
    assert kept_by_us == kept_by_them, (kept_by_us, kept_by_them)
    assert (torch.cat(differ) == removed).all(), "weights off the threshold differ"


def _largest(weights: Tensor) -> float:
    return float(weights.abs().max()) if weights.numel() else 0.0


class _Fresh:
    """A copy of a model for a peer that changes it: made between runs, or within them."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.copied = model

    def renew(self) -> None:
        self.copied = copy.deepcopy(self.model)


def slider(share: float, quick: bool) -> Trial:
    """Masks at a share, from scores sorted once."""
    work = workpiece("resnet50", quick)
    recipe = Recipe(sparsity=share)
    ranked = rank(recipe, work)
    fresh = _Fresh(work.model)

    def before() -> None:
        fresh.renew()
        # As at a place where the slider has not been: nothing there is sorted yet.
        for values in ranked.ranking.units.values():
            if isinstance(values, Ascending):
                values.forget()

    return Trial(
        ours=lambda: ranked.masks(ranked.ranking.drops(recipe), work.model),
        theirs=lambda: pruned_by_torch(fresh.copied, share),
        same=partial(same_weights, work.model),
        before=before,
    )


def choose_weights(name: str, quick: bool) -> Trial:
    """One call from the model to masks; theirs needs a copy to leave the model as it is."""
    work = workpiece(name, quick)
    recipe = Recipe(sparsity=0.5)
    return Trial(
        ours=lambda: pruning.choose(recipe, work),
        theirs=lambda: pruned_by_torch(copy.deepcopy(work.model), 0.5),
        same=partial(same_weights, work.model),
    )


def index(name: str, quick: bool) -> Trial:
    """Everything that a slider needs, against one answer of torch's."""
    work = workpiece(name, quick)
    recipe = Recipe(sparsity=0.9)
    fresh = _Fresh(work.model)

    def same(ranked: Any, theirs: nn.Module) -> None:
        same_weights(work.model, ranked.masks(ranked.ranking.drops(recipe), work.model), theirs)

    return Trial(
        ours=lambda: rank(recipe, work),
        theirs=lambda: pruned_by_torch(fresh.copied, 0.9),
        same=same,
        before=fresh.renew,
    )


# ---------------------------------------------------------------- channels


def pruned_by_torch_pruning(work: Workpiece) -> nn.Module:
    """A copy with half of each group of channels removed; the answers are kept."""
    model = copy.deepcopy(work.model)
    outputs = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    importance = torch_pruning.importance.GroupMagnitudeImportance(
        p=2, group_reduction="sum", normalizer=None, target_types=[nn.Conv2d, nn.Linear], bias=False
    )
    torch_pruning.pruner.BasePruner(
        model, work.example, importance, pruning_ratio=0.5, ignored_layers=[outputs]
    ).step()
    return model


def same_channels(model: nn.Module, ours: Masks, theirs: nn.Module) -> None:
    """Their smaller model holds exactly what our masks keep."""
    remaining = dict(theirs.named_parameters())
    for name, weight in model.named_parameters():
        kept = weight.detach()
        for dim in range(weight.dim() if name in ours else 0):
            mask: Tensor = ours[name].transpose(0, dim).flatten(1) if weight.dim() > 1 else None
            indices = ours[name] if mask is None else mask.any(1)
            kept = kept.index_select(dim, indices.nonzero().flatten())
        assert torch.equal(kept, remaining[name]), name


def channels(name: str, quick: bool) -> Trial:
    """Half the channels of an architecture that was seen before."""
    work = workpiece(name, quick)
    return Trial(
        ours=lambda: pruning.choose(CHANNEL, work),
        theirs=lambda: pruned_by_torch_pruning(work),
        same=partial(same_channels, work.model),
    )


def first_channels(name: str, quick: bool) -> Trial:
    """The same for an architecture that was never seen."""
    trial = channels(name, quick)

    def forget() -> None:
        forget_all()
        shutil.rmtree(default_workspace() / "graphs", ignore_errors=True)

    return Trial(trial.ours, trial.theirs, trial.same, before=forget)


def channels_in_a_new_process(name: str, quick: bool) -> Trial:
    """The same for an architecture that this workspace has seen, but this process has not."""
    trial = channels(name, quick)
    trial.ours()  # which keeps it
    return Trial(trial.ours, trial.theirs, trial.same, before=forget_all)


def forget_all() -> None:
    """What a new process does not know."""
    graphs.forget()
    prepare.forget()


RESNETS = ("resnet18", "resnet50")
CNNS = (*RESNETS, "mobilenet_v2")
BEFORE = {0.3: "37×", 0.5: "53×", 0.9: "73×"}


def _each(
    what: str,
    peer: str,
    make: Callable[[Any, bool], Trial],
    before: dict[Any, str],
    target: tuple[float, float],
) -> list[Case]:
    """A case for each thing that `make` can be asked for."""
    return [
        Case(f"{what}, {key}", peer, partial(make, key), *target, was)
        for key, was in before.items()
    ]


CASES = [
    *_each("slider to masks, resnet50", GLOBAL, slider, BEFORE, (100, 180)),
    *_each(
        "choose weight 0.5",
        TORCH_PRUNE,
        choose_weights,
        {"resnet18": "2.8×", "resnet50": "3.8×", "vit_b_16": "3.3×"},
        (8, 12),
    ),
    *_each(
        "choose channel, warm",
        TORCH_PRUNING,
        channels,
        {"resnet18": "0.41×", "resnet50": "0.44×", "mobilenet_v2": "0.80×"},
        (2, 5),
    ),
    *_each(
        "choose channel, never seen",
        TORCH_PRUNING,
        first_channels,
        {"resnet18": "0.09×", "resnet50": "0.20×", "mobilenet_v2": "0.08×"},
        (0.5, 1),
    ),
    *_each(
        "choose channel, first in a process",
        TORCH_PRUNING,
        channels_in_a_new_process,
        {"resnet18": "0.09×", "resnet50": "0.20×", "mobilenet_v2": "0.08×"},
        (0.5, 1),
    ),
    *_each("index build", GLOBAL, index, {"resnet50": "5.5×", "vit_b_16": "5.3×"}, (10, 15)),
]


# ---------------------------------------------------------------- memory and growth


def plain(step: int, quick: bool) -> tuple[int, Workpiece]:
    """(weights, eight convolutions) of 1.2, 4.7, 19 and 76 million weights."""
    torch.manual_seed(0)
    width = (4 if quick else 128) * 2**step
    layers: list[nn.Module] = [nn.Conv2d(3, width, 3, padding=1)]
    for _ in range(8):
        layers += [nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)]
    pooled = (nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))
    model = nn.Sequential(*layers, *pooled).eval()
    work = Workpiece("plain", model, example=torch.randn(1, 3, 8, 8))
    return sum(weight.numel() for weight in prunable(model).values()), work


def grow_slider(step: int, quick: bool) -> tuple[int, Callable[[], Any]]:
    weights, work = plain(step, quick)
    recipe = Recipe(sparsity=0.9)
    ranked = rank(recipe, work)
    return weights, lambda: ranked.masks(ranked.ranking.drops(recipe), work.model)


def grow(
    call: Callable[[Recipe, Workpiece], Any], recipe: Recipe, step: int, quick: bool
) -> tuple[int, Callable[[], Any]]:
    weights, work = plain(step, quick)
    return weights, partial(call, recipe, work)


GROWTH = [
    Growth("slider to masks", grow_slider),
    Growth("index build", partial(grow, rank, Recipe(sparsity=0.9))),
    Growth("choose weight", partial(grow, pruning.choose, Recipe(sparsity=0.9))),
    Growth("choose channel, warm", partial(grow, pruning.choose, CHANNEL)),
]
