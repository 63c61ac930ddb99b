"""Measure the alternatives that are shipped with the sample models.

    python -m pruning.advice.make [MODEL ...] [--folder FOLDER]

Rows are written to the folder as they come, so that it can be interrupted and begun again.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import asdict
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.advice.shipped import FOLDER, Shipped, write
from pruning.errors import PruningError
from pruning.runs.resolve import resolve
from pruning.storage import default_workspace, write_json

if TYPE_CHECKING:
    from pruning.studies.alternatives import Plan

SMALL: dict[str, Any] = {
    "weights": [0.9, 0.95],
    "channels": [0.5, 0.75],
    "seeds": [0, 1, 2],
    "epochs": 5,
}
PLANS: dict[str, dict[str, Any]] = {
    "digits-mlp": SMALL,
    "digits-cnn": SMALL,
    "digits-resnet": SMALL,
    # Of an hour on a core: one epoch, and in bfloat16, as the model itself was trained.
    "fashion-resnet20": {"weights": [0.9], "channels": [0.5], "epochs": 1, "precision": "bfloat16"},
}
"""Model -> what is made of it, as the study's spec."""


def make(model: str, folder: Path, threads: int = 1) -> Path:
    """Measure a model's alternatives and write them. Raises PruningError."""
    import torch

    from pruning.studies.alternatives import Plan, groups

    torch.set_num_threads(threads)
    file = folder / f"{model}.json"
    rows: list[dict[str, Any]] = json.loads(file.read_text()) if file.is_file() else []
    target = FOLDER / f"{model}.json"
    plan = Plan.of(PLANS[model])
    began = time.monotonic()
    for group in groups(resolve(model), plan, done=[row["id"] for row in rows]):
        rows += group
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, rows)
        names = ", ".join(row["id"] for row in group)
        print(f"{model}: {names} after {time.monotonic() - began:.0f} s", flush=True)
        # What there is by now is whole rows: it is shipped, too, when this is interrupted.
        _ship(target, model, plan, rows)
    _ship(target, model, plan, rows)
    print(f"{target.name}: {target.stat().st_size / 1000:.0f} kB")
    return target


def _ship(file: Path, model: str, plan: Plan, rows: list[dict[str, Any]]) -> None:
    from pruning.pipeline import machine

    today = date.today().isoformat()
    # Timing has one thread, whatever training had.
    here = {**machine(), "threads": 1}
    write(file, Shipped(model, today, here, asdict(plan), tuple(rows)))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pruning.advice.make")
    parser.add_argument("models", nargs="*", default=list(PLANS), metavar="MODEL")
    parser.add_argument("--folder", type=Path, help="where rows are kept on the way")
    parser.add_argument("--threads", type=int, default=1, help="of training; timing has one")
    args = parser.parse_args(argv)
    folder = (args.folder or default_workspace() / "advice").resolve()
    for model in args.models:
        if model not in PLANS:
            parser.error(f"no plan is set for {model}: known are {', '.join(PLANS)}")
    for model in args.models:
        try:
            make(model, folder, args.threads)
        except PruningError as error:
            print(f"{model}: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
