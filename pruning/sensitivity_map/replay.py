"""Partial forward passes: run again only the steps of a model that a change of its weights reaches.

Traced by torch.fx. `PartialForward`, for the sensitivity map, enters the model at the pruned layer:
what lies before it is computed once for all cells of that layer. `Replay`, for leave-one-out loss
changes, keeps each value that a changed weight cannot reach. A model that cannot be traced is a
graph of one step, the model itself: it runs whole, with the same numbers.
"""

from __future__ import annotations

import copy
import operator
import timeit
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from pruning.adapted import Adapted
from pruning.masks import apply
from pruning.types import Batches, Inputs, Masks, count, take

Values = dict[fx.Node, Any]
"""Step -> what it gave."""

KEPT_BYTES = 1_000_000_000
"""Of values that `Replay` keeps, at most; where they would be more, the model runs whole."""

IN_PLACE: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}
"""The same numbers, without writing into a value that is kept."""

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


# ---------------------------------------------------------------- the model as steps


class _Steps(fx.Interpreter):
    """A model as steps in order: the nodes of its graph between the input and the output.

    reads: step -> ids of the parameters that it looks up for itself.
    """

    def __init__(self, model: nn.Module, graph: fx.Graph | None) -> None:
        super().__init__(model, graph=graph or _one_step())
        self.traced = graph is not None
        # fx calls a module that has two names by either of them
        self.submodules = dict(model.named_modules(remove_duplicate=False))
        self.input, *self.steps, last = self.graph.nodes
        self.output: Any = last.args[0]
        self.reads: dict[fx.Node, set[int]] = {}
        for node in self.steps:
            self.reads[node] = {id(parameter) for parameter in self._parameters(node)}

    def run_steps(self, steps: Sequence[fx.Node], values: Values, *, free: bool = False) -> None:
        """Do `steps`, writing into `values`. free: drop each value after its last reader."""
        self.env = values
        for node in steps:
            values[node] = self.run_node(node)
            if free:
                for read in self.user_to_last_uses.get(node, ()):
                    del values[read]

    def run_node(self, n: fx.Node) -> Any:
        # torch's own also notes the step for error messages, which takes as long as a small step
        args: Any = fx.node.map_arg(n.args, self.env.__getitem__)
        kwargs: Any = fx.node.map_arg(n.kwargs, self.env.__getitem__)
        return getattr(self, n.op)(n.target, args, kwargs)

    def call_module(self, target: Any, args: Any, kwargs: Any) -> Any:
        # looked up here and not in the model, since a folded convolution takes its module's place
        return self.submodules[target](*args, **kwargs)

    def _parameters(self, node: fx.Node) -> list[Any]:
        if node.op == "call_module":
            return list(self.submodules[str(node.target)].parameters())
        if node.op == "get_attr":
            return [self.fetch_attr(str(node.target))]
        return []


def _one_step() -> fx.Graph:
    """x -> model(x)."""
    graph = fx.Graph()
    graph.output(graph.call_module("", (graph.placeholder("x"),)))
    return graph


def _trace(model: nn.Module) -> fx.Graph | None:
    """The model's graph, where it has one input, one output, and no control flow on values.

    Steps that would write into their input write into a new value instead: the same numbers, and
    a value that is kept does not change.
    """
    if isinstance(model, Adapted):  # its inputs or outputs are no single tensors as they are
        return None
    for module in model.modules():
        if module.__dict__.get("inplace") is True:
            module.__dict__["inplace"] = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            graph = fx.Tracer().trace(model)
    except Exception:  # whatever the forward of an untrusted model does with a proxy
        return None
    nodes = list(graph.nodes)
    inputs = sum(node.op == "placeholder" for node in nodes)
    if inputs != 1 or not isinstance(nodes[-1].args[0], fx.Node):
        return None
    for node in nodes:
        if node.op == "call_function":
            node.target = IN_PLACE.get(node.target, node.target)
        if node.kwargs.get("inplace"):
            node.kwargs = {**node.kwargs, "inplace": False}
    return graph


# ---------------------------------------------------------------- from a pruned layer on


