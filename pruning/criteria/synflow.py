"""SynFlow: keep the paths. A weight's score is the share of all flow through the network that passes through it.

|θ · ∂R/∂θ| with R = 1ᵀ ∏ |θ| 1, removed over many rounds, Tanaka et al., 2020, https://arxiv.org/abs/2006.05467
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pruning.errors import ModelError
from pruning.evidence import Evidence, frozen_eval
from pruning.registry import criterion
from pruning.types import Scores

LAST = 1e-3
"""Share of the weights that the rounds end at; what is left then is ranked by its flow."""

MIXING = (
    nn.LayerNorm,
    nn.GroupNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.MultiheadAttention,
)


@criterion(
    group="weights",
    needs="example",
    cost="one backward pass of one example in each round",
    granularities=("weight", "kernel", "row", "column", "block", "n_of_m", "channel"),
    why="it follows paths of positive numbers, and attention weighs its paths by a softmax",
)
def synflow(seen: Evidence, *, rounds: int = 100) -> Scores:
    """Remove the weights that carry least of the flow, a few at a time, so that no layer closes. Looks at no data.

    rounds: of removing and looking again; with 1 the score is the flow itself, with more it is the place in the order of removal.
    """
    if any(isinstance(module, MIXING) for module in seen.model.modules()):
        raise ModelError(
            "SynFlow adds up paths of positive numbers, and this model's norms subtract a mean: choose magnitude or snip."
        )
    for kind in (torch.float32, torch.float64):  # the flow of a deep network outgrows the first
        model, left = (
            positive(seen.model, kind),
            {name: w.to(kind).abs() for name, w in seen.weights.items()},
        )
        flow = flows(model, left, seen.example)
        if all(torch.isfinite(f).all() for f in flow.values()) and any(
            f.any() for f in flow.values()
        ):
            break
    if rounds <= 1:
        return {name: values.float() for name, values in flow.items()}
    sizes = [w.numel() for w in left.values()]
    total = sum(sizes)
    gone_in = torch.full((total,), rounds)
    value = torch.cat([f.flatten() for f in flow.values()])
    for step in range(1, rounds):
        keep = max(1, round(total * LAST ** (step / (rounds - 1))))
        open_ = (gone_in == rounds).nonzero().flatten()
        if len(open_) > keep:
            gone_in[open_[_lowest(value[open_], len(open_) - keep)]] = step
        alive = [
            part.reshape(w.shape)
            for part, w in zip(torch.split(gone_in == rounds, sizes), left.values(), strict=True)
        ]
        flow = flows(
            model,
            {name: w * a for (name, w), a in zip(left.items(), alive, strict=True)},
            seen.example,
        )
        now = torch.cat([f.flatten() for f in flow.values()])
        value = torch.where(gone_in == rounds, now, value)
    return _places(gone_in, value, left)


def _lowest(values: Tensor, count: int) -> Tensor:
    """Places of the lowest, ties in order: faster than sorting them all, a hundred times over."""
    line = values.kthvalue(count).values
    below, ties = (values < line).nonzero().flatten(), (values == line).nonzero().flatten()
    return torch.cat([below, ties[: count - len(below)]])


def flows(model: nn.Module, weights: dict[str, Tensor], example: Tensor) -> dict[str, Tensor]:
    """θ · ∂R/∂θ, all weights positive and the input all ones; divided by R, which would grow beyond any number with depth."""
    leaves = {name: w.clone().requires_grad_() for name, w in weights.items()}
    with frozen_eval(model), torch.enable_grad():
        ones = torch.ones_like(example, dtype=next(iter(leaves.values())).dtype)
        total = functional_call(model, leaves, (ones,)).sum()
        parts = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    whole = total.detach().clamp_min(torch.finfo(total.dtype).tiny)
    found = zip(weights.items(), parts, strict=True)
    return {
        name: torch.zeros_like(w) if part is None else w * part / whole for (name, w), part in found
    }


def positive(model: nn.Module, kind: torch.dtype = torch.float64) -> nn.Module:
    """A copy through which only positive numbers flow: parameters by their size, no biases, BatchNorm as a plain scale."""
    copied = copy.deepcopy(model).to(kind)
    with torch.no_grad():
        for module in copied.modules():
            for name, parameter in module.named_parameters(recurse=False):
                parameter.zero_() if name.endswith("bias") else parameter.abs_()
            if isinstance(getattr(module, "running_mean", None), Tensor):
                module.running_mean.zero_()  # type: ignore[operator]
    return copied


def _places(gone_in: Tensor, value: Tensor, like: dict[str, Tensor]) -> Scores:
    """Each weight's place in the order of removal, from 0 up to, not including, 1: by round, then by flow."""
    by_value = value.argsort(stable=True)
    order = by_value[gone_in[by_value].argsort(stable=True)]
    places = torch.empty(len(order), dtype=torch.float32)
    places[order] = torch.arange(len(order), dtype=torch.float32) / len(order)
    parts = torch.split(places, [w.numel() for w in like.values()])
    return {
        name: part.reshape(w.shape) for (name, w), part in zip(like.items(), parts, strict=True)
    }
