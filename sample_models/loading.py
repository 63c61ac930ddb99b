"""Sample models with their shipped weights and their data. Imports torch."""

from __future__ import annotations

from functools import partial
from importlib import import_module

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pruning.errors import FileRefused
from pruning.types import Workpiece
from sample_models.cards import WEIGHTS
from sample_models.catalogue import Sample, dataset, sample
from sample_models.data import Progress, splits
from sample_models.training import augment


def build(name: str, seed: int = 0) -> nn.Module:
    """The untrained model, initialised from the seed; torch's own random state stays as it was.

    Raises UnknownName.
    """
    file, function = sample(name).architecture.split(":")
    make = getattr(import_module(f"sample_models.{file}"), function)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model: nn.Module = make()
    return model.eval()


def load(name: str, *, data: bool = True, progress: Progress | None = None) -> Workpiece:
    """The trained model in eval mode and float32, with its three splits unless `data` is False.

    Raises UnknownName; DataError when the data is neither here nor to be had; FileRefused when the
    shipped file is damaged.
    """
    kind = sample(name)
    about = dataset(kind.dataset)
    model = with_weights(kind)
    if not data:
        example = torch.zeros(2, *about.shape)
        return Workpiece(name, model, example=example, classes=about.classes)
    parts = splits(kind.dataset, progress=progress)
    example = parts[2].tensors[0][:2].clone()
    training = kind.training
    return Workpiece(
        name,
        model,
        *parts,
        augment=partial(augment, recipe=training) if training.shift or training.flip else None,
        example=example,
        classes=about.classes,
    )


def with_weights(kind: Sample) -> nn.Module:
    """The architecture with the shipped weights, as float32."""
    path = WEIGHTS / f"{kind.name}.safetensors"
    try:
        stored = load_file(path)
    except (OSError, SafetensorError) as error:
        raise FileRefused(
            f"The weights of {kind.name} are damaged or missing ({error}): get "
            "sample_models/weights afresh, or train them with "
            f"`python -m sample_models train {kind.name}`."
        ) from error
    model = build(kind.name)
    model.load_state_dict({key: full(value) for key, value in stored.items()})
    return model


def full(value: Tensor) -> Tensor:
    """Floating-point values as float32; counts as they are."""
    return value.float() if value.is_floating_point() else value
