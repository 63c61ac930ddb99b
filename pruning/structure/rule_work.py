"""What many rules need: operands set side by side, labels as a vector, sums along dimensions."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from torch import Tensor

from pruning.structure.labels import Factor, flat, varies
from pruning.structure.propagate import Propagation, Value


def spread(factor: Factor, shape: Sequence[int]) -> Factor:
    """A factor broadcast to a shape of at least as many dimensions."""
    return factor.reshape([1] * (len(shape) - factor.dim()) + list(factor.shape)).expand(
        list(shape)
    )


def match(
    propagation: Propagation, shape: Sequence[int], values: Sequence[Value], why: str
) -> tuple[Factor, ...]:
    """The factors of an elementwise result: position by position, operands live and die together.

    An operand that is 1 long where the result is longer ties nothing there; constants tie nothing at all. Where one operand
    is labelled and another, as long, is not, the labels are blocked.
    """
    together: list[Factor] = []
    seen: list[
        tuple[set[int], bool]
    ] = []  # of each operand: the dimensions it is repeated along, and whether it is a constant
    for value in values:
        own = [1] * (len(shape) - len(value.shape)) + list(value.shape)
        repeated = {d for d in range(len(shape)) if own[d] == 1 and shape[d] > 1}
        free = value.kind == "constant"
        factors = [spread(f, shape) for f in value.factors]
        together = (
            _meet(propagation, together, factors, repeated, free, seen, why) if seen else factors
        )
        seen.append((repeated, free))
    return tuple(together)


def _meet(
    propagation: Propagation,
    before: list[Factor],
    factors: list[Factor],
    repeated: set[int],
    free: bool,
    seen: list[tuple[set[int], bool]],
    why: str,
) -> list[Factor]:
    before, met, new = list(before), set(), []
    for factor in factors:
        dims, alone = set(varies(factor)), True
        for i, other in enumerate(before):
            if dims & set(varies(other)):
                propagation.labels.join(other, factor)
                met.add(i)
                alone = False
                if len(dims) < len(varies(other)):
                    before[i] = factor
        if alone and any(
            not constant and not dims <= other_repeated for other_repeated, constant in seen
        ):
            propagation.block(factor, why)
        elif alone:
            new.append(factor)
    kept = []
    for i, other in enumerate(before):
        if i in met or free or set(varies(other)) <= repeated:
            kept.append(other)
        else:
            propagation.block(other, why)
    return kept + new


def summed(
    propagation: Propagation,
    factors: Sequence[Factor],
    dims: Collection[int],
    keepdim: bool,
    why: str,
    exact: bool,
) -> tuple[Factor, ...]:
    """The factors after a reduction over `dims`. exact: zeros do not contribute, so that labels along `dims` alone may go."""
    out = []
    for factor in factors:
        inside = set(varies(factor)) & set(dims)
        if inside and inside == set(varies(factor)):
            if not exact:
                propagation.block(factor, why)
            continue
        factor = propagation.labels.tie(factor, list(inside))
        if inside and not exact:
            propagation.block(factor, why)
            continue
        for d in sorted(dims, reverse=True):
            factor = factor.narrow(d, 0, 1) if keepdim else factor.select(d, 0)
        out.append(factor)
    return tuple(out)


def vector(
    propagation: Propagation, value: Value, dim: int
) -> tuple[Tensor | None, tuple[Factor, ...]]:
    """(the labels along one dimension, whatever else they vary on tied to it, or None; the factors that do not vary there)."""
    found: Tensor | None = None
    rest = []
    for factor in value.factors:
        if dim not in varies(factor):
            rest.append(factor)
            continue
        labels = flat(
            propagation.labels.tie(factor, [d for d in varies(factor) if d != dim]), [dim]
        )
        if found is None:
            found = labels
        else:
            propagation.labels.join(found, labels)
    return found, tuple(rest)


def unsqueezed(value: Value, dim: int) -> Value:
    return Value(
        value.meta.unsqueeze(dim), tuple(f.unsqueeze(dim) for f in value.factors), None, value.kind
    )
