"""Locks: controls of the recipe that are disabled or not drawn, so that one thing is changed.

They come from the address (`?lock=criterion,scope`, `?hide=schedule`), from a lesson's step and
from the teacher of a class room. A lock is on the recipe's fields and not on a widget: whatever
else would change them, a link, Undo or another model's recipe, leaves them as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import dataclass, replace

from pruning.recipe import Recipe

TECHNIQUES = {
    "criterion": ("criterion", "options"),
    "granularity": ("granularity", "granularity_options"),
    "scope": ("scope", "scope_options", "ratios"),
    "schedule": ("schedule", "schedule_options"),
}
"""Control -> its fields, where it has several."""

RUN = "run"
"""The control that starts runs: it has no field."""


def _controls() -> dict[str, tuple[str, ...]]:
    several = {field for fields in TECHNIQUES.values() for field in fields}
    names = [field.name for field in dataclasses.fields(Recipe)]
    single = {name: (name,) for name in names if name not in several}
    return {**TECHNIQUES, **single, RUN: ()}


CONTROLS = _controls()
"""Every control that can be locked or hidden -> the fields of the recipe that it sets."""

SIMPLE = ("model", "criterion", "sparsity", "epochs", RUN)
"""What the simple layout shows of them."""

IN_FULL = frozenset(CONTROLS) - set(SIMPLE)
"""What it does not."""

ADVANCED = "advanced"
PLAIN = (*TECHNIQUES, "model", "sparsity", "budget", "steps", "epochs", "lr", RUN)
"""Controls that stand open on Prune; ADVANCED names all others in one word."""


def expanded(named: Iterable[str]) -> list[str]:
    """Names of controls, each once, with ADVANCED written out."""
    others = [control for control in CONTROLS if control not in PLAIN]
    each = [others if name == ADVANCED else [name] for name in named]
    return list(dict.fromkeys(control for group in each for control in group))


@dataclass(frozen=True)
class Locks:
    """Names of controls, each one of CONTROLS. source: why they are locked, in a sentence."""

    locked: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()
    source: str = ""

    def __bool__(self) -> bool:
        return bool(self.locked or self.hidden)


def names(text: str) -> tuple[list[str], list[str]]:
    """The controls that a text from an address names, and what it names that is none."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    unknown = [part for part in parts if part not in CONTROLS and part != ADVANCED]
    return expanded(part for part in parts if part not in unknown), unknown


def kept(current: Recipe, wanted: Recipe, locked: Iterable[str]) -> Recipe:
    """The wanted recipe with the locked controls' fields as they are in the current one.

    Raises RecipeError where the two do not go together.
    """
    fields = [field for control in locked for field in CONTROLS[control]]
    return replace(wanted, **{field: getattr(current, field) for field in fields})


def differing(current: Recipe, wanted: Recipe, locked: Iterable[str]) -> list[str]:
    """The locked controls that the wanted recipe would change, in the order of CONTROLS."""
    among = set(locked)
    return [
        control
        for control, fields in CONTROLS.items()
        if control in among
        and any(getattr(current, field) != getattr(wanted, field) for field in fields)
    ]
