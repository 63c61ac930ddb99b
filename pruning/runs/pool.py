"""The worker pool: a light process that keeps workers warm and replaces those that die. One for each workspace; no torch.

    python -m pruning.runs.pool [--slots N]      (a page starts it by itself)
    python -m pruning.runs.pool --stop

One worker takes studies alone, so that a page never waits behind a long run; the others take both. There is always one
more than is busy, up to `slots`. The pool leaves when nothing waits or works and no page has asked for it in a while.
"""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import IO

from pruning.errors import RunError
from pruning.runs import cache_keys
from pruning.runs.store import LIVE, Store
from pruning.runs.supervisor import ROOT, WorkerPool, say
from pruning.storage import default_workspace

TICK, LOOK = 0.2, 2.0
"""Seconds between looks at the workers, and at the source."""

LOG = 1 << 20
"""Bytes after which the log is cut to its last quarter."""

_started: dict[Path, subprocess.Popen[bytes]] = {}
"""Crews that this process started: until they hold their lock, only it knows of them."""


# ---------------------------------------------------------------- for pages and shells


def ensure(workspace: Path | None = None) -> bool:
    """Start a pool for the workspace if it has none, detached from this process; whether it had to be started.

    Also tells the pool that a page is alive. Takes milliseconds; workers are warm a few seconds later.
    """
    workspace = workspace or default_workspace()
    workspace.mkdir(parents=True, exist_ok=True)
    (workspace / "pool.heartbeat").touch()
    mine = _started.get(workspace)
    if (mine is not None and mine.poll() is None) or pid(workspace) is not None:
        return False
    environment = {**os.environ, "PRUNING_HOME": str(workspace)}
    with open(workspace / "pool.log", "ab") as log:
        _started[workspace] = subprocess.Popen(
            [sys.executable, "-m", "pruning.runs.pool"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return True


def pid(workspace: Path | None = None) -> int | None:
    """The process of the workspace's pool, None when there is none."""
    try:
        with open((workspace or default_workspace()) / "pool.lock") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read().strip() or 0)
    except OSError:
        return None
    return None


def stop(workspace: Path | None = None, patience: float = 15.0) -> bool:
    """End the pool and its workers, running jobs included; whether there was one."""
    found = pid(workspace)
    if not found:
        return False
    os.kill(found, signal.SIGTERM)
    until = time.monotonic() + patience
    while pid(workspace) == found and time.monotonic() < until:
        time.sleep(0.05)
    return True


# ---------------------------------------------------------------- the process


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pruning.runs.pool", description="Keep workers for the workspace."
    )
    parser.add_argument(
        "--slots",
        type=int,
        default=os.cpu_count() or 1,
        help="runs at once (default: the processor's cores)",
    )
    parser.add_argument(
        "--stop", action="store_true", help="end the workspace's pool, running jobs included"
    )
    args = parser.parse_args(argv)
    if args.stop:
        print("The pool has ended." if stop() else "There is no pool to end.")
        return 0
    workspace = default_workspace()
    workspace.mkdir(parents=True, exist_ok=True)
    with open(workspace / "pool.lock", "a+") as lock:
        if not _take(lock):
            return 0  # another one was faster
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        renew = watch(WorkerPool(Store(workspace), max(1, args.slots)), lock)
    if renew:
        ensure(workspace)
    return 0


def watch(pool: WorkerPool, lock: IO[str]) -> bool:
    """Tick until told to leave, until idle, or until the workspace is gone.

    Returns True when it left because the source changed: a pool and workers of the new version should follow.
    """

    def leave(*_: object) -> None:
        pool.leaving = True

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    say(f"pool {os.getpid()} looks after {pool.store.workspace}")
    stamp, looked = cache_keys.stamp(), time.monotonic()
    try:
        while not pool.leaving and _there(pool.store.workspace, lock) and not pool.idle():
            try:
                pool.tick()
            except RunError as error:  # a full disk or a locked file may pass
                say(str(error))
                time.sleep(1)
            _cut(pool.store.workspace / "pool.log")
            time.sleep(TICK)
            if time.monotonic() - looked > LOOK:
                looked = time.monotonic()
                if cache_keys.stamp() != stamp and not pool.store.jobs(states=LIVE, limit=1):
                    return True
    finally:
        pool.close()
        say(f"pool {os.getpid()} leaves")
    return False


def _take(lock: IO[str]) -> bool:
    """The workspace's lock, unless another pool has it. Probes hold it for a moment, so once is not enough."""
    for _ in range(20):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.02)
    return False


def _there(workspace: Path, lock: IO[str]) -> bool:
    """Whether the workspace is still the one whose lock is held: somebody may have removed it."""
    try:
        return os.path.samestat(os.stat(workspace / "pool.lock"), os.fstat(lock.fileno()))
    except OSError:
        return False


def _cut(log: Path) -> None:
    """Keep the log's last quarter when it has grown too long. Its writers append, so they go on behind it."""
    with suppress(OSError):
        if log.stat().st_size > LOG:
            with open(log, "r+b") as held:
                held.seek(-LOG // 4, os.SEEK_END)
                tail = held.read()
                held.truncate(0)
                held.seek(0)
                held.write(tail)


if __name__ == "__main__":
    sys.exit(main())
