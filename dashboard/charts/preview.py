"""What a recipe will keep, for every stop of the ratio dial. A ranking in, plain data out.

Exact: the scopes that prune decide here too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dashboard import words
from pruning import describe
from pruning.allocation.ranking import Preview, Ranking
from pruning.describe import Part
from pruning.errors import RecipeError
from pruning.events import Finished
from pruning.metrics import sparse_bytes
from pruning.recipe import Recipe
from pruning.recorded import recorded

STOPS = (*(i / 100 for i in range(100)), *(i / 1000 for i in range(991, 1000)))
"""Shares the dial stops at: every percent, and every tenth of one where they matter most."""

THIN = 0.02
"""A layer that keeps a smaller share of its weights may pass no signal."""

NAME = 24  # letters of a layer's name beside its bar

CLOSE = 1e-9  # shares nearer than this are the same stop


@dataclass(frozen=True)
class StopTable:
    """What is kept at each stop.

    stops: shares asked for; kept: (stops, layers) weights; macs, bytes: (stops,), of the whole
    model.
    """

    stops: tuple[float, ...]
    kept: NDArray[np.int64]
    macs: NDArray[np.int64]
    bytes: NDArray[np.int64]


def stop_table(ranking: Ranking, recipe: Recipe, stops: Sequence[float] = STOPS) -> StopTable:
    """Raises RecipeError for a recipe that the model cannot follow."""
    kept = ranking.table(recipe, stops)
    totals = np.array([ranking.total(name) for name in ranking.names], np.int64)
    macs = np.array([ranking.macs.get(name, 0) for name in ranking.names], np.int64)
    sparse = np.vectorize(sparse_bytes, [np.int64])(totals, kept)  # (stops, layers)
    dense = ranking.other + 4 * int(totals.sum())
    files = np.minimum(dense, ranking.other + ranking.head + sparse.sum(1))
    return StopTable(tuple(stops), kept, (macs * kept // totals).sum(1), files)


def with_stop(table: StopTable, ranking: Ranking, recipe: Recipe) -> tuple[StopTable, int]:
    """The table with the recipe's own share among its stops, and where that is."""
    at = int(np.searchsorted(table.stops, recipe.sparsity - CLOSE))
    if at < len(table.stops) and abs(table.stops[at] - recipe.sparsity) < CLOSE:
        return table, at
    one = stop_table(ranking, recipe, (recipe.sparsity,))
    whole = StopTable(
        stops=(*table.stops[:at], recipe.sparsity, *table.stops[at:]),
        kept=np.insert(table.kept, at, one.kept[0], 0),
        macs=np.insert(table.macs, at, one.macs[0], 0),
        bytes=np.insert(table.bytes, at, one.bytes[0], 0),
    )
    return whole, at


def selection(recipe: Recipe) -> Recipe:
    """The recipe without the dial's share and all that comes after pruning.

    Recipes that are equal in this have one table.
    """
    return Recipe(
        model=recipe.model,
        criterion=recipe.criterion,
        options=recipe.options,
        granularity=recipe.granularity,
        granularity_options=recipe.granularity_options,
        scope=recipe.scope,
        scope_options=recipe.scope_options,
        ratios=recipe.ratios,
        removed=recipe.removed,
        exclude=recipe.exclude,
        embeddings=recipe.embeddings,
        budget=recipe.budget,
        min_units=recipe.min_units,
        seed=recipe.seed,
    )


# ---------------------------------------------------------------- the dial


def dial(
    table: StopTable, ranking: Ranking, recipe: Recipe, chosen: str | None, turn: int = 0
) -> dict[str, Any]:
    """The data of the ratio dial: numbers as the page writes them, for each stop.

    turn: counts how often it was let go.
    """
    table, at = with_stop(table, ranking, recipe)
    names = ranking.names
    totals = [ranking.total(name) for name in names]
    weights = sum(totals)
    columns = {
        "weights": _column(table.kept.sum(1), weights, words.count),
        "macs": _column(table.macs, sum(ranking.macs.values()), words.count),
        "bytes": _column(table.bytes, ranking.other + 4 * weights, words.size),
    }
    labels = {kind: label for kind, (label, _) in columns.items()}
    labels["stops"] = [words.share(stop) for stop in table.stops]
    return {
        "index": at,
        "turn": turn,
        "stops": list(table.stops),
        "labels": labels,
        "beside": {kind: beside for kind, (_, beside) in columns.items()},
        "names": [[name, words.layer_name(name, NAME)] for name in names],
        "notes": [_note(name, ranking, recipe) for name in names],
        "totals": totals,
        "kept": table.kept.tolist(),
        "low": [
            max(_least(name, ranking, recipe), int(THIN * ranking.total(name))) for name in names
        ],
        "chosen": chosen,
        "fixed": not recipe.budgeted,
    }


def _column(
    values: NDArray[np.int64], dense: int, write: Callable[[int], str]
) -> tuple[list[str], list[str]]:
    """A large number for each stop, and what stands under it: of how much, and the share."""
    if not dense:
        return (
            [words.NOT_MEASURED] * len(values),
            ["no example input to count with"] * len(values),
        )
    large = [write(n) for n in values.tolist()]
    beside = [f"of {write(dense)} · {words.percent(n / dense)}" for n in values.tolist()]
    return large, beside


def _note(name: str, ranking: Ranking, recipe: Recipe) -> str:
    """Why the layer keeps all its weights; "" where it need not."""
    if name in ranking.fixed:
        return ranking.fixed[name]
    return f"{name} stays dense by your choice" if name in recipe.exclude else ""


