"""Optimal Brain Surgeon: remove the weight that the rest of its output can best compensate.

w_q² / (2 [H⁻¹]_qq), the rest moved by −w_q / [H⁻¹]_qq · H⁻¹_:q, with H = XXᵀ of the layer's inputs:
Hassibi & Stork, 1993, layer-wise as Dong et al., 2017, https://arxiv.org/abs/1705.07565
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from torch import Tensor

from pruning.criteria import _obs_solver
from pruning.devices import double
from pruning.evidence import Evidence
from pruning.ranges import Range
from pruning.registry import criterion
from pruning.types import Masks, Scores

EXACT = 2**32
"""rows · inputs³ up to which weights are removed one by one."""

WORK = 2**38
"""rows · inputs³ up to which a share of each row is removed at once; beyond, each weight alone."""

INPUTS = 8192
"""Inputs up to which H fits: 256 MB."""

PROBES = 4
"""Random directions for the Gauss-Newton diagonal that weighs outputs against each other."""


@criterion(
    group="curvature",
    needs="data",
    gradients=(15_000,),
    cost="a forward pass over 1,024 examples, then rows × inputs³ for each layer: "
    "seconds for small models, minutes for large ones",
    compensates=True,
    skips=True,
    granularities=("weight", "kernel", "column", "block", "n_of_m"),
    why="the weights of one output compensate each other, "
    "and where a whole output is removed none remain to do so",
)
def obs(
    seen: Evidence,
    *,
    error: Literal["loss", "layer"] = "loss",
    damping: Annotated[float, Range(1e-9, 100)] = 0.01,
) -> Scores:
    """Remove the weights that the rest of their layer can compensate, and change the rest so.

    All layers are scored on the inputs that they have in the model as it is; SparseGPT prunes them
    one after the other. A kernel, column, block or n of m scores what its weights cost when each is
    removed alone in its turn, not what they cost together.

    error: loss weighs each output by how curved the loss is there, so that layers compare, which
        is our own addition; layer counts all alike, as the papers do, for per_layer.
    damping: share of H's mean diagonal added to its diagonal; more trusts the examples less.
    """
    scores = {name: torch.zeros_like(w) for name, w in seen.weights.items()}
    for name, grams in seen.grams(leave=skips(seen)):
        layout, w = seen.layouts[name], seen.weights[name]
        parts = []
        for rows, gram in zip(layout.matrices(w), grams, strict=True):
            parts.append(_scores(rows, _obs_solver.damped(gram, damping)))
        price = _price(seen, name, grams) if error == "loss" else 1.0
        # in float32, whatever the weights are in: half precision would tie the order of removal
        scores[name] = layout.weight(torch.stack(parts) * price, w.shape).float()
    return scores


def compensate(
    seen: Evidence, masks: Masks, *, error: Literal["loss", "layer"] = "loss", damping: float = 0.01
) -> dict[str, Tensor]:
    """Weights under `masks` that keep each layer's outputs closest to what they were.

    `error` weighs whole rows, and so changes nothing here.
    """
    compensated = {}
    for name, grams in seen.grams(leave=skips(seen)):
        keep, w = masks.get(name), seen.weights[name]
        if keep is None or bool(keep.all()):
            continue
        layout = seen.layouts[name]
        keep = keep.to(w.device)
        groups = zip(layout.matrices(w), layout.matrices(keep), grams, strict=True)
        parts = []
        for rows, kept, gram in groups:
            hessian = _obs_solver.damped(gram, damping)
            parts.append(_obs_solver.compensated(rows, kept, hessian, WORK))
        compensated[name] = layout.weight(torch.stack(parts), w.shape).to(w.dtype)
    return compensated


def skips(seen: Evidence) -> dict[str, str]:
    """Layers with too many inputs, or with inputs that were not seen, stay dense."""
    reasons = dict(seen.unwatched)
    for name, layout in seen.layouts.items():
        inputs = layout.matrices(seen.weights[name]).shape[2]
        if inputs > INPUTS:
            reasons[name] = f"with {inputs:,} inputs its Hessian would not fit; {INPUTS:,} do."
    return reasons


def _scores(rows: Tensor, gram: Tensor) -> Tensor:
    work = len(rows) * len(gram) ** 3
    if work <= EXACT:
        return _obs_solver.greedy(rows, torch.linalg.inv(gram))
    if work <= WORK:
        return _obs_solver.in_rounds(rows, gram)
    # no inverse: each weight's loss when nothing compensates it
    return double(rows).square() * gram.diagonal() / 2


def _price(seen: Evidence, name: str, grams: Tensor) -> Tensor:
    """How curved the loss is along each output, (groups, rows, 1).

    The Gauss-Newton diagonal of a weight is that of its output times its squared input: so, over
    the mean squared input.
    """
    diagonal = double(seen.layouts[name].matrices(seen.gauss_newton(PROBES)[name]))
    curvature = diagonal.mean(2, keepdim=True)
    inputs = double(grams.diagonal(dim1=1, dim2=2).mean(1))
    return curvature / inputs.clamp_min(1e-12).reshape(-1, 1, 1)
