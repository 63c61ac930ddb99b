"""Sweeps of sample models that come with them, so that their pages open on the finished picture.

`python -m pruning.sweeps.make` makes them. Their rows are those of `sweeps.rows`, with no runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pruning.metrics import Paired
from pruning.outcomes import paired
from pruning.storage import SAMPLES, whole
from pruning.sweeps.plan import Plan

FOLDER = SAMPLES / "sweeps"


@dataclass(frozen=True)
class Shipped:
    """A finished sweep. date: "2026-11-26"; machine: as runs record it (versions, threads ...);
    rows: as `table.row` makes them; outcomes: recipe's id -> which test examples its run answered
    correctly (`outcomes.pack`).
    """

    plan: Plan
    date: str
    machine: dict[str, Any]
    rows: list[dict[str, Any]]
    outcomes: dict[str, str]

    def paired(self, first: Mapping[str, Any], second: Mapping[str, Any]) -> Paired | None:
        """The answers of two rows' runs to the same test examples; gained: only the first's are
        right. None where they are not known.
        """
        a, b = (self.outcomes.get(row["recipe"]) for row in (first, second))
        return paired(a, b, first["examples"]) if a and b else None


def names() -> list[str]:
    """Models with a shipped sweep."""
    return sorted(file.stem for file in FOLDER.glob("*.json"))


def find(model: str) -> Shipped | None:
    """The shipped sweep of a sample model; None where there is none. Shared: not to be changed."""
    # Only names of files that are there, so that a name from outside is no path.
    return _read(FOLDER / f"{model}.json") if model in names() else None


@lru_cache(maxsize=32)
def _read(file: Path) -> Shipped:
    data = json.loads(file.read_text(encoding="utf-8"))
    plan = Plan.from_dict(data["plan"])
    return Shipped(plan, data["date"], data["machine"], data["rows"], data["outcomes"])


def write(file: Path, shipped: Shipped) -> None:
    """A row a line, so that a change of one point is one line of a comparison."""
    head = {"plan": shipped.plan.to_dict(), "date": shipped.date, "machine": shipped.machine}
    parts = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
    rows = ",\n".join(json.dumps(row, separators=(",", ":")) for row in shipped.rows)
    outcomes = json.dumps(shipped.outcomes, indent=0)
    text = "{" + ",\n".join(parts) + f',\n"rows": [\n{rows}\n],\n"outcomes": {outcomes}}}\n'
    with whole(file) as draft:
        draft.write_text(text, encoding="utf-8")
