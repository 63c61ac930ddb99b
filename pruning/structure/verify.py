"""The comparison behind a certificate: masked and slim, side by side, in float64."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as trees

from pruning.masks import apply
from pruning.structure.capture import Example, inputs
from pruning.structure.liveness import Liveness
from pruning.structure.modules import cut
from pruning.structure.propagate import operation
from pruning.types import Masks

Outputs = list[Tensor]

FLOATS = (torch.float32, torch.float16, torch.bfloat16)


@dataclass(frozen=True)
class Check:
    """One comparison: what the masked model said, and how to ask the slim one. name: of the weights, inputs and batch."""

    name: str
    state: dict[str, Tensor]
    """float64 parameters and buffers of the whole masked model."""
    given: tuple[Tensor, ...]
    wanted: Outputs

    def error(self, module: nn.Module, liveness: Liveness) -> float:
        """max |masked - slim| / max |masked|; inf where the slim model fails or gives other shapes."""
        return min(
            (distance(self.wanted, found) for found in self.answers(module, liveness)),
            default=float("inf"),
        )

    def answers(self, module: nn.Module, liveness: Liveness) -> Iterator[Outputs]:
        """What the slim model says, in every reading of it that runs."""
        tensors = {name: cut(liveness, name, value) for name, value in self.state.items()}
        for candidate in _readings(module):
            try:
                with _lent(candidate, tensors):
                    yield outputs(candidate, self.given)
            except (
                RuntimeError,
                ValueError,
                IndexError,
                TypeError,
            ):  # a graph rewritten wrongly: the culprit is looked for
                continue


def checks(masked: nn.Module, masks: Masks, example: Example) -> list[Check]:
    """masked: in float64, eval mode. Its own weights on the example and on random inputs, drawn weights on random inputs."""
    drawn = copy.deepcopy(masked)
    _draw(drawn)
    apply(masks, drawn)
    tries = [
        ("its own weights, the example, batch 3", masked, real(example, 3)),
        ("its own weights, random inputs, batch 2", masked, random(example, 2)),
        ("drawn weights, random inputs, batch 3", drawn, random(example, 3)),
    ]
    return [Check(name, state(model), given, outputs(model, given)) for name, model, given in tries]


def control(compact: Any, check: Check, model: nn.Module) -> float:
    """The distance of the slim model to the one before masking, both with drawn weights: far from 0, or nothing was compared."""
    dense = copy.deepcopy(model).double().eval()
    _draw(dense)
    before = outputs(dense, check.given)
    return min(
        (distance(before, found) for found in check.answers(compact.module, compact.liveness)),
        default=float("inf"),
    )


def state(model: nn.Module) -> dict[str, Tensor]:
    return {
        name: t.detach()
        for name, t in (
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        )
    }


def outputs(model: nn.Module, given: tuple[Tensor, ...]) -> Outputs:
    """Every tensor a model gives, in order."""
    with torch.inference_mode():
        return [leaf for leaf in trees.tree_leaves(model(*given)) if isinstance(leaf, Tensor)]


def distance(wanted: Outputs, found: Outputs) -> float:
    if [tuple(a.shape) for a in wanted] != [tuple(b.shape) for b in found]:
        return float("inf")
    scale = max((float(a.abs().max()) for a in wanted if a.numel()), default=0.0)
    worst = max(
        (
            float((a.double() - b.double()).abs().max())
            for a, b in zip(wanted, found, strict=True)
            if a.numel()
        ),
        default=0.0,
    )
    return worst if scale == 0 else worst / scale


def real(example: Example, batch: int) -> tuple[Tensor, ...]:
    """The example itself, its rows in turn, in float64."""
    return tuple(_double(x[torch.arange(batch) % len(x)]) for x in inputs(example))


def random(example: Example, batch: int) -> tuple[Tensor, ...]:
    """Inputs drawn with the example's mean and spread; whole numbers from its range."""
    chance = torch.Generator().manual_seed(batch)
    found = []
    for x in inputs(example):
        shape = (batch, *x.shape[1:])
        if x.is_floating_point():
            spread = float(x.std()) if x.numel() > 1 and float(x.std()) > 0 else 1.0
            found.append(
                torch.randn(shape, generator=chance, dtype=torch.float64) * spread + float(x.mean())
            )
        else:
            low, high = int(x.min()), int(x.max())
            found.append(torch.randint(low, high + 1, shape, generator=chance).to(x.dtype))
    return tuple(found)


def _double(x: Tensor) -> Tensor:
    return x.double() if x.is_floating_point() else x


@torch.no_grad()
def _draw(model: nn.Module) -> None:
    """Every parameter moved by half its own size, at random: a head that starts at zero would hide all differences."""
    chance = torch.Generator().manual_seed(0)
    for parameter in model.parameters():
        if parameter.is_floating_point():
            size = float(parameter.square().mean().sqrt()) or 0.05
            parameter.add_(
                torch.randn(parameter.shape, generator=chance, dtype=torch.float64).to(
                    parameter.dtype
                ),
                alpha=0.5 * size,
            )


CASTS = ("to", "_to_copy", "type_as")


def _readings(module: nn.Module) -> Iterator[nn.Module]:
    """The module as it is and, where its graph spells a precision, with that read as float64: recording writes down the one it saw.

    Some code makes tables in single precision whatever the model's, and casts them to it: then only the casts are read so.
    """
    yield module
    assert isinstance(module, fx.GraphModule)
    spelled = [node for node in module.graph.nodes if _spelled(node)]
    for some in (
        [spelled, casts]
        if (casts := [n for n in spelled if _recasts(n)])
        else [spelled]
        if spelled
        else []
    ):
        names, graph = {node.name for node in some}, copy.deepcopy(module.graph)
        for node in graph.nodes:
            if node.name in names:
                node.args, node.kwargs = _doubled((node.args, node.kwargs))
        yield fx.GraphModule(module, graph)


def _recasts(node: fx.Node) -> bool:
    """Whether it casts what is a float already: to the precision of the model, when it was recorded."""
    value = (
        node.args[0].meta.get("val")
        if operation(node) in CASTS and isinstance(node.args[0], fx.Node)
        else None
    )
    return isinstance(value, Tensor) and value.is_floating_point()


def _spelled(node: fx.Node) -> bool:
    return any(
        isinstance(a, torch.dtype) and a in FLOATS
        for a in trees.tree_leaves((node.args, node.kwargs))
    )


def _doubled(given: Any) -> Any:
    return fx.node.map_aggregate(
        given, lambda a: torch.float64 if isinstance(a, torch.dtype) and a in FLOATS else a
    )


@contextmanager
def _lent(module: nn.Module, tensors: dict[str, Tensor]) -> Iterator[None]:
    """The module in eval mode with other tensors in place of its own, for a while."""
    mode = module.training
    stores: list[dict[str, Any]] = [
        s for m in module.modules() for s in (m._parameters, m._buffers)
    ]
    held = [(store, dict(store)) for store in stores]
    try:
        for name, value in tensors.items():
            parent, _, short = name.rpartition(".")
            try:
                owner = module.get_submodule(parent)
            except AttributeError:
                continue  # only training uses it
            if short in owner._parameters:
                owner._parameters[short] = nn.Parameter(value, requires_grad=False)
            elif short in owner._buffers:
                owner._buffers[short] = value
        for store, before in held:  # constants of the code
            for name, value in store.items():
                if value is not None and value is before[name] and value.is_floating_point():
                    store[name] = value.double()
        module.eval()
        yield
    finally:
        for store, before in held:
            store.update(before)
        module.train(mode)
