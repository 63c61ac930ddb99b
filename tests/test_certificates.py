"""Certificates of large inputs: compared at the example's own size once, and mostly at 64 by 64.

Nothing that comparisons at full size would find may pass; what fails only for being small may not
be refused.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pruning import masks as engine
from pruning.errors import NotTheSame
from pruning.structure import shrink as shrinking
from pruning.structure.dependency_graph import dependency_graph
from pruning.structure.positions import smaller_inputs
from pruning.structure.shrink import shrink_certified
from pruning.structure.unit_masks import masks_without
from pruning.structure.verify import checks, outputs
from tests.nets import Net, conv, linear, residual
from tests.test_structure import some_units

LARGE = (1, 1, 96, 96)
AT_64 = [
    "its own weights, the example, batch 1 of 1 × 96 × 96",
    "its own weights, the example, batch 3 of 1 × 64 × 64",
    "its own weights, random inputs, batch 2 of 1 × 64 × 64",
    "random weights, random inputs, batch 3 of 1 × 64 × 64",
    "random weights, random inputs, batch 2 of 1 × 64 × 32",
    "random weights, random inputs, batch 2 of 1 × 32 × 64",
]
AT_96 = [
    "its own weights, the example, batch 3 of 1 × 96 × 96",
    "its own weights, random inputs, batch 2 of 1 × 96 × 96",
    "random weights, random inputs, batch 3 of 1 × 96 × 96",
]


def large(
    make: Callable[[], nn.Module], shape: tuple[int, ...] = LARGE
) -> tuple[nn.Module, Tensor, engine.Masks]:
    """A net, an example, and masks without half of each group."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = make().eval(), torch.randn(shape)
    graph = dependency_graph(model, x)
    return model, x, masks_without(graph, some_units(graph), model)


def test_a_large_input_is_compared_whole_once_and_at_64() -> None:
    model, x, masks = large(residual)
    before = copy.deepcopy(model.state_dict())
    certificate = shrink_certified(model, masks, x)[1]
    assert list(certificate.checks) == AT_64
    assert certificate.error <= 1e-12 and certificate.control > 1e-3
    assert certificate.removed > 0 and certificate.frozen == ()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def pooled() -> nn.Module:
    """Pools by 96, so that nothing smaller passes."""
    layers = {"a": conv(1, 6, 3, padding=1), "h": linear(6, 3)}
    return Net(layers, lambda m, x: m.h(nn.functional.avg_pool2d(m.a(x).relu(), 96).flatten(1)))


def flattened() -> nn.Module:
    layers = {"a": conv(1, 2, 8, stride=8), "h": linear(2 * 12 * 12, 3)}
    return Net(layers, lambda m, x: m.h(m.a(x).relu().flatten(1)))


def viewed() -> nn.Module:
    layers = {"a": conv(1, 6, 3, padding=1), "h": linear(6, 3)}
    return Net(layers, lambda m, x: m.h(m.a(x).relu().view(-1, 6, 96 * 96).mean(2)))


def halves_what_is_large() -> nn.Module:
    """Another model at 64 than at 96: the recorded one is right at 96 alone."""
    layers = {"a": conv(1, 6, 3, padding=1), "h": linear(6, 3)}

    def run(m: Any, x: Tensor) -> Tensor:
        y = m.a(x).relu()
        if x.shape[-1] > 80:
            y = y * 0.5
        out: Tensor = m.h(y.mean((2, 3)))
        return out

    return Net(layers, run)


@pytest.mark.parametrize("make", [pooled, flattened, viewed, halves_what_is_large])
def test_where_its_own_size_alone_will_do_nothing_smaller_is_compared(
    make: Callable[[], nn.Module],
) -> None:
    model, x, masks = large(make)
    certificate = shrink_certified(model, masks, x)[1]
    assert list(certificate.checks[:3]) == AT_96
    assert certificate.error <= 1e-12 and certificate.removed > 0 and certificate.frozen == ()


# ---------------------------------------------------------------- planted faults


def edited(change: Callable[[Any], None]) -> Callable[..., Any]:
    """`build`, and then a fault in the module or the graph that it gives."""
    correct = shrinking.build

    def wrong(*args: Any) -> Any:
        compact = correct(*args)
        with torch.no_grad():
            change(compact)
        compact.recompile()
        return compact

    return wrong


