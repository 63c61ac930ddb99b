"""Recipes as runs' records have them: what was allowed when a run was made may be refused today.

A range that became narrower must not hide what was measured by then. Such a recipe reads, names,
describes and is compared like any other; only to be run again it is refused. No torch here.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from pruning import registry
from pruning.errors import RecipeError
from pruning.ranges import SHARE, Range
from pruning.recipe import RANGES, Recipe

LARGEST = 1e12
"""A number beyond which a record is damaged rather than old."""


class RecordedRecipe(Recipe):
    """A recipe whose numbers may lie out of today's ranges. A subclass, so that whatever is made
    from it, by `dataclasses.replace`, may hold them too.

    Raises RecipeError for what else cannot be followed.
    """

    def __post_init__(self) -> None:
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        inside = Recipe(**own | _inside(own))
        for name in ("exclude", "controls", "removed"):
            object.__setattr__(self, name, getattr(inside, name))


def recorded(data: dict[str, Any]) -> Recipe:
    """The recipe of a run's record. Raises RecipeError where it cannot be read at all."""
    try:
        return Recipe.from_dict(data)
    except RecipeError:
        return RecordedRecipe.from_dict(data)


def refusal(recipe: Recipe) -> str:
    """Why a recipe is not run again: the number, and what it may be; "" where it is."""
    try:
        check(recipe)
    except RecipeError as error:
        return str(error)
    return ""


def check(recipe: Recipe) -> None:
    """Raises RecipeError for a recipe of an older record that today would be refused."""
    if isinstance(recipe, RecordedRecipe):
        Recipe.from_dict(recipe.to_dict())


def _inside(own: dict[str, Any]) -> dict[str, Any]:
    """The fields that hold numbers out of their ranges, with the nearest that are inside."""
    defaults = {field.name: field.default for field in dataclasses.fields(Recipe)}
    changed: dict[str, Any] = {}
    for name, range in RANGES.items():
        if _outside(own[name], range):
            changed[name] = _nearest(own[name], range, defaults[name])
    if isinstance(own["ratios"], dict):
        changed["ratios"] = {
            layer: _nearest(ratio, SHARE, 0.0) if _outside(ratio, SHARE) else ratio
            for layer, ratio in own["ratios"].items()
        }
    for kind in registry.KINDS:
        field = "options" if kind == "criterion" else f"{kind}_options"
        if isinstance(own[field], dict) and own[kind] in registry.names(kind):
            changed[field] = _options_inside(kind, own[kind], own[field])
    return changed


def _options_inside(kind: str, name: str, values: dict[str, Any]) -> dict[str, Any]:
    options = {option.name: option for option in registry.entry(kind, name).options}
    inside = dict(values)
    for key, value in values.items():
        option = options.get(key)
        if option is not None and option.range is not None and _outside(value, option.range):
            inside[key] = _nearest(value, option.range, option.default)
    return inside


def _outside(value: object, range: Range) -> bool:
    """Whether it is a number that was read once, and is outside; NaN and the like never were."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return False
    return -LARGEST <= value <= LARGEST and not range.holds(value)  # NaN is in no order


def _nearest(value: float, range: Range, default: Any) -> Any:
    """The nearer end of a range; the default where the end itself is not allowed."""
    end = type(default)(range.low if value < range.low else range.high)
    return end if range.holds(end) else default
