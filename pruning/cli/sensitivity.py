"""`python -m pruning sensitivity`: which layers can be pruned, each alone, at every ratio."""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from typing import Any

from pruning import events, registry
from pruning.cli import options, text
from pruning.events import Point
from pruning.runs.resolve import resolve
from pruning.sensitivity_map.planning import summary

HELP = "which layers can be pruned: each alone, at every ratio; the last line sums up"


def arguments(sub: argparse.ArgumentParser) -> None:
    default = "default %(default)s"
    sub.add_argument("--model", required=True)
    options.data(sub)
    sub.add_argument("--criterion", default="magnitude", help=default)
    options.repeated(sub, "--options", "NAME=VALUE", "of the criterion; again for more")
    sub.add_argument("--granularity", default="weight", help=default)
    options.repeated(sub, "--granularity-options", "NAME=VALUE")
    tiers = ("estimate", "progressive", "exact")
    sub.add_argument("--tier", default="exact", choices=tiers, help=default)
    levels = "shares of each layer to remove (default: nine)"
    sub.add_argument("--levels", nargs="+", type=float, metavar="SHARE", help=levels)
    within = "progressive: percentage points on either side at which a cell is sure enough (2)"
    sub.add_argument("--within", type=float, default=2.0, help=within)
    options.repeated(sub, "--exclude", "LAYER")
    examples = "validation images looked at, at most (default: all)"
    sub.add_argument("--examples", type=int, help=examples)
    reconstruct = "solve the layers of each cell anew before it is measured (tier exact)"
    sub.add_argument("--reconstruct", action="store_true", help=reconstruct)
    sub.add_argument("--seed", type=int, default=0)
    options.device(sub)
    options.threads(sub, "of one processor each (default: 2 where two are idle, else 1)")


def execute(args: argparse.Namespace) -> None:
    """Which layers can be pruned: a line a layer and ratio, then what a point of accuracy buys."""
    from pruning.runs.map_study import reconstructed
    from pruning.sensitivity_map.sensitivity import LEVELS, free, sensitivity

    # A name that is not there is said before a model is loaded, which may take a download.
    registry.entry("criterion", args.criterion)
    work = resolve(options.with_data(options.model(args.model), args))
    work = options.on_device(work, args)
    began = time.perf_counter()
    # Workers are threads of one processor each: torch's own would fight with them.
    options.use_threads(1)
    repair = None
    if args.reconstruct:
        data = work.need("train", "Reconstruction")
        repair = partial(reconstructed, work=work, data=data, seed=args.seed)
    points = []
    for point in sensitivity(
        work,
        args.criterion,
        tuple(args.levels or LEVELS),
        options=options.pairs(args.options),
        granularity=args.granularity,
        granularity_options=options.pairs(args.granularity_options),
        exclude=args.exclude,
        seed=args.seed,
        tier=args.tier,
        within=args.within / 100,  # people think in points, the engine in shares
        examples=args.examples,
        workers=args.threads or free(),
        keep=options.maps(),
        repair=repair,
    ):
        points.append(point)
        print(json.dumps(_line(point)) if args.json else _words(point), flush=True)
    estimated = all(point.tier == "estimate" for point in points)
    end = summary(points) | {"seconds": time.perf_counter() - began, "estimated": estimated}
    if args.json:
        asked = {
            name: getattr(args, name) for name in ("model", "criterion", "granularity", "tier")
        }
        print(json.dumps({"event": "summary"} | asked | end))
    else:
        print(summary_text(end))


def _line(point: Point) -> dict[str, Any]:
    """A point as plain data, with its change of accuracy and loss against the dense model."""
    # Changes are what maps are read for; scripts need not work them out.
    return events.to_dict(point) | {
        "accuracy": text.share(point.accuracy),
        "change": point.change,
        "loss_change": point.loss - point.loss_dense,
    }


def _words(point: Point) -> str:
    cell = f"{point.layer:28} {point.level:5.0%} removed, {point.kept:,} of {point.units:,} kept: "
    # An estimate from gradients knows the loss alone.
    if point.accuracy is None or point.interval is None or point.change is None:
        estimate = " (estimate)" if point.tier == "estimate" else ""
        return f"{cell}loss {point.loss_dense:.3f} → {point.loss:.3f}{estimate}"
    low, high = (100 * bound for bound in point.interval)
    return (
        f"{cell}{point.accuracy.value:.1%} of {point.accuracy.total:,}, "
        f"{100 * point.change:+.1f} percentage points ({low:+.1f} to {high:+.1f})"
    )


def summary_text(end: dict[str, Any]) -> str:
    """A summary in words. end: of planning.summary, with the seconds that it took."""
    dense = end["accuracy_dense"]
    cells = f"{end['cells']} cells of {end['layers']} layers in {end['seconds']:.1f} s"
    if not dense:
        if not end.get("estimated", True):
            return f"{cells}: the loss alone, for answers are not right or wrong here"
        worth = "the order of cells is worth more than their numbers"
        return f"{cells}, estimated from gradients: {worth}"
    title = (
        f"{cells}; dense {dense['value']:.1%} of {dense['total']:,}. "
        "Within 1 percentage point, each layer by itself:"
    )
    rows = [f"  {layer:28} {level:.0%}" for layer, level in end["within_1_point"].items()]
    return "\n".join([title, *rows])
