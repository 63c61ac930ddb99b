"""The Pruning Workbench's engine: see what a neural network can live without.

    import pruning, sample_models

    work = sample_models.load("digits-cnn")
    for event in pruning.run(pruning.Recipe(sparsity=0.9, epochs=5), work):
        print(event)

Names load when first used, so that pages and scripts that only read recipes and events never import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pruning.events import Event, Measurement
    from pruning.masks import apply, choose
    from pruning.measurement import measure
    from pruning.pipeline import run
    from pruning.recipe import Recipe
    from pruning.sensitivity_map.measure import sensitivity
    from pruning.structure.shrink import shrink
    from pruning.types import Batches, Masks, Scores, Workpiece

_PLACES = {
    "Batches": "types",
    "Event": "events",
    "Masks": "types",
    "Measurement": "events",
    "Recipe": "recipe",
    "Scores": "types",
    "Workpiece": "types",
    "apply": "masks",
    "choose": "masks",
    "measure": "measurement",
    "run": "pipeline",
    "sensitivity": "sensitivity_map.measure",
    "shrink": "structure.shrink",
}

__all__ = [
    "Batches",
    "Event",
    "Masks",
    "Measurement",
    "Recipe",
    "Scores",
    "Workpiece",
    "apply",
    "choose",
    "measure",
    "run",
    "sensitivity",
    "shrink",
]


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'pruning' has no attribute {name!r}")
    return getattr(import_module(f"pruning.{_PLACES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
