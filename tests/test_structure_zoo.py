"""Dependency groups and compact models of torchvision, beside Torch-Pruning, and in whole runs."""

from __future__ import annotations

import copy
import json
import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

import pruning
from pruning import events
from pruning.allocation.ranked import rank
from pruning.allocation.ranking import Ranking
from pruning.events import Finished
from pruning.recipe import Recipe
from pruning.runs.store import Store
from pruning.structure.dependency_graph import dependency_graph
from pruning.structure.modules import build
from pruning.structure.rewrite import Rewrite
from pruning.structure.shrink import shrink_certified
from pruning.structure.unit_masks import masks_without
from pruning.structure.verify import distance, outputs
from pruning.types import Workpiece, prunable
from pruning.units.pooling import Pooling, pool_group
from tests.long_forms import in_part
from tests.nets import net
from tests.short_nets import SHORT, pictures, short
from tests.toys import toy

EACH_TIME = ["squeezenet", "bottlenecks", "mobilenet_v3", "shufflenet", "densenet"]
EACH_TIME += ["inception", "convnext", "swin", "vit"]
"""Without those whose blocks are others' with fewer kinds of layers in them."""


@pytest.mark.parametrize("name", in_part(SHORT, EACH_TIME))
def test_half_of_a_torchvision_model_is_removed_exactly(name: str) -> None:
    """The comparison alone, once, on a small picture: a certificate takes three times as long.

    Of each family every kind of block; the bench `structure` runs all of them whole, and timm's.
    """
    model, x = short(name), pictures(name)
    graph = dependency_graph(model, x)
    removed = np.zeros(graph.units, bool)
    scores = {n: p.detach().abs() for n, p in model.named_parameters() if p.dim() > 1}
    for group, start in zip(graph.groups, graph.starts, strict=False):
        unit_of = {place: units - start for place, units in graph.unit_of_index.items()}
        pooled = pool_group(group, unit_of, scores, Pooling(), {})
        assert pooled is not None
        order = np.argsort(pooled.numpy(), kind="stable")
        removed[start + order[: group.units // 2]] = True
    model.double()
    pruning.apply(masks_without(graph, removed, model), model)
    rewrite = Rewrite(graph, removed)
    rewrite.run()
    compact = build(model, rewrite, {})
    inputs = (x.double(),)
    assert distance(outputs(model, inputs), outputs(compact, inputs)) <= 1e-12
    half = sum(p.numel() for p in compact.parameters()) / sum(p.numel() for p in model.parameters())
    assert half < 0.5


# ---------------------------------------------------------------- Torch-Pruning


def test_resnet18_at_half_is_the_published_anchor() -> None:
    """MACs as Torch-Pruning's README counts them, with BatchNorm, ReLU and pooling."""
    counting = pytest.importorskip(
        "torch_pruning", reason="Torch-Pruning is a development dependency"
    ).utils.count_ops_and_params
    model, x = torchvision.models.resnet18(weights=None).eval(), torch.randn(1, 3, 224, 224)
    assert counting(model, x) == (1822177768, 11689512)
    work = Workpiece("resnet18", model, example=x)
    recipe = Recipe(granularity="channel", scope="per_layer", sparsity=0.5)
    ranking = rank(recipe, work).ranking
    compact = pruning.shrink(model, rank(recipe, work).masks(ranking.drops(recipe), model), x)
    assert counting(compact, x) == (487202536, 3055880)
    left = ranking.preview(recipe)  # and the preview knew it
    assert left.kept == sum(p.numel() for p in compact.parameters() if p.dim() > 1)
    layers = {layer.name: layer for layer in left.layers}
    for name, p in compact.named_parameters():
        assert name not in layers or layers[name].kept == p.numel()


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_plain_cnns_keep_the_channels_that_torch_pruning_keeps(share: float) -> None:
    """L2 magnitude over a channel's own weights and those that read it.

    The same share of each layer is removed; the classifier's outputs are kept.
    """
    peer = pytest.importorskip("torch_pruning", reason="Torch-Pruning is a development dependency")

    def make() -> nn.Module:
        torch.manual_seed(5)
        return nn.Sequential(
            *(
                nn.Conv2d(1, 8, 3),
                nn.ReLU(),
                nn.Conv2d(8, 16, 3),
                nn.ReLU(),
                nn.Conv2d(16, 12, 3),
                nn.ReLU(),
            ),
            *(
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
                nn.Linear(12, 20),
                nn.ReLU(),
                nn.Linear(20, 4),
            ),
        ).eval()

    x, theirs = torch.randn(1, 1, 12, 12), make()
    importance = peer.importance.GroupMagnitudeImportance(
        p=2, group_reduction="sum", normalizer=None, target_types=[nn.Conv2d, nn.Linear], bias=False
    )
    peer.pruner.BasePruner(
        theirs,
        x,
        importance,
        pruning_ratio=share,
        ignored_layers=[theirs[10]],
        global_pruning=False,
    ).step()
    ours = make()
    recipe = Recipe(
        criterion="magnitude",
        options={"norm": "l2"},
        granularity="channel",
        granularity_options={"pool": "sum"},
        scope="per_layer",
        sparsity=share,
    )
    compact = pruning.shrink(ours, pruning.choose(recipe, Workpiece("plain", ours, example=x)), x)
    for (name, a), b in zip(theirs.named_parameters(), compact.parameters(), strict=True):
        assert torch.equal(a, b), name


# ---------------------------------------------------------------- previews


@pytest.mark.parametrize(
    "name", ["residual", "grouped", "packed_attention", "flatten", "shared", "upward", "split"]
)
@pytest.mark.parametrize("scope", ["global", "per_layer", "lamp", "erk"])
def test_previews_count_what_shrinking_keeps(name: str, scope: str, tmp_path: Any) -> None:
    model, example = net(name)
    work = Workpiece(name, model, example=example)  # type: ignore[arg-type]
    for granularity in ("channel", "head") if "attention" in name else ("channel",):
        recipe = Recipe(granularity=granularity, scope=scope, sparsity=0.5)
        units = rank(recipe, work)
        left = units.ranking.preview(recipe)
        compact, certificate = shrink_certified(model, units.masks(left.drops, model), example)
        parameters = dict(compact.named_parameters())
        assert {layer.name: layer.kept for layer in left.layers} == {
            n: parameters[n].numel() for n in prunable(model) if n in parameters
        }
        assert certificate.removed == sum(left.drops[group] for group in units.ranking.units)
        units.ranking.save(tmp_path / "ranking.npz")
        assert Ranking.load(tmp_path / "ranking.npz").preview(recipe) == left


def test_what_is_kept_is_a_multiple_where_that_is_asked() -> None:
    work = Workpiece("resnet", short("resnet"), example=pictures("resnet"))
    recipe = Recipe(granularity="channel", granularity_options={"round_to": 16}, sparsity=0.6)
    ranking = rank(recipe, work).ranking
    left = ranking.preview(recipe)
    kept = {name: left.units[name] - left.drops[name] for name in ranking.units}
    assert all(count % 16 == 0 for count in kept.values()) and len(set(kept.values())) > 1
    free = ranking.preview(replace(recipe, granularity_options={}))
    assert left.share <= 0.6 and free.share <= 0.6


def test_normalised_groups_compare() -> None:
    """One group of huge weights: only the other loses units; beside their means, both do."""
    model = nn.Sequential(
        nn.Linear(6, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 3)
    ).eval()
    with torch.no_grad():
        model[0].weight.mul_(1e3)
    work, drops = Workpiece("two", model, example=torch.randn(1, 6)), {}
    for way in ("none", "mean", "max"):
        recipe = Recipe(
            granularity="channel",
            granularity_options={"normalise": way, "over": "rows"},
            sparsity=0.3,
        )
        drops[way] = rank(recipe, work).ranking.drops(recipe)
    assert drops["none"]["0.weight"] == 0 < drops["none"]["2.weight"]
    assert min(drops["mean"]["0.weight"], drops["max"]["0.weight"]) > 3


def test_a_preview_is_quick() -> None:
    """Loose here, for a busy machine; the bench `preview` holds resnet50 and vit_b_16 to 5 ms."""
    work = Workpiece("bottlenecks", short("bottlenecks"), example=pictures("bottlenecks"))
    recipe = Recipe(granularity="channel", sparsity=0.5)
    ranking = rank(recipe, work).ranking
    seconds = []
    for share in np.linspace(0.1, 0.9, 9):
        start = time.perf_counter()
        ranking.preview(recipe, float(share))
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.05


# ---------------------------------------------------------------- runs


def ended(recipe: Recipe, work: Workpiece, **more: Any) -> tuple[list[events.Event], Finished]:
    history = list(pruning.run(recipe, work, **more))
    assert isinstance(history[-1], Finished)
    return history, history[-1]


@pytest.mark.parametrize("granularity", ["channel", "head"])
def test_a_run_ends_with_a_certified_compact_model(granularity: str) -> None:
    work = toy("residual" if granularity == "channel" else "attention")
    kept: list[tuple[nn.Module, events.Certificate]] = []
    recipe = Recipe(granularity=granularity, sparsity=0.4, steps=2, epochs=1)
    history, end = ended(
        recipe, work, keep_compact=lambda model, certificate: kept.append((model, certificate))
    )
    assert end.certificate is not None and end.compact is not None
    assert (
        kept[0][1] == end.certificate
        and end.certificate.error <= 1e-9
        and end.certificate.removed > 0
    )
    assert end.compact.accuracy == end.final.accuracy and end.compact.loss == pytest.approx(
        end.final.loss, abs=1e-5
    )
    assert end.compact.weights == end.compact.kept == end.final.kept < end.final.weights
    assert end.compact.macs == end.final.macs_kept and end.compact.size.dense < end.final.size.dense
    assert all(events.from_json(events.to_json(event)) == event for event in history)


def test_the_compact_model_may_be_finetuned_in_the_masked_ones_place() -> None:
    """The same numbers: dropout apart, both see the same examples in the same order."""
    recipe = Recipe(
        granularity="channel", scope="per_layer", sparsity=0.5, steps=2, epochs=2, lr=0.05
    )
    losses = {}
    for compact in (False, True):
        history, end = ended(replace(recipe, finetune_compact=compact), toy("residual"))
        losses[compact] = [e.train_loss for e in history if isinstance(e, events.Epoch)]
        assert end.certificate is not None
        assert [e.sparsity for e in history if isinstance(e, events.Epoch)][-1] == end.sparsity
    assert losses[True] == pytest.approx(losses[False], abs=1e-5)


def test_what_cannot_be_followed_is_pruned_layer_by_layer_and_says_so() -> None:
    class Branching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.h = nn.Linear(5, 8), nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.a(x).relu()
            out: torch.Tensor = self.h(y if y.sum() > 0 else -y)
            return out

    work = replace(toy("mlp"), model=Branching().eval())
    history, end = ended(
        Recipe(granularity="channel", sparsity=0.3, epochs=1, finetune_compact=True), work
    )
    notices = [event.text for event in history if isinstance(event, events.Notice)]
    assert any("layer by layer" in text and "y.sum() > 0" in text for text in notices)
    assert any(text.startswith("The masked model is fine-tuned") for text in notices)
    assert end.compact is None and end.certificate is None


def test_a_run_leaves_its_compact_model_in_its_folder(home: Any) -> None:
    from safetensors.torch import load_file

    from pruning.runs.handlers import do

    store = Store()
    store.submit(
        "run",
        {"model": "digits-mlp", "granularity": "channel", "scope": "per_layer", "sparsity": 0.5},
    )
    job = store.claim()
    assert job is not None
    do(store, job, lambda: False)
    weights = load_file(job.folder / "slim.safetensors")
    certificate = events.Certificate.from_dict(
        json.loads((job.folder / "certificate.json").read_text(encoding="utf-8"))
    )
    assert sum(w.numel() for w in weights.values()) == certificate.kept < certificate.parameters
    end = store.events(job.id)[-1][1]
    assert isinstance(end, Finished) and end.certificate == certificate


def test_masks_are_the_shape_plan_of_a_compact_file() -> None:
    """Another model of the architecture, made compact by the same masks, takes the file."""
    work = toy("residual")
    masks_ = pruning.choose(Recipe(granularity="channel", sparsity=0.4), work)
    assert work.example is not None
    compact = pruning.shrink(work.model, masks_, work.example)
    again = pruning.shrink(toy("residual", seed=9).model, masks_, work.example)
    again.load_state_dict(copy.deepcopy(compact.state_dict()))
    assert torch.equal(again(work.example), compact(work.example))
