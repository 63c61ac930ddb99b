"""A sample model's card: words from the catalogue, numbers from the shipped weights. No torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from pruning.errors import FileRefused
from pruning.metrics import Accuracy
from sample_models.catalogue import dataset, sample

CARDS = Path(__file__).parent / "cards"
WEIGHTS = Path(__file__).parent / "weights"


@dataclass(frozen=True)
class Block:
    """One module of the architecture, in the order data meets it.

    kind: "conv", "depthwise", "linear", "attention", "norm" or "pool"; shape: of its weight, ()
    when it has none; output: of one example; weights: in the weight tensor (biases not counted).
    """

    name: str
    kind: str
    weights: int
    shape: tuple[int, ...]
    output: tuple[int, ...]


@dataclass(frozen=True)
class Card:
    """A sample model, described.

    data, classes, needs ("nothing" or "download"), licence: of its data set
    mean, std: inputs are (value - mean) / std
    weights: that techniques may prune; parameters: all
    bytes: of the model in float32; shipped: of the file here
    accuracy: of the shipped weights on test; train, validation, test: examples
    recipe, seed, versions: how it was trained, and with what
    """

    name: str
    title: str
    good_for: str
    about: str
    architecture: str
    data: str
    data_title: str
    data_about: str
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    mean: float
    std: float
    needs: str
    licence: str
    source: str
    train: int
    validation: int
    test: int
    parameters: int
    weights: int
    bytes: int
    shipped: int
    accuracy: Accuracy
    recipe: dict[str, Any]
    seed: int
    versions: dict[str, Any]
    blocks: tuple[Block, ...]


@cache
def card(name: str) -> Card:
    """Raises UnknownName, which lists the known ones; FileRefused for a damaged or missing file."""
    kind = sample(name)
    data = dataset(kind.dataset)
    facts = _facts(name)
    return Card(
        name=name,
        title=kind.title,
        good_for=kind.good_for,
        about=kind.about,
        architecture=kind.architecture,
        data=data.name,
        data_title=data.title,
        data_about=data.about,
        classes=data.classes,
        shape=data.shape,
        mean=data.mean,
        std=data.std,
        needs=data.needs,
        licence=data.licence,
        source=data.source,
        train=data.sizes[0],
        validation=data.sizes[1],
        test=data.sizes[2],
        parameters=facts["parameters"],
        weights=facts["weights"],
        bytes=facts["bytes"],
        shipped=facts["shipped"],
        accuracy=Accuracy(**facts["accuracy"]),
        recipe=facts["recipe"],
        seed=facts["seed"],
        versions=facts["versions"],
        blocks=tuple(_block(block) for block in facts["blocks"]),
    )


def _facts(name: str) -> dict[str, Any]:
    try:
        facts: dict[str, Any] = json.loads((CARDS / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FileRefused(
            f"The card of {name} is damaged or missing ({error}): get sample_models/cards afresh, "
            f"or train the model with `python -m sample_models train {name}`."
        ) from error
    return facts


def _block(facts: dict[str, Any]) -> Block:
    return Block(
        facts["name"],
        facts["kind"],
        facts["weights"],
        tuple(facts["shape"]),
        tuple(facts["output"]),
    )
