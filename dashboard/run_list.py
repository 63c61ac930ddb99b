"""The runs of a workspace as a list: their figures, the tree that they form, what a filter shows.

Imports no torch, and draws nothing.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pandas as pd

from dashboard import jobs, models, tables, visitors, words
from pruning import describe
from pruning.errors import PruningError, RunError
from pruning.events import Finished
from pruning.metrics import Quality
from pruning.recipe import Recipe
from pruning.runs.results import load_run
from pruning.runs.store import Job, state_word

MOST = 500
"""Runs that are listed, the newest; a name that people type finds no others."""

STATES = ("queued", "running", "done", "failed", "cancelled", "diverged")
"""Of runs, as people read them."""

DEEPEST = 12
"""Generations that the tree indents: deeper ones stand as deep as these."""


@dataclass(frozen=True)
class Figures:
    """What the list shows of a result. kept: share of the dense model's weights."""

    quality: Quality | None
    kept: float | None

    @property
    def percent_kept(self) -> float | None:
        return None if self.kept is None else 100 * self.kept


@dataclass(frozen=True)
class ListedRun:
    """A run of the list.

    state: as people read it; figures: None without a result; parent: the run whose result it
    started from; disk: bytes of its files; who: asked for it, for who looks; depth: in the tree, 0
    where nothing shown is above it.
    """

    job: Job
    recipe: Recipe
    state: str
    figures: Figures | None
    parent: str | None
    disk: int
    who: str = ""
    depth: int = 0

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def name(self) -> str:
        """What people call it, else what it did."""
        return self.job.label or self.short

    @property
    def short(self) -> str:
        """`magnitude, global, 90.0 %`: what was pruned, or what was asked where nothing was yet."""
        recipe = self.recipe
        if self.figures is not None:
            return words.label(recipe, jobs.facts(self.job))
        way = f"{describe.display_name(recipe.criterion)}, {describe.display_name(recipe.scope)}"
        return f"{way}, {describe.share(recipe.sparsity)} asked" if recipe.budgeted else way

    @property
    def model(self) -> str:
        return models.title(self.recipe.model)


def listed(runs: Iterable[Job]) -> list[ListedRun]:
    """In the order they come in."""
    rows = []
    for job in runs:
        recipe = jobs.recipe_of(job)
        ended = job.state not in jobs.LIVE
        rows.append(
            ListedRun(
                job=job,
                recipe=recipe,
                state=state_word(job.state),
                figures=_figures(job.folder, job.attempt) if ended else None,
                parent=models.parent_of(recipe.model),
                # While it works its files come and vanish: they are counted at its end.
                disk=_disk(job.folder, job.attempt, job.state) if ended else 0,
                who=visitors.who(job.visitor),
            )
        )
    return rows


# Figures alone are kept, since a result holds every layer. The attempt is part of the key: a second
# one writes to the same folder.
@lru_cache(maxsize=8192)
def _figures(folder: Path, attempt: int) -> Figures | None:
    try:
        end: Finished = load_run(folder).finished
    except RunError:
        return None
    small, dense = end.deliverable, end.dense
    kept = small.kept / dense.weights if dense.weights else None
    return Figures(small.quality, kept)


@lru_cache(maxsize=8192)
def _disk(folder: Path, attempt: int, state: str) -> int:
    """Bytes of a run's files."""
    size = 0
    with suppress(OSError):  # none yet, or deleted in this moment
        for file in folder.iterdir():
            size += file.stat().st_size
    return size


# ---------------------------------------------------------------- what is shown


def matches(
    run: ListedRun,
    text: str = "",
    names: Collection[str] = (),
    states: Collection[str] = (),
    tags: Collection[str] = (),
) -> bool:
    """Whether a filter shows a run: all words of the text, one of the models and of the states,
    every one of the tags; what is empty filters nothing.
    """
    if names and run.model not in names:
        return False
    if states and run.state not in states:
        return False
    if not set(tags) <= set(run.job.tags):
        return False
    parts = [run.name, run.short, run.model, run.id, run.job.note or "", *run.job.tags, run.who]
    searched = f"{' '.join(parts)} {words.sentence(run.recipe)}".casefold()
    return all(word in searched for word in text.casefold().split())


def as_tree(runs: Sequence[ListedRun]) -> list[ListedRun]:
    """Each run below the one whose result it started from, as far as that is among them.

    Otherwise in their order. Of runs that name each other in a circle, which only a store that was
    tampered with holds, each is there once.
    """
    known = {run.id for run in runs}
    children: dict[str | None, list[ListedRun]] = defaultdict(list)
    for run in runs:
        children[run.parent if run.parent in known else None].append(run)
    ordered: dict[str, ListedRun] = {}
    waiting = [(run, 0) for run in reversed(children[None])]
    while waiting:
        run, depth = waiting.pop()
        if run.id in ordered:
            continue
        ordered[run.id] = ListedRun(**{**vars(run), "depth": min(depth, DEEPEST)})
        waiting += [(child, depth + 1) for child in reversed(children[run.id])]
    return [*ordered.values(), *(run for run in runs if run.id not in ordered)]


def ancestors(run: ListedRun) -> list[str]:
    """The runs that it started from, the first one first; those that were deleted too."""
    line: list[str] = []
    parent = run.parent
    while parent and parent not in line:
        line.append(parent)
        try:
            parent = models.parent_of(jobs.job(parent).spec.get("model", ""))
        except PruningError:  # removed long ago
            break
    return line[::-1]


# ---------------------------------------------------------------- the table

INDENT = "\u2003"  # as wide as a letter M: a table's cell keeps it


def table(runs: Sequence[ListedRun]) -> pd.DataFrame:
    """A row for each run. when: UTC; disk: MB; who: where others' runs are among them."""
    frame = pd.DataFrame(
        {
            "run": [_indented(run) for run in runs],
            "state": [run.state for run in runs],
            "model": [run.model for run in runs],
            "quality": [_quality(run) for run in runs],
            "kept": [run.figures.percent_kept if run.figures else None for run in runs],
            "when": pd.to_datetime([run.job.submitted for run in runs], unit="s", utc=True),
            "disk": [run.disk / 1e6 for run in runs],
            "tags": [list(run.job.tags) for run in runs],
            "from": [f"run {run.parent[:6]}" if run.parent else "" for run in runs],
            "recipe": [words.sentence(run.recipe) for run in runs],
            "id": [run.id for run in runs],
        }
    )
    if any(run.who not in ("", "you") for run in runs):
        frame.insert(1, "who", [run.who for run in runs])
    return frame


def _indented(run: ListedRun) -> str:
    example = " (example)" if tables.is_example(run.job) and not run.job.label else ""
    return (INDENT * run.depth + "└ " if run.depth else "") + run.name + example


def _quality(run: ListedRun) -> str:
    return words.percent(run.figures.quality) if run.figures else ""
