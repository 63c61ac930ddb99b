"""Which indices of each value live, given the units that are gone."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from pruning.structure.dependency_graph import DependencyGraph
from pruning.structure.labels import Factor, compressed, flat, narrowed, varies
from pruning.structure.propagate import Value


class CannotRewrite(Exception):
    """The graph cannot be rewritten around these labels: they stay. labels: int64; why: of the operation in the way."""

    def __init__(self, labels: Tensor, why: str) -> None:
        super().__init__(why)
        self.labels, self.why = labels, why


class Liveness:
    """Answers for one set of dead units. A class because answers are remembered: values are asked about many times."""

    def __init__(self, dependencies: DependencyGraph, gone: NDArray[np.bool_]) -> None:
        """gone: (units,) True = removed."""
        self.dependencies = dependencies
        dead = np.append(gone, False)[
            dependencies.unit_of_label
        ]  # -1, what always stays, looks up the last
        self.keep = torch.from_numpy(~dead)
        self._answers: dict[int, tuple[list[Tensor | None], Tensor | None]] = {}

    def of(self, node: fx.Node) -> list[Tensor | None]:
        """For each dimension of a node's value, which indices live; None = all. Raises Stuck where they make no rectangle."""
        kept, ragged = self._look(self.value(node))
        if ragged is not None:
            raise CannotRewrite(ragged, f"{node.name} would lose pieces that make no rectangle")
        return kept

    def value(self, node: fx.Node) -> Value:
        found = self.dependencies.propagation.results[node]
        assert isinstance(found, Value)
        return found

    def rectangular(self, value: Value) -> bool:
        return self._look(value)[1] is None

    def shape(self, value: Value) -> list[int]:
        return [
            n if kept is None else int(kept.sum())
            for kept, n in zip(self._look(value)[0], value.shape, strict=True)
        ]

    def labels(self, value: Value) -> Tensor:
        """The dead labels of a value."""
        found = [flat(f) for f in value.factors]
        every = torch.cat(found) if found else torch.zeros(0, dtype=torch.int64)
        return every[~self.keep[every]]

    def _look(self, value: Value) -> tuple[list[Tensor | None], Tensor | None]:
        if id(value) not in self._answers:
            kept: list[Tensor | None] = [None] * len(value.shape)
            ragged = None
            for factor in value.factors:
                if not self._meet(kept, factor):
                    ragged = self.labels(value)
            self._answers[id(value)] = kept, ragged
        return self._answers[id(value)]

    def _meet(self, kept: list[Tensor | None], factor: Factor) -> bool:
        """Narrow `kept` by one factor. False when what lives of it is no product of what lives of each dimension."""
        dims = varies(factor)
        alive = self.keep[narrowed(factor, dims)]
        if bool(alive.all()):
            return True
        alive = alive.expand(alive.shape)
        if len(dims) > 1:
            dims = varies(compressed(alive)) or dims[:1]
        rows = {d: alive.transpose(0, d).reshape(alive.size(d), -1).any(1) for d in dims}
        box = torch.ones([1] * alive.dim(), dtype=torch.bool)
        for d, row in rows.items():
            box = box & row.view([-1 if i == d else 1 for i in range(alive.dim())])
            kept[d] = row if kept[d] is None else kept[d] & row  # type: ignore[operator]
        return bool((box == alive).all())
