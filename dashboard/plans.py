"""A plan of a sweep as the page edits it: levels as text, techniques by name. No Streamlit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from dashboard import words
from pruning.errors import OutOfRange
from pruning.recipe import Recipe
from pruning.sweeps.plan import OF_TECHNIQUES, Plan
from pruning.sweeps.presets import SIX

PLACE = ("model", "sparsity", "seed")
"""Fields of a recipe that a plan crosses in any case."""


def level_text(level: float) -> str:
    return words.share(level)


def level_of(text: str) -> float:
    """`90 %`, `97.5` and `0.9` as a share. Raises OutOfRange for what is none."""
    plain = text.replace("%", "").replace(",", ".").strip()
    try:
        value = float(plain)
    except ValueError:
        raise OutOfRange("A level of sparsity", text, "a percentage like 90 %") from None
    # Nobody means less than one percent: 0.9 is nine tenths.
    share = value if value < 1 and "%" not in text else value / 100
    return round(share, 10)


def seed_of(text: str) -> int:
    """Raises OutOfRange for what is no whole number."""
    try:
        return int(text)
    except ValueError:
        raise OutOfRange("A seed", text, "a whole number") from None


def explicit(plan: Plan) -> Plan:
    """The same techniques, each by its name and fields instead of crossed."""
    if plan.techniques:
        return plan
    techniques = tuple({"name": each.name, **each.fields} for each in plan.all_techniques())
    first: dict[str, Any] = {plural: getattr(plan, plural)[:1] for plural in OF_TECHNIQUES}
    return replace(plan, techniques=techniques, **first)


def offered(plan: Plan) -> dict[str, dict[str, Any]]:
    """Name -> technique, of those a plan has and of those that it may take up."""
    own = {technique["name"]: technique for technique in explicit(plan).techniques}
    return {**own, **{each["name"]: each for each in SIX if each["name"] not in own}}


def with_techniques(plan: Plan, names: Sequence[str]) -> Plan:
    """The plan with just these of `offered`, in their order."""
    known = offered(plan)
    return replace(explicit(plan), techniques=tuple(known[name] for name in names))


def with_recipe(plan: Plan, recipe: Recipe) -> Plan:
    """The plan with a recipe as one more technique, under its criterion's name or one beside it."""
    base = explicit(plan)
    short = {k: v for k, v in recipe.short().items() if k not in (*PLACE, "version", "controls")}
    fields = {name: short.get(name, getattr(recipe, name)) for name in ALWAYS_NAMED}
    names = {technique["name"] for technique in base.techniques}
    name, number = recipe.criterion, 2
    while name in names:
        name, number = f"{recipe.criterion} {number}", number + 1
    own = {"name": name, **fields, **short}
    return replace(base, techniques=(*base.techniques, own))


ALWAYS_NAMED = ("criterion", "granularity", "scope", "schedule", "steps", "epochs")
"""Fields that a technique made of a recipe names in any case: a plan's own may differ."""


def with_field(plan: Plan, name: str, value: Any) -> Plan:
    """The plan with a field of all its recipes."""
    return replace(plan, fields={**plan.fields, name: value})


def field(plan: Plan, name: str) -> Any:
    return plan.fields.get(name, getattr(Recipe(), name))


def differ_in(plan: Plan, name: str) -> bool:
    """Whether its techniques have a value each of a field."""
    return any(name in technique for technique in plan.techniques)


def count_text(plan: Plan) -> str:
    """`111 runs: 7 techniques × 5 levels × 3 seeds, and controls`."""
    parts = [
        words.plural(len(plan.all_techniques()), "technique"),
        words.plural(len(plan.sparsities), "level"),
        words.plural(len(plan.seeds), "seed"),
    ]
    if len(plan.models) > 1:
        parts.append(words.plural(len(plan.models), "model"))
    controls = ", and controls" if plan.controls else ""
    return f"{words.plural(len(plan.points()), 'run')}: {' × '.join(parts)}{controls}"
