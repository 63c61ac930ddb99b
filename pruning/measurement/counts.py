"""Counts: weights and multiply-accumulates (MACs) of each prunable layer, and its output shape.

Counted below autograd, by the products themselves: a weight is found whoever multiplies with it, a
module, a bare function or torch's own attention, and what multiplies no covered weight is counted
too. So the sum is the model's, as `torch.utils.flop_counter` has it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pruning.adapted import fit_to, precision
from pruning.devices import device_of
from pruning.evidence import frozen_eval
from pruning.masks import count_layer
from pruning.metrics import Layer
from pruning.types import Inputs, Workpiece, named_weights, parts_of, take

LOOKUPS = {"embedding", "_embedding_bag", "index", "index_select", "gather"}
"""Operations that pick some of a weight's rows: what they give are activations."""


class Uses(NamedTuple):
    """The products of one pass of one example.

    rows: prunable weight -> (rows,) float64, how often each weight of that row is multiplied.
        Rows differ where torch packs attention: queries are as many as the one sequence, keys and
        values as many as the other. In the order of the weights' last products.
    shapes: prunable weight -> its layer's output.
    other: MACs that belong to no prunable weight: attention's queries times keys and weights times
        values, and products with what is not covered.
    """

    rows: dict[str, Tensor]
    shapes: dict[str, tuple[int, ...]]
    other: int


def layer_counts(
    model: nn.Module, uses: Uses | None, weights: Mapping[str, Tensor] | None = None
) -> tuple[Layer, ...]:
    """Non-zero weights and the MACs they cause, by prunable layer.

    uses: None where there is no example to count them by; weights: of the model, by name.
    """
    layers = []
    for name, weight in (weights or named_weights(model)).items():
        rows = uses.rows.get(name) if uses else None
        layers.append(count_layer(name, (weight.detach() != 0).cpu(), rows))
    return tuple(layers)


def macs(model: nn.Module, example: Inputs) -> dict[str, int]:
    """Prunable parameter name -> multiply-accumulates of one example, dense."""
    return dense_macs(model, count_uses(model, example))


