"""Does a search beat the default technique, and random search? digits-cnn, 60 trials of each line.

The smallest file within a point of dense on validation data, by TPE and by random search; then what
each found, and the default technique, are run with seeds that no search saw, and compared on test
data. `python3 run.py bench search`
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from statistics import mean
from typing import Any

from bench._table import conditions

from pruning.recipe import Recipe
from pruning.runs.store import Store
from pruning.runs.worker import Shutdown
from pruning.sweeps import sweeps
from pruning.sweeps.goal import Goal
from pruning.sweeps.here import run_here
from pruning.sweeps.plan import RANDOM_SEARCH, SEARCH, Plan
from pruning.sweeps.search import (
    TRIALS,
    Answer,
    Trial,
    advance,
    answers,
    best,
    default,
    open_search,
    trials,
)

RESULT = Path(__file__).parent / "results" / "search.md"
GOAL = Goal("digits-cnn", find="smallest", within_points=1, epochs=4)
LARGER = {1.0: "as small", 1.15: "15 % larger", 1.3: "30 % larger", 1.5: "50 % larger"}
"""Sizes of the default technique's files, in sizes of the search's."""
SEEDS = (11, 12, 13, 14, 15)
"""Of the comparison: none of them is the search's own."""

HEAD = """# Search

{model}: {goal}, by validation data; {trials} trials of each line, {epochs} epochs of fine-tuning
each. The first ten of the search are drawn at random, from the same seeds as the control's.

{conditions}

## What each line found

*points*: below dense on the 180 validation digits, where one is 0.56, mean over the seeds;
*allowed*: trials that keep the limit by one seed, of which the smallest that keeps it by the mean
over all is the answer; *magnitude* is the default technique at its five levels.

| line | trials | allowed | bytes | weights kept | points | seeds | recipe |
|---|---|---|---|---|---|---|---|
{answers}

Bytes of the smallest that keeps the limit by one seed, after so many trials:

| line | {counts} |
|---|{rules}|
{progress}

## On test data, with other seeds

Mean of {seeds} seeds that no search saw, and the lowest and the highest, on the 360 test digits,
where one is 0.28 percentage points. *The default as small*: the default technique at the sparsity
that gives a file of the same size as the search's, and larger ones.

| recipe | bytes | accuracy, % | seeds |
|---|---|---|---|
{tested}

{verdict}
"""


def answer_row(line: list[Trial], answer: Answer | None) -> str:
    allowed = sum(GOAL.allows(t.outcome) for t in line if t.outcome)
    cells = [line[0].line, str(len(line)), str(allowed)]
    if answer is None:
        return f"| {' | '.join([*cells, 'none', '–', '–', '–', '–'])} |"
    of = answer.mean
    fields = answer.trial.recipe.short().items()
    recipe = ", ".join(f"{name} {value}" for name, value in fields if name != "model")
    cells += [f"{of.bytes:,}", f"{of.weights:.2%}", f"{of.points:+.2f}"]
    cells += [str(answer.seeds), recipe]
    return f"| {' | '.join(cells)} |"


COUNTS = (5, 10, 20, 30, 40, 50, 60)
"""Trials after which the search is looked at."""


def _counts(trials: int) -> list[int]:
    return [count for count in COUNTS if count < trials] + [trials]


def progress(line: list[Trial]) -> str:
    cells = []
    for count in _counts(len(line)):
        chosen = best(GOAL, line[:count])
        of = chosen[0].outcome if chosen else None
        cells.append(f"{of.bytes:,}" if of else "none")
    return f"| {line[0].line} | {' | '.join(cells)} |"


def as_small(levels: list[Trial], size: int) -> Recipe:
    """The default technique with a file of so many bytes: those of a sparse file grow evenly."""
    known = [(t.outcome.bytes, t.outcome.weights) for t in levels if t.outcome]
    (low, few), *_, (high, many) = sorted(known)
    kept = few + (size - low) / (high - low) * (many - few)
    return replace(levels[0].recipe, sparsity=round(min(max(1 - kept, 0.0), 0.999), 4))


