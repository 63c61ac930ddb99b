"""Selection: score -> rank -> (allocation path) -> masks; and removal, with the criterion's
compensation.

`choose` is the whole of one-shot pruning. It passes through units/layout (what is pruned together),
allocation/ranked (score, pool, sort), allocation/ranking and scopes (how the budget is spread).
"""

from __future__ import annotations

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
from pruning.recipe import Recipe
from pruning.sensitivity_map import netadapt
from pruning.types import Masks, Workpiece
from pruning.units.layout import Units, lay_out


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
    return select(recipe, work, lay_out(recipe, work), keep, share).masks


def select(
    recipe: Recipe,
    work: Workpiece,
    units: Units,
    keep: Masks | None = None,
    share: float = 1.0,
    cache: Path | None = None,
) -> Selection:
    """`choose`, with units that were made before.

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


def rank_with_path(
    recipe: Recipe,
    work: Workpiece,
    units: Units,
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
