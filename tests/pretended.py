"""A pretended accelerator, for machines that have none: tensors that lie on the CPU and say that
they do not.

    with pretended() as device:
        work = on_device(toy("residual"), device)

Everything runs, backward passes and data-dependent steps too, with the CPU's own numbers; but what
would fail on a real device fails here: an operation over tensors of both, `.numpy()` of one that
was not brought to the CPU, a constant made in the wrong place. By torch's own way for backends
written in Python (torch.utils.backend_registration).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

NAME = "pretended"
ACROSS = {"copy_", "_to_copy"}
"""Operations that bring numbers from one device to another."""
INDEXED = {"index", "index_put_", "index_put", "_index_put_impl_", "_unsafe_index"}
"""Operations that take indices of the CPU too."""


class Pretended(Tensor):
    """A tensor on the pretended device. inner: where its numbers really are."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Pretended:
        # Never of inference mode: torch cannot make views of such wrappers.
        with torch.inference_mode(False):
            made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
                cls,
                inner.size(),
                strides=inner.stride(),
                storage_offset=inner.storage_offset(),
                dtype=inner.dtype,
                layout=inner.layout,
                device=torch.device(NAME, 0),
            )
        made.inner = inner
        return made

    def numpy(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("a tensor of a device has no numpy array: call .cpu() first")

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        return self.numpy()

    # Where numbers lie is asked for, to tell tied weights.
    def untyped_storage(self) -> Any:
        return self.inner.untyped_storage()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def tolist(self) -> Any:
        return self.inner.tolist()

    def __deepcopy__(self, memo: dict[int, Any]) -> Tensor:
        if id(self) not in memo:
            copied = Pretended(self.inner.detach().clone()).requires_grad_(self.requires_grad)
            if getattr(self, "_is_param", False):
                copied._is_param = True  # type: ignore[attr-defined]
            memo[id(self)] = copied
        return memo[id(self)]  # type: ignore[no-any-return]

    def __repr__(self, **kwargs: Any) -> str:
        return f"Pretended({self.inner!r})"

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _called(func, args, kwargs or {})


class _Pretending(TorchDispatchMode):
    """In which tensors are made on the pretended device: functions that read none have no class."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        read = any(issubclass(kind, Pretended) for kind in types)
        if read or _is_ours(kwargs.get("device")):
            return _called(func, args, kwargs)
        return func(*args, **kwargs)


class _Making(TorchFunctionMode):
    """torch.tensor goes past dispatch modes: made on the CPU, and brought over."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.tensor, torch.as_tensor) and _is_ours(kwargs.get("device")):
            return func(*args, **{**kwargs, "device": "cpu"}).to(kwargs["device"])
        if func is torch.unravel_index and isinstance(args[0], Pretended):  # it makes such tensors
            return tuple(map(Pretended, func(args[0].inner, *args[1:], **kwargs)))
        return func(*args, **kwargs)


def _is_ours(device: Any) -> bool:
    return device is not None and torch.device(device).type == NAME


def _called(func: Any, args: Any, kwargs: Any) -> Any:
    """An operation on the CPU's numbers, where all that it reads lies on one device."""
    name = func._overloadpacket.__name__
    tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
    there = [tensor for tensor in tensors if isinstance(tensor, Pretended)]
    # Numbers without a dimension are taken from anywhere, as CUDA does.
    here = [tensor for tensor in tensors if not isinstance(tensor, Pretended) and tensor.dim()]
    if name in INDEXED:  # the indices are a list, and may lie on the CPU
        here = [tensor for tensor in here if any(tensor is arg for arg in args)]
    if there and here and name not in ACROSS:
        raise RuntimeError(f"Expected all tensors to be on the same device: {func}")
    if name == "index" and not isinstance(args[0], Pretended):
        raise RuntimeError("indices should be either on cpu or on the same device as the tensor")
    out = func(*tree_map(_inner, args), **tree_map(_inner, kwargs))
    if func._schema.is_mutable and isinstance(args[0], Tensor):
        # What it wrote into is what it gives back, the same object.
        return args[0] if isinstance(out, Tensor) else out
    ours = _is_ours(kwargs["device"]) if kwargs.get("device") is not None else bool(there)
    return tree_map(_outer, out) if ours else out


def _inner(value: Any) -> Any:
    if isinstance(value, Pretended):
        return value.inner
    return torch.device("cpu") if isinstance(value, torch.device) else value


def _outer(value: Any) -> Any:
    return Pretended(value) if isinstance(value, Tensor) else value


@cache
def _register() -> None:
    # Late: this is private to torch, and only these tests need it.
    from torch.utils import backend_registration as backends

    class Nothing(backends._DummyBackendModule):  # type: ignore[name-defined]
        def device_count(self) -> int:
            return 0  # so that no generators of it are kept by tests that know nothing of it

    backends._setup_privateuseone_for_python_backend(NAME, Nothing())


@contextmanager
def pretended() -> Iterator[torch.device]:
    """The pretended device, for a while."""
    _register()
    # Parameters are exchanged in place, as CUDA's are: tied ones stay tied.
    before = torch.__future__.get_swap_module_params_on_conversion()
    torch.__future__.set_swap_module_params_on_conversion(True)
    try:
        # Backward passes in this thread: torch starts its threads for devices with the first one of
        # a process, which may have been before this device was known.
        alone = torch.autograd.set_multithreading_enabled(False)
        with alone, _Pretending(), _Making():
            yield torch.device(NAME, 0)
    finally:
        torch.__future__.set_swap_module_params_on_conversion(before)
