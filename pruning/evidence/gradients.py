"""Derivatives of the loss by the prunable weights: first, squared by example, second. Each leaves the model alone: it is called with
copies of its weights."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from pruning.types import Batches, Loss

Named = dict[str, Tensor]

CHUNK = 2**26
"""Per-example gradients held at once, at most: 256 MB."""


def gradient(
    model: nn.Module, weights: Named, data: Batches, loss: Loss, temperature: float = 1.0
) -> Named:
    """Of the mean loss over `data`; outputs are divided by `temperature` first."""
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    with torch.enable_grad():
        for x, y in data:
            parts = _grad(loss(functional_call(model, leaves, (x,)) / temperature, y), leaves)
            _add(total, parts, len(x) / len(data.x))
    return total


def curved(
    model: nn.Module,
    weights: Named,
    data: Batches,
    loss: Loss,
    direction: Callable[[], Named],
    temperature: float = 1.0,
) -> tuple[Named, Named]:
    """Hessian of the mean loss, times directions: means over batches of (direction ⊙ H·direction, H·direction).

    direction: called for each batch.
    """
    leaves = {name: weight.clone().requires_grad_() for name, weight in weights.items()}
    diagonal, product = (
        {name: torch.zeros_like(weight) for name, weight in weights.items()} for _ in range(2)
    )
    with torch.enable_grad():
        for x, y in data:
            along = direction()
            slopes = _grad(
                loss(functional_call(model, leaves, (x,)) / temperature, y),
                leaves,
                create_graph=True,
            )
            dot = sum(((slopes[name] * along[name]).sum() for name in leaves), torch.zeros(()))
            bent = _grad(dot, leaves) if dot.requires_grad else {}
            _add(product, bent, len(x) / len(data.x))
            _add(
                diagonal,
                {name: part * along[name] for name, part in bent.items()},
                len(x) / len(data.x),
            )
    return diagonal, product


def moments(model: nn.Module, weights: Named, data: Batches, loss: Loss) -> tuple[Named, Named]:
    """Means over examples of the size and of the square of the gradient of each example's own loss."""

    def one(leaves: Named, x: Tensor, y: Tensor) -> Tensor:
        found: Tensor = loss(functional_call(model, leaves, (x[None],)), y[None])
        return found

    return _moments(one, weights, data, lambda x, y: y)


def gauss_newton(
    model: nn.Module, weights: Named, data: Batches, probes: int, chance: torch.Generator
) -> Named:
    """Diagonal of the Gauss-Newton matrix of the mean cross-entropy, E[Jᵀ (diag p − ppᵀ) J], which is also the true Fisher matrix's.

    diag p − ppᵀ = BBᵀ with B = diag √p − p √pᵀ, so each probe asks for the squared gradient of (B·signs)·outputs;
    all classes in turn, and so exactly, when there are no more of them than probes.
    """
    with torch.no_grad():
        classes = model(data.x[:1]).shape[1]
    exact = classes <= probes
    total = {name: torch.zeros_like(weight) for name, weight in weights.items()}

    def one(leaves: Named, x: Tensor, signs: Tensor) -> Tensor:
        out = functional_call(model, leaves, (x[None],))[0]
        p = out.detach().softmax(0)
        found: Tensor = ((p.sqrt() * signs - p * (p.sqrt() * signs).sum()) * out).sum()
        return found

    for i in range(classes if exact else probes):

        def signs(x: Tensor, y: Tensor, i: int = i) -> Tensor:
            if exact:
                return nn.functional.one_hot(torch.full((len(x),), i), classes).to(x.dtype)
            return torch.randint(0, 2, (len(x), classes), generator=chance).to(x.dtype) * 2 - 1

        _add(total, _moments(one, weights, data, signs)[1], 1.0 if exact else 1 / probes)
    return total


def signs(weights: Named, chance: torch.Generator) -> Named:
    """+1 or −1 for each weight."""
    return {
        name: torch.randint(0, 2, w.shape, generator=chance).to(w.dtype) * 2 - 1
        for name, w in weights.items()
    }


def _moments(
    one: Callable[[Named, Tensor, Tensor], Tensor],
    weights: Named,
    data: Batches,
    second: Callable[[Tensor, Tensor], Tensor],
) -> tuple[Named, Named]:
    """Mean size and square of the gradients of `one(weights, x, second)`, as many examples at once as memory is meant to hold."""
    sizes, squares = (
        {name: torch.zeros_like(weight) for name, weight in weights.items()} for _ in range(2)
    )
    leaves = {name: weight.clone() for name, weight in weights.items()}
    size = max(1, min(data.batch, CHUNK // sum(w.numel() for w in weights.values())))
    for x, y in Batches(data.x, data.y, size):
        parts = _each(one, leaves, x, second(x, y))
        _add(sizes, {name: part.abs().sum(0) for name, part in parts.items()}, 1 / len(data.x))
        _add(squares, {name: part.square().sum(0) for name, part in parts.items()}, 1 / len(data.x))
    return sizes, squares


def _each(
    one: Callable[[Named, Tensor, Tensor], Tensor], leaves: Named, x: Tensor, y: Tensor
) -> Named:
    """The gradient of each example, (n, ...): all at once, or one after the other where the model decides by what it sees."""
    try:
        found: Named = vmap(grad(one), in_dims=(None, 0, 0))(leaves, x, y)
    except RuntimeError:
        single = [grad(one)(leaves, *pair) for pair in zip(x, y, strict=True)]
        found = {name: torch.stack([part[name] for part in single]) for name in leaves}
    return found


def _grad(value: Tensor, leaves: Named, *, create_graph: bool = False) -> Named:
    """Zeros for leaves that the value does not depend on."""
    parts = torch.autograd.grad(
        value, list(leaves.values()), allow_unused=True, create_graph=create_graph
    )
    return {
        name: torch.zeros_like(leaf) if part is None else part
        for (name, leaf), part in zip(leaves.items(), parts, strict=True)
    }


def _add(total: Named, parts: Named, share: float) -> None:
    for name, part in parts.items():
        total[name] += part.detach() * share
