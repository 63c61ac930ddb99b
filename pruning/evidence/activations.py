"""Activations: inputs and outputs of each weight while the model runs.

Recorded below autograd, by the operations themselves: a weight is found whoever uses it, a module
or a bare function, tied or packed, and no hook is left behind.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from pruning.evidence.attention import no_fused_attention
from pruning.types import named_weights

CHUNK = 2**24
"""Numbers of unfolded input in memory at once, at most: 64 MB."""


@dataclass(frozen=True)
class Layout:
    """How a weight is a stack of matrices (groups, rows, inputs).

    All rows of a group read the same inputs.
    groups: of a grouped convolution, or 3 for packed queries, keys and values
    transposed: of a transposed convolution, (in, out / groups, k...)
    """

    groups: int = 1
    transposed: bool = False

    def matrices(self, weight: Tensor) -> Tensor:
        """The weight's shape -> (groups, rows, inputs)."""
        if not self.transposed:
            return weight.reshape(self.groups, len(weight) // self.groups, -1)
        grouped = weight.reshape(self.groups, -1, *weight.shape[1:])
        turned = grouped.transpose(1, 2)  # (groups, out, in, k...)
        # a transposed convolution is a plain one with its kernel turned round
        return turned.flip(tuple(range(3, turned.dim()))).flatten(2)

    def weight(self, matrices: Tensor, shape: Sequence[int]) -> Tensor:
        """(groups, rows, inputs) -> the weight's shape: `matrices` undone."""
        if not self.transposed:
            return matrices.reshape(shape)
        turned = matrices.reshape(*matrices.shape[:2], shape[0] // self.groups, *shape[2:])
        return turned.flip(tuple(range(3, turned.dim()))).transpose(1, 2).reshape(shape)


def layouts(model: nn.Module) -> dict[str, Layout]:
    """Prunable parameter name -> its layout."""
    known = {}
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        transposed = "Transpose" in type(module).__name__
        known[f"{prefix}weight"] = Layout(getattr(module, "groups", 1), transposed)
        known[f"{prefix}in_proj_weight"] = Layout(3)
    return {name: known.get(name, Layout()) for name in named_weights(model)}


# ---------------------------------------------------------------- what a weight reads


@dataclass(frozen=True)
class WeightUse:
    """A weight at work on one batch.

    groups: of its layout, that work here
    input: (n, inputs) for a matrix, (n, channels, ...) for a convolution
    convolution: stride, padding, dilation, transposed, output padding and groups; () for a matrix
    """

    name: str
    groups: slice
    input: Tensor
    output: Tensor
    convolution: tuple[Any, ...] = ()

    def inputs(self, shape: Sequence[int]) -> Iterator[Tensor]:
        """(positions, groups, inputs), a few examples at a time. shape: of the weight.

        Each row of the weight's matrices is multiplied with these.
        """
        if not self.convolution:
            yield self.input.unsqueeze(1)
            return
        stride, padding, dilation, transposed, _, groups = self.convolution
        kernel = shape[2:]
        # unfolding copies each input once for every place of the kernel that reads it
        positions = self.output[0, 0].numel()
        unfolded = positions * self.input.shape[1] * math.prod(kernel)
        for x in torch.split(self.input, max(1, CHUNK // max(1, unfolded))):
            if transposed:
                x = _spread_out(x, kernel, stride, padding, dilation, self.output.shape[2:])
                ones, zeros = [1] * len(kernel), [0] * len(kernel)
                yield _unfolded(x, kernel, ones, zeros, dilation, groups)
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
    """(n, channels, ...) -> (n · positions, groups, channels / groups · kernel).

    As nn.functional.unfold, which has only two dimensions.
    """
    # `pad` wants both sides of the last dimension first
    sides = [side for p in reversed(list(padding)) for side in (p, p)]
    x = nn.functional.pad(x, sides)
    for dim, (k, s, d) in enumerate(zip(kernel, stride, dilation, strict=True)):
        x = x.unfold(2 + dim, (k - 1) * d + 1, s)[..., ::d]
    axes = len(kernel)
    positions, places = range(2, 2 + axes), range(2 + axes, 2 + 2 * axes)
    x = x.permute(0, *positions, 1, *places)  # (n, positions..., channels, kernel...)
    return x.reshape(-1, groups, x.shape[axes + 1] // groups * math.prod(kernel))


def _spread_out(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    size: Sequence[int],
) -> Tensor:
    """The input of a transposed convolution with zeros between its values.

    A plain convolution of it, without stride or padding, gives `size` outputs.
    """
    reach = [(k - 1) * d for k, d in zip(kernel, dilation, strict=True)]
    wide = x.new_zeros(*x.shape[:2], *(n + r for n, r in zip(size, reach, strict=True)))
    target = wide  # a view of `wide`: where the inputs go
    for axis, (n, r, s, p) in enumerate(zip(x.shape[2:], reach, stride, padding, strict=True)):
        dim = 2 + axis
        first = r - p
        # inputs that fall off an edge when the padding is wide are cut
        low = max(0, -(first // s)) if first < 0 else 0
        start = first + low * s
        high = min(n, low + -(-(wide.shape[dim] - start) // s))
        x = x.narrow(dim, low, high - low)
        target = target.narrow(dim, start, (high - low - 1) * s + 1)
        target = target[(slice(None),) * dim + (slice(None, None, s),)]
    target.copy_(x)
    return wide


class WatchWeights(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Calls `record` for each use of a prunable weight.

    A dispatch mode, because modules hide what functions do with their weights.
    """

    def __init__(self, model: nn.Module, record: Callable[[WeightUse], object]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._record = record
        self._layouts = layouts(model)
        self._weights = named_weights(model)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        match func._overloadpacket.__name__:
            case "mm":
                self._matrix(args[0], args[1], out)
            case "addmm":
                self._matrix(args[1], args[2], out)
            case "linear":  # where a device has it whole (mps)
                rows = args[0].reshape(-1, args[0].shape[-1])
                self._matrix(rows, args[1].T, out.reshape(len(rows), -1))
            case "convolution":
                weight = self._find(args[1])
                if weight is not None:
                    how = tuple(args[3:9])
                    self._record(WeightUse(weight[0], slice(None), args[0], out, how))
        return out

    def _matrix(self, x: Tensor, weight: Tensor, out: Tensor) -> None:
        """x @ weight, where that is a prunable weight, or some of its rows, transposed."""
        place = self._find(weight)
        if place is None:
            return
        name, whole, offset = place
        # anything else than the transposed weight is a gradient or the like
        if weight.shape[0] != whole.shape[1]:
            return
        group_rows = len(whole) // self._layouts[name].groups
        first_row = offset // (whole.element_size() * whole.shape[1])
        first = first_row // group_rows
        groups = slice(first, first + weight.shape[1] // group_rows)
        self._record(WeightUse(name, groups, x, out))

    def _find(self, weight: Tensor) -> tuple[str, Tensor, int] | None:
        """The prunable weight that this one is, or is rows of; and how many bytes into it."""
        for name, whole in self._weights.items():
            offset = weight.data_ptr() - whole.data_ptr()
            if 0 <= offset < whole.numel() * whole.element_size():
                return name, whole, offset
        return None


@contextmanager
def math_attention() -> Iterator[None]:
    """Attention by its plain formula: fused kernels hide their weights and derive only once."""
    with no_fused_attention(), sdpa_kernel(SDPBackend.MATH):
        yield


# ---------------------------------------------------------------- outputs, as they are read

# names of torch's own operations, without the _ of the variants that write in place
PASS_THROUGH = {
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
NONLINEARITIES = {
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


class _Tracked(NamedTuple):
    """A tensor made of outputs of weights.

    The tensor itself is kept so that no other gets its id. own: whether it is one weight's alone,
    its units where they were.
    """

    tensor: Tensor
    owners: set[str]
    own: bool


class TrackOutputs(WatchWeights):  # type: ignore[no-untyped-call]
    """Follows each weight's output through BatchNorm and sums up to its nonlinearity.

    scales: name -> the BatchNorm scale that multiplies its outputs, (out,)
    activations: name -> its output as the next layer reads it
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__(model, self._start)
        self.scales: dict[str, Tensor] = {}
        self.activations: dict[str, Tensor] = {}
        self._tracked: dict[int, _Tracked] = {}  # by id
        # ids of tensors whose units are in the last dimension, not in the second
        self._units_last: set[int] = set()

    def _start(self, use: WeightUse) -> None:
        if not use.convolution:
            self._units_last.add(id(use.output))
        self.activations[use.name] = use.output
        self._tracked[id(use.output)] = _Tracked(use.output, {use.name}, True)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [arg for arg in args if isinstance(arg, Tensor)]
        sources = [self._tracked[id(arg)] for arg in tensors if id(arg) in self._tracked]
        out = super().__torch_dispatch__(func, types, args, kwargs)
        if not sources:
            return out
        operation = func._overloadpacket.__name__.removesuffix("_")
        result: Any = out[0] if isinstance(out, tuple) else out
        owners = {name for source in sources for name in source.owners}
        own = all(source.own for source in sources)
        if operation in NORMS and own and isinstance(args[1], Tensor):
            self.scales |= dict.fromkeys(owners, args[1].detach())
        if operation in NONLINEARITIES:
            self.activations |= dict.fromkeys(owners, result)
            # what follows is the next layer's business
            for source in sources:
                self._tracked.pop(id(source.tensor), None)
        elif operation in PASS_THROUGH | NORMS | {"add"} and isinstance(result, Tensor):
            others = [arg for arg in tensors if id(arg) not in self._tracked]
            if operation == "add":
                # a bias leaves the units as they are, a shortcut does not
                own = own and all(other.dim() <= 1 for other in others)
            own = own and len(sources) == 1
            own = own and self._same_units(sources[0].tensor, result)
            if own:
                self.activations |= dict.fromkeys(owners, result)
            self._tracked[id(result)] = _Tracked(result, owners, own)
        return out

    def _same_units(self, before: Tensor, after: Tensor) -> bool:
        """Whether a step left the units where they were.

        Heads that are split apart, or pictures laid flat, are no longer the layer's units.
        """
        if id(before) in self._units_last:
            self._units_last.add(id(after))
            return after.shape[-1] == before.shape[-1]
        return after.dim() == before.dim() and after.shape[1] == before.shape[1]