def _least(name: str, ranking: Ranking, recipe: Recipe) -> int:
    """Weights that the minimum of units keeps of the layer.

    0 for dependency groups, whose units own weights of several layers: what such a layer keeps
    depends on what it reads, too.
    """
    if recipe.dependency_groups:
        return 0
    return recipe.min_units * ranking.sizes.get(name, 1)


def _at_minimum(name: str, preview: Preview, ranking: Ranking, recipe: Recipe) -> bool:
    """Whether the set that a layer's outputs are pruned with keeps no unit more than it must."""
    leader = ranking.leaders.get(name, name)
    units = preview.units.get(leader, 0)
    drops = preview.drops.get(leader, 0)
    return drops > 0 and units - drops <= recipe.min_units


# ---------------------------------------------------------------- what stands under the dial


def thin(preview: Preview, ranking: Ranking, recipe: Recipe) -> list[str]:
    """One sentence for each layer that falls to its minimum or below 2 %.

    A collapse guard, before anything is run.
    """
    sentences = []
    for layer in preview.layers:
        if layer.kept >= layer.total:
            continue
        name = words.layer_name(layer.name)
        if _at_minimum(layer.name, preview, ranking, recipe):
            kept = f"{layer.kept:,} of {layer.total:,} weights"
            sentences.append(f"{name} falls to its minimum ({kept})")
        elif layer.kept < THIN * layer.total:
            sentences.append(f"{name} keeps {words.percent(layer.kept / layer.total)}")
    return sentences


def rows(preview: Preview) -> pd.DataFrame:
    """The table of the dial's bars."""
    return pd.DataFrame(
        {
            "layer": [words.layer_name(layer.name) for layer in preview.layers],
            "weights": [layer.total for layer in preview.layers],
            "kept": [layer.kept for layer in preview.layers],
            "share kept": [layer.kept / layer.total for layer in preview.layers],
            "MACs": [layer.macs for layer in preview.layers],
            "MACs kept": [layer.macs_kept for layer in preview.layers],
        }
    )


def missed(preview: Preview, recipe: Recipe) -> str | None:
    """Why another share is pruned than was asked for; None where it is that share."""
    pruned = f"{words.percent(preview.share)} of the {words.counted(recipe)} are pruned"
    if recipe.scope == "threshold":
        return f"{pruned}: the threshold decides, not the slider."
    if not recipe.budgeted or abs(preview.share - recipe.sparsity) < 0.0005:
        return None
    less = preview.share < recipe.sparsity
    if less and recipe.granularity == "n_of_m":
        n = words.option("granularity", "n_of_m", recipe.granularity_options, "n")
        why = f"no more can be, for {n} of every group are kept"
    elif recipe.scope == "per_layer" and recipe.scope_options.get("output", 1) != 1:
        why = "the output layer loses less"
    elif less and recipe.granularity == "weight":
        why = "the minimum of units keeps the rest"
    else:
        why = "units are pruned whole or not at all"
    return f"{pruned}, not {words.share(recipe.sparsity)}: {why}."


def weights_pruned(preview: Preview) -> tuple[Part, Part]:
    """(of the weights that the recipe may prune, of all prunable ones): as a run counts them."""
    # What nothing may be pruned of loses nothing, so both have lost as many.
    pruned = preview.weights - preview.kept
    return Part(pruned, preview.covered), Part(pruned, preview.weights)


def both(preview: Preview, ranking: Ranking, recipe: Recipe) -> str | None:
    """What is pruned, in units and in weights: a share of one is another share of the other.

    None where the dial says it all: single weights, in all layers.
    """
    weights, every = weights_pruned(preview)
    noun = describe.noun(recipe)
    if noun == "weights":
        return None if weights == every else f"{describe.weights_pruned(weights, every)}."
    sets = ranking.layers_of(recipe).units
    removed = sum(preview.drops[name] for name in sets)
    units = sum(map(len, sets.values()))
    counted = f"{words.whole(removed)} of {words.whole(units)} {noun}"
    return f"{counted}, {describe.weights_pruned(weights, every)}."


def uniform(ranking: Ranking, recipe: Recipe, share: float) -> dict[str, float]:
    """The same share for each layer that the recipe may prune."""
    return dict.fromkeys(ranking.layers_of(replace(recipe, ratios={})).units, share)


def exactness(recipe: Recipe) -> str:
    """How far the numbers can be trusted: weights scored again later may spread differently."""
    if recipe.scope != "global":
        return "Exact, to the weight."
    if recipe.steps > 1:
        why = "each step scores again"
    elif recipe.start == "random":
        why = "the run starts from other weights"
    else:
        return "Exact, to the weight."
    return f"Weights and file: exact. Shares of the layers and MACs: estimate, for {why}."


# ---------------------------------------------------------------- how long a run takes


def duration(past: Sequence[tuple[dict[str, Any], Finished]], recipe: Recipe) -> float | None:
    """Seconds the run will take, by the newest like it. past: (spec, result), newest first.

    Like it: the same model; where something is trained, the same batch and optimizer too.
    """
    epochs = recipe.training_epochs()
    same = ("model", "batch", "optimizer") if epochs else ("model",)
    for spec, end in past:
        try:
            earlier = recorded(spec)
        except RecipeError:  # of a technique that is no longer there
            continue
        trained = earlier.training_epochs()
        alike = all(getattr(earlier, name) == getattr(recipe, name) for name in same)
        if alike and bool(trained) == bool(epochs):
            return end.seconds * epochs / trained if epochs else end.seconds
    return None
