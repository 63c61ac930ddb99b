"""The quadratic problem of one layer: which weights to set to zero, and what to make of the rest, so that W·X changes least.

E(Ŵ) = ½ Σ over rows of (ŵ − w) H (ŵ − w)ᵀ with H = XXᵀ. W is (rows, d), H is (d, d).

Second order derivatives for network pruning: Optimal Brain Surgeon, Hassibi & Stork, 1993,
https://proceedings.neurips.cc/paper/1992/hash/303ed4c69846ab36c2904d3ba8573050-Abstract.html
"""

from __future__ import annotations

import torch
from torch import Tensor

HELD = 2**25
"""Numbers of inverse Hessians held at once, at most: 128 MB."""


def damped(gram: Tensor, damping: float) -> Tensor:
    """H with a share of its mean diagonal added to its diagonal, in double precision, so that it has an inverse."""
    wide = gram.double()
    lift = damping * wide.diagonal().mean().clamp_min(1e-12)
    return wide + lift * torch.eye(len(wide), dtype=wide.dtype)


def loss(before: Tensor, after: Tensor, gram: Tensor) -> Tensor:
    """E of each row, (rows,)."""
    change = (after - before).to(gram.dtype)
    return ((change @ gram) * change).sum(1) / 2


def saliency(weight: Tensor, inverse: Tensor) -> Tensor:
    """w²/(2 [H⁻¹]_qq): the loss when one weight goes and the rest of its row makes up for it. (rows, d)."""
    return weight.double().square() / inverse.diagonal() / 2


def greedy(weight: Tensor, inverse: Tensor) -> Tensor:
    """The loss each removal adds when the cheapest weight of a row goes, the rest makes up for it, and so on to the last. (rows, d).

    Never falling along the order of removal, so that taking the lowest scores takes a row's weights in that order.
    Optimal Brain Compression, Frantar & Alistarh, 2022, https://arxiv.org/abs/2208.11580
    """
    step = max(1, HELD // inverse.numel())
    return torch.cat([_greedy(rows, inverse) for rows in torch.split(weight.double(), step)])


def in_rounds(weight: Tensor, gram: Tensor, left: float = 0.7) -> Tensor:
    """As `greedy`, nearly, for larger layers: a share of each row's weights goes at once, then the rest makes up for all of them."""
    d = weight.shape[1]
    step = max(1, HELD // gram.numel())
    return torch.cat(
        [_in_rounds(rows, gram, left, d) for rows in torch.split(weight.double(), step)]
    )


def _in_rounds(weight: Tensor, gram: Tensor, left: float, d: int) -> Tensor:
    rows, target = len(weight), weight @ gram
    scores, reached = torch.zeros_like(weight), weight.new_zeros(rows, 1)
    alive, w = torch.arange(d).expand(rows, d), weight
    while alive.shape[1]:
        inverse = torch.cholesky_inverse(
            torch.linalg.cholesky(gram[alive.unsqueeze(2), alive.unsqueeze(1)])
        )
        w = (inverse @ target.gather(1, alive).unsqueeze(2)).squeeze(2)
        cost = w.square() / inverse.diagonal(dim1=1, dim2=2) / 2
        cost, order = cost.sort(dim=1, stable=True)
        count = max(1, alive.shape[1] - int(left * alive.shape[1]))
        cost = torch.maximum(cost, reached)
        alive = alive.gather(1, order)
        scores.scatter_(1, alive, cost)
        reached, alive = cost[:, count - 1 : count], alive[:, count:].sort(dim=1).values
    return scores


def _greedy(weight: Tensor, inverse: Tensor) -> Tensor:
    rows, d = weight.shape
    w, left = weight.clone(), inverse.expand(rows, d, d).clone()
    gone, scores = torch.zeros(rows, d, dtype=torch.bool), torch.zeros_like(weight)
    reached, each = weight.new_zeros(rows), torch.arange(rows)
    for _ in range(d):
        diagonal = left.diagonal(dim1=1, dim2=2)
        cost = (w.square() / diagonal / 2).masked_fill_(gone, torch.inf)
        lowest, q = cost.min(1)
        reached = torch.maximum(reached, lowest)
        scores[each, q] = reached
        gone[each, q] = True
        column = left[each, q]  # (rows, d)
        pivot = column[each, q].unsqueeze(1)
        w -= w[each, q].unsqueeze(1) / pivot * column
        left.baddbmm_((column / pivot).unsqueeze(2), column.unsqueeze(1), alpha=-1)
        w.masked_fill_(gone, 0)
        left.diagonal(dim1=1, dim2=2).masked_fill_(gone, 1)  # not divided by: already gone
    return scores


def compensated(weight: Tensor, keep: Tensor, gram: Tensor, work: int) -> Tensor:
    """The best rows under `keep`: exactly while the work, Σ kept³, is within bounds, else by the shared sweep."""
    if int(keep.sum(1).double().pow(3).sum()) <= work:
        return fit(weight.double() @ gram, keep, gram)
    return sweep(weight, keep, torch.linalg.inv(gram))


def fit(target: Tensor, keep: Tensor, gram: Tensor) -> Tensor:
    """The row vectors ŵ, zero outside `keep`, that solve ŵ H = target on `keep`: exactly, row by row. target: W·H."""
    found = torch.zeros_like(target)
    for i, row in enumerate(keep):
        on = row.nonzero().flatten()
        if len(on):
            factor = torch.linalg.cholesky(gram[on[:, None], on])
            found[i, on] = torch.cholesky_solve(target[i, on, None], factor).flatten()
    return found


def sweep(weight: Tensor, keep: Tensor, inverse: Tensor) -> Tensor:
    """As `fit`, nearly, for large layers: columns go in order, and only those to their right make up for them.

    All rows share one Cholesky factor: SparseGPT, Frantar & Alistarh, 2023, https://arxiv.org/abs/2301.00774
    """
    factor = torch.linalg.cholesky(inverse, upper=True)
    w = weight.to(factor.dtype).clone()
    for j in range(w.shape[1]):
        error = w[:, j].masked_fill(keep[:, j], 0) / factor[j, j]
        w[:, j:] -= error.unsqueeze(1) * factor[j, j:]
    return w.masked_fill_(~keep, 0)
