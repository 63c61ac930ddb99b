"""The laws of DESIGN.md, for every member of every registry, on every toy."""

from __future__ import annotations

import copy
import dataclasses
import inspect

import pytest
import torch
from torch import nn

import pruning
from pruning import events, masks, registry
from pruning.errors import RecipeError
from pruning.evidence import Evidence
from pruning.recipe import Recipe
from pruning.types import Workpiece, prunable
from tests.toys import TOYS, toy

CRITERIA = registry.names("criterion")
GRANULARITIES = registry.names("granularity")
SCOPES = registry.names("scope")
SCHEDULES = registry.names("schedule")
PAIRS = [(c, g) for c in CRITERIA for g in GRANULARITIES if not registry.misfit(c, g)]
MISFITS = [(c, g) for c in CRITERIA for g in GRANULARITIES if registry.misfit(c, g)]
RATIOS = (0.0, 0.1, 0.5, 0.9, 0.99)


def recipe_for(work: Workpiece, **fields: object) -> Recipe:
    """A recipe of these fields; by_hand gets the same ratio for every layer it may take from."""
    recipe = Recipe(**fields)  # type: ignore[arg-type]
    if recipe.scope == "by_hand":
        return dataclasses.replace(recipe, ratios={name: recipe.sparsity for name in masks.covered(recipe, work)})
    return recipe


