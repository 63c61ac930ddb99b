"""The laws of DESIGN.md, for every member of every registry, on every toy."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import nn

import pruning
from pruning import events, masks, registry
from pruning.allocation.schedules import grow
from pruning.allocation.scopes import Ranked
from pruning.errors import ModelError, RecipeError
from pruning.evidence import Evidence
from pruning.recipe import Recipe
from pruning.structure.unit_masks import removed_units
from pruning.types import Workpiece, prunable
from pruning.units.granularities import fitted
from tests.toys import TOYS, same, snapshot, toy

CRITERIA = registry.names("criterion")
GRANULARITIES = registry.names("granularity")
SCOPES = registry.names("scope")
SCHEDULES = registry.names("schedule")
PAIRS = [(c, g) for c in CRITERIA for g in GRANULARITIES if not registry.misfit(c, g)]
MISFITS = [(c, g) for c in CRITERIA for g in GRANULARITIES if registry.misfit(c, g)]
TOGETHER = (
    "global",
    "erk",
    "lamp",
    "by_sensitivity",
)  # scopes that spend one budget over all layers
QUICK = {
    "synflow": {"rounds": 4},
    "hutchinson": {"probes": 1},
    "obd": {"probes": 1},
    "movement": {"steps": 3},
}
UNSUITED = {
    "bn_scale": {*TOYS} - {"residual"},
    "synflow": {"attention"},
}  # no BatchNorm to look at; norms that subtract
RATIOS = (0.0, 0.1, 0.5, 0.9, 0.99)


def recipe_for(work: Workpiece, **fields: object) -> Recipe:
    """A recipe of these fields; by_hand gets the same ratio for every layer it may take from."""
    recipe = Recipe(**fields)  # type: ignore[arg-type]
    if recipe.scope == "manual":
        plain = dataclasses.replace(recipe, scope="global")
        return dataclasses.replace(
            recipe,
            ratios=dict.fromkeys(
                masks.rank(plain, work).ranking.ranked(plain).units, recipe.sparsity
            ),
        )
    return recipe


def fitting(granularity: str) -> str:
    """A toy that has what the granularity removes."""
    return (
        "attention" if granularity == "head" else "mlp" if granularity == "n_of_m" else "residual"
    )


def recipe_of(criterion: str, **fields: object) -> Recipe:
    """With options that make slow criteria quick."""
    return Recipe(criterion=criterion, options=QUICK.get(criterion, {}), **fields)  # type: ignore[arg-type]


def suited(criterion: str) -> list[str]:
    """The toys that have what a criterion looks at."""
    return [name for name in TOYS if name not in UNSUITED.get(criterion, ())]


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_are_finite_have_the_weights_shape_and_leave_no_trace(
    criterion: str, name: str
) -> None:
    work = toy(name)
    work.model.train()
    next(work.model.parameters()).grad = torch.ones_like(next(work.model.parameters()))
    before, chance = snapshot(work.model), torch.get_rng_state()
    if name not in suited(criterion):
        with pytest.raises(ModelError, match="choose magnitude"):
            registry.get("criterion", criterion)(Evidence.of(work))
        return
    scores = registry.get("criterion", criterion)(Evidence.of(work))
    assert {n: s.shape for n, s in scores.items()} == {
        n: w.shape for n, w in prunable(work.model).items()
    }
    assert all(torch.isfinite(s).all() for s in scores.values())
    assert same(before, snapshot(work.model))
    assert torch.equal(chance, torch.get_rng_state())


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_repeat(criterion: str) -> None:
    function = registry.get("criterion", criterion)
    work = toy("residual")
    first, again = (function(Evidence.of(work, seed=3)) for _ in range(2))
    assert same(first, again)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_spread_of_pool_has_the_shape_and_is_constant_inside_a_unit(granularity: str) -> None:
    fits = 0
    for name in TOYS:
        model = toy(name).model
        for layer, weight in prunable(model).items():
            form = fitted(registry.get("granularity", granularity)(), model, layer)
            if isinstance(form, str):
                assert form.endswith(".")
                continue
            parts = (
                masks_of(layer, toy(name), Recipe(granularity=granularity))
                if not form.leader
                else [layer]
            )
            x = torch.rand(weight.shape)
            units = form.pool(torch.cat([x] * len(parts)))
            spread = form.spread(units, x.shape)
            numbered = form.spread(torch.arange(len(units)), x.shape)
            assert spread.shape == x.shape
            assert torch.equal(units[numbered], spread)  # the same place always shows its own unit
            lost = torch.as_tensor(
                form.lost(x.shape) if form.lost else x.numel() // len(units)
            ).expand(len(units))
            goes = form.inside(x) if form.inside else torch.ones_like(x, dtype=torch.bool)
            assert torch.equal(numbered[goes].bincount(minlength=len(units)), lost)
            fits += 1
    assert fits


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_rise_inside_0_to_1_and_end_at_1(schedule: str) -> None:
    for sparsity in (0.0, 0.1, 0.9, 0.999):
        values = [grow(schedule, t / 20, sparsity) for t in range(1, 21)]
        assert values[-1] == 1
        assert values == sorted(values)
        assert all(0 <= v <= 1 for v in values)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", TOYS)
def test_single_weights_go_exactly_and_no_layer_is_emptied(
    name: str, scope: str, ratio: float
) -> None:
    work = toy(name)
    recipe = recipe_for(work, scope=scope, sparsity=ratio)
    keep = pruning.choose(recipe, work)
    sizes = {n: w.numel() for n, w in prunable(work.model).items()}
    gone = {n: int((~keep[n]).sum()) for n in sizes}
    assert all(gone[n] < sizes[n] for n in sizes)
    if scope in TOGETHER:
        assert sum(gone.values()) == min(
            round(ratio * sum(sizes.values())), sum(s - 1 for s in sizes.values())
        )
    elif scope == "threshold":
        below = {n: int((w.detach().abs() < 0.05).sum()) for n, w in prunable(work.model).items()}
        assert gone == {n: min(below[n], s - 1) for n, s in sizes.items()}
    else:
        assert gone == {n: min(round(ratio * s), s - 1) for n, s in sizes.items()}


@pytest.mark.parametrize(("criterion", "granularity"), PAIRS)
def test_the_budget_is_spent_to_the_unit_and_the_preview_says_what_happens(
    criterion: str, granularity: str
) -> None:
    fits, plain = 0, recipe_of(criterion, granularity=granularity)
    for name in suited(criterion):
        work = toy(name)
        covered = masks.covered(plain, work)
        if not covered:
            continue
        fits += 1
        measured = (
            "by_sensitivity" if criterion in ("magnitude", "random") else "global"
        )  # measuring takes longer than the rest
        units = masks.rank(dataclasses.replace(plain, scope=measured, sparsity=max(RATIOS)), work)
        open_ = units.ranking.ranked(plain).units
        for scope, ratio in itertools.product(SCOPES, RATIOS):
            if scope == "by_sensitivity" and scope != measured:
                continue
            ratios = dict.fromkeys(open_, ratio) if scope == "manual" else {}
            recipe = dataclasses.replace(plain, scope=scope, sparsity=ratio, ratios=ratios)
            left = units.ranking.preview(recipe)
            keep = masks.verdict(units, left.drops, work.model)
            assert {layer.name: layer.kept for layer in left.layers} == {
                n: int(keep[n].sum()) for n in prunable(work.model)
            }
            assert left.sparsity == pytest.approx(masks.sparsity(keep, covered), abs=1e-12)
            assert all(k.any() for k in keep.values())
            spent_as_asked(recipe, units.ranking.ranked(recipe), left.drops)
    assert fits


def spent_as_asked(recipe: Recipe, layers: Ranked, drops: dict[str, int]) -> None:
    """To one unit: of the model where layers share a budget, of each layer where they do not. Floors may hold it."""
    gone = {n: layers.gone(n, drops[n]) for n in layers.units}
    largest = {
        n: int(max(layers.costs[n])) if n in layers.costs else layers.sizes[n] for n in layers.units
    }
    full = {n: drops[n] == layers.spare(n) for n in layers.units}
    if recipe.scope in TOGETHER:
        budget = round(recipe.sparsity * layers.weights)
        assert layers.spent(drops) <= budget
        assert all(full.values()) or budget - layers.spent(drops) < max(largest.values())
    elif recipe.scope != "threshold":
        wanted = {n: recipe.sparsity * layers.total(n) for n in layers.units}
        assert all(
            abs(gone[n] - wanted[n]) <= largest[n] / 2 + 1e-6 or (full[n] and gone[n] < wanted[n])
            for n in gone
        )


@given(some.data())
@settings(max_examples=40)
def test_what_was_asked_is_gone_after_fine_tuning_too(draw: some.DataObject) -> None:
    criterion, granularity = draw.draw(some.sampled_from(PAIRS))
    names = [
        name
        for name in suited(criterion)
        if masks.covered(recipe_of(criterion, granularity=granularity), toy(name))
    ]
    work = toy(draw.draw(some.sampled_from(names)))
    whole = {"steps": draw.draw(some.integers(1, 3)), "epochs": draw.draw(some.integers(0, 1))}
    kinds = {"scope": SCOPES, "schedule": SCHEDULES, "sparsity": RATIOS}
    picked = {kind: draw.draw(some.sampled_from(known)) for kind, known in kinds.items()}
    options = QUICK.get(criterion, {})
    recipe = recipe_for(
        work, criterion=criterion, options=options, granularity=granularity, **whole, **picked
    )
    found: list[tuple[nn.Module, dict[str, torch.Tensor]]] = []
    end = list(pruning.run(recipe, work, keep=lambda model, keep: found.append((model, keep))))[-1]
    assert isinstance(end, events.Finished)
    model, keep = found[0]
    assert all(
        dict(model.named_parameters())[name][~mask].count_nonzero() == 0
        for name, mask in keep.items()
    )
    assert end.sparsity == masks.sparsity(keep, masks.covered(recipe, work))
    layers = masks.rank(recipe, work).ranking.ranked(recipe)
    if layers.shared:
        spent_as_asked(recipe, layers, units_gone(recipe, work, keep))
    elif not layers.costs:  # where units differ in size, how much goes depends on which go
        sums = {
            name: sum(int((~keep[part]).sum()) for part in masks_of(name, work, recipe))
            for name in layers.units
        }
        spent_as_asked(
            recipe, layers, {name: gone // layers.sizes[name] for name, gone in sums.items()}
        )


def units_gone(recipe: Recipe, work: Workpiece, keep: masks.Masks) -> dict[str, int]:
    """Coupled group -> how many of its units are gone as a whole."""
    groups = masks.rank(recipe, work).groups
    assert groups is not None
    dependencies, lost = groups.dependencies, removed_units(groups.dependencies, keep)
    return {
        g.name: int(lost[a:b].sum())
        for g, a, b in zip(
            dependencies.groups, dependencies.starts, dependencies.starts[1:], strict=False
        )
    }


def masks_of(name: str, work: Workpiece, recipe: Recipe) -> list[str]:
    """A layer and those that go with it."""
    forms, _ = masks.fit(recipe, work)
    return [name, *(other for other, form in forms.items() if form.leader == name)]


@pytest.mark.parametrize(("criterion", "granularity"), PAIRS)
def test_a_later_mask_never_revives_and_applying_twice_is_once(
    criterion: str, granularity: str
) -> None:
    work = toy(fitting(granularity))
    gone = None
    for share in (0.2, 0.5, 0.8, 1.0):
        recipe = recipe_of(criterion, granularity=granularity, sparsity=0.8)
        keep = pruning.choose(recipe, work, gone, share)
        for name in gone or {}:
            assert not (keep[name] & ~gone[name]).any()  # type: ignore[index]
        pruning.apply(keep, work.model)
        once = copy.deepcopy(work.model.state_dict())
        pruning.apply(keep, work.model)
        assert same(dict(once), dict(work.model.state_dict()))
        gone = keep


@pytest.mark.parametrize(("criterion", "granularity"), MISFITS)
def test_what_has_no_meaning_is_refused_with_the_reason_and_the_way_out(
    criterion: str, granularity: str
) -> None:
    tags = registry.entry("criterion", criterion).tags
    with pytest.raises(
        RecipeError, match=f"^{criterion} does not work by {granularity}: "
    ) as caught:
        Recipe(criterion=criterion, granularity=granularity)
    assert tags["why"] in str(caught.value)
    way_out = next(name for name in tags["granularities"] if name in GRANULARITIES)
    assert f"Choose granularity {way_out}" in str(caught.value)
    Recipe(criterion=criterion, granularity=way_out)


@pytest.mark.parametrize(
    ("criterion", "granularity", "optimizer"),
    [(*pair, "sgd") for pair in PAIRS] + [("magnitude", name, "adamw") for name in GRANULARITIES],
)
def test_a_run_leaves_the_callers_model_alone_and_keeps_zeros_through_training(
    criterion: str, granularity: str, optimizer: str
) -> None:
    work = toy(fitting(granularity))
    before, chance = snapshot(work.model), torch.get_rng_state()
    found: list[tuple[nn.Module, dict[str, torch.Tensor]]] = []
    how = {"schedule": "cubic", "steps": 2, "epochs": 1, "optimizer": optimizer, "lr": 0.01}
    recipe = recipe_of(criterion, granularity=granularity, sparsity=0.6, **how)
    said = list(pruning.run(recipe, work, keep=lambda model, keep: found.append((model, keep))))
    assert same(before, snapshot(work.model))
    assert torch.equal(chance, torch.get_rng_state())
    model, keep = found[0]
    parameters = dict(model.named_parameters())
    assert all(parameters[name][~mask].count_nonzero() == 0 for name, mask in keep.items())
    end = said[-1]
    assert isinstance(end, events.Finished)
    assert end.sparsity == masks.sparsity(keep, masks.covered(recipe, work))
    if granularity == "weight":
        total = sum(w.numel() for w in prunable(model).values())
        assert round(end.sparsity * total) == round(0.6 * total)
    assert all(events.from_json(events.to_json(e)) == e for e in said)


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
    first, again = ([_without_times(e) for e in pruning.run(recipe, toy(name))] for _ in range(2))
    assert first == again


def _without_times(event: events.Event) -> dict[str, object]:
    def strip(value: object) -> object:
        if isinstance(value, dict):
            return {
                k: strip(v)
                for k, v in value.items()
                if k not in ("seconds", "latency", "timings", "measured")
            }
        return value

    return strip(events.to_dict(event))  # type: ignore[return-value]


def test_every_technique_says_what_it_is() -> None:
    for kind in registry.KINDS:
        for entry in registry.entries(kind).values():
            assert entry.title.endswith("."), entry.name
            function = registry.get(kind, entry.name)
            assert inspect.getdoc(function) == inspect.cleandoc(entry.help)
            assert all(option.help for option in entry.options), (
                f"{entry.name} leaves an option unexplained"
            )
    for entry in registry.entries("criterion").values():
        assert entry.paper, f"{entry.name} names no paper"
        assert set(entry.tags) >= {"group", "needs", "cost"}
