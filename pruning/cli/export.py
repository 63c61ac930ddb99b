"""`python -m pruning export`: a result taken home, as files that open without the workbench."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from pruning.cli import options
from pruning.errors import RecipeError
from pruning.runs.store import Store
from pruning.runs.weights_file import of_file

HELP = "a run or a weights file as a bundle: model.py, weights, ONNX, sparse file, replay, report"


def arguments(sub: argparse.ArgumentParser) -> None:
    what = "a run of this workspace, by its id, or a weights file (with --model)"
    sub.add_argument("what", metavar="RUN|FILE", help=what)
    sub.add_argument("--to", type=Path, required=True, metavar="FOLDER", help="made if need be")
    model = "the file's architecture: a sample model, torchvision:<name>, my_file.py:build"
    sub.add_argument("--model", metavar="ARCH", help=model)


def execute(args: argparse.Namespace) -> None:
    """Write what a result is taken home as into a folder; a line for each file."""
    # torch takes seconds to load: what is wrong with the arguments is said before.
    file = Path(args.what)
    if file.exists() and not args.model:
        raise RecipeError(
            f"{file.name} is a file of weights: say of which architecture, for example "
            "--model torchvision:resnet18."
        )
    from pruning.export import bundle

    contents = bundle.write(_result(file, args), args.to)
    if args.json:
        data = {"folder": str(args.to), "files": contents.files, "notes": contents.notes}
        print(json.dumps(data))
        return
    for name, size in contents.files.items():
        print(f"{size:>12,} bytes  {args.to / name}")
    for note in contents.notes:
        print(f"note: {note}")


def _result(file: Path, args: argparse.Namespace) -> Any:
    from pruning.runs.take_home import find_run, of_weights, result_of

    if not file.exists():
        store = Store()
        return result_of(store, find_run(store, args.what))
    work = of_file(file, options.model(args.model))
    return of_weights(work, f"{file.name} as {args.model}")