class PartialForward:
    """A copy of the model whose layers are pruned and put back. A class because it keeps that copy.

    BatchNorm is folded into the convolution before it, which is faster and differs from the model
    in the last bits. The caller judges whether those could matter, and runs `model`, the plain
    copy, where they could. traced: whether steps can be skipped.
    """

    def __init__(self, model: nn.Module, sample: Inputs) -> None:
        self.model = copy.deepcopy(model).eval()
        self.parameters = dict(self.model.named_parameters(remove_duplicate=False))
        graph = _trace(self.model)
        # a step that writes would spoil the values at the cut, which are read once for each cell
        if graph is not None and any(_writes(node) for node in graph.nodes):
            graph = None
        self._steps = _Steps(self.model, graph)
        self.folds = _fold_norms(self._steps)
        if self.traced and not self._agrees(sample):
            self._steps = _Steps(self.model, None)
            self.folds = []
        self._first: dict[int, int] = {}
        for i, node in enumerate(self._steps.steps):
            for parameter in self._steps.reads[node]:
                self._first.setdefault(parameter, i)

    @property
    def traced(self) -> bool:
        return self._steps.traced

    def first_step(self, names: Collection[str]) -> int:
        """The first step that uses any of these parameters; 0 where that is not known."""
        steps = [self._first.get(id(self.parameters[name]), 0) for name in names]
        return min(steps, default=0)

    def start(self, x: Inputs) -> ForwardPass:
        """A batch before the first step."""
        return ForwardPass(self._steps, x)

    @contextmanager
    def without(self, masks: Masks) -> Iterator[None]:
        """Inside, what the masks remove is zero."""
        saved = {name: self.parameters[name].detach().clone() for name in masks}
        apply(masks, self.model)
        self._refold(masks)
        try:
            yield
        finally:
            with torch.no_grad():
                for name, value in saved.items():
                    self.parameters[name].copy_(value)
            self._refold(masks)

    def _refold(self, names: Collection[str]) -> None:
        changed = {id(self.parameters[name]) for name in names}
        for fold in self.folds:
            if fold.reads & changed:
                fold.refresh()

    @torch.inference_mode()
    def _agrees(self, sample: Inputs) -> bool:
        """Whether the steps do what the model does, but for roundings."""
        try:
            ours = self.start(sample).finish()
            theirs = self.model(sample)
        except Exception:  # a step that needs what only the model's own forward sets up
            return False
        if not isinstance(theirs, Tensor) or ours.shape != theirs.shape:
            return False
        largest = float(theirs.abs().max())
        return torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4 * largest)


class ForwardPass:
    """One batch halfway through the dense model: the values that steps from `at` on still read."""

    def __init__(self, steps: _Steps, x: Inputs) -> None:
        self.at = 0
        self.values: Values = {steps.input: x}
        self._steps = steps

    def advance_to(self, step: int) -> None:
        """Go on to just before a step; never back."""
        self._steps.run_steps(self._steps.steps[self.at : step], self.values, free=True)
        self.at = max(self.at, step)

    def finish(self) -> Tensor:
        """The model's outputs, with the weights as they are now.

        The pass itself does not move, so that it can be finished again with other weights.
        """
        values = dict(self.values)
        self._steps.run_steps(self._steps.steps[self.at :], values, free=True)
        outputs: Tensor = values[self._steps.output]
        return outputs


def _writes(node: fx.Node) -> bool:
    """Whether a step writes into a value that another may read: relu_, out=, x[0] = y."""
    if node.target is operator.setitem or "out" in node.kwargs:
        return True
    if node.op not in ("call_method", "call_function"):
        return False
    target = node.target
    name = target if isinstance(target, str) else getattr(target, "__name__", "")
    return name.endswith("_") and not name.endswith("__")


class _FoldedConvolution:
    """A convolution that has taken in the BatchNorm behind it.

    γ(Wx + b − μ)/σ + β = (γ/σ)W x + ((b − μ)γ/σ + β). Masks act on the unfolded weight W.
    """

    def __init__(self, conv: Any, norm: Any) -> None:
        self.conv, self.norm = conv, norm
        parameters = (*conv.parameters(recurse=False), *norm.parameters(recurse=False))
        self.reads = {id(parameter) for parameter in parameters}
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Fold again, after a weight has changed."""
        norm, weight = self.norm, self.conv.weight
        scale = (norm.running_var + norm.eps).rsqrt()
        if norm.weight is not None:
            scale = scale * norm.weight
        bias = -norm.running_mean if self.conv.bias is None else self.conv.bias - norm.running_mean
        # scale: (out,), beside a weight of (out, in, k...)
        self.weight = weight * scale.reshape(-1, *[1] * (weight.dim() - 1))
        self.bias = bias * scale
        if norm.bias is not None:
            self.bias = self.bias + norm.bias

    def __call__(self, x: Inputs) -> Tensor:
        out: Tensor = self.conv._conv_forward(x, self.weight, self.bias)
        return out


def _fold_norms(steps: _Steps) -> list[_FoldedConvolution]:
    """Fold each BatchNorm with fixed statistics into the convolution that it alone reads.

    Both must be called once: a convolution that is used twice may have another reader there.
    """
    modules: dict[str, Any] = steps.submodules
    calls = [node.target for node in steps.steps if node.op == "call_module"]
    folds = []
    for node in steps.steps:
        reader = next(iter(node.users), node)
        if len(node.users) != 1 or node.op != "call_module" or reader.op != "call_module":
            continue
        conv = modules[str(node.target)]
        norm = modules[str(reader.target)]
        # a subclass of a convolution may compute something else
        if type(conv) not in CONVOLUTIONS or not isinstance(norm, _BatchNorm):
            continue
        fixed = norm.running_mean is not None and not norm.training
        once = calls.count(node.target) == calls.count(reader.target) == 1
        if fixed and once and not _hooked(conv) and not _hooked(norm):
            fold = _FoldedConvolution(conv, norm)
            folds.append(fold)
            modules[str(node.target)] = fold
            modules[str(reader.target)] = nn.Identity()
    return folds


def _hooked(module: nn.Module) -> bool:
    """Whether somebody reads, or changes, the module's inputs or outputs."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