def snapshot(model: nn.Module) -> dict[str, object]:
    """All that a careless technique could change."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [m.training for m in model.modules()]
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in model.modules()]
    grads = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
    return {"state": state, "modes": modes, "hooks": hooks, "grads": grads, "wants": [p.requires_grad for p in model.parameters()]}


def same(a: object, b: object) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list) and isinstance(b, list):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    return a == b


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_are_finite_have_the_weights_shape_and_leave_no_trace(criterion: str, name: str) -> None:
    work = toy(name)
    work.model.train()
    next(work.model.parameters()).grad = torch.ones_like(next(work.model.parameters()))
    before, chance = snapshot(work.model), torch.get_rng_state()
    scores = registry.get("criterion", criterion)(Evidence(work.model, work.train, work.loss))
    assert {n: s.shape for n, s in scores.items()} == {n: w.shape for n, w in prunable(work.model).items()}
    assert all(torch.isfinite(s).all() for s in scores.values())
    assert same(before, snapshot(work.model))
    assert torch.equal(chance, torch.get_rng_state())


@pytest.mark.parametrize("criterion", CRITERIA)
def test_scores_repeat(criterion: str) -> None:
    function = registry.get("criterion", criterion)
    work = toy("residual")
    first, again = (function(Evidence(work.model, work.train, work.loss, seed=3)) for _ in range(2))
    assert same(first, again)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("shape", [(4, 3), (1, 7), (6, 1), (5, 2, 3), (4, 3, 3, 3), (8, 1, 5, 5)])
def test_spread_of_pool_has_the_shape_and_is_constant_inside_a_unit(granularity: str, shape: tuple[int, ...]) -> None:
    form = registry.get("granularity", granularity)()
    x = torch.rand(shape)
    units = form.pool(x)
    spread = form.spread(units, x.shape)
    assert spread.shape == x.shape
    assert x.numel() % len(units) == 0
    numbered = form.spread(torch.arange(len(units)), x.shape)
    assert torch.equal(units[numbered], spread)  # the same place always shows its own unit
    assert torch.equal(numbered.flatten().bincount(), torch.full((len(units),), x.numel() // len(units)))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules_rise_inside_0_to_1_and_end_at_1(schedule: str) -> None:
    f = registry.get("schedule", schedule)
    values = [f(t / 20) for t in range(1, 21)]
    assert values[-1] == 1
    assert values == sorted(values)
    assert all(0 <= v <= 1 for v in values)


@pytest.mark.parametrize("ratio", RATIOS)
@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("name", TOYS)
def test_single_weights_go_exactly_and_no_layer_is_emptied(name: str, scope: str, ratio: float) -> None:
    work = toy(name)
    recipe = recipe_for(work, scope=scope, sparsity=ratio)
    keep = pruning.choose(recipe, work)
    sizes = {n: w.numel() for n, w in prunable(work.model).items()}
    gone = {n: int((~keep[n]).sum()) for n in sizes}
    assert all(gone[n] < sizes[n] for n in sizes)
    if scope == "global":
        spare = sum(s - 1 for s in sizes.values())
        assert sum(gone.values()) == min(round(ratio * sum(sizes.values())), spare)
    else:
        assert gone == {n: min(round(ratio * s), s - 1) for n, s in sizes.items()}


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize(("criterion", "granularity"), PAIRS)
def test_budget_is_never_overspent_and_the_preview_says_what_happens(criterion: str, scope: str, granularity: str) -> None:
    for name in TOYS:
        work = toy(name)
        if granularity != "weight" and len(prunable(work.model)) == 1:
            continue
        for ratio in RATIOS:
            recipe = recipe_for(work, criterion=criterion, granularity=granularity, scope=scope, sparsity=ratio)
            keep = pruning.choose(recipe, work)
            covered = masks.covered(recipe, work)
            total = sum(keep[n].numel() for n in covered)
            most = max(keep[n].numel() // len(keep[n]) for n in covered)  # a rounded count of units can be half a unit over
            assert masks.sparsity(keep, covered) <= ratio + (0.5 / total if scope == "global" else len(covered) * most / total)
            assert all(keep[n].any() for n in keep)
            left = masks.rank(recipe, work).ranking.left(recipe)
            assert {layer.name: layer.kept for layer in left.layers} == {n: int(k.sum()) for n, k in keep.items() if k.dim() > 1}
            assert left.sparsity == pytest.approx(masks.sparsity(keep, covered), abs=1e-12)


@pytest.mark.parametrize(("criterion", "granularity"), PAIRS)
def test_a_later_mask_never_revives_and_applying_twice_is_once(criterion: str, granularity: str) -> None:
    work = toy("residual")
    gone = None
    for share in (0.2, 0.5, 0.8, 1.0):
        recipe = Recipe(criterion=criterion, granularity=granularity, sparsity=0.8)
        keep = pruning.choose(recipe, work, gone, share)
        for name in gone or {}:
            assert not (keep[name] & ~gone[name]).any()  # type: ignore[index]
        pruning.apply(keep, work.model)
        once = copy.deepcopy(work.model.state_dict())
        pruning.apply(keep, work.model)
        assert same(dict(once), dict(work.model.state_dict()))
        gone = keep


@pytest.mark.parametrize(("criterion", "granularity"), MISFITS)
def test_what_has_no_meaning_is_refused_with_the_reason_and_the_way_out(criterion: str, granularity: str) -> None:
    tags = registry.entry("criterion", criterion).tags
    with pytest.raises(RecipeError, match=f"^{criterion} does not work by {granularity}: ") as caught:
        Recipe(criterion=criterion, granularity=granularity)
    assert tags["why"] in str(caught.value)
    way_out = next(name for name in tags["granularities"] if name in GRANULARITIES)
    assert f"Choose granularity {way_out}" in str(caught.value)
    Recipe(criterion=criterion, granularity=way_out)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize(("criterion", "granularity"), PAIRS)
def test_a_run_leaves_the_callers_model_alone_and_keeps_zeros_through_training(criterion: str, granularity: str, optimizer: str) -> None:
    work = toy("residual")
    before, chance = snapshot(work.model), torch.get_rng_state()
    found: list[tuple[nn.Module, dict[str, torch.Tensor]]] = []
    recipe = Recipe(
        criterion=criterion, granularity=granularity, sparsity=0.6, schedule="cubic", steps=3, epochs=2, optimizer=optimizer, lr=0.01
    )
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
    recipe = Recipe(criterion="taylor", sparsity=0.5, steps=2, epochs=2, schedule="linear", start="random", seed=4)
    first, again = ([_without_times(e) for e in pruning.run(recipe, toy(name))] for _ in range(2))
    assert first == again


def _without_times(event: events.Event) -> dict[str, object]:
    def strip(value: object) -> object:
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items() if k not in ("seconds", "latency")}
        return value

    return strip(events.to_dict(event))  # type: ignore[return-value]


def test_every_technique_says_what_it_is() -> None:
    for kind in registry.KINDS:
        for entry in registry.entries(kind).values():
            assert entry.title.endswith("."), entry.name
            function = registry.get(kind, entry.name)
            assert inspect.getdoc(function) == inspect.cleandoc(entry.help)
            assert all(option.help for option in entry.options), f"{entry.name} leaves an option unexplained"
    for entry in registry.entries("criterion").values():
        assert entry.paper, f"{entry.name} names no paper"
        assert set(entry.tags) >= {"group", "needs", "cost"}