def dense_macs(model: nn.Module, uses: Uses) -> dict[str, int]:
    """`macs`, of a pass that was counted before."""
    rows = uses.rows
    counted = {}
    for name, weight in named_weights(model).items():
        used = float(rows[name].sum()) if name in rows else 0.0
        counted[name] = round(used * (weight.numel() // len(weight)))
    return counted


def output_layer(work: Workpiece) -> str | None:
    """The prunable weight whose layer gives the model's outputs: the last to run.

    The last one of the model where its calls cannot be recorded.
    """
    if work.example is None:
        return list(named_weights(work.model))[-1]
    return last_used(work.model, count_uses(work.model, work.example))


def last_used(model: nn.Module, uses: Uses) -> str:
    """`output_layer`, of a pass that was counted before."""
    return list(uses.rows or named_weights(model))[-1]


def output_shapes(model: nn.Module, example: Inputs) -> dict[str, tuple[int, ...]]:
    """Prunable parameter name -> the shape of its layer's output for one example."""
    return count_uses(model, example).shapes


def count_uses(
    model: nn.Module, example: Inputs, weights: Mapping[str, Tensor] | None = None
) -> Uses:
    """One pass of one example, counted. weights: by name; None: the prunable ones."""
    weights = named_weights(model) if weights is None else weights
    counter = _CountProducts(weights)
    names = {id(weight): name for name, weight in weights.items()}

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        # As the module gives it: the product itself has its positions laid flat.
        out = output[0] if isinstance(output, tuple) else output
        for parameter in module.parameters(recurse=False):
            name = names.get(id(parameter))
            if name is not None and isinstance(out, Tensor):
                counter.shapes[name] = tuple(out.shape[1:])

    owners = [
        module
        for module in model.modules()
        if any(id(parameter) in names for parameter in module.parameters(recurse=False))
    ]
    hooks = [module.register_forward_hook(record) for module in owners]
    try:
        # Attention by its plain formula: fused, its projections and products are one operation.
        with frozen_eval(model), torch.no_grad(), counter:
            model(*fit(take(example, slice(1)), model))
    finally:
        for hook in hooks:
            hook.remove()
    return Uses(counter.rows, counter.shapes, round(counter.other))


def fit(example: Inputs, model: nn.Module) -> tuple[Tensor, ...]:
    """The example's inputs in the model's precision, where the model lies."""
    kind, there = precision(model), device_of(model)
    return tuple(fit_to(part.to(there), kind) for part in parts_of(example))


class _Part(NamedTuple):
    """Where in memory a weight lies, or a tensor computed from it: bytes `start` to `end`."""

    start: int
    end: int
    name: str


class _CountProducts(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the MACs of every product, and whose weight it multiplies.

    A dispatch mode, because modules hide what functions do with their weights: the forward of
    attention's output projection is never called, its weight is used all the same.
    """

    def __init__(self, weights: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.rows: dict[str, Tensor] = {}
        self.shapes: dict[str, tuple[int, ...]] = {}
        self.other = 0.0
        self._weights = weights
        self._parts: dict[int, list[_Part]] = {}  # by storage: packed weights may share one
        self._made: list[Tensor] = []  # kept, so that no other tensor gets their memory
        for name, weight in weights.items():
            self._add_part(weight, name)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        operation = func._overloadpacket.__name__
        match operation:
            case "mm" | "bmm":
                self._count(args[0].numel() * args[1].shape[-1], args[:2], out)
            case "addmm" | "baddbmm" | "addbmm":
                self._count(args[1].numel() * args[2].shape[-1], args[1:3], out)
            case "linear":  # where a device has it whole (mps)
                self._count(args[0].numel() * len(args[1]), args[1:2], out)
            case "mv":
                self._count(args[0].numel(), args[:2], out)
            case "addmv":
                self._count(args[1].numel(), args[1:3], out)
            case "dot" | "vdot":
                self._count(args[0].numel(), args[:2], out)
            case "convolution":
                # A transposed one uses each weight once for each pixel of its input.
                pixels = args[0] if args[6] else out
                times = len(args[0]) * math.prod(pixels.shape[2:])
                self._count(times * args[1].numel(), args[1:2], out)
            case _ if operation not in LOOKUPS:
                self._follow((*args, *(kwargs or {}).values()), out)
        return out

    def _count(self, macs: int, operands: tuple[Tensor, ...], out: Tensor) -> None:
        """A product of so many MACs."""
        for operand in operands:
            part = self._find(operand)
            if part is None:
                continue
            whole = self._weights[part.name]
            # Taken out and put in again: a tied weight stands where it was last used.
            none = torch.zeros(len(whole), dtype=torch.float64, device="cpu")
            rows = self.rows.pop(part.name, none)
            used = self._used_rows(operand, part, whole)
            row_size = whole.numel() // len(whole)
            rows[used] += macs / (row_size * len(rows[used]))
            self.rows[part.name] = rows
            if part.name not in self.shapes:
                # (1, outputs) of a matrix is one position; a convolution has its batch first
                single = out.dim() > 2 or out.shape[0] == 1
                self.shapes[part.name] = tuple(out.shape[1:] if single else out.shape)
            return
        self.other += macs

    def _used_rows(self, operand: Tensor, part: _Part, whole: Tensor) -> slice:
        """Which rows of a weight an operand is; all, unless it is exactly some of them."""
        row_bytes = operand.element_size() * (whole.numel() // len(whole))
        offset = operand.data_ptr() - part.start
        reach = sum((n - 1) * step for n, step in zip(operand.shape, operand.stride(), strict=True))
        solid = reach + 1 == operand.numel()
        size = operand.numel() * operand.element_size()
        if not solid or offset % row_bytes or size % row_bytes:
            return slice(None)
        first = offset // row_bytes
        return slice(first, first + size // row_bytes)

    def _follow(self, inputs: tuple[Any, ...], out: Any) -> None:
        """What is computed from one weight, number by number, is that weight still.

        So are casts of mixed precision, masks, scales and standardised weights.
        """
        sources = [part for value in tree_leaves(inputs) if (part := self._find(value))]
        if not sources:
            return
        name = sources[0].name
        for leaf in tree_leaves(out):
            same_size = isinstance(leaf, Tensor) and leaf.numel() == self._weights[name].numel()
            if same_size and self._find(leaf) is None:
                self._made.append(leaf)
                self._add_part(leaf, name)

    def _add_part(self, tensor: Tensor, name: str) -> None:
        start = tensor.data_ptr()
        part = _Part(start, start + tensor.numel() * tensor.element_size(), name)
        self._parts.setdefault(tensor.untyped_storage().data_ptr(), []).append(part)

    def _find(self, tensor: object) -> _Part | None:
        """The weight that a tensor is, is part of or was computed from."""
        if not isinstance(tensor, Tensor):
            return None
        place = tensor.data_ptr()
        for part in self._parts.get(tensor.untyped_storage().data_ptr(), ()):
            if part.start <= place < part.end:
                return part
        return None
