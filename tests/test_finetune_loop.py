"""The training loop against a bare one that clears the optimizer's memory of pruned weights too."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import pruning
from pruning.recipe import Recipe
from pruning.training.finetune import _learning_rate, _seed, finetune
from pruning.types import Masks, Workpiece
from tests.toys import toy

MAKERS: dict[str, Any] = {
    "sgd": lambda p, r: torch.optim.SGD(
        p, r.lr, r.momentum, weight_decay=r.weight_decay, fused=True
    ),
    "adam": lambda p, r: torch.optim.Adam(p, r.lr, weight_decay=r.weight_decay, fused=True),
    "adamw": lambda p, r: torch.optim.AdamW(p, r.lr, weight_decay=r.weight_decay, fused=True),
}


def cleared(work: Workpiece, masks: Masks, recipe: Recipe) -> None:
    """Train `work.model` in place; all that belongs to pruned weights is zeroed after each step."""
    model, data = work.model, work.need("train", "Training")
    parameters = dict(model.named_parameters())
    optimizer = MAKERS[recipe.optimizer](model.parameters(), recipe)
    model.train()
    done, steps = 0, recipe.epochs * recipe.steps_per_epoch(len(data.x))
    for epoch in range(1, recipe.epochs + 1):
        generator = torch.Generator().manual_seed(_seed(recipe.seed, 1, epoch))
        for batch in data.order(generator, recipe.batch):
            optimizer.param_groups[0]["lr"] = _learning_rate(recipe, done / steps)
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(data.x[batch]), data.y[batch]).backward()
            optimizer.step()
            for name, keep in masks.items():
                memory = optimizer.state[parameters[name]].values()
                for tensor in (parameters[name].data, *memory):
                    if tensor.shape == keep.shape:
                        tensor[~keep] = 0
            done += 1


@pytest.mark.parametrize("optimizer", MAKERS)
@pytest.mark.parametrize("name", ["mlp", "attention"])
def test_kept_weights_do_not_depend_on_the_memory_of_pruned_ones(name: str, optimizer: str) -> None:
    work = toy(name)
    recipe = Recipe(sparsity=0.6, epochs=4, batch=16, optimizer=optimizer, lr=0.02)
    masks = pruning.choose(recipe, work)
    models = [copy.deepcopy(work.model) for _ in range(2)]
    for model in models:
        pruning.apply(masks, model)
    list(finetune(replace(work, model=models[0]), masks, recipe))
    cleared(replace(work, model=models[1]), masks, recipe)
    before = dict(work.model.named_parameters())
    last = list(masks)[-1]
    for (key, a), b in zip(models[0].named_parameters(), models[1].parameters(), strict=True):
        assert torch.equal(a, b), key
        if key in masks:
            assert not a.detach()[~masks[key]].any()
    assert not torch.equal(models[0].get_parameter(last), before[last])
