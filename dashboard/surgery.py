"""Surgery on the Inspect page: which units of a layer are shown, and the recipe that removes those
that were clicked.

The recipe is the state: what is removed stands in it, so that Undo, the link and Run are its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dashboard import words
from pruning.metrics import Accuracy, Paired
from pruning.recipe import Recipe
from pruning.runs.results import Study

GRANULARITIES = ("channel", "row", "head")
"""Whose units have a number in their layer, and respond to something."""

UNITS = 512
"""Units of a layer that are looked at, at most."""

SECONDS = 30.0
"""For which units are left out one by one, before the rest waits for a press."""

LONG = 3600.0
"""The same once somebody has pressed for the rest."""

RESPONSE, RIGHT = "Response", "Answers lost"
"""What the sparkline of a unit shows, class by class."""

BY_LOSS, BY_NORM, BY_NUMBER = "loss without it", "size of its weights", "number"

NOUNS = {"channel": "Filter", "row": "Row", "head": "Head"}


def noun(granularity: str, shape: Sequence[int]) -> str:
    """What a unit is called: a filter of a convolution, a neuron of a linear layer."""
    if granularity != "head" and len(shape) == 2:
        return "Neuron"
    return NOUNS.get(granularity, "Unit")


# ---------------------------------------------------------------- the recipe


def operated(recipe: Recipe, granularity: str) -> Recipe:
    """The recipe as clicks go on with it: itself, where it removes such units by number already.

    Else one that removes nothing yet, in one step; how it is fine-tuned stays.
    """
    if recipe.granularity == granularity and recipe.scope == "manual":
        return recipe
    return replace(
        recipe,
        criterion="magnitude",  # it chooses nothing here, and fits every unit
        options={},
        granularity=granularity,
        granularity_options={},
        scope="manual",
        scope_options={},
        budget="",
        ratios={},
        removed={},
        exclude=(),
        schedule="one_shot",
        schedule_options={},
        steps=1,
        recalibrate=False,
        reconstruct=False,
    )


def with_unit(recipe: Recipe, granularity: str, name: str, unit: int) -> Recipe:
    """The recipe that removes one unit more. name: of the set that it is a unit of."""
    before = operated(recipe, granularity)
    numbers = [*before.removed.get(name, []), unit]
    return replace(before, removed={**before.removed, name: numbers})


def without_unit(recipe: Recipe, name: str, unit: int) -> Recipe:
    """The recipe that keeps this unit."""
    numbers = [number for number in recipe.removed.get(name, []) if number != unit]
    return replace(recipe, removed={**recipe.removed, name: numbers})


def is_surgical(recipe: Recipe, granularity: str) -> bool:
    """Whether what the recipe names are units of this granularity."""
    return bool(recipe.removed) and recipe.granularity == granularity


def listed(recipe: Recipe) -> list[tuple[str, int]]:
    """Every (layer, unit) that the recipe names."""
    return [(name, number) for name, numbers in recipe.removed.items() for number in numbers]


# ---------------------------------------------------------------- what is known of the units


@dataclass(frozen=True)
class Profiles:
    """A "profiles" study. removed: numbers of the set's units that the recipe names."""

    study: Study
    noun: str
    removed: frozenset[int]

    @property
    def data(self) -> dict[str, Any]:
        return self.study.data

    def array(self, name: str) -> NDArray[Any]:
        return self.study.arrays[name]

    def has(self, name: str) -> bool:
        return name in self.study.arrays

    @property
    def count(self) -> int:
        """Units that are shown."""
        return len(self.array("units"))

    @property
    def classes(self) -> list[str]:
        """Names of the classes that sparklines have a bar for; [] without."""
        width = self.array("total").shape[0] if self.has("total") else 0
        names = list(self.data["classes"])
        return [names[i] if i < len(names) else str(i) for i in range(width)]

    def number(self, row: int) -> int:
        """Of the unit, in its layer."""
        return int(self.array("units")[row])

    def unit(self, row: int) -> int:
        """Of the unit, in its set: what the recipe names."""
        return int(self.array("of_set")[row])

    def row(self, number: int) -> int | None:
        """Of a unit by its number in the layer."""
        rows = np.flatnonzero(self.array("units") == number)
        return int(rows[0]) if len(rows) else None

    def is_removed(self, row: int) -> bool:
        return self.unit(row) in self.removed

    def change(self, row: int) -> float | None:
        """Of the loss without the unit; None where it was not left out."""
        value = float(self.array("change")[row])
        return value if np.isfinite(value) else None

    def spark(self, row: int, shown: str) -> list[float]:
        """A value for each class; [] where there is none."""
        if shown == RESPONSE:
            return [float(v) for v in self.array("mean")[row]] if self.has("mean") else []
        lost = self.lost(row)
        return [] if lost is None else [float(v) for v in lost]

    def lost(self, row: int) -> NDArray[np.int64] | None:
        """(classes,) right answers that are lost without it; None where that is not known."""
        if not self.has("right") or (self.array("right")[row] < 0).any():
            return None
        lost: NDArray[np.int64] = self.array("dense") - self.array("right")[row]
        return lost

    def views(self) -> list[str]:
        """What sparklines can show."""
        return [
            name
            for name, wanted in ((RESPONSE, "mean"), (RIGHT, "right"))
            if self.has(wanted) and self.classes
        ]

    def order(self, by: str, shown: str) -> list[int]:
        """Rows, the highest first; by number ascending, by size the smallest first."""
        if by == BY_NUMBER:
            keys = self.array("units").astype(float)
        elif by == BY_NORM:
            keys = self.array("norms")
        elif by == BY_LOSS:
            keys = -self.array("change")
        else:
            at = self.classes.index(by)
            values = [self.spark(row, shown) for row in range(self.count)]
            keys = np.array([-spark[at] if at < len(spark) else np.inf for spark in values])
        # Those that were not left out come last: NaN sorts to the end.
        return np.argsort(keys, kind="stable").tolist()

    def sentence(self, row: int) -> str:
        """`Filter 7: loss +0.0123 without it, 432 weights`"""
        parts = [f"{self.noun} {self.number(row)}: {loss(self.change(row))}"]
        if self.change(row) is not None:
            parts.append(words.plural(int(self.array("weights")[row]), "weight"))
        if self.is_removed(row):
            parts.append("removed")
        return ", ".join(parts)

    def most_felt(self, row: int) -> str:
        """Which class loses most answers without the unit, a sentence; "" where that is unknown."""
        lost = self.lost(row)
        if lost is None:
            return ""
        net = int(lost.sum())
        of = f"of {self.data['examples']:,} answers"
        if not lost.any():
            return f"Without it as many {of} are right."
        at = int(lost.argmax())
        total = int(self.array("total")[at])
        count = f"{abs(net):,} {'fewer' if net > 0 else 'more'}" if net else "as many"
        text = f"Right without it: {count} {of}"
        if lost[at] <= 0:
            return f"{text}."
        return f"{text}, most lost of class {self.classes[at]}: {int(lost[at]):,} of {total:,}."

    def group(self) -> str:
        """All that is removed with one unit, layer by layer, a sentence."""
        makes: list[str] = []
        reads: list[str] = []
        for member in self.data["members"]:
            # A bias and a norm's shift lie beside the weight: the layer is named once.
            parameter = str(member["parameter"])
            owner = parameter.rpartition(".")[0] or parameter
            names = makes if member["dim"] == 0 else reads
            if owner not in names:
                names.append(owner)
        text = f"Removed together: its part of {words.first_three(makes)}"
        if reads:
            text += f", and what reads it in {words.first_three(reads)}"
        return f"{text}."

    def picture(self, number: int) -> NDArray[Any] | None:
        """A test example; None where examples are no pictures."""
        name = next((n for n in ("images", "series") if self.has(n)), None)
        if name is None:
            return None
        at = int(np.searchsorted(self.array("numbers"), number))
        image: NDArray[Any] = self.array(name)[at]
        return image

    def map_of(self, row: int, at: int) -> NDArray[Any]:
        """The activation map on one of the shown examples, in [0, 1] over all of them."""
        maps = self.array("maps")[row]
        low, high = float(maps.min()), float(maps.max())
        shown: NDArray[Any] = (maps[at] - low) / ((high - low) or 1.0)
        return shown


