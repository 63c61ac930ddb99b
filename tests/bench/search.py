"""Does a search beat the default technique, and random search? 60 trials of each line.

The smallest file within some points of dense on validation data, by TPE and by random search; then
what each found, and the default technique, are run with seeds that no search saw, and compared on
test data. `python3 run.py bench search` does it on digits-cnn. By itself, with words after it, also
on fashion-resnet20, with a part of its images: `PYTHONPATH=.:tests python tests/bench/search.py
MODEL [FOLDER [TRIALS [AHEAD]]]`. A folder of one's own keeps the runs, so that it goes on where it
was interrupted, and workers of that folder help: AHEAD trials of each line are proposed at a time.
"""

from __future__ import annotations

import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import Any

from bench import _fashion_part
from bench._table import conditions

from pruning.recipe import Recipe
from pruning.runs import own_models
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

RESULTS = Path(__file__).parent / "results"
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Case:
    """What is searched for. name: of the sample; seeds: of the comparison on test data, none of
    them the search's own; validation, test: images; aside: what else is to be known.
    """

    name: str
    goal: Goal
    file: str
    seeds: tuple[int, ...]
    validation: int
    test: int
    aside: str = ""


def digits() -> Case:
    goal = Goal("digits-cnn", find="smallest", within_points=1, epochs=4)
    return Case(goal.model, goal, "search.md", (11, 12, 13, 14, 15), 180, 360)


def fashion() -> Case:
    """With an epoch of all 55,000 training images the trials would take a night."""
    goal = Goal(
        own_models.name(f"{Path(_fashion_part.__file__).relative_to(ROOT)}:build", ROOT),
        find="smallest",
        within_points=2,
        epochs=1,
        criteria=("magnitude", "taylor", "wanda"),
        granularities=("weight",),
        kept=(0.03, 0.5),
        steps=(1,),
    )
    part = _fashion_part
    aside = (
        f"The model is {part.SAMPLE} with the first {part.TRAIN} training, {part.VALIDATION} "
        f"validation and {part.TEST} test images of Fashion-MNIST, so that a run takes seconds: "
        f"its fine-tuning is {part.TRAIN // 64} steps, and every figure is of these images. "
        "Single weights alone are pruned, at once, by three criteria in four scopes, with "
        "reconstruction of the outputs of layers or without it.\n\n"
    )
    return Case(
        part.SAMPLE, goal, "search-fashion.md", (11, 12, 13), part.VALIDATION, part.TEST, aside
    )


CASES = {"digits-cnn": digits, "fashion-resnet20": fashion}
RECONSTRUCTED = "the default as small, reconstructed"
LARGER = {1.0: "as small", 1.15: "15 % larger", 1.3: "30 % larger", 1.5: "50 % larger"}
"""Sizes of the default technique's files, in sizes of the search's."""
HEAD = """# Search

{model}: {goal}, by validation data; {trials} trials of each line, {epochs} epoch{plural} of
fine-tuning each. The first ten of the search are drawn at random, from the same seeds as the
control's.

{aside}{conditions}

## What each line found

*points*: below dense on the {validation} validation images, where one is
{one_validation:.2f}, mean over the seeds;
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

Mean of {seeds} seeds that no search saw, and the lowest and the highest, on the {test} test images,
where one is {one_test:.2f} percentage points. *The default as small*: the default technique at the
sparsity that gives a file of the same size as the search's, and larger ones. *Reconstructed*: the
default as small with reconstruction, which the search may choose: what more does the search find?

| recipe | bytes | accuracy, % | seeds |
|---|---|---|---|
{tested}

{verdict}
"""


def answer_row(goal: Goal, line: list[Trial], answer: Answer | None) -> str:
    allowed = sum(goal.allows(t.outcome) for t in line if t.outcome)
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


def progress(goal: Goal, line: list[Trial]) -> str:
    cells = []
    for count in _counts(len(line)):
        chosen = best(goal, line[:count])
        of = chosen[0].outcome if chosen else None
        cells.append(f"{of.bytes:,}" if of else "none")
    return f"| {line[0].line} | {' | '.join(cells)} |"


def as_small(levels: list[Trial], size: int) -> Recipe:
    """The default technique with a file of so many bytes: those of a sparse file grow evenly."""
    known = [(t.outcome.bytes, t.outcome.weights) for t in levels if t.outcome]
    (low, few), *_, (high, many) = sorted(known)
    kept = few + (size - low) / (high - low) * (many - few)
    return replace(levels[0].recipe, sparsity=round(min(max(1 - kept, 0.0), 0.999), 4))


def on_test(
    store: Store, case: Case, recipes: dict[str, Recipe]
) -> dict[str, list[dict[str, Any]]]:
    """Name -> a row of each seed."""
    singles = []
    for name, recipe in recipes.items():
        fields = {key: value for key, value in recipe.short().items() if key != "model"}
        singles += [{"name": name, **fields, "seed": seed} for seed in case.seeds]
    model = case.goal.model
    plan = Plan(models=(model,), sparsities=(0.5,), controls=("dense",), singles=tuple(singles))
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
    search, control, limit, *defaults, reconstructed = names
    lines = []
    for other in (control, limit, defaults[0], reconstructed):
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
    words = sys.argv[1:]
    case = CASES[words[0] if words else "digits-cnn"]()
    with tempfile.TemporaryDirectory() as temporary:
        folder = words[1] if len(words) > 1 else temporary
        count = int(words[2]) if len(words) > 2 else TRIALS
        ahead = int(words[3]) if len(words) > 3 else 1
        measure(Store(Path(folder).resolve()), case, count, when, ahead)


def measure(store: Store, case: Case, count: int, when: str, ahead: int) -> None:
    goal = case.goal
    search = open_search(store, goal)
    while advance(search, count, ahead):
        run_here(store, search.sweep, Shutdown())
    run_here(store, search.sweep, Shutdown())
    every = trials(search)
    lines = [[trial for trial in every if trial.line == name] for name in (SEARCH, RANDOM_SEARCH)]
    levels = default(search)
    chosen = [answers(search, SEARCH), answers(search, RANDOM_SEARCH)]
    chosen.append([Answer(t, t.outcome, 1) for t in best(goal, levels) if t.outcome])
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
    small = recipes["the default as small"]
    recipes[RECONSTRUCTED] = replace(small, reconstruct=True)
    rows = on_test(store, case, recipes)
    pairs = zip((*lines, levels), first, strict=True)
    text = HEAD.format(
        model=case.name,
        aside=case.aside,
        goal=goal.in_words(),
        trials=count,
        epochs=goal.epochs,
        plural="" if goal.epochs == 1 else "s",
        conditions=when,
        validation=case.validation,
        one_validation=100 / case.validation,
        test=case.test,
        one_test=100 / case.test,
        answers="\n".join(answer_row(goal, line, answer) for line, answer in pairs),
        counts=" | ".join(map(str, _counts(count))),
        rules="|".join("---" for _ in _counts(count)),
        progress="\n".join(progress(goal, line) for line in lines),
        seeds=len(case.seeds),
        tested="\n".join(tested(name, own) for name, own in rows.items()),
        verdict=verdict(rows),
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / case.file).write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    sys.exit(main())
