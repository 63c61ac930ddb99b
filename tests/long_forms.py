"""Tests of many members: a part of them each time, and all of them with `--long`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def in_part(members: Iterable[Any], each_time: Collection[Any]) -> list[Any]:
    """Parameters of a test: those that are not in `each_time` are marked `long`.

    A member that is a tuple is a value for each of the test's arguments.
    Raises ValueError for a name in `each_time` that is no member: it would be tested never.
    """
    members = list(members)
    unknown = [member for member in each_time if member not in members]
    if unknown:
        raise ValueError(f"No members of this test: {unknown}.")
    return [member if member in each_time else _marked(member) for member in members]


def _marked(member: Any) -> Any:
    values = member if isinstance(member, tuple) else (member,)
    return pytest.param(*values, marks=pytest.mark.long)
