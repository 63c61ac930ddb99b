"""Derivatives of the loss by the prunable weights: first, squared by example, second (Hessian).

Each leaves the model alone: it is called with copies of its weights.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, grad_and_value, vmap

from pruning.tasks import class_dimension
from pruning.types import Batches, Inputs, Loss, count, take

Named = dict[str, Tensor]
"""Parameter name -> a tensor of its shape."""

ExampleLoss = Callable[[Named, Inputs, Any], Tensor]
"""(weights, one example, what belongs to it) -> a scalar."""

CHUNK, CHUNK_THERE = 2**26, 2**28
"""Per-example gradients in memory at once, at most: 256 MB; on an accelerator, which needs many at
once to have something to do, 1 GB.
"""


def gradient(
    model: nn.Module, weights: Named, data: Batches, loss: Loss, temperature: float = 1.0
) -> Named:
    """Of the mean loss over `data`; outputs are divided by `temperature` first."""
    leaves = _leaves(weights)
    total = _zeros(weights)
    with torch.enable_grad():
        for x, y in data:
            outputs = functional_call(model, leaves, (x,)) / temperature
            slopes = _grad(loss(outputs, y), leaves)
            # batches may differ in size: each counts by its share of the examples
            _add(total, slopes, len(y) / data.examples)
    return total


def hessian_product(
    model: nn.Module,
    weights: Named,
    data: Batches,
    loss: Loss,
    direction: Callable[[], Named],
    temperature: float = 1.0,
) -> tuple[Named, Named]:
    """Hessian of the mean loss, times directions v: means over batches of (v ⊙ Hv, Hv).

    direction: called for each batch; outputs are divided by `temperature` first.
    """
    leaves = _leaves(weights)
    diagonal = _zeros(weights)
    product = _zeros(weights)
    with torch.enable_grad():
        for x, y in data:
            v = direction()
            outputs = functional_call(model, leaves, (x,)) / temperature
            slopes = _grad(loss(outputs, y), leaves, create_graph=True)
            # Hv is the gradient of g · v (Pearlmutter, 1994); H itself is never built
            dots = ((slopes[name] * v[name]).sum() for name in leaves)
            dot = sum(dots)
            assert isinstance(dot, Tensor)
            # a loss that is linear in every weight has no second derivative
            hv = _grad(dot, leaves) if dot.requires_grad else {}
            vhv = {name: part * v[name] for name, part in hv.items()}
            share = len(y) / data.examples
            _add(product, hv, share)
            _add(diagonal, vhv, share)
    return diagonal, product


def gradient_moments(
    model: nn.Module, weights: Named, data: Batches, loss: Loss
) -> tuple[Named, Named]:
    """Means over examples of |g| and g², g the gradient of each example's own loss."""
    return _moments(example_loss(model, loss), weights, data, lambda y: y)


def gauss_newton(
    model: nn.Module,
    weights: Named,
    data: Batches,
    loss: Loss,
    probes: int,
    generator: torch.Generator,
) -> Named:
    """Diagonal of the Gauss-Newton matrix of the mean loss, E[Jᵀ H J], H its Hessian by outputs.

    For cross-entropy H = diag p − ppᵀ, and the diagonal is the true Fisher matrix's too. It is BBᵀ
    with B = diag √p − p √pᵀ, so each probe asks for the squared gradient of (B·signs)·outputs: all
    classes in turn, and so exactly, when there are no more of them than probes. Targets that are a
    class for each pixel or token have such an H for each of them, over their number; for other
    targets H is taken for diagonal, as it is for losses that add up over outputs, and B = √H.
    """
    kind = next(iter(weights.values())).dtype
    with torch.no_grad():
        outputs = model(take(data.x, slice(1)))
    along = class_dimension(outputs, data.y[:1])

    def projected(leaves: Named, x: Inputs, second: tuple[Tensor, Tensor]) -> Tensor:
        signs, y = second
        outputs = functional_call(model, leaves, (take(x, None),))
        fixed = outputs.detach()
        if along is None:
            slope = grad(lambda values: loss(values, y[None]))
            curvature = grad(lambda values: slope(values).sum())(fixed)
            scaled: Tensor = curvature.clamp_min(0).sqrt() * signs[None] * outputs
            return scaled.sum()
        p = fixed.softmax(along)
        rooted = p.sqrt() * signs[None]
        direction = rooted - p * rooted.sum(along, keepdim=True)
        answers = outputs.numel() // outputs.shape[along]
        value: Tensor = (direction * outputs).sum() / math.sqrt(answers)
        return value

    shape = tuple(outputs.shape[1:])
    if along == 1 and outputs.dim() == 2 and shape[0] <= probes:
        directions = [partial(_one_class, i, shape[0], kind) for i in range(shape[0])]
        share = 1.0
    else:
        directions = [partial(_output_signs, generator, shape, kind)] * probes
        share = 1 / probes
    total = _zeros(weights)
    for direction in directions:
        _, squares = _moments(projected, weights, data, direction)
        _add(total, squares, share)
    return total


