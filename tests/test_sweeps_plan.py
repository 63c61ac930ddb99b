"""Plans of sweeps: what is crossed, how many points that is, and what is refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pruning.errors import NewerVersion, OutOfRange, RecipeError, UnknownName
from pruning.outcomes import pack, paired, unpack
from pruning.recipe import Recipe
from pruning.sweeps import shipped
from pruning.sweeps.plan import CONTROLS, MOST, Plan, inwards
from pruning.sweeps.presets import PRESETS, which_technique
from pruning.sweeps.table import COLUMNS

EXAMPLE = {
    "models": ["digits-mlp"],
    "criteria": ["magnitude", "random"],
    "sparsities": [0.5, 0.9],
    "seeds": [0, 1],
    "epochs": 1,
}

plans = st.builds(
    Plan,
    models=st.lists(st.sampled_from(["a", "b-c", "run:0f"]), min_size=1, max_size=2),
    criteria=st.lists(st.sampled_from(["magnitude", "random", "taylor"]), min_size=1),
    scopes=st.lists(st.sampled_from(["global", "lamp", "per_layer"]), min_size=1),
    sparsities=st.lists(st.sampled_from([0, 0.0, 0.25, 0.5, 0.9]), min_size=1),
    seeds=st.lists(st.integers(0, 9), min_size=1, max_size=3),
    controls=st.lists(st.sampled_from(CONTROLS)),
    fields=st.fixed_dictionaries(
        {}, optional={"epochs": st.integers(0, 3), "lr": st.sampled_from([1, 0.02, 0.1])}
    ),
)


@settings(max_examples=25)
@given(plans)
def test_a_plan_survives_json_and_equal_plans_have_equal_ids(plan: Plan) -> None:
    again = Plan.from_json(plan.to_json())
    assert again == plan and again.id == plan.id
    shuffled = json.dumps(dict(reversed(plan.to_dict().items())))
    assert Plan.from_json(shuffled).id == plan.id


@settings(max_examples=25)
@given(plans)
def test_every_technique_stands_at_every_level_with_every_seed_once(plan: Plan) -> None:
    points = plan.points()
    # A control may be a technique's own point, as at sparsity 0; under one name each is once.
    names = [(p.model, p.technique, p.sparsity, p.seed) for p in points]
    assert max(Counter(names).values()) == 1
    techniques = {technique.name for technique in plan.all_techniques()}
    of_techniques = [point for point in points if point.technique in techniques]
    levels = len(plan.models) * len(plan.sparsities) * len(plan.seeds)
    assert len(of_techniques) == len(techniques) * levels
    for point in points:
        recipe = point.recipe
        assert (recipe.model, recipe.sparsity, recipe.seed) == (
            point.model,
            point.sparsity,
            point.seed,
        )


def test_plurals_are_crossed_and_other_fields_are_the_same() -> None:
    points = Plan.from_dict(EXAMPLE).points()
    assert Counter(point.technique for point in points) == {
        "magnitude": 4,
        "random": 4,
        "dense": 1,
        "dense_longer": 2,
    }
    own = [point for point in points if point.technique == "magnitude"]
    # All techniques at one level with one seed come before the next level.
    assert [(point.sparsity, point.seed) for point in own] == [
        (0.5, 0),
        (0.9, 0),
        (0.5, 1),
        (0.9, 1),
    ]
    place = points.index(own[0])
    assert points[place + 1].technique == "random" and points[place + 1].sparsity == 0.5
    recipe = Recipe(model="digits-mlp", sparsity=0.5, epochs=1)
    assert own[0].recipe == recipe
    assert {point.recipe.epochs for point in points if point.technique != "dense"} == {1}


def test_controls_are_the_dense_model_the_same_training_and_random() -> None:
    plan = Plan(models=("m",), criteria=("taylor",), fields={"epochs": 4, "steps": 2})
    controls = {point.technique: point for point in plan.points() if point.control}
    assert set(controls) == set(CONTROLS)
    dense, longer, random = (controls[name].recipe for name in CONTROLS)
    assert not dense.prunes and dense.training_epochs() == 0
    assert not longer.prunes and longer.training_epochs() == 8
    assert (random.criterion, random.steps, random.epochs) == ("random", 2, 4)
    bare = Plan(models=("m",), criteria=("taylor",), controls=())
    assert {point.technique for point in bare.points()} == {"taylor"}


def test_each_granularity_has_its_own_random_control() -> None:
    plan = Plan(models=("m",), granularities=("weight", "channel"))
    names = {point.technique for point in plan.points() if point.control == "random"}
    assert names == {"random, weight", "random, channel"}


def test_techniques_may_differ_in_any_field() -> None:
    steps = {"name": "iterative", "schedule": "cubic", "steps": 3, "epochs": 1}
    plan = Plan(models=("m",), techniques=({"name": "one-shot", "epochs": 3}, steps))
    recipes = {point.technique: point.recipe for point in plan.points()}
    assert (recipes["one-shot"].steps, recipes["one-shot"].epochs) == (1, 3)
    assert (recipes["iterative"].steps, recipes["iterative"].schedule) == (3, "cubic")


def test_numbers_and_orders_that_mean_the_same_are_the_same_plan() -> None:
    plan = Plan.from_dict(EXAMPLE)
    same: dict[str, Any] = EXAMPLE | {
        "seeds": [0, 1, 1],
        "controls": ["random", "dense", "dense_longer"],
        "lr": Recipe().lr,
        "exclude": [],
        "scope": "global",
    }
    assert Plan.from_dict(same).id == plan.id
    zero = Plan(models=("m",), sparsities=(0,), fields={"lr": 1})
    assert zero.id == Plan(models=("m",), sparsities=(0.0,), fields={"lr": 1.0}).id
    assert zero.points()[0].recipe.id == Recipe(model="m", sparsity=0.0, lr=1.0).id


def test_more_seeds_are_the_next_ones() -> None:
    plan = Plan.from_dict(EXAMPLE | {"seeds": [5, 2]}).with_seeds(2)
    assert plan.seeds == (5, 2, 6, 7)


def test_levels_fill_the_widest_gap() -> None:
    assert inwards([1, 2, 3, 4, 5]) == [1, 5, 3, 2, 4]
    assert inwards([1]) == [1] and inwards([]) == []
    assert sorted(inwards(range(17))) == list(range(17))


REFUSED: list[tuple[Any, type[RecipeError], str]] = [
    ([], RecipeError, "JSON object"),
    ({}, RecipeError, "models"),
    (EXAMPLE | {"criterium": "x"}, UnknownName, "criteria"),
    (EXAMPLE | {"criterion": "taylor"}, RecipeError, "criteria and criterion"),
    (EXAMPLE | {"criteria": ["magnitud"]}, UnknownName, "magnitude"),
    (EXAMPLE | {"controls": ["dens"]}, UnknownName, "dense_longer"),
    (EXAMPLE | {"scopes": ["threshold"]}, RecipeError, "another scope"),
    (EXAMPLE | {"sparsities": [1.5]}, OutOfRange, "1.5"),
    (EXAMPLE | {"sparsities": 0.5}, RecipeError, "list"),
    (EXAMPLE | {"seeds": [True]}, OutOfRange, "True"),
    (EXAMPLE | {"seeds": list(range(MOST))}, RecipeError, "2,000"),
    (EXAMPLE | {"models": [["x"]]}, RecipeError, "text"),
    (EXAMPLE | {"version": 99}, NewerVersion, "99"),
    (EXAMPLE | {"techniques": [{"epochs": 1}]}, OutOfRange, "name"),
    (EXAMPLE | {"techniques": [{"name": "\ud800"}]}, OutOfRange, "name"),
    (EXAMPLE | {"techniques": ["magnitude"]}, RecipeError, "object"),
    (EXAMPLE | {"sparsities": [[0.5]]}, OutOfRange, "sparsity"),
    (EXAMPLE | {"sparsities": [float("nan")]}, OutOfRange, "nan"),
    (EXAMPLE | {"exclude": "conv1"}, RecipeError, "list of names"),
    (EXAMPLE | {"epochs": "many"}, OutOfRange, "many"),
    (EXAMPLE | {"techniques": [{"name": "a", "criterion": "taylor"}]}, RecipeError, "crossed"),
    (EXAMPLE | {"techniques": [{"name": "dense"}]}, RecipeError, "another name"),
    (EXAMPLE | {"techniques": [{"name": "a"}, {"name": "a"}]}, RecipeError, "name each once"),
    (EXAMPLE | {"techniques": [{"name": "a", "epoch": 1}]}, UnknownName, "epochs"),
]


@pytest.mark.parametrize(("data", "error", "word"), REFUSED)
def test_what_cannot_be_run_is_refused_with_the_way_out(
    data: Any, error: type[RecipeError], word: str
) -> None:
    with pytest.raises(error, match=word):
        Plan.from_dict(data)


def test_what_is_no_json_is_said() -> None:
    for text in ("{", b"\xff", "[" * 10_000):
        with pytest.raises(RecipeError, match="not JSON"):
            Plan.from_json(text)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_plans_that_can_be_run(name: str) -> None:
    plan = PRESETS[name](["digits-cnn"])
    assert plan == Plan.from_json(plan.to_json())
    assert len(plan.seeds) >= 3 and 30 < len(plan.points()) < 120
    assert {point.control for point in plan.points()} == {"", *CONTROLS}


@pytest.mark.parametrize("model", shipped.names())
def test_a_shipped_sweep_is_a_whole_plan_with_figures(model: str) -> None:
    sweep = shipped.find(model)
    assert sweep is not None
    # What Sweeps opens with was a plan of fewer epochs, whose runs stood below the shipped lines.
    assert sweep.plan == which_technique([model])
    points = {point.recipe.id: point for point in sweep.plan.points()}
    assert len(sweep.plan.all_techniques()) >= 6 and len(sweep.plan.sparsities) >= 5
    assert {row["recipe"] for row in sweep.rows} == set(points)
    assert len(sweep.rows) == len(sweep.plan.points())
    assert sweep.date and sweep.machine["torch"]
    for row in sweep.rows:
        assert tuple(row) == COLUMNS
        assert row["state"] == "done" and row["model"] == model
        assert row["low"] <= row["accuracy"] <= row["high"]
        point = points[row["recipe"]]
        assert (row["technique"], row["seed"]) == (point.technique, point.seed)
        # What was pruned is what was asked for, to one unit in a thousand weights.
        assert row["weights_kept"] == pytest.approx(1 - row["sparsity"], abs=0.01)
        right = unpack(sweep.outcomes[row["recipe"]], row["examples"])
        assert right.mean() == pytest.approx(row["accuracy"], abs=1e-6)
    dense = sweep.rows[0]
    assert dense["technique"] == "dense"
    for row in sweep.rows:
        # Beside the dense model the run itself compared its answers one by one.
        pair = sweep.paired(row, dense)
        assert pair is not None and (pair.gained, pair.lost) == (row["gained"], row["lost"])


@settings(max_examples=25)
@given(st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1))
def test_outcomes_survive_their_text_and_are_paired(answers: list[tuple[bool, bool]]) -> None:
    first, second = np.array(answers).T
    texts = pack(first), pack(second)
    assert (unpack(texts[0], len(answers)) == first).all()
    pair = paired(*texts, len(answers))
    counts = Counter(answers)
    cases = ((True, True), (True, False), (False, True), (False, False))
    assert [pair.both, pair.gained, pair.lost, pair.neither] == [counts[case] for case in cases]


def test_no_name_from_outside_is_a_path() -> None:
    assert shipped.find("../cards/digits-mlp") is None and shipped.find("") is None


def test_the_page_reads_plans_without_torch() -> None:
    code = "import sys, pruning.sweeps.presets, pruning.sweeps.shipped, pruning.sweeps.table\n"
    code += "assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
