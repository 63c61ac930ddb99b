"""A mask is data beside the model, never inside it: name -> bool, True = keep; names left out are dense."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from pruning import registry
from pruning.allocation.ranking import Ranking
from pruning.errors import ModelError, UnknownName
from pruning.events import Layer
from pruning.evidence import Evidence
from pruning.measurement import dense_bytes, macs, output_layer
from pruning.recipe import Recipe
from pruning.types import Masks, Scores, Workpiece, prunable
from pruning.units import dependency
from pruning.units.dependency import Groups
from pruning.units.granularities import Granularity, fitted


def dense(model: nn.Module) -> Masks:
    """A mask that keeps every prunable weight."""
    return {
        name: torch.ones_like(weight, dtype=torch.bool) for name, weight in prunable(model).items()
    }


@torch.no_grad()
def apply(masks: Masks, model: nn.Module) -> None:
    """Write zeros where a mask says so, in place. Applying twice is applying once.

    Raises UnknownName for a mask of a parameter the model does not have, ModelError for a wrong shape.
    """
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for name, keep in masks.items():
        if name not in parameters:
            raise UnknownName("parameter to mask", name, parameters)
        weight = parameters[name]
        if weight.shape != keep.shape:
            raise ModelError(
                f"The mask of {name} has shape {tuple(keep.shape)}, its weights {tuple(weight.shape)}: it is for another model."
            )
        weight.mul_(keep.to(weight.dtype))
        weight.masked_fill_(~keep, 0)  # also the sign of -0.0, so that bytes compress


def sparsity(masks: Masks, covered: Collection[str] | None = None) -> float:
    """Share gone of the covered weights (all masked ones unless said; biases are not counted)."""
    weights = [
        keep
        for name, keep in masks.items()
        if keep.dim() > 1 and (covered is None or name in covered)
    ]
    return 1 - sum(int(k.sum()) for k in weights) / sum(k.numel() for k in weights)


def by_layer(masks: Masks, positions: dict[str, int], names: Collection[str]) -> tuple[Layer, ...]:
    """Kept weights and MACs of each layer called `names`. positions: how often one weight is used for one example."""
    return tuple(
        Layer(
            n,
            k.numel(),
            kept := int(k.sum()),
            k.numel() * positions.get(n, 0),
            kept * positions.get(n, 0),
        )
        for n, k in masks.items()
        if n in names
    )


@dataclass(frozen=True)
class Units:
    """Scores pooled into units: the scores in flat order (unsorted), and the ranking they give.

    forms: layer -> the granularity as it fits it; inside: layer -> True for weights that go when their unit goes, where not all do.
    groups: where units are coupled over layers; scores and ranking are then by group.
    """

    scores: dict[str, Tensor]
    forms: dict[str, Granularity]
    ranking: Ranking
    inside: Masks
    groups: Groups | None = None


def score(recipe: Recipe, work: Workpiece, seen: Evidence | None = None) -> Scores:
    """The criterion's scores, higher = keep. seen: what was gathered for another criterion already.

    Raises DataError when it needs data there is none of.
    """
    evidence = seen or Evidence.of(work, seed=recipe.seed)
    scores: Scores = registry.get("criterion", recipe.criterion)(evidence, **recipe.options)
    for name, values in scores.items():
        if not torch.isfinite(values).all():
            raise ModelError(
                f"{recipe.criterion} gives {name} scores that are not finite: gradients may overflow; try another criterion."
            )
    return scores


def rank(
    recipe: Recipe, work: Workpiece, gone: Masks | None = None, seen: Evidence | None = None
) -> Units:
    """Score, pool into units and sort. gone: an earlier mask; units it removed score -inf and so never come back."""
    groups = grouped(recipe, work)
    ranked = _rank_layers if isinstance(groups, str) else partial(_rank_groups, groups)
    units = ranked(recipe, work, gone, seen)
    if recipe.scope != "by_sensitivity" or not units.ranking.open(recipe):
        return units
    from pruning.sensitivity_map.measure import kept  # measures with what is ranked here
    from pruning.sensitivity_map.netadapt import route

    return replace(
        units, ranking=replace(units.ranking, route=route(recipe, work, units, folder=kept()))
    )


def _rank_layers(
    recipe: Recipe, work: Workpiece, gone: Masks | None, seen: Evidence | None
) -> Units:
    """The same for units that stay inside one layer."""
    forms, fixed = fit(recipe, work)
    scores = score(recipe, work, seen)
    inside: Masks = {}
    for name, form in forms.items():
        if form.inside:
            scores[name] = (
                scores[name].float().masked_fill(~gone[name], -torch.inf) if gone else scores[name]
            )
            inside[name] = form.inside(scores[name])
    pooled = _pooled(forms, scores, gone or {})
    costs, sizes = _costs(forms, scores, pooled)
    order = {name: np.argsort(pooled[name].numpy(), kind="stable") for name in costs}
    total = {name: values.numel() for name, values in scores.items()}
    ranking = Ranking(
        units={name: np.sort(values.numpy()) for name, values in pooled.items()},
        sizes=sizes,
        shapes={name: tuple(values.shape) for name, values in scores.items()},
        macs=macs(work.model, work.example) if work.example is not None else {},
        other=dense_bytes(work.model) - 4 * sum(total.values()),
        fixed=fixed,
        costs={name: costs[name][order[name]] for name in costs},
        leaders={name: form.leader for name, form in forms.items() if form.leader},
        output=output_layer(work),
    )
    return Units(pooled, forms, ranking, inside)


def _rank_groups(
    groups: Groups, recipe: Recipe, work: Workpiece, gone: Masks | None, seen: Evidence | None
) -> Units:
    """The same for units that are coupled over layers."""
    spared = _spared(recipe, work)
    fixed, leaders = dependency.fixed(groups, work.model, spared)
    scores = score(recipe, work, seen)
    pooled = dependency.pooled(groups, scores, work.model, recipe.criterion, spared, gone)
    touching = dependency.touching(groups, work.model)
    ranking = Ranking(
        units={name: np.sort(values.numpy()) for name, values in pooled.items()},
        sizes=dict(zip(touching.groups, touching.alone().tolist(), strict=True)),
        shapes={name: tuple(values.shape) for name, values in scores.items()},
        macs=macs(work.model, work.example) if work.example is not None else {},
        other=dense_bytes(work.model) - 4 * sum(values.numel() for values in scores.values()),
        fixed=fixed,
        leaders=leaders,
        output=output_layer(work),
        touching=touching,
        multiple=groups.form.multiple,
    )
    return Units(pooled, {}, ranking, {}, groups)


def _pooled(forms: dict[str, Granularity], scores: Scores, gone: Masks) -> dict[str, Tensor]:
    """Layer -> one score for each unit, -inf for those that are gone. Layers that go together are pooled together."""
    pooled: dict[str, Tensor] = {}
    for name, form in forms.items():
        if form.leader:
            pooled[name] = pooled[form.leader]
            continue
        group = [name, *(other for other, held in forms.items() if held.leader == name)]
        values = form.pool(_under(scores, group))
        if gone:
            values = values.masked_fill(form.pool(_under(gone, group)) <= 0, -torch.inf)
        pooled[name] = values
    return pooled


def _under(held: dict[str, Tensor], names: list[str]) -> Tensor:
    """One tensor under the other."""
    parts = [held[name].float() for name in names]
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def _costs(
    forms: dict[str, Granularity], scores: Scores, pooled: dict[str, Tensor]
) -> tuple[dict[str, NDArray[Any]], dict[str, int]]:
    """Weights that go with each unit of a layer, where that differs; and the most of any unit."""
    costs, sizes = {}, {}
    for name, form in forms.items():
        shape = scores[name].shape
        lost = form.lost(shape) if form.lost else shape.numel() // len(pooled[name])
        if isinstance(lost, Tensor) and bool((lost != lost[0]).any()):
            costs[name] = lost.numpy()
        sizes[name] = int(lost.max()) if isinstance(lost, Tensor) else lost
    return costs, sizes


def _form(recipe: Recipe) -> Granularity:
    form: Granularity = registry.get("granularity", recipe.granularity)(
        **recipe.granularity_options
    )
    return form


def _spared(recipe: Recipe, work: Workpiece) -> dict[str, str]:
    """Layers that the criterion has nothing to say of, with the reason."""
    skips = registry.companion(recipe.criterion, "skips")
    return skips(Evidence.of(work, seed=recipe.seed)) if skips else {}


def grouped(recipe: Recipe, work: Workpiece) -> Groups | str:
    """The coupled groups whose units the recipe removes, or why it takes units layer by layer."""
    return dependency.find(_form(recipe), work)


def layer_by_layer(recipe: Recipe, work: Workpiece) -> str | None:
    """Why a granularity of coupled groups takes its units layer by layer here; None where it does not, or is none."""
    found = grouped(recipe, work) if recipe.dependency_groups else None
    return found if isinstance(found, str) else None


def fit(recipe: Recipe, work: Workpiece) -> tuple[dict[str, Granularity], dict[str, str]]:
    """Layer -> the granularity as it fits it; and layers that it or the criterion leaves alone, with the reason."""
    form = _form(recipe)
    found = {name: fitted(form, work.model, name) for name in prunable(work.model)}
    fixed = {name: why for name, why in found.items() if isinstance(why, str)}
    fixed = _spared(recipe, work) | fixed
    output = output_layer(work) if form.rows else None
    if output in found and output not in fixed:
        fixed[output] = "its outputs are the model's answers, one for each class."
    return {name: held for name, held in found.items() if isinstance(held, Granularity)}, fixed


def covered(recipe: Recipe, work: Workpiece) -> set[str]:
    """The layers a recipe may take from: its sparsity is a share of their weights."""
    groups = grouped(recipe, work)
    if isinstance(groups, Groups):
        return dependency.covered(groups, work.model, _spared(recipe, work), recipe.exclude)
    forms, fixed = fit(recipe, work)
    closed = {*fixed, *recipe.exclude}
    leaders = {name: form.leader or name for name, form in forms.items()}
    closed |= {leaders.get(name, name) for name in closed}
    return {name for name, leader in leaders.items() if leader not in closed and name not in fixed}


def kept_whole(recipe: Recipe, work: Workpiece) -> dict[str, str]:
    """The layers that a recipe takes nothing from -> why, as far as it is the granularity or the criterion that leaves them."""
    groups = grouped(recipe, work)
    if isinstance(groups, str):
        return fit(recipe, work)[1]
    spared = _spared(recipe, work)
    why, leaders = dependency.fixed(groups, work.model, spared)
    ours = dependency.covered(groups, work.model, spared, recipe.exclude)
    return {
        name: why.get(leaders.get(name, name), "it is left dense.")
        for name in prunable(work.model)
        if name not in ours
    }


def verdict(units: Units, drops: dict[str, int], model: nn.Module) -> Masks:
    """Masks that remove the lowest units of each layer, ties by flat index. Whole outputs take their bias along."""
    if units.groups is not None:
        losing = {
            name: ~_lose(held, units.ranking.units[name], drops.get(name, 0)).numpy()
            for name, held in units.scores.items()
        }
        return dependency.verdict(units.groups, losing, model, units.ranking.shapes)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    masks: Masks = {}
    for name in units.ranking.names:
        if name not in units.forms or not drops[name]:
            masks[name] = torch.ones(units.ranking.shapes[name], dtype=torch.bool)
            continue
        form = units.forms[name]
        keep = form.spread(
            _lose(units.scores[name], units.ranking.units[name], drops[name]),
            parameters[name].shape,
        )
        masks[name] = keep | ~units.inside[name] if name in units.inside else keep
    for name in [name for name, form in units.forms.items() if form.rows]:
        bias = name.removesuffix("weight") + "bias"
        if bias in parameters and len(parameters[bias]) == len(masks[name]):
            masks[bias] = masks[name].flatten(1)[:, 0].clone()
    return masks


def _lose(scores: Tensor, ascending: NDArray[Any], count: int) -> Tensor:
    """Which units stay when the `count` lowest go, equal scores by flat index, lowest first."""
    if count == 0:
        return torch.ones_like(scores, dtype=torch.bool)
    threshold = float(ascending[count - 1])
    keep = scores > threshold
    ties = (scores == threshold).nonzero().flatten()
    below = int(np.searchsorted(ascending, ascending[count - 1], "left"))
    keep[ties[count - below :]] = True
    return keep


def intersect(a: Masks, b: Masks) -> Masks:
    """What both keep: a later mask never revives."""
    return {
        name: a[name] & b[name] if name in a and name in b else {**a, **b}[name]
        for name in {**a, **b}
    }


def compensation(recipe: Recipe, work: Workpiece, masks: Masks) -> dict[str, Tensor]:
    """What the criterion makes of weights that stay, so that they make up for those that go; empty for most. Touches nothing."""
    compensate = registry.companion(recipe.criterion, "compensate")
    return (
        compensate(Evidence.of(work, seed=recipe.seed), masks, **recipe.options)
        if compensate
        else {}
    )


@torch.no_grad()
def remove(recipe: Recipe, work: Workpiece, masks: Masks) -> None:
    """Take out of `work.model`, in place, what `masks` say, after the criterion's compensation."""
    parameters = dict(work.model.named_parameters(remove_duplicate=False))
    for name, values in compensation(recipe, work, masks).items():
        parameters[name].copy_(values)
    apply(masks, work.model)


def choose(recipe: Recipe, work: Workpiece, gone: Masks | None = None, share: float = 1.0) -> Masks:
    """Which weights a recipe keeps, in one shot, at `share` of its sparsity. Touches nothing.

    Raises RecipeError, ModelError or DataError; each says the way out.
    """
    return decide(recipe, work, gone, share)[0]


def decide(
    recipe: Recipe, work: Workpiece, gone: Masks | None = None, share: float = 1.0
) -> tuple[Masks, Ranking]:
    """`choose`, and the ranking that it went by."""
    units = rank(recipe, work, gone)
    masks = verdict(units, units.ranking.drops(recipe, share=share), work.model)
    return intersect(masks, gone) if gone else masks, units.ranking
