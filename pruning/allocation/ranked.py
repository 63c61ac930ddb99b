"""Score, pool into units, rank: from a criterion's scores to the order in which units are
pruned, and back to masks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, partial

import numpy as np
import torch
from torch import Tensor, nn

from pruning import registry
from pruning.allocation.ascending import ascending
from pruning.allocation.layers import Array, Traced
from pruning.allocation.ranking import Ranking
from pruning.errors import ModelError
from pruning.evidence import Evidence
from pruning.measurement.counts import count_uses, dense_macs, last_used, output_layer
from pruning.measurement.sizes import dense_bytes
from pruning.recipe import Recipe
from pruning.types import Masks, Scores, Workpiece, all_finite
from pruning.units.layout import Units, lay_out


@dataclass(frozen=True)
class RankedUnits:
    """Units with their scores. scores: set -> (units,), in flat order, not sorted; ranking: sorted.

    removed_inside: weight -> True for the weights that are removed when their unit is, where that
    is not all of them (n of m).
    """

    units: Units
    scores: dict[str, Tensor]
    ranking: Ranking
    removed_inside: Masks

    def masks(self, drops: dict[str, int], model: nn.Module) -> Masks:
        """Masks without the `drops` lowest units of each set, ties by flat index."""
        kept = {}
        for name, scores in self.scores.items():
            if drops.get(name, 0):  # sets that lose nothing cost nothing
                kept[name] = _kept(scores, self.ranking.units[name], drops[name])
        masks = self.units.masks(kept, model)
        for name, inside in self.removed_inside.items():
            masks[name] |= ~inside
        return masks


def score(recipe: Recipe, work: Workpiece, evidence: Evidence | None = None) -> Scores:
    """The criterion's scores, higher = keep.

    evidence: what was gathered for another criterion already.
    Raises DataError when it needs data there is none of, ModelError for scores that are not finite.
    """
    evidence = evidence or Evidence.of(work, seed=recipe.seed)
    scores: Scores = registry.get("criterion", recipe.criterion)(evidence, **recipe.options)
    # One NaN would sort to the end and silently be kept; refused, it is found.
    # Scores are ranked as plain data, wherever they were computed.
    scores = {name: values.cpu() for name, values in scores.items()}
    for name, values in scores.items():
        if not all_finite(values):
            raise ModelError(
                f"{recipe.criterion} gives {name} scores that are not finite: gradients may "
                "overflow; try another criterion."
            )
    return scores


def rank(
    recipe: Recipe,
    work: Workpiece,
    units: Units | None = None,
    keep: Masks | None = None,
    evidence: Evidence | None = None,
) -> RankedUnits:
    """Score, pool into units and sort. Touches nothing.

    units: the recipe's, where they are made already. keep: an earlier mask; the units it removed
    score -inf and so never come back.
    """
    if units is None:
        # Made here, it serves both: what it has gathered, and its one check of the weights.
        own = Evidence.of(work, seed=recipe.seed)
        units = lay_out(recipe, work, own)
        evidence = evidence or own
    scores = score(recipe, work, evidence)
    removed_inside: Masks = {}
    for name, tiling in units.tilings.items():
        if tiling.removed_inside:
            if keep:  # what is removed already is the lowest of its run
                scores[name] = scores[name].float().masked_fill(~keep[name], -torch.inf)
            removed_inside[name] = tiling.removed_inside(scores[name])
    pooled = units.pool(scores, keep)
    # As if an earlier step had removed them: every scope counts those, and gives none back.
    for name, numbers in units.named(recipe).items():
        pooled[name] = pooled[name].index_fill(0, torch.tensor(numbers), -torch.inf)
    # In the order in which units are removed, as the sorted scores are.
    costs = {
        name: cost[np.argsort(pooled[name].numpy(), kind="stable")]
        for name, cost in units.uneven_costs().items()
    }
    counts = units.counts()
    weights = sum(shape.numel() for shape in units.shapes.values())
    ranking = Ranking(
        units={name: ascending(values.numpy()) for name, values in pooled.items()},
        sizes=dict(zip(counts.sets, counts.alone().tolist(), strict=True)),
        counts=counts,
        shapes={name: tuple(shape) for name, shape in units.shapes.items()},
        trace=cache(partial(_traced, work)),
        other=dense_bytes(work.model) - 4 * weights,
        fixed=units.fixed,
        costs=costs,
        leaders=units.leaders,
        multiple=units.multiple,
    )
    return RankedUnits(units, pooled, ranking, removed_inside)


def _traced(work: Workpiece) -> Traced:
    """MACs of each layer and the output layer, by one pass."""
    if work.example is None:
        return Traced({}, output_layer(work))
    uses = count_uses(work.model, work.example)
    return Traced(dense_macs(work.model, uses), last_used(work.model, uses))


def _kept(scores: Tensor, in_order: Array, count: int) -> Tensor:
    """Which units are kept when the `count` lowest are pruned; equal scores by flat index.

    scores: (units,) in flat order; in_order: the same, ascending.
    """
    # By threshold with ties counted: as exact as a sort of the tensor, and no second sort.
    threshold = in_order[count - 1]
    keep = scores > float(threshold)
    through_ties = int(np.searchsorted(in_order, threshold, "right"))
    # Where all units at the threshold are pruned, nobody has to find them.
    if through_ties > count:
        below = int(np.searchsorted(in_order, threshold, "left"))
        ties = (scores == float(threshold)).nonzero().flatten()
        keep[ties[count - below :]] = True
    return keep
