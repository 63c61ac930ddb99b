"""The engine of this machine: worker processes that take jobs from the store by themselves.

They are kept warm, and those that died are replaced. No torch.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pruning import events
from pruning.errors import RunError
from pruning.runs import process_id
from pruning.runs.log import log
from pruning.runs.store import KINDS, PROCESS_ENDED, Fenced, Job, Store

GRACE = 2.0
"""Seconds that workers have to end by themselves when they are asked to."""

SPARE = 5 * 60.0
"""Seconds without work until a worker beyond the first makes way."""

EARLY = 20.0
TRIES = 4
"""A worker that fails within EARLY seconds cannot start; after TRIES of them queued jobs fail."""

ALL, NO_RUNS, STUDIES = ("run", "study"), ("study", "long"), ("study",)
"""Kinds of jobs that a worker takes."""

ROOT = Path(__file__).resolve().parents[2]

KILLED = "The process that worked on this was ended from outside ({signal}): start it again."
STARVED = (
    "The system ended the process that worked on this because memory had run out: close other "
    "programs, take a smaller batch, or a smaller model."
)
CRASHED = (
    "The process that worked on this crashed ({how}): its last words are at the end of pool.log in "
    "the workspace. Start it again, or try another recipe."
)
NO_WORKER_STARTS = (
    "No worker can start, so nothing can be worked on: "
    "the reason is at the end of pool.log in the workspace; then try again."
)


@dataclass
class Worker:
    """A process of the pool. kinds: of jobs that it takes; core: kept even when nothing waits;
    outcomes: a pipe on which it tells how jobs ended that it could not record itself, heard: the
    beginning of what it tells; worked: it has had a job; leaving: it was asked to end.
    """

    process: subprocess.Popen[bytes]
    kinds: tuple[str, ...]
    core: bool
    outcomes: int | None = None
    began: float = field(default_factory=time.monotonic)
    worked: bool = False
    leaving: bool = False
    heard: bytes = b""

    @property
    def owner(self) -> str:
        """How the names of this process begin where it owns a job."""
        return f"{process_id.host()}:{self.process.pid}:"

    def owns(self, job: Job) -> bool:
        return (job.owner or "").startswith(self.owner)


class LocalWorkers:
    """The worker processes of one workspace. A class because it keeps them.

    kinds: of jobs that most of them take; without runs where another engine works on those.
    """

    def __init__(self, store: Store, slots: int) -> None:
        self.store = store
        self.slots = slots
        self.kinds = ALL
        self.workers: list[Worker] = []
        self.failures = 0
        # Monotonic seconds at which a worker for studies alone was last of use.
        self.last_needed = time.monotonic()
        # Monotonic seconds before which no worker is started.
        self.resume = 0.0
        # How jobs ended whose workers could not record it: kept until there is room for it.
        self.unrecorded: list[dict[str, Any]] = []
        self.starved = _starved()

    # ---------------------------------------------------------------- as an engine

    def capacity(self) -> int:
        return self.slots

    def submit(self, running: list[Job]) -> None:
        """Start the workers that are missing: they take what waits by themselves."""
        if time.monotonic() >= self.resume:
            self._start_missing(running)

    def cancel(self, job: Job, why: str) -> None:
        for worker in self.workers:
            if worker.owns(job):
                log(f"worker {worker.process.pid} {why} job {job.id} and is ended")
                worker.process.kill()

    def poll(self, running: list[Job]) -> None:
        self._note_work(running)
        self._record_outcomes()
        self._forget_ended(running)

    def take_no_more(self) -> bool:
        for worker in self.workers:
            # Whoever works ends its job first: a job claimed in this moment is not lost.
            worker.process.send_signal(signal.SIGUSR1)
        return not self.workers and not self.unrecorded

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
        try:
            for worker in self.workers:
                self._hear(worker)
            self._record_outcomes()
            self.store.reap()
        except RunError as error:  # the next pool reaps what this one cannot
            log(str(error))

    def is_of_ended(self, job: Job) -> bool:
        """Whether a worker of ours has just ended over it: a later look says why."""
        # Its first thread is dead for a moment before all are, and only then it can be waited for.
        dead = process_id.dead(job.owner or "")
        return dead and any(worker.owns(job) for worker in self.workers)

    # ---------------------------------------------------------------- inside

    def _note_work(self, running: list[Job]) -> None:
        for worker in self.workers:
            worker.worked = worker.worked or any(worker.owns(job) for job in running)
            self._hear(worker)

    def _hear(self, worker: Worker) -> None:
        """Read what a worker has told of jobs that it could not record."""
        while worker.outcomes is not None:
            try:
                piece = os.read(worker.outcomes, 1 << 16)
            except BlockingIOError:
                break
            if not piece:  # it has ended, and so has what it has to tell
                os.close(worker.outcomes)
                worker.outcomes = None
            worker.heard += piece
        # A long recipe may come in two pieces, and the end of one that was killed never comes.
        *lines, worker.heard = worker.heard.split(b"\n")
        self.unrecorded += [json.loads(line) for line in lines]

    def _record_outcomes(self) -> None:
        """Record how jobs ended whose workers found no room for it. Raises DiskFull again."""
        while self.unrecorded:
            outcome = self.unrecorded[0]
            with suppress(Fenced):  # it was deleted, or has ended, meanwhile
                self.store.finish(
                    Job(**{**outcome["job"], "folder": Path(outcome["job"]["folder"])}),
                    outcome["state"],
                    outcome["message"],
                    events.from_json(outcome["event"]),
                )
                log(f"job {outcome['job']['id']} {outcome['state']}: {outcome['message']}")
            self.unrecorded.pop(0)

    def _forget_ended(self, running: list[Job]) -> None:
        """Forget workers that ended, and give up at once what they were working on."""
        ended = [worker for worker in self.workers if worker.process.poll() is not None]
        for worker in ended:
            self._hear(worker)
            self._record_outcomes()
            code = worker.process.returncode
            for job in running:
                if worker.owns(job) and self.store.give_up(job, self._why_ended(code)):
                    log(f"worker {worker.process.pid} ended with code {code} during job {job.id}")
            if code:
                self.store.tidy()
            # Only now: where the store could not be written, the next tick tries again.
            self.workers.remove(worker)
            # What ends every worker that takes it is the job's fault: others can still start.
            lived = time.monotonic() - worker.began
            self._count_failures(code != 0 and not worker.worked and lived < EARLY)

    def _why_ended(self, code: int) -> str:
        """Why a job failed whose worker ended with this code, as far as that is known."""
        starved, self.starved = self.starved, _starved()
        if code == -signal.SIGKILL and self.starved > starved:
            return STARVED
        if code in (-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT):
            return KILLED.format(signal=signal.Signals(-code).name)
        if code < 0:
            return CRASHED.format(how=signal.Signals(-code).name)
        return CRASHED.format(how=f"exit code {code}") if code else PROCESS_ENDED

    def _count_failures(self, early: bool) -> None:
        """Workers that cannot start are tried ever more slowly, and what waits for them fails."""
        if not early:
            self.failures = 0
            return
        self.failures += 1
        self.resume = time.monotonic() + min(60.0, 0.5 * 2**self.failures)
        if self.failures >= TRIES:
            kinds = KINDS if self.kinds == ALL else ("study",)
            self.store.fail_waiting(NO_WORKER_STARTS, kinds)

    def _start_missing(self, running: list[Job]) -> None:
        """One worker takes all, until something else would have to wait behind it."""
        general = [worker for worker in self.workers if worker.kinds == self.kinds]
        self._end_others()
        busy = sum(any(worker.owns(job) for worker in general) for job in running)
        waiting = self.store.waiting()
        # One more than is busy or waited for, so that the next run finds a warm one.
        wanted = busy + (waiting.get("run", 0) if self.kinds == ALL else 0) + 1
        wanted = max(1, min(self.slots, wanted))
        core = not any(worker.core for worker in general)
        for _ in range(wanted - len(general)):
            self._start(self.kinds, core=core)
        self._follow_need(needed=busy > 0 or sum(waiting.values()) > 1, running=running)

    def _end_others(self) -> None:
        """Workers of the time when runs were worked on elsewhere, or here, end after their job."""
        for worker in self.workers:
            if worker.kinds not in (self.kinds, STUDIES) and not worker.leaving:
                worker.leaving = True
                worker.process.send_signal(signal.SIGUSR1)

    def _follow_need(self, needed: bool, running: list[Job]) -> None:
        """While something works, a worker takes studies alone: no page waits behind a long run.

        Each holds half a gigabyte, so that an idle pool does without it.
        """
        now = time.monotonic()
        alone = [worker for worker in self.workers if worker.kinds == STUDIES]
        if needed:
            self.last_needed = now
            if not alone:
                self._start(STUDIES, core=True)
        elif now - self.last_needed > SPARE:
            for worker in alone:
                if not any(worker.owns(job) for job in running):
                    worker.process.terminate()

    def _start(self, kinds: tuple[str, ...], *, core: bool) -> None:
        # Runs yield to the page and to the studies that it waits for.
        nice = "0" if kinds == STUDIES else "5"
        command = [sys.executable, "-m", "pruning.runs.worker", "--pool", str(os.getpid())]
        command += ["--nice", nice, "--kinds", *kinds]
        ours, theirs = os.pipe()
        os.set_blocking(ours, False)
        command += ["--outcomes", str(theirs)]
        if not core:
            command += ["--idle", str(SPARE)]
        environment = {**os.environ, "PRUNING_HOME": str(self.store.workspace)}
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdin=subprocess.DEVNULL, pass_fds=(theirs,)
        )
        os.close(theirs)
        self.workers.append(Worker(process, kinds, core, ours))


def _starved() -> int:
    """Processes that this machine has ended for want of memory since it started (Linux)."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    counts = [int(line.split()[1]) for line in lines if line.startswith("oom_kill ")]
    return counts[0] if counts else 0
