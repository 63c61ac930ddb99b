"""The lottery that comes with the workbench, so that its page opens on a finding.

`python -m dashboard.lesson_results` makes it, of the runs of the lesson that tells of it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from pruning.events import Ticket, from_json, to_json
from pruning.recipe import Recipe
from pruning.storage import SAMPLES, whole

FILE = SAMPLES / "lottery" / "digits-mlp.json"


@dataclass(frozen=True)
class Lottery:
    """A finished set. recipe: of its first seed; tickets: of each seed, in the order trained."""

    recipe: Recipe
    date: str
    machine: Mapping[str, Any]
    tickets: Sequence[Sequence[Ticket]]


@lru_cache(maxsize=2)
def shipped(file: Path = FILE) -> Lottery | None:
    """None where it was not made."""
    if not file.exists():
        return None
    data = json.loads(file.read_text(encoding="utf-8"))
    tickets = [[_ticket(text) for text in seed] for seed in data["tickets"]]
    return Lottery(Recipe.from_dict(data["recipe"]), data["date"], data["machine"], tickets)


def _ticket(data: dict[str, Any]) -> Ticket:
    event = from_json(json.dumps(data))
    assert isinstance(event, Ticket)
    return event


def write(lottery: Lottery, file: Path = FILE) -> None:
    """A ticket a line, so that a change of one is one line of a comparison."""
    head = {"recipe": lottery.recipe.to_dict(), "date": lottery.date, "machine": lottery.machine}
    seeds = [",\n".join(to_json(ticket) for ticket in seed) for seed in lottery.tickets]
    parts = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in head.items()]
    rows = "],\n[".join(seeds)
    file.parent.mkdir(parents=True, exist_ok=True)
    with whole(file) as draft:
        draft.write_text(
            "{" + ",\n".join(parts) + f',\n"tickets": [[{rows}]]}}\n', encoding="utf-8"
        )
