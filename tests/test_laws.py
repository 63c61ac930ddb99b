"""The laws of DESIGN.md, for every member of every registry, on every toy."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import itertools
from functools import cache

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import nn

import pruning
from pruning import events, masks, registry
from pruning.allocation.layers import RankedLayers
from pruning.allocation.ranked import rank
from pruning.allocation.schedules import grow
from pruning.errors import ModelError, RecipeError
from pruning.evidence import Evidence
from pruning.recipe import Recipe
from pruning.selection import rank_with_path
from pruning.structure.unit_masks import removed_units
from pruning.types import Workpiece, prunable
from pruning.units.layout import lay_out
from tests.long_forms import in_part
from tests.toys import TOYS, same, snapshot, toy

CRITERIA = registry.names("criterion")
GRANULARITIES = registry.names("granularity")
SCOPES = registry.names("scope")
SCHEDULES = registry.names("schedule")
PAIRS = [(c, g) for c in CRITERIA for g in GRANULARITIES if not registry.misfit(c, g)]
PAIRS_OF = {c: [pair for pair in PAIRS if pair[0] == c] for c in CRITERIA}
SOME_PAIRS = {
    # Each criterion with a granularity in turn, and each granularity by magnitude.
    *(fitting[turn % len(fitting)] for turn, fitting in enumerate(PAIRS_OF.values())),
    *(pair for pair in PAIRS if pair[0] == "magnitude"),
}
"""What takes milliseconds with each pair takes half a minute with all of them."""
MISFITS = [(c, g) for c in CRITERIA for g in GRANULARITIES if registry.misfit(c, g)]
# Scopes that spend one budget over all layers.
TOGETHER = ("global", "erk", "lamp", "by_sensitivity")
# Options that make slow criteria quick; the laws do not depend on them.
QUICK = {
    "synflow": {"rounds": 4},
    "hutchinson": {"probes": 1},
    "obd": {"probes": 1},
    "movement": {"steps": 3},
}
UNSUITED = {
    "bn_scale": {*TOYS} - {"residual"},  # no BatchNorm to look at
    "synflow": {"attention"},  # norms that subtract
}
RATIOS = (0.0, 0.1, 0.5, 0.9, 0.99)


def recipe_for(work: Workpiece, **fields: object) -> Recipe:
    """A recipe of these fields; `manual` gets the same ratio for every layer it may prune."""
    recipe = Recipe(**fields)
    if recipe.scope != "manual":
        return recipe
    plain = dataclasses.replace(recipe, scope="global")
    layers = rank(plain, work).ranking.layers_of(plain).units
    return dataclasses.replace(recipe, ratios=dict.fromkeys(layers, recipe.sparsity))


def fitting(granularity: str) -> str:
    """A toy that has what the granularity removes."""
    return {"head": "attention", "n_of_m": "mlp"}.get(granularity, "residual")


def recipe_of(criterion: str, **fields: object) -> Recipe:
    """With the quick options."""
    return Recipe(criterion=criterion, options=QUICK.get(criterion, {}), **fields)


def suited(criterion: str) -> list[str]:
    """The toys that have what a criterion looks at."""
    return [name for name in TOYS if name not in UNSUITED.get(criterion, ())]


@cache
def prunable_toys(criterion: str, granularity: str) -> list[str]:
    """Those of which the recipe may prune something."""
    recipe = recipe_of(criterion, granularity=granularity)
    return [name for name in suited(criterion) if lay_out(recipe, toy(name)).covered()]


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_are_finite_have_the_weights_shape_and_leave_no_trace(
    criterion: str, name: str
) -> None:
    work = toy(name)
    work.model.train()
    next(work.model.parameters()).grad = torch.ones_like(next(work.model.parameters()))
    before = snapshot(work.model)
    generator = torch.get_rng_state()
    function = registry.get("criterion", criterion)
    options = QUICK.get(criterion, {})
    if name not in suited(criterion):
        with pytest.raises(ModelError, match="choose magnitude"):
            function(Evidence.of(work), **options)
        return
    scores = function(Evidence.of(work), **options)
    shapes = {name: weight.shape for name, weight in prunable(work.model).items()}
    assert {name: score.shape for name, score in scores.items()} == shapes
    assert all(torch.isfinite(score).all() for score in scores.values())
    assert same(before, snapshot(work.model))
    assert torch.equal(generator, torch.get_rng_state())


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_repeat(criterion: str) -> None:
    function = registry.get("criterion", criterion)
    work = toy("residual")
    options = QUICK.get(criterion, {})
    first, second = (function(Evidence.of(work, seed=3), **options) for _ in range(2))
    assert same(first, second)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_units_tile_a_weight_or_own_slices_of_several(granularity: str) -> None:
    tried = 0
    for name in TOYS:
        work = toy(name)
        units = lay_out(Recipe(granularity=granularity), work)
        assert all(why.endswith(".") for why in units.fixed.values())
        for layer, tiling in units.tilings.items():
            x = torch.rand(units.shapes[layer])
            pooled = tiling.pool(x)
            spread = tiling.spread(pooled)
            assert spread.shape == x.shape and len(pooled) == tiling.units
            # The same place always shows its own unit.
            numbers = tiling.spread(torch.arange(tiling.units))
            assert torch.equal(pooled[numbers], spread)
            # As many weights show a unit's number as the unit says it costs.
            removed = tiling.removed_inside(x) if tiling.removed_inside else x >= 0
            weights = numbers[removed].bincount(minlength=tiling.units)
            assert torch.equal(weights, torch.as_tensor(tiling.cost).expand(tiling.units))
            tried += 1
        counts = units.counts()
        alone = dict(zip(counts.sets, counts.alone().tolist(), strict=True))
        for layer in units.slices.sets:
            owned = [units.owned(layer, unit, work.model) for unit in range(units.size(layer))]
            for unit in owned:
                weights = sum(int(unit[name].sum()) for name in unit.keys() & units.shapes)
                assert weights == alone[layer]
            for parameter in owned[0]:
                # A weight is in one unit by its row, and in one by its column where both are owned.
                group = units.slices.groups[units.slices.sets[layer]]
                sides = sum(member.parameter == parameter for member in group.members)
                together = torch.stack([unit[parameter] for unit in owned]).sum(0)
                assert int(together.max()) <= sides
            tried += 1
    assert tried


@pytest.mark.parametrize("granularity", ["row", "column"])
def test_slices_of_equal_scores_pool_to_that_score(granularity: str) -> None:
    work = toy("residual")
    units = lay_out(Recipe(granularity=granularity), work)
    scores = {name: torch.zeros(shape) for name, shape in units.shapes.items()}
    for name in units.names:
        for unit in range(units.size(name)):
            scores[name][units.owned(name, unit, work.model)[name]] = unit + 1.0
    for name, pooled in units.pool(scores).items():
        assert pooled.tolist() == pytest.approx([unit + 1.0 for unit in range(units.size(name))])


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_rise_inside_0_to_1_and_end_at_1(schedule: str) -> None:
    for sparsity in (0.0, 0.1, 0.9, 0.999):
        values = [grow(schedule, t / 20, sparsity) for t in range(1, 21)]
        assert values[-1] == 1
        assert values == sorted(values)
        assert all(0 <= v <= 1 for v in values)


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", TOYS)
def test_single_weights_are_pruned_exactly_and_no_layer_is_emptied(name: str, scope: str) -> None:
    work = toy(name)
    weights = {name: weight.detach() for name, weight in prunable(work.model).items()}
    sizes = {name: weight.numel() for name, weight in weights.items()}
    most = {name: size - 1 for name, size in sizes.items()}
    for ratio in RATIOS:
        keep = pruning.choose(recipe_for(work, scope=scope, sparsity=ratio), work)
        removed = {name: int((~keep[name]).sum()) for name in sizes}
        assert all(removed[name] <= most[name] for name in sizes)
        if scope in TOGETHER:
            budget = round(ratio * sum(sizes.values()))
            assert sum(removed.values()) == min(budget, sum(most.values())), ratio
            continue
        if scope == "threshold":
            wanted = {name: int((weight.abs() < 0.05).sum()) for name, weight in weights.items()}
        else:
            wanted = {name: round(ratio * size) for name, size in sizes.items()}
        assert removed == {name: min(wanted[name], most[name]) for name in sizes}, ratio


@pytest.mark.parametrize(("criterion", "granularity"), in_part(PAIRS, SOME_PAIRS))
def test_the_budget_is_spent_to_the_unit_and_the_preview_says_what_happens(
    criterion: str, granularity: str
) -> None:
    plain = recipe_of(criterion, granularity=granularity)
    # Measuring layers' sensitivity takes longer than all the rest: two criteria stand for all.
    measuring = criterion in ("magnitude", "random")
    scopes = [scope for scope in SCOPES if measuring or scope != "by_sensitivity"]
    names = prunable_toys(criterion, granularity)
    assert names
    if not measuring:
        # What is spent depends on the order of scores alone: two toys in turn for each pair.
        turn = PAIRS.index((criterion, granularity))
        names = [names[(turn + step) % len(names)] for step in range(min(2, len(names)))]
    for name in names:
        work = toy(name)
        covered = lay_out(plain, work).covered()
        scope = "by_sensitivity" if measuring else "global"
        farthest = dataclasses.replace(plain, scope=scope, sparsity=max(RATIOS))
        units = rank_with_path(farthest, work, lay_out(farthest, work))
        layers = units.ranking.layers_of(plain).units
        for scope, ratio in itertools.product(scopes, RATIOS):
            ratios = dict.fromkeys(layers, ratio) if scope == "manual" else {}
            recipe = dataclasses.replace(plain, scope=scope, sparsity=ratio, ratios=ratios)
            preview = units.ranking.preview(recipe)
            keep = units.masks(preview.drops, work.model)
            kept = {name: int(keep[name].sum()) for name in prunable(work.model)}
            assert {layer.name: layer.kept for layer in preview.layers} == kept
            assert preview.sparsity == pytest.approx(masks.sparsity(keep, covered), abs=1e-12)
            assert all(mask.any() for mask in keep.values())
            spent_as_asked(recipe, units.ranking.layers_of(recipe), preview.drops)


def spent_as_asked(recipe: Recipe, layers: RankedLayers, drops: dict[str, int]) -> None:
    """To one unit, of what the budget counts, unless min_units forbids it.

    Of the whole model where layers share a budget, of each layer where they do not.
    """
    full = {name: drops[name] == layers.removable(name) for name in layers.units}
    if recipe.scope in TOGETHER or (recipe.scope == "per_layer" and not layers.additive):
        unspent = layers.spend(recipe.sparsity) - layers.spent(drops)
        one_more = [
            layers.spent({**drops, name: drops[name] + 1}) - layers.spent(drops)
            for name in layers.units
            if not full[name]
        ]
        slack = 1e-9 * layers.whole  # MACs are no whole numbers
        assert unspent >= -slack
        assert not one_more or unspent < max(one_more) + slack
    elif recipe.scope != "threshold":
        for name in layers.units:
            if layers.budget == "units":
                removed, wanted, largest = drops[name], recipe.sparsity * len(layers.units[name]), 1
            else:
                removed = layers.removed(name, drops[name])
                wanted = recipe.sparsity * layers.total(name)
                largest = int(max(layers.costs.get(name, [layers.sizes[name]])))
            nearest = abs(removed - wanted) <= largest / 2 + 1e-6
            assert nearest or (full[name] and removed < wanted), name


@pytest.mark.parametrize("budget", ["weights", "units", "macs", "bytes"])
@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_what_is_asked_is_pruned_whatever_the_budget_counts(granularity: str, budget: str) -> None:
    work = toy(fitting(granularity))
    plain = Recipe(granularity=granularity, budget=budget)
    ranked = rank(plain, work)
    masks_by_name = prunable(work.model)
    for scope, ratio in itertools.product(("per_layer", "global", "lamp", "erk"), RATIOS):
        recipe = dataclasses.replace(plain, scope=scope, sparsity=ratio)
        preview = ranked.ranking.preview(recipe)
        layers = ranked.ranking.layers_of(recipe)
        spent_as_asked(recipe, layers, preview.drops)
        # Recomputed from the masks alone: the share that is said is the share that is pruned.
        keep = ranked.masks(preview.drops, work.model)
        covered = ranked.units.covered()
        assert preview.sparsity == pytest.approx(masks.sparsity(keep, covered), abs=1e-12)
        if budget == "weights":
            assert preview.share == pytest.approx(preview.sparsity, abs=1e-12)
        if budget == "macs":
            macs = {n: ranked.ranking.macs.get(n, 0) for n in masks_by_name if n in covered}
            pruned = sum(m * (1 - float(keep[n].float().mean())) for n, m in macs.items())
            assert preview.share == pytest.approx(pruned / sum(macs.values()), abs=1e-6)
        if budget == "units":
            removed = sum(preview.drops[name] for name in layers.units)
            assert preview.share == removed / sum(map(len, layers.units.values()))


@given(some.data())
@settings(max_examples=40)
def test_what_was_asked_is_removed_after_fine_tuning_too(data: some.DataObject) -> None:
    criterion, granularity = data.draw(some.sampled_from(PAIRS))
    work = toy(data.draw(some.sampled_from(prunable_toys(criterion, granularity))))
    fields = {
        "steps": data.draw(some.integers(1, 3)),
        "epochs": data.draw(some.integers(0, 1)),
        "scope": data.draw(some.sampled_from(SCOPES)),
        "schedule": data.draw(some.sampled_from(SCHEDULES)),
        "sparsity": data.draw(some.sampled_from(RATIOS)),
    }
    options = QUICK.get(criterion, {})
    recipe = recipe_for(
        work, criterion=criterion, options=options, granularity=granularity, **fields
    )
    finished, model, keep = ended(recipe, work)
    assert zero_where_pruned(model, keep)
    assert finished.sparsity == masks.sparsity(keep, lay_out(recipe, work).covered())
    layers = rank(recipe, work).ranking.layers_of(recipe)
    if layers.spent_by is not None:
        spent_as_asked(recipe, layers, removed_by_group(recipe, work, keep))
    elif not layers.costs:  # where units differ in size, the sum depends on which are removed
        drops = {name: int((~keep[name]).sum()) // layers.sizes[name] for name in layers.units}
        spent_as_asked(recipe, layers, drops)


def ended(recipe: Recipe, work: Workpiece) -> tuple[events.Finished, nn.Module, masks.Masks]:
    """A run's last event, its model and its masks."""
    results: list[tuple[nn.Module, masks.Masks]] = []
    *_, last = pruning.run(recipe, work, keep=lambda *result: results.append(result))
    assert isinstance(last, events.Finished)
    return last, *results[0]


