"""From masks to a compact model, training and measuring, beside what people would use instead."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import partial

import torch
from bench._cases import Case, Trial
from bench._cases_choose import CHANNEL, TORCH_PRUNING, pruned_by_torch_pruning, workpiece
from torch import nn

import pruning
import sample_models
from pruning.recipe import Recipe
from pruning.structure.shrink import Search, shrink_certified
from pruning.structure.unit_masks import removed_units
from pruning.structure.verify import checks
from pruning.training.finetune import _learning_rate, _seed, finetune
from pruning.types import Batches, Masks, Workpiece

# ---------------------------------------------------------------- the compact model


def compact(work: Workpiece, masks: Masks) -> nn.Module:
    """The smaller module that `shrink` certifies before it hands it out."""
    assert work.example is not None
    search = Search.of(work.model, masks, work.example)
    made, _ = search.build(removed_units(search.graph, masks), [])
    return made.module


def same_parameters(ours: nn.Module, theirs: nn.Module) -> None:
    """Bit for bit, under the same names."""
    a, b = dict(ours.named_parameters()), dict(theirs.named_parameters())
    assert a.keys() == b.keys()
    for name, parameter in a.items():
        assert torch.equal(parameter, b[name]), name


def shrink(name: str, quick: bool) -> Trial:
    """From masks to the smaller module; theirs chooses, too, and certifies nothing."""
    work = workpiece(name, quick)
    masks = pruning.choose(CHANNEL, work)
    return Trial(
        ours=lambda: compact(work, masks),
        theirs=lambda: pruned_by_torch_pruning(work),
        same=same_parameters,
    )


def certificate(name: str, quick: bool) -> Trial:
    """The whole of `shrink` with its certificate, against every comparison at full size."""
    work = workpiece(name, quick)
    masks = pruning.choose(CHANNEL, work)
    assert work.example is not None
    example = work.example

    def at_full_size() -> nn.Module:
        search = Search.of(work.model, masks, example)
        made, _ = search.build(removed_units(search.graph, masks), [])
        comparisons = checks(work.model, masks, example, None)
        answers = search.compare(made, comparisons.checks)
        assert answers.error <= 1e-12 and comparisons.control(answers.last) > 1e-3
        return made.module

    def ours() -> nn.Module:
        module, written = shrink_certified(work.model, masks, example)
        assert written.error <= 1e-12 and written.control > 1e-3 and not written.frozen
        return module

    return Trial(ours=ours, theirs=at_full_size, same=same_parameters)


# ---------------------------------------------------------------- training


def pictures(name: str, count: int) -> Workpiece:
    """A shipped model on random pictures: how long it takes does not depend on what they show."""
    work = sample_models.load(name, data=False)
    assert work.example is not None
    torch.manual_seed(0)
    data = Batches(torch.randn(count, *work.example.shape[1:]), torch.randint(10, (count,)))
    return replace(work, train=data)


def masked(work: Workpiece, masks: Masks) -> Workpiece:
    model = copy.deepcopy(work.model)
    pruning.apply(masks, model)
    return replace(work, model=model)


def plain_loop(work: Workpiece, masks: Masks, recipe: Recipe) -> nn.Module:
    """One epoch as anybody would write it: the same examples, rates and masks, nothing else."""
    model, data = work.model, work.need("train", "A plain loop")
    parameters = dict(model.named_parameters())
    weights = [parameters[name] for name in masks]
    keep = [mask.float() for mask in masks.values()]
    if recipe.optimizer == "adam":
        optimizer: torch.optim.Optimizer = torch.optim.Adam(
            model.parameters(), recipe.lr, weight_decay=recipe.weight_decay, fused=True
        )
    else:
        optimizer = torch.optim.SGD(
            model.parameters(),
            recipe.lr,
            recipe.momentum,
            weight_decay=recipe.weight_decay,
            fused=True,
        )
    generator = torch.Generator().manual_seed(_seed(recipe.seed, 1, 1))
    batches = data.order(generator, recipe.batch)
    model.train()
    for done, batch in enumerate(batches):
        optimizer.param_groups[0]["lr"] = _learning_rate(recipe, done / len(batches))
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(data.x[batch]), data.y[batch]).backward()
        optimizer.step()
        with torch.no_grad():
            torch._foreach_mul_(weights, keep)
    return model.eval()


def finetuned(work: Workpiece, masks: Masks, recipe: Recipe) -> nn.Module:
    list(finetune(work, masks, recipe))
    return work.model


def close_parameters(ours: nn.Module, theirs: nn.Module) -> None:
    """The same sums in another order, over an epoch."""
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-5), name


def training(name: str, recipe: Recipe, count: int, quick: bool) -> Trial:
    """One epoch under masks; convolutional nets may differ in rounding."""
    work = pictures(name, 192 if quick else count)
    masks = pruning.choose(recipe, work)
    convolutional = any(isinstance(module, nn.Conv2d) for module in work.model.modules())
    return Trial(
        ours=lambda: finetuned(masked(work, masks), masks, recipe),
        theirs=lambda: plain_loop(masked(work, masks), masks, recipe),
        same=close_parameters if convolutional else same_parameters,
    )


ONE_EPOCH = Recipe(sparsity=0.5, epochs=1, augment=False, lr=1e-4)
"""At a small rate, for a larger one makes much of what rounding differs by."""

TICKETS = replace(ONE_EPOCH, optimizer="adam", lr=1.2e-3, batch=60)
"""As tickets of LeNet-300-100 are trained."""

PLAIN = "a plain loop under the same masks"
SHRINK = {"resnet18": "0.05×", "resnet50": "0.07×", "mobilenet_v2": "0.08×", "densenet121": "0.77×"}
FULL_SIZE = "the same, every comparison at 224 × 224"

CASES = [
    *(
        Case(f"shrink, the model, {name}", TORCH_PRUNING, partial(shrink, name), 1, 3, before)
        for name, before in SHRINK.items()
    ),
    *(
        Case(f"shrink with certificate, {name}", FULL_SIZE, partial(certificate, name), 1.5, 3, "–")
        for name in SHRINK
    ),
    *(
        Case(
            f"fine-tune, {name}", PLAIN, partial(training, name, ONE_EPOCH, count), 1.2, 1.4, before
        )
        for name, count, before in (
            ("fashion-resnet20", 1536, "0.93×"),
            ("fashion-lenet5", 3072, "–"),
            ("digits-cnn", 6144, "1.01×"),
            ("digits-depthwise", 3072, "–"),
        )
    ),
    Case(
        "lottery, an epoch of lenet300",
        PLAIN,
        partial(training, "mnist-lenet300", TICKETS, 12_000),
        0.95,
        1,
        "0.86×",
    ),
]
