"""`python -m pruning run`: prune and fine-tune a model, an event a line."""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path
from typing import Any

from pruning import describe, events
from pruning.cli import options, text
from pruning.errors import RecipeError
from pruning.recipe import CHOICES, CONTROLS, Recipe, parsed
from pruning.runs.resolve import resolve

HELP = "prune and fine-tune a model; a line for each event, the last one the result"


def arguments(sub: argparse.ArgumentParser) -> None:
    """A flag for each field of a recipe."""
    recipe = "a recipe file (JSON); flags win over it"
    sub.add_argument("recipe", nargs="?", type=Path, help=recipe)
    for field in dataclasses.fields(Recipe):
        _flag(sub, field)
    options.threads(sub, "CPU threads (default: torch's choice; numbers repeat at the same count)")
    options.device(sub)
    options.data(sub)
    saved = "write the pruned weights as safetensors"
    sub.add_argument("--save", type=Path, metavar="FILE", help=saved)
    compact = "write the compact model's weights (safetensors), and its source beside them (.py)"
    sub.add_argument("--save-compact", type=Path, metavar="FILE", help=compact)
    onnx = "write the model as an ONNX program, the compact one where there is one"
    sub.add_argument("--save-onnx", type=Path, metavar="FILE", help=onnx)


def _flag(sub: argparse.ArgumentParser, field: dataclasses.Field[Any]) -> None:
    # Every default is None here, so that a flag that was not given leaves the recipe file alone.
    flag = "--" + field.name.replace("_", "-")
    default = f"default {field.default!r}"
    if field.name == "exclude":
        help = "leave this layer dense (again for more)"
        sub.add_argument(flag, action="append", metavar="LAYER", help=help)
    elif field.name == "controls":
        help = "train this beside each lottery ticket (again for more)"
        sub.add_argument(flag, action="append", choices=CONTROLS, help=help)
    elif _is_dict(field):
        sub.add_argument(flag, action="append", metavar="NAME=VALUE", help=options.AGAIN)
    elif field.type == "bool":
        sub.add_argument(flag, action=argparse.BooleanOptionalAction, help=default)
    else:
        # Annotations are strings here; what is neither number is a name.
        kind = {"int": int, "float": float}.get(str(field.type), str)
        sub.add_argument(flag, type=kind, choices=CHOICES.get(field.name), help=default)


def _is_dict(field: dataclasses.Field[Any]) -> bool:
    return field.default_factory is dict


def execute(args: argparse.Namespace) -> None:
    """Prune and fine-tune a model; a line for each event, the last one the result."""
    recipe = _recipe(args)
    if not recipe.model:
        raise RecipeError(
            "No model is named: add --model digits-mlp "
            "(`python -m pruning list models` shows them all)."
        )
    recipe = dataclasses.replace(recipe, model=options.with_data(recipe.model, args))
    if args.save_compact is not None and args.save_compact.suffix == ".py":
        raise RecipeError(
            f"{args.save_compact.name} is where the compact model's source would be written: name "
            "its weights file, for example small.safetensors."
        )
    # torch takes seconds to load: what is wrong with the flags is said before.
    from pruning import pipeline

    options.use_threads(args.threads)
    saver = _Saver(args.save, args.save_compact, args.save_onnx)
    work = options.on_device(resolve(recipe.model), args)
    facts = None
    events_of_run = pipeline.run(
        recipe, work, keep=saver.keep, keep_compact=saver.keep_compact, cache=options.maps()
    )
    for event in events_of_run:
        if isinstance(event, events.Pruned):
            facts = describe.facts(recipe, event)
        line = json.dumps(_line(event, facts)) if args.json else text.event(event, facts)
        print(line, flush=True)
    saver.write_rest(work.example)


def _recipe(args: argparse.Namespace) -> Recipe:
    """The recipe file, if any, with the flags laid over it."""
    data: Any = {}
    if args.recipe:
        try:
            text = args.recipe.read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise RecipeError(f"{args.recipe} cannot be read as a recipe: {error}.") from None
        data = parsed(text)
    if not isinstance(data, dict):
        raise RecipeError(f"{args.recipe} is not a recipe: a recipe is a JSON object.")
    for field in dataclasses.fields(Recipe):
        value = getattr(args, field.name)
        if value is not None:
            data[field.name] = options.pairs(value) if _is_dict(field) else value
    # Of the flag alone: a recipe file may be somebody else's, and must not name code to be run.
    if args.model is not None:
        data["model"] = options.model(args.model)
    return Recipe.from_dict(data)


class _Saver:
    """Writes what a run ends with. A class because the pipeline hands it over in parts."""

    def __init__(self, file: Path | None, compact: Path | None, onnx: Path | None) -> None:
        self.file = file
        self.compact_file = compact
        self.onnx_file = onnx
        self.model: Any = None
        self.compact: Any = None

    def keep(self, model: Any, masks: Any) -> None:
        # Written at once; the file needs no masks, for pruned weights are zero.
        self.model = model
        if self.file is not None:
            from pruning.export.bundle import save_weights

            save_weights(model, self.file)

    def keep_compact(self, model: Any, certificate: Any) -> None:
        self.compact = model

    def write_rest(self, example: Any) -> None:
        """The compact model and the ONNX program. Raises ModelError where there is none."""
        if self.compact_file is None and self.onnx_file is None:
            return
        from pruning.export.bundle import save_network, save_onnx

        if self.compact_file is not None:
            save_network(self.compact, example, self.compact_file)
        if self.onnx_file is not None:
            save_onnx(
                self.compact if self.compact is not None else self.model, example, self.onnx_file
            )


def _line(event: events.Event, facts: describe.RunFacts | None) -> dict[str, Any]:
    """An event as plain data; the result also flat, as scripts want it."""
    data = events.to_dict(event)
    if not isinstance(event, events.Finished):
        return data
    final = event.final
    # Without fine-tuning, the model before it is the final one.
    before = event.pruned or final
    return data | {
        "outcome": describe.outcome(facts),
        "accuracy_before": text.share(before.accuracy),
        "accuracy_after": text.share(final.accuracy),
        "accuracy_dense": text.share(event.dense.accuracy),
        "metric_before": text.score(before.score),
        "metric_after": text.score(final.score),
        "metric_dense": text.score(event.dense.score),
        "weights": {"total": final.weights, "kept": final.kept},
        "macs": {"dense": final.macs, "kept": final.macs_kept},
        "bytes": dataclasses.asdict(final.size),
        "latency": dataclasses.asdict(final.latency) if final.latency else None,
        **text.flat(final),
    }
