"""`python -m pruning inspect`: what is in a weights file, read without trusting it."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from pruning.formats import inspect

HELP = "what is in a weights file, read without trusting it"


def arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("file", type=Path)


def execute(args: argparse.Namespace) -> None:
    """What is in a weights file, read without trusting it."""

    # Nothing in the file is executed: a pickle is read as data.
    reading = asdict(inspect(args.file))
    if args.json:
        print(json.dumps(reading, default=str))
        return
    for key, value in reading.items():
        print(f"{key}: {value}")
