"""Counts: weights and multiply-accumulates (MACs) of each prunable layer, and its output shape."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from pruning.evidence import evaluating
from pruning.evidence.attention import no_fused_attention
from pruning.metrics import Layer
from pruning.types import PRUNED_KINDS, Workpiece, prunable

WEIGHTS = ("weight", "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


def layer_counts(model: nn.Module, example: Tensor | None) -> tuple[Layer, ...]:
    """Non-zero weights and the MACs they cause, by prunable layer."""
    used = positions(model, example) if example is not None else {}
    layers = []
    for name, weight in prunable(model).items():
        total = weight.numel()
        kept = int(weight.detach().count_nonzero())
        times = used.get(name, 0)
        layers.append(Layer(name, total, kept, total * times, kept * times))
    return tuple(layers)


def macs(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Prunable parameter name -> multiply-accumulates of one example, dense."""
    used = positions(model, example)
    weights = prunable(model)
    return {name: w.numel() * used.get(name, 0) for name, w in weights.items()}


def positions(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Prunable parameter name -> how often each of its weights is used for one example.

    1 for a plain linear layer, the output's pixels for a convolution.
    """
    return {name: call.positions for name, call in _calls(model, example).items()}


def output_layer(work: Workpiece) -> str | None:
    """The prunable weight whose layer gives the model's outputs: the last to run.

    The last one of the model where its calls cannot be recorded.
    """
    names = list(prunable(work.model))
    if work.example is not None:
        names = list(_calls(work.model, work.example)) or names
    return names[-1]


def output_shapes(model: nn.Module, example: Tensor) -> dict[str, tuple[int, ...]]:
    """Prunable parameter name -> the shape of its layer's output for one example."""
    return {name: call.shape for name, call in _calls(model, example).items()}


class _Call(NamedTuple):
    positions: int
    shape: tuple[int, ...]


def _calls(model: nn.Module, example: Tensor) -> dict[str, _Call]:
    """Each prunable weight's calls for one example, in the order that their last ones finish."""
    weights = prunable(model)
    names = {id(weight): name for name, weight in weights.items()}
    calls: dict[str, _Call] = {}

    def record(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        out: Tensor = output[0] if isinstance(output, tuple) else output
        for attribute in WEIGHTS:
            weight = getattr(module, attribute, None)
            name = names.get(id(weight))
            if name is None:
                continue
            times = _positions(module, inputs[0], out)
            if name in calls:
                # taken out and put in again: a tied weight stands where it was last used
                times += calls.pop(name).positions
            calls[name] = _Call(times, tuple(out.shape[1:]))

    kinds = (*PRUNED_KINDS, nn.MultiheadAttention)
    layers = [module for module in model.modules() if isinstance(module, kinds)]
    hooks = [layer.register_forward_hook(record) for layer in layers]
    try:
        with evaluating(model), torch.no_grad(), no_fused_attention():
            model(fit(example[:1], model))
    finally:
        for hook in hooks:
            hook.remove()
    return calls


def fit(example: Tensor, model: nn.Module) -> Tensor:
    """The example in the model's precision."""
    if not example.is_floating_point():
        return example
    kinds = (p.dtype for p in model.parameters() if p.is_floating_point())
    return example.to(next(kinds, example.dtype))


def _positions(module: nn.Module, x: Tensor, out: Tensor) -> int:
    if isinstance(module, nn.Linear | nn.MultiheadAttention):
        return int(out.numel() // out.shape[-1])
    # a transposed convolution uses each weight once for each pixel of its input
    pixels = x if "Transpose" in type(module).__name__ else out
    return math.prod(pixels.shape[2:])
