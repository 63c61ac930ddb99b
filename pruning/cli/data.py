"""`python -m pruning data`: read a data set and keep it, for recipes to name."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pruning.cli import options
from pruning.formats import datasets

HELP = "read a data set and keep it: a folder or zip of images by class, an npz, a CSV, idx files"


def arguments(sub: argparse.ArgumentParser) -> None:
    sub.add_argument("path", type=Path)
    settings = f"again for more: {', '.join(options.SETTINGS)}"
    options.repeated(sub, "--data-settings", "NAME=VALUE", settings)


def execute(args: argparse.Namespace) -> None:
    """What a data set holds, and the id that a model is joined to it by."""
    settings = datasets.Settings.of(options.pairs(args.data_settings))
    data = datasets.accept(args.path, settings=settings, named=True)
    if args.json:
        print(json.dumps(data.to_json()))
        return
    print(f"data:{data.id}  {data.name}: {datasets.described(data)}")
    for note in data.notes:
        print(f"  {note}")
