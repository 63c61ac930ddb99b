"""`python -m pruning check`: scores of a criterion against the leave-one-out loss change."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import Any

from pruning.cli import options
from pruning.errors import RecipeError
from pruning.runs.resolve import resolve
from pruning.stats import Correlation, better_than_random, random_band

HELP = "criterion check: scores against the loss change when a unit is left out"


def arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--model", required=True)
    options.data(sub)
    every = "again for more (default: every layer that has such units)"
    options.repeated(sub, "--layer", "LAYER", every)
    usual = ["magnitude", "taylor", "random"]
    sub.add_argument("--criteria", nargs="+", default=usual, help="default: %(default)s")
    options.repeated(sub, "--options", "CRITERION.NAME=VALUE")
    sub.add_argument("--granularity", default="weight")
    options.repeated(sub, "--granularity-options", "NAME=VALUE")
    units = "of each layer, at most (default %(default)s)"
    sub.add_argument("--units", type=int, default=256, help=units)
    examples = "of the validation data, at most (default %(default)s)"
    sub.add_argument("--examples", type=int, default=1024, help=examples)
    sub.add_argument("--seed", type=int, default=0)
    options.threads(sub)
    options.device(sub)


EVENTS = {"CheckPlan": "plan", "CheckedUnit": "point", "CheckResult": "summary"}
"""What a part is called in lines of JSON."""


def execute(args: argparse.Namespace) -> None:
    """Scores against the leave-one-out loss change: a line a unit, then the rank correlations."""
    from pruning.analysis.criterion_check import (
        Check,
        CheckPlan,
        CheckResult,
        criterion_check,
    )
    from pruning.types import prunable

    options.use_threads(args.threads)
    work = resolve(options.with_data(options.model(args.model), args))
    work = options.on_device(work, args)
    # People leave out ".weight", which every layer's name ends in.
    full_names = {name.removesuffix(".weight"): name for name in prunable(work.model)}
    check = Check(
        layers=tuple(full_names.get(name, name) for name in args.layer),
        granularity=args.granularity,
        granularity_options=options.pairs(args.granularity_options),
        units=args.units,
        seed=args.seed,
    )
    # Lines come out while units are measured, so that a long check shows that it works.
    for part in criterion_check(work, check, _criteria(args), examples=args.examples):
        kind = EVENTS[type(part).__name__]
        if args.json:
            print(json.dumps({"event": kind} | asdict(part)), flush=True)
        elif isinstance(part, CheckPlan):
            print("\n".join(_plan(part, f"{args.model} by {args.granularity}")))
        elif isinstance(part, CheckResult):
            print("\n".join(_summary(part)))


def _criteria(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Criterion -> its options."""
    criteria: dict[str, dict[str, Any]] = {name: {} for name in args.criteria}
    for key, value in options.pairs(args.options).items():
        # Criteria share names of options, so that each option says whose it is.
        name, _, option = key.partition(".")
        if name not in criteria or not option:
            known = ", ".join(criteria)
            raise RecipeError(f"{key!r} is not CRITERION.NAME with one of the criteria {known}.")
        criteria[name][option] = value
    return criteria


def _plan(plan: Any, what: str) -> list[str]:
    units = sum(count for count, _ in plan.units.values())
    return [
        f"{what}: {units:,} units, loss {plan.loss:.4f} on {plan.examples:,} validation examples, "
        f"about {plan.seconds:.1f} s",
        *(f"left out {name}: {why}" for name, why in plan.refused.items()),
    ]


def _summary(report: Any) -> list[str]:
    """Rank correlations by layer; single units are for --json."""
    lines = [
        "Spearman's ρ (95 % interval) of the score with the size of the loss change, "
        "and with the signed change:"
    ]
    # The last row is over all layers, where there are several; it has no name.
    for row in report.layers:
        lines.append(f"{row.layer or 'all of them together'}, {row.units:,} units")
        for name in row.criteria:
            size = _rho(row.absolute[name], row.units)
            lines.append(f"  {name:18} {size:24} {_rho(row.signed[name], row.units)}")
        band = random_band(row.units)
        if band:
            lines.append(f"  {'random orders':18} {band.low:+.2f} to {band.high:+.2f} (95 of 100)")
    return [*lines, "~ no better than random here: the interval reaches into that of random orders"]


def _rho(rho: Correlation, units: int) -> str:
    if rho.value is None:
        return "no order: all the same"
    if rho.low is None:
        return f"{rho.value:+.2f} (few units)"
    mark = "" if better_than_random(rho, units) else " ~"
    return f"{rho.value:+.2f} ({rho.low:+.2f} to {rho.high:+.2f}){mark}"
