"""What a sensitivity map comes to: lines for a shell, ratios that stay within a tolerated drop, and what they foretell. No torch."""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pruning import events, registry
from pruning.events import Accuracy, Point
from pruning.stats import isotonic, lower_hull

TOLERATED = 0.01


def arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--model", required=True)
    sub.add_argument("--criterion", default="magnitude", help="default %(default)s")
    sub.add_argument(
        "--options",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="of the criterion; again for more",
    )
    sub.add_argument("--granularity", default="weight", help="default %(default)s")
    sub.add_argument(
        "--granularity-options",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="again for more",
    )
    sub.add_argument(
        "--tier",
        default="exact",
        choices=("estimate", "progressive", "exact"),
        help="default %(default)s",
    )
    sub.add_argument(
        "--levels",
        nargs="+",
        type=float,
        metavar="SHARE",
        help="shares of each layer to remove (default: nine)",
    )
    sub.add_argument(
        "--within",
        type=float,
        default=2.0,
        help="progressive: points on either side at which a cell is sure enough (2)",
    )
    sub.add_argument(
        "--exclude", action="append", default=[], metavar="LAYER", help="again for more"
    )
    sub.add_argument(
        "--examples", type=int, help="validation images looked at, at most (default: all)"
    )
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument(
        "--threads",
        type=int,
        default=0,
        help="of one processor each (default: 2 where two are idle, else 1)",
    )


def show(args: argparse.Namespace, pair: Callable[[str], tuple[str, Any]]) -> None:
    """Which layers can give: a line for each layer and ratio, the last one what a point of accuracy buys."""
    import torch

    from pruning.runs.resolve import resolve
    from pruning.sensitivity_map.measure import LEVELS, free, sensitivity

    registry.entry("criterion", args.criterion)
    work, began = resolve(args.model), time.perf_counter()
    torch.set_num_threads(1)
    points = []
    for point in sensitivity(
        work,
        args.criterion,
        tuple(args.levels or LEVELS),
        options=dict(map(pair, args.options)),
        granularity=args.granularity,
        granularity_options=dict(map(pair, args.granularity_options)),
        exclude=tuple(args.exclude),
        seed=args.seed,
        tier=args.tier,
        within=args.within / 100,
        examples=args.examples,
        workers=args.threads or free(),
    ):
        points.append(point)
        print(json.dumps(line(point)) if args.json else words(point), flush=True)
    asked = {
        "model": args.model,
        "criterion": args.criterion,
        "granularity": args.granularity,
        "tier": args.tier,
    }
    found = summary(points) | {"seconds": time.perf_counter() - began}
    print(json.dumps({"event": "summary", **asked, **found}) if args.json else told(found))


def line(point: Point) -> dict[str, Any]:
    """A point as plain data, with its change of accuracy and loss against the dense model."""
    accuracy = None
    if point.accuracy:
        accuracy = {"value": point.accuracy.value, **dataclasses.asdict(point.accuracy)}
    return events.to_dict(point) | {
        "accuracy": accuracy,
        "change": point.change,
        "loss_change": point.loss - point.loss_dense,
    }


def words(point: Point) -> str:
    share = f"{point.layer:28} {point.level:5.0%} gone, {point.kept:,} of {point.units:,} left: "
    if point.accuracy is None or point.interval is None or point.change is None:
        return f"{share}loss {point.loss_dense:.3f} → {point.loss:.3f} (estimate)"
    low, high = (100 * bound for bound in point.interval)
    return f"{share}{point.accuracy.value:.1%} of {point.accuracy.total:,}, {100 * point.change:+.1f} points ({low:+.1f} to {high:+.1f})"


def summary(points: Sequence[Point]) -> dict[str, Any]:
    """Cells, the dense model's accuracy, and for each layer the highest ratio that costs at most a point of accuracy by itself."""
    layers = list(dict.fromkeys(point.layer for point in points))
    measured = [point for point in points if point.accuracy]
    most: dict[str, float] = dict.fromkeys(layers, 0.0)
    for layer in layers:
        for point in sorted((p for p in measured if p.layer == layer), key=lambda p: p.level):
            if point.change is None or point.change < -TOLERATED:
                break
            most[layer] = point.level
    dense = None
    if (
        measured
        and (widest := max(measured, key=lambda p: p.accuracy.total if p.accuracy else 0)).accuracy
    ):
        held = Accuracy(widest.accuracy.correct + widest.lost - widest.won, widest.accuracy.total)
        dense = {"value": held.value, **dataclasses.asdict(held)}
    return {
        "cells": len(points),
        "layers": len(layers),
        "accuracy_dense": dense,
        "within_1_point": most if measured else None,
    }


