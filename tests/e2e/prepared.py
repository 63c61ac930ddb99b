"""A workspace with finished runs, for looking at pages that have something to show."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from dashboard import example, state
from dashboard.charts import lottery
from dashboard.pages import PAGE_NAMES
from pruning.recipe import Recipe
from pruning.runs.handlers import do
from pruning.runs.store import Store

MODEL = "digits-resnet"
STRUCTURED = Recipe(
    model=MODEL,
    criterion="magnitude",
    granularity="channel",
    sparsity=0.5,
    epochs=1,
)
"""Whole channels: the run whose result has the most to say."""

UNSTRUCTURED = [
    Recipe(model=MODEL, criterion=criterion, sparsity=sparsity)
    for criterion, sparsity in (
        ("magnitude", 0.5),
        ("magnitude", 0.8),
        ("magnitude", 0.9),
        ("taylor", 0.8),
        ("fisher", 0.8),
        ("snip", 0.8),
        ("random", 0.8),
    )
]


TICKETS = replace(state.LOTTERY_RECIPE, steps=3, epochs=1, sparsity=0.8)
SET = "5e7a5e7a5e"
"""The id of a set of lottery runs."""


def finished_runs(home: Path) -> list[str]:
    """Run a structured recipe and seven others to their end, here; their ids, in that order.

    And a lottery of two seeds, the set SET.
    """
    store = Store(home)
    example.ensure(store)
    for recipe in lottery.recipes(TICKETS, 2):
        _finished(store, recipe, batch=SET)
    return [_finished(store, recipe) for recipe in (STRUCTURED, *UNSTRUCTURED)]


def _finished(store: Store, recipe: Recipe, batch: str | None = None) -> str:
    id = store.submit("run", recipe.to_dict(), batch=batch)
    job = store.claim(queues=("run",))
    assert job is not None and job.id == id
    do(store, job, lambda: False)
    return id


def addresses(runs: Sequence[str], *, large: bool = True) -> dict[str, str]:
    """Every page, by the name of its picture: path and query.

    runs: of `finished_runs`; large: with pages of networks that take a while to read.
    """
    structured = f"r={state.encode(STRUCTURED)}"
    pages = {name: f"/{name}?{structured}" for name in PAGE_NAMES} | {
        "model": f"/?{structured}",
        "run": f"/run?{structured}&run={runs[0]}",
        "compare-3": f"/compare?{structured}&c={','.join(runs[:3])}",
        "compare-8": f"/compare?{structured}&c={','.join(runs[:8])}",
        "lottery-set": f"/lottery?{structured}&set={SET}",
    }
    if large:
        for name in ("resnet18", "vit_b_16"):
            recipe = state.encode(Recipe(model=f"torchvision:{name}", sparsity=0.5))
            for page in ("inspect", "prune"):
                pages[f"{page}-{name}"] = f"/{page}?r={recipe}"
    return pages
