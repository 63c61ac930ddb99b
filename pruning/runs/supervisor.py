"""Looking after workers: keep enough of them warm, bury the dead, end those that do not let go. No torch."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from pruning.runs import process_id
from pruning.runs.store import LIVE, Job, Store

IDLE = 15 * 60.0
"""Seconds without work or a page after which the pool leaves (PRUNING_POOL_IDLE overrides it)."""

SPARE = 5 * 60.0
"""Seconds without work after which a worker beyond the first makes way."""

GRACE = 2.0
"""Seconds that a worker has to stop by itself when it was asked to."""

EARLY, TRIES = 20.0, 4
"""A worker that ends by itself within EARLY seconds counts as one that cannot start; after TRIES of them queued jobs fail."""

ROOT = Path(__file__).resolve().parents[2]
BROKEN = "No worker can start, so nothing can be worked on: the reason is at the end of pool.log in the workspace; then try again."


@dataclass
class Worker:
    """A process of the pool. kinds: of jobs that it takes; core: kept even when nothing is to do."""

    process: subprocess.Popen[bytes]
    kinds: tuple[str, ...]
    core: bool
    began: float = field(default_factory=time.monotonic)

    @property
    def owner(self) -> str:
        return f"{process_id.host()}:{self.process.pid}:"


class WorkerPool:
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
                    say(
                        f"worker {worker.process.pid} ended with code {code} in the middle of job {job.id}"
                    )
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
        busy = (
            sum(
                (job.owner or "").startswith(tuple(worker.owner for worker in general))
                for job in running
            )
            if general
            else 0
        )
        wanted = max(1, min(self.slots, busy + self.store.waiting().get("run", 0) + 1))
        for _ in range(wanted - len(general)):
            self._start(("run", "study"), core=not any(worker.core for worker in general))

    def _start(self, kinds: tuple[str, ...], *, core: bool) -> None:
        command = [
            sys.executable,
            "-m",
            "pruning.runs.worker",
            "--pool",
            str(os.getpid()),
            "--kinds",
            *kinds,
        ]
        command += ["--nice", "5" if "run" in kinds else "0"] + (
            [] if core else ["--idle", str(SPARE)]
        )
        environment = {**os.environ, "PRUNING_HOME": str(self.store.workspace)}
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
        self.asked = {
            (j.id, j.attempt): self.asked.get((j.id, j.attempt), now) for j in running if j.stopping
        }
        for job in running:
            if now - self.asked.get((job.id, job.attempt), now) > GRACE and self.store.give_up(job):
                self._end(job, "did not let go of")

    def _end(self, job: Job, why: str) -> None:
        for worker in self.workers:
            if (job.owner or "").startswith(worker.owner):
                say(f"worker {worker.process.pid} {why} job {job.id} and is ended")
                worker.process.kill()

    def idle(self) -> bool:
        """Whether nobody needs a pool: no work, and no page that asked lately."""
        try:
            silence = time.time() - (self.store.workspace / "pool.heartbeat").stat().st_mtime
        except OSError:
            return True
        return silence > float(os.environ.get("PRUNING_POOL_IDLE", IDLE)) and not self.store.jobs(
            states=LIVE, limit=1
        )


def say(line: str) -> None:
    """A line for the log."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", file=sys.stderr, flush=True)
