"""Train the sample models, or list them.

python -m sample_models list [--json]
python -m sample_models train NAME... [--seed 0] [--threads 1] [--data-dir FOLDER]
python -m sample_models fetch NAME      MNIST-like data, or a torchvision architecture's weights
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence

import sample_models
from pruning.errors import PruningError


def main(words: Sequence[str] | None = None) -> int:
    """0, or 1 after a sentence on stderr."""
    choice = _parser().parse_args(words)
    try:
        {"list": _list, "train": _train, "fetch": _fetch}[choice.verb](choice)
    except PruningError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m sample_models", description="Train the sample models, or list them."
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    listing = verbs.add_parser("list", help="what there is")
    listing.add_argument("--json", action="store_true", help="as JSON lines")
    training = verbs.add_parser("train", help="train, and write weights and cards")
    training.add_argument("names", nargs="+", metavar="NAME")
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--threads", type=int, default=1, help="other counts give other bits")
    training.add_argument(
        "--data-dir", help="a folder laid out as torchvision does; like PRUNING_DATA"
    )
    fetching = verbs.add_parser("fetch", help="download data or weights")
    fetching.add_argument("name", metavar="NAME", help="a data set, or a torchvision architecture")
    return parser


def _list(choice: argparse.Namespace) -> None:
    for name in sample_models.names():
        card = sample_models.card(name)
        low, high = card.accuracy.interval
        line = f"{name:18}{card.accuracy.value:7.1%} ({low:.1%} to {high:.1%})  {card.weights:9,} weights  {card.good_for}"
        print(json.dumps(dataclasses.asdict(card)) if choice.json else line)


def _train(choice: argparse.Namespace) -> None:
    if choice.data_dir:
        os.environ["PRUNING_DATA"] = choice.data_dir
    from sample_models.catalogue import sample
    from sample_models.making import make

    for kind in [sample(name) for name in choice.names]:
        make(
            kind.name,
            seed=choice.seed,
            threads=choice.threads,
            say=lambda line: print(line, flush=True),
        )


def _fetch(choice: argparse.Namespace) -> None:
    print(
        sample_models.fetch(
            choice.name,
            progress=lambda what, done, total: print(f"{what}  {done} of {total}", flush=True),
        )
    )


if __name__ == "__main__":
    raise SystemExit(main())
