"""Where runs are worked on: processes of this machine, or workers of a Dask cluster. No torch.

    dask://host:port · tls://host:port      a cluster's scheduler, as whoever starts the server says

The store is the only truth, whatever the engine: it has each run once, in one state, and one
attempt at it that counts. The name of the cluster lies in the workspace, since its pool may be
older than the server that names it; so does what the pool knows of the cluster, for pages.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from pruning.errors import RunError
from pruning.runs.store import Job
from pruning.storage import write_json

VARIABLE = "PRUNING_ENGINE"
"""JSON of a Cluster, as run.py and the shell write it; empty: this machine's own workers. Where it
is not there at all, a process has no opinion."""

NAMED, STATUS = "engine.json", "engine-status.json"
"""Files of a workspace: the cluster that was named last, and how it stands."""

SCHEMES = {"dask": "tcp", "tcp": "tcp", "tls": "tls"}
"""What begins an address -> what Dask calls it."""

LOCAL = ("", "local")

OWNER = "dask/"
"""Begins the names of owners of runs on a cluster: no process of this machine, whose end would be
noticed; their leases tell.
"""

NOT_INSTALLED = (
    "Runs on a cluster need Dask, which is not installed here: "
    "`{python} -m pip install distributed`, then start again."
)
NO_ADDRESS = (
    "{text!r} is no engine: give a Dask scheduler as dask://HOST:PORT, or tls://HOST:PORT where it "
    "wants certificates, or local for this machine's own workers."
)


class Engine(Protocol):
    """What the pool asks of a place where runs are worked on. All of it returns at once."""

    def capacity(self) -> int:
        """Runs that it works on at a time, as far as it is known now."""

    def submit(self, running: list[Job]) -> None:
        """Begin what waits in the store, as far as there is capacity. running: all that works."""

    def cancel(self, job: Job, why: str) -> None:
        """End the work on a job that is fenced off already; nothing where another engine has it.

        why: for the log, before the job's id.
        """

    def poll(self, running: list[Job]) -> None:
        """Record what has come since the last look, and give up what died.

        Raises StoreError; what could not be recorded is recorded the next time.
        """

    def take_no_more(self) -> bool:
        """Begin nothing any more; whether all that it worked on has come to its end."""

    def close(self) -> None:
        """End. What it works on waits again."""


@dataclass(frozen=True)
class Cluster:
    """A Dask scheduler. address: as it was typed; ca, certificate, key: files for TLS, "" where
    Dask's own configuration names them.
    """

    address: str
    ca: str = ""
    certificate: str = ""
    key: str = ""

    @property
    def scheduler(self) -> str:
        """Its address as Dask has it."""
        scheme, _, place = self.address.partition("://")
        return f"{SCHEMES[scheme]}://{place}"


def parse(text: str, files: Mapping[str, str] | None = None) -> Cluster | None:
    """The cluster of a flag; None for this machine's own workers.

    files: of TLS (ca, certificate, key). Raises RunError, also where Dask is not installed.
    """
    files = {name: file for name, file in (files or {}).items() if file}
    if text in LOCAL and not files:
        return None
    parts = urlsplit(text)
    try:
        complete = parts.hostname and parts.port and not parts.path.strip("/")
    except ValueError:  # a port that is no number
        complete = False
    if parts.scheme not in SCHEMES or not complete:
        raise RunError(NO_ADDRESS.format(text=text))
    if files and parts.scheme != "tls":
        raise RunError(f"Certificates are for tls://HOST:PORT, and {text} is not encrypted.")
    for name, file in files.items():
        if not Path(file).is_file():
            raise RunError(f"There is no file {file}, which was named as the {name} for {text}.")
    if find_spec("distributed") is None:
        raise RunError(NOT_INSTALLED.format(python=sys.executable))
    paths = {name: str(Path(file).resolve()) for name, file in files.items()}
    return Cluster(text.rstrip("/"), **paths)


def main(words: Sequence[str]) -> int:
    """`python -m pruning.runs.engines ADDRESS [ca=FILE certificate=FILE key=FILE]`: what run.py
    writes into the variable, or why it cannot be used.
    """
    address, *files = words
    try:
        cluster = parse(address, dict(file.split("=", 1) for file in files))
    except RunError as error:
        print(error, file=sys.stderr)
        return 1
    print(json.dumps(asdict(cluster)) if cluster else "")
    return 0


def use(cluster: Cluster | None) -> None:
    """Let this process, and what it starts, name this engine."""
    os.environ[VARIABLE] = json.dumps(asdict(cluster)) if cluster else ""


def keep(workspace: Path) -> None:
    """Tell the workspace's pool which engine this process names, if any. Raises StoreError."""
    wanted = os.environ.get(VARIABLE)
    if wanted is None:
        return
    cluster = _read(wanted)
    if cluster != named(workspace):
        write_json(workspace / NAMED, asdict(cluster) if cluster else {})


def named(workspace: Path) -> Cluster | None:
    """The cluster that was named last; None for this machine's own workers."""
    try:
        return _read((workspace / NAMED).read_text(encoding="utf-8"))
    except OSError:
        return None


def _read(text: str) -> Cluster | None:
    """Raises nothing: what somebody else wrote there names no cluster."""
    with suppress(ValueError, TypeError):
        data = json.loads(text or "{}")
        if data:
            return Cluster(**{name: str(value) for name, value in data.items()})
    return None


# ---------------------------------------------------------------- how it stands, for pages


@dataclass(frozen=True)
class Status:
    """How a cluster stands. workers: that take runs; trouble: why it takes none or fewer, with the
    way out, "" where all is well; since: unix seconds.
    """

    address: str
    workers: int
    trouble: str
    since: float


def tell(workspace: Path, status: Status | None) -> None:
    """Write it for pages; None: there is no cluster. Raises StoreError."""
    if status is not None:
        write_json(workspace / STATUS, asdict(status))
        return
    with suppress(OSError):
        (workspace / STATUS).unlink()


def status(workspace: Path) -> Status | None:
    """None where no cluster is named, or nothing is known of it yet."""
    cluster = named(workspace)
    with suppress(OSError, ValueError, TypeError):
        data: dict[str, Any] = json.loads((workspace / STATUS).read_text(encoding="utf-8"))
        known = Status(**data)
        if cluster is not None and known.address == cluster.address:
            return known
    return None


def trouble(workspace: Path) -> str:
    """Why a cluster begins no runs, or fewer, in a sentence with the way out; "" where all is well,
    or there is none.
    """
    known = status(workspace)
    return known.trouble if known else ""


def slots(workspace: Path) -> int:
    """Runs that work at a time: a cluster's workers, else the cores of this machine."""
    known = status(workspace)
    return max(1, known.workers) if known else os.cpu_count() or 1


def now(cluster: Cluster, workers: int, trouble: str = "") -> Status:
    return Status(cluster.address, workers, trouble, time.time())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