def on_test(store: Store, recipes: dict[str, Recipe]) -> dict[str, list[dict[str, Any]]]:
    """Name -> a row of each seed."""
    singles = []
    for name, recipe in recipes.items():
        fields = {key: value for key, value in recipe.short().items() if key != "model"}
        singles += [{"name": name, **fields, "seed": seed} for seed in SEEDS]
    plan = Plan(
        models=(GOAL.model,), sparsities=(0.5,), controls=("dense",), singles=tuple(singles)
    )
    id = sweeps.submit(store, plan)
    run_here(store, id, Shutdown())
    rows = sweeps.rows(store, id)
    return {name: [row for row in rows if row["technique"] == name] for name in recipes}


def tested(name: str, rows: list[dict[str, Any]]) -> str:
    values = [100 * row["accuracy"] for row in rows]
    size = round(mean(row["bytes"] for row in rows))
    spread = f"{mean(values):.2f} ({min(values):.1f} to {max(values):.1f})"
    return f"| {name} | {size:,} | {spread} | {len(values)} |"


def verdict(rows: dict[str, list[dict[str, Any]]]) -> str:
    """What the figures say, in words that follow from them alone."""
    names = list(rows)
    size = {name: mean(row["bytes"] for row in rows[name]) for name in names}
    accuracy = {name: 100 * mean(row["accuracy"] for row in rows[name]) for name in names}
    search, control, limit, *defaults = names
    lines = []
    for other in (control, limit, defaults[0]):
        gap = accuracy[search] - accuracy[other]
        share = size[search] / size[other]
        lines.append(f"- Against {other}: {share:.0%} of the bytes, {gap:+.2f} points.")
    as_good = [name for name in (*defaults, limit) if accuracy[name] >= accuracy[search]]
    if as_good:
        smallest = min(as_good, key=lambda name: size[name])
        share = size[search] / size[smallest]
        lines.append(
            f"- The smallest default that is as accurate: {smallest}, {size[smallest]:,.0f} bytes; "
            f"the search's has {share:.0%} of them."
        )
    else:
        lines.append("- No default of these sizes is as accurate as the search's.")
    dense = [100 * row["dense"] for row in rows[search]]
    lines.append(f"- Below the dense model on test data: {mean(dense) - accuracy[search]:+.2f}.")
    return "\n".join(lines)


def main() -> None:
    when = conditions()
    with tempfile.TemporaryDirectory() as folder:
        # A folder of one's own keeps the runs, so that an interrupted benchmark goes on; a number
        # after it is that of the trials.
        words = sys.argv[1:] or [folder]
        count = int(words[1]) if len(words) > 1 else TRIALS
        measure(Store(Path(words[0]).resolve()), count, when)


def measure(store: Store, count: int, when: str) -> None:
    search = open_search(store, GOAL)
    while advance(search, count):
        run_here(store, search.sweep, Shutdown())
    run_here(store, search.sweep, Shutdown())
    every = trials(search)
    lines = [[trial for trial in every if trial.line == name] for name in (SEARCH, RANDOM_SEARCH)]
    levels = default(search)
    chosen = [answers(search, SEARCH), answers(search, RANDOM_SEARCH)]
    chosen.append([Answer(t, t.outcome, 1) for t in best(GOAL, levels) if t.outcome])
    first = [next(iter(each), None) for each in chosen]
    recipes: dict[str, Recipe] = {}
    names = ("the search's", "random search's", "the default that keeps the limit")
    for name, answer in zip(names, first, strict=True):
        if answer is None:
            raise SystemExit(f"{name}: no trial keeps the limit, so there is nothing to compare.")
        recipes[name] = answer.trial.recipe
    for times, name in LARGER.items():
        size = round(times * chosen[0][0].mean.bytes)
        recipes[f"the default {name}"] = as_small(levels, size)
    rows = on_test(store, recipes)
    pairs = zip((*lines, levels), first, strict=True)
    text = HEAD.format(
        model=GOAL.model,
        goal=GOAL.in_words(),
        trials=count,
        epochs=GOAL.epochs,
        conditions=when,
        answers="\n".join(answer_row(line, answer) for line, answer in pairs),
        counts=" | ".join(map(str, _counts(count))),
        rules="|".join("---" for _ in _counts(count)),
        progress="\n".join(map(progress, lines)),
        seeds=len(SEEDS),
        tested="\n".join(tested(name, own) for name, own in rows.items()),
        verdict=verdict(rows),
    )
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    sys.exit(main())
