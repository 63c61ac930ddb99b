"""Surgery: units that a recipe names by number, their profiles, and what their removal measures."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import pruning
from pruning import registry, studies
from pruning.analysis.criterion_check import Check, LeaveOneOut
from pruning.errors import OutOfRange, RecipeError, UnknownName
from pruning.events import Finished
from pruning.recipe import ONE_STEP, Recipe
from pruning.types import Masks, Workpiece
from pruning.units.layout import Units, lay_out
from tests.toys import toy

GRANULARITIES = [("channel", "residual"), ("row", "mlp"), ("head", "attention")]


def by_number(granularity: str, removed: dict[str, list[int]], **more: object) -> Recipe:
    fields = {"scope": "manual", "removed": removed, **more}
    return Recipe(model="toy", granularity=granularity, **fields)  # type: ignore[arg-type]


def first_set(units: Units) -> str:
    return next(name for name in units.names if name not in units.fixed and units.size(name) > 1)


def owned(units: Units, work: Workpiece, name: str, numbers: list[int]) -> Masks:
    """What is kept without these units, put together from what each owns."""
    masks = pruning.choose(Recipe(sparsity=0.0), work)
    parts = [units.owned(name, number, work.model) for number in numbers]
    parameters = dict(work.model.named_parameters(remove_duplicate=False))
    for part in parts:
        for parameter, where in part.items():
            kept = masks.get(parameter, parameters[parameter].detach() == parameters[parameter])
            masks[parameter] = kept & ~where
    return masks


# ---------------------------------------------------------------- what a recipe names


@pytest.mark.parametrize(("granularity", "model"), GRANULARITIES)
def test_the_units_that_are_named_are_removed_and_nothing_else(
    granularity: str, model: str
) -> None:
    work = toy(model)
    recipe = by_number(granularity, {})
    units = lay_out(recipe, work)
    name = first_set(units)
    numbers = [units.size(name) - 1, 0][: units.size(name) - 1]
    masks = pruning.choose(replace(recipe, removed={name: numbers}), work)
    wanted = owned(units, work, name, numbers)
    for parameter, keep in masks.items():
        expected = wanted.get(parameter)
        assert keep.all() if expected is None else (keep == expected).all(), parameter


@pytest.mark.parametrize("sparsity", [0.01, 0.4])
@pytest.mark.parametrize("scope", registry.names("scope"))
def test_whatever_the_scope_they_are_removed_and_count_in_its_budget(
    scope: str, sparsity: float
) -> None:
    work = toy("residual")
    recipe = Recipe(granularity="channel", scope=scope, sparsity=sparsity)
    units = lay_out(recipe, work)
    name = first_set(units)
    named = replace(recipe, removed={name: [1]})
    masks = pruning.choose(named, work)
    for parameter, where in units.owned(name, 1, work.model).items():
        assert not masks[parameter][where].any()
    if recipe.budgeted and sparsity == 0.4:
        before = pruning.choose(recipe, work)
        kept = [sum(int(m[n].sum()) for n in units.shapes) for m in (before, masks)]
        most = max(units.counts().alone())
        assert abs(kept[0] - kept[1]) <= most  # as much as without names, to one unit


def test_one_layer_of_a_dependency_group_names_the_units_of_all() -> None:
    work = toy("residual")
    recipe = by_number("channel", {})
    units = lay_out(recipe, work)
    follower, leader = next(iter(units.leaders.items()))
    by_leader = pruning.choose(replace(recipe, removed={leader: [1]}), work)
    by_follower = pruning.choose(replace(recipe, removed={follower: [1]}), work)
    both = pruning.choose(replace(recipe, removed={leader: [1], follower: [1]}), work)
    assert not all(bool(keep.all()) for keep in by_leader.values())
    for name, keep in by_leader.items():
        assert (keep == by_follower[name]).all() and (keep == both[name]).all()


@pytest.mark.parametrize(
    ("removed", "error", "part"),
    [
        ({"nowhere.weight": [0]}, UnknownName, "nowhere.weight"),
        ({"0.weight": [8]}, OutOfRange, "from 0 to 7"),
        ({"0.weight": list(range(8))}, RecipeError, "name fewer"),
        ({"2.weight": [0]}, RecipeError, "Take the layer out"),
    ],
)
def test_what_cannot_be_removed_is_refused_with_the_way_out(
    removed: dict[str, list[int]], error: type[Exception], part: str, tiny: Workpiece
) -> None:
    with pytest.raises(error, match=part):
        pruning.choose(by_number("channel", removed), tiny)


def test_a_layer_that_stays_dense_is_not_named_too(tiny: Workpiece) -> None:
    recipe = by_number("channel", {"0.weight": [0]}, exclude=("0.weight",))
    with pytest.raises(RecipeError, match="dense"):
        pruning.choose(recipe, tiny)


@pytest.mark.parametrize("units", ["12", 3, [-1], [1.5], [True], [None]])
def test_numbers_are_whole_numbers(units: object) -> None:
    with pytest.raises(RecipeError, match=r"conv\.weight"):
        Recipe(removed={"conv.weight": units})  # type: ignore[dict-item]


def test_the_same_units_are_the_same_recipe_and_none_is_as_before() -> None:
    some = Recipe(removed={"a.weight": [3, 1, 3], "b.weight": []})
    assert some.removed == {"a.weight": [1, 3]} and some.prunes
    assert some.id == Recipe(removed={"a.weight": [1, 3]}).id != Recipe().id
    assert "removed" not in Recipe().to_dict()  # the ids of older recipes stay


def test_ten_removals_make_a_recipe_that_runs(tiny: Workpiece) -> None:
    wide = toy("residual")
    recipe = by_number("channel", {}, epochs=1)
    units = lay_out(recipe, wide)
    sets = [name for name in units.names if name not in units.fixed]
    spare = {name: units.size(name) - 1 for name in sets}
    removed: dict[str, list[int]] = {}
    for number in range(10):
        name = max(sets, key=lambda name: spare[name] - len(removed.get(name, ())))
        if spare[name] > len(removed.get(name, ())):
            removed.setdefault(name, []).append(len(removed.get(name, ())))
        assert number == 0 or removed
    events = list(pruning.run(replace(recipe, removed=removed), wide))
    assert isinstance(events[-1], Finished) and events[-1].compact is not None


# ---------------------------------------------------------------- what is measured


def profiles(work: Workpiece, layer: str, **more: object) -> tuple[dict, dict]:
    spec = {"what": "profiles", "model": "toy", "layer": layer, "granularity": "channel", **more}
    data, arrays = studies.make(spec, work)
    assert isinstance(arrays, dict)
    return data, arrays


def test_the_loss_without_a_unit_is_the_criterion_checks_to_the_bit(tiny: Workpiece) -> None:
    data, arrays = profiles(tiny, "0.weight")
    check = Check(layers=("0.weight",), granularity="channel")
    measurer = LeaveOneOut(tiny, check)
    expected = list(measurer.changes("0.weight", arrays["of_set"].tolist()))
    assert arrays["change"].tolist() == [change for _, _, change in expected]
    assert arrays["weights"].tolist() == [weights for _, weights, _ in expected]
    assert data["loss"] == measurer.loss and data["measured"] == data["of"] == 8
    right = arrays["dense"].sum() / data["examples"]
    assert right == pruning.measure(tiny, latency=False).accuracy.value  # type: ignore[union-attr]


def test_what_excites_a_unit_most_is_what_its_layer_gives(tiny: Workpiece) -> None:
    _, arrays = profiles(tiny, "0.weight")
    assert tiny.test is not None
    outputs = tiny.model[0](tiny.test.x).detach().numpy()  # type: ignore[index]
    assert arrays["top"][:, 0].tolist() == outputs.argmax(0)[arrays["units"]].tolist()
    assert np.allclose(arrays["peaks"][:, 0], outputs.max(0)[arrays["units"]])
    targets = tiny.test.y.numpy()  # also the validation data of this toy
    means = np.stack([outputs[targets == label].mean(0) for label in (0, 1)], 1)
    assert np.allclose(arrays["mean"], means[arrays["units"]], atol=1e-6)


def test_a_budget_of_time_leaves_units_for_later(tiny: Workpiece) -> None:
    data, arrays = profiles(tiny, "0.weight", seconds=0.0)
    assert data["measured"] == 1
    [known] = np.flatnonzero(np.isfinite(arrays["change"]))
    assert known == arrays["norms"].argmin()  # the smallest first
    assert (arrays["right"][known] >= 0).all() and (np.delete(arrays["right"], known, 0) < 0).all()


def test_surgery_measures_what_a_run_of_the_recipe_measures(tiny: Workpiece) -> None:
    recipe = by_number("channel", {"0.weight": [2, 5]})
    spec = {"what": "surgery", "model": "toy", **{n: getattr(recipe, n) for n in ONE_STEP}}
    data, arrays = studies.make(spec, tiny)
    assert isinstance(arrays, dict)
    finished = list(pruning.run(recipe, tiny))[-1]
    assert isinstance(finished, Finished)
    for name, measured in (("dense", finished.dense), ("pruned", finished.final)):
        accuracy = measured.accuracy
        assert accuracy is not None
        assert data[name]["accuracy"] == {"correct": accuracy.correct, "total": accuracy.total}
        assert data[name]["loss"] == measured.loss
    changed = np.flatnonzero(arrays["before"] != arrays["after"])
    assert sorted(arrays["flipped"].tolist()) == changed.tolist()
