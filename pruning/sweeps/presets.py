"""Plans for the questions that people come with. Each is a plan like any other: edit it freely."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from pruning.sweeps.plan import LEVELS, Plan

SEEDS = (0, 1, 2)

SIX: tuple[dict[str, Any], ...] = (
    {"name": "magnitude", "criterion": "magnitude"},
    {"name": "lamp", "criterion": "magnitude", "scope": "lamp"},
    {"name": "taylor", "criterion": "taylor"},
    {"name": "fisher", "criterion": "fisher"},
    {"name": "snip", "criterion": "snip"},
    {"name": "wanda", "criterion": "wanda", "scope": "per_layer"},
)
"""Six techniques as their papers use them: by the weights alone, by gradients, by curvature, by
activations. Wanda's scores compare inside a layer only."""


EPOCHS = 5
FEWER = {"mnist-lenet300": 2, "mnist-lenet5": 2, "fashion-lenet5": 2, "fashion-resnet20": 2}
"""Model -> epochs of fine-tuning, of those with many times the examples."""


def usual_epochs(models: Sequence[str]) -> int:
    """Of fine-tuning: few, so that a person can repeat the sweep in minutes, and enough that one
    more changes little at the levels where techniques differ.
    """
    return max(FEWER.get(model, EPOCHS) for model in models)


def which_technique(models: Sequence[str]) -> Plan:
    """Six techniques from half of the weights to one in fifty, with three seeds.

    The sweep that is shipped with a sample model is this one.
    """
    fields = {"epochs": usual_epochs(models)}
    return Plan(models=tuple(models), techniques=SIX, seeds=SEEDS, fields=fields)


def how_far(models: Sequence[str]) -> Plan:
    """One good technique to the end: where does accuracy fall?"""
    levels = (0.5, 0.7, 0.8, 0.9, 0.95, 0.97, 0.98, 0.99, 0.995)
    technique = {"name": "lamp, in three steps", "scope": "lamp", "schedule": "cubic", "steps": 3}
    return Plan(
        models=tuple(models),
        techniques=(technique,),
        sparsities=levels,
        seeds=SEEDS,
        fields={"epochs": usual_epochs(models)},
    )


def structured(models: Sequence[str]) -> Plan:
    """Single weights against whole channels, by magnitude and by Taylor."""
    return Plan(
        models=tuple(models),
        criteria=("magnitude", "taylor"),
        granularities=("weight", "channel"),
        sparsities=(0.3, 0.5, 0.7, 0.8, 0.9),
        seeds=SEEDS,
        fields={"epochs": usual_epochs(models)},
    )


def iterative(models: Sequence[str]) -> Plan:
    """All at once against five steps, with as many epochs in all."""
    steps = 5
    epochs = 2 * usual_epochs(models)
    techniques = (
        {"name": "one-shot", "epochs": epochs},
        {
            "name": "iterative",
            "schedule": "cubic",
            "steps": steps,
            "epochs": max(1, epochs // steps),
        },
    )
    levels = (0.8, 0.9, 0.95, 0.98, 0.99)
    return Plan(models=tuple(models), techniques=techniques, sparsities=levels, seeds=SEEDS)


def seeds(models: Sequence[str]) -> Plan:
    """Magnitude against random with ten seeds: how much of a difference is chance?"""
    return Plan(
        models=tuple(models),
        sparsities=(LEVELS[0], LEVELS[2], LEVELS[3]),
        seeds=tuple(range(10)),
        fields={"epochs": usual_epochs(models)},
    )


PRESETS: dict[str, Callable[[Sequence[str]], Plan]] = {
    "which technique": which_technique,
    "how far can it go": how_far,
    "structured against unstructured": structured,
    "one-shot against iterative": iterative,
    "seeds": seeds,
}
"""Name -> the plan for some models, by its docstring's question."""
