"""Alternatives of sample models that come with them, so that the advisor answers at once.

`python -m pruning.advice.make` makes them: rows as `studies.alternatives` has them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pruning.storage import SAMPLES, whole

FOLDER = SAMPLES / "advice"


@dataclass(frozen=True)
class Shipped:
    """date: "2026-11-26"; machine: as runs record it; plan: what was made, as the study's spec."""

    model: str
    date: str
    machine: dict[str, Any]
    plan: dict[str, Any]
    rows: tuple[dict[str, Any], ...]


def names() -> list[str]:
    """Models with shipped alternatives."""
    return sorted(file.stem for file in FOLDER.glob("*.json"))


def find(model: str) -> Shipped | None:
    """Of a sample model; None where there are none. Shared: not to be changed."""
    # Only names of files that are there, so that a name from outside is no path.
    return read(FOLDER / f"{model}.json") if model in names() else None


@lru_cache(maxsize=32)
def read(file: Path) -> Shipped:
    data = json.loads(file.read_text(encoding="utf-8"))
    rows = tuple(data["rows"])
    return Shipped(data["model"], data["date"], data["machine"], data["plan"], rows)


def write(file: Path, shipped: Shipped) -> None:
    """A row a line, so that a change of one is one line of a comparison."""
    names = ("model", "date", "machine", "plan")
    parts = [f"{json.dumps(name)}: {json.dumps(getattr(shipped, name))}" for name in names]
    rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in shipped.rows)
    file.parent.mkdir(exist_ok=True)
    with whole(file) as draft:
        draft.write_text("{" + ",\n".join(parts) + f',\n"rows": [\n{rows}\n]}}\n', encoding="utf-8")