def told(found: dict[str, Any]) -> str:
    dense, most = found["accuracy_dense"], found["within_1_point"]
    said = f"{found['cells']} cells of {found['layers']} layers in {found['seconds']:.1f} s"
    if not dense:
        return (
            f"{said}, estimated from gradients: the order of cells is worth more than their numbers"
        )
    lines = [f"  {layer:28} {level:.0%}" for layer, level in most.items()]
    return "\n".join(
        [
            f"{said}; dense {dense['value']:.1%} of {dense['total']:,}. Within 1 point, each layer by itself:",
            *lines,
        ]
    )


# ---------------------------------------------------------------- from cells to ratios


def changes(points: Iterable[Point]) -> dict[str, tuple[list[float], list[float]]]:
    """Layer -> (ratios from 0 on, change of the mean loss at each, which only rises)."""
    rows: dict[str, dict[float, float]] = {}
    for point in points:
        rows.setdefault(point.layer, {0.0: 0.0})[point.level] = point.loss - point.loss_dense
    found = {}
    for layer, row in rows.items():
        levels = sorted(row)
        found[layer] = (levels, np.maximum.accumulate([row[level] for level in levels]).tolist())
    return found


def predicted(points: Sequence[Point], ratios: Mapping[str, float]) -> tuple[float, float | None]:
    """(change of the mean loss, fall of accuracy as a share) of several layers' ratios together.

    Losses add up, as if layers did not meet; accuracy is read off where single cells with that loss lie. None: nothing was measured.
    """
    curves = changes(points)
    loss = sum(
        float(np.interp(ratio, *curves[layer]))
        for layer, ratio in ratios.items()
        if layer in curves
    )
    return loss, worth(points)(loss)


def worth(points: Iterable[Point]) -> Callable[[float], float | None]:
    """What a change of the loss means for accuracy, from the measured cells: the fall that rises with the loss and fits them best.

    Isotonic regression by pooling adjacent violators, Ayer et al., 1955, https://doi.org/10.1214/aoms/1177728423
    """
    cells = sorted(
        (max(0.0, p.loss - p.loss_dense), -p.change) for p in points if p.change is not None
    )
    if not cells:
        return lambda loss: None
    losses, falls = isotonic(*zip((0.0, 0.0), *cells, strict=True))  # nothing costs nothing
    at = [0.0, *losses]
    falls = [0.0, *np.maximum(falls, 0.0)]
    return lambda loss: float(np.interp(loss, at, falls))


def fill(points: Sequence[Point], weights: Mapping[str, int], tolerated: float) -> dict[str, float]:
    """The ratio of each layer that removes the most weights while accuracy is foretold to fall by at most `tolerated`, a share.

    The next step is always the one with the least loss for each weight. weights: of each layer. Layers that give nothing are left out.
    """
    curves, of = changes(points), worth(points)
    steps = {
        layer: lower_hull(list(zip(levels, losses, strict=True)))
        for layer, (levels, losses) in curves.items()
        if layer in weights
    }
    at: dict[str, int] = dict.fromkeys(steps, 0)
    spent, open_ = 0.0, {layer for layer, hull in steps.items() if len(hull) > 1}
    while open_:
        layer = min(
            open_,
            key=lambda name: (
                _slope(steps[name], at[name]) / weights[name],
                list(steps).index(name),
            ),
        )
        hull = steps[layer]
        cost = hull[at[layer] + 1][1] - hull[at[layer]][1]
        fall = of(spent + cost)
        if fall is None or fall > tolerated:
            open_.discard(layer)
            continue
        spent, at[layer] = spent + cost, at[layer] + 1
        if at[layer] + 1 == len(hull):
            open_.discard(layer)
    return {layer: steps[layer][i][0] for layer, i in at.items() if i}


def _slope(hull: list[tuple[float, float]], i: int) -> float:
    return (hull[i + 1][1] - hull[i][1]) / (hull[i + 1][0] - hull[i][0])
