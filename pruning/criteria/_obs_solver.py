"""The quadratic problem of Optimal Brain Surgeon for one layer: which weights to prune, and how the
others compensate, so that the outputs W·X change least.

E(Ŵ) = ½ Σ over rows of (ŵ − w) H (ŵ − w)ᵀ with H = XXᵀ. W is (rows, d), H is (d, d): rows do not
touch each other, and all share H.

One weight q of a row is removed by the smallest δ with δ_q = −w_q. Lagrange's condition H δ = λ e_q
gives δ = −w_q / [H⁻¹]_qq · H⁻¹_:q and E = w_q² / (2 [H⁻¹]_qq) (equation 5 of the paper).

Second order derivatives for network pruning: Optimal Brain Surgeon, Hassibi & Stork, 1993,
https://proceedings.neurips.cc/paper/1992/hash/303ed4c69846ab36c2904d3ba8573050-Abstract.html
"""

from __future__ import annotations

import torch
from torch import Tensor

from pruning.devices import double

CHUNK = 2**25
"""Numbers of inverse Hessians in memory at once, at most: 128 MB."""

RISE = 1 + 2**-22
"""The least by which a later removal scores above an earlier one: two steps of float32, so that
the order of removal outlasts the rounding of what is done to the scores afterwards."""


def damped(gram: Tensor, damping: float) -> Tensor:
    """H with a share of its mean diagonal added to its diagonal, so that it has an inverse.

    In double precision.
    """
    wide = double(gram)
    lift = damping * wide.diagonal().mean().clamp_min(1e-12)
    return wide + lift * torch.eye(len(wide), dtype=wide.dtype, device=wide.device)


def loss(before: Tensor, after: Tensor, gram: Tensor) -> Tensor:
    """E of each row, (rows,)."""
    change = (after - before).to(gram.dtype)
    return ((change @ gram) * change).sum(1) / 2


# ---------------------------------------------------------------- scores


