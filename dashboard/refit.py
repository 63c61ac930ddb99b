"""A manual recipe names layers, and some name units: what becomes of it where the model has others.

It keeps what it is for, the share that it prunes, and says in a sentence what it became.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from statistics import fmean
from typing import Any

from dashboard import forms, jobs, models, state, tables, words
from pruning.errors import PruningError
from pruning.recipe import Recipe

LEAST, MOST = 0.001, 0.999
"""Shares that the slider has."""


def use_model(model: str) -> None:
    """Go on with another model. What does not fit it is changed by `check`, once it is known."""
    recipe = state.recipe()
    if recipe.scope == "manual":
        # Only now is the model that the ratios were set on still at hand.
        state.remember_share(recipe.ratios, share_of(recipe))
    forms.attempt(model=model)


def use_granularity(name: str) -> None:
    """Another granularity. Ratios were set for units that it does not have."""
    recipe = state.recipe()
    fields: dict[str, Any] = {"granularity": name, "granularity_options": {}}
    structured = Recipe(granularity=name).dependency_groups
    if structured is not recipe.dependency_groups:
        # Without whole channels a network is at chance; reconstructed in seconds, it is not.
        facts = models.facts(recipe.model)
        data = facts is not None and facts.accuracy is not None
        fields["reconstruct"] = structured and data and not recipe.recalibrate
    named = f"The units that it named were {words.units(recipe)}"
    if recipe.scope != "manual":
        if forms.changed(**fields, removed={}) and recipe.removed:
            state.note_adjustment(f"{named}: it names none now.")
        return
    # Half of the channels is not half of the weights, and weights are what all granularities have.
    state.remember_share(recipe.ratios, share_of(recipe, of_weights=True))
    fallen_back, source = without_ratios(recipe)
    by_layer = {key: getattr(fallen_back, key) for key in ("scope", "scope_options", "sparsity")}
    by_default = Recipe(granularity=name).counted
    budget = "" if by_default == "weights" else "weights"
    if forms.changed(**fields, **by_layer, budget=budget, ratios={}, removed={}):
        why = named if recipe.removed else f"The ratios by layer were of {words.units(recipe)}"
        state.note_adjustment(f"{why}: {_now(state.recipe(), source)}")


def check() -> None:
    """See that the recipe names no layers that its model does not have, whoever wrote it: another
    model's recipe or a link.
    """
    recipe = state.recipe()
    layers = models.layer_outputs(recipe.model)
    if layers is None:  # not known yet
        return
    fitted, sentence = refitted(recipe, layers)
    if sentence:
        state.amend(fitted)
        state.note_adjustment(sentence)


def refitted(recipe: Recipe, layers: Mapping[str, int]) -> tuple[Recipe, str]:
    """The recipe for a model of these layers; what was changed, in sentences, "" for nothing.

    layers: layer -> outputs, of which no layer has fewer than units.
    """
    title = models.title(recipe.model)
    sentences = []
    missing = _missing(recipe.exclude, layers)
    if missing:
        kept = tuple(name for name in recipe.exclude if name not in missing)
        recipe = replace(recipe, exclude=kept)
        sentences.append(f"{title} has no {_named(missing)} to leave dense.")
    kept_units = _units_there(recipe.removed, layers)
    if kept_units != recipe.removed:
        others = {
            name: [unit for unit in units if unit not in kept_units.get(name, ())]
            for name, units in recipe.removed.items()
        }
        names = words.numbered({name: units for name, units in others.items() if units})
        why = f"{title} has no unit {words.first_three(names)} to remove"
        recipe = replace(recipe, removed=kept_units)
        if recipe.prunes:
            sentences.append(f"{why}.")
        else:  # it named nothing else
            recipe, source = without_ratios(recipe)
            sentences.append(f"{why}: {_now(recipe, source)}")
    missing = _missing(recipe.ratios, layers)
    if missing and recipe.scope != "manual":
        recipe = replace(recipe, ratios={})  # not used, and nothing to tell of
        return recipe, " ".join(sentences)
    if missing:
        recipe, source = without_ratios(recipe)
        why = f"The ratios by layer do not fit {title}, which has no {_named(missing)}"
        sentences.append(f"{why}: {_now(recipe, source)}")
    return recipe, " ".join(sentences)


AS_MUCH = "about as much as they came to"
MEAN = "the mean of the ratios, as what they came to is not known here"
UNSET = "as it says beside its ratios, of which it had none"


def without_ratios(recipe: Recipe) -> tuple[Recipe, str]:
    """A manual recipe by the scope that it had before, pruning as much as its ratios came to; and
    where that share is from, a clause.
    """
    share, source = state.remembered_share(recipe.ratios), AS_MUCH
    if share is None and recipe.ratios:  # a link's: its model is not known
        share, source = fmean(recipe.ratios.values()), MEAN
    elif share is None:
        share, source = recipe.sparsity, UNSET
    before = state.before_manual()
    scope = before.scope if before and before.budgeted else "global"
    fallen_back = replace(
        recipe,
        scope=scope,
        scope_options=before.scope_options if before and scope == before.scope else {},
        sparsity=round(min(MOST, max(LEAST, share)), 3),
        ratios={},
    )
    return fallen_back, source


def share_of(recipe: Recipe, *, of_weights: bool = False) -> float:
    """What a manual recipe's ratios come to on its model: a share of the recipe's budget, or of
    the weights.

    Exact where the model is scored; else by the layers' weights.
    """
    spec = tables.scores_spec(recipe)
    try:
        study = jobs.study("scores", **spec) if jobs.was_requested("scores", **spec) else None
        if study is not None:
            preview = study.ranking.preview(recipe)
            return preview.sparsity if of_weights else preview.share
    # Failed, waits for a press, or the ratios fit this model no more than the next.
    except (PruningError, jobs.Costly):
        pass
    return share_by_weights(recipe.ratios, models.layer_weights(recipe.model) or {})


def share_by_weights(ratios: Mapping[str, float], weights: Mapping[str, int]) -> float:
    """The share of all weights; the mean of the ratios where the weights are not known."""
    if not set(ratios) <= set(weights):
        return fmean(ratios.values()) if ratios else 0.0
    removed = sum(ratio * weights[name] for name, ratio in ratios.items())
    return removed / sum(weights.values())


def _now(recipe: Recipe, source: str) -> str:
    """`the recipe now prunes 77.4 % of the weights, scope global: about as much as they came to.`

    source: where that share is from, a clause.
    """
    share = f"{words.share(recipe.sparsity)} of the {words.counted(recipe)}"
    return f"the recipe now prunes {share}, scope {words.display_name(recipe.scope)}: {source}."


def _missing(names: Collection[str], layers: Collection[str]) -> list[str]:
    """Names that are neither a layer nor a set of units named after one ("a.weight (2)")."""
    return [name for name in names if name.partition(" (")[0] not in layers]


def _units_there(
    removed: Mapping[str, list[int]], layers: Mapping[str, int]
) -> dict[str, list[int]]:
    """Of the units that a recipe names, those that a model of these layers may have."""
    kept = {}
    for name, units in removed.items():
        outputs = layers.get(name.partition(" (")[0], 0)
        if inside := [unit for unit in units if unit < outputs]:
            kept[name] = inside
    return kept


def _named(names: list[str]) -> str:
    return words.first_three([words.layer_name(name) for name in names])
