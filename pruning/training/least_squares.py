"""One layer's kept weights, solved anew by least squares on the inputs that it gets now.

    min over W, b of  |X Wᵀ + b − Y|² + ridge · |W − W₀|²,   W zero where it is pruned

X are the inputs in the pruned network, Y the outputs that the layer should have, W₀ the weights
that it had. The ridge draws towards W₀, so that directions X says nothing of are left as they were.
Channel pruning for accelerating very deep neural networks, He et al., 2017,
https://arxiv.org/abs/1707.06168
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pruning.devices import double

DIRECT = 2**36
"""Multiplications up to which rows that keep different inputs are each solved exactly."""

ITERATIONS = 50
"""Of conjugate gradients, where they would be more. The error falls in each of them."""


class Solved(NamedTuple):
    """weight: (groups, rows, inputs), zero where pruned; bias: (groups, rows), 0 without intercept.

    before, after: the sum of squared errors of all kept rows, under the old weights and the new.
    """

    weight: Tensor
    bias: Tensor
    before: float
    after: float


def solve(
    weight: Tensor,
    bias: Tensor,
    keep: Tensor,
    inputs: Tensor,
    targets: Tensor,
    *,
    ridge: float,
    intercept: bool,
) -> Solved:
    """The weights, zero outside `keep`, whose outputs come closest to `targets`.

    weight, keep: (groups, rows, inputs), the groups of a grouped convolution; inputs: (groups, n,
    inputs); bias: (groups, rows), as it is now; targets: (groups, n, rows); ridge: a share of the
    inputs' mean square; intercept: whether the bias may change. Rows without a kept weight are left
    as they are. In float64. The squared error never rises: else the old weights are given back.
    """
    wide = [double(tensor) for tensor in (weight, bias, inputs, targets)]
    weight, bias, inputs, targets = wide
    keep = keep.to(weight.device)
    kept_rows = keep.any(2)  # (groups, rows)
    weight = weight * keep
    error = targets - inputs @ weight.mT  # of the old weights, before any bias
    before = _squared(error - bias.unsqueeze(1), kept_rows)
    mean_in = inputs.mean(1, keepdim=True)
    mean_error = error.mean(1, keepdim=True)
    if intercept:
        inputs = inputs - mean_in
        error = error - mean_error
    else:
        error = error - bias.unsqueeze(1)
    gram = inputs.mT @ inputs  # (groups, inputs, inputs)
    lift = ridge * gram.diagonal(dim1=1, dim2=2).mean(1).clamp_min(1e-30)
    gram.diagonal(dim1=1, dim2=2).add_(lift.unsqueeze(1))
    change = _changes(gram, (inputs.mT @ error).mT, keep)
    after = _squared(error - inputs @ change.mT, kept_rows)
    if not after <= before:  # rounding, where nothing is left to gain; or not finite
        return Solved(weight, bias, before, before)
    new_bias = bias
    if intercept:
        new_bias = (mean_error - mean_in @ change.mT).squeeze(1)
        new_bias = torch.where(kept_rows, new_bias, bias)
    return Solved(weight + change, new_bias, before, after)


def _squared(error: Tensor, rows: Tensor) -> float:
    """Sum of squares over the kept rows. error: (groups, n, rows)."""
    return float((error.square().sum(1) * rows).sum())


def _changes(gram: Tensor, wanted: Tensor, keep: Tensor) -> Tensor:
    """Δ, zero outside `keep`, with Δ·gram = wanted on `keep`. wanted: (groups, rows, inputs)."""
    rows = keep.any(2, keepdim=True)
    columns = keep.any(1, keepdim=True)
    if bool((keep == (rows & columns)).all()):
        return _shared(gram, wanted, rows, columns)
    kept = keep.sum(2).double()
    if float(kept.pow(3).sum()) <= DIRECT:
        return _row_by_row(gram, wanted, keep)
    return _conjugate_gradients(gram, wanted * keep, keep)


def _shared(gram: Tensor, wanted: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Where all kept rows of a group keep the same inputs: one system for each group."""
    change = torch.zeros_like(wanted)
    if len(gram) == 1:  # one group: the system is as small as what is kept
        on = columns.flatten().nonzero().flatten()
        small = torch.linalg.solve(gram[0][on[:, None], on], wanted[0][:, on].T, left=True)
        change[0][:, on] = small.T
        return change * rows
    # Many small groups: all at once, with an identity where an input is pruned.
    off = ~columns.squeeze(1)
    system = gram * (columns & columns.mT)
    system.diagonal(dim1=1, dim2=2).add_(off)
    solved: Tensor = torch.linalg.solve(system, (wanted * columns * rows).mT)
    return solved.mT


def _row_by_row(gram: Tensor, wanted: Tensor, keep: Tensor) -> Tensor:
    """Single weights: each row keeps inputs of its own, and has a system of its own."""
    change = torch.zeros_like(wanted)
    for group, row in keep.any(2).nonzero().tolist():
        on = keep[group, row].nonzero().flatten()
        factor = torch.linalg.cholesky(gram[group][on[:, None], on])
        solved = torch.cholesky_solve(wanted[group, row, on, None], factor)
        change[group, row, on] = solved.flatten()
    return change


def _conjugate_gradients(gram: Tensor, wanted: Tensor, keep: Tensor) -> Tensor:
    """The same, nearly, for large layers: all rows in turn, each with steps of its own."""
    scale = gram.diagonal(dim1=1, dim2=2).unsqueeze(1)  # Jacobi's preconditioner
    change = torch.zeros_like(wanted)
    residual = wanted.clone()
    direction = residual / scale
    size = (residual * direction).sum(2, keepdim=True)
    for _ in range(ITERATIONS):
        moved = (direction @ gram) * keep
        curvature = (direction * moved).sum(2, keepdim=True)
        step = torch.where(curvature > 0, size / curvature, 0)
        change += step * direction
        residual -= step * moved
        preconditioned = residual / scale
        new_size = (residual * preconditioned).sum(2, keepdim=True)
        direction = preconditioned + torch.where(size > 0, new_size / size, 0) * direction
        size = new_size
    return change
