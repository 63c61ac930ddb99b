"""Train the sample models, or list them.

python -m sample_models list [--json]
python -m sample_models train NAME... [--seed 0] [--threads 1] [--data-dir FOLDER]
python -m sample_models fetch NAME      MNIST-like data, or a torchvision architecture's weights
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import os
import sys
from collections.abc import Sequence

import sample_models
from pruning.errors import PruningError


def main(words: Sequence[str] | None = None) -> int:
    """0, or 1 after a sentence on stderr."""
    args = _parser().parse_args(words)
    verbs = {"list": _list, "train": _train, "fetch": _fetch}
    try:
        verbs[args.verb](args)
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


def _list(args: argparse.Namespace) -> None:
    for name in sample_models.names():
        card = sample_models.card(name)
        if args.json:
            print(json.dumps(dataclasses.asdict(card)))
            continue
        low, high = card.accuracy.interval
        accuracy = f"{card.accuracy.value:7.1%} ({low:.1%} to {high:.1%})"
        print(f"{name:18}{accuracy}  {card.weights:9,} weights  {card.good_for}")


def _train(args: argparse.Namespace) -> None:
    if args.data_dir:
        os.environ["PRUNING_DATA"] = args.data_dir
    from sample_models.catalogue import sample
    from sample_models.making import make

    say = functools.partial(print, flush=True)
    # All names are looked up before the first training: a typing error shows at once.
    for kind in [sample(name) for name in args.names]:
        make(kind.name, seed=args.seed, threads=args.threads, say=say)


def _fetch(args: argparse.Namespace) -> None:
    print(sample_models.fetch(args.name, progress=_progress))


def _progress(what: str, done: int, total: int) -> None:
    print(f"{what}  {done} of {total}", flush=True)


if __name__ == "__main__":
    raise SystemExit(main())
