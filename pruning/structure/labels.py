"""Labels: the indices of parameters, and which of them make up one unit of a dependency group.

A label is one index of one dimension of one parameter: `a.weight` of shape (6, 1, 3, 3) has 6
labels along dimension 0 (its output channels), none along dimension 1 (a dimension of size 1
cannot shrink), and 3 each along dimensions 2 and 3.

An activation is described by *factors*: integer tensors of its shape that say, for each element,
one label that it needs. The result of `a`, of shape (1, 6, 4, 4), has one factor: element
(0, c, y, x) needs row c of the weight. It does not vary over the batch nor over positions, so it
has stride 0 there and holds 6 numbers, not 96. After `flatten(1)` the shape is (1, 96), and the
factor holds 96 numbers: each label 16 times.

An element is kept while the labels of all its factors are. A parameter has one factor for each
of its dimensions: element (o, i) of a linear layer's weight needs label o of dimension 0 and
label i of dimension 1.

Labels that are kept or removed together are joined. The connected components are called
*classes*, and a class that may be removed is a unit. `dependency_graph` works an example through.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

Factor = Tensor
"""int64, the shape of what it describes, stride 0 along dimensions it does not vary on."""

Place = tuple[str, int]
"""(parameter or buffer, dimension)."""

ALWAYS = 0
"""The label of what is always kept: padding, constants."""


def varies(factor: Factor) -> tuple[int, ...]:
    """The dimensions a factor varies on."""
    dims = range(factor.dim())
    return tuple(d for d in dims if factor.size(d) > 1 and factor.stride(d) != 0)


def flat(factor: Factor, dims: Collection[int] | None = None) -> Factor:
    """The labels along `dims` (all it varies on, by default) as a vector; index 0 of the others."""
    if dims is None:
        dims = varies(factor)
    return narrowed(factor, dims).reshape(-1)


def narrowed(factor: Factor, dims: Collection[int]) -> Factor:
    """Size 1 in every dimension that is not in `dims`."""
    for d in range(factor.dim()):
        if d not in dims and factor.size(d) > 1:
            factor = factor.narrow(d, 0, 1)
    return factor


def collapsed(factor: Factor) -> Factor:
    """The same labels, with stride 0 along every dimension they do not change on.

    A reshape or a concatenation copies, and a copy has lost its zero strides.
    """
    for d in range(factor.dim()):
        if factor.size(d) > 1 and factor.stride(d) != 0:
            first = factor.narrow(d, 0, 1)  # all the others, if it does not change
            if bool((factor == first).all()):
                factor = first.expand(factor.shape)
    return factor


def along(labels: Tensor, dim: int, shape: Iterable[int]) -> Factor:
    """A vector of labels laid along one dimension of a shape."""
    shape = list(shape)
    return laid(labels, dim, len(shape)).expand(shape)


def laid(vector: Tensor, dim: int, rank: int) -> Tensor:
    """A vector laid along one of `rank` dimensions, 1 long in the others."""
    sizes = [1] * rank
    sizes[dim] = -1
    return vector.view(sizes)


@dataclass(frozen=True)
class Reason:
    """Why something cannot be removed.

    operation: as ATen names it; where: the module it happens in; shapes: of what it reads.
    """

    operation: str
    why: str
    where: str
    shapes: tuple[tuple[int, ...], ...] = ()


@dataclass
class Labels:
    """Collects labels, which are joined, and which are blocked; `solve` gives their classes."""

    count: int = 1  # label 0 is ALWAYS
    origins: dict[Place, int] = field(default_factory=dict)
    """Its first label; the others follow."""
    sizes: dict[Place, int] = field(default_factory=dict)
    edges: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    blocked: list[tuple[Tensor, Reason]] = field(default_factory=list)
    marks: dict[str, list[Tensor]] = field(default_factory=dict)

    def fresh(self, name: str, dim: int, size: int) -> Tensor:
        """New labels for the indices of one dimension of a parameter. (size,) int64"""
        first = self.count
        self.count += size
        self.origins[name, dim] = first
        self.sizes[name, dim] = size
        return torch.arange(first, first + size)

    def unnamed(self, size: int) -> Tensor:
        """New labels that are indices of no parameter. (size,) int64"""
        first = self.count
        self.count += size
        return torch.arange(first, first + size)

    def join(self, a: Factor, b: Factor) -> None:
        """a and b, broadcast, are kept or removed together."""
        a, b = torch.broadcast_tensors(a, b)  # type: ignore[no-untyped-call]
        # Where neither varies, one element says it all: a picture's positions would
        # multiply the edges by thousands.
        dims = [d for d in range(a.dim()) if a.stride(d) or b.stride(d)]
        edge = flat(a, dims), flat(b, dims)
        self.edges.append(edge)

    def tie(self, factor: Factor, dims: Iterable[int]) -> Factor:
        """Join all labels along `dims`. Returns the factor, constant there."""
        for d in dims:
            if factor.size(d) > 1 and factor.stride(d) != 0:
                first = factor.narrow(d, 0, 1).expand(factor.shape)
                self.join(first, factor)
                factor = first
        return factor

    def block(self, factor: Factor, reason: Reason) -> None:
        """Nothing of this factor may be removed."""
        self.blocked.append((flat(factor), reason))

    def mark(self, name: str, factor: Factor) -> None:
        """Remember something about these labels' classes.

        "source": a layer makes these channels; "head": they are heads of attention.
        """
        self.marks.setdefault(name, []).append(flat(factor))

    def solve(self) -> NDArray[np.int64]:
        """Label -> class, the connected components of what was joined. (count,)"""
        # Label 0 is joined with itself, so that there is something to concatenate.
        always = torch.tensor([ALWAYS])
        edges = [(always, always), *self.edges]
        a = torch.cat([left for left, _ in edges]).numpy()
        b = torch.cat([right for _, right in edges]).numpy()
        ones = np.ones(len(a), np.int8)
        shape = (self.count, self.count)
        graph = coo_matrix((ones, (a, b)), shape=shape)
        _, classes = connected_components(graph, directed=False)
        return np.asarray(classes, np.int64)
