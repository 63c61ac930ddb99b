"""Labels: who lives and dies with whom.

A label is one index of one dimension of one parameter. An activation is described by *factors*: integer tensors of its shape that say, for
each element, a label it needs; they have stride 0 along every dimension they do not vary on, so a factor of (1, C, H, W) holds C numbers.
An element lives while the labels of all its factors do. What must live or die together is joined; the classes are connected components.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

Factor = Tensor
"""int64, the shape of what it describes, stride 0 along dimensions it does not vary on."""

ALWAYS = 0
"""The label of what always lives: padding, constants."""


def varies(factor: Factor) -> tuple[int, ...]:
    """The dimensions a factor varies on."""
    return tuple(d for d in range(factor.dim()) if factor.size(d) > 1 and factor.stride(d) != 0)


def flat(factor: Factor, dims: Collection[int] | None = None) -> Factor:
    """The labels along `dims` (all it varies on, unless said) as a vector; index 0 of every other dimension."""
    return narrowed(factor, varies(factor) if dims is None else dims).reshape(-1)


def narrowed(factor: Factor, dims: Collection[int]) -> Factor:
    """Size 1 in every dimension that is not in `dims`."""
    for d in range(factor.dim()):
        if d not in dims and factor.size(d) > 1:
            factor = factor.narrow(d, 0, 1)
    return factor


def compressed(factor: Factor) -> Factor:
    """Stride 0 along every dimension the values do not change on."""
    for d in range(factor.dim()):
        if (
            factor.size(d) > 1
            and factor.stride(d) != 0
            and bool((factor == factor.narrow(d, 0, 1)).all())
        ):
            factor = factor.narrow(d, 0, 1).expand(factor.shape)
    return factor


def along(labels: Tensor, dim: int, shape: Iterable[int]) -> Factor:
    """A vector of labels laid along one dimension of a shape."""
    shape = list(shape)
    return labels.view([-1 if d == dim % len(shape) else 1 for d in range(len(shape))]).expand(
        shape
    )


@dataclass(frozen=True)
class Reason:
    """Why something cannot be removed. operation: as ATen names it; where: the module it happens in; shapes: of what it reads."""

    operation: str
    why: str
    where: str
    shapes: tuple[tuple[int, ...], ...] = ()

    def __str__(self) -> str:
        shapes = ", ".join("×".join(map(str, shape)) or "a number" for shape in self.shapes)
        place = f" in {self.where}" if self.where else ""
        return f"{self.why} ({self.operation}{place}{', on ' + shapes if shapes else ''})"


@dataclass
class Labels:
    """Collects labels, what ties them, and why some may not go; `solve` says which class each belongs to."""

    count: int = 1  # label 0 is ALWAYS
    origins: dict[tuple[str, int], int] = field(default_factory=dict)
    """(parameter, dimension) -> its first label."""
    sizes: dict[tuple[str, int], int] = field(default_factory=dict)
    edges: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    blocked: list[tuple[Tensor, Reason]] = field(default_factory=list)
    marks: dict[str, list[Tensor]] = field(default_factory=dict)

    def fresh(self, name: str, dim: int, size: int) -> Tensor:
        """New labels for the indices of one dimension of a parameter. (size,) int64"""
        first, self.count = self.count, self.count + size
        self.origins[name, dim], self.sizes[name, dim] = first, size
        return torch.arange(first, first + size)

    def join(self, a: Factor, b: Factor) -> None:
        """a and b, broadcast, live and die together."""
        a, b = torch.broadcast_tensors(a, b)  # type: ignore[no-untyped-call]
        dims = [d for d in range(a.dim()) if a.stride(d) != 0 or b.stride(d) != 0]
        self.edges.append((narrowed(a, dims).reshape(-1), narrowed(b, dims).reshape(-1)))

    def tie(self, factor: Factor, dims: Iterable[int]) -> Factor:
        """Join all labels along `dims`. Returns the factor, constant there."""
        for d in dims:
            if factor.size(d) > 1 and factor.stride(d) != 0:
                first = factor.narrow(d, 0, 1).expand(factor.shape)
                self.join(first, factor)
                factor = first
        return factor

    def block(self, factor: Factor, reason: Reason) -> None:
        """Nothing of this factor may go."""
        self.blocked.append((flat(factor), reason))

    def mark(self, name: str, factor: Factor) -> None:
        """Remember something about these labels' classes."""
        self.marks.setdefault(name, []).append(flat(factor))

    def solve(self) -> NDArray[np.int64]:
        """Label -> class. (count,)"""
        none = np.zeros(0, np.int64)
        a, b = (
            np.concatenate([none, *(edge[side].numpy() for edge in self.edges)]) for side in (0, 1)
        )
        graph = coo_matrix((np.ones(len(a), np.int8), (a, b)), shape=(self.count, self.count))
        found: Any = connected_components(graph, directed=False)[1]
        return np.asarray(found, np.int64)
