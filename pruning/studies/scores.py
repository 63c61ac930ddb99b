"""How a criterion ranks units, as the index that answers a sparsity slider."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pruning.allocation.ranking import Ranking
from pruning.recipe import Recipe
from pruning.selection import rank_with_path
from pruning.types import Workpiece
from pruning.units.layout import lay_out

FARTHEST = 0.99
"""Sparsity that a slider may ask for; how far by_sensitivity measures for it."""

ASKED = ("criterion", "options", "granularity", "granularity_options", "embeddings", "seed")
"""What scores depend on."""

MEASURED = ("scope", "exclude", "min_units")
"""What the allocation path of by_sensitivity depends on besides, which is measured here too."""

NAMED = ("removed", "exclude", "min_units")
"""Units that the recipe names come first in the order, and what decides whether they may."""


def scores(
    spec: dict[str, Any], work: Workpiece, cache: Path | None = None
) -> tuple[dict[str, Any], Ranking]:
    """json: names, and fixed: layers that this granularity leaves dense -> why; npz: Ranking.

    cache: a folder for measured allocation paths.
    """
    names = {*ASKED, *MEASURED, *NAMED}
    fields = {name: spec[name] for name in names if name in spec}
    # The index answers any lower sparsity too, so the farthest is ranked once.
    recipe = Recipe(model=spec["model"], sparsity=FARTHEST, **fields)
    ranking = rank_with_path(recipe, work, lay_out(recipe, work), cache=cache).ranking
    data = {name: getattr(recipe, name) for name in ASKED}
    data["names"] = ranking.names
    data["fixed"] = ranking.fixed
    return data, ranking
