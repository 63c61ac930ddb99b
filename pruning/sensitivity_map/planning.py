"""From a sensitivity map to ratios: what each layer can lose, what ratios cost together, and the
ratios that stay within a tolerated drop of accuracy. No torch: the page plans while a slider moves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from pruning.events import Accuracy, Point
from pruning.stats import isotonic, lower_hull

TOLERATED = 0.01
"""Drop of accuracy, a share, that the summary allows a layer."""


def summary(points: Sequence[Point]) -> dict[str, Any]:
    """cells, layers, accuracy_dense, and within_1_point: layer -> the highest ratio that costs at
    most a percentage point of accuracy by itself. The last two are None where nothing is measured.
    """
    layers = list(dict.fromkeys(point.layer for point in points))
    measured = [point for point in points if point.accuracy]
    return {
        "cells": len(points),
        "layers": len(layers),
        "accuracy_dense": _dense_accuracy(measured),
        "within_1_point": _highest_ratios(layers, measured) if measured else None,
    }


def _highest_ratios(layers: Iterable[str], measured: Sequence[Point]) -> dict[str, float]:
    highest: dict[str, float] = dict.fromkeys(layers, 0.0)
    failed = set()
    for point in sorted(measured, key=lambda point: point.level):
        # A row ends at its first drop: a higher ratio that costs less again is luck.
        if point.change is None or point.change < -TOLERATED:
            failed.add(point.layer)
        if point.layer not in failed:
            highest[point.layer] = point.level
    return highest


def _dense_accuracy(measured: Iterable[Point]) -> dict[str, Any] | None:
    """The dense model's, on the most images that any cell was measured on."""
    most: Point | None = None
    for point in measured:
        if most is None or _images(point) > _images(most):
            most = point
    if most is None or most.accuracy is None:
        return None
    # Cells keep only where they differ from the dense model, so its answers are worked out back.
    correct = most.accuracy.correct + most.lost - most.won
    dense = Accuracy(correct, most.accuracy.total)
    return {"value": dense.value, **asdict(dense)}


def _images(point: Point) -> int:
    return point.accuracy.total if point.accuracy else 0


# ---------------------------------------------------------------- from cells to ratios


def changes(points: Iterable[Point]) -> dict[str, tuple[list[float], list[float]]]:
    """Layer -> (ratios from 0 on, change of the mean loss at each, which only rises)."""
    rows: dict[str, dict[float, float]] = {}
    for point in points:
        row = rows.setdefault(point.layer, {0.0: 0.0})
        row[point.level] = point.loss - point.loss_dense
    curves = {}
    for layer, row in rows.items():
        levels = sorted(row)
        # A dip is noise of few images: a plan that counted on it would be disappointed.
        losses = np.maximum.accumulate([row[level] for level in levels])
        curves[layer] = (levels, losses.tolist())
    return curves


def predicted(points: Sequence[Point], ratios: Mapping[str, float]) -> tuple[float, float | None]:
    """(change of the mean loss, fall of accuracy as a share) of several layers' ratios together.

    Losses add up, as if layers did not act on each other; accuracy is read off where single cells
    with that loss lie. None: nothing was measured.
    """
    curves = changes(points)
    loss = 0.0
    for layer, ratio in ratios.items():
        if layer in curves:
            loss += float(np.interp(ratio, *curves[layer]))
    return loss, worth(points)(loss)


def worth(points: Iterable[Point]) -> Callable[[float], float | None]:
    """What a change of the loss means for accuracy: the fall that only rises with the loss and fits
    the measured cells best, by isotonic regression. The function says None where there are none.
    """
    measured = [point for point in points if point.change is not None]
    if not measured:
        return lambda loss: None
    cells = [(0.0, 0.0)]  # removing nothing costs nothing
    for point in measured:
        loss = max(0.0, point.loss - point.loss_dense)
        cells.append((loss, -(point.change or 0.0)))
    cells[1:] = sorted(cells[1:])
    losses, falls = isotonic(*zip(*cells, strict=True))
    # From the origin on, even where the first pool lies apart from it.
    losses = np.append(0.0, losses)
    falls = np.append(0.0, np.maximum(falls, 0.0))
    return lambda loss: float(np.interp(loss, losses, falls))


def fill(points: Sequence[Point], weights: Mapping[str, int], tolerated: float) -> dict[str, float]:
    """The ratio of each layer that removes the most weights while accuracy is predicted to fall by
    at most `tolerated`, a share. Greedy: the next step is the one with the least loss a weight.

    weights: of each layer. Layers that cannot lose anything are left out.
    """
    fall_at = worth(points)
    # Along the hull the loss of a weight only rises, so that no later step is a better bargain.
    hulls = {
        layer: lower_hull(list(zip(*curve, strict=True)))
        for layer, curve in changes(points).items()
        if layer in weights
    }
    steps: dict[str, int] = dict.fromkeys(hulls, 0)
    open_layers = [layer for layer, hull in hulls.items() if len(hull) > 1]
    spent = 0.0

    def price(layer: str) -> float:
        """Loss of the layer's next step, for each weight that it removes."""
        (ratio, loss), (next_ratio, next_loss) = hulls[layer][steps[layer] :][:2]
        return (next_loss - loss) / (next_ratio - ratio) / weights[layer]

    while open_layers:
        # Of equal prices, `min` takes the first layer.
        layer = min(open_layers, key=price)
        step, hull = steps[layer], hulls[layer]
        cost = hull[step + 1][1] - hull[step][1]
        fall = fall_at(spent + cost)
        if fall is None or fall > tolerated:
            open_layers.remove(layer)
            continue
        spent += cost
        steps[layer] += 1
        if steps[layer] + 1 == len(hull):
            open_layers.remove(layer)
    ratios = {layer: hulls[layer][step][0] for layer, step in steps.items()}
    return {layer: ratio for layer, ratio in ratios.items() if ratio}