def _one_class(index: int, classes: int, kind: torch.dtype, y: Tensor) -> tuple[Tensor, Tensor]:
    """(n, classes): 1 for one class, 0 for all others; and the targets."""
    indices = torch.full((len(y),), index, device=y.device)
    return nn.functional.one_hot(indices, classes).to(kind), y


def _output_signs(
    generator: torch.Generator, shape: tuple[int, ...], kind: torch.dtype, y: Tensor
) -> tuple[Tensor, Tensor]:
    """(n, *shape): +1 or −1 at random; and the targets."""
    return _signs((len(y), *shape), kind, generator, y.device), y


def random_signs(weights: Named, generator: torch.Generator) -> Named:
    """+1 or −1 for each weight."""
    return {name: _signs(w.shape, w.dtype, generator, w.device) for name, w in weights.items()}


def _signs(
    shape: tuple[int, ...], dtype: torch.dtype, generator: torch.Generator, device: torch.device
) -> Tensor:
    # Drawn on the CPU, so that every device gets the same ones.
    signs = torch.randint(0, 2, shape, generator=generator, device="cpu")
    return signs.to(device, dtype) * 2 - 1


# ---------------------------------------------------------------- one example at a time


def example_loss(model: nn.Module, loss: Loss) -> ExampleLoss:
    """The loss of one example, as a function of the weights."""

    def value(leaves: Named, x: Inputs, y: Tensor) -> Tensor:
        # the model and the loss take batches: a batch of one
        return loss(functional_call(model, leaves, (take(x, None),)), y[None])

    return value


class PerExampleGradients:
    """Gradients of single examples, all at once where torch can (vmap), else one after another.

    A class because it learns which on the first call.
    """

    def __init__(self, value: ExampleLoss) -> None:
        self._single = grad_and_value(value)
        self._mapped = True

    def __call__(self, leaves: Named, x: Inputs, y: Inputs) -> tuple[Named, Tensor]:
        """(parameter name -> (n, *shape), values (n,))."""
        if self._mapped:
            try:
                mapped = vmap(self._single, in_dims=(None, 0, 0))
                gradients, values = mapped(leaves, x, y)
            except Exception:  # control flow on values, or an operation that vmap does not know
                self._mapped = False
            else:
                return gradients, values
        singles = [self._single(leaves, take(x, i), take(y, i)) for i in range(count(y))]
        stacked = {}
        for name in leaves:
            stacked[name] = torch.stack([gradients[name] for gradients, _ in singles])
        return stacked, torch.stack([value for _, value in singles])


def _moments(
    value: ExampleLoss,
    weights: Named,
    data: Batches,
    second: Callable[[Tensor], Inputs],
) -> tuple[Named, Named]:
    """Means of |g| and g², g each example's gradient of `value(weights, x, second(y))`."""
    sizes = _zeros(weights)
    squares = _zeros(weights)
    leaves = {name: weight.clone() for name, weight in weights.items()}
    gradients = PerExampleGradients(value)
    share = 1 / data.examples
    # as many examples at once as their gradients have room for
    on_cpu = all(w.device.type == "cpu" for w in weights.values())
    chunk = CHUNK if on_cpu else CHUNK_THERE
    room = chunk // sum(w.numel() for w in weights.values())
    for x, y in Batches(data.x, data.y, max(1, min(data.batch, room))):
        parts, _ = gradients(leaves, x, second(y))
        # (n, *shape) each, with a graph where the model has parameters beside the weights
        _add(sizes, {name: part.abs().sum(0) for name, part in parts.items()}, share)
        _add(squares, {name: part.square().sum(0) for name, part in parts.items()}, share)
    return sizes, squares


# ---------------------------------------------------------------- sums


def _leaves(weights: Named) -> Named:
    """Copies to derive by."""
    return {name: weight.clone().requires_grad_() for name, weight in weights.items()}


def _zeros(weights: Named) -> Named:
    return {name: torch.zeros_like(weight) for name, weight in weights.items()}


def _grad(value: Tensor, leaves: Named, *, create_graph: bool = False) -> Named:
    """Zeros for leaves that the value does not depend on."""
    parts = torch.autograd.grad(
        value,
        list(leaves.values()),
        create_graph=create_graph,
        materialize_grads=True,
        allow_unused=True,
    )
    return dict(zip(leaves, parts, strict=True))


def _add(total: Named, parts: Named, share: float) -> None:
    for name, part in parts.items():
        total[name] += part.detach() * share
