"""What a run is said to have done is what its masks say, over all kinds of recipes."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from typing import Any

import pytest

from dashboard import tables
from dashboard.charts import preview
from pruning import describe, pipeline, registry
from pruning.describe import Part, RunFacts
from pruning.events import Finished, Pruned
from pruning.measurement import macs
from pruning.metrics import sparse_bytes
from pruning.recipe import Recipe
from pruning.selection import choose
from pruning.studies.scores import scores
from pruning.types import Masks, Workpiece
from pruning.units.layout import lay_out
from tests.long_forms import in_part
from tests.toys import toy

KINDS = ("granularity", "scope", "schedule")
TOYS = ("mlp", "one_unit", "ties", "tied", "residual", "depthwise", "attention")
FITTING = {
    "head": ("attention",),
    "kernel": ("residual",),
    "n_of_m": ("mlp", "residual"),
    "channel": ("mlp", "one_unit", "ties", "residual", "depthwise"),
}
"""Granularity -> the toys that it fits, where it does not fit all."""
FORMS = {"block": {"rows": 2, "columns": 3}, "n_of_m": {"n": 1, "m": 2}}
"""Options that fit toys of three to twelve units a layer."""


@cache
def work(name: str) -> Workpiece:
    return toy(name)


def ratios(recipe: Recipe, toy: Workpiece, dice: random.Random) -> dict[str, float]:
    """A share for each set of units that may be pruned."""
    units = lay_out(recipe, toy)
    names = [name for name in units.names if name not in units.fixed]
    return {name: dice.choice([0.0, 0.3, 0.62, 0.9]) for name in names}


def named(recipe: Recipe, toy: Workpiece, dice: random.Random) -> dict[str, list[int]]:
    """One unit of one set, where it may be removed and another is kept."""
    units = lay_out(recipe, toy)
    covered = units.covered(recipe.exclude)
    names = [
        name
        for name in units.names
        if name not in units.fixed
        and units.touched(name) <= covered
        and units.size(name) > recipe.min_units
    ]
    if not names:
        return {}
    name = dice.choice(names)
    return {name: [dice.randrange(units.size(name))]}


def crossed() -> Iterator[tuple[str, str, str]]:
    """Granularity, scope and schedule: each pair of two of them, the schedules in turn."""
    granularities, scopes, schedules = map(registry.names, KINDS)
    for (i, granularity), (j, scope) in itertools.product(
        enumerate(granularities), enumerate(scopes)
    ):
        yield granularity, scope, schedules[(i + j) % len(schedules)]


def recipes() -> Iterator[Recipe]:
    """What is crossed; the rest at random, seeded: the same each time."""
    dice = random.Random(0)
    of_names = random.Random(2)
    for granularity, scope, schedule in crossed():
        model = dice.choice(FITTING.get(granularity, TOYS))
        recipe = Recipe(
            model=model,
            granularity=granularity,
            granularity_options=FORMS.get(granularity, {}),
            scope=scope,
            schedule=schedule,
            criterion=dice.choice(["magnitude", "random"]),
            sparsity=dice.choice([0.1, 0.37, 0.5, 0.83, 0.95]),
            steps=dice.choice([1, 2]),
            epochs=dice.choice([0, 0, 0, 0, 1]),
            min_units=dice.choice([1, 1, 2]),
            seed=dice.randrange(100),
            budget=dice.choice(["", "", "weights", "units", "macs", "bytes"]),
        )
        changes: dict[str, Any] = {}
        if scope == "manual":
            changes["ratios"] = ratios(recipe, work(model), dice)
        elif dice.random() < 0.3:
            units = lay_out(recipe, work(model))
            # Something must remain that may be pruned.
            names = [name for name in units.shapes if units.covered((name,))]
            changes["exclude"] = tuple(dice.sample(names, min(1, len(names))))
        made = Recipe(**{**vars(recipe), **changes})
        # By n of m a unit that is named keeps n of its weights all the same.
        if of_names.random() < 0.3 and granularity != "n_of_m":
            made = replace(made, removed=named(made, work(model), of_names))
        yield made


def counted(recipe: Recipe, masks: Masks) -> tuple[Part, Part, Part]:
    """(weights that may be pruned, all prunable weights, units), by the masks alone."""
    model = work(recipe.model)
    units = lay_out(recipe, model)
    covered = units.covered(recipe.exclude)

    def part(names: set[str]) -> Part:
        total = sum(masks[name].numel() for name in names)
        return Part(total - sum(int(masks[name].sum()) for name in names), total)

    removed = of = 0
    for name in units.names:
        if not units.touched(name) <= covered or name in units.fixed:
            continue
        for unit in range(units.size(name)):
            owned = units.owned(name, unit, model.model)
            of += 1
            # What has no mask is kept whole: biases where nothing is removed.
            kept = sum(int((masks.get(name, own) & own).sum()) for name, own in owned.items())
            # A run of the pattern is pruned when it keeps its n.
            least = FORMS["n_of_m"]["n"] if recipe.granularity == "n_of_m" else 0
            removed += kept <= least
    return part(covered), part(set(units.shapes)), Part(removed, of)


def numbers(text: str) -> list[str]:
    return re.findall(r"\d[\d,.]*(?: %)?", text)


def test_every_sentence_says_what_the_masks_say(monkeypatch: pytest.MonkeyPatch) -> None:
    """Over each pair of granularity, scope and schedule, timing left out."""
    monkeypatch.setattr(pipeline, "finalize", lambda snapshots: [s.measurement for s in snapshots])
    done = set()
    for recipe in recipes():
        masks: Masks = {}

        def keep(model: object, final: Masks, kept: Masks = masks) -> None:
            kept.update(final)

        events = list(pipeline.run(recipe, work(recipe.model), keep=keep))
        last = [event for event in events if isinstance(event, Pruned)][-1]
        facts = describe.facts(recipe, last)
        covered, every, units = counted(recipe, masks)
        assert facts.every == every, recipe
        assert facts.weights == covered or not every.pruned, recipe
        assert isinstance(events[-1], Finished)
        check(recipe, facts, covered, every, units, share_of_budget(recipe, masks, units))
        technique = {kind: getattr(recipe, kind) for kind in KINDS}
        done |= set(itertools.combinations(technique.items(), 2))
    every = itertools.combinations(
        [[(kind, name) for name in registry.names(kind)] for kind in KINDS], 2
    )
    assert done == {pair for two in every for pair in itertools.product(*two)}


GRID = [*itertools.product(*map(registry.names, ("granularity", "scope")))]


# As there is an odd number of scopes, each granularity and each scope comes in both forms.
HALVES = {"first": GRID[::2], "second": GRID[1::2]}
BOTH_FORMS = [*itertools.product(HALVES, ["all layers", "one excluded"])]


@pytest.mark.parametrize(
    ("half", "form"), in_part(BOTH_FORMS, [("first", "all layers"), ("second", "one excluded")])
)
def test_the_page_the_masks_and_the_run_count_alike(
    half: str, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Sensitivity once added ratios up where layers share units: 64.3 % beside Prune's 66.7 %."""
    assert len(registry.names("scope")) % 2
    monkeypatch.setattr(pipeline, "finalize", lambda snapshots: [s.measurement for s in snapshots])
    dice = random.Random(1)
    for granularity, scope in HALVES[half]:
        model = work(FITTING.get(granularity, ("residual",))[-1])
        options = FORMS.get(granularity, {})
        recipe = Recipe(granularity=granularity, granularity_options=options, scope=scope)
        if scope == "manual":
            recipe = replace(recipe, ratios=ratios(recipe, model, dice))
        elif form == "one excluded":
            units = lay_out(recipe, model)
            names = [name for name in units.shapes if units.covered((name,))]
            recipe = replace(recipe, exclude=tuple(names[:1]))
        recipe = replace(recipe, model=model.name)
        _, ranking = scores({**tables.scores_spec(recipe), "model": model.name}, model)
        shown = preview.weights_pruned(ranking.preview(recipe))
        covered, every, _ = counted(recipe, choose(recipe, model))
        assert shown == (covered, every), recipe
        events = list(pipeline.run(recipe, model))
        [last] = [event for event in events if isinstance(event, Pruned)]
        facts = describe.facts(recipe, last)
        assert facts.every == every and (facts.weights == covered or not every.pruned), recipe
        text = preview.both(ranking.preview(recipe), ranking, recipe) or ""
        if text and every.pruned:
            assert describe.weights_pruned(facts.weights, facts.every) in text, recipe
        if every.pruned:
            assert describe.weights_pruned(*shown) in describe.outcome(facts), recipe


