"""SynFlow: keep the paths. A weight's score is its share of all flow through the network.

|θ · ∂R/∂θ| with R = 1ᵀ ∏ |θ| 1, removed over many rounds, Tanaka et al., 2020,
https://arxiv.org/abs/2006.05467
"""

from __future__ import annotations

import copy
import math
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.func import functional_call

from pruning.errors import ModelError
from pruning.evidence import Evidence, frozen_eval
from pruning.ranges import Range
from pruning.registry import criterion
from pruning.types import Scores

LAST = 1e-3
"""Share of the weights that the rounds end at; those that remain are ranked by their flow."""

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
    gradients=(30, "rounds"),
    cost="one backward pass of one example in each round",
    granularities=("weight", "kernel", "row", "column", "block", "n_of_m", "channel"),
    why="it follows paths of positive numbers, and attention weighs its paths by a softmax",
)
def synflow(
    seen: Evidence,
    *,
    rounds: Annotated[int, Range(1, 10_000)] = 100,
    target: Annotated[float, Range(0.001, 0.9999)] = 0.9,
) -> Scores:
    """Remove the weights that carry least of the flow, a few at a time, so that no layer closes.

    Looks at no data.

    rounds: of removing and scoring again, until the target; with 1 the score is the flow itself,
        with more it is the place in the order of removal.
    target: sparsity that the rounds reach, each removing the same share of what remains. There the
        order is the paper's: set it to the recipe's sparsity. Up to twice as many rounds go on
        down to a thousandth of the weights, so that the order serves other sparsities too, if with
        other steps than the paper's.
    """
    if any(isinstance(module, MIXING) for module in seen.model.modules()):
        raise ModelError(
            "SynFlow adds up paths of positive numbers, and this model's norms subtract a mean: "
            "choose magnitude or snip."
        )
    example = seen.example
    if not isinstance(example, Tensor) or not example.is_floating_point():
        what = "several inputs" if isinstance(example, tuple) else "inputs of whole numbers"
        raise ModelError(
            f"SynFlow sends ones through a model, and this one takes {what}: choose magnitude or "
            "snip."
        )
    for dtype in (torch.float32, torch.float64):  # the flow of a deep network outgrows the first
        model = positive(seen.model, dtype)
        weights = {name: w.to(dtype).abs() for name, w in seen.weights.items()}
        flow = _flat(flows(model, weights, example))
        if torch.isfinite(flow).all() and flow.any():
            break
    if rounds <= 1:
        return _shaped(flow.float(), weights)
    total = len(flow)
    counts = _kept_by_round(total, rounds, target)
    end = len(counts) + 1
    # a weight that is kept to the end has `end`
    removed_in = torch.full((total,), end, device=flow.device)
    for step, keep in enumerate(counts, start=1):
        remaining = (removed_in == end).nonzero().flatten()
        if len(remaining) > keep:
            lowest = _lowest(flow[remaining], len(remaining) - keep)
            removed_in[remaining[lowest]] = step
        masks = _shaped(removed_in == end, weights)
        masked = {name: w * masks[name] for name, w in weights.items()}
        now = _flat(flows(model, masked, example))
        # a removed weight keeps the flow that it was removed for
        flow = torch.where(removed_in == end, now, flow)
    return _shaped(_places(removed_in, flow), weights)


def _kept_by_round(total: int, rounds: int, target: float) -> list[int]:
    """Weights kept after each round: (1 − target)^(round / rounds) of all up to the target.

    From there to LAST of them at the same rate, or faster where that takes over twice the rounds.
    """
    density = 1 - target
    shares = [density ** (step / rounds) for step in range(1, rounds + 1)]
    if density > LAST:
        more = min(2 * rounds, math.ceil(rounds * math.log(LAST / density, density)))
        shares += [density * (LAST / density) ** (step / more) for step in range(1, more + 1)]
    kept = [max(1, round(total * share)) for share in shares]
    # A round for each count: one that removes nothing would score the same again.
    return list(dict.fromkeys(kept))


def _flat(tensors: dict[str, Tensor]) -> Tensor:
    return torch.cat([tensor.flatten() for tensor in tensors.values()])


def _shaped(flat: Tensor, like: dict[str, Tensor]) -> dict[str, Tensor]:
    """`_flat` undone."""
    parts = torch.split(flat, [w.numel() for w in like.values()])
    named = zip(like.items(), parts, strict=True)
    return {name: part.reshape(w.shape) for (name, w), part in named}


def _lowest(values: Tensor, count: int) -> Tensor:
    """Places of the lowest, ties in order: faster than sorting them all in each round."""
    threshold = values.kthvalue(count).values
    below = (values < threshold).nonzero().flatten()
    ties = (values == threshold).nonzero().flatten()
    return torch.cat([below, ties[: count - len(below)]])


def flows(model: nn.Module, weights: dict[str, Tensor], example: Tensor) -> dict[str, Tensor]:
    """θ · ∂R/∂θ, all weights positive and the input all ones.

    Divided by R, which would grow beyond any number with depth.
    """
    leaves = {name: w.clone().requires_grad_() for name, w in weights.items()}
    with frozen_eval(model), torch.enable_grad():
        ones = torch.ones_like(example, dtype=next(iter(leaves.values())).dtype)
        total = functional_call(model, leaves, (ones,)).sum()
        parts = torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
    whole = total.detach().clamp_min(torch.finfo(total.dtype).tiny)
    flow = {}
    for (name, w), part in zip(weights.items(), parts, strict=True):
        # a weight that the output does not depend on carries none
        flow[name] = torch.zeros_like(w) if part is None else w * part / whole
    return flow


def positive(model: nn.Module, kind: torch.dtype = torch.float64) -> nn.Module:
    """A copy through which only positive numbers flow.

    Parameters by their size, no biases, BatchNorm as a plain scale.
    """
    copied = copy.deepcopy(model).to(kind)
    with torch.no_grad():
        for module in copied.modules():
            for name, parameter in module.named_parameters(recurse=False):
                if name.endswith("bias"):
                    parameter.zero_()
                else:
                    parameter.abs_()
            if isinstance(getattr(module, "running_mean", None), Tensor):
                module.running_mean.zero_()  # type: ignore[operator]
    return copied


def _places(removed_in: Tensor, flow: Tensor) -> Tensor:
    """Each weight's place in the order of removal, by round, then by flow: in [0, 1)."""
    by_flow = flow.argsort(stable=True)
    # stable: within a round the order by flow remains
    order = by_flow[removed_in[by_flow].argsort(stable=True)]
    ranks = torch.arange(len(order), dtype=torch.float32, device=flow.device)
    places = torch.empty_like(ranks)
    places[order] = ranks / len(order)
    return places
