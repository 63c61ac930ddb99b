"""Supervision of a worker pool: keep enough workers warm, replace those that died. No torch."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

from pruning.runs import process_id
from pruning.runs.process_id import log
from pruning.runs.store import LIVE, Job, Store

IDLE = 15 * 60.0
"""Seconds without work or a page until the pool ends (PRUNING_POOL_IDLE overrides it)."""

SPARE = 5 * 60.0
"""Seconds without work until a worker beyond the first makes way."""

GRACE = 2.0
"""Seconds that a worker has to stop by itself when it was asked to."""

MEASURING = 300.0
"""Seconds that it has where the run's weights are saved already and are being measured."""

EARLY = 20.0
TRIES = 4
"""A worker that fails within EARLY seconds cannot start; after TRIES of them queued jobs fail."""

ROOT = Path(__file__).resolve().parents[2]
NO_WORKER_STARTS = (
    "No worker can start, so nothing can be worked on: "
    "the reason is at the end of pool.log in the workspace; then try again."
)


@dataclass
class Worker:
    """A process of the pool. kinds: of jobs that it takes; core: kept even when nothing waits."""

    process: subprocess.Popen[bytes]
    kinds: tuple[str, ...]
    core: bool
    began: float = field(default_factory=time.monotonic)

    @property
    def owner(self) -> str:
        """How the names of this process begin where it owns a job."""
        return f"{process_id.host()}:{self.process.pid}:"

    def owns(self, job: Job) -> bool:
        return (job.owner or "").startswith(self.owner)


class WorkerPool:
    """Looks after the workers of one workspace. A class because it keeps their processes."""

    def __init__(self, store: Store, slots: int) -> None:
        self.store = store
        self.slots = slots
        self.workers: list[Worker] = []
        self.leaving = False
        self.failures = 0
        # Monotonic seconds at which a worker for studies alone was last of use.
        self.last_needed = time.monotonic()
        # Monotonic seconds before which no worker is started.
        self.resume = 0.0
        # (job, attempt) -> when its stop was first seen, in monotonic seconds.
        self.stops: dict[tuple[str, int], float] = {}
        # Unix seconds, because leases are: of the last tick, and before which nobody is silent.
        self.ticked = time.time()
        self.patient_until = 0.0

    def tick(self) -> None:
        """One look at every worker and every running job."""
        running = self.store.jobs(states=("running",))
        self._forget_ended(running)
        self._give_up_silent()
        self._end_unresponsive(running)
        if time.monotonic() >= self.resume:
            self._start_missing(running)

    def close(self) -> None:
        """Ask every worker to end, then make it."""
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

    def _forget_ended(self, running: list[Job]) -> None:
        """Forget workers that ended, and give up at once what they were working on."""
        ended = [worker for worker in self.workers if worker.process.poll() is not None]
        for worker in ended:
            self.workers.remove(worker)
            code = worker.process.returncode
            for job in running:
                if worker.owns(job) and self.store.give_up(job):
                    log(f"worker {worker.process.pid} ended with code {code} during job {job.id}")
            early = code != 0 and time.monotonic() - worker.began < EARLY
            self._count_failures(early)

    def _count_failures(self, early: bool) -> None:
        """Workers that cannot start are tried ever more slowly, and what waits for them fails."""
        if not early:
            self.failures = 0
            return
        self.failures += 1
        self.resume = time.monotonic() + min(60.0, 0.5 * 2**self.failures)
        if self.failures >= TRIES:
            self.store.fail_waiting(NO_WORKER_STARTS)

    def _start_missing(self, running: list[Job]) -> None:
        """One worker takes all, until something else would have to wait behind it."""
        general = [worker for worker in self.workers if "run" in worker.kinds]
        busy = sum(any(worker.owns(job) for worker in general) for job in running)
        waiting = self.store.waiting()
        # One more than is busy or waited for, so that the next run finds a warm one.
        wanted = busy + waiting.get("run", 0) + 1
        wanted = max(1, min(self.slots, wanted))
        core = not any(worker.core for worker in general)
        for _ in range(wanted - len(general)):
            self._start(("run", "study"), core=core)
        self._follow_need(needed=busy > 0 or sum(waiting.values()) > 1, running=running)

    def _follow_need(self, needed: bool, running: list[Job]) -> None:
        """While something works, a worker takes studies alone: no page waits behind a long run.

        Each holds half a gigabyte, so that an idle pool does without it.
        """
        now = time.monotonic()
        alone = [worker for worker in self.workers if worker.kinds == ("study",)]
        if needed:
            self.last_needed = now
            if not alone:
                self._start(("study",), core=True)
        elif now - self.last_needed > SPARE:
            for worker in alone:
                if not any(worker.owns(job) for job in running):
                    worker.process.terminate()

    def _start(self, kinds: tuple[str, ...], *, core: bool) -> None:
        # Runs yield to the page and to the studies that it waits for.
        nice = "5" if "run" in kinds else "0"
        command = [sys.executable, "-m", "pruning.runs.worker", "--pool", str(os.getpid())]
        command += ["--nice", nice, "--kinds", *kinds]
        if not core:
            command += ["--idle", str(SPARE)]
        environment = {**os.environ, "PRUNING_HOME": str(self.store.workspace)}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL)
        self.workers.append(Worker(process, kinds, core))

    def _give_up_silent(self) -> None:
        """Give up on owners whose lease ran out, and end those of them that are workers of ours."""
        now = time.time()
        # After a sleep of the machine every lease has run out: first let the workers renew theirs.
        if now - self.ticked > self.store.lease / 2:
            self.patient_until = now + self.store.lease / 5
        self.ticked = now
        if now < self.patient_until:
            return
        for job in self.store.reap():
            self._kill_owner(job, "fell silent during")

    def _end_unresponsive(self, running: list[Job]) -> None:
        """End workers that do not stop when asked."""
        now = time.monotonic()
        asked = [(job.id, job.attempt) for job in running if job.stopping]
        self.stops = {attempt: self.stops.get(attempt, now) for attempt in asked}
        for job in running:
            waited = now - self.stops.get((job.id, job.attempt), now)
            # A run saves its weights once it has heard the stop: what it reached is not to be lost.
            heard = (job.folder / "final.safetensors").is_file()
            # The job is fenced off first, so that nothing else is lost with the process.
            if waited > (MEASURING if heard else GRACE) and self.store.give_up(job):
                self._kill_owner(job, "did not stop")

    def _kill_owner(self, job: Job, why: str) -> None:
        for worker in self.workers:
            if worker.owns(job):
                log(f"worker {worker.process.pid} {why} job {job.id} and is ended")
                worker.process.kill()

    def idle(self) -> bool:
        """Whether nobody needs a pool: no work, and no page that asked lately."""
        try:
            asked = (self.store.workspace / "pool.heartbeat").stat().st_mtime
        except OSError:
            return True
        patience = float(os.environ.get("PRUNING_POOL_IDLE", IDLE))
        return time.time() - asked > patience and not self.store.jobs(states=LIVE, limit=1)