def share_of_budget(recipe: Recipe, masks: Masks, units: Part) -> float:
    """What the recipe's sparsity is a share of, counted on the masks of the covered layers."""
    model = work(recipe.model)
    covered = lay_out(recipe, model).covered(recipe.exclude)
    total = {name: masks[name].numel() for name in covered}
    kept = {name: int(masks[name].sum()) for name in covered}
    if recipe.counted == "units":
        return units.share
    if recipe.counted == "macs":
        # Every weight of a layer is used equally often.
        assert model.example is not None
        dense = {name: n for name, n in macs(model.model, model.example).items() if name in covered}
        remaining = sum(n * kept[name] / total[name] for name, n in dense.items())
        return 1 - remaining / sum(dense.values())
    if recipe.counted == "bytes" and not recipe.dependency_groups:
        # Kept as zeros, they cost a bit each; left out with their channel, they cost nothing.
        saved = [4 * total[name] - sparse_bytes(total[name], kept[name]) for name in covered]
        return sum(saved) / (4 * sum(total.values()))
    return 1 - sum(kept.values()) / sum(total.values())


def check(
    recipe: Recipe, facts: RunFacts, covered: Part, every: Part, units: Part, share: float
) -> None:
    """Each number of the sentence and of the short name, beside the one worked out here."""
    text = describe.outcome(facts)
    if not every.pruned:
        assert text == "nothing pruned"
        return
    expected = []
    if recipe.counted in ("macs", "bytes"):
        expected.append(f"{100 * share:.1f} %")
    if facts.noun != "weights":
        expected += [f"{units.pruned:,}", f"{units.of:,}"]
        expected += [f"{100 * units.share:.1f} %"] if recipe.counted == "units" else []
    expected += [f"{100 * covered.share:.1f} %", f"{covered.pruned:,}", f"{covered.of:,}"]
    if covered.of < every.of:
        expected += [f"{100 * every.share:.1f} %", f"{every.of:,}"]
    if recipe.budgeted and f"{100 * recipe.sparsity:.1f}" != f"{100 * share:.1f}":
        expected.append(describe.share(recipe.sparsity))
    said = text.replace(facts.noun, "").partition(", ")[2]
    assert numbers(said) == expected, (text, recipe)
    amount = f"{100 * covered.share:.1f} %"
    if facts.noun != "weights":
        amount = f"{units.pruned:,} of {units.of:,} {facts.noun}"
    assert describe.label(facts).endswith(amount)
