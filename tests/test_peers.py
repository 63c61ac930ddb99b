"""Masks equal those of torch.nn.utils.prune where no two weights have one magnitude.

With ties the count is exact, and weights are pruned by flat index.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

import pruning
import sample_models
from pruning.allocation.ranked import rank
from pruning.measurement import output_layer
from pruning.recipe import Recipe
from pruning.types import Workpiece, prunable
from tests.toys import TOYS, toy

RATIOS = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.75, 0.9, 0.99)
SAMPLES = (
    "digits-mlp",
    "digits-cnn",
    "digits-resnet",
    "digits-depthwise",
    "digits-vit",
    "mnist1d-cnn",
)
DTYPES = (torch.float32, torch.bfloat16)


def untied(model: nn.Module, rows: bool = False, seed: int = 0) -> nn.Module:
    """The same model with weights of magnitudes that all differ.

    They are the next floats from 2⁻⁸ on, shuffled by the seed. rows: scale each row by another
    number, so that norms differ by more than rounding.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = list(prunable(model).values())
    counts = [weight.numel() for weight in weights]
    total = sum(counts)
    dtype = weights[0].dtype
    # Floats that follow each other have bit patterns that do.
    bits = torch.int16 if dtype == torch.bfloat16 else torch.int32
    first = int(torch.tensor(2.0**-8, dtype=dtype).view(bits))
    magnitudes = (first + torch.randperm(total, generator=generator)).to(bits).view(dtype)
    assert len(magnitudes.unique()) == total
    assert torch.isfinite(magnitudes).all()
    signs = torch.randint(0, 2, (total,), generator=generator).to(dtype) * 2 - 1
    with torch.no_grad():
        for part, weight in zip(torch.split(magnitudes * signs, counts), weights, strict=True):
            weight.copy_(part.reshape(weight.shape))
            if rows:
                factors = 1 + torch.randperm(len(weight), generator=generator)
                weight *= factors.reshape(-1, *[1] * (weight.dim() - 1))
    return model


def layers(model: nn.Module) -> list[tuple[str, nn.Module, str]]:
    """(prunable name, its module, the parameter's name there)."""
    split = [name.rpartition(".") for name in prunable(model)]
    return [(f"{path}{dot}{name}", model.get_submodule(path), name) for path, dot, name in split]


def peers(model: nn.Module, how: str, ratio: float) -> dict[str, Tensor]:
    """The masks torch makes, on a copy.

    In float32 for norms, which it would else round to the weights' precision.
    """
    copied = copy.deepcopy(model)
    if how.startswith("ln"):
        copied = copied.float()
    places = layers(copied)
    if how == "global":
        parameters = [(module, name) for _, module, name in places]
        prune.global_unstructured(parameters, prune.L1Unstructured, amount=ratio)
    for _, module, name in places:
        if how == "l1":
            prune.l1_unstructured(module, name, amount=ratio)
        elif how == "random":
            prune.random_unstructured(module, name, amount=ratio)
        elif how.startswith("ln"):
            prune.ln_structured(module, name, amount=ratio, n=int(how[-1]), dim=0)
    return {full: getattr(module, f"{name}_mask").bool() for full, module, name in places}


L1_ROWS = Recipe(scope="per_layer", granularity="row", granularity_options={"pool": "sum"})
RECIPES = {
    "l1": Recipe(scope="per_layer"),
    "global": Recipe(scope="global"),
    "random": Recipe(criterion="random", scope="per_layer"),
    "ln1": L1_ROWS,
    "ln2": replace(L1_ROWS, options={"norm": "l2"}),
}


def agree(work: Workpiece, how: str, ratios: Sequence[float] = RATIOS) -> None:
    """Equal masks; for random ones equal counts.

    Where they empty a layer and we keep a unit, there is nothing to compare.
    """
    recipe = RECIPES[how]
    units = rank(recipe, work)
    compared = 0
    for ratio in ratios:
        drops = units.ranking.drops(replace(recipe, sparsity=ratio))
        ours = units.masks(drops, work.model)
        theirs = peers(work.model, how, ratio)
        names = theirs.keys() - set(units.ranking.fixed)
        emptied = {name for name in names if not theirs[name].any()}
        if how == "global" and emptied:
            continue
        for name in names - emptied:
            if how == "random":
                assert ours[name].sum() == theirs[name].sum(), (name, ratio)
            else:
                assert torch.equal(ours[name], theirs[name]), (name, ratio)
            compared += 1
    assert compared >= len(ratios) / 2


@pytest.mark.parametrize("how", RECIPES)
@pytest.mark.parametrize("name", SAMPLES)
def test_sample_models(name: str, how: str) -> None:
    work = sample_models.load(name, data=False)
    agree(replace(work, model=untied(work.model, how.startswith("ln"))), how)


@pytest.mark.parametrize("how", RECIPES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_shapes_and_dtypes(dtype: torch.dtype, how: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv1d(3, 5, 3),
            nn.Conv2d(2, 7, (1, 3)),
            nn.Conv3d(2, 3, 2),
            nn.Conv2d(6, 6, 3, groups=3),
            nn.Linear(11, 1),
            nn.Linear(1, 13),
            nn.Linear(17, 9),
        )
    agree(Workpiece("shapes", untied(model.to(dtype), how.startswith("ln"))), how)


@pytest.mark.parametrize("how", ["l1", "global"])
def test_a_million_weights(how: str) -> None:
    """At one ratio; `python3 run.py bench peers` takes resnet18's eleven millions at all ten."""
    work = sample_models.load("torchvision:squeezenet1_1", weights="random")
    agree(replace(work, model=untied(work.model, how.startswith("ln"))), how, ratios=(0.9,))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", [name for name in TOYS if name != "attention"])
def test_ties_are_pruned_by_flat_index_and_the_count_is_exact(
    name: str, dtype: torch.dtype
) -> None:
    work = toy(name)
    with torch.no_grad():
        for w in prunable(work.model).values():
            w.copy_(w.sign() * 0.5)
    work = replace(work, model=work.model.to(dtype))
    total = sum(w.numel() for w in prunable(work.model).values())
    for ratio in RATIOS:
        keep = pruning.choose(Recipe(scope="per_layer", sparsity=ratio), work)
        for mask in keep.values():
            removed = min(round(ratio * mask.numel()), mask.numel() - 1)
            assert mask.flatten().tolist() == [False] * removed + [True] * (mask.numel() - removed)
        everywhere = pruning.choose(Recipe(sparsity=ratio), work)
        removed = sum(int((~mask).sum()) for mask in everywhere.values())
        most = total - len(keep)  # one weight of each layer is always kept
        assert removed == min(round(ratio * total), most)


def test_rows_of_the_output_layer_are_left_alone() -> None:
    work = sample_models.load("digits-cnn", data=False)
    assert set(rank(RECIPES["ln1"], work).ranking.fixed) == {output_layer(work)}
