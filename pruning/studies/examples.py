"""Test examples as pictures: which ones two runs answer differently is known without the model."""

from __future__ import annotations

from typing import Any

import torch

from pruning.errors import OutOfRange
from pruning.studies.card import pictures
from pruning.studies.weights import Arrays
from pruning.types import Workpiece

MOST = 48
"""Examples that are shown at a time."""


def examples(spec: dict[str, Any], work: Workpiece) -> tuple[dict[str, Any], Arrays]:
    """spec["examples"]: numbers of test examples, in the order of the data.

    json: "examples", "classes", their names; npz: images (n, H, W[, 3]) or series (n, L) in [0, 1],
    none where an example has several inputs. Raises DataError without test data, OutOfRange.
    """
    test = work.need("test", "Showing test examples")
    chosen = spec["examples"]
    whole = isinstance(chosen, list) and all(type(number) is int for number in chosen)
    if not whole or not 0 < len(chosen) <= MOST:
        raise OutOfRange("A choice of test examples", chosen, f"1 to {MOST} whole numbers")
    if min(chosen) < 0 or max(chosen) >= test.examples:
        last = test.examples - 1
        raise OutOfRange("A test example's number", chosen, f"numbers from 0 to {last:,}")
    data = {"examples": chosen, "classes": list(work.classes)}
    if isinstance(test.x, tuple):
        return data, {}
    return data, pictures(test.x[torch.tensor(chosen)].cpu())
