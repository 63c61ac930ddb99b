"""Which techniques fit the model on the bench and the other choices, and why not. Pure."""

from __future__ import annotations

from typing import Any

from dashboard import words
from pruning import registry
from pruning.recipe import Recipe
from pruning.registry import Entry


def why_not(kind: str, entry: Entry, recipe: Recipe, card: dict[str, Any] | None) -> str:
    """Why a technique cannot be picked now, in a sentence; "" where it can. card: of the model, None while it is worked out."""
    if kind == "criterion":
        return _meaning(entry, recipe.granularity) or (_needs(entry, card) if card else "")
    if kind == "granularity":
        return _meaning(registry.entry("criterion", recipe.criterion), entry.name) or (
            _fits(entry.name, card) if card else ""
        )
    return ""


def _meaning(criterion: Entry, granularity: str) -> str:
    """Why a criterion says nothing about a granularity's units, and what it is for."""
    if registry.misfit(criterion.name, granularity) is None:
        return ""
    offered = [
        words.technique(name)
        for name in criterion.tags["granularities"]
        if name in registry.names("granularity")
    ]
    name = words.called(criterion.name)
    return f"{name} does not go with {words.technique(granularity)}: {criterion.tags['why']}. It works by {' or '.join(offered)}."


def _needs(entry: Entry, card: dict[str, Any]) -> str:
    """What a criterion looks at and the model does not have."""
    needs = str(entry.tags.get("needs", "nothing"))
    if needs == "data" and card["measurement"]["accuracy"] is None:
        return "It needs data, and there is none for this model."
    if needs == "BatchNorm" and not card.get("norms"):
        return "It looks at the scales of BatchNorm, and this model has none."
    return ""


def _fits(name: str, card: dict[str, Any]) -> str:
    """What a granularity removes and the model does not have."""
    why = str(card.get("fits", {}).get(name, ""))
    return f"It fits no layer of this model: {why}" if why else ""
