"""The worker pool: a light process that keeps workers warm and replaces those that die. No torch.

    python -m pruning.runs.pool [--slots N]      (a page starts it by itself)
    python -m pruning.runs.pool --stop

One for each workspace. While nothing works it keeps one worker, which takes runs and studies. Once
that is busy, another takes studies alone, so that a page does not wait behind a long run, and there
is one more for runs than is busy, up to `slots`. The pool ends when nothing waits or works and no
page has asked for it in a while.
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
from pruning.runs.process_id import log
from pruning.runs.store import LIVE, Store
from pruning.runs.supervisor import ROOT, WorkerPool
from pruning.storage import default_workspace

TICK = 0.2
"""Seconds between looks at the workers."""

SOURCE_CHECK = 2.0
"""Seconds between looks at the engine's source."""

STOPPING = 15.0
"""Seconds to wait for the end of a pool that was asked to end."""

LOG = 1 << 20
"""Bytes after which the log is cut to its last quarter."""

_started: dict[Path, subprocess.Popen[bytes]] = {}
"""Pools that this process started: until they have locked their file, only it knows of them."""


# ---------------------------------------------------------------- for pages and shells


def ensure(workspace: Path | None = None) -> bool:
    """Start the workspace's pool if it has none, detached; whether it had to be started.

    It is also the page's sign of life. Takes milliseconds; workers are warm seconds later.
    """
    workspace = workspace or default_workspace()
    workspace.mkdir(parents=True, exist_ok=True)
    (workspace / "pool.heartbeat").touch()
    started = _started.get(workspace)
    starting = started is not None and started.poll() is None
    if starting or pid(workspace) is not None:
        return False
    environment = {**os.environ, "PRUNING_HOME": str(workspace)}
    with open(workspace / "pool.log", "ab") as log_file:
        _started[workspace] = subprocess.Popen(
            [sys.executable, "-m", "pruning.runs.pool"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
            start_new_session=True,
        )
    return True


def pid(workspace: Path | None = None) -> int | None:
    """The process of the workspace's pool, None when there is none."""
    try:
        with open((workspace or default_workspace()) / "pool.lock") as lock:
            try:
                # The system drops a dead process's lock, so the file alone proves nothing.
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read().strip() or 0)
    except OSError:
        return None
    return None


def stop(workspace: Path | None = None) -> bool:
    """End the pool and its workers, running jobs included; whether there was one."""
    process = pid(workspace)
    if not process:
        return False
    os.kill(process, signal.SIGTERM)
    until = time.monotonic() + STOPPING
    while pid(workspace) == process and time.monotonic() < until:
        time.sleep(0.05)
    return True


# ---------------------------------------------------------------- the process


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pruning.runs.pool", description="Keep workers for the workspace."
    )
    slots = os.cpu_count() or 1
    slots_help = "runs at once (default: the processor's cores)"
    parser.add_argument("--slots", type=int, default=slots, help=slots_help)
    stop_help = "end the workspace's pool, running jobs included"
    parser.add_argument("--stop", action="store_true", help=stop_help)
    args = parser.parse_args(argv)
    if args.stop:
        print("The pool has ended." if stop() else "There is no pool to end.")
        return 0
    workspace = default_workspace()
    workspace.mkdir(parents=True, exist_ok=True)
    with open(workspace / "pool.lock", "a+") as lock:
        if not _acquire(lock):
            return 0  # another pool was faster
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        outdated = supervise(WorkerPool(Store(workspace), max(1, args.slots)), lock)
    if outdated:
        ensure(workspace)
    return 0


def supervise(pool: WorkerPool, lock: IO[str]) -> bool:
    """Tick until a signal asks to end, until idle, or until the workspace was removed.

    Returns True when the source changed: a pool and workers of the new version should follow.
    """

    def leave(*_: object) -> None:
        pool.leaving = True

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    workspace = pool.store.workspace
    log(f"the pool looks after {workspace}")
    stamp = cache_keys.stamp()
    checked = time.monotonic()
    try:
        while not pool.leaving and _same_file(workspace, lock) and not pool.idle():
            try:
                pool.tick()
            except RunError as error:  # a full disk or a locked file may pass
                log(str(error))
                time.sleep(1)
            _truncate(workspace / "pool.log")
            time.sleep(TICK)
            if time.monotonic() - checked > SOURCE_CHECK:
                checked = time.monotonic()
                # Not in the middle of somebody's run: it goes on with the code it began with.
                if cache_keys.stamp() != stamp and not pool.store.jobs(states=LIVE, limit=1):
                    return True
    finally:
        pool.close()
        log("the pool ends")
    return False


def _acquire(lock: IO[str]) -> bool:
    """Lock the workspace; False when another pool has it."""
    # `pid` locks the file for a moment to look, so one try is not enough.
    for _ in range(20):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.02)
    return False


def _same_file(workspace: Path, lock: IO[str]) -> bool:
    """Whether the workspace is still the one that was locked: somebody may have removed it."""
    try:
        return os.path.samestat(os.stat(workspace / "pool.lock"), os.fstat(lock.fileno()))
    except OSError:
        return False


def _truncate(file: Path) -> None:
    """Keep the log's last quarter when it has grown too long."""
    with suppress(OSError):
        if file.stat().st_size > LOG:
            # In place, not by a new file: the workers have this one open, and append to it.
            with open(file, "r+b") as log_file:
                log_file.seek(-LOG // 4, os.SEEK_END)
                tail = log_file.read()
                log_file.truncate(0)
                log_file.seek(0)
                log_file.write(tail)


if __name__ == "__main__":
    sys.exit(main())
