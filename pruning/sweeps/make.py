"""Make the sweeps that are shipped with the sample models.

    python -m pruning.sweeps.make [MODEL ...] [--folder FOLDER] [--without-latency]

Its runs go into a workspace of its own, so that it can be interrupted and begun again, and runs of
an older source are never taken for today's: give a fresh folder after a change of the engine. They
are computed where PRUNING_DEVICE says, `cuda:0` or the like, else on the CPU, one after another;
processes of `PRUNING_HOME=FOLDER python -m pruning.runs.worker --kinds run` do some beside it.
Where many work at once they time each other: ship such a sweep without latencies.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from datetime import date
from pathlib import Path
from typing import Any

from pruning.errors import PruningError, RunError
from pruning.events import Started
from pruning.outcomes import pack
from pruning.runs.results import load_run
from pruning.runs.store import Store
from pruning.runs.worker import Shutdown
from pruning.storage import default_workspace
from pruning.sweeps.here import run_here
from pruning.sweeps.presets import which_technique
from pruning.sweeps.shipped import FOLDER, Shipped, write
from pruning.sweeps.sweeps import Progress, failures, rows, submit

MODELS = (
    "digits-mlp",
    "digits-cnn",
    "digits-depthwise",
    "digits-resnet",
    "digits-vit",
    "mnist1d-mlp",
    "mnist1d-cnn",
    "mnist-lenet300",
    "mnist-lenet5",
    "fashion-resnet20",
)


def make(model: str, store: Store, shutdown: Shutdown, *, latency: bool = True) -> Path | None:
    """Run a model's sweep and write it; None where it was interrupted. Raises RunError.

    latency: whether the times that its runs measured are worth keeping.
    """
    plan = which_technique([model])
    id = submit(store, plan)
    began = time.monotonic()

    def tell(progress: Progress) -> None:
        remaining = progress.seconds_remaining
        rest = "" if remaining is None else f", about {remaining:.0f} s remaining"
        print(f"{model}: {progress.done} of {progress.total} done{rest}", flush=True)

    run_here(store, id, shutdown, tell)
    if shutdown.due():
        return None
    if reasons := failures(store, id):
        raise RunError(f"Runs of {model} failed: {next(iter(reasons))}")
    file = FOLDER / f"{model}.json"
    today = date.today().isoformat()
    made = _shipped_rows(store, id, latency)
    write(file, Shipped(plan, today, _machine(store, id), made, _outcomes(store, id)))
    print(f"{file.name}: {file.stat().st_size / 1000:.0f} kB, {time.monotonic() - began:.0f} s")
    return file


def _shipped_rows(store: Store, id: str, latency: bool) -> list[dict[str, Any]]:
    """Runs of the maker's workspace mean nothing elsewhere."""
    empty = ("run",) if latency else ("run", "latency_ms", "dense_latency_ms")
    return [{**row, **dict.fromkeys(empty)} for row in rows(store, id)]


def _outcomes(store: Store, id: str) -> dict[str, str]:
    """Recipe's id -> which test examples its run answered correctly. Raises RunError."""
    outcomes = {}
    for row in rows(store, id):
        answers = load_run(store.folder(row["run"])).answers
        if answers is None or round(float(answers.right.mean()), 6) != row["accuracy"]:
            raise RunError(f"Run {row['run']} kept other answers than it counted: make it anew.")
        outcomes[row["recipe"]] = pack(answers.right)
    return outcomes


def _machine(store: Store, id: str) -> dict[str, Any]:
    """Where the runs were made, as the first of them recorded it."""
    first = store.runs_of_sweep(id)[0]
    started = store.last(first.id, Started)
    assert isinstance(started, Started)
    return started.machine


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pruning.sweeps.make")
    parser.add_argument("models", nargs="*", default=MODELS, metavar="MODEL")
    folder = "the workspace of its runs (default: shipped-sweeps in the workspace)"
    parser.add_argument("--folder", type=Path, help=folder)
    parser.add_argument("--without-latency", action="store_true", help="ship none of the times")
    args = parser.parse_args(argv)
    for model in args.models:
        if model not in MODELS:
            parser.error(f"no sweep is shipped of {model}: known are {', '.join(MODELS)}")
    shutdown = Shutdown()
    signal.signal(signal.SIGINT, shutdown.request)
    signal.signal(signal.SIGTERM, shutdown.request)
    store = Store((args.folder or default_workspace() / "shipped-sweeps").resolve())
    for model in args.models:
        try:
            latency = not args.without_latency
            if make(model, store, shutdown, latency=latency) is None:
                print("Interrupted: the same command continues.")
                return 130
        except PruningError as error:
            print(f"{model}: {error}", file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
