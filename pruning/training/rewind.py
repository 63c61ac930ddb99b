"""Rewinding of lottery tickets: kept weights go back to where they were at an earlier step of
training.

Frankle & Carbin, 2019, https://arxiv.org/abs/1803.03635 (to the start); Frankle et al., 2020,
https://arxiv.org/abs/1912.05671 (to an early step); Renda et al., 2020,
https://arxiv.org/abs/2003.02389 (of the learning rate alone)
"""

from __future__ import annotations

from torch import Tensor, nn

from pruning.errors import OutOfRange
from pruning.masks import apply
from pruning.recipe import Recipe
from pruning.types import Masks, Workpiece

State = dict[str, Tensor]
"""Parameters and buffers by name, as they were at one moment."""


def state_of(model: nn.Module) -> State:
    """A copy of all parameters and buffers."""
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def put_back(state: State, masks: Masks, model: nn.Module) -> None:
    """The weights of an earlier moment, bit for bit, but zero where a mask says so.

    BatchNorm's statistics go back too.
    """
    model.load_state_dict(state)
    # The state is of the dense network: without the mask, pruned weights would be revived.
    apply(masks, model)


def first_step(recipe: Recipe, work: Workpiece) -> int:
    """The optimizer step that training starts from after a rewind: 0 for "init".

    Raises OutOfRange for a step past the end of the training.
    """
    if recipe.rewind in ("none", "init"):
        return 0
    steps = recipe.epochs * steps_per_epoch(recipe, work)
    if recipe.rewind_step >= steps:
        raise OutOfRange(
            "rewind_step",
            recipe.rewind_step,
            f"below {steps:,}, the optimizer steps of one training",
        )
    return recipe.rewind_step


def epochs_of_run(recipe: Recipe, work: Workpiece) -> int:
    """Epochs that a run trains in all, of controls too.

    Raises OutOfRange for a rewind step past the end.
    """
    if recipe.rewind == "none":
        return recipe.training_epochs()
    first_step(recipe, work)  # raises, so that a bad step is refused before anything is trained
    return recipe.training_epochs(steps_per_epoch(recipe, work))


def steps_per_epoch(recipe: Recipe, work: Workpiece) -> int:
    """Optimizer steps of one pass over the training data."""
    return recipe.steps_per_epoch(work.need("train", "Rewinding").examples)