# ---------------------------------------------------------------- a few weights, again and again


class Replay:
    """A model on its data, run again while few of its weights change. A class: it keeps the trace.

    Nothing is folded, since a single weight changes the loss by little: outputs are the model's to
    the last bit. This is checked, and a model that does not pass runs whole.
    model: a copy for this alone, in eval mode.
    """

    def __init__(self, model: nn.Module, data: Batches) -> None:
        self.model, self.data = model, data
        self._steps = _Steps(model, _trace(model))

    @property
    def traced(self) -> bool:
        return self._steps.traced

    def outputs(self) -> list[Tensor]:
        """The outputs, batch by batch, with everything run."""
        return [self.model(x) for x, _ in self.data]

    def outputs_under(self, parameters: Sequence[Tensor]) -> Callable[[], list[Tensor]]:
        """A function that gives the outputs, batch by batch, when `parameters` have changed.

        They are used as they are at its call; all other parameters must be as they are now.
        """
        reached, frontier = self._reached(parameters)
        if not self._exact(reached, frontier):
            return self.outputs
        kept = [self._keep(x, frontier) for x, _ in self.data]
        return lambda: [self._run(reached, values) for values in kept]

    def seconds(self, parameters: Sequence[Tensor]) -> float:
        """That those outputs take (estimate, from one batch)."""
        x = self._batch()
        reached, frontier = self._reached(parameters)
        if self._exact(reached, frontier):
            kept = self._keep(x, frontier)
            taken = _timed(lambda: self._run(reached, kept))
        else:
            taken = _timed(lambda: self.model(x))
        return self.data.examples / count(x) * taken

    def _batch(self) -> Inputs:
        return take(self.data.x, slice(self.data.batch))

    def _reached(self, parameters: Sequence[Tensor]) -> tuple[list[fx.Node], set[fx.Node]]:
        """The steps that the parameters reach, in order; and others whose values these read."""
        changed = set(map(id, parameters))
        reached: dict[fx.Node, None] = {}
        for node in self._steps.steps:
            if self._steps.reads[node] & changed or reached.keys() & node.all_input_nodes:
                reached[node] = None
        needed = {self._steps.output}
        for node in reached:
            needed.update(node.all_input_nodes)
        return list(reached), needed - reached.keys()

    def _exact(self, reached: Sequence[fx.Node], frontier: set[fx.Node]) -> bool:
        """Whether these steps alone give the model's own outputs, and what is kept has room.

        To the bit, on one batch.
        """
        x = self._batch()
        kept = self._keep(x, frontier)
        size = sum(value.nbytes for value in kept.values() if isinstance(value, Tensor))
        # twice: the first run must not have written into what is kept
        first = self._run(reached, kept)
        second = self._run(reached, kept)
        plain = self.model(x)
        same = torch.equal(plain, first) and torch.equal(plain, second)
        return same and size * len(self.data) <= KEPT_BYTES

    def _keep(self, x: Inputs, frontier: set[fx.Node]) -> Values:
        values: Values = {self._steps.input: x}
        self._steps.run_steps(self._steps.steps, values)
        return {node: values[node] for node in frontier}

    def _run(self, steps: Sequence[fx.Node], kept: Values) -> Tensor:
        """The outputs, from what is kept and these steps."""
        values = dict(kept)
        self._steps.run_steps(steps, values)
        outputs: Tensor = values[self._steps.output]
        return outputs


def _timed(work: Callable[[], object]) -> float:
    """Seconds, the best of three: the machine may be busy with something else."""
    return min(timeit.repeat(work, number=1, repeat=3))
