"""Selection: score -> rank -> (allocation path) -> masks; and removal, with the criterion's
compensation.

`choose` is the whole of one-shot pruning. It passes through units/layout (what is pruned together),
allocation/ranked (score, pool, sort), allocation/ranking and scopes (how the budget is spread).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from pruning import registry
from pruning.allocation.ranked import RankedUnits, rank
from pruning.allocation.ranking import Ranking
from pruning.evidence import Evidence
from pruning.masks import apply, intersect
from pruning.prepare import ready
from pruning.recipe import Recipe
from pruning.sensitivity_map import netadapt
from pruning.types import Masks, Workpiece
from pruning.units.layout import Units

TIED = 0.1
"""Share of the units that a layer loses, from which equal scores among them are noticed."""


class Selection(NamedTuple):
    """masks: what is kept; ranking: what it was chosen by; drops: units that each set loses."""

    masks: Masks
    ranking: Ranking
    drops: dict[str, int]

    def units(self, recipe: Recipe) -> tuple[int, int]:
        """(removed, of all that the recipe may remove)."""
        sets = self.ranking.layers_of(recipe).units
        return sum(self.drops[name] for name in sets), sum(map(len, sets.values()))


def choose(recipe: Recipe, work: Workpiece, keep: Masks | None = None, share: float = 1.0) -> Masks:
    """Which weights a recipe keeps, in one shot, at `share` of its sparsity. Touches nothing.

    keep: earlier masks, which are never revived.
    Raises RecipeError, ModelError or DataError; each says the way out.
    """
    work = ready(work)
    # No units are given, so that one look at the weights and their gradients serves all.
    selection = select(recipe, work, None, keep, share)
    # A run says so in a Notice; here there is nobody else to tell.
    if text := tie_warning(recipe, selection, work):
        warnings.warn(text, stacklevel=2)
    return selection.masks


def select(
    recipe: Recipe,
    work: Workpiece,
    units: Units | None,
    keep: Masks | None = None,
    share: float = 1.0,
    cache: Path | None = None,
) -> Selection:
    """`choose`, with units that were made before; None: they are made here.

    cache: a folder for measured allocation paths, so that the next asking goes on from them.
    """
    # Drops are counts of units, so pages that know no weights come to the same ones.
    ranked = rank_with_path(recipe, work, units, keep, cache)
    drops = ranked.ranking.drops(recipe, share=share)
    masks = ranked.masks(drops, work.model)
    # Units removed before score -inf and are counted among the drops; single weights of a unit that
    # is kept whole now may have been removed by another granularity before.
    if keep is not None:
        masks = intersect(masks, keep)
    return Selection(masks, ranked.ranking, drops)


def tie_warning(recipe: Recipe, selection: Selection, work: Workpiece) -> str | None:
    """A sentence where equal scores left it to their place which units of a layer are pruned.

    None where that is less than a tenth of what the layer loses: a few ties are everywhere.
    """
    parameters = dict(work.model.named_parameters(remove_duplicate=False))
    layers = []
    for name, (tied, pruned) in selection.ranking.by_position(selection.drops).items():
        if tied <= max(1, TIED * pruned):
            continue
        if selection.ranking.sizes[name] == 1 and name in parameters:
            # Which of the weights that are zero already are masked is all the same.
            masked = parameters[name].detach().cpu()[~selection.masks[name]]
            zeros = int((masked == 0).sum())
            if zeros >= tied:
                continue
        layers.append(f"{name} ({tied:,} of {pruned:,})")
    if not layers:
        return None
    text = (
        f"{recipe.criterion} scores units alike, and their place alone decided which of them were "
        f"pruned: {listed(layers)}. Choose another criterion, or exclude these layers."
    )
    if any(parameter.dtype == torch.float16 for parameter in work.model.parameters()):
        text += " Small numbers become 0 in float16: score a float32 copy of the model instead."
    return text


def listed(names: Sequence[str], most: int = 3) -> str:
    """The first few, and how many more."""
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def rank_with_path(
    recipe: Recipe,
    work: Workpiece,
    units: Units | None,
    keep: Masks | None = None,
    cache: Path | None = None,
) -> RankedUnits:
    """The ranked units; for scope by_sensitivity with the allocation path that it follows."""
    ranked = rank(recipe, work, units, keep)
    # With every layer excluded there is nothing to measure, and the scope says so itself.
    if recipe.scope != "by_sensitivity" or not ranked.ranking.open(recipe):
        return ranked
    path = netadapt.search(recipe, work, ranked, cache=cache)
    return replace(ranked, ranking=replace(ranked.ranking, path=path))


def compensation(recipe: Recipe, work: Workpiece, masks: Masks) -> dict[str, Tensor]:
    """New values of kept weights, so that they make up for the removed ones. Touches nothing.

    Empty for criteria that do not compensate, which is most.
    """
    compensate = registry.companion(recipe.criterion, "compensate")
    if compensate is None:
        return {}
    evidence = Evidence.of(work, seed=recipe.seed)
    values: dict[str, Tensor] = compensate(evidence, masks, **recipe.options)
    return values


@torch.no_grad()
def remove(recipe: Recipe, work: Workpiece, masks: Masks) -> None:
    """Prune `work.model` in place by `masks`, after the criterion's compensation."""
    parameters = dict(work.model.named_parameters(remove_duplicate=False))
    # Compensation is worked out on the dense weights, so it comes before the zeros.
    for name, values in compensation(recipe, work, masks).items():
        parameters[name].copy_(values)
    apply(masks, work.model)
