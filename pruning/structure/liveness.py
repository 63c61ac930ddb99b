"""Liveness: which indices of each value are kept, given the units that are removed."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import Node

from pruning.structure.dependency_graph import DependencyGraph
from pruning.structure.labels import Factor, collapsed, flat, laid, narrowed, varies
from pruning.structure.propagate import Value

Kept = list[Tensor | None]
"""For each dimension of a value, (size,) True = kept; None = all of them."""


class CannotRewrite(Exception):
    """The graph cannot be rewritten without these labels: they must be kept.

    labels: int64; why: names the operation in the way.
    """

    def __init__(self, labels: Tensor, why: str) -> None:
        super().__init__(why)
        self.labels = labels
        self.why = why


class Liveness:
    """What one set of removed units leaves. A class because answers are asked for many times."""

    def __init__(self, graph: DependencyGraph, removed: NDArray[np.bool_]) -> None:
        """removed: (units,) True = removed."""
        self.graph = graph
        # Labels that are always kept have unit -1, which looks up the last: the added False.
        removed_labels = np.append(removed, False)[graph.unit_of_label]
        self.keep = torch.from_numpy(~removed_labels)
        self._known: dict[int, tuple[Kept, bool]] = {}
        self._whole: dict[int, bool] = {}

    def kept(self, node: Node) -> Kept:
        """What is kept of a node's value. Raises CannotRewrite where that is no rectangle.

        A tensor can only shrink to a product of what is kept of each dimension: of (2, 3), to
        rows {0} and columns {0, 2}, but not to {(0, 0), (1, 2)}.
        """
        value = self.graph.propagation.value(node)
        kept, rectangular = self._look(value)
        if not rectangular:
            why = f"{node.name} would lose pieces that make no rectangle"
            raise CannotRewrite(self.removed(value), why)
        return kept

    def rectangular(self, value: Value) -> bool:
        return self._look(value)[1]

    def shape(self, value: Value) -> list[int]:
        """The shape of what is kept."""
        kept, _ = self._look(value)
        sizes = zip(kept, value.shape, strict=True)
        return [size if keep is None else int(keep.sum()) for keep, size in sizes]

    def whole(self, value: Value) -> bool:
        """Whether a value lost nothing."""
        # Values live as long as the graph, so their ids are not given to others.
        if id(value) not in self._whole:
            self._whole[id(value)] = all(
                bool(self.keep[flat(factor)].all()) for factor in value.factors
            )
        return self._whole[id(value)]

    def removed(self, value: Value) -> Tensor:
        """The removed labels of a value. int64"""
        none = torch.zeros(0, dtype=torch.int64)
        labels = torch.cat([none, *(flat(factor) for factor in value.factors)])
        return labels[~self.keep[labels]]

    def _look(self, value: Value) -> tuple[Kept, bool]:
        # Values live as long as the graph, so their ids are not given to others.
        if id(value) not in self._known:
            kept: Kept = [None] * len(value.shape)
            rectangular = True
            for factor in value.factors:
                if not self._narrow(kept, factor):
                    rectangular = False
            self._known[id(value)] = kept, rectangular
        return self._known[id(value)]

    def _narrow(self, kept: Kept, factor: Factor) -> bool:
        """Narrow `kept` by one factor. False where what it keeps is no rectangle."""
        dims = varies(factor)
        keep = self.keep[narrowed(factor, dims)]
        if bool(keep.all()):
            return True
        if len(dims) > 1:
            # Its labels vary along several dimensions, as after `flatten` and `view`; what is
            # kept of them may not.
            dims = varies(collapsed(keep)) or dims[:1]
        rectangle = torch.ones([1] * keep.dim(), dtype=torch.bool)
        for d in dims:
            slices = keep.transpose(0, d).reshape(keep.size(d), -1)
            row = slices.any(1)  # an index is kept while anything at it is
            rectangle = rectangle & laid(row, d, keep.dim())
            before = kept[d]
            kept[d] = row if before is None else before & row
        return bool((rectangle == keep).all())
