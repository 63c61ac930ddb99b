"""The crew: a light process that keeps workers warm and replaces those that die. One for each workspace; no torch.

    python -m pruning.runs.pool [--slots N]      (a page starts it by itself)
    python -m pruning.runs.pool --stop

One worker takes studies alone, so that a page never waits behind a long run; the others take both. There is always one
more than is busy, up to `slots`. The crew leaves when nothing waits or works and no page has asked for it in a while.
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
from pruning.runs.store import LIVE, Store, home
from pruning.runs.supervisor import ROOT, WorkerPool, say

TICK, LOOK = 0.2, 2.0
"""Seconds between looks at the workers, and at the source."""

LOG = 1 << 20
"""Bytes after which the log is cut to its last quarter."""

_started: dict[Path, subprocess.Popen[bytes]] = {}
"""Crews that this process started: until they hold their lock, only it knows of them."""


# ---------------------------------------------------------------- for pages and shells


def ensure(place: Path | None = None) -> bool:
    """Start a crew for the workspace if it has none, detached from this process; whether it had to be started.

    Also tells the crew that a page is alive. Takes milliseconds; workers are warm a few seconds later.
    """
    place = place or home()
    place.mkdir(parents=True, exist_ok=True)
    (place / "crew.alive").touch()
    mine = _started.get(place)
    if (mine is not None and mine.poll() is None) or pid(place) is not None:
        return False
    environment = {**os.environ, "PRUNING_HOME": str(place)}
    with open(place / "crew.log", "ab") as log:
        _started[place] = subprocess.Popen(
            [sys.executable, "-m", "pruning.runs.pool"],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    return True


def pid(place: Path | None = None) -> int | None:
    """The process of the workspace's crew, None when there is none."""
    try:
        with open((place or home()) / "crew.lock") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return int(lock.read().strip() or 0)
    except OSError:
        return None
    return None


def stop(place: Path | None = None, patience: float = 15.0) -> bool:
    """End the crew and its workers, running jobs included; whether there was one."""
    found = pid(place)
    if not found:
        return False
    os.kill(found, signal.SIGTERM)
    until = time.monotonic() + patience
    while pid(place) == found and time.monotonic() < until:
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
        "--stop", action="store_true", help="end the workspace's crew, running jobs included"
    )
    args = parser.parse_args(argv)
    if args.stop:
        print("The crew has ended." if stop() else "There is no crew to end.")
        return 0
    place = home()
    place.mkdir(parents=True, exist_ok=True)
    with open(place / "crew.lock", "a+") as lock:
        if not _take(lock):
            return 0  # another one was faster
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        renew = watch(WorkerPool(Store(place), max(1, args.slots)), lock)
    if renew:
        ensure(place)
    return 0


def watch(crew: WorkerPool, lock: IO[str]) -> bool:
    """Tick until told to leave, until idle, or until the workspace is gone.

    Returns True when it left because the source changed: a crew and workers of the new version should follow.
    """

    def leave(*_: object) -> None:
        crew.leaving = True

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    say(f"crew {os.getpid()} looks after {crew.store.home}")
    stamp, looked = cache_keys.stamp(), time.monotonic()
    try:
        while not crew.leaving and _there(crew.store.home, lock) and not crew.idle():
            try:
                crew.tick()
            except RunError as error:  # a full disk or a locked file may pass
                say(str(error))
                time.sleep(1)
            _cut(crew.store.home / "crew.log")
            time.sleep(TICK)
            if time.monotonic() - looked > LOOK:
                looked = time.monotonic()
                if cache_keys.stamp() != stamp and not crew.store.jobs(states=LIVE, limit=1):
                    return True
    finally:
        crew.close()
        say(f"crew {os.getpid()} leaves")
    return False


def _take(lock: IO[str]) -> bool:
    """The workspace's lock, unless another crew has it. Probes hold it for a moment, so once is not enough."""
    for _ in range(20):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(0.02)
    return False


def _there(place: Path, lock: IO[str]) -> bool:
    """Whether the workspace is still the one whose lock is held: somebody may have removed it."""
    try:
        return os.path.samestat(os.stat(place / "crew.lock"), os.fstat(lock.fileno()))
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
