"""Arguments that several verbs share."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pruning.errors import RecipeError
from pruning.ranges import Range
from pruning.runs import own_models
from pruning.storage import default_workspace

AGAIN = "again for more"
THREADS = Range(1, 1024)


def repeated(sub: argparse.ArgumentParser, flag: str, metavar: str, help: str = AGAIN) -> None:
    """A flag that may be given several times; none at all is []."""
    sub.add_argument(flag, action="append", default=[], metavar=metavar, help=help)


def threads(sub: argparse.ArgumentParser, help: str = "CPU threads (default: torch's own)") -> None:
    sub.add_argument("--threads", type=int, help=help)


def model(text: str) -> str:
    """What a recipe calls the model of a flag; code and folders that it names may be used then.

    Raises RecipeError.
    """
    return own_models.name(text)


def use_threads(count: int | None) -> None:
    # Late, so that `--help` and mistyped flags do not wait for torch.
    import torch

    if count is not None:
        THREADS.check("threads", count, whole=True)
        torch.set_num_threads(count)


def maps() -> Path | None:
    """Where what was measured of layers is kept: in the workspace, if there is one."""
    workspace = default_workspace()
    return workspace / "maps" if workspace.is_dir() else None


def pairs(texts: Iterable[str]) -> dict[str, Any]:
    """NAME=VALUE each: a value that is JSON is read as such, any other is a string.

    Raises RecipeError for a text without "=".
    """
    values: dict[str, Any] = {}
    for text in texts:
        # From the right: names of layers hold no "=", but nothing forbids it.
        name, equals, value = text.rpartition("=")
        if not equals:
            raise RecipeError(f"{text!r} is not NAME=VALUE.")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
        except RecursionError:
            raise RecipeError(f"The value of {name} is nested too deep: give one value.") from None
    return values