def crops_the_input(compact: Any) -> None:
    """Right at 64 by 64 and below, wrong above."""
    source = next(node for node in compact.graph.nodes if node.op == "placeholder")
    user = next(iter(source.users))
    with compact.graph.inserting_before(user):
        narrow = compact.graph.call_function(torch.ops.aten.slice.Tensor, (source, 3, 0, 64))
    user.replace_input_with(source, narrow)


def one_activation_less(compact: Any) -> None:
    """What ReLU lets through too little of: shows with any weights."""
    node = next(node for node in compact.graph.nodes if "relu" in str(node.target))
    node.replace_all_uses_with(node.all_input_nodes[0])


def two_channels_for_one(compact: Any) -> None:
    """Reads the first channel in place of the second."""
    node = next(node for node in compact.graph.nodes if node.target == "b")
    source = node.all_input_nodes[0]
    with compact.graph.inserting_before(node):
        places = torch.ops.aten.flip.default
        node.replace_input_with(source, compact.graph.call_function(places, (source, [1])))


def mixes_examples(compact: Any) -> None:
    """Right for a batch of one."""
    node = next(node for node in compact.graph.nodes if node.target == "h")
    source = node.all_input_nodes[0]
    with compact.graph.inserting_before(node):
        rolled = torch.ops.aten.roll.default
        node.replace_input_with(source, compact.graph.call_function(rolled, (source, [1], [0])))


FAULTS = [crops_the_input, one_activation_less, two_channels_for_one, mixes_examples]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_found_although_most_is_compared_at_64(
    fault: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, masks = large(residual)
    monkeypatch.setattr(shrinking, "build", edited(fault))
    with pytest.raises(NotTheSame, match="it is not handed out"):
        shrink_certified(model, masks, x)


@pytest.mark.parametrize("fault", [one_activation_less, two_channels_for_one])
def test_a_head_that_starts_at_zero_hides_no_fault(
    fault: Callable[[Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x, masks = large(residual)
    nn.init.zeros_(model.h.weight)  # type: ignore[union-attr, arg-type]
    monkeypatch.setattr(shrinking, "build", edited(fault))
    with pytest.raises(NotTheSame, match="it is not handed out"):
        shrink_certified(model, masks, x)


def test_the_control_compares_the_same_weights_with_and_without_masks() -> None:
    model, x, masks = large(residual)
    graph = dependency_graph(model, x)
    comparisons = checks(model, masks, x, smaller_inputs(graph.captured, x))
    last = comparisons.checks[-1]
    moved = copy.deepcopy(model).double()
    moved.load_state_dict(last.state)
    assert all(
        torch.equal(a, b) for a, b in zip(last.expected, outputs(moved, last.inputs), strict=True)
    )
    # Nothing but the masks lies between the two models: without masks they answer the same.
    nothing = checks(model, {}, x, smaller_inputs(graph.captured, x))
    for a, b in zip(nothing.unmasked, nothing.checks[-1].expected, strict=True):
        assert torch.equal(a, b)
    assert not torch.equal(comparisons.unmasked[0], last.expected[0])


# ---------------------------------------------------------------- masks of what is cut


def same_as_masked(model: nn.Module, masks: engine.Masks, x: Tensor) -> None:
    masked = copy.deepcopy(model)
    engine.apply(masks, masked)
    compact, certificate = shrink_certified(model, masks, x)
    assert certificate.error <= 1e-12
    for a, b in zip(outputs(masked, (x,)), outputs(compact, (x,)), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
        assert a.abs().max() > 1e-3


class Tied(nn.Module):
    def __init__(self, share_memory: bool) -> None:
        super().__init__()
        self.a, self.b, self.h = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        if share_memory:
            self.b.weight = nn.Parameter(self.a.weight.detach().t())
        else:
            self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.h(self.b(self.a(x).relu()).relu())
        return out


@pytest.mark.parametrize("share_memory", [False, True])
@pytest.mark.parametrize("name", ["a.weight", "b.weight"])
def test_a_mask_under_either_name_of_tied_weights_is_in_the_compact_model(
    share_memory: bool, name: str
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = Tied(share_memory).eval(), torch.randn(5, 6)
        keep = torch.rand(6, 6) > 0.4
    same_as_masked(model, {name: keep}, x)


def test_single_weights_and_whole_channels_are_masked_at_once() -> None:
    model, x, masks = large(residual)
    generator = torch.Generator().manual_seed(1)
    partly = {
        n: keep & (torch.rand(keep.shape, generator=generator) > 0.3) for n, keep in masks.items()
    }
    same_as_masked(model, {**masks, "c.weight": partly["c.weight"]}, x)
