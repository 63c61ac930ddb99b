"""Recipes: they survive JSON, equal ones have equal ids, and what cannot be followed is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

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


def recipe_of(pair: tuple[str, str], **rest: Any) -> Recipe:
    criterion, granularity = pair
    return Recipe(criterion=criterion, granularity=granularity, **rest)


recipes = some.builds(
    recipe_of,
    pair=some.sampled_from(PAIRS),
    model=some.text(max_size=20),
    start=some.sampled_from(["trained", "random"]),
    scope=some.sampled_from(registry.names("scope")),
    sparsity=some.floats(0, 0.999),
    ratios=some.dictionaries(some.text(max_size=8), some.floats(0, 0.999), max_size=3),
    removed=some.dictionaries(
        some.text(max_size=8), some.lists(some.integers(0, 50), max_size=3), max_size=3
    ),
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


# ---------------------------------------------------------------- versions


def test_version_1_reads_as_its_counterpart() -> None:
    old = {
        "version": 1,
        "granularity": "channel",
        "scope": "by_hand",
        "ratios": {"conv1.weight": 0.5},
        "floor": 3,
        "heal_slim": True,
    }
    counterpart = Recipe(
        granularity="channel",
        scope="manual",
        ratios={"conv1.weight": 0.5},
        min_units=3,
        finetune_compact=True,
    )
    recipe = Recipe.from_dict(old)
    assert recipe == counterpart
    assert recipe.id == counterpart.id
    assert recipe.to_dict()["version"] == 2
    assert not {"floor", "heal_slim"} & set(recipe.to_dict())


def test_links_of_version_1_carry_no_version_and_read_too() -> None:
    assert Recipe.from_dict({"floor": 2, "scope": "by_hand"}) == Recipe(scope="manual", min_units=2)


# ---------------------------------------------------------------- what a recipe trains


LOTTERY = Recipe(start="random", rewind="init", steps=3, epochs=4, batch=10)


def test_epochs_are_counted_after_each_step_and_before_the_first() -> None:
    assert Recipe(steps=3, epochs=2).training_epochs() == 6
    assert Recipe(steps=3, epochs=2, slimming=1e-4).training_epochs() == 8
    assert Recipe(slimming=1e-4).training_epochs() == 0
    assert LOTTERY.training_epochs() == 4 + 3 * 4


def test_a_rewound_training_is_shorter_by_its_whole_epochs_but_not_that_of_new_weights() -> None:
    """Of 95 examples in batches of 10 an epoch has 10 steps: step 25 leaves 2 of 4 epochs out."""
    early = replace(LOTTERY, rewind="early", rewind_step=25, controls=("reinit", "random_mask"))
    steps = early.steps_per_epoch(95)
    assert (steps, early.rewound_epochs(steps)) == (10, 2)
    assert early.control_epochs(steps) == 3 * (4 + 2)
    assert early.training_epochs(steps) == 4 + 3 * 2 + 3 * (4 + 2)
    assert early.training_epochs() == 4 + 3 * 4 + 3 * (4 + 4), "the size of the data is not known"


def test_a_recipe_prunes_where_its_scope_says_how_much() -> None:
    assert Recipe(sparsity=0.1).prunes and not Recipe(sparsity=0).prunes
    assert not Recipe(scope="manual", sparsity=0.9).prunes
    assert Recipe(scope="manual", sparsity=0, ratios={"a": 0.5}).prunes
    assert Recipe(scope="threshold", sparsity=0).prunes, "a scope with a rule of its own"


def test_a_budget_says_of_what_and_version_1_keeps_its_meaning() -> None:
    assert Recipe().counted == "weights"
    assert Recipe(granularity="channel").counted == "units"
    assert Recipe(granularity="channel", budget="macs").counted == "macs"
    with pytest.raises(UnknownName, match="no budget called 'flops'"):
        Recipe(budget="flops")
    # Of all layers, version 1 took shares of weights; inside each layer, of its channels.
    old = {"version": 1, "granularity": "channel"}
    assert Recipe.from_dict({**old, "scope": "global"}).counted == "weights"
    assert Recipe.from_dict({**old, "scope": "per_layer"}).counted == "units"
    spread = {"scope": "by_sensitivity", "scope_options": {"of": "macs", "tolerate": 5.0}}
    recipe = Recipe.from_dict({"version": 1, **spread})
    assert (recipe.budget, recipe.scope_options) == ("macs", {"tolerate": 5.0})
