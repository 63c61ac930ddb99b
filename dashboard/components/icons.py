"""Tiny drawings of what a technique does, as plain data for cards.js.

A technique without one shows its name and sentence alone.
"""

from __future__ import annotations

import random
from functools import cache
from typing import Any

from pruning.allocation.schedules import grow

SIDE = 6  # cells of a grid
POINTS = 17  # of a curve

# Bars, each of two numbers in percent. Of a criterion: how large a weight (or a unit's score) is,
# and below it how much of it is kept.
CRITERIA = {
    "magnitude": (
        " 95  30  70  15  55  22  85",
        "100   0 100   0 100   0 100",
    ),
    "taylor": (
        " 95  30  70  15  55  22  85",
        "  0 100 100   0 100   0 100",
    ),
    "gradient": (
        " 55  90  30  70  20  85  40",
        "100   0 100   0 100   0 100",
    ),
    "fisher": (
        " 50  90  35  70  20  45  60",
        "100 100 100   0   0   0 100",
    ),
    "obd": (
        " 15  40  75  95  75  40  15",
        "  0 100 100 100 100   0   0",
    ),
    "hutchinson": (
        " 40  20  75  95  60  40  15",
        "100   0 100   0 100   0 100",
    ),
    "obs": (
        " 70 100  35  95  80  30  90",
        "  0 100   0 100 100   0 100",
    ),
    "snip": (
        " 20  35  30  40  25  35  20",
        "  0 100   0 100   0 100   0",
    ),
    "grasp": (
        " 20  30  40  50  60  70  80",
        "  0 100 100   0 100 100 100",
    ),
    "synflow": (
        " 90  75  60  45  35  25  15",
        "100 100 100  80  50  20   0",
    ),
    "wanda": (
        " 95  30  70  15  55  22  85",
        " 40  90  70   0  20 100 100",
    ),
    "movement": (
        " 20  35  50  65  50  35  20",
        "100 100 100  50   0   0   0",
    ),
    "bn_scale": (
        " 90   6  80   4  70   8  85",
        "100   0 100   0 100   0 100",
    ),
    "geometric_median": (
        " 95  60  55  58  20  80  10",
        "100   0   0   0 100 100 100",
    ),
    "activation": (
        " 90  75  10  85   5  12  95",
        "100 100   0 100   0   0 100",
    ),
    "reconstruction": (
        " 60  90  45  85  70  30  55",
        "100   0 100 100   0   0 100",
    ),
    "random": (
        " 95  30  70  15  55  22  85",
        "  0 100   0 100   0 100 100",
    ),
}
# Of a scope: a bar for each layer.
SCOPES = {
    "global": (
        "100 100 100 100",
        " 85  25  50  90",
    ),
    "per_layer": (
        "100 100 100 100",
        " 50  50  50  50",
    ),
    "erk": (
        " 30  65 100  50",
        " 95  55  30  75",
    ),
    "lamp": (
        "100 100 100 100",
        " 70  35  50  80",
    ),
    "threshold": (
        " 90  30  60  20  75  35",
        "100   0 100   0 100   0",
    ),
    "by_sensitivity": (
        "100 100 100 100",
        " 95  15  35  75",
    ),
    "manual": (
        "100 100 100 100",
        "100  20  70  40",
    ),
}


@cache
def of(kind: str, name: str) -> dict[str, Any] | None:
    """{"kind": "bars", "grid" or "curve", "values": ...}, or None."""
    if kind == "schedule":
        return {"kind": "curve", "values": curve(name)}
    if kind == "granularity":
        rows = grid(name)
        return {"kind": "grid", "values": rows} if rows else None
    bars = {"criterion": CRITERIA, "scope": SCOPES}[kind].get(name)
    if bars is None:
        return None
    sizes, kept = ([int(number) / 100 for number in row.split()] for row in bars)
    return {"kind": "bars", "values": list(map(list, zip(sizes, kept, strict=True)))}


def grid(granularity: str) -> list[list[int]] | None:
    """A weight matrix, 1 where a weight is kept: rows are outputs."""
    cells = range(SIDE)
    match granularity:
        case "weight":
            generator = random.Random(4)
            removed = set(generator.sample(range(SIDE * SIDE), SIDE * SIDE // 2))
            return [[int(y * SIDE + x not in removed) for x in cells] for y in cells]
        case "channel" | "row":
            return [[int(y not in (1, 2, 4)) for _ in cells] for y in cells]
        case "column":
            return [[int(x not in (1, 4)) for x in cells] for _ in cells]
        case "kernel":
            return [[int((x // 2 + y // 2 * 2) % 3 != 1) for x in cells] for y in cells]
        case "block":
            return [[int((x // 3 + y // 3) % 2 == 0) for x in cells] for y in cells]
        case "n_of_m":
            return [[int((x + y) % 4 in (0, 3)) for x in cells] for y in cells]
        case "head":
            return [[int(x // 2 != 1) for x in cells] for _ in cells]
    return None


def curve(schedule: str) -> list[float]:
    """Share of the final sparsity over the run, as the schedule itself says."""
    return [0.0, *(grow(schedule, i / (POINTS - 1), 0.9) for i in range(1, POINTS))]
