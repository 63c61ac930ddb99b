"""The workbench from a shell: `python -m pruning list | run | sensitivity | truth | measure | inspect`, each with --json."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

from pruning import events, registry
from pruning.cli import text
from pruning.errors import PruningError, RecipeError
from pruning.recipe import CONTROLS, DECAYS, OPTIMIZERS, REWINDS, STARTS, Recipe
from pruning.sensitivity_map import planning

LISTS = ("criteria", "granularities", "scopes", "schedules", "models", "datasets")


def main(argv: list[str] | None = None) -> int:
    """Run one verb. Returns 0, or 2 after an error people can mend, said in one sentence on stderr."""
    args = _parser().parse_args(argv)
    try:
        args.verb(args)
    except PruningError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    except (BrokenPipeError, KeyboardInterrupt):
        return 130
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m pruning", description="See what a neural network can live without."
    )
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    for name, verb, help in (
        ("list", _list, "the techniques, models and data sets there are"),
        ("run", _run, "prune and heal a model; a line for each event, the last one the result"),
        (
            "sensitivity",
            _sensitivity,
            "which layers can give: each alone, at every ratio; the last line sums up",
        ),
        (
            "truth",
            _truth,
            "whether a criterion's score tells how the loss changes when a unit is removed",
        ),
        (
            "measure",
            _measure,
            "what a model costs: file, memory, time in two runtimes, energy; and how it answers",
        ),
        ("inspect", _inspect, "what a reading of a weights file would say, without trusting it"),
    ):
        sub = verbs.add_parser(name, help=help, description=(verb.__doc__ or "").split("\n")[0])
        sub.set_defaults(verb=verb)
        sub.add_argument("--json", action="store_true", help="lines of JSON")
        _arguments[name](sub)
    return parser


def _list_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("what", choices=LISTS)


def _run_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument(
        "recipe", nargs="?", type=Path, help="a recipe file (JSON); options given here win over it"
    )
    for field in dataclasses.fields(Recipe):
        flag = "--" + field.name.replace("_", "-")
        if field.name == "exclude":
            sub.add_argument(
                flag,
                action="append",
                metavar="LAYER",
                help="leave this layer dense (again for more)",
            )
        elif field.name == "controls":
            sub.add_argument(
                flag,
                action="append",
                choices=CONTROLS,
                help="train this beside each lottery ticket (again for more)",
            )
        elif field.name.endswith("options") or field.name == "ratios":
            sub.add_argument(flag, action="append", metavar="NAME=VALUE", help="again for more")
        elif field.type == "bool":
            sub.add_argument(
                flag, action=argparse.BooleanOptionalAction, help=f"default {field.default!r}"
            )
        else:
            kind = {"int": int, "float": float}.get(str(field.type), str)
            choices = {
                "start": STARTS,
                "optimizer": OPTIMIZERS,
                "decay": DECAYS,
                "rewind": REWINDS,
            }.get(field.name)
            sub.add_argument(flag, type=kind, choices=choices, help=f"default {field.default!r}")
    sub.add_argument(
        "--threads",
        type=int,
        help="CPU threads (default: torch's choice; numbers repeat at the same count)",
    )
    sub.add_argument(
        "--save", type=Path, metavar="FILE", help="write the pruned weights as safetensors"
    )


def _measure_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--model", required=True, help="a sample model, or torchvision:<architecture>")
    sub.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="weights of the same architecture (safetensors, PyTorch), measured beside it",
    )
    sub.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")


def _inspect_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("file", type=Path)


def _truth_arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("--model", required=True)
    sub.add_argument(
        "--layer",
        action="append",
        default=[],
        help="again for more (default: every layer that has such units)",
    )
    sub.add_argument(
        "--criteria",
        nargs="+",
        default=["magnitude", "taylor", "random"],
        help="default: %(default)s",
    )
    sub.add_argument(
        "--options",
        action="append",
        default=[],
        metavar="CRITERION.NAME=VALUE",
        help="again for more",
    )
    sub.add_argument("--granularity", default="weight")
    sub.add_argument(
        "--granularity-options",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="again for more",
    )
    sub.add_argument(
        "--units", type=int, default=64, help="of each layer, at most (default %(default)s)"
    )
    sub.add_argument(
        "--examples",
        type=int,
        default=1024,
        help="of the validation data, at most (default %(default)s)",
    )
    sub.add_argument("--seed", type=int, default=0)
    sub.add_argument("--threads", type=int, help="CPU threads (default: torch's choice)")


_arguments = {
    "list": _list_arguments,
    "run": _run_arguments,
    "sensitivity": planning.arguments,
    "truth": _truth_arguments,
    "measure": _measure_arguments,
    "inspect": _inspect_arguments,
}


def _list(args: argparse.Namespace) -> None:
    """What there is, with one sentence on each."""
    rows = _rows(args.what)
    if args.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(f"{row['name']:22} {row.get('title', '')}")


def _rows(what: str) -> list[dict[str, Any]]:
    import sample_models

    if what == "models":
        return [dataclasses.asdict(sample_models.card(name)) for name in sample_models.names()]
    if what == "datasets":
        return sample_models.datasets()
    kind = next(kind for kind, plural in registry.PLURAL.items() if plural == what)
    return [dataclasses.asdict(entry) for entry in registry.entries(kind).values()]


def _run(args: argparse.Namespace) -> None:
    """Prune and heal a model; a line for each event, the last one the result."""
    recipe = _recipe(args)
    if not recipe.model:
        raise RecipeError(
            "No model is named: add --model digits-mlp (`python -m pruning list models` shows them all)."
        )
    import torch

    from pruning.pipeline import run
    from pruning.runs.resolve import resolve

    if args.threads:
        torch.set_num_threads(args.threads)
    for event in run(recipe, resolve(recipe.model), keep=_saver(args.save) if args.save else None):
        print(json.dumps(_line(event)) if args.json else _words(event), flush=True)


def _recipe(args: argparse.Namespace) -> Recipe:
    """The recipe file, if any, with the flags laid over it."""
    data: dict[str, Any] = {}
    if args.recipe:
        try:
            data = json.loads(args.recipe.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RecipeError(f"{args.recipe} cannot be read as a recipe: {error}.") from None
    if not isinstance(data, dict):
        raise RecipeError(f"{args.recipe} is not a recipe: a recipe is a JSON object.")
    for field in dataclasses.fields(Recipe):
        given = getattr(args, field.name)
        if given is None:
            continue
        pairs = field.name.endswith("options") or field.name == "ratios"
        data[field.name] = dict(map(_pair, given)) if pairs else given
    return Recipe.from_dict(data)


def _pair(text: str) -> tuple[str, Any]:
    name, equals, value = text.rpartition("=")
    if not equals:
        raise RecipeError(f"{text!r} is not NAME=VALUE.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _saver(file: Path) -> Any:
    def keep(model: Any, masks: Any) -> None:
        from safetensors.torch import save_model

        save_model(model, str(file))

    return keep


def _line(event: events.Event) -> dict[str, Any]:
    """An event as plain data; the result also flat, as scripts want it."""
    data = events.to_dict(event)
    if not isinstance(event, events.Finished):
        return data
    final = event.final
    before, after = event.pruned or final, final
    return data | {
        "accuracy_before": _share(before.accuracy),
        "accuracy_after": _share(after.accuracy),
        "accuracy_dense": _share(event.dense.accuracy),
        "weights": {"total": final.weights, "kept": final.kept},
        "macs": {"dense": final.macs, "kept": final.macs_kept},
        "bytes": dataclasses.asdict(final.size),
        "latency": dataclasses.asdict(final.latency) if final.latency else None,
        **text.flat(final),
    }


def _share(accuracy: events.Accuracy | None) -> dict[str, Any] | None:
    if accuracy is None:
        return None
    return {
        "value": accuracy.value,
        "interval": accuracy.interval,
        "correct": accuracy.correct,
        "total": accuracy.total,
    }


def _words(event: events.Event) -> str:
    match event:
        case events.Started(recipe=recipe, epochs=epochs):
            return f"{recipe['model']}: {recipe['criterion']} by {recipe['granularity']}, {recipe['scope']}, {epochs} epochs of fine-tuning"
        case events.Measured(stage=stage, measurement=m):
            return f"{stage:8} {_percent(m.accuracy)}, {m.kept:,} of {m.weights:,} weights, {m.size.sparse:,} bytes as a sparse file"
        case events.Pruned(step=step, steps=steps, sparsity=sparsity):
            return f"pruned   step {step} of {steps}: {sparsity:.2%} of the covered weights gone"
        case events.Recalibrated(layers=layers, examples=examples, seconds=seconds):
            return f"norms    {layers} BatchNorm layers recalibrated on {examples:,} examples, {seconds:.2f} s"
        case events.Epoch(
            epoch=epoch,
            epochs=epochs,
            train_loss=loss,
            teacher=teacher,
            accuracy=accuracy,
            seconds=seconds,
            branch=branch,
        ):
            of = f" of the control {branch}" if branch else ""
            told = f", against the dense model {teacher:.4f}" if teacher is not None else ""
            return f"epoch    {epoch} of {epochs}{of}: training loss {loss:.4f}{told}, validation {_percent(accuracy)}, {seconds:.2f} s"
        case events.Ticket(
            step=step, steps=steps, kind=kind, kept=kept, sparsity=sparsity, accuracy=accuracy
        ):
            return f"{kind:11} round {step} of {steps}: {kept:,} weights kept ({1 - sparsity:.2%}), test {_percent(accuracy)}"
        case events.Notice(text=notice):
            return f"note     {notice}"
        case events.Finished(sparsity=sparsity, seconds=seconds, final=final):
            return "\n".join([*text.lines(final), f"finished {sparsity:.2%} gone, {seconds:.1f} s"])
        case _:
            return events.to_json(event)


def _percent(accuracy: events.Accuracy | None) -> str:
    if accuracy is None:
        return "accuracy not measured (no data)"
    low, high = accuracy.interval
    return f"{accuracy.value:.1%} ({low:.1%} to {high:.1%})"


def _sensitivity(args: argparse.Namespace) -> None:
    """Which layers can give: a line for each layer and ratio, the last one what a point of accuracy buys."""
    planning.show(args, _pair)


def _truth(args: argparse.Namespace) -> None:
    """Scores against the true change in loss: a line for each unit, the last one the rank correlations."""
    import torch

    from pruning.analysis.criterion_check import Plan, Question, truth
    from pruning.runs.resolve import resolve
    from pruning.types import prunable

    if args.threads:
        torch.set_num_threads(args.threads)
    work = resolve(args.model)
    short = {name.removesuffix(".weight"): name for name in prunable(work.model)}
    layers = tuple(short.get(name, name) for name in args.layer)
    question = Question(
        layers, args.granularity, dict(map(_pair, args.granularity_options)), args.units, args.seed
    )
    criteria: dict[str, dict[str, Any]] = {name: {} for name in args.criteria}
    for key, value in map(_pair, args.options):
        name, _, option = key.partition(".")
        if name not in criteria or not option:
            raise RecipeError(
                f"{key!r} is not CRITERION.NAME with one of the criteria {', '.join(criteria)}."
            )
        criteria[name][option] = value
    for said in truth(work, question, criteria, examples=args.examples):
        if args.json:
            print(
                json.dumps({"event": type(said).__name__.lower(), **dataclasses.asdict(said)}),
                flush=True,
            )
        else:
            _tell(said, f"{args.model} by {args.granularity}") if isinstance(said, Plan) else _tell(
                said
            )


def _tell(said: Any, what: str = "") -> None:
    """A plan and its end, in words; single units are for --json."""
    from pruning.analysis.criterion_check import Plan, Told

    if isinstance(said, Plan):
        units = sum(n for n, _ in said.units.values())
        print(
            f"{what}: {units:,} units, loss {said.loss:.4f} on {said.examples:,} validation examples, about {said.seconds:.1f} s"
        )
        for name, why in said.refused.items():
            print(f"left out {name}: {why}")
    if isinstance(said, Told):
        print(
            "Spearman's ρ (95 % interval) of the score with the size of the true change in loss, and with the signed change:"
        )
        for held in said.layers:
            print(f"{held.layer or 'all of them together'}, {held.units:,} units")
            for name in held.criteria:
                print(f"  {name:18} {_rho(held.size[name]):24} {_rho(held.harm[name])}")


def _rho(held: Any) -> str:
    if held.value is None:
        return "no order: all the same"
    return f"{held.value:+.2f} " + (
        "(few units)" if held.low is None else f"({held.low:+.2f} to {held.high:+.2f})"
    )


def _measure(args: argparse.Namespace) -> None:
    """What a model costs and how it answers; with --weights, theirs beside the model's own, in the same rounds."""
    import torch

    from pruning.measurement import finalize, take_snapshot, time_in_onnx
    from pruning.runs.resolve import resolve

    if args.threads:
        torch.set_num_threads(args.threads)
    works = {"dense": resolve(args.model)}
    if args.weights:
        works[args.weights.name] = _brought(args.weights, args.model)
    settled = finalize([take_snapshot(work) for work in works.values()])
    for name, found, more in zip(works, settled, time_in_onnx(list(works.values())), strict=True):
        found = dataclasses.replace(found, timings=(*found.timings, *more))
        if args.json:
            print(
                json.dumps(
                    {
                        "model": args.model,
                        "weights": name,
                        "accuracy": _share(found.accuracy),
                        **text.flat(found),
                    }
                )
            )
        else:
            print(
                "\n".join([f"{args.model}, {name}: {_percent(found.accuracy)}", *text.lines(found)])
            )


def _brought(file: Path, model: str) -> Any:
    """A file's weights in the architecture, through the door that all files from outside pass."""
    import tempfile

    from pruning.formats import accept
    from pruning.runs.resolve import resolve

    with tempfile.TemporaryDirectory(prefix="pruning-measure-") as home:
        return resolve(accept(file, model, Path(home)).model, Path(home))


def _inspect(args: argparse.Namespace) -> None:
    """What a reading of a weights file would say, without trusting it."""
    from pruning.formats import inspect

    reading = dataclasses.asdict(inspect(args.file))
    if args.json:
        print(json.dumps(reading, default=str))
        return
    for key, value in reading.items():
        print(f"{key}: {value}")
