"""`python -m pruning measure`: what a model costs, and how it answers."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path

from pruning.cli import options, text
from pruning.runs.resolve import resolve
from pruning.runs.weights_file import of_file

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
        works[args.weights.name] = of_file(args.weights, model)
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
