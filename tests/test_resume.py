"""Runs that go on from a checkpoint end as if they had never been interrupted."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import pruning
from pruning.events import Epoch, Event, Finished, to_dict
from pruning.recipe import Recipe
from pruning.runs import checkpoints
from pruning.runs.checkpoints import Saved
from pruning.training.checkpoint import Checkpoint
from pruning.types import Masks, Workpiece
from tests.toys import toy

ITERATIVE = {"sparsity": 0.6, "steps": 2, "epochs": 2, "lr": 0.05, "batch": 16}
LOTTERY = {**ITERATIVE, "start": "random", "schedule": "geometric"}
RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "no training": ("mlp", {"sparsity": 0.6, "steps": 3, "schedule": "linear"}),
    "step by step": ("mlp", {**ITERATIVE, "optimizer": "adamw"}),
    "a last batch of one": ("mlp", {**ITERATIVE, "batch": 47}),
    "random scores, a teacher": ("mlp", {**ITERATIVE, "criterion": "random", "distill": 0.5}),
    "reconstruction": ("mlp", {**ITERATIVE, "reconstruct": True}),
    "channels innermost": ("residual", {**ITERATIVE, "recalibrate": True}),
    "slimming": (
        "residual",
        {**ITERATIVE, "criterion": "bn_scale", "granularity": "channel", "slimming": 1e-3},
    ),
    "compact": ("residual", {**ITERATIVE, "granularity": "channel", "finetune_compact": True}),
    "half precision": ("mlp", {**ITERATIVE, "precision": "bfloat16"}),
    "tickets from the start": (
        "mlp",
        {**LOTTERY, "rewind": "init", "controls": ["reinit", "random_mask", "one_shot"]},
    ),
    "tickets from an early step": ("mlp", {**LOTTERY, "rewind": "early", "rewind_step": 4}),
    "tickets of the learning rate": ("mlp", {**ITERATIVE, "rewind": "learning_rate"}),
}


class Run:
    """A run that was followed to its end, and the checkpoints on its way, read from their files."""

    def __init__(self, recipe: Recipe, work: Workpiece, folder: Path) -> None:
        self.events: list[Event] = []
        self.checkpoints: list[Saved] = []
        self.folder = folder

        for event in pruning.run(recipe, work, keep=self.keep, save=self.save):
            self.events.append(event)

    def save(self, checkpoint: Checkpoint) -> None:
        checkpoints.write(self.folder, Saved(checkpoint, 1, len(self.events)))
        saved = checkpoints.newest(self.folder)
        assert saved is not None
        self.checkpoints.append(saved)

    def keep(self, model: torch.nn.Module, masks: Masks) -> None:
        self.weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}


def timeless(event: Event) -> Any:
    """What does not depend on the clock."""

    def without(value: Any) -> Any:
        if isinstance(value, dict):
            times = ("seconds", "latency", "timings")
            return {key: without(part) for key, part in value.items() if key not in times}
        return [without(part) for part in value] if isinstance(value, list | tuple) else value

    return without(to_dict(event))


@pytest.mark.parametrize("name", RECIPES)
def test_from_each_checkpoint_a_run_ends_with_the_same_bits(name: str, tmp_path: Path) -> None:
    net, fields = RECIPES[name]
    recipe, work = Recipe(**fields), toy(net)
    if name == "half precision":
        work = replace(work, model=work.model.half())
    whole = Run(recipe, work, tmp_path)
    trained = sum(isinstance(event, Epoch) for event in whole.events)
    assert len(whole.checkpoints) == trained + recipe.steps
    every = 1 + len(whole.checkpoints) // 6
    for saved in whole.checkpoints[::every]:
        kept: dict[str, torch.Tensor] = {}

        def keep(model: torch.nn.Module, masks: Masks, kept: Any = kept) -> None:
            kept.update(model.state_dict())

        rest = list(pruning.run(recipe, work, keep=keep, resume=saved.checkpoint))
        expected = [timeless(event) for event in whole.events[saved.event :]]
        assert [timeless(event) for event in rest] == expected
        assert all(kept[key].equal(value) for key, value in whole.weights.items())
        assert isinstance(rest[-1], Finished)
        assert rest[-1].seconds > saved.checkpoint.seconds > 0
