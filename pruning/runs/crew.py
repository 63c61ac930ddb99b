"""The crew: a light process that keeps workers warm and replaces those that die. One for each workspace; no torch.

    python -m pruning.runs.crew [--slots N]      (a page starts it by itself)
    python -m pruning.runs.crew --stop

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from pruning.errors import RunError
from pruning.runs import owner
from pruning.runs.store import LIVE, Job, Store, home

TICK = 0.2
IDLE = 15 * 60.0
"""Seconds without work or a page after which the crew leaves (PRUNING_CREW_IDLE overrides it)."""

SPARE = 5 * 60.0
"""Seconds without work after which a worker beyond the first makes way."""

GRACE = 2.0
"""Seconds that a worker has to stop by itself when it was asked to."""

EARLY, TRIES = 20.0, 4
"""A worker that ends by itself within EARLY seconds counts as one that cannot start; after TRIES of them queued jobs fail."""

LOG = 1 << 20
"""Bytes after which the log is cut to its last quarter."""

ROOT = Path(__file__).resolve().parents[2]
BROKEN = "No worker can start, so nothing can be worked on: the reason is at the end of crew.log in the workspace; then try again."

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
            [sys.executable, "-m", "pruning.runs.crew"],
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


@dataclass
class Worker:
    """A process of the crew. kinds: of jobs that it takes; core: kept even when nothing is to do."""

    process: subprocess.Popen[bytes]
    kinds: tuple[str, ...]
    core: bool
    began: float = field(default_factory=time.monotonic)

    @property
    def owner(self) -> str:
        return f"{owner.host()}:{self.process.pid}:"


class Crew:
    """Looks after the workers of one workspace. A class because it holds their processes."""

    def __init__(self, store: Store, slots: int) -> None:
        self.store, self.slots = store, slots
        self.workers: list[Worker] = []
        self.asked: dict[tuple[str, int], float] = {}
        self.failures, self.resume, self.leaving = 0, 0.0, False
        self.seen, self.listen = time.time(), 0.0

    def tick(self) -> None:
        """One look around: bury, replace, insist."""
        running = self.store.jobs(states=("running",))
        self._bury(running)
        self._reap()
        self._insist(running)
        if time.monotonic() >= self.resume:
            self._hire(running)

    def close(self) -> None:
        """Ask every worker to leave, then make it."""
        for worker in self.workers:
            worker.process.terminate()
        until = time.monotonic() + GRACE
        for worker in self.workers:
            try:
                worker.process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                worker.process.kill()
                worker.process.wait()
        self.store.reap()

    def _bury(self, running: list[Job]) -> None:
        """Forget workers that ended, and give up at once what they were working on."""
        for worker in [w for w in self.workers if w.process.poll() is not None]:
            self.workers.remove(worker)
            code, age = worker.process.returncode, time.monotonic() - worker.began
            for job in running:
                if (job.owner or "").startswith(worker.owner) and self.store.give_up(job):
                    say(f"worker {worker.process.pid} ended with code {code} in the middle of job {job.id}")
            self._count(code != 0 and age < EARLY)

    def _count(self, early: bool) -> None:
        """Workers that cannot start are tried ever more slowly, and what waits for them is told."""
        self.failures = self.failures + 1 if early else 0
        if early:
            self.resume = time.monotonic() + min(60.0, 0.5 * 2**self.failures)
        if self.failures >= TRIES:
            self.store.fail_waiting(BROKEN)

    def _hire(self, running: list[Job]) -> None:
        if not any(worker.kinds == ("study",) for worker in self.workers):
            self._start(("study",), core=True)
        general = [worker for worker in self.workers if worker.kinds != ("study",)]
        busy = sum((job.owner or "").startswith(tuple(worker.owner for worker in general)) for job in running) if general else 0
        wanted = max(1, min(self.slots, busy + self.store.waiting().get("run", 0) + 1))
        for _ in range(wanted - len(general)):
            self._start(("run", "study"), core=not any(worker.core for worker in general))

    def _start(self, kinds: tuple[str, ...], *, core: bool) -> None:
        command = [sys.executable, "-m", "pruning.runs.worker", "--crew", str(os.getpid()), "--kinds", *kinds]
        command += ["--nice", "5" if "run" in kinds else "0"] + ([] if core else ["--idle", str(SPARE)])
        environment = {**os.environ, "PRUNING_HOME": str(self.store.home)}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL)
        self.workers.append(Worker(process, kinds, core))

    def _reap(self) -> None:
        """Give up on silent owners, and end those of them that are workers of ours.

        After a sleep of the machine everybody was silent: first let them speak.
        """
        now = time.time()
        if now - self.seen > self.store.lease / 2:
            self.listen = now + self.store.lease / 5
        self.seen = now
        for job in self.store.reap() if now >= self.listen else []:
            self._end(job, "fell silent in the middle of")

    def _insist(self, running: list[Job]) -> None:
        """End workers that do not stop when asked. The job is fenced off first, so that nothing else is lost with the process."""
        now = time.monotonic()
        self.asked = {(j.id, j.attempt): self.asked.get((j.id, j.attempt), now) for j in running if j.stopping}
        for job in running:
            if now - self.asked.get((job.id, job.attempt), now) > GRACE and self.store.give_up(job):
                self._end(job, "did not let go of")

    def _end(self, job: Job, why: str) -> None:
        for worker in self.workers:
            if (job.owner or "").startswith(worker.owner):
                say(f"worker {worker.process.pid} {why} job {job.id} and is ended")
                worker.process.kill()

    def idle(self) -> bool:
        """Whether nobody needs a crew: no work, and no page that asked lately."""
        try:
            silence = time.time() - (self.store.home / "crew.alive").stat().st_mtime
        except OSError:
            return True
        return silence > float(os.environ.get("PRUNING_CREW_IDLE", IDLE)) and not self.store.jobs(states=LIVE, limit=1)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m pruning.runs.crew", description="Keep workers for the workspace.")
    parser.add_argument("--slots", type=int, default=os.cpu_count() or 1, help="runs at once (default: the processor's cores)")
    parser.add_argument("--stop", action="store_true", help="end the workspace's crew, running jobs included")
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
        watch(Crew(Store(place), max(1, args.slots)), lock)
    return 0


def watch(crew: Crew, lock: IO[str]) -> None:
    """Tick until told to leave, until idle, or until the workspace is gone."""

    def leave(*_: object) -> None:
        crew.leaving = True

    signal.signal(signal.SIGTERM, leave)
    signal.signal(signal.SIGINT, leave)
    say(f"crew {os.getpid()} looks after {crew.store.home}")
    try:
        while not crew.leaving and _there(crew.store.home, lock) and not crew.idle():
            try:
                crew.tick()
            except RunError as error:  # a full disk or a locked file may pass
                say(str(error))
                time.sleep(1)
            _cut(crew.store.home / "crew.log")
            time.sleep(TICK)
    finally:
        crew.close()
        say(f"crew {os.getpid()} leaves")


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


def say(line: str) -> None:
    """A line for the log."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
