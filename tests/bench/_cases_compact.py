"""From masks to a compact model, training and measuring, beside what people would use instead."""

from __future__ import annotations

from functools import partial

import torch
from bench._cases import Case, Trial
from bench._cases_choose import CHANNEL, TORCH_PRUNING, pruned_by_torch_pruning, workpiece
from torch import nn

import pruning
from pruning.structure.shrink import Search, shrink_certified
from pruning.structure.unit_masks import removed_units
from pruning.structure.verify import checks
from pruning.types import Masks, Workpiece

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
        answers = search.compare(made, comparisons)
        assert answers.error <= 1e-12 and comparisons.control(answers.last) > 1e-3
        return made.module

    def ours() -> nn.Module:
        module, written = shrink_certified(work.model, masks, example)
        assert written.error <= 1e-12 and written.control > 1e-3 and not written.frozen
        return module

    return Trial(ours=ours, theirs=at_full_size, same=same_parameters)


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
]
