"""Arguments that several verbs share."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pruning.errors import RecipeError, RunError
from pruning.formats import datasets
from pruning.ranges import Range
from pruning.runs import engines, own_files
from pruning.runs.store import Store
from pruning.storage import default_workspace

if TYPE_CHECKING:
    from pruning.types import Workpiece

AGAIN = "again for more"
THREADS = Range(1, 1024)
TLS = {
    "ca": "of a tls:// engine: the certificate of who signed the scheduler's",
    "certificate": "of a tls:// engine: this machine's certificate",
    "key": "of a tls:// engine: this machine's key",
}
SETTINGS = [field.name for field in fields(datasets.Settings)]


def repeated(sub: argparse.ArgumentParser, flag: str, metavar: str, help: str = AGAIN) -> None:
    """A flag that may be given several times; none at all is []."""
    sub.add_argument(flag, action="append", default=[], metavar=metavar, help=help)


def threads(sub: argparse.ArgumentParser, help: str = "CPU threads (default: torch's own)") -> None:
    sub.add_argument("--threads", type=int, help=help)


def device(sub: argparse.ArgumentParser) -> None:
    """A flag for where the verb computes."""
    places = "where it is computed: cpu, cuda, cuda:1, mps, or auto for the best there is here"
    sub.add_argument("--device", default="cpu", metavar="DEVICE", help=f"{places} (default cpu)")


def of_sweep(sub: argparse.ArgumentParser) -> None:
    """Flags for how the runs of a sweep are run, where they are kept, and what it is called."""
    here = "run it in this process, one run after another, without workers"
    sub.add_argument("--here", action="store_true", help=here)
    workspace = "where its runs are kept (default: $PRUNING_HOME, else workspace)"
    sub.add_argument("--workspace", type=Path, metavar="FOLDER", help=workspace)
    sub.add_argument("--label", help="a name for it, which pages show")
    place = "a Dask scheduler whose workers run it, dask://HOST:PORT or tls://HOST:PORT; or local"
    sub.add_argument("--engine", metavar="ADDRESS", help=f"{place} (default: as it was last named)")
    for name in TLS:
        sub.add_argument(f"--engine-{name}", metavar="FILE", help=TLS[name])


def store_of(args: argparse.Namespace) -> Store:
    """The store of the workspace that was asked for, which is this process's from now on."""
    if args.workspace is not None:
        # Uploads, models of one's own and the pool are looked for there, too.
        os.environ["PRUNING_HOME"] = str(args.workspace.resolve())
    return Store()


def use_engine(args: argparse.Namespace) -> bool:
    """Let runs be worked on where --engine says; whether it says so. Raises RunError."""
    files = {name: getattr(args, f"engine_{name}") or "" for name in TLS}
    if args.engine is None:
        if any(files.values()):
            raise RunError("Certificates are of an engine: name it with --engine tls://HOST:PORT.")
        return False
    if args.here:
        raise RunError("--here runs it in this process, and --engine elsewhere: give one of them.")
    engines.use(engines.parse(args.engine, files))
    return True


def content(file: Path, noun: str) -> bytes:
    """Of a file that was asked for. noun: what it holds. Raises RecipeError."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise RecipeError(f"{file} cannot be read as a {noun}: {error.strerror}.") from None


def model(text: str) -> str:
    """What a recipe calls the model of a flag; code and folders that it names may be used then.

    A file is read as an upload is, and kept in the workspace. Raises RecipeError, FileRefused.
    """
    own, kept = datasets.parted(text)
    return datasets.joined(own_files.name(own), kept)


def data(sub: argparse.ArgumentParser) -> None:
    """Flags for a data set of one's own, in place of the model's."""
    path = "a folder or zip of images by class, an npz, a CSV, MNIST's idx files; or data:<id>"
    sub.add_argument("--data", metavar="PATH", help=path)
    settings = f"of the data set, again for more: {', '.join(SETTINGS)}"
    repeated(sub, "--data-settings", "NAME=VALUE", settings)


def with_data(model: str, args: argparse.Namespace) -> str:
    """The model's name with the data set that was asked for, which is read and kept.

    Raises FileRefused, RecipeError.
    """
    settings = pairs(args.data_settings)
    own, kept = datasets.parted(model)
    if not args.data and not settings:
        return model
    if args.data and not args.data.startswith("data:"):
        read = datasets.accept(args.data, settings=datasets.Settings.of(settings), named=True)
        return datasets.joined(own, read.id)
    id = args.data.removeprefix("data:") if args.data else kept
    if id is None:
        raise RecipeError("--data-settings are of a data set: name one with --data PATH.")
    known = datasets.get(id).settings
    changed = datasets.Settings.of({**asdict(known), **settings})
    return datasets.joined(own, datasets.adjusted(id, changed).id)


def use_threads(count: int | None) -> None:
    # Late, so that `--help` and mistyped flags do not wait for torch.
    import torch

    if count is not None:
        THREADS.check("threads", count, whole=True)
        torch.set_num_threads(count)


def on_device(work: Workpiece, args: argparse.Namespace) -> Workpiece:
    """The workpiece where the flag says. Raises NoDevice."""
    # Late, as above.
    from pruning import devices

    return devices.on_device(work, args.device)


def maps() -> Path | None:
    """Where what was measured of layers is kept: in the workspace, if there is one."""
    workspace = default_workspace()
    return workspace / "maps" if workspace.is_dir() else None


def pairs(texts: Iterable[str]) -> dict[str, Any]:
    """NAME=VALUE each: a value that is JSON is read as such, any other is a string.

    Raises RecipeError for a text without "=".
    """
    values: dict[str, Any] = {}
    for text in texts:
        # From the right: names of layers hold no "=", but nothing forbids it.
        name, equals, value = text.rpartition("=")
        if not equals:
            raise RecipeError(f"{text!r} is not NAME=VALUE.")
        try:
            values[name] = json.loads(value)
        except ValueError:
            values[name] = value
        except RecursionError:
            raise RecipeError(f"The value of {name} is nested too deep: give one value.") from None
    return values
