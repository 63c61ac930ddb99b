"""Models to try the workbench on: small, trained, with data and a card each.

names() lists them without importing anything heavy; load("digits-cnn") gives a pruning.Workpiece.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from pruning.errors import UnknownName
from sample_models.cards import CARDS, Card, card
from sample_models.catalogue import ARCHITECTURES, DATASETS, SAMPLES, Dataset, dataset, sample

if TYPE_CHECKING:
    from pathlib import Path

    from torch import nn

    from pruning.types import Workpiece
    from sample_models.data import Progress

__all__ = [
    "Card",
    "Dataset",
    "build",
    "card",
    "datasets",
    "fetch",
    "load",
    "names",
    "normalisation",
    "torchvision_names",
]

PREFIX = "torchvision:"


def names() -> list[str]:
    """The sample models that are trained and shipped, the easiest first."""
    return [name for name in SAMPLES if (CARDS / f"{name}.json").is_file()]


def datasets() -> list[dict[str, Any]]:
    """The data sets, described in plain data (the fields of `Dataset`)."""
    return [dataclasses.asdict(data) for data in DATASETS.values()]


def normalisation(name: str) -> tuple[float, float]:
    """Mean and deviation that a sample model's inputs, in [0, 1], have taken away. UnknownName."""
    data = dataset(sample(name).dataset)
    return data.mean, data.std


def torchvision_names() -> list[str]:
    """torchvision's classification architectures, which `load` takes by name.

    Listed in a file, so that torchvision need not be imported.
    """
    return ARCHITECTURES.read_text(encoding="utf-8").split()


def load(
    name: str, *, data: bool = True, weights: str = "auto", progress: Progress | None = None
) -> Workpiece:
    """A workpiece in eval mode and float32: a sample model with its data, or an architecture.

    name: one of `names()`, or of `torchvision_names()`, with "torchvision:" before it or without
    data: False leaves train, validation and test None
    weights: of torchvision architectures: "auto" (trained if they were downloaded before, else
        random), "trained" (downloads them; random when that fails, which the workpiece's name says)
        or "random"
    progress: called with (what, done, of) while something is downloaded

    Raises UnknownName; DataError when the data is neither here nor to be had; FileRefused when a
    shipped file is damaged.
    """
    if name in SAMPLES:
        from sample_models import loading  # here and below: torch loads when a model is asked for

        return loading.load(name, data=data, progress=progress)
    from sample_models import architectures

    return architectures.load(_architecture(name), weights=weights, progress=progress)


def build(name: str, seed: int = 0, classes: int | None = None) -> nn.Module:
    """The untrained model in eval mode, initialised from the seed. Raises UnknownName.

    classes: how many a torchvision architecture tells apart; None: its own number, as of samples.
    """
    if name in SAMPLES:
        from sample_models import loading

        return loading.build(name, seed)
    from sample_models import architectures

    return architectures.build(_architecture(name), seed, classes)


def fetch(name: str, *, progress: Progress | None = None) -> Path:
    """Download a data set (mnist, fashion-mnist) or an architecture's weights, to use offline.

    Returns where it lies. Raises UnknownName, and DataError when it cannot be had.
    """
    downloads = [data.name for data in DATASETS.values() if data.needs == "download"]
    if name in downloads:
        from sample_models import data

        return data.find(name) or data.fetch(name, progress=progress)
    from sample_models import architectures

    return architectures.fetch(_architecture(name, downloads), progress=progress)


def _architecture(name: str, others: list[str] | None = None) -> str:
    """torchvision's name without our prefix. Raises UnknownName with every name that would do."""
    known = torchvision_names()
    bare = name.removeprefix(PREFIX)
    if bare not in known:
        if name.startswith(PREFIX):
            raise UnknownName("torchvision architecture", bare, known)
        raise UnknownName("model", name, [*(others or names()), *known])
    return bare
