"""Bytes: of the file, dense and sparse, and in memory while an example passes."""

from __future__ import annotations

import math
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pruning.devices import device_of, peak_bytes
from pruning.evidence import evaluating
from pruning.measurement import sparse_file
from pruning.measurement.counts import fit
from pruning.metrics import Memory, Size
from pruning.types import Inputs, named_weights, take


def dense_bytes(model: nn.Module) -> int:
    """Bytes of the model's state as a safetensors file."""
    return sparse_file.dense_bytes(model.state_dict())


def size(model: nn.Module) -> Size:
    """Bytes of the state as files. Each is a real file's length but for `limit`, the yardstick."""
    # Files are written by the CPU: brought there once, for all that is counted below.
    state = {name: value.cpu() for name, value in model.state_dict().items()}
    pruned = prunable_names(model)
    limit = 0.0
    for name, value in state.items():
        total = value.numel()
        width = value.element_size()
        kept = int(value.count_nonzero()) if name in pruned else total
        limit += min(value.nbytes, sparse_file.entropy(kept, total) / 8 + kept * width)
    return Size(
        dense=sparse_file.dense_bytes(state),
        sparse=sparse_file.length(state, pruned),
        compressed=len(sparse_file.compressed(state, pruned)),
        limit=math.ceil(limit),
    )


def prunable_names(model: nn.Module) -> set[str]:
    """Names in the state that criteria may prune, tied ones under each of their names."""
    weights = {id(weight) for weight in named_weights(model).values()}
    return {name for name, p in model.named_parameters(remove_duplicate=False) if id(p) in weights}


# ---------------------------------------------------------------- memory


def memory(model: nn.Module, example: Inputs | None) -> Memory:
    """What lies in memory at run time: the weights, zeros too, and at most so much else."""
    # by address: tied parameters share one storage
    storages = {}
    for tensor in (*model.parameters(), *model.buffers()):
        storage = tensor.untyped_storage()
        storages[storage.data_ptr()] = storage.nbytes()
    weights = sum(storages.values())
    if example is None:
        return Memory(weights, None)
    there = device_of(model)
    x = fit(take(example, slice(1)), model)
    with evaluating(model), torch.no_grad():
        scratch = peak_bytes(lambda: model(*x), there)
    device = None if scratch is None else weights + scratch
    return Memory(weights, peak_activations(model, example), device)


def peak_activations(model: nn.Module, example: Inputs) -> int:
    """Most bytes of tensors in memory at once in one pass of one example.

    The input is counted, parameters and buffers are not.
    """
    x = tuple(part.clone() for part in fit(take(example, slice(1)), model))
    tracker = _TrackMemory((*model.parameters(), *model.buffers()))
    with evaluating(model), torch.no_grad(), tracker:
        for part in x:
            tracker.add(part)
        model(*x)
    return tracker.peak


class _TrackMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts every operation's outputs until Python and torch have let go of them.

    Views share their storage and count once. A dispatch mode, since functions have no hooks.
    """

    def __init__(self, ignored: tuple[Tensor, ...]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._bytes = 0
        self._ignored = {t.untyped_storage().data_ptr() for t in ignored}
        # address of a storage -> how many tensors use it
        self._users: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.add(leaf)
        return out

    def add(self, tensor: Tensor) -> None:
        """Count a tensor from now until it is freed."""
        storage = tensor.untyped_storage()
        address, size = storage.data_ptr(), storage.nbytes()
        if address in self._ignored or not size:
            return
        if address not in self._users:
            self._users[address] = 0
            self._bytes += size
            self.peak = max(self.peak, self._bytes)
        self._users[address] += 1
        weakref.finalize(tensor, self._free, address, size)

    def _free(self, address: int, size: int) -> None:
        self._users[address] -= 1
        if not self._users[address]:
            del self._users[address]
            self._bytes -= size
