"""Tiny drawings of what a technique does, as plain data for cards.js. A name it does not know gets none: the sentence says it."""

from __future__ import annotations

import random
from typing import Any

from pruning.allocation.schedules import grow

SIDE = 6  # cells of a grid
POINTS = 17  # of a curve

Bars = list[list[float]]

CRITERIA: dict[str, Bars] = {
    # weights as bars: [how large, share that stays]; of whole units, how large the unit's score is
    "magnitude": [[0.95, 1], [0.3, 0], [0.7, 1], [0.15, 0], [0.55, 1], [0.22, 0], [0.85, 1]],
    "taylor": [[0.95, 0], [0.3, 1], [0.7, 1], [0.15, 0], [0.55, 1], [0.22, 0], [0.85, 1]],
    "gradient": [[0.55, 1], [0.9, 0], [0.3, 1], [0.7, 0], [0.2, 1], [0.85, 0], [0.4, 1]],
    "fisher": [[0.5, 1], [0.9, 1], [0.35, 1], [0.7, 0], [0.2, 0], [0.45, 0], [0.6, 1]],
    "obd": [[0.15, 0], [0.4, 1], [0.75, 1], [0.95, 1], [0.75, 1], [0.4, 0], [0.15, 0]],
    "hutchinson": [[0.4, 1], [0.2, 0], [0.75, 1], [0.95, 0], [0.6, 1], [0.4, 0], [0.15, 1]],
    "obs": [[0.7, 0], [1, 1], [0.35, 0], [0.95, 1], [0.8, 1], [0.3, 0], [0.9, 1]],
    "snip": [[0.2, 0], [0.35, 1], [0.3, 0], [0.4, 1], [0.25, 0], [0.35, 1], [0.2, 0]],
    "grasp": [[0.2, 0], [0.3, 1], [0.4, 1], [0.5, 0], [0.6, 1], [0.7, 1], [0.8, 1]],
    "synflow": [[0.9, 1], [0.75, 1], [0.6, 1], [0.45, 0.8], [0.35, 0.5], [0.25, 0.2], [0.15, 0]],
    "wanda": [[0.95, 0.4], [0.3, 0.9], [0.7, 0.7], [0.15, 0], [0.55, 0.2], [0.22, 1], [0.85, 1]],
    "movement": [[0.2, 1], [0.35, 1], [0.5, 1], [0.65, 0.5], [0.5, 0], [0.35, 0], [0.2, 0]],
    "bn_scale": [[0.9, 1], [0.06, 0], [0.8, 1], [0.04, 0], [0.7, 1], [0.08, 0], [0.85, 1]],
    "geometric_median": [[0.95, 1], [0.6, 0], [0.55, 0], [0.58, 0], [0.2, 1], [0.8, 1], [0.1, 1]],
    "activation": [[0.9, 1], [0.75, 1], [0.1, 0], [0.85, 1], [0.05, 0], [0.12, 0], [0.95, 1]],
    "random": [[0.95, 0], [0.3, 1], [0.7, 0], [0.15, 1], [0.55, 0], [0.22, 1], [0.85, 1]],
}
SCOPES: dict[str, Bars] = {
    # layers as bars of one height: share that stays
    "global": [[1, 0.85], [1, 0.25], [1, 0.5], [1, 0.9]],
    "per_layer": [[1, 0.5]] * 4,
    "erk": [[0.3, 0.95], [0.65, 0.55], [1, 0.3], [0.5, 0.75]],
    "lamp": [[1, 0.7], [1, 0.35], [1, 0.5], [1, 0.8]],
    "threshold": [[0.9, 1], [0.3, 0], [0.6, 1], [0.2, 0], [0.75, 1], [0.35, 0]],
    "by_sensitivity": [[1, 0.95], [1, 0.15], [1, 0.35], [1, 0.75]],
    "manual": [[1, 1], [1, 0.2], [1, 0.7], [1, 0.4]],
}


def of(kind: str, name: str) -> dict[str, Any] | None:
    """{"kind": "bars", "grid" or "curve", "values": ...}, or None."""
    if kind == "schedule":
        return {"kind": "curve", "values": curve(name)}
    if kind == "granularity":
        rows = grid(name)
        return {"kind": "grid", "values": rows} if rows else None
    bars = {"criterion": CRITERIA, "scope": SCOPES}[kind].get(name)
    return {"kind": "bars", "values": bars} if bars else None


def grid(granularity: str) -> list[list[int]] | None:
    """A weight matrix, 1 where a weight stays: rows are outputs."""
    cells = range(SIDE)
    match granularity:
        case "weight":
            chance = random.Random(4)
            gone = set(chance.sample(range(SIDE * SIDE), SIDE * SIDE // 2))
            return [[int(y * SIDE + x not in gone) for x in cells] for y in cells]
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
