"""Network slimming: an L1 penalty on BatchNorm's scales, in a training before any pruning."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import pruning
from pruning import events, masks
from pruning.errors import OutOfRange
from pruning.recipe import Recipe
from pruning.training.finetune import finetune
from pruning.types import Workpiece
from tests.toys import toy

SLIM = Recipe(
    criterion="bn_scale",
    granularity="channel",
    scope="per_layer",
    sparsity=0.5,
    epochs=3,
    slimming=0.05,
    lr=0.05,
    batch=16,
)


def scales(model: nn.Module) -> torch.Tensor:
    return torch.cat(
        [module.weight.detach() for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    )


def after(recipe: Recipe, step: int) -> torch.Tensor:
    work = toy("residual")
    list(finetune(work, masks.dense(work.model), recipe, step=step))
    return scales(work.model)


def test_one_step_pulls_each_scale_by_the_penalty_times_the_learning_rate() -> None:
    once = replace(SLIM, epochs=1, batch=48, momentum=0.0)
    pulled = after(replace(once, slimming=0.0), 0) - after(once, 0)
    assert torch.allclose(
        pulled, torch.full((12,), 0.05 * 0.05), atol=1e-6
    )  # lr · λ · sign γ, and γ starts at 1


def test_scales_shrink_before_pruning_and_are_left_alone_while_fine_tuning() -> None:
    assert after(SLIM, 0).abs().sum() < after(replace(SLIM, slimming=0.0), 0).abs().sum()
    assert torch.equal(after(SLIM, 1), after(replace(SLIM, slimming=0.0), 1))


def test_a_run_slims_first_and_counts_those_epochs() -> None:
    history = list(pruning.run(SLIM, toy("residual")))
    assert isinstance(history[0], events.Started)
    assert history[0].epochs == 6
    kinds = [
        (type(e).__name__, getattr(e, "step", None))
        for e in history
        if isinstance(e, events.Epoch | events.Pruned)
    ]
    assert kinds == [("Epoch", 0)] * 3 + [("Pruned", 1)] + [("Epoch", 1)] * 3


@pytest.mark.parametrize(
    ("name", "epochs", "why"),
    [("mlp", 1, "mlp has no BatchNorm"), ("residual", 0, "this recipe trains 0 epochs")],
)
def test_what_cannot_be_slimmed_is_told(name: str, epochs: int, why: str) -> None:
    work: Workpiece = toy(name)
    notices = [
        e.text
        for e in pruning.run(Recipe(slimming=0.1, epochs=epochs), work)
        if isinstance(e, events.Notice)
    ]
    assert any(text.startswith(f"There was no network slimming: {why}") for text in notices)


def test_a_penalty_is_not_negative() -> None:
    with pytest.raises(OutOfRange, match=r"slimming is -0\.1"):
        Recipe(slimming=-0.1)
