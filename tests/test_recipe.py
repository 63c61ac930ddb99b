"""A recipe is plain data: it survives JSON, equal ones have equal ids, and what cannot be followed is refused in words."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as some

from pruning import registry
from pruning.errors import NewerVersion, OutOfRange, PruningError, RecipeError, UnknownName
from pruning.recipe import Recipe

PAIRS = [
    (c, g)
    for c in registry.names("criterion")
    for g in registry.names("granularity")
    if not registry.misfit(c, g)
]
recipes = some.builds(
    lambda pair, **rest: Recipe(criterion=pair[0], granularity=pair[1], **rest),
    pair=some.sampled_from(PAIRS),
    model=some.text(max_size=20),
    start=some.sampled_from(["trained", "random"]),
    scope=some.sampled_from(registry.names("scope")),
    sparsity=some.floats(0, 0.999),
    ratios=some.dictionaries(some.text(max_size=8), some.floats(0, 0.999), max_size=3),
    exclude=some.lists(some.text(max_size=8), max_size=3),
    schedule=some.sampled_from(registry.names("schedule")),
    steps=some.integers(1, 1000),
    epochs=some.integers(0, 100),
    lr=some.floats(1e-6, 10),
    seed=some.integers(0, 2**63 - 1),
)


@given(recipes)
def test_json_round_trip_and_ids(recipe: Recipe) -> None:
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert again.id == recipe.id
    assert hash(again) == hash(recipe)
    assert Recipe.from_dict(recipe.short()) == recipe


@given(
    some.recursive(
        some.none() | some.booleans() | some.floats() | some.text(),
        lambda x: some.lists(x) | some.dictionaries(some.text(), x),
    )
)
def test_any_json_is_a_recipe_or_a_clear_refusal(data: object) -> None:
    try:
        Recipe.from_json(json.dumps(data))
    except PruningError as error:
        assert str(error)


@given(
    some.sampled_from(list(Recipe().to_dict())),
    some.none() | some.booleans() | some.floats() | some.text() | some.lists(some.integers()),
)
def test_any_value_in_any_field_is_followed_or_refused(field: str, value: object) -> None:
    data = Recipe().to_dict() | {field: value}
    try:
        recipe = Recipe.from_dict(data)
    except PruningError:
        return
    assert Recipe.from_json(recipe.to_json()) == recipe


def test_different_recipes_have_different_ids() -> None:
    assert len({Recipe(seed=s, sparsity=p).id for s in range(20) for p in (0.1, 0.5, 0.9)}) == 60


@pytest.mark.parametrize("value", [1, 1.0, -0.1, 2, float("nan"), float("inf"), "0.5", True, None])
def test_sparsity_out_of_range_names_the_value_and_the_range(value: object) -> None:
    with pytest.raises(
        OutOfRange, match=r"sparsity is .*must be a share from 0 up to, not including, 1"
    ):
        Recipe(sparsity=value)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("field", "kind"),
    [
        ("criterion", "criterion"),
        ("granularity", "granularity"),
        ("scope", "scope"),
        ("schedule", "schedule"),
        ("optimizer", "optimizer"),
    ],
)
def test_unknown_names_list_the_known_ones(field: str, kind: str) -> None:
    with pytest.raises(UnknownName, match=f"no {kind} called 'nope': known are .+"):
        Recipe(**{field: "nope"})


def test_near_misses_are_guessed() -> None:
    with pytest.raises(UnknownName, match="did you mean 'magnitude'"):
        Recipe(criterion="magnitud")


def test_newer_versions_are_refused_with_the_way_out() -> None:
    with pytest.raises(NewerVersion, match=r"version 99.*reads up to version 2.*update"):
        Recipe.from_dict({"version": 99})


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "null", '"x"'])
def test_what_is_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(RecipeError):
        Recipe.from_json(text)


def test_options_are_checked_against_the_signature() -> None:
    assert Recipe(criterion="magnitude", options={"norm": "l2"}).options == {"norm": "l2"}
    with pytest.raises(UnknownName, match="no option of criterion magnitude called 'nrm'"):
        Recipe(options={"nrm": "l2"})
    with pytest.raises(OutOfRange, match="must be one of l1, l2"):
        Recipe(options={"norm": "l3"})
    with pytest.raises(RecipeError, match="must be of kind bool"):
        Recipe(criterion="taylor", options={"squared": 3})
