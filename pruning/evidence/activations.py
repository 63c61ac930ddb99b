"""What goes in and out of each weight while the model runs, seen below autograd: whoever uses a weight is seen, a module or a bare
function, tied or packed, and no hook is left behind."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from pruning.evidence.attention import no_fused_attention
from pruning.types import prunable

CHUNK = 2**24
"""Numbers of unfolded input held at once, at most: 64 MB."""


@dataclass(frozen=True)
class Layout:
    """How a weight is a stack of matrices (groups, rows, inputs): all rows of a group read the same inputs.

    groups: of a grouped convolution, or 3 for packed queries, keys and values. transposed: of a transposed convolution, (in, out, k...).
    """

    groups: int = 1
    transposed: bool = False

    def matrices(self, weight: Tensor) -> Tensor:
        """The weight's shape -> (groups, rows, inputs)."""
        if not self.transposed:
            return weight.reshape(self.groups, len(weight) // self.groups, -1)
        turned = weight.reshape(self.groups, -1, *weight.shape[1:]).transpose(
            1, 2
        )  # (groups, out, in, k...)
        return turned.flip(tuple(range(3, turned.dim()))).flatten(2)

    def weight(self, matrices: Tensor, shape: Sequence[int]) -> Tensor:
        """The way back."""
        if not self.transposed:
            return matrices.reshape(shape)
        turned = matrices.reshape(*matrices.shape[:2], shape[0] // self.groups, *shape[2:])
        return turned.flip(tuple(range(3, turned.dim()))).transpose(1, 2).reshape(shape)


def layouts(model: nn.Module) -> dict[str, Layout]:
    """Prunable parameter name -> its layout."""
    kinds = {}
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        kinds[f"{prefix}weight"] = Layout(
            getattr(module, "groups", 1), "Transpose" in type(module).__name__
        )
        kinds[f"{prefix}in_proj_weight"] = Layout(3)
    return {name: kinds.get(name, Layout()) for name in prunable(model)}


@dataclass(frozen=True)
class WeightUse:
    """A weight at work on one batch. groups: of its layout, that work here; given: what it reads; out: what it gives.

    given is (n, inputs) for a matrix, (n, channels, ...) for a convolution, whose further arguments are in `convolution`.
    """

    name: str
    groups: slice
    given: Tensor
    out: Tensor
    convolution: tuple[Any, ...] = ()

    def inputs(self, shape: Sequence[int]) -> Iterator[Tensor]:
        """(positions, groups, inputs), a few examples at a time: each row of the weight's matrices is multiplied with these."""
        if not self.convolution:
            yield self.given.unsqueeze(1)
            return
        stride, padding, dilation, transposed, _, groups = self.convolution
        kernel = shape[2:]
        step = max(
            1, CHUNK // max(1, self.out[0, 0].numel() * self.given.shape[1] * math.prod(kernel))
        )
        for x in torch.split(self.given, step):
            if transposed:
                x = _spaced(x, kernel, stride, padding, dilation, self.out.shape[2:])
                yield _unfolded(x, kernel, [1] * len(kernel), [0] * len(kernel), dilation, groups)
            else:
                yield _unfolded(x, kernel, stride, padding, dilation, groups)


def _unfolded(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """(n, channels, ...) -> (n · positions, groups, channels / groups · kernel)."""
    x = nn.functional.pad(x, [side for p in reversed(list(padding)) for side in (p, p)])
    for dim, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=True)):
        x = x.unfold(2 + dim, (k - 1) * d + 1, s)[..., ::d]
    axes, kernel_size = len(kernel), math.prod(kernel)
    x = x.permute(
        0, *range(2, 2 + axes), 1, *range(2 + axes, 2 + 2 * axes)
    )  # (n, positions..., channels, kernel...)
    return x.reshape(-1, groups, x.shape[axes + 1] // groups * kernel_size)


def _spaced(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    size: Sequence[int],
) -> Tensor:
    """The input of a transposed convolution, zeros set between its values, so that a plain convolution gives `size` outputs."""
    wide = x.new_zeros(
        *x.shape[:2], *(n + (k - 1) * d for n, k, d in zip(size, kernel, dilation, strict=True))
    )
    place = wide
    for dim, (n, k, s, p, d) in enumerate(
        zip(x.shape[2:], kernel, stride, padding, dilation, strict=True)
    ):
        first = (k - 1) * d - p
        low = (
            max(0, -(first // s)) if first < 0 else 0
        )  # inputs that fall off the edge when the padding is wide
        high = min(n, low + -(-(wide.shape[2 + dim] - first - low * s) // s))
        x = x.narrow(2 + dim, low, high - low)
        place = place.narrow(2 + dim, first + low * s, (high - low - 1) * s + 1)
        place = place[(slice(None),) * (2 + dim) + (slice(None, None, s),)]
    place.copy_(x)
    return wide


class WatchWeights(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Calls `see` for each use of a covered weight. A mode, because modules hide what functions do with their weights."""

    def __init__(self, model: nn.Module, see: Callable[[WeightUse], None]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.see, self.layouts = see, layouts(model)
        self.places = [
            (w.data_ptr(), w.numel() * w.element_size(), name, w)
            for name, w in prunable(model).items()
        ]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        match func._overloadpacket.__name__:
            case "mm":
                self._matrix(args[0], args[1], out)
            case "addmm":
                self._matrix(args[1], args[2], out)
            case "convolution":
                found = self._find(args[1])
                if found:
                    self.see(WeightUse(found[0], slice(None), args[0], out, tuple(args[3:9])))
        return out

    def _matrix(self, given: Tensor, weight: Tensor, out: Tensor) -> None:
        found = self._find(weight)
        if (
            not found or weight.shape[0] != found[1].shape[1]
        ):  # not the weight transposed: gradients and the like
            return
        name, whole, offset = found
        groups = self.layouts[name].groups
        each = len(whole) // groups
        first = offset // (whole.element_size() * whole.shape[1]) // each
        self.see(WeightUse(name, slice(first, first + weight.shape[1] // each), given, out))

    def _find(self, weight: Tensor) -> tuple[str, Tensor, int] | None:
        """The covered weight that this one is, or is rows of; and how many bytes into it."""
        at = weight.data_ptr()
        return next(
            (
                (name, w, at - start)
                for start, size, name, w in self.places
                if start <= at < start + size
            ),
            None,
        )


@contextmanager
def math_attention() -> Iterator[None]:
    """Attention by its plain formula: fused kernels hide their weights, and have no second derivative."""
    with no_fused_attention(), sdpa_kernel(SDPBackend.MATH):
        yield


# ---------------------------------------------------------------- what becomes of outputs

PASSING = {
    "view",
    "_unsafe_view",
    "clone",
    "contiguous",
    "max_pool2d_with_indices",
    "avg_pool2d",
    "max_pool1d",
    "max_pool3d_with_indices",
}
NORMS = {
    "native_batch_norm",
    "_native_batch_norm_legit_no_training",
    "_batch_norm_no_update",
    "cudnn_batch_norm",
}
BENDING = {
    "relu",
    "gelu",
    "silu",
    "hardtanh",
    "hardswish",
    "hardsigmoid",
    "sigmoid",
    "tanh",
    "leaky_relu",
    "elu",
    "mish",
    "softplus",
    "clamp_min",
}


class TrackOutputs(WatchWeights):  # type: ignore[no-untyped-call]
    """Follows each weight's output through BatchNorm and sums up to the function that bends it.

    scales: name -> the BatchNorm scale that multiplies its outputs; last: name -> its output as the next layer reads it.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, self._start)
        self.scales: dict[str, Tensor] = {}
        self.last: dict[str, Tensor] = {}
        self._flat: set[int] = (
            set()
        )  # ids of tensors whose units are in the last dimension, not in the second
        self._of: dict[
            int, tuple[Tensor, set[str], bool]
        ] = {}  # id -> the tensor (so that no other takes its id), owners, still its own

    def _start(self, use: WeightUse) -> None:
        if not use.convolution:
            self._flat.add(id(use.out))
        self.last[use.name] = use.out
        self._of[id(use.out)] = (use.out, {use.name}, True)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        came = [
            self._of[id(arg)] for arg in args if isinstance(arg, Tensor) and id(arg) in self._of
        ]
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if not came:
            return out
        kind, got = (
            func._overloadpacket.__name__.removesuffix("_"),
            out[0] if isinstance(out, tuple) else out,
        )
        owners: set[str] = set().union(*(names for _, names, _ in came))
        alone = all(mine for *_, mine in came)
        gamma = args[1] if kind in NORMS and alone else None
        if isinstance(gamma, Tensor):
            self.scales |= {name: gamma.detach() for name in owners}
        if kind in BENDING:
            self.last |= {name: got for name in owners}
            for tensor, *_ in came:
                self._of.pop(id(tensor), None)
        elif kind in PASSING | NORMS | {"add"} and isinstance(got, Tensor):
            other = [arg for arg in args if isinstance(arg, Tensor) and id(arg) not in self._of]
            alone = (
                alone and len(came) == 1 and (kind != "add" or all(arg.dim() <= 1 for arg in other))
            )
            alone = alone and _same_units(came[0][0], got, self._flat)
            if alone:
                self.last |= {name: got for name in owners}
            self._of[id(got)] = (got, owners, alone)
        return out


def _same_units(before: Tensor, after: Tensor, flat: set[int]) -> bool:
    """Whether a step left the units where they were; heads that are split apart, or pictures laid flat, are no longer the layer's units."""
    if id(before) in flat:
        flat.add(id(after))
        return after.shape[-1] == before.shape[-1]
    return after.dim() == before.dim() and after.shape[1] == before.shape[1]
