"""What a model answers when a few of its weights change: only what those weights reach is run again, with the same numbers.

The model is traced by torch.fx; a value that no changed weight reaches is computed once and kept. Nothing is folded or fused, so
that the answers are those of the model to the last bit: this is checked, and a model that does not pass runs whole.
"""

from __future__ import annotations

import operator
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from pruning.types import Batches

Answers = Callable[[], list[Tensor]]

HELD = 1_000_000_000
"""Bytes of values kept at most; where they would be more, the model runs whole."""

IN_PLACE: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
}
"""The same numbers, without writing into a value that is kept."""


class Replay:
    """A model on its data. A class because it keeps the trace. model: a copy for this alone, in eval mode."""

    def __init__(self, model: nn.Module, data: Batches) -> None:
        self.model, self.data = model, data
        self.modules = dict(model.named_modules())
        for module in self.modules.values():
            if getattr(module, "inplace", False) is True:
                module.inplace = False
        self.nodes = _trace(model)

    def whole(self) -> list[Tensor]:
        """The answers, batch by batch, with everything run."""
        return [self.model(x) for x, _ in self.data]

    def after(self, parameters: Sequence[Tensor]) -> Answers:
        """A function that gives the answers with these parameters as they are then, and all others as they are now."""
        reached, frontier = self._reached(parameters)
        if not self._exact(reached, frontier):
            return self.whole
        kept = [self._keep(x, frontier) for x, _ in self.data]
        return lambda: [self._run(reached, dict(values)) for values in kept]

    def seconds(self, parameters: Sequence[Tensor]) -> float:
        """That those answers take (estimate, from one batch)."""
        x = self.data.x[: self.data.batch]
        reached, frontier = self._reached(parameters)
        if self._exact(reached, frontier):
            kept = self._keep(x, frontier)
            return len(self.data.x) / len(x) * _timed(lambda: self._run(reached, dict(kept)))
        return len(self.data.x) / len(x) * _timed(lambda: self.model(x))

    def _exact(self, reached: Sequence[fx.Node], frontier: set[fx.Node]) -> bool:
        """Whether running only these steps gives the model's own answers on one batch, to the bit, and what is kept has room."""
        if not self.nodes:
            return False
        x = self.data.x[: self.data.batch]
        kept = self._keep(x, frontier)
        size = sum(value.nbytes for value in kept.values() if isinstance(value, Tensor))
        first, second = (
            self._run(reached, dict(kept)) for _ in range(2)
        )  # the first must not have changed what is kept
        plain = self.model(x)
        return (
            size * len(self.data) <= HELD
            and torch.equal(plain, first)
            and torch.equal(plain, second)
        )

    def _reached(self, parameters: Sequence[Tensor]) -> tuple[list[fx.Node], set[fx.Node]]:
        """The steps that the parameters reach, in order; and the steps that they do not, whose values those need."""
        wanted = {id(parameter) for parameter in parameters}
        reached: dict[fx.Node, None] = {}
        for node in self.nodes[1:-1]:
            if any(id(held) in wanted for held in self._holds(node)) or any(
                read in reached for read in node.all_input_nodes
            ):
                reached[node] = None
        needed = {read for node in (*reached, *self.nodes[-1:]) for read in node.all_input_nodes}
        return list(reached), needed - set(reached)

    def _holds(self, node: fx.Node) -> list[Any]:
        """Parameters that a step looks up for itself."""
        if node.op == "call_module":
            return list(self.modules[str(node.target)].parameters())
        return [self._attribute(node)] if node.op == "get_attr" else []

    def _attribute(self, node: fx.Node) -> Any:
        path, _, name = str(node.target).rpartition(".")
        return getattr(self.modules[path], name)

    def _keep(self, x: Tensor, frontier: set[fx.Node]) -> dict[fx.Node, Any]:
        values: dict[fx.Node, Any] = {self.nodes[0]: x}
        self._run(self.nodes[1:-1], values)
        return {node: values[node] for node in frontier}

    def _run(self, steps: Sequence[fx.Node], values: dict[fx.Node, Any]) -> Tensor:
        """Do the steps, writing into `values`; the model's answer."""
        for node in steps:
            args, kwargs = (
                fx.node.map_arg(given, values.__getitem__) for given in (node.args, node.kwargs)
            )
            values[node] = self._do(node, args, kwargs)
        out = fx.node.map_arg(self.nodes[-1].args[0], values.__getitem__)
        assert isinstance(out, Tensor)
        return out

    def _do(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        if node.op == "call_module":
            return self.modules[str(node.target)](*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        if node.op == "get_attr":
            return self._attribute(node)
        function = IN_PLACE.get(node.target, node.target)
        assert callable(function)
        return function(*args, **kwargs)


def _trace(model: nn.Module) -> list[fx.Node]:
    """The model's steps, from its one input to its one output; none where they depend on values."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            nodes = list(fx.Tracer().trace(model).nodes)
    except Exception:  # whatever a stranger's forward does with a proxy
        return []
    plain = sum(node.op == "placeholder" for node in nodes) == 1 and isinstance(
        nodes[-1].args[0], fx.Node
    )
    return nodes if plain else []


def _timed(work: Callable[[], object]) -> float:
    """Seconds, the best of three: the machine may be busy with something else."""
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return min(taken)
