"""Weights and multiply-accumulates, by prunable layer; which layer runs last, and what each gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pruning.evidence import evaluating
from pruning.evidence.attention import no_fused_attention
from pruning.metrics import Layer
from pruning.types import PRUNED_KINDS, Workpiece, prunable


def layer_counts(model: nn.Module, example: Tensor | None) -> tuple[Layer, ...]:
    """Non-zero weights and the MACs they cause, by prunable layer."""
    used = positions(model, example) if example is not None else {}
    found = []
    for name, weight in prunable(model).items():
        total, kept, times = weight.numel(), int(weight.detach().count_nonzero()), used.get(name, 0)
        found.append(Layer(name, total, kept, total * times, kept * times))
    return tuple(found)


def macs(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Prunable parameter name -> multiply-accumulates of one example, dense."""
    used = positions(model, example)
    return {name: weight.numel() * used.get(name, 0) for name, weight in prunable(model).items()}


def positions(model: nn.Module, example: Tensor) -> dict[str, int]:
    """Prunable parameter name -> how often each of its weights is used for one example (1 for a plain linear layer)."""
    return {name: times for name, times, _ in _watched(model, example)}


def output_layer(work: Workpiece) -> str | None:
    """The prunable weight whose layer gives the model's outputs; the last one where it cannot be watched."""
    names = list(prunable(work.model))
    if work.example is None:
        return names[-1]
    order = [name for name, _, _ in _watched(work.model, work.example)]
    return order[-1] if order else names[-1]


def output_shapes(model: nn.Module, example: Tensor) -> dict[str, tuple[int, ...]]:
    """Prunable parameter name -> the shape of what its layer gives for one example."""
    return {name: shape for name, _, shape in _watched(model, example)}


def _watched(model: nn.Module, example: Tensor) -> list[tuple[str, int, tuple[int, ...]]]:
    """(name, uses, output shape) of each prunable weight, in the order they finish, over one example."""
    owners = {id(weight): name for name, weight in prunable(model).items()}
    uses: dict[str, int] = {}
    shapes: dict[str, tuple[int, ...]] = {}

    def seen(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        for key in ("weight", "in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"):
            weight = getattr(module, key, None)
            name = owners.get(id(weight))
            if name is None:
                continue
            uses[name] = uses.pop(name, 0) + _times(module, inputs[0], output)
            shapes[name] = tuple((output[0] if isinstance(output, tuple) else output).shape[1:])

    kinds = (*PRUNED_KINDS, nn.MultiheadAttention)
    hooks = [m.register_forward_hook(seen) for m in model.modules() if isinstance(m, kinds)]
    try:
        with evaluating(model), torch.no_grad(), no_fused_attention():
            model(fit(example[:1], model))
    finally:
        for hook in hooks:
            hook.remove()
    return [(name, times, shapes[name]) for name, times in uses.items()]


def fit(example: Tensor, model: nn.Module) -> Tensor:
    """The example in the model's precision."""
    kind = next((p.dtype for p in model.parameters() if p.is_floating_point()), example.dtype)
    return example.to(kind) if example.is_floating_point() else example


def _times(module: nn.Module, given: Tensor, output: Any) -> int:
    out = output[0] if isinstance(output, tuple) else output
    if isinstance(module, nn.Linear | nn.MultiheadAttention):
        return int(out.numel() // out.shape[-1])
    spatial = given if "Transpose" in type(module).__name__ else out
    return int(np.prod(spatial.shape[2:], dtype=np.int64))
