"""`python -m pruning list`: the techniques, models and data sets there are."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from pruning import registry

HELP = "the techniques, models and data sets there are"
LISTS = (*registry.PLURAL.values(), "models", "datasets")


def arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("what", choices=LISTS)


def execute(args: argparse.Namespace) -> None:
    """What there is, with one sentence on each."""
    rows = _rows(args.what)
    if args.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(f"{row['name']:22} {row['title']}")


def _rows(what: str) -> list[dict[str, Any]]:
    import sample_models

    if what == "models":
        return [asdict(sample_models.card(name)) for name in sample_models.names()]
    if what == "datasets":
        return sample_models.datasets()
    kind = next(kind for kind, plural in registry.PLURAL.items() if plural == what)
    return [asdict(entry) for entry in registry.entries(kind).values()]
