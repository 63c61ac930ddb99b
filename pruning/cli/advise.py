"""`python -m pruning advise`: should this model be pruned at all?"""

from __future__ import annotations

import argparse
import json
from typing import Any

from pruning.advice.advise import Advice, Candidate, advise
from pruning.advice.figures import level
from pruning.advice.rows import FAMILIES, Measured, of_alternatives, rows_of
from pruning.advice.target import PRESETS, RUNTIMES, Target, preset
from pruning.cli import options
from pruning.errors import RecipeError
from pruning.runs.resolve import describe, resolve
from pruning.runs.store import Store

HELP = "whether pruning helps for a target, beside int8, half precision and smaller networks"

LIMITS = {
    "most_bytes": "bytes",
    "most_compressed": "compressed",
    "most_seconds": "download",
    "most_ms": "ms",
    "most_macs": "macs",
    "most_energy": "energy",
}
"""Flag -> what it limits."""


def arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--model", required=True)
    limits = sub.add_mutually_exclusive_group()
    limits.add_argument("--most-bytes", type=float, metavar="N", help="of the file")
    limits.add_argument("--most-compressed", type=float, metavar="N", help="bytes by gzip")
    limits.add_argument("--most-seconds", type=float, metavar="S", help="of download")
    limits.add_argument("--most-ms", type=float, metavar="MS", help="of one example")
    limits.add_argument("--most-macs", type=float, metavar="N", help="of one example")
    limits.add_argument("--most-energy", type=float, metavar="UJ", help="microjoules, modelled")
    sub.add_argument("--preset", choices=PRESETS, help="a usual target; flags change it")
    points = "of accuracy below dense that are tolerated (default 1)"
    sub.add_argument("--within-points", type=float, metavar="P", help=points)
    sub.add_argument("--runtime", choices=RUNTIMES, help="what it runs in (default onnx)")
    sub.add_argument("--bandwidth", type=float, metavar="MBIT", help="Mbit/s (default 1)")
    slower = "times slower than the machine of the rows (default 1)"
    sub.add_argument("--slower", type=float, metavar="TIMES", help=slower)
    sub.add_argument("--no-finetune", action="store_true", help="it cannot be trained")
    sub.add_argument("--examples", type=int, metavar="N", help="labelled training examples")
    measure = "measure the alternatives first, here: it trains, and takes minutes"
    sub.add_argument("--measure", action="store_true", help=measure)
    options.threads(sub)


def execute(args: argparse.Namespace) -> None:
    """Advise from measured runs whether to prune, and what else reaches the target."""
    target = _target(args)
    describe(target.model)  # a name that nobody knows is refused
    rows = rows_of(Store(), target.model)
    if args.measure:
        rows += _measured(target.model, args.threads)
    advice = advise(target, rows)
    if args.json:
        print(json.dumps(as_data(advice)))
        return
    for sentence in advice.sentences:
        print(sentence.cited)
    if any(click.what == "alternatives" for click in advice.clicks):
        print(f"Measure them: python -m pruning advise --model {target.model} --measure")


def _target(args: argparse.Namespace) -> Target:
    """Raises RecipeError where nothing is limited."""
    asked: dict[str, Any] = {}
    for flag, limit in LIMITS.items():
        if getattr(args, flag) is not None:
            asked |= {"limit": limit, "most": getattr(args, flag)}
    if not asked and not args.preset:
        flags = ", ".join("--" + flag.replace("_", "-") for flag in LIMITS)
        raise RecipeError(f"Say what is limited: one of {flags}, or --preset.")
    for flag, name in (("within_points", "within"), ("runtime", "runtime"), ("slower", "slower")):
        if getattr(args, flag) is not None:
            asked[name] = getattr(args, flag)
    for name in ("bandwidth", "examples"):
        if getattr(args, name) is not None:
            asked[name] = getattr(args, name)
    if args.no_finetune:
        asked["finetune"] = False
    model = options.model(args.model)
    base = preset(args.preset, model).to_dict() if args.preset else {"model": model}
    return Target.from_dict(base | asked)


def _measured(model: str, threads: int | None) -> list[Measured]:
    from pruning.studies.alternatives import alternatives

    options.use_threads(threads or 1)
    data, _ = alternatives({"model": model}, resolve(model))
    return of_alternatives(data["rows"], "measured now")


def as_data(advice: Advice) -> dict[str, Any]:
    """Plain values: the answer, its sentences with the rows they rest on, all that was compared."""
    return {
        "target": {"model": advice.target.model, **advice.target.to_dict()},
        "helps": advice.helps,
        "verdict": advice.verdict,
        "answer": advice.answer.text,
        "recipe": _recipe(advice),
        "sentences": [{"text": one.text, "rows": list(one.cites)} for one in advice.sentences],
        "measure": [click.what for click in advice.clicks],
        "compared": [_compared(each) for each in advice.candidates],
    }


def _recipe(advice: Advice) -> dict[str, Any] | None:
    best = advice.best
    return best.cell.first.recipe if best is not None and advice.helps else None


def _compared(candidate: Candidate) -> dict[str, Any]:
    first = candidate.cell.first
    change = candidate.change
    share = f"{level(first.level)} of " if first.level is not None else ""
    return {
        "what": f"{share}{first.name}",
        "way": FAMILIES[candidate.family],
        "reaches": candidate.reaches,
        "obstacle": candidate.obstacle or None,
        "accuracy": candidate.accuracy,
        "change": [change.low, change.value, change.high] if change else None,
        "cost": candidate.cost,
        "rows": list(candidate.cell.ids),
    }