def greedy(weight: Tensor, inverse: Tensor) -> Tensor:
    """What each removal adds to E when a row's cheapest weight is removed, and so on: (rows, d).

    After each the rest of the row compensates. Rising along the order of removal, so that pruning
    the lowest scores prunes a row's weights in that order: a removal that costs less than one
    before it scores just above that one.
    Optimal Brain Compression, Frantar & Alistarh, 2022, https://arxiv.org/abs/2208.11580
    """
    step = max(1, CHUNK // inverse.numel())
    parts = torch.split(double(weight), step)
    return torch.cat([_greedy(rows, inverse) for rows in parts])


def _greedy(weight: Tensor, inverse: Tensor) -> Tensor:
    rows, d = weight.shape
    each = torch.arange(rows, device=weight.device)
    w = weight.clone()
    # each row removes other weights, and so has its own inverse of what remains of H: (rows, d, d)
    remaining = inverse.expand(rows, d, d).clone()
    diagonal = remaining.diagonal(dim1=1, dim2=2)  # a view: it follows `remaining`
    removed = torch.zeros(rows, d, dtype=torch.bool, device=weight.device)
    scores = torch.zeros_like(weight)
    highest = weight.new_zeros(rows)
    for _ in range(d):
        cost = (w.square() / diagonal / 2).masked_fill_(removed, torch.inf)
        lowest, q = cost.min(1)
        # once its neighbours are removed, a weight can cost less than they did
        highest = torch.maximum(highest * RISE, lowest)
        scores[each, q] = highest
        removed[each, q] = True
        column = remaining[each, q]  # H⁻¹_:q, (rows, d)
        pivot = column[each, q].unsqueeze(1)  # [H⁻¹]_qq
        # δ = −w_q / [H⁻¹]_qq · H⁻¹_:q
        w -= w[each, q].unsqueeze(1) / pivot * column
        # without row and column q: H⁻¹ − H⁻¹_:q H⁻¹_q: / [H⁻¹]_qq (Gauss elimination of one step)
        remaining.baddbmm_((column / pivot).unsqueeze(2), column.unsqueeze(1), alpha=-1)
        w.masked_fill_(removed, 0)
        diagonal.masked_fill_(removed, 1)  # so that nothing is divided by 0
    return scores


def in_rounds(weight: Tensor, gram: Tensor, keep_share: float = 0.7) -> Tensor:
    """As `greedy`, nearly, for larger layers: all but `keep_share` of a row's weights at once.

    Then the rest compensates for all of them together, and the next round begins.
    """
    step = max(1, CHUNK // gram.numel())
    parts = torch.split(double(weight), step)
    return torch.cat([_in_rounds(rows, gram, keep_share) for rows in parts])


def _in_rounds(weight: Tensor, gram: Tensor, keep_share: float) -> Tensor:
    rows, d = weight.shape
    target = weight @ gram
    scores = torch.zeros_like(weight)
    highest = weight.new_zeros(rows, 1)
    # places of the weights that remain, ascending
    kept = torch.arange(d, device=weight.device).expand(rows, d)
    while kept.shape[1]:
        block = gram[kept.unsqueeze(2), kept.unsqueeze(1)]  # (rows, kept, kept)
        inverse = torch.cholesky_inverse(torch.linalg.cholesky(block))
        # the best of the remaining weights: ŵ H = w H on their places
        w = (inverse @ target.gather(1, kept).unsqueeze(2)).squeeze(2)
        cost = w.square() / inverse.diagonal(dim1=1, dim2=2) / 2
        cost, order = cost.sort(dim=1, stable=True)
        # above all of the rounds before, and rising within this one
        turns = torch.arange(1, cost.shape[1] + 1, dtype=cost.dtype, device=cost.device)
        rise = RISE**turns
        cost = torch.maximum(cost, highest * rise)
        kept = kept.gather(1, order)
        # the kept ones' scores are written again in the next round
        scores.scatter_(1, kept, cost)
        count = max(1, kept.shape[1] - int(keep_share * kept.shape[1]))
        highest = cost[:, count - 1 : count]
        kept = kept[:, count:].sort(dim=1).values
    return scores


# ---------------------------------------------------------------- compensation


def compensated(weight: Tensor, keep: Tensor, gram: Tensor, work: int) -> Tensor:
    """The best rows under `keep`, (rows, d).

    Exactly while the work, Σ kept³, is within bounds, else by the shared sweep.
    """
    weight, keep = double(weight), keep.to(gram.device)
    kept = keep.sum(1).double()
    if int(kept.pow(3).sum()) <= work:
        return fit(weight @ gram, keep, gram)
    return sweep(weight, keep, torch.linalg.inv(gram))


def fit(target: Tensor, keep: Tensor, gram: Tensor) -> Tensor:
    """The rows ŵ, zero outside `keep`, with ŵ H = target on `keep`: exactly, row by row.

    target: W·H.
    """
    fitted = torch.zeros_like(target)
    for i, row in enumerate(keep):
        on = row.nonzero().flatten()
        if len(on):
            factor = torch.linalg.cholesky(gram[on[:, None], on])
            fitted[i, on] = torch.cholesky_solve(target[i, on, None], factor).flatten()
    return fitted


def sweep(weight: Tensor, keep: Tensor, inverse: Tensor) -> Tensor:
    """As `fit`, nearly, for large layers: columns in order, compensated by those to their right.

    All rows share one Cholesky factor: SparseGPT, Frantar & Alistarh, 2023,
    https://arxiv.org/abs/2301.00774
    """
    # row j of the factor is H⁻¹_j: of the columns from j on, over the root of its diagonal
    factor = torch.linalg.cholesky(inverse, upper=True)
    w = weight.to(factor.dtype).clone()
    for j in range(w.shape[1]):
        error = w[:, j].masked_fill(keep[:, j], 0) / factor[j, j]
        w[:, j:] -= error.unsqueeze(1) * factor[j, j:]
    return w.masked_fill_(~keep, 0)
