"""Lottery tickets: sparse networks that train from (nearly) their own start as well as the dense one did.

The pieces, for `pruning.pipeline`, which knows their order: weights kept on the way and put back, weights drawn anew, masks drawn by
lot, and how much two masks share. Frankle & Carbin, 2019, https://arxiv.org/abs/1803.03635; rewinding to an early step:
Frankle et al., 2020, https://arxiv.org/abs/1912.05671; rewinding the learning rate: Renda et al., 2020,
https://arxiv.org/abs/2003.02389
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from pruning import masks as _masks
from pruning.errors import OutOfRange
from pruning.recipe import Recipe
from pruning.types import Masks, Workpiece

State = dict[str, Tensor]
"""Parameters and buffers by name, as they were at one moment."""


def snapshot(model: nn.Module) -> State:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def put_back(state: State, masks: Masks, model: nn.Module) -> None:
    """The weights of an earlier moment, bit for bit, but zero where a mask says so; BatchNorm's statistics too."""
    model.load_state_dict(state)
    _masks.apply(masks, model)


def drawn(model: nn.Module, seed: int) -> nn.Module:
    """A copy whose weights are drawn from the seed, by each module's own initialisation."""
    copied = copy.deepcopy(model)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for module in copied.modules():
            _draw(module)
    return copied


@torch.no_grad()
def _draw(module: nn.Module) -> None:
    """A module's own initialisation; parameters of modules that have none are drawn from a normal of deviation 0.02."""
    reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    if reset is not None:
        reset()
        return
    for parameter in module.parameters(recurse=False):
        parameter.normal_(0, 0.02)


def resumes(recipe: Recipe, work: Workpiece) -> int:
    """The optimizer step that training starts from after a rewind: 0 for "init". Raises OutOfRange past the end."""
    if recipe.rewind in ("none", "init"):
        return 0
    steps = recipe.epochs * per_epoch(recipe, work)
    if recipe.rewind_step >= steps:
        raise OutOfRange(
            "rewind_step",
            recipe.rewind_step,
            f"below {steps:,}, the optimizer steps of one training",
        )
    return recipe.rewind_step


def epochs(recipe: Recipe, work: Workpiece) -> int:
    """Epochs that a run trains in all, of controls too; an epoch that is resumed in its middle counts as one."""
    if recipe.rewind == "none":
        return recipe.training_epochs()
    resumes(recipe, work)  # refuses a step past the end
    return recipe.training_epochs(per_epoch(recipe, work))


def per_epoch(recipe: Recipe, work: Workpiece) -> int:
    """Optimizer steps of one pass over the training data."""
    return recipe.steps_per_epoch(len(work.need("train", "Rewinding").x))


def control(
    kind: str, recipe: Recipe, work: Workpiece, state: State, gone: Masks, shot: Masks, step: int
) -> tuple[Workpiece, Masks]:
    """The network that a ticket has to beat, untrained.

    kind: "reinit", the ticket's mask on weights drawn anew; or another mask on the weights of `state`: "random_mask", as many units
    of each layer as the ticket keeps, drawn by lot; "one_shot", `shot`, as many weights, chosen at once in the dense network.
    """
    if kind == "reinit":
        other, masks = drawn(work.model, _seed(recipe, step, 1)), gone
        _masks.apply(masks, other)
    else:
        other, masks = (
            copy.deepcopy(work.model),
            shot if kind == "one_shot" else by_lot(recipe, work, gone, step),
        )
        put_back(state, masks, other)
    return replace(work, model=other), masks


def by_lot(recipe: Recipe, work: Workpiece, gone: Masks, step: int) -> Masks:
    """A mask that keeps as many units of each layer as `gone`, drawn by lot."""
    lot = replace(recipe, criterion="random", options={}, seed=_seed(recipe, step, 2))
    before = _masks.rank(lot, work, gone).ranking.units
    drops = {name: int(np.searchsorted(units, -np.inf, "right")) for name, units in before.items()}
    units = _masks.rank(lot, work)
    return _masks.verdict(
        units, {name: drops.get(name, 0) for name in units.ranking.every}, work.model
    )


def overlap(a: Masks, b: Masks, covered: Collection[str]) -> float:
    """Intersection over union of the covered weights that two masks keep (1: the same ones)."""
    both = sum(int((a[name] & b[name]).sum()) for name in covered)
    either = sum(int((a[name] | b[name]).sum()) for name in covered)
    return both / max(1, either)


def _seed(recipe: Recipe, step: int, use: int) -> int:
    return ((recipe.seed + 1) * 1_000_003 + 10 * step + use) % 2**63
