"""A model's groups as plain data: what pages and slider previews know of its structure. No torch here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Member:
    """A unit owns `each` indices of dimension `dim` of a parameter."""

    parameter: str
    dim: int
    each: int


@dataclass(frozen=True)
class Group:
    """Units that touch the same parameters and can go one by one, each with all its members.

    name: the first weight whose rows it holds; kind: "channels", "neurons" or "heads".
    """

    name: str
    kind: str
    units: int
    members: tuple[Member, ...]


@dataclass(frozen=True)
class Blocked:
    """`count` of the `size` indices of a parameter's dimension cannot go, and why: operation, module, shapes of what it reads."""

    parameter: str
    dim: int
    count: int
    size: int
    operation: str
    why: str
    where: str
    shapes: tuple[tuple[int, ...], ...]
