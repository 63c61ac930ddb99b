"""What is known of a model, from the card that ships with it or from the study of it. No page."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import sample_models
from dashboard import jobs, words
from dashboard.components.strip import Block
from pruning import registry
from pruning.errors import PruningError
from pruning.events import Accuracy
from pruning.recipe import Recipe
from pruning.registry import Entry
from pruning.runs.resolve import describe
from pruning.runs.results import Study
from pruning.storage import default_workspace

TORCHVISION = "torchvision:"
UPLOAD = "upload:"
RUN = "run:"
KINDS = ("conv", "depthwise", "linear", "attention")


@dataclass(frozen=True)
class Facts:
    """The lines at the side. accuracy: on test data, None where there is none; bytes: of the dense file."""

    title: str
    accuracy: Accuracy | None
    weights: int
    bytes: int
    random: bool = False


def is_sample(model: str) -> bool:
    return model in sample_models.names()


def examples(model: str) -> int:
    """Training examples of a sample model; 0 where that is not known without loading it."""
    return sample_models.card(model).train if is_sample(model) else 0


def title(model: str) -> str:
    """A model's name for people: of an upload, its file's."""
    if model.startswith(UPLOAD):
        return _file_name(model, default_workspace())
    if model.startswith(RUN):
        return f"result of run {model.removeprefix(RUN)[:6]}"
    return model.removeprefix(TORCHVISION)


@lru_cache(maxsize=256)
def _file_name(model: str, place: Path) -> str:
    try:
        return str(describe(model, place)["name"])
    except PruningError:  # of another workspace, or deleted
        return f"upload {model.removeprefix(UPLOAD)[:6]}"


def facts(model: str) -> Facts | None:
    """None while the study of it is under way. Raises PruningError for a model that cannot be had."""
    if is_sample(model):
        card = sample_models.card(model)
        return Facts(card.name, card.accuracy, card.weights, card.bytes)
    study = jobs.study("card", model=model)
    if study is None:
        return None
    data = study.data
    return Facts(
        title(model),
        accuracy(study),
        data["weights"],
        data["measurement"]["size"]["dense"],
        data["labelled_random"],
    )


def validation(model: str) -> int:
    """Validation images of a model; 0 while that is not known, or where there are none."""
    if is_sample(model):
        return sample_models.card(model).validation
    study = jobs.study("card", model=model)
    return int(study.data.get("validation") or 0) if study else 0


def accuracy(study: Study) -> Accuracy | None:
    """Of a "card" study, on test data."""
    held = study.data["measurement"]["accuracy"]
    return Accuracy(held["correct"], held["total"]) if held else None


def blocks(study: Study, kept: dict[str, float] | None = None) -> list[Block]:
    """The strip's blocks of a "card" study. kept: layer -> share that stays."""
    return [
        Block(
            layer["name"],
            layer["kind"],
            tuple(layer["shape"]),
            layer["weights"],
            kept.get(layer["name"], 1.0) if kept else None,
        )
        for layer in study.data["layers"]
    ]


def blocks_of(model: str, study: Study | None) -> list[Block]:
    """The strip's blocks: from the study, or, while that is under way, from the card of a sample; none when neither is there."""
    if study is not None:
        return blocks(study)
    if not is_sample(model):
        return []
    held = [
        block for block in sample_models.card(model).blocks if block.weights and block.kind in KINDS
    ]
    return [Block(f"{block.name}.weight", block.kind, block.shape, block.weights) for block in held]


# ---------------------------------------------------------------- compatibility


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
    name = words.capitalized(criterion.name)
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
