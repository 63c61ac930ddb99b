"""Wanda: a weight matters as much as what it is multiplied with.

|w| · ‖x‖₂, x the weight's input over all examples, Sun et al., 2023,
https://arxiv.org/abs/2306.11695
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pruning.evidence import Evidence
from pruning.registry import criterion
from pruning.types import Scores


@criterion(
    group="activations",
    needs="data",
    gradients=(341,),
    cost="one forward pass over 1,024 examples",
    skips=True,
)
def wanda(seen: Evidence, *, compare: Literal["layer", "output"] = "layer") -> Scores:
    """Remove the weights that are small and multiply small inputs.

    compare: layer ranks by the scores themselves, inside a layer or over all, as the scope says;
        output ranks the weights of each output among themselves, so that all outputs lose the same
        share: the paper's way for language models, which it did not find better for image
        classifiers.
    """
    scores = {name: w.abs() * seen.input_norms[name] for name, w in seen.weights.items()}
    if compare == "layer":
        return scores
    return {name: _places(values) for name, values in scores.items()}


def skips(seen: Evidence) -> dict[str, str]:
    """Weights whose inputs were not seen stay dense."""
    return seen.unwatched


def _places(values: Tensor) -> Tensor:
    """Each weight's place among those of its output, from 0 (lowest) up to, not including, 1."""
    order = values.flatten(1).argsort(dim=1, stable=True)  # (out, inputs)
    inputs = order.shape[1]
    places = torch.arange(inputs, dtype=torch.float32, device=values.device)
    places = places.expand(order.shape) / inputs
    return torch.empty_like(places).scatter_(1, order, places).reshape(values.shape)
