"""Bytes: of the file, of what travels, and in memory while an example passes."""

from __future__ import annotations

import math
import weakref
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from pruning.evidence import evaluating
from pruning.measurement.counts import fit
from pruning.measurement.sparse_file import entropy, write
from pruning.metrics import Memory, Size, sparse_bytes
from pruning.storage import safetensors_header
from pruning.types import prunable


def dense_bytes(model: nn.Module) -> int:
    """Bytes of the model's state as a safetensors file."""
    state = model.state_dict()
    # The library's own order: the widest numbers first, then by name.
    tensors = sorted(state.items(), key=lambda item: (-item[1].element_size(), item[0]))
    # Any dtype's name will do: only the header's length counts, and their lengths are alike.
    rows = [(name, "F32", value.shape, value.nbytes) for name, value in tensors]
    data: int = sum(size for *_, size in rows)
    return len(safetensors_header(rows)) + data


def size(model: nn.Module) -> Size:
    """Bytes of the state as files, each a real file's length but for `sparse` and `limit`, which are counted."""
    state, names = model.state_dict(), _covered(model)
    dense = dense_bytes(model)
    payload = sum(v.numel() * v.element_size() for v in state.values())
    packed = limit = 0.0
    for name, value in state.items():
        plain, width = value.numel() * value.element_size(), value.element_size()
        kept = int(value.count_nonzero()) if name in names else value.numel()
        packed += sparse_bytes(value.numel(), kept, width) if name in names else plain
        limit += min(plain, entropy(kept, value.numel()) / 8 + kept * width)
    coded = len(write(state, names))
    return Size(
        dense=dense,
        sparse=dense - payload + int(packed),
        compressed=min(coded, len(write(state, names, deflate=True))),
        entropy_coded=coded,
        limit=math.ceil(limit),
    )


def _covered(model: nn.Module) -> set[str]:
    """Names in the state that techniques may prune, tied ones under each of their names."""
    weights = {id(weight) for weight in prunable(model).values()}
    return {name for name, p in model.named_parameters(remove_duplicate=False) if id(p) in weights}


# ---------------------------------------------------------------- memory


def memory(model: nn.Module, example: Tensor | None) -> Memory:
    """What lies in memory at run time: the weights, zeros too, and at most so much else."""
    held = {
        t.untyped_storage().data_ptr(): t.untyped_storage().nbytes()
        for t in (*model.parameters(), *model.buffers())
    }
    return Memory(
        sum(held.values()), peak_activations(model, example) if example is not None else None
    )


def peak_activations(model: nn.Module, example: Tensor) -> int:
    """Most bytes of tensors alive at once in one pass of one example, the input included, parameters and buffers not."""
    x = fit(example[:1].clone(), model)
    alive = _Alive((*model.parameters(), *model.buffers()))
    with evaluating(model), torch.no_grad(), alive:
        alive.meet(x)
        model(x)
    return alive.most


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Follows every operation's outputs until Python and torch have let go of them. Views share their storage and count once."""

    def __init__(self, known: tuple[Tensor, ...]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.most = 0, 0
        self._known = {t.untyped_storage().data_ptr() for t in known}
        self._holders: dict[int, int] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self.meet(leaf)
        return out

    def meet(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if place in self._known or not size:
            return
        if place not in self._holders:
            self._holders[place] = 0
            self.now += size
            self.most = max(self.most, self.now)
        self._holders[place] += 1
        weakref.finalize(tensor, self._leave, place, size)

    def _leave(self, place: int, size: int) -> None:
        self._holders[place] -= 1
        if not self._holders[place]:
            del self._holders[place]
            self.now -= size