def zero_where_pruned(model: nn.Module, keep: masks.Masks) -> bool:
    parameters = dict(model.named_parameters())
    return not any(parameters[name][~mask].any() for name, mask in keep.items())


def removed_by_group(recipe: Recipe, work: Workpiece, keep: masks.Masks) -> dict[str, int]:
    """Set of units -> how many of them are removed as a whole."""
    slices = lay_out(recipe, work).slices
    removed = removed_units(slices, keep)
    starts = slices.starts
    return {
        name: int(removed[starts[number] : starts[number + 1]].sum())
        for name, number in slices.sets.items()
    }


@pytest.mark.parametrize(("criterion", "granularity"), in_part(PAIRS, SOME_PAIRS))
def test_a_later_mask_never_revives_and_applying_twice_is_once(
    criterion: str, granularity: str
) -> None:
    work = toy(fitting(granularity))
    recipe = recipe_of(criterion, granularity=granularity, sparsity=0.8)
    before = None
    for share in (0.2, 0.5, 0.8, 1.0):
        keep = pruning.choose(recipe, work, before, share)
        for name in before or {}:
            assert not (keep[name] & ~before[name]).any()
        pruning.apply(keep, work.model)
        once = copy.deepcopy(work.model.state_dict())
        pruning.apply(keep, work.model)
        assert same(dict(once), dict(work.model.state_dict()))
        before = keep


