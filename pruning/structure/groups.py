"""A model's dependency groups as plain data: what pages and previews know of it. No torch here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Member:
    """A unit owns `each` indices of dimension `dim` of a parameter."""

    parameter: str
    dim: int
    each: int


@dataclass(frozen=True)
class Group:
    """Units with the same members, each of which can be removed alone, with all its members.

    name: the first weight whose rows belong to it; kind: "channels", "neurons" or "heads".
    """

    name: str
    kind: str
    units: int
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Blocked:
    """`count` of the `size` indices of a parameter's dimension cannot be removed, and why.

    operation: that stands in the way; where: its module; shapes: of what it reads.
    """

    parameter: str
    dim: int
    count: int
    size: int
    operation: str
    why: str
    where: str
    shapes: tuple[tuple[int, ...], ...]


class Numbering:
    """Numbers units through, group after group."""

    groups: tuple[Group, ...]

    @property
    def units(self) -> int:
        return sum(group.units for group in self.groups)

    @property
    def starts(self) -> NDArray[np.int64]:
        """The first unit of each group, and the end. (groups + 1,)"""
        counts = [group.units for group in self.groups]
        return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])


@dataclass(frozen=True)
class DependencyGroups(Numbering):
    """What pruning needs of a dependency graph, as plain data. how: it was captured.

    unit_of_index, first_name: as `NumberedUnits` has them.
    """

    groups: tuple[Group, ...]
    blocked: tuple[Blocked, ...]
    unit_of_index: Mapping[tuple[str, int], NDArray[np.int64]]
    first_name: Mapping[str, str]
    how: str


class NumberedUnits(Protocol):
    """Groups of units, numbered through group after group, with the unit of each index.

    A dependency graph is one; so are the rows of single layers. unit_of_index: (parameter,
    dimension) -> (size of the dimension,) unit numbers, -1 for none; starts: (groups + 1,).
    """

    @property
    def groups(self) -> tuple[Group, ...]: ...
    @property
    def unit_of_index(self) -> Mapping[tuple[str, int], NDArray[np.int64]]: ...
    @property
    def first_name(self) -> Mapping[str, str]: ...
    @property
    def units(self) -> int: ...
    @property
    def starts(self) -> NDArray[np.int64]: ...
