"""What a recipe will leave, for every stop of the dial. A ranking in, plain data out; exact: the scopes that prune decide here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from dashboard import words
from pruning.allocation.ranking import Preview, Ranking
from pruning.errors import RecipeError
from pruning.events import Finished
from pruning.metrics import sparse_bytes
from pruning.recipe import Recipe

STOPS = (*(i / 100 for i in range(100)), *(i / 1000 for i in range(991, 1000)))
"""Shares the dial stops at: every percent, and every tenth of one where the last percents matter most."""

THIN = 0.02
"""A layer with a smaller share of its weights left may pass no signal."""


@dataclass(frozen=True)
class Table:
    """What is left at each stop. stops: shares asked for; kept: (stops, layers) weights; macs, bytes: (stops,) of the whole model."""

    stops: tuple[float, ...]
    kept: NDArray[np.int64]
    macs: NDArray[np.int64]
    bytes: NDArray[np.int64]


def table(ranking: Ranking, recipe: Recipe, stops: Sequence[float] = STOPS) -> Table:
    """Raises RecipeError for a recipe that the model cannot follow."""
    kept = ranking.table(recipe, stops)
    totals = np.array([ranking.total(name) for name in ranking.names], np.int64)
    macs = np.array([ranking.macs.get(name, 0) for name in ranking.names], np.int64)
    packed = np.vectorize(sparse_bytes, [np.int64])(totals, kept)  # (stops, layers)
    return Table(tuple(stops), kept, (macs * kept // totals).sum(1), ranking.other + packed.sum(1))


def with_stop(held: Table, ranking: Ranking, recipe: Recipe) -> tuple[Table, int]:
    """The table with the recipe's own share among its stops, and where that is."""
    at = int(np.searchsorted(held.stops, recipe.sparsity - 1e-9))
    if at < len(held.stops) and abs(held.stops[at] - recipe.sparsity) < 1e-9:
        return held, at
    one = table(ranking, recipe, (recipe.sparsity,))
    stops = (*held.stops[:at], recipe.sparsity, *held.stops[at:])
    return Table(
        stops,
        *(
            np.insert(getattr(held, part), at, getattr(one, part)[0], 0)
            for part in ("kept", "macs", "bytes")
        ),
    ), at


def rules(recipe: Recipe) -> Recipe:
    """The recipe but for what the dial turns and what comes after pruning: two with equal rules have one table."""
    names = (
        "granularity",
        "granularity_options",
        "scope",
        "scope_options",
        "ratios",
        "exclude",
        "min_units",
    )
    kept = {name: getattr(recipe, name) for name in names}
    return Recipe(
        model=recipe.model,
        criterion=recipe.criterion,
        options=recipe.options,
        seed=recipe.seed,
        **kept,
    )


def dial(held: Table, ranking: Ranking, recipe: Recipe, chosen: str | None) -> dict[str, Any]:
    """The data of the ratio dial: numbers as the page writes them, for each stop."""
    held, at = with_stop(held, ranking, recipe)
    totals = [ranking.total(name) for name in ranking.names]
    dense = {
        "weights": sum(totals),
        "macs": sum(ranking.macs.values()),
        "bytes": ranking.other + 4 * sum(totals),
    }
    now = {"weights": held.kept.sum(1), "macs": held.macs, "bytes": held.bytes}
    write = {"weights": words.count, "macs": words.count, "bytes": words.size}
    floors = [ranking.sizes.get(name, 1) * recipe.min_units for name in ranking.names]
    return {
        "index": at,
        "stops": list(held.stops),
        "labels": {
            "stops": [words.share(stop) for stop in held.stops],
            **{
                kind: [
                    write[kind](n) if dense[kind] else words.NOT_MEASURED for n in values.tolist()
                ]
                for kind, values in now.items()
            },
        },
        "beside": {
            kind: [_beside(n, dense[kind], write[kind]) for n in values.tolist()]
            for kind, values in now.items()
        },
        "names": [[name, words.layer_name(name)] for name in ranking.names],
        "notes": [
            ranking.fixed.get(name, "")
            or (f"{name} is left dense by you" if name in recipe.exclude else "")
            for name in ranking.names
        ],
        "totals": totals,
        "kept": held.kept.tolist(),
        "low": [
            max(min_units, int(THIN * total))
            for min_units, total in zip(floors, totals, strict=True)
        ],
        "chosen": chosen,
        "fixed": not recipe.budgeted,
    }


