"""What many rules need: operands side by side, labels as a vector, sums along dimensions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from torch import Tensor

from pruning.structure.labels import Factor, flat, varies
from pruning.structure.propagate import Propagation, Value


@dataclass(frozen=True)
class Operand:
    """One operand of an elementwise operation, broadcast to the result's shape.

    repeated: the dimensions it is 1 long on, and the result longer.
    """

    factors: tuple[Factor, ...]
    repeated: frozenset[int]
    constant: bool

    def leaves_free(self, dims: Collection[int]) -> bool:
        """Whether labels along `dims` can be removed although this operand has none there.

        A constant can be cut to any size; what is repeated along all of them needs no cut.
        """
        return self.constant or set(dims) <= self.repeated


def _operand(value: Value, shape: Sequence[int]) -> Operand:
    missing = [1] * (len(shape) - value.meta.dim())
    sizes = missing + list(value.shape)
    repeated = frozenset(d for d, size in enumerate(shape) if sizes[d] == 1 and size > 1)
    # A factor is 1 long where its value is.
    factors = [f.reshape(missing + list(f.shape)) for f in value.factors]
    spread = tuple(f.expand(list(shape)) for f in factors)
    return Operand(spread, repeated, value.kind == "constant")


def match(
    propagation: Propagation, shape: Sequence[int], values: Sequence[Value], why: str
) -> tuple[Factor, ...]:
    """The factors of an elementwise result: position by position, operands' labels are joined.

    Where one operand has labels and another, as long, has none, the labels are blocked:
    `x + f(x)` cannot lose a channel that f's result must have.
    """
    operands = [_operand(value, shape) for value in values]
    factors: list[Factor] = []
    for i, operand in enumerate(operands):
        factors = _meet(propagation, factors, operands[:i], operand, why)
    return tuple(factors)


def _meet(
    propagation: Propagation,
    factors: list[Factor],
    earlier: Sequence[Operand],
    operand: Operand,
    why: str,
) -> list[Factor]:
    """The factors of all operands up to this one. factors: of the earlier ones, joined."""
    factors = list(factors)
    met: set[int] = set()
    new: list[Factor] = []
    for factor in operand.factors:
        dims = set(varies(factor))
        partners = [i for i, other in enumerate(factors) if dims & set(varies(other))]
        for i in partners:
            propagation.labels.join(factors[i], factor)
            # Joined, the two say the same; the one that varies less says it with fewer numbers.
            if len(dims) < len(varies(factors[i])):
                factors[i] = factor
        met.update(partners)
        if partners:
            continue
        if all(other.leaves_free(dims) for other in earlier):
            new.append(factor)
        else:
            propagation.block(factor, why)
    # The other way round: earlier labels that this operand does not have.
    kept = []
    for i, other in enumerate(factors):
        if i in met or operand.leaves_free(varies(other)):
            kept.append(other)
        else:
            propagation.block(other, why)
    return kept + new


def summed(
    propagation: Propagation,
    factors: Sequence[Factor],
    dims: Collection[int],
    why: str,
    *,
    keepdim: bool = False,
    exact: bool = True,
) -> tuple[Factor, ...]:
    """The factors after a reduction over `dims`.

    exact: zeros do not contribute, so what is reduced over may shrink; where they do, as in a
    mean or a maximum, its labels are blocked.
    """
    remaining = []
    for factor in factors:
        inside = set(varies(factor)) & set(dims)
        if inside and not exact:
            if inside != set(varies(factor)):
                propagation.labels.tie(factor, list(inside))
            propagation.block(factor, why)
            continue
        if inside and inside == set(varies(factor)):
            continue  # summed away, with nothing of it in the result
        # It varies on the result too: an element of that is exact only if all it sums over
        # is kept or removed as one.
        factor = propagation.labels.tie(factor, list(inside))
        for d in sorted(dims, reverse=True):
            factor = factor.narrow(d, 0, 1) if keepdim else factor.select(d, 0)
        remaining.append(factor)
    return tuple(remaining)


def vector(
    propagation: Propagation, value: Value, dim: int
) -> tuple[Tensor | None, tuple[Factor, ...]]:
    """(the labels along one dimension, or None; the factors that do not vary there).

    What a factor varies on beside `dim` is tied, because the value shrinks along `dim` alone.
    """
    labels: Tensor | None = None
    rest = []
    for factor in value.factors:
        dims = varies(factor)
        if dim not in dims:
            rest.append(factor)
            continue
        tied = propagation.labels.tie(factor, [d for d in dims if d != dim])
        new = flat(tied, [dim])
        if labels is None:
            labels = new
        else:
            propagation.labels.join(labels, new)
    return labels, tuple(rest)


def unsqueezed(value: Value, dim: int) -> Value:
    return value.moved(lambda x: x.unsqueeze(dim))