def removed_of(recipe: Recipe, granularity: str, study: Study) -> frozenset[int]:
    """Units of a study's set that the recipe names, by whichever of its layers."""
    if not is_surgical(recipe, granularity):
        return frozenset()
    makes = {m["parameter"] for m in study.data["members"] if m["dim"] == 0}
    names = makes | {study.data["set"]}
    return frozenset(number for name, number in listed(recipe) if name in names)


def loss(change: float | None) -> str:
    """`loss +0.0123 without it`"""
    if change is None:
        return "not left out yet"
    return f"loss {change:+.4f} without it".replace("-", "−")


# ---------------------------------------------------------------- what was measured


@dataclass(frozen=True)
class Operation:
    """A "surgery" study: the dense model and the one without the units, on test examples."""

    study: Study

    def accuracy(self, of: str) -> Accuracy | None:
        counts = self.study.data[of]["accuracy"]
        return Accuracy(**counts) if counts else None

    @property
    def paired(self) -> Paired | None:
        """Both models' answers, example by example; None where answers are no classes."""
        arrays = self.study.arrays
        if "targets" not in arrays:
            return None
        targets = arrays["targets"]
        return Paired.of(arrays["after"] == targets, arrays["before"] == targets)

    @property
    def changed(self) -> int:
        """Test examples that are answered otherwise."""
        arrays = self.study.arrays
        return int((arrays["before"] != arrays["after"]).sum())
