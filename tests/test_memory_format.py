"""Training with channels innermost: the same but for rounding, and handed back as it came."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
import torchvision
from torch import Tensor, nn

import pruning
import sample_models
from pruning.errors import Stopped
from pruning.recipe import Recipe
from pruning.training import finetune as training
from pruning.training.memory_format import channels_last, pays
from pruning.types import Masks, Workpiece
from tests.toys import same, toy


def few(name: str) -> tuple[Workpiece, Masks]:
    """A shipped model on few examples, and masks of half its weights."""
    work = sample_models.load(name)
    assert work.train is not None and work.validation is not None
    work = replace(work, train=work.train.head(256), validation=work.validation.head(64))
    return work, pruning.choose(Recipe(sparsity=0.5), work)


def trained(work: Workpiece, masks: Masks, recipe: Recipe) -> nn.Module:
    model = copy.deepcopy(work.model)
    pruning.apply(masks, model)
    list(training.finetune(replace(work, model=model), masks, recipe))
    return model


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("name", ["digits-cnn", "digits-resnet", "digits-depthwise"])
def test_it_learns_the_same_but_for_rounding(
    name: str, optimizer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    work, masks = few(name)
    assert work.train is not None and pays(work.model, work.train.x, 64)
    recipe = Recipe(epochs=2, optimizer=optimizer, lr=1e-3, augment=False)
    inside = trained(work, masks, recipe)
    again = trained(work, masks, recipe)
    assert same(inside.state_dict(), again.state_dict())
    monkeypatch.setattr(training, "pays", lambda *args: False)
    usual = trained(work, masks, recipe)
    # Adam's steps have one size whatever the gradient's: where that is 0 rounding gives the sign.
    within = 1e-4 if optimizer == "sgd" else 4e-3
    differs = False
    for (name, a), b in zip(inside.state_dict().items(), usual.state_dict().values(), strict=True):
        assert torch.allclose(a.double(), b.double(), atol=within, rtol=1e-3), name
        differs |= not torch.equal(a, b)
    assert differs  # else nothing was compared
    for weight_name, keep in masks.items():
        assert not inside.get_parameter(weight_name).detach()[~keep].any()


def test_between_epochs_and_after_a_stop_models_are_as_they_came() -> None:
    work, masks = few("digits-resnet")
    strides = {name: p.stride() for name, p in work.model.named_parameters()}
    model = copy.deepcopy(work.model)
    parameters = list(model.parameters())
    pieces = replace(work, model=model)
    asked = 0

    def stop() -> bool:
        nonlocal asked
        asked += 1
        if asked == 3:  # in the middle of an epoch they are not
            assert not all(p.is_contiguous() for p in model.parameters())
        return asked == 7

    epochs = training.finetune(pieces, masks, Recipe(epochs=3, batch=64, augment=False), stop=stop)
    next(epochs)
    assert {name: p.stride() for name, p in model.named_parameters()} == strides
    with pytest.raises(Stopped):
        list(epochs)
    assert {name: p.stride() for name, p in model.named_parameters()} == strides
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))


class Viewing(nn.Module):
    """Flattens by `view`, which needs channels outermost."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.h = nn.Linear(4 * 36, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x).relu()).relu()
        out: Tensor = self.h(x.view(len(x), -1))
        return out


class Striding(Viewing):
    """Reads its activations as they lie in memory: silently others with channels innermost."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.b(self.a(x).relu()).relu()
        n, c, h, w = x.shape
        out: Tensor = self.h(x.as_strided((n, c * h * w), (c * h * w, 1)))
        return out


class SharingMemory(Viewing):
    def __init__(self) -> None:
        super().__init__()
        self.c = nn.Conv2d(4, 4, 3, padding=1)
        self.c.weight = nn.Parameter(self.b.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.h(self.c(self.b(self.a(x))).flatten(1))
        return out


@pytest.mark.parametrize("kind", [Viewing, Striding, SharingMemory])
def test_what_would_fail_or_differ_keeps_the_usual_order(kind: type[nn.Module]) -> None:
    work = replace(toy("residual"), model=kind().eval())
    assert work.train is not None
    before = copy.deepcopy(work.model.state_dict())
    assert not pays(work.model, work.train.x, 4096)
    assert same(before, work.model.state_dict())
    list(training.finetune(work, {}, Recipe(epochs=1)))


@pytest.mark.parametrize("name", ["digits-mlp", "digits-vit", "mnist1d-cnn"])
def test_other_networks_train_as_ever(name: str) -> None:
    work = sample_models.load(name)
    assert work.train is not None
    assert not pays(work.model, work.train.x, 4096)


def test_many_weights_and_few_activations_keep_the_usual_order() -> None:
    """Weights are brought into order in every step: they must not outnumber what is gained."""
    model = torchvision.models.resnet18(weights=None, num_classes=10)
    x = torch.randn(2, 3, 32, 32)
    assert not pays(model, x, 64)
    assert pays(model, x, 1024)
    assert model.training


def test_every_weight_of_a_convolution_is_laid_out_anew() -> None:
    """Those of one channel too, which lie alike in both orders: strides decide what runs."""
    model = nn.Sequential(nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 6, 1), nn.Conv2d(6, 6, 3))
    with channels_last(model, True) as order:
        assert order is torch.channels_last
        for layer in model:
            assert layer.weight.stride()[1] == 1
    assert all(p.is_contiguous() for p in model.parameters())
