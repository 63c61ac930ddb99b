"""Mutated files of every kind are read or refused in words: a few here, thousands in tests/faults.

`python3 run.py faults mutated` has the rest.
"""

from __future__ import annotations

import pytest

from tests.faults import mutations

FEW = 40


@pytest.mark.parametrize("name", mutations.KINDS)
def test_mutated_files_are_read_or_refused(name: str) -> None:
    counts = mutations.sweep(name, FEW)
    assert counts["refused"] + counts["read"] == FEW, "each is foreseen by its reader"
    # Both happen, or the mutations try nothing.
    assert counts["refused"] and counts["read"]
