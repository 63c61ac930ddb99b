"""Reconstruction error: remove the channel that the layers reading it can best do without.

½ tr(W_c [H⁻¹]_cc⁻¹ W_cᵀ), the rest moved by −W_c [H⁻¹]_cc⁻¹ H⁻¹_c:, with H = XXᵀ of the reader's
inputs and c all inputs of one channel; then the next channel, of what remains. As Optimal Brain
Compression does for single weights, Frantar & Alistarh, 2022, https://arxiv.org/abs/2208.11580;
choosing channels so: ThiNet, Luo et al., 2017, https://arxiv.org/abs/1707.06342
"""

from __future__ import annotations

from typing import Annotated

import torch
from torch import Tensor

from pruning.criteria import _obs_solver, obs
from pruning.devices import double
from pruning.evidence import Evidence
from pruning.ranges import Range
from pruning.registry import criterion
from pruning.types import Scores

TURNS = 64
"""Removals of a layer, at most: where it reads more channels, several go at once."""


@criterion(
    group="activations",
    needs="data",
    gradients=(3000,),
    cost="a forward pass over 1,024 examples, then inputs³ for each layer: seconds for small "
    "models, minutes for large ones; made for recipes that reconstruct",
    skips=True,
    reads=True,
    granularities=("channel", "head", "column"),
    why="it asks what a layer loses with one of its inputs, and gives all weights that read the "
    "input one score",
)
def reconstruction(seen: Evidence, *, damping: Annotated[float, Range(1e-9, 100)] = 0.01) -> Scores:
    """Remove the channels whose readers lose least when all others are solved anew.

    Greedy: the others are solved after each removal, before the next is chosen. A channel that
    several layers read scores the sum of what each of them loses, over the size of its outputs.
    Together with reconstruct in the recipe, which then solves the weights so.

    damping: share of H's mean diagonal added to its diagonal; more trusts the examples less.
    """
    scores = {name: torch.zeros_like(w) for name, w in seen.weights.items()}
    for name, grams in seen.grams(leave=skips(seen)):
        layout, w = seen.layouts[name], seen.weights[name]
        matrices = layout.matrices(w)  # (groups, rows, inputs)
        size = matrices.shape[2] // _channels(name, seen)
        parts = []
        for rows, gram in zip(matrices, grams, strict=True):
            lost = greedy(rows, _obs_solver.damped(gram, damping), size)
            parts.append(lost.repeat_interleave(size).expand_as(rows))
        scores[name] = layout.weight(torch.stack(parts), w.shape).float()
    return scores


def _channels(name: str, seen: Evidence) -> int:
    """Channels that one group of a layer reads."""
    weight, layout = seen.weights[name], seen.layouts[name]
    return weight.shape[0] // layout.groups if layout.transposed else weight.shape[1]


def greedy(weight: Tensor, gram: Tensor, size: int) -> Tensor:
    """What removing each channel adds to the squared error, in its turn: (channels,).

    Over the squared outputs. Rising along the order of removal. weight: (rows, channels · size);
    gram: (channels · size, channels · size), damped, float64.
    """
    w = double(weight).clone()
    channels = w.shape[1] // size
    outputs = float(((w @ gram) * w).sum()) / 2
    inverse = torch.linalg.inv(gram)
    there = w.device
    scores = torch.zeros(channels, dtype=torch.float64, device=there)
    remaining = torch.arange(channels, device=there)
    inside = torch.arange(size, device=there)
    highest = 0.0
    while len(remaining):
        places = remaining.unsqueeze(1) * size + inside  # (remaining, size)
        blocks = inverse[places.unsqueeze(2), places.unsqueeze(1)]  # [H⁻¹]_cc of each channel
        own = w[:, places].permute(1, 2, 0)  # (remaining, size, rows): W_cᵀ of each
        lost = (own * torch.linalg.solve(blocks, own)).sum((1, 2)) / 2
        count = max(1, -(-channels // TURNS))
        order = lost.argsort(stable=True)[:count]
        # Once its neighbours are removed, a channel can cost less than they did.
        for turn in order.tolist():
            highest = max(highest * _obs_solver.RISE, float(lost[turn]), 1e-300)
            scores[remaining[turn]] = highest
        on = places[order].flatten()
        column = inverse[:, on]
        moved = torch.linalg.solve(inverse[on[:, None], on], inverse[on])
        w -= w[:, on] @ moved
        inverse -= column @ moved
        stays = torch.ones(len(remaining), dtype=torch.bool, device=there)
        stays[order] = False
        remaining = remaining[stays]
    return scores / max(outputs, 1e-300)


def skips(seen: Evidence) -> dict[str, str]:
    """Layers with too many inputs, or with inputs that were not seen, stay dense."""
    return obs.skips(seen)
