"""Any model as one that takes what `Batches.x` holds and gives one tensor.

Several inputs, inputs in another precision, several outputs and half precision are seen to here,
once, so that whatever runs a model says `model(x)`. The same modules, tensors and names: an adapted
model shares everything with the one that it is made from.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn

from pruning.errors import ModelError
from pruning.tasks import HALF, main_output
from pruning.types import Inputs, Outputs, parts_of, unwrapped


class Adapted:
    """In front of a model's own class: what it is called with, and what it gives.

    own: that class; pick: what it gives -> one tensor.
    """

    own: type[nn.Module]
    pick: Outputs

    def forward(self, *inputs: Any) -> Tensor:
        """One tensor, a tuple of them, or several -> one, in float32 or more."""
        if len(inputs) == 1 and isinstance(inputs[0], tuple):
            inputs = inputs[0]
        model = cast(nn.Module, self)
        kind = precision(model)
        returned = self.own.forward(self, *(fit_to(x, kind) for x in inputs))
        out = type(self).pick(returned)
        # Half precision is for what models do; losses, softmax and metrics are taken in float32.
        return out.float() if isinstance(out, Tensor) and out.dtype in HALF else out

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        # By the model's own way: recorded graphs have one, which knows nothing of this class.
        copied = copy.deepcopy(unadapted(cast(nn.Module, self)), memo)
        return adapted(copied, type(self).pick)


def adapted(model: nn.Module, outputs: Outputs | None = None) -> nn.Module:
    """The same model, taking tuples and other precisions, and giving one tensor.

    outputs: picks it; None: `main_output`. What is done to one is done to the other.
    Raises ModelError for a model whose forward was replaced on the object.
    """
    if isinstance(model, Adapted):
        model = unadapted(model)
    if "forward" in vars(model):
        raise ModelError(
            f"{type(model).__name__}.forward was replaced on the object itself, and cannot be "
            "called in another way: undo that (accelerate: remove_hook_from_module(model, "
            "recurse=True)), or write a module whose forward takes one tensor and gives one."
        )
    own = type(model)
    body = {"own": own, "pick": staticmethod(outputs or _picked), "__module__": own.__module__}
    return _shell(model, type(own.__name__, (Adapted, own), body))


def everything(returned: Any) -> Any:
    """All that a model gives: an `outputs` for who has a look at it."""
    return returned


def adapted_like(model: nn.Module, other: nn.Module) -> nn.Module:
    """The model, called and read as another one is: a compact model as the one it is made of."""
    return adapted(model, type(other).pick) if isinstance(other, Adapted) else model


def unadapted(model: nn.Module) -> nn.Module:
    """The model as its class has it: for who records its graph, or hands it out."""
    return _shell(model, model.own) if isinstance(model, Adapted) else model


def _shell(model: nn.Module, kind: type[nn.Module]) -> nn.Module:
    """Another object of that class over the same modules, parameters, modes and hooks."""
    shell = object.__new__(kind)
    object.__setattr__(shell, "__dict__", vars(model))
    return shell


def _picked(returned: object) -> Tensor:
    out = main_output(returned)
    if out is None:
        raise ModelError(
            f"The model gives a {type(returned).__name__}, in which nothing is known to be what a "
            "loss is taken of: say which with Workpiece(outputs=...), a function of it."
        )
    return out


# ---------------------------------------------------------------- precision


def precision(model: nn.Module) -> torch.dtype | None:
    """Of the first parameter that is no whole number; None where there is none."""
    kinds = (p.dtype for p in model.parameters() if p.is_floating_point())
    return next(kinds, None)


def fit_to(x: Any, kind: torch.dtype | None) -> Any:
    """An input in that precision; whole numbers, token ids say, are left as they are."""
    if kind is None or not isinstance(x, Tensor) or not x.is_floating_point():
        return x
    return x.to(kind)


def as_it_is(model: nn.Module, example: Inputs) -> tuple[nn.Module, Inputs]:
    """The model as its class has it, out of its wrappers, and the example in its precision."""
    model = unadapted(unwrapped(model))
    kind = precision(model)
    fitted = tuple(fit_to(part, kind) for part in parts_of(example))
    return model, fitted if isinstance(example, tuple) else fitted[0]


def is_half(model: nn.Module) -> bool:
    """Whether any parameter or buffer is of half precision."""
    return any(tensor.dtype in HALF for tensor in (*model.parameters(), *model.buffers()))


class Widened:
    """Models in half precision that are in float32 inside, and rounded outside; others are left.

    Sums, solutions and the small steps of training are lost in half precision. A class because it
    keeps what the tensors were.
    """

    def __init__(self, *models: nn.Module) -> None:
        self.models = models

    def __enter__(self) -> Widened:
        self.kinds = widen(*self.models)
        return self

    def __exit__(self, *error: object) -> None:
        for tensor, kind in self.kinds:
            tensor.data = tensor.data.to(kind)

    @contextmanager
    def rounded(self) -> Iterator[None]:
        """Rounded for a while; what was rounded away is there again afterwards."""
        wide = [tensor.data for tensor, _ in self.kinds]
        self.__exit__()
        try:
            yield
        finally:
            for (tensor, _), value in zip(self.kinds, wide, strict=True):
                tensor.data = value


def widen(*models: nn.Module) -> list[tuple[Tensor, torch.dtype]]:
    """Half precision to float32, in place: the tensors that were, and what they were."""
    tensors = [tensor for model in models for tensor in (*model.parameters(), *model.buffers())]
    kinds = [(tensor, tensor.dtype) for tensor in tensors if tensor.dtype in HALF]
    for tensor, _ in kinds:
        tensor.data = tensor.data.float()
    return kinds


def wide_copy(model: nn.Module) -> nn.Module:
    """The model itself, or a copy in float32 of one in half precision."""
    if not is_half(model):
        return model
    copied = copy.deepcopy(model)
    widen(copied)
    return copied
