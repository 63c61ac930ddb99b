"""channels_last: convolutional nets train in 0.7 to 0.8 of the time with channels innermost.

The same sums in another order: results differ from those of the usual order in rounding, and are
repeated by the same recipe, machine and thread count as ever. Models are handed on as they came.
https://docs.pytorch.org/tutorials/intermediate/memory_format_tutorial.html
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from pruning.adapted import Adapted
from pruning.evidence import evaluating
from pruning.evidence.attention import blocks
from pruning.types import Inputs

CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)

TOLERANCE = 1e-3
"""Relative. Rounding of a whole network in single precision is a hundred times less."""


def pays(model: nn.Module, x: Inputs, batch: int) -> bool:
    """Whether training on batches like `x` is faster with channels innermost, and the same.

    x: (n, channels, height, width). Decided by sizes and never by a clock, so that a run repeats:
    the activations of a batch must outnumber the weights of the convolutions, which are brought
    into order in every step. A single convolution before attention or mixing saves nothing.
    The model is left as found.
    """
    weights = _weights(model)
    # Of several inputs, or through casts, an order of memory is not followed.
    if isinstance(x, tuple) or isinstance(model, Adapted) or x.dim() != 4:
        return False
    if len(weights) < 2 or blocks(model):
        return False
    # Weights that share memory would be torn apart by giving each a memory of its own.
    parameters = list(model.parameters())
    memory = {parameter.untyped_storage().data_ptr() for parameter in parameters}
    if len(memory) < len(parameters):
        return False
    few = x[:2]
    with torch.random.fork_rng(devices=[]):
        activations = _activations(model, few) / len(few) * batch
        if activations < sum(weight.numel() for weight in weights):
            return False
        return _same(model, few)


@contextmanager
def channels_last(model: nn.Module, active: bool) -> Iterator[torch.memory_format]:
    """The convolutions' weights with channels innermost, for a while; gives the inputs' format.

    active: False leaves all as it is.
    """
    if not active:
        yield torch.contiguous_format
        return
    try:
        _arrange(model, torch.channels_last)
        yield torch.channels_last
    finally:
        _arrange(model, torch.contiguous_format)


def _arrange(model: nn.Module, order: torch.memory_format) -> None:
    for weight in _weights(model):
        # `to`, because `contiguous` leaves the strides of (n, 1, 3, 3), which lies in both orders,
        # and by its strides a convolution chooses its own.
        weight.data = weight.data.to(memory_format=order)


def _weights(model: nn.Module) -> list[nn.Parameter]:
    """The weights of two-dimensional convolutions, each once."""
    weights: dict[int, nn.Parameter] = {}
    for module in model.modules():
        if isinstance(module, CONVOLUTIONS):
            # Not by getattr: a parametrised weight is computed when it is read.
            weight = module._parameters.get("weight")
            if weight is not None:
                weights[id(weight)] = weight
    return list(weights.values())


def _activations(model: nn.Module, x: Tensor) -> int:
    """Numbers that the convolutions give for these examples."""
    counted = 0

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal counted
        counted += output.numel()

    layers = [module for module in model.modules() if isinstance(module, CONVOLUTIONS)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    try:
        with evaluating(model), torch.no_grad():
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return counted


def _same(model: nn.Module, x: Tensor) -> bool:
    """Whether a copy trains in this order, and answers as the model does.

    `x.view(len(x), -1)` after a convolution, for one, refuses channels that lie innermost.
    """
    copied = copy.deepcopy(model)
    try:
        with channels_last(copied, True) as order:
            inside = x.to(memory_format=order)
            copied.train()
            # One example alone has no variance for BatchNorm: without two, nothing is risked.
            copied(inside).sum().backward()
            copied.load_state_dict(model.state_dict())
            with evaluating(model), evaluating(copied), torch.no_grad():
                return torch.allclose(model(x), copied(inside), rtol=TOLERANCE, atol=TOLERANCE)
    except (RuntimeError, ValueError, TypeError, AttributeError):
        return False
