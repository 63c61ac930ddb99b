"""Runs on this machine's own accelerator, held against the same runs on its CPU.

    python -m pytest -m gpu

Skipped where there is none; tests/test_pretended_device.py tries the same paths there.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

import pruning
import sample_models
from pruning import registry
from pruning.devices import available, chosen, device_of, on_device, with_data_there
from pruning.errors import NoDevice, RecipeError
from pruning.events import Epoch, Event, Finished, Ticket
from pruning.masks import apply, overlap_of
from pruning.measurement import finalize, take_snapshot
from pruning.recipe import Recipe
from pruning.selection import choose
from pruning.sensitivity_map.sensitivity import sensitivity
from pruning.structure.shrink import shrink_certified
from pruning.structure.verify import distance, outputs
from pruning.types import Masks, Workpiece

ACCELERATOR = next((name for name in reversed(available()) if name != "cpu"), None)
gpu = [
    pytest.mark.gpu,
    pytest.mark.skipif(ACCELERATOR is None, reason="this machine has no accelerator"),
]


def on_gpu(function: Any) -> Any:
    for mark in gpu:
        function = mark(function)
    return function


@cache
def _sample(name: str) -> Workpiece:
    return sample_models.load(name)


def both(name: str) -> tuple[Workpiece, Workpiece]:
    """The same sample on the CPU and on the accelerator."""
    assert ACCELERATOR is not None
    return _sample(name), on_device(_sample(name), ACCELERATOR)


def run_to_end(recipe: Recipe, work: Workpiece) -> tuple[Finished, Masks, list[Event]]:
    kept: list[Masks] = []
    events = list(pruning.run(recipe, work, keep=lambda model, masks: kept.append(masks)))
    assert isinstance(events[-1], Finished)
    return events[-1], kept[0], events


def points(a: Finished, b: Finished) -> float:
    """Percentage points between two final test accuracies."""
    assert a.final.accuracy and b.final.accuracy
    return abs(a.final.accuracy.value - b.final.accuracy.value) * 100


def same_masks(a: Masks, b: Masks) -> None:
    assert a.keys() == b.keys()
    assert all(keep.device.type == "cpu" for keep in (*a.values(), *b.values()))
    shared = overlap_of(a, b, a.keys())
    assert shared is None or shared.value > 0.999


# ---------------------------------------------------------------- names, on any machine


def test_a_device_that_is_not_here_is_refused_with_those_that_are() -> None:
    for name in ("cuda:77", "tpu", "cuda:x", "", "CPU"):
        with pytest.raises(NoDevice, match=r"known are auto, cpu"):
            chosen(name)


def test_auto_is_the_best_there_is_and_cpu_is_always_there() -> None:
    assert str(chosen("auto")) == (ACCELERATOR or "cpu")
    assert str(chosen("cpu")) == "cpu"


# ---------------------------------------------------------------- on the accelerator


@on_gpu
@pytest.mark.parametrize("name", registry.names("criterion"))
def test_a_criterion_prunes_the_same_weights(name: str) -> None:
    # The one that looks at BatchNorm needs a model that has it.
    here, there = both("digits-resnet" if name == "bn_scale" else "digits-mlp")
    for granularity in ("weight", "row", "channel", "column"):
        try:
            recipe = Recipe(criterion=name, granularity=granularity, sparsity=0.8)
            masks = choose(recipe, here)
        except (RecipeError, pruning.errors.ModelError):
            continue  # it does not fit this granularity, or this model has nothing it looks at
        # A training of 400 steps wanders where two devices round differently, and each weight that
        # OBS removes changes the scores of all others.
        least = {"movement": 0.97, "obs": 0.995}.get(name, 0.999)
        on_accelerator = choose(recipe, there)
        shared = overlap_of(masks, on_accelerator, masks.keys())
        assert shared is not None and shared.value > least, granularity
        return
    raise AssertionError(f"{name} fits no granularity of {here.name}")


@on_gpu
@pytest.mark.parametrize("name", ["digits-resnet", "digits-vit"])
def test_compact_run_with_reconstruction(name: str) -> None:
    recipe = Recipe(
        granularity="channel",
        scope="per_layer",
        sparsity=0.4,
        reconstruct=True,
        finetune_compact=True,
        distill=0.5,
        epochs=4,
    )
    here, there = both(name)
    a, masks, _ = run_to_end(recipe, here)
    b, others, _ = run_to_end(recipe, there)
    same_masks(masks, others)
    assert points(a, b) <= 1.0
    assert b.certificate is not None and b.certificate.error <= b.certificate.limit
    assert b.final.memory and b.compact and b.compact.memory
    if str(ACCELERATOR).startswith("cuda"):
        assert b.compact.memory.device is not None
        assert b.compact.memory.device >= b.compact.memory.weights
    assert b.final.timings[0].runtime == f"torch on {ACCELERATOR}"


@on_gpu
def test_certificate_holds_on_the_device() -> None:
    """The compact model beside the masked one, both on the accelerator."""
    _, there = both("digits-resnet")
    masks = choose(Recipe(granularity="channel", sparsity=0.5), there)
    assert there.example is not None
    compact, certificate = shrink_certified(there.model, masks, there.example)
    assert certificate.error <= certificate.limit
    assert device_of(compact) == device_of(there.model)
    masked = pruning.plain(there.model).eval()
    apply(masks, masked)
    x = (there.example,)
    assert distance(outputs(masked, x), outputs(compact.eval(), x)) < 1e-3


@on_gpu
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_trains_as_well(precision: str) -> None:
    recipe = Recipe(sparsity=0.8, epochs=4)
    _, there = both("digits-resnet")
    full, masks, _ = run_to_end(recipe, there)
    mixed, others, events = run_to_end(replace(recipe, precision=precision), there)
    same_masks(masks, others)
    assert points(full, mixed) <= 1.5
    losses = [event.train_loss for event in events if isinstance(event, Epoch)]
    assert losses[-1] < 1.0


@on_gpu
def test_one_round_of_lottery_tickets() -> None:
    recipe = Recipe(
        start="random",
        rewind="early",
        rewind_step=10,
        sparsity=0.8,
        epochs=4,
        controls=("reinit", "random_mask"),
        lr=0.1,
    )
    here, there = both("digits-mlp")
    a, _, events = run_to_end(recipe, here)
    b, _, on_accelerator = run_to_end(recipe, there)
    kinds = [event.kind for event in events if isinstance(event, Ticket)]
    assert kinds == [event.kind for event in on_accelerator if isinstance(event, Ticket)]
    # The dense network is trained first, and trainings of two devices drift apart in rounding.
    assert points(a, b) <= 2.0


@on_gpu
@pytest.mark.parametrize(
    "changes",
    [
        {"recalibrate": True, "epochs": 2},
        {"slimming": 0.001, "criterion": "bn_scale", "granularity": "channel", "epochs": 2},
        {"scope": "by_sensitivity"},
        {"criterion": "obs"},
        {"granularity": "n_of_m"},
    ],
    ids=str,
)
def test_other_ways_through_a_run(changes: dict[str, Any]) -> None:
    recipe = Recipe(**{"sparsity": 0.5, **changes})
    here, there = both("digits-resnet")
    a, masks, _ = run_to_end(recipe, here)
    b, others, _ = run_to_end(recipe, there)
    if not recipe.trains_first:
        same_masks(masks, others)
    assert points(a, b) <= 1.0


@on_gpu
@pytest.mark.parametrize("tier", ["estimate", "progressive", "exact"])
def test_a_sensitivity_map(tier: str) -> None:
    here, there = both("digits-mlp")
    levels = (0.5, 0.9)
    a = {(p.layer, p.level): p for p in sensitivity(here, levels=levels, tier=tier)}
    b = {(p.layer, p.level): p for p in sensitivity(there, levels=levels, tier=tier)}
    assert a.keys() == b.keys()
    for place, point in a.items():
        assert b[place].loss == pytest.approx(point.loss, rel=0.02, abs=0.01)


@on_gpu
def test_measurement_of_the_same_model() -> None:
    here, there = both("digits-resnet")
    a = finalize([take_snapshot(here)])[0]
    b = finalize([take_snapshot(there)])[0]
    assert (a.macs, a.kept, a.size.dense) == (b.macs, b.kept, b.size.dense)
    assert a.accuracy == b.accuracy
    assert a.energy and b.energy and a.energy.executed == b.energy.executed
    assert b.latency is not None and b.latency.median > 0


@on_gpu
def test_data_come_to_a_model_that_lies_there_already() -> None:
    work = _sample("digits-mlp")
    assert ACCELERATOR is not None
    model = pruning.plain(work.model).to(ACCELERATOR)
    accuracy = pruning.measure(replace(work, model=model), latency=False).accuracy
    assert accuracy == pruning.measure(work, latency=False).accuracy
    assert with_data_there(replace(work, model=model)).test is not work.test


@on_gpu
def test_the_callers_random_numbers_and_model_are_left_as_they_are() -> None:
    _, there = both("digits-mlp")
    before = {name: value.clone() for name, value in there.model.state_dict().items()}
    states = [torch.get_rng_state()]
    if torch.cuda.is_available():
        states.append(torch.cuda.get_rng_state())
    list(pruning.run(Recipe(sparsity=0.5, epochs=1), there))
    after = [torch.get_rng_state()]
    if torch.cuda.is_available():
        after.append(torch.cuda.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(states, after, strict=True))
    now = there.model.state_dict()
    assert all(torch.equal(value, now[name]) for name, value in before.items())
