"""The Pruning Workbench's engine: see what a neural network can live without.

    import pruning, sample_models

    work = sample_models.load("digits-cnn")
    for event in pruning.run(pruning.Recipe(sparsity=0.9, epochs=5), work):
        print(event)

Names load when first used, so that pages and scripts that only read recipes and events never
import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # What type checkers see; while running, __getattr__ finds the same names by the table below.
    from pruning.devices import on_device
    from pruning.events import Event
    from pruning.frames import frame
    from pruning.masks import apply
    from pruning.measurement import measure
    from pruning.metrics import Measurement
    from pruning.pipeline import run
    from pruning.prepare import plain
    from pruning.progress import watch
    from pruning.recipe import Recipe
    from pruning.selection import choose
    from pruning.sensitivity_map.sensitivity import sensitivity
    from pruning.structure.shrink import shrink
    from pruning.tasks import Metric
    from pruning.types import Batches, Masks, Scores, Workpiece

MODULES = {
    "Batches": "types",
    "Event": "events",
    "Masks": "types",
    "Measurement": "metrics",
    "Metric": "tasks",
    "Recipe": "recipe",
    "Scores": "types",
    "Workpiece": "types",
    "apply": "masks",
    "choose": "selection",
    "frame": "frames",
    "measure": "measurement",
    "on_device": "devices",
    "plain": "prepare",
    "run": "pipeline",
    "sensitivity": "sensitivity_map.sensitivity",
    "shrink": "structure.shrink",
    "watch": "progress",
}
"""Public name -> the module of this package that holds it."""

# A literal, because tools that do not run the code read it; a test compares it with the table.
__all__ = [
    "Batches",
    "Event",
    "Masks",
    "Measurement",
    "Metric",
    "Recipe",
    "Scores",
    "Workpiece",
    "apply",
    "choose",
    "frame",
    "measure",
    "on_device",
    "plain",
    "run",
    "sensitivity",
    "shrink",
    "watch",
]


def __getattr__(name: str) -> Any:
    # Submodules come here too, before they are imported: they are no public names, and import
    # goes on to find them when this says that there is no such attribute.
    if name not in MODULES:
        raise AttributeError(f"module 'pruning' has no attribute {name!r}")
    return getattr(import_module(f"pruning.{MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
