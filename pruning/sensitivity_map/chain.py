"""A model as a chain of steps that can be entered anywhere: what comes before a changed layer is computed once.

Traced by torch.fx. BatchNorm is folded into the convolution before it; the caller judges whether the difference in the last
bits could matter. A model that cannot be traced runs whole, with the same numbers.
"""

from __future__ import annotations

import copy
import operator
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning.masks import apply
from pruning.types import Masks

IN_PLACE = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


class Walk(Protocol):
    """One batch on its way through the dense model."""

    def to(self, step: int) -> None:
        """Go on to just before a step; never back."""

    def end(self) -> Tensor:
        """The model's answers from here, with the weights as they are now. The walk itself stays where it is."""


class Untraceable(Exception):
    """The model's steps cannot be told without running it."""


class PartialForward:
    """A copy of the model whose layers are pruned and put back. A class because it holds that copy.

    traced: whether steps before a change can be skipped; model: the copy, plain.
    """

    def __init__(self, model: nn.Module, sample: Tensor) -> None:
        self.model = copy.deepcopy(model).eval()
        for module in self.model.modules():
            if module.__dict__.get("inplace") is True:
                module.__dict__["inplace"] = (
                    False  # the same numbers, and values at the cut stay what they were
                )
        self.parameters = dict(self.model.named_parameters(remove_duplicate=False))
        try:
            self.chain: _Chain | None = _Chain(self.model, sample)
        except Untraceable:
            self.chain = None

    @property
    def traced(self) -> bool:
        return self.chain is not None

    def step(self, names: Collection[str]) -> int:
        """The first step that uses any of these parameters; 0 where that is not known."""
        if self.chain is None:
            return 0
        return min(
            (self.chain.first.get(id(self.parameters[name]), 0) for name in names), default=0
        )

    def walk(self, x: Tensor) -> Walk:
        return _Whole(self.model, x) if self.chain is None else _Walk(self.chain, x)

    @contextmanager
    def without(self, masks: Masks) -> Iterator[None]:
        """Inside, what the masks remove is zero."""
        saved = {name: self.parameters[name].detach().clone() for name in masks}
        apply(masks, self.model)
        self._fold(masks)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in saved.items():
                    self.parameters[name].copy_(value)
            self._fold(masks)

    def _fold(self, names: Collection[str]) -> None:
        touched = {id(self.parameters[name]) for name in names}
        for fold in self.chain.folds if self.chain else ():
            if fold.owns & touched:
                fold.refresh()


class _Whole:
    """A walk through a model that has no steps."""

    def __init__(self, model: nn.Module, x: Tensor) -> None:
        self.model, self.x = model, x

    def to(self, step: int) -> None:
        pass

    def end(self) -> Tensor:
        out: Tensor = self.model(self.x)
        return out


class _Walk:
    """Every live value of one batch, just before step `at`."""

    def __init__(self, chain: _Chain, x: Tensor) -> None:
        self.chain, self.at, self.live = chain, 0, {chain.input: x}

    def to(self, step: int) -> None:
        self.at = max(self.at, self.chain.run(self.live, self.at, step))

    def end(self) -> Tensor:
        live = dict(self.live)
        self.chain.run(live, self.at, len(self.chain.steps))
        out: Tensor = live[self.chain.output]
        return out


class _Chain:
    """Steps in order, each a node of the graph with the function that does it.

    first: id of a parameter -> the first step that uses it; over: what nobody needs after a step.
    """

    def __init__(self, model: nn.Module, sample: Tensor) -> None:
        graph = _trace(model)
        nodes = list(graph.nodes)
        self.input, self.output = nodes[0], nodes[-1].args[0]
        modules = dict(model.named_modules())
        self.folds, replaced = _folds(nodes, modules)
        self.steps = [
            (node, replaced.get(node) or _function(node, model, modules)) for node in nodes[1:-1]
        ]
        self.first = _first_uses(self.steps, model, modules)
        last = {used: i for i, (node, _) in enumerate(self.steps) for used in node.all_input_nodes}
        last[self.output] = len(self.steps)
        self.over: list[list[fx.Node]] = [[] for _ in self.steps]
        for i, (node, _) in enumerate(self.steps):
            at = last.get(node, i)
            if at < len(self.steps):
                self.over[at].append(node)
        if self.input in last and last[self.input] < len(self.steps):
            self.over[last[self.input]].append(self.input)
        self._check(model, sample)

    def run(self, live: dict[fx.Node, Any], start: int, stop: int) -> int:
        for i in range(start, stop):
            node, function = self.steps[i]
            args = fx.node.map_arg(node.args, live.__getitem__)
            kwargs = fx.node.map_arg(node.kwargs, live.__getitem__) if node.kwargs else {}
            live[node] = function(*args, **kwargs)
            for gone in self.over[i]:
                live.pop(gone, None)
        return stop

    @torch.inference_mode()
    def _check(self, model: nn.Module, sample: Tensor) -> None:
        """Raises Untraceable when the steps do something else than the model."""
        try:
            live = {self.input: sample}
            self.run(live, 0, len(self.steps))
            ours, theirs = live[self.output], model(sample)
        except Exception as error:
            raise Untraceable from error
        if not isinstance(theirs, Tensor) or ours.shape != theirs.shape:
            raise Untraceable
        if not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max())):
            raise Untraceable


