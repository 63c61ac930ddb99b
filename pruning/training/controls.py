"""Controls of lottery tickets: networks as sparse as the ticket that differ from it in one thing.

The ticket's mask on other weights, its weights under another mask. What beats neither is no ticket.
Frankle & Carbin, 2019, https://arxiv.org/abs/1803.03635
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
import torch
from torch import nn

from pruning.allocation.ranked import rank
from pruning.devices import CPU, device_of, moved, on_cpu, seeded
from pruning.masks import apply
from pruning.recipe import Recipe
from pruning.training.rewind import State, put_back
from pruning.types import Masks, Workpiece


def reinitialised(model: nn.Module, seed: int) -> nn.Module:
    """A copy with random weights by each module's own initialisation, from the seed."""
    # Drawn on the CPU, so that every device starts from the same numbers.
    copied = copy.deepcopy(on_cpu(model))
    # torch's initialisers know only the global generator: it is set, and put back afterwards.
    with seeded(seed, CPU):
        for module in copied.modules():
            _initialise(module)
    return moved(copied, device_of(model))


@torch.no_grad()
def _initialise(module: nn.Module) -> None:
    """A module's own initialisation; parameters without one from a normal of deviation 0.02."""
    # MultiheadAttention spells it with an underscore.
    reset = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    if reset is not None:
        reset()
        return
    for parameter in module.parameters(recurse=False):
        parameter.normal_(0, 0.02)


def control(
    kind: str,
    recipe: Recipe,
    work: Workpiece,
    state: State,
    keep: Masks,
    one_shot: Masks,
    step: int,
) -> tuple[Workpiece, Masks]:
    """The network that a ticket has to beat, untrained, and its masks.

    kind: "reinit", the ticket's mask `keep` on new random weights; or another mask on the weights
    of `state`: "random_mask", as many units of each layer as the ticket keeps, at random;
    "one_shot", the mask `one_shot` of as many weights, chosen at once in the dense network.
    """
    if kind == "reinit":
        other = reinitialised(work.model, _seed(recipe, step, 1))
        apply(keep, other)
        return replace(work, model=other), keep
    masks = one_shot if kind == "one_shot" else random_masks(recipe, work, keep, step)
    other = copy.deepcopy(work.model)
    put_back(state, masks, other)
    return replace(work, model=other), masks


def random_masks(recipe: Recipe, work: Workpiece, keep: Masks, step: int) -> Masks:
    """Masks that keep as many units of each layer as `keep`, at random."""
    random = replace(recipe, criterion="random", options={}, seed=_seed(recipe, step, 2))
    ranked = rank(random, work)
    # Units that the ticket has removed score -inf, so counting those gives its size by layer.
    under_masks = rank(random, work, ranked.units, keep).ranking.units
    drops = {
        name: int(np.searchsorted(scores, -np.inf, "right")) for name, scores in under_masks.items()
    }
    return ranked.masks(drops, work.model)


def _seed(recipe: Recipe, step: int, use: int) -> int:
    """A seed of its own for each step and use, so that no two controls share random numbers."""
    return ((recipe.seed + 1) * 1_000_003 + 10 * step + use) % 2**63
