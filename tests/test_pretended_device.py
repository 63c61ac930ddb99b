"""The paths of a device, on a pretended one: what would fail there fails here, on any machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from pretended import pretended
from torch import nn
from toys import toy

import pruning
from pruning import registry
from pruning.analysis.criterion_check import Check, criterion_check
from pruning.devices import device_of, moved, on_cpu, on_device, with_device
from pruning.events import Finished, Started, Ticket
from pruning.recipe import Recipe
from pruning.selection import choose
from pruning.sensitivity_map.sensitivity import sensitivity
from pruning.types import Workpiece

FEW: dict[str, dict[str, Any]] = {
    "movement": {"steps": 3},
    "synflow": {"rounds": 2},
    "hutchinson": {"probes": 1},
}
"""Criteria that take many steps, with few of them."""

GRANULARITIES = ("weight", "row", "column")


@pytest.mark.parametrize("name", registry.names("criterion"))
def test_every_criterion_prunes_the_same_weights(name: str) -> None:
    work = toy("residual")
    fits = (g for g in GRANULARITIES if not registry.misfit(name, g))
    recipe = Recipe(criterion=name, granularity=next(fits), options=FEW.get(name, {}))
    expected = choose(recipe, work)
    with pretended() as device:
        masks = choose(recipe, on_device(work, device))
    assert masks.keys() == expected.keys()
    for weight, keep in masks.items():
        assert keep.device.type == "cpu"
        assert torch.equal(keep, expected[weight]), weight


RUNS: dict[str, tuple[str, dict[str, Any]]] = {
    "compact": (
        "residual",
        {
            "granularity": "channel",
            "reconstruct": True,
            "finetune_compact": True,
            "distill": 0.5,
            "epochs": 1,
        },
    ),
    "lottery": (
        "mlp",
        {
            "start": "random",
            "rewind": "early",
            "rewind_step": 1,
            "controls": ("reinit", "random_mask", "one_shot"),
            "optimizer": "adamw",
            "batch": 16,
            "epochs": 1,
        },
    ),
    "compensated": ("tied", {"criterion": "obs", "epochs": 1}),
    "path": ("residual", {"scope": "by_sensitivity", "recalibrate": True}),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_ends_with_the_same_numbers(name: str) -> None:
    model, fields = RUNS[name]
    recipe = Recipe(sparsity=0.5, **fields)
    work = toy(model)
    expected = list(pruning.run(recipe, work))
    handed_out: list[nn.Module] = []

    def keep(final: nn.Module, _: object) -> None:
        handed_out.append(final)

    with pretended() as device:
        there = on_device(work, device)
        events = list(pruning.run(recipe, there, keep=keep, keep_compact=keep))
    assert device_of(work.model).type == "cpu"  # the caller's own
    started, ended, end = events[0], events[-1], expected[-1]
    assert isinstance(started, Started) and started.machine["device"] == str(device)
    assert isinstance(ended, Finished) and isinstance(end, Finished)
    assert [type(event) for event in events] == [type(event) for event in expected]
    assert ended.sparsity == end.sparsity
    assert ended.final.accuracy == end.final.accuracy
    assert ended.final.loss == pytest.approx(end.final.loss, rel=1e-4)
    assert ended.final.timings[0].runtime == f"torch on {device}"
    assert handed_out and all(device_of(model).type == "cpu" for model in handed_out)
    if recipe.granularity == "channel":
        assert ended.certificate and ended.certificate.error <= ended.certificate.limit
        assert len(handed_out) == 2
    tickets = [event for event in events if isinstance(event, Ticket)]
    assert [t.accuracy for t in tickets] == [t.accuracy for t in expected if isinstance(t, Ticket)]


@pytest.mark.parametrize("tier", ["estimate", "progressive"])
def test_a_map_has_the_same_points(tier: str) -> None:
    asked = {"levels": (0.5, 0.8), "tier": tier}
    expected = list(sensitivity(toy("residual"), **asked))  # type: ignore[arg-type]
    with pretended() as device:
        points = list(sensitivity(on_device(toy("residual"), device), **asked))  # type: ignore[arg-type]
    assert [p.accuracy for p in points] == [p.accuracy for p in expected]
    for point, other in zip(points, expected, strict=True):
        assert point.loss == pytest.approx(other.loss, rel=1e-4)


def test_a_criterion_check_runs_there() -> None:
    with pretended() as device:
        parts = list(criterion_check(on_device(toy("mlp"), device), Check(units=3), {"taylor": {}}))
    assert len(parts) > 3


def test_a_compact_model_is_where_its_model_is() -> None:
    with pretended() as device:
        work = on_device(toy("mlp"), device)
        masks = choose(Recipe(granularity="channel"), work)
        assert work.example is not None
        compact = pruning.shrink(work.model, masks, work.example)
        assert device_of(compact) == device
        compact(work.example)


# ---------------------------------------------------------------- what is pretended


def test_the_pretended_device_refuses_what_a_real_one_does() -> None:
    with pretended() as device:
        there = torch.ones(3, device=device)
        refused: list[Callable[[], object]] = [
            lambda: there + torch.ones(3),
            lambda: nn.functional.linear(torch.ones(2, 3), torch.ones(4, 3, device=device)),
            lambda: there.numpy(),
            lambda: torch.ones(3)[torch.zeros(1, dtype=torch.long, device=device)],
            lambda: torch.where(there > 0, there, torch.zeros(3)),
        ]
        for wrong in refused:
            with pytest.raises((RuntimeError, TypeError)):
                wrong()
        assert (there + 1).sum().item() == 6
        assert there.cpu().numpy().sum() == 3


# ---------------------------------------------------------------- moved


def test_what_lies_there_is_not_copied() -> None:
    work = toy("mlp")
    assert on_cpu(work.model) is work.model
    same = on_device(work, "cpu")
    assert same.model is work.model and same.train is work.train


def test_a_workpiece_comes_back_from_a_device() -> None:
    with pretended() as device:
        back = on_device(on_device(toy("mlp"), device), "cpu")
        assert back.train is not None and back.train.device is None
        masks = choose(Recipe(criterion="taylor"), back)
    assert masks.keys() == choose(Recipe(criterion="taylor"), toy("mlp")).keys()


def test_weights_that_share_memory_share_it_there_too() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    whole = torch.randn(32)
    model[0].weight.data = whole[:16].view(4, 4)
    model[1].weight.data = whole[8:24].view(4, 4).t()  # overlaps, turned
    before = [layer.weight.detach().clone() for layer in model]
    copied = moved(model, torch.device("meta"))
    assert device_of(copied).type == "cpu"  # nothing on meta counts as a place
    from pruning.devices import _share_memory

    _share_memory(model, torch.device("cpu"))
    assert all(torch.equal(layer.weight, value) for layer, value in zip(model, before, strict=True))
    with torch.no_grad():
        model[0].weight.view(-1)[8] = 100.0
    assert float(model[1].weight[0, 0]) == 100.0


def test_a_recorded_graph_makes_its_tensors_where_it_was_moved() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            places = torch.arange(3, dtype=torch.float32, device=x.device)
            return self.linear(x + places)  # type: ignore[no-any-return]

    model = Counting().eval()
    x = torch.randn(2, 3)
    compact = pruning.shrink(model, {}, x)
    with pretended() as device:
        there = moved(compact, device)
        out = there(x.to(device)).cpu()
        back = on_cpu(there)
    assert torch.allclose(out, model(x), atol=1e-6)
    assert torch.allclose(back(x), model(x), atol=1e-6)
    arguments = ([torch.device("cpu"), 1], {"device": torch.device("cpu")})
    assert with_device(arguments, torch.device("meta")) == (
        [torch.device("meta"), 1],
        {"device": torch.device("meta")},
    )


# ---------------------------------------------------------------- mixed precision


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_mixed_precision_is_of_training_alone(precision: str) -> None:
    work = toy("mlp")
    recipe = Recipe(epochs=3, lr=0.05, precision=precision)
    kinds: set[torch.dtype] = set()

    def watched(module: nn.Module, _: object, out: torch.Tensor) -> None:
        if module.training:
            kinds.add(out.dtype)
        else:
            assert out.dtype == torch.float32

    final: list[nn.Module] = []
    handle = nn.modules.module.register_module_forward_hook(watched)
    try:
        events = list(pruning.run(recipe, work, keep=lambda model, _: final.append(model)))
    finally:
        handle.remove()
    assert getattr(torch, precision) in kinds
    assert all(p.dtype == torch.float32 for p in final[0].parameters())
    full = list(pruning.run(replace(recipe, precision="float32"), work))
    mixed_end, full_end = events[-1], full[-1]
    assert isinstance(mixed_end, Finished) and isinstance(full_end, Finished)
    assert mixed_end.sparsity == full_end.sparsity
    assert mixed_end.final.loss == pytest.approx(full_end.final.loss, rel=0.05)


def test_recipes_keep_the_ids_that_they_had() -> None:
    assert "precision" not in Recipe().to_dict()
    assert Recipe.from_dict(Recipe().to_dict()) == Recipe()
    mixed = Recipe(precision="bfloat16")
    assert Recipe.from_json(mixed.to_json()) == mixed
    assert mixed.id != Recipe().id
    assert Recipe().id == OLD_ID


OLD_ID = "76d659d0876f"


def test_a_loss_with_weights_goes_where_the_model_is() -> None:
    work = toy("mlp")
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 3.0]))
    work = Workpiece("weighted", work.model, work.train, work.train, work.train, loss=weighted)
    expected = pruning.measure(work, latency=False).loss
    with pretended() as device:
        loss = pruning.measure(on_device(work, device), latency=False).loss
    assert loss == pytest.approx(expected)
    assert weighted.weight is not None and weighted.weight.device.type == "cpu"
