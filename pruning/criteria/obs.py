"""Optimal Brain Surgeon: remove the weight that the others of its output can best make up for, and let them.

w_q² / (2 [H⁻¹]_qq), the rest moved by −w_q / [H⁻¹]_qq · H⁻¹_:q, with H = XXᵀ of the layer's inputs: Hassibi & Stork, 1993,
layer-wise as Dong et al., 2017, https://arxiv.org/abs/1705.07565
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pruning.criteria import _obs_solver
from pruning.evidence import Evidence
from pruning.registry import criterion
from pruning.types import Masks, Scores

EXACT = 2**32
"""rows · inputs³ up to which weights go one by one."""
WORK = 2**38
"""rows · inputs³ up to which a share of each row goes at once; beyond, each weight is judged on its own."""
INPUTS = 8192
"""Inputs up to which H fits: 256 MB."""
PROBES = 4


@criterion(
    group="curvature",
    needs="data",
    cost="a forward pass over 1,024 examples, then rows × inputs³ for each layer: seconds for small models, minutes for large ones",
    compensates=True,
    skips=True,
    granularities=("weight", "kernel", "column", "block", "n_of_m"),
    why="the weights of one output make up for each other, and where a whole output goes none are left to do so",
)
def obs(
    seen: Evidence, *, error: Literal["loss", "layer"] = "loss", damping: float = 0.01
) -> Scores:
    """Remove the weights that the rest of their layer can make up for, and change the rest so that it does.

    error: loss weighs each output by how much the loss bends there, so that layers compare; layer counts all alike, for per_layer.
    damping: share of H's mean diagonal added to its diagonal; more trusts the examples less.
    """
    too_wide = skips(seen)
    scores = {name: torch.zeros_like(w) for name, w in seen.weights.items()}
    for name, grams in seen.grams(leave=too_wide):
        layout, w = seen.layouts[name], seen.weights[name]
        parts = [
            _scores(rows, _obs_solver.damped(gram, damping))
            for rows, gram in zip(layout.matrices(w), grams, strict=True)
        ]
        price = _price(seen, name, grams) if error == "loss" else 1.0
        scores[name] = layout.weight(torch.stack(parts) * price, w.shape).to(w.dtype)
    return scores


def compensate(
    seen: Evidence, masks: Masks, *, error: Literal["loss", "layer"] = "loss", damping: float = 0.01
) -> dict[str, Tensor]:
    """Weights under `masks` that keep each layer's answers closest to what they were. `error` weighs whole rows, and so changes nothing."""
    found = {}
    for name, grams in seen.grams(leave=skips(seen)):
        keep, w = masks.get(name), seen.weights[name]
        if keep is None or bool(keep.all()):
            continue
        layout = seen.layouts[name]
        rows = zip(layout.matrices(w), layout.matrices(keep), grams, strict=True)
        parts = [
            _obs_solver.compensated(part, alive, _obs_solver.damped(gram, damping), WORK)
            for part, alive, gram in rows
        ]
        found[name] = layout.weight(torch.stack(parts), w.shape).to(w.dtype)
    return found


def skips(seen: Evidence) -> dict[str, str]:
    """Layers with too many inputs stay dense."""
    wide = {
        name: layout.matrices(seen.weights[name]).shape[2] for name, layout in seen.layouts.items()
    }
    return {
        name: f"with {d:,} inputs its Hessian would not fit; {INPUTS:,} do."
        for name, d in wide.items()
        if d > INPUTS
    }


def _scores(rows: Tensor, gram: Tensor) -> Tensor:
    work = len(rows) * len(gram) ** 3
    if work <= EXACT:
        return _obs_solver.greedy(rows, torch.linalg.inv(gram))
    return (
        _obs_solver.in_rounds(rows, gram)
        if work <= WORK
        else rows.double().square() * gram.diagonal() / 2
    )


def _price(seen: Evidence, name: str, grams: Tensor) -> Tensor:
    """How much the loss bends along each output, (groups, rows, 1): its Gauss-Newton diagonal over that of the inputs."""
    bend = (
        seen.layouts[name].matrices(seen.gauss_newton(PROBES)[name]).double().mean(2, keepdim=True)
    )
    return bend / grams.diagonal(dim1=1, dim2=2).mean(1).double().clamp_min(1e-12).reshape(-1, 1, 1)
