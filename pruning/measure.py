"""A model, measured: accuracy with its interval, weights, MACs, bytes, latency with its spread."""

from __future__ import annotations

import json
import statistics
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pruning.events import Accuracy, Latency, Layer, Measurement, Size
from pruning.evidence import evaluating
from pruning.types import PRUNED_KINDS, Batches, Loss, Workpiece, prunable


def measure(work: Workpiece, split: str = "test", *, latency: bool = True) -> Measurement:
    """Everything that can be measured of `work.model`, on one split of its data (None where there is no data)."""
    data: Batches | None = getattr(work, split)
    accuracy, loss = evaluate(work.model, data, work.loss) if data is not None else (None, None)
    layers = layer_counts(work.model, work.example)
    weights = prunable(work.model)
    return Measurement(
        accuracy=accuracy,
        loss=loss,
        weights=sum(w.numel() for w in weights.values()),
        kept=sum(layer.kept for layer in layers),
        parameters=sum(p.numel() for p in work.model.parameters()),
        macs=sum(layer.macs for layer in layers) if work.example is not None else None,
        macs_kept=sum(layer.macs_kept for layer in layers) if work.example is not None else None,
        size=size(work.model),
        latency=latencies([work.model], work.example)[0] if latency and work.example is not None else None,
        layers=layers,
    )


@torch.inference_mode()
def evaluate(model: nn.Module, data: Batches, loss: Loss) -> tuple[Accuracy, float]:
    """Right answers and mean loss over `data`, in eval mode; the model's modes are put back."""
    correct, total = 0, 0.0
    with evaluating(model):
        for x, y in data:
            out = model(x)
            correct += int((out.argmax(1) == y).sum())
            total += float(loss(out, y)) * len(x)
    return Accuracy(correct, len(data.x)), total / len(data.x)


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
        with evaluating(model), torch.no_grad(), _slow_attention():
            model(_fit(example[:1], model))
    finally:
        for hook in hooks:
            hook.remove()
    return [(name, times, shapes[name]) for name, times in uses.items()]


def _fit(example: Tensor, model: nn.Module) -> Tensor:
    """The example in the model's precision."""
    kind = next((p.dtype for p in model.parameters() if p.is_floating_point()), example.dtype)
    return example.to(kind) if example.is_floating_point() else example


@contextmanager
def _slow_attention() -> Iterator[None]:
    """Fused encoder layers skip their submodules, and then no hook sees them."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _times(module: nn.Module, given: Tensor, output: Any) -> int:
    out = output[0] if isinstance(output, tuple) else output
    if isinstance(module, nn.Linear | nn.MultiheadAttention):
        return int(out.numel() // out.shape[-1])
    spatial = given if "Transpose" in type(module).__name__ else out
    return int(np.prod(spatial.shape[2:], dtype=np.int64))


def dense_bytes(model: nn.Module) -> int:
    """Bytes of the model's state as a safetensors file."""
    state = model.state_dict()
    head, offset = {}, 0
    for name in sorted(state, key=lambda name: (-state[name].element_size(), name)):  # the order of the format
        value = state[name]
        size = value.numel() * value.element_size()
        head[name] = {"dtype": "F32", "shape": list(value.shape), "data_offsets": [offset, offset + size]}
        offset += size
    text = json.dumps(head, separators=(",", ":"))
    return 8 + -(-len(text) // 8) * 8 + offset


def size(model: nn.Module) -> Size:
    """Bytes of the state: dense, with pruned weights as bits and values, and that deflated (zlib, level 6)."""
    covered = {id(weight): name for name, weight in prunable(model).items()}
    names = {name for name, p in model.named_parameters(remove_duplicate=False) if id(p) in covered}
    packed, payload, plain = 0, [], dense_bytes(model)
    for name, value in model.state_dict().items():
        array = value.detach().reshape(-1).contiguous().view(torch.uint8).numpy()
        if name in names:
            keep = (value != 0).flatten()
            if -(-keep.numel() // 8) + int(keep.sum()) * value.element_size() < array.nbytes:
                parts = [np.packbits(keep.numpy()).tobytes(), value.detach().flatten()[keep].view(torch.uint8).numpy().tobytes()]
                packed += array.nbytes - sum(map(len, parts))
                payload += parts
                continue
        payload.append(array.tobytes())
    return Size(plain, plain - packed, len(zlib.compress(b"".join(payload), 6)) + plain - _payload(model))


def _payload(model: nn.Module) -> int:
    return sum(v.numel() * v.element_size() for v in model.state_dict().values())


def latencies(models: Sequence[nn.Module], example: Tensor, *, batch: int = 1, passes: int = 30, budget: float = 2.0) -> list[Latency]:
    """Milliseconds of a forward pass of each model, interleaved A B A B so that all meet the same machine.

    Warm-up first; at most `budget` seconds for each model, at least 5 passes. On the threads torch has now.
    """
    x = _fit(example[:1].expand(batch, *example.shape[1:]).contiguous(), models[0])
    times: list[list[float]] = [[] for _ in models]
    with _many_evaluating(models), torch.inference_mode():
        for model in models:
            for _ in range(3):
                model(x)
        began = time.perf_counter()
        while len(times[0]) < passes and (len(times[0]) < 5 or time.perf_counter() - began < budget * len(models)):
            for model, taken in zip(models, times, strict=True):
                start = time.perf_counter()
                model(x)
                taken.append((time.perf_counter() - start) * 1000)
    return [_quartiles(taken, batch) for taken in times]


@contextmanager
def _many_evaluating(models: Sequence[nn.Module]) -> Iterator[None]:
    with evaluating(nn.ModuleList(models)):
        yield


def _quartiles(taken: list[float], batch: int) -> Latency:
    low, median, high = statistics.quantiles(taken, n=4)
    return Latency(median, low, high, torch.get_num_threads(), batch, len(taken))