class _Fold:
    """A convolution that has taken in the BatchNorm behind it: γ(Wx + b − μ)/σ + β = (γ/σ)W x + ((b − μ)γ/σ + β).

    Masks act on the unfolded weight; then it is scaled.
    """

    def __init__(self, conv: Any, norm: Any) -> None:
        self.conv, self.norm = conv, norm
        self.owns = {id(p) for module in (conv, norm) for p in module.parameters(recurse=False)}
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        norm, weight = self.norm, self.conv.weight
        scale = (norm.running_var + norm.eps).rsqrt()
        scale = scale if norm.weight is None else scale * norm.weight
        bias = -norm.running_mean if self.conv.bias is None else self.conv.bias - norm.running_mean
        self.weight = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
        self.bias = bias * scale if norm.bias is None else bias * scale + norm.bias

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv._conv_forward(x, self.weight, self.bias)
        return out


def _trace(model: nn.Module) -> fx.Graph:
    """Raises Untraceable: control flow on values, several inputs or outputs, steps that write where others read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = fx.Tracer().trace(model)
    except Exception as error:
        raise Untraceable from error
    nodes = list(graph.nodes)
    if sum(node.op == "placeholder" for node in nodes) != 1 or not isinstance(
        nodes[-1].args[0], fx.Node
    ):
        raise Untraceable
    for node in nodes:
        node.target = (
            IN_PLACE.get(node.target, node.target) if node.op == "call_function" else node.target
        )
        name = (
            str(node.target)
            if isinstance(node.target, str)
            else getattr(node.target, "__name__", "")
        )
        writes = (
            node.op in ("call_method", "call_function")
            and name.endswith("_")
            and not name.endswith("__")
        )
        if writes or node.target is operator.setitem or "out" in node.kwargs:
            raise Untraceable
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
    return graph


def _function(node: fx.Node, model: nn.Module, modules: dict[str, nn.Module]) -> Callable[..., Any]:
    if node.op == "call_module":
        return modules[str(node.target)]
    if node.op == "call_method":
        name = str(node.target)
        return lambda self, *args, **kwargs: getattr(self, name)(*args, **kwargs)
    if node.op == "get_attr":
        path, _, leaf = str(node.target).rpartition(".")
        holder = modules[path]
        return lambda: getattr(holder, leaf)
    assert callable(node.target)
    return node.target


def _folds(
    nodes: list[fx.Node], modules: dict[str, nn.Module]
) -> tuple[list[_Fold], dict[fx.Node, Callable[..., Any]]]:
    """Convolutions whose only reader is a BatchNorm with fixed statistics, each called once."""
    calls = [str(node.target) for node in nodes if node.op == "call_module"]
    folds: list[_Fold] = []
    replaced: dict[fx.Node, Callable[..., Any]] = {}
    for node in nodes:
        reader = next(iter(node.users), None)
        if (
            node.op != "call_module"
            or len(node.users) != 1
            or reader is None
            or reader.op != "call_module"
        ):
            continue
        conv, norm = modules[str(node.target)], modules[str(reader.target)]
        fixed = isinstance(norm, _BatchNorm) and norm.running_mean is not None and not norm.training
        once = calls.count(str(node.target)) == calls.count(str(reader.target)) == 1
        if type(conv) in CONVOLUTIONS and fixed and once and not any(map(_hooked, (conv, norm))):
            fold = _Fold(conv, norm)
            folds.append(fold)
            replaced |= {node: fold, reader: _same}
    return folds, replaced


def _same(x: Tensor) -> Tensor:
    return x


def _hooked(module: nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _first_uses(
    steps: list[tuple[fx.Node, Any]], model: nn.Module, modules: dict[str, nn.Module]
) -> dict[int, int]:
    first: dict[int, int] = {}
    for i, (node, _) in enumerate(steps):
        held: list[Any] = []
        if node.op == "call_module":
            held = list(modules[str(node.target)].parameters())
        elif node.op == "get_attr":
            path, _, leaf = str(node.target).rpartition(".")
            held = [getattr(modules[path], leaf)]
        for parameter in held:
            first.setdefault(id(parameter), i)
    return first
