"""The sensitivity map: prune one layer (or dependency group) at a time, at every ratio, and see
how accuracy and loss change.

    for point in pruning.sensitivity(work, criterion="magnitude", levels=(0.5, 0.8, 0.9)):
        print(point.layer, point.level, point.accuracy)

Li et al., 2017, section 3.2, https://arxiv.org/abs/1608.08710; as Distiller plots it. On validation
data: ratios are chosen there, and results reported on test data.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pruning.allocation.ranked import rank
from pruning.errors import NothingToPrune, RecipeError, UnknownName
from pruning.events import Point
from pruning.prepare import ready
from pruning.ranges import SHARE, Range
from pruning.recipe import Recipe
from pruning.sensitivity_map.cells import CountCache, cache_key, cells_of
from pruning.sensitivity_map.estimate import estimates
from pruning.sensitivity_map.evaluator import Plan, Repair, measured
from pruning.types import Batches, Workpiece

LEVELS = (0.1, 0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.98)
REPAIRED = 1024
"""Images that a repaired model is asked of, at most."""
TIERS = ("estimate", "progressive", "exact")
MOST_LEVELS = 100
RANGES = {
    "within": Range(0, 1),
    "workers": Range(1, 1024),
    "examples": Range(1, 10_000_000),
}
"""What a map's numbers may be; its seed and minimum units are a recipe's."""


def sensitivity(
    work: Workpiece,
    criterion: str = "magnitude",
    levels: Sequence[float] = LEVELS,
    *,
    options: dict[str, Any] | None = None,
    granularity: str = "weight",
    granularity_options: dict[str, Any] | None = None,
    exclude: Collection[str] = (),
    embeddings: bool = False,
    min_units: int = 1,
    seed: int = 0,
    tier: str = "exact",
    within: float = 0.02,
    examples: int | None = None,
    running: bool = False,
    workers: int = 1,
    stop: Callable[[], bool] | None = None,
    keep: Path | None = None,
    repair: Repair | None = None,
) -> Iterator[Point]:
    """One Point for each layer and level, as soon as it is known. Touches nothing.

    levels: shares of a layer's units to remove, [0, 1); a layer keeps `min_units` whatever is asked
    tier: "estimate" (one gradient pass), "progressive" (paired with the dense model on ever more
        images, until the interval of the change in accuracy is within ± `within`, a share, or the
        layer has surely collapsed), "exact" (every image)
    examples: validation images looked at, at most
    running: also give cells that are not final yet, each time they are refined
    workers: threads that measure, each on one processor; see `free`
    keep: folder where counts are kept, so that the next asking goes on from them; None: memory
        alone
    repair: done to each cell's pruned model before it is asked, in place; for "exact" alone, on at
        most 1,024 images

    Raises RecipeError for what cannot be asked, DataError without validation data, Stopped when
    `stop` says so: what was measured is kept, and the next asking goes on from there.
    """
    for level in levels:
        SHARE.check("A level", level, hint="0.9 removes 90 % of the layer")
    if not 1 <= len(levels) <= MOST_LEVELS:
        raise RecipeError(
            f"There are {len(levels):,} levels: give from one, like 0.5, to {MOST_LEVELS}."
        )
    if tier not in TIERS:
        raise UnknownName("tier", tier, TIERS)
    for name, value in (("within", within), ("workers", workers), ("examples", examples)):
        if value is not None:
            RANGES[name].check(name, value, whole=name != "within")
    recipe = Recipe(
        criterion=criterion,
        options=options or {},
        granularity=granularity,
        granularity_options=granularity_options or {},
        exclude=tuple(exclude),
        embeddings=embeddings,
        min_units=min_units,
        seed=seed,
    )
    work = ready(work)
    data = work.need("validation", "A sensitivity map")
    if repair is not None:
        if tier != "exact":
            raise RecipeError(f"Tier {tier} measures no repaired models: choose exact.")
        examples = min(examples or REPAIRED, REPAIRED)
    if examples is not None:
        data = data.sample(examples)
    if repair is not None:  # one batch: a repaired model is made once, and not kept
        data = replace(data, batch=data.examples)
    refined = within if tier == "progressive" else 0.0
    plan = Plan(tuple(levels), refined, running, workers, stop, repair)
    # The arguments are checked at the call; what follows runs when the first point is asked for.
    return _points(recipe, work, data, tier, plan, keep)


def free() -> int:
    """Threads worth using now: 2 where two processors are idle, else 1."""
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))  # a container may own fewer than the machine has
    else:
        cores = os.cpu_count() or 1
    busy = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    # Half a processor of slack: the page itself and its poll run too.
    return 2 if cores - busy >= 1.5 else 1


def _points(
    recipe: Recipe, work: Workpiece, data: Batches, tier: str, plan: Plan, folder: Path | None
) -> Iterator[Point]:
    ranked = rank(recipe, work)
    layers = ranked.ranking.layers_of(recipe)
    if not layers.units:
        raise NothingToPrune(work.name, "every layer is excluded: leave at least one.")
    cells = cells_of(layers, plan.levels, data.examples)
    if tier == "estimate":
        yield from estimates(ranked, work, data, cells, plan.stop)
        return
    # An exact map takes the data's own batches; a progressive one a random order, so that its first
    # images are of all classes.
    order = None if tier == "exact" else recipe.seed
    how = f"{tier} {order}" + (" repaired" if plan.repair else "")
    cache = CountCache(cache_key(recipe, work, data, how), folder)
    yield from measured(ranked, work, data, cells, plan, cache, order)