@pytest.mark.parametrize(("criterion", "granularity"), MISFITS)
def test_what_has_no_meaning_is_refused_with_the_reason_and_the_way_out(
    criterion: str, granularity: str
) -> None:
    tags = registry.entry("criterion", criterion).tags
    refusal = f"^{criterion} does not work by {granularity}: "
    with pytest.raises(RecipeError, match=refusal) as caught:
        Recipe(criterion=criterion, granularity=granularity)
    assert tags["why"] in str(caught.value)
    way_out = next(name for name in tags["granularities"] if name in GRANULARITIES)
    assert f"Choose granularity {way_out}" in str(caught.value)
    Recipe(criterion=criterion, granularity=way_out)


@pytest.mark.parametrize(
    ("criterion", "granularity", "optimizer"),
    in_part(
        [(*pair, "sgd") for pair in PAIRS]
        + [("magnitude", name, "adamw") for name in GRANULARITIES],
        [(*pair, "sgd") for pair in SOME_PAIRS]
        + [("magnitude", name, "adamw") for name in ("weight", "channel")],
    ),
)
def test_a_run_leaves_the_callers_model_alone_and_keeps_zeros_through_training(
    criterion: str, granularity: str, optimizer: str
) -> None:
    work = toy(fitting(granularity))
    before = snapshot(work.model)
    generator = torch.get_rng_state()
    results: list[tuple[nn.Module, masks.Masks]] = []
    training = {"schedule": "cubic", "steps": 2, "epochs": 1, "optimizer": optimizer, "lr": 0.01}
    recipe = recipe_of(criterion, granularity=granularity, sparsity=0.6, **training)
    history = list(pruning.run(recipe, work, keep=lambda *result: results.append(result)))
    assert same(before, snapshot(work.model))
    assert torch.equal(generator, torch.get_rng_state())
    model, keep = results[0]
    assert zero_where_pruned(model, keep)
    finished = history[-1]
    assert isinstance(finished, events.Finished)
    assert finished.sparsity == masks.sparsity(keep, lay_out(recipe, work).covered())
    if granularity == "weight":
        total = sum(w.numel() for w in prunable(model).values())
        assert round(finished.sparsity * total) == round(0.6 * total)
    assert all(events.from_json(events.to_json(event)) == event for event in history)


@pytest.mark.parametrize("name", TOYS)
def test_a_run_repeats(name: str) -> None:
    recipe = Recipe(
        criterion="taylor",
        sparsity=0.5,
        steps=2,
        epochs=2,
        schedule="linear",
        start="random",
        seed=4,
    )
    first = [without_times(events.to_dict(event)) for event in pruning.run(recipe, toy(name))]
    second = [without_times(events.to_dict(event)) for event in pruning.run(recipe, toy(name))]
    assert first == second


def without_times(value: object) -> object:
    if not isinstance(value, dict):
        return value
    times = ("seconds", "latency", "timings", "measured")
    return {key: without_times(part) for key, part in value.items() if key not in times}


def test_every_technique_says_what_it_is() -> None:
    for kind in registry.KINDS:
        for entry in registry.entries(kind).values():
            assert entry.title.endswith("."), entry.name
            function = registry.get(kind, entry.name)
            assert inspect.getdoc(function) == inspect.cleandoc(entry.help)
            unexplained = [option.name for option in entry.options if not option.help]
            assert not unexplained, entry.name
    for entry in registry.entries("criterion").values():
        assert entry.paper, f"{entry.name} names no paper"
        assert set(entry.tags) >= {"group", "needs", "cost"}
