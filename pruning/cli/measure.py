"""`python -m pruning measure`: what a model costs, and how it answers."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from pruning.cli import options, text
from pruning.formats import accept, datasets
from pruning.runs.outlines import expected
from pruning.runs.resolve import on_data, resolve

if TYPE_CHECKING:
    from pruning.types import Workpiece

HELP = "what a model costs: file, memory, time in two runtimes, energy; and how it answers"


def arguments(sub: argparse.ArgumentParser) -> None:
    model = "a sample model, torchvision:<architecture>, my_file.py:build, hf:<folder>, FILE.onnx"
    sub.add_argument("--model", required=True, help=model)
    options.data(sub)
    weights = "weights of the same architecture (safetensors, PyTorch), measured beside it"
    sub.add_argument("--weights", type=Path, metavar="FILE", help=weights)
    options.threads(sub)
    options.device(sub)


def execute(args: argparse.Namespace) -> None:
    """What a model costs and how it answers; with --weights, a file's beside the model's own."""
    from pruning.measurement import finalize, take_snapshot, time_in_onnx

    options.use_threads(args.threads)
    model = options.with_data(options.model(args.model), args)
    works = {"dense": resolve(model)}
    if args.weights:
        works[args.weights.name] = _from_file(args.weights, model)
    # All models in the same rounds, so that a machine that gets busy slows each of them alike.
    works = {name: options.on_device(work, args) for name, work in works.items()}
    measured = finalize([take_snapshot(work) for work in works.values()])
    onnx = time_in_onnx(list(works.values()))
    for name, measurement, timings in zip(works, measured, onnx, strict=True):
        m = replace(measurement, timings=(*measurement.timings, *timings))
        if args.json:
            row = {"model": args.model, "weights": name, "accuracy": text.share(m.accuracy)}
            print(json.dumps(row | text.flat(m)))
        else:
            title = f"{args.model}, {name}: {text.quality(m.quality, m)}"
            print("\n".join([title, *text.lines(m)]))


def _from_file(file: Path, model: str) -> Workpiece:
    """A file's weights in the architecture, past the guard that all files from outside pass."""
    own, data = datasets.parted(model)
    with TemporaryDirectory(prefix="pruning-measure-") as folder:
        # The copy is removed with the folder: weights that were only measured are not kept.
        workspace = Path(folder)
        upload = accept(file, own, workspace, expected=expected(own))
        measured = resolve(upload.model, workspace)
        # Its data set is kept where the others are.
        return measured if data is None else on_data(measured, own, data)