def _beside(n: int, dense: int, write: Any) -> str:
    """What stands under a large number: of how much, and the share."""
    return (
        f"of {write(dense)} · {words.percent(n / dense)}"
        if dense
        else "no example input to count with"
    )


def thin(left: Preview, ranking: Ranking, recipe: Recipe) -> list[str]:
    """One sentence for each layer that falls to its floor or below 2 %: a collapse guard, before anything is run."""
    said = []
    for layer in left.layers:
        min_units = recipe.min_units * ranking.sizes.get(layer.name, 1)
        if layer.kept >= layer.total:
            continue
        if layer.kept <= min_units:
            said.append(
                f"{words.layer_name(layer.name)} falls to its floor ({layer.kept:,} of {layer.total:,} weights)"
            )
        elif layer.kept < THIN * layer.total:
            said.append(
                f"{words.layer_name(layer.name)} keeps {words.percent(layer.kept / layer.total)}"
            )
    return said


def rows(left: Preview) -> pd.DataFrame:
    """The table twin of the dial's bars."""
    return pd.DataFrame(
        {
            "layer": [words.layer_name(layer.name) for layer in left.layers],
            "weights": [layer.total for layer in left.layers],
            "left": [layer.kept for layer in left.layers],
            "share left": [layer.kept / layer.total for layer in left.layers],
            "MACs": [layer.macs for layer in left.layers],
            "MACs left": [layer.macs_kept for layer in left.layers],
        }
    )


def missed(left: Preview, recipe: Recipe) -> str | None:
    """Why what goes is not what was asked for; None where it is."""
    if not recipe.budgeted:
        return (
            f"{words.percent(left.sparsity)} go: the threshold decides, not the slider."
            if recipe.scope == "threshold"
            else None
        )
    if abs(left.sparsity - recipe.sparsity) < 0.0005:
        return None
    if left.sparsity < recipe.sparsity and recipe.granularity == "n_of_m":
        why = f"no more can, for {words.option('granularity', 'n_of_m', recipe.granularity_options, 'n')} of every group stay"
    elif recipe.scope == "per_layer" and recipe.scope_options.get("output", 1) != 1:
        why = "the output layer loses less"
    elif left.sparsity < recipe.sparsity and recipe.granularity == "weight":
        why = "floors hold the rest"
    else:
        why = "units go whole or not at all"
    return f"{words.percent(left.sparsity)} go, not {words.share(recipe.sparsity)}: {why}."


def uniform(ranking: Ranking, recipe: Recipe, share: float) -> dict[str, float]:
    """The same share for each layer that the recipe may take from."""
    return dict.fromkeys(ranking.ranked(replace(recipe, ratios={})).units, share)


def exactness(recipe: Recipe) -> str:
    """How far the numbers can be trusted: what is scored again later may spread differently over the layers."""
    if recipe.scope == "global" and (recipe.steps > 1 or recipe.start == "random"):
        again = (
            "each step scores again" if recipe.steps > 1 else "the run starts from other weights"
        )
        return f"Weights and file: exact. Shares of the layers and MACs: estimate, for {again}."
    return "Exact, to the weight."


def duration(past: Sequence[tuple[dict[str, Any], Finished]], recipe: Recipe) -> float | None:
    """Seconds the run will take, by the newest like it: the same model, batch and healing or none. past: (spec, result), newest first."""
    wanted = recipe.training_epochs()
    same = ("model", "batch", "optimizer") if wanted else ("model",)
    for spec, end in past:
        try:
            earlier = Recipe.from_dict(spec)
        except RecipeError:  # of a technique that is no longer there
            continue
        trained = earlier.training_epochs()
        alike = all(getattr(earlier, name) == getattr(recipe, name) for name in same)
        if alike and bool(trained) == bool(wanted):
            return end.seconds * wanted / trained if wanted else end.seconds
    return None
