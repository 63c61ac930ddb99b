"""The worker pool: a light process that keeps workers warm and replaces those that die. No torch.

    python -m pruning.runs.pool [--slots N]      (a page starts it by itself)
    python -m pruning.runs.pool --stop

One for each workspace. While nothing works it keeps one worker, which takes runs and studies. Once
that is busy, another takes studies alone, so that a page does not wait behind a long run, and there
is one more for runs than is busy, up to `slots`.

Every server that uses a workspace says so by a shared lock on `pool.users`, which the system drops
when the server ends, however it ends. Seconds after the last one ended the pool ends what only
pages wait for, lets running runs come to their end, and ends. It also ends when nothing waits or
works and no page has asked for it in a while.
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
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pruning.errors import RunError, StoreError
from pruning.runs import cache_keys, engines
from pruning.runs.local_workers import ROOT
from pruning.runs.log import log, write_waiting
from pruning.runs.store import Store
from pruning.runs.supervisor import WorkerPool
from pruning.storage import default_workspace, disk_errors

TICK = 0.2
"""Seconds between looks at the workers."""

SOURCE_CHECK = 2.0
"""Seconds between looks at the engine's source."""

STOPPING = 15.0
"""Seconds to wait for the end of a pool that was asked to end."""

LOG = 1 << 20
"""Bytes after which the log is cut to its last quarter."""

USERS = "pool.users"
"""The file in a workspace that its servers lock."""

STARTING = 30.0
"""Seconds within which a pool that was started has locked its file."""


@dataclass(frozen=True)
class _Started:
    """A pool that this process started. folder: what `os.stat` says of the workspace it was for;
    began: monotonic seconds.
    """

    process: subprocess.Popen[bytes]
    folder: os.stat_result
    began: float


_started: dict[Path, _Started] = {}
"""Until a pool has locked its file, only the process that started it knows of it."""

_needed: dict[Path, IO[str]] = {}
"""Workspaces whose pool this process needs, and the file that it has locked to say so."""


# ---------------------------------------------------------------- for pages and shells


def ensure(workspace: Path | None = None) -> bool:
    """Start the workspace's pool if it has none, detached; whether it had to be started.

    It is also the page's sign of life, and says that this process needs the pool for as long as it
    lives. Takes milliseconds; workers are warm seconds later. Raises StoreError.
    """
    workspace = workspace or default_workspace()
    with disk_errors(workspace):
        workspace.mkdir(parents=True, exist_ok=True)
        (workspace / "pool.heartbeat").touch()
        _need(workspace)
        if _is_starting(workspace) or pid(workspace) is not None:
            return False
        _start(workspace)
    return True


def release(workspace: Path) -> None:
    """Say that this process does not need the pool any more."""
    lock = _needed.pop(workspace, None)
    if lock is not None:
        lock.close()


def _need(workspace: Path) -> None:
    lock = _needed.get(workspace)
    if lock is not None and _same_file(workspace / USERS, lock):
        return
    release(workspace)  # of a folder that was deleted meanwhile
    engines.keep(workspace)  # whoever comes last says where runs are worked on
    lock = open(workspace / USERS, "a+")  # noqa: SIM115 - open for as long as this process lives
    fcntl.flock(lock, fcntl.LOCK_SH)
    _needed[workspace] = lock


def _is_starting(workspace: Path) -> bool:
    """Whether this process started a pool that may not have locked its file yet."""
    started = _started.get(workspace)
    if started is None or started.process.poll() is not None:
        return False
    # A folder that was deleted and made anew needs a pool of its own; the other one is leaving.
    same = os.path.samestat(started.folder, os.stat(workspace))
    return same and time.monotonic() - started.began < STARTING


def _start(workspace: Path) -> None:
    environment = {**os.environ, "PRUNING_HOME": str(workspace)}
    with open(workspace / "pool.log", "ab") as log_file:
        process = subprocess.Popen(
            [sys.executable, "-m", "pruning.runs.pool", "--while-needed"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log_file,
            stderr=log_file,
            start_new_session=True,
        )
    _started[workspace] = _Started(process, os.stat(workspace), time.monotonic())


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
    needed_help = "end once no server uses the workspace any more (as a page starts it)"
    parser.add_argument("--while-needed", action="store_true", help=needed_help)
    args = parser.parse_args(argv)
    if args.stop:
        print("The pool has ended." if stop() else "There is no pool to end.")
        return 0
    workspace = default_workspace()
    try:
        with disk_errors(workspace):
            workspace.mkdir(parents=True, exist_ok=True)
            lock = open(workspace / "pool.lock", "a+")  # noqa: SIM115 - closed two lines below
        with lock:
            if not _acquire(lock):
                return 0  # another pool was faster
            pool = WorkerPool(Store(workspace), max(1, args.slots))
            outdated = supervise(pool, lock, while_needed=args.while_needed)
    except StoreError as error:
        log(str(error))
        return 1
    if outdated:
        _start(workspace)
    return 0


def supervise(pool: WorkerPool, lock: IO[str], *, while_needed: bool = False) -> bool:
    """Tick until a signal asks to end, until idle, or until the workspace was removed.

    while_needed: also once no server uses the workspace. Returns True when the source changed: a
    pool and workers of the new version should follow.
    """

    def leave(*_: object) -> None:
        pool.leaving = True

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    workspace = pool.store.workspace
    log(f"the pool looks after {workspace}")
    stamp = cache_keys.stamp()
    checked = time.monotonic()
    complaint = ""
    named = False
    try:
        while not pool.leaving and _same_file(workspace / "pool.lock", lock):
            named = named or _write_pid(lock)
            try:
                if pool.idle():
                    break
                pool.tick(needed=not while_needed or is_needed(workspace))
                complaint = ""
            # A full disk or a locked file may pass; and whatever else it is, nobody else would end
            # the workers of a pool that died of it.
            except Exception as error:
                if str(error) != complaint:
                    log(str(error) if isinstance(error, RunError) else repr(error))
                complaint = str(error)
                time.sleep(1)
            write_waiting()
            _truncate(workspace / "pool.log")
            time.sleep(TICK)
            if time.monotonic() - checked > SOURCE_CHECK:
                checked = time.monotonic()
                # Not in the middle of somebody's run: it goes on with the code it began with.
                if cache_keys.stamp() != stamp and not pool.has_work():
                    return True
    finally:
        pool.close()
        log("the pool ends")
    return False


def is_needed(workspace: Path) -> bool:
    """Whether a server that lives uses the workspace."""
    try:
        with open(workspace / USERS) as users:
            fcntl.flock(users, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _write_pid(lock: IO[str]) -> bool:
    """Write who has the lock into its file; False while there is no room for it."""
    try:
        os.ftruncate(lock.fileno(), 0)
        os.write(lock.fileno(), str(os.getpid()).encode())
    except OSError:
        return False
    return True


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


def _same_file(file: Path, lock: IO[str]) -> bool:
    """Whether a file is still the one that was locked: somebody may have removed the workspace."""
    try:
        return os.path.samestat(os.stat(file), os.fstat(lock.fileno()))
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
