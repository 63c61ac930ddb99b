"""Supervision of a worker pool: keep enough workers warm, replace those that died. No torch."""

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
from pruning.errors import RunError, StoreError
from pruning.events import Failed, Halted
from pruning.runs import process_id
from pruning.runs.log import log
from pruning.runs.store import LIVE, PROCESS_ENDED, UNWATCHED, Fenced, Job, Store

IDLE = 15 * 60.0
"""Seconds without work or a page until the pool ends (PRUNING_POOL_IDLE overrides it)."""

SPARE = 5 * 60.0
"""Seconds without work until a worker beyond the first makes way."""

ALONE = 3.0
"""Seconds without a server after which only what runs is brought to its end."""

GRACE = 2.0
"""Seconds that a worker has to stop by itself when it was asked to."""

MEASURING = 300.0
"""Seconds that it has where the run has reached something, which is being kept and measured."""

STUDY_BUDGET = 10 * 60.0
MAP_BUDGET = 60 * 60.0
"""Seconds that a study may work; a map's cells are kept, and the next asking goes on from them."""

OVER_BUDGET = (
    "This took longer than the {minutes} minutes that a study may take: ask for less, such as "
    "fewer probes, rounds or units, or run the recipe, which may take as long as it needs."
)

LONG = ("map", "alternatives")
"""Studies that take minutes by their nature."""

UNWATCHED_AFTER = 30.0
"""Seconds after its last look at which a study makes way for what waits."""

EARLY = 20.0
TRIES = 4
"""A worker that fails within EARLY seconds cannot start; after TRIES of them queued jobs fail."""

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
    beginning of what it tells; worked: it has had a job.
    """

    process: subprocess.Popen[bytes]
    kinds: tuple[str, ...]
    core: bool
    outcomes: int | None = None
    began: float = field(default_factory=time.monotonic)
    worked: bool = False
    heard: bytes = b""

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
        # (job, attempt) -> when it was first seen running, likewise.
        self.seen: dict[tuple[str, int], float] = {}
        # Unix seconds, because leases are: of the last tick, and before which nobody is silent.
        self.ticked = time.time()
        self.patient_until = 0.0
        # Whether the last write failed, so that nobody could renew a lease either.
        self.unwritable = False
        # How jobs ended whose workers could not record it: kept until there is room for it.
        self.unrecorded: list[dict[str, Any]] = []
        # Monotonic seconds at which the last server ended; None while there is one.
        self.alone: float | None = None
        self.starved = _starved()

    def tick(self, *, needed: bool = True) -> None:
        """One look at every worker and every running job. needed: a server uses the workspace."""
        running = self.store.jobs(states=("running",))
        self._note_work(running)
        self._record_outcomes()
        self._forget_ended(running)
        self._give_up_silent()
        self._end_unresponsive(running)
        self._end_over_budget(running)
        self._end_unwatched(running)
        if self._is_alone(needed):
            self._wind_down()
        elif time.monotonic() >= self.resume:
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
        try:
            for worker in self.workers:
                self._hear(worker)
            self._record_outcomes()
            self.store.reap()
        except RunError as error:  # the next pool reaps what this one cannot
            log(str(error))

    def _note_work(self, running: list[Job]) -> None:
        now = time.monotonic()
        attempts = [(job.id, job.attempt) for job in running]
        self.seen = {attempt: self.seen.get(attempt, now) for attempt in attempts}
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

    def _is_alone(self, needed: bool) -> bool:
        """Whether no server has used the workspace for a while."""
        if needed:
            self.alone = None
        elif self.alone is None:
            self.alone = time.monotonic()
        return self.alone is not None and time.monotonic() - self.alone > ALONE

    def _wind_down(self) -> None:
        """Nobody is there to look: runs that work come to their end, and nothing else begins.

        What waits goes on waiting, for the next server.
        """
        self.store.stop_studies()
        for worker in self.workers:
            # Whoever works ends its job first: a job claimed in this moment is not lost.
            worker.process.send_signal(signal.SIGUSR1)
        if not self.workers and not self.unrecorded:
            self.leaving = True

    def _give_up_silent(self) -> None:
        """Give up on owners whose lease ran out, and end those of them that are workers of ours."""
        now = time.time()
        # After a sleep of the machine, or where its clock was set, every lease has run out or runs
        # too long: first let the workers renew theirs.
        if abs(now - self.ticked) > self.store.lease / 2:
            self.patient_until = now + self.store.lease / 5
        self.ticked = now
        # On a full disk nobody can renew a lease: whoever lives may do so once there is room.
        if self.unwritable:
            self.store.check_writable()
            self.unwritable = False
            self.patient_until = now + self.store.lease / 5
        if now < self.patient_until:
            return
        try:
            lost = self.store.reap(leave=self._is_of_ended)
        except StoreError:
            self.unwritable = True
            raise
        for job in lost:
            self._kill_owner(job, "fell silent during")

    def _is_of_ended(self, job: Job) -> bool:
        """Whether a worker of ours has just ended over it: a later tick says why."""
        # Its first thread is dead for a moment before all are, and only then it can be waited for.
        dead = process_id.dead(job.owner or "")
        return dead and any(worker.owns(job) for worker in self.workers)

    def _end_unresponsive(self, running: list[Job]) -> None:
        """End workers that do not stop when asked."""
        now = time.monotonic()
        asked = [(job.id, job.attempt) for job in running if job.stopping]
        self.stops = {attempt: self.stops.get(attempt, now) for attempt in asked}
        for job in running:
            waited = now - self.stops.get((job.id, job.attempt), now)
            if waited <= GRACE:
                continue
            # What a run reached is not to be lost: it is being saved and measured.
            patience = MEASURING if self.store.has_reached(job) else GRACE
            # The job is fenced off first, so that nothing else is lost with the process.
            if waited > patience and self.store.give_up(job):
                self._kill_owner(job, "did not stop")

    def _end_over_budget(self, running: list[Job]) -> None:
        """End studies that take longer than any may: a link may have asked for them."""
        for job in running:
            if job.kind != "study":
                continue
            budget = MAP_BUDGET if job.spec.get("what") in LONG else STUDY_BUDGET
            # Not by the job's own times: a clock that was set would use up the budget at once.
            if time.monotonic() - self.seen[job.id, job.attempt] <= budget:
                continue
            message = OVER_BUDGET.format(minutes=round(budget / 60))
            if self.store.end(job, "failed", message, Failed(RunError.__name__, message)):
                self._kill_owner(job, "took too long for")

    def _end_unwatched(self, running: list[Job]) -> None:
        """Studies that nobody looks at any more make way for what waits.

        Maps do so themselves, and who asked for alternatives comes back for them.
        """
        now = time.time()
        waiting = self.store.jobs(states=("queued",))
        studies = [job for job in (*running, *waiting) if job.kind == "study"]
        unwatched = {
            job.id
            for job in studies
            if job.spec.get("what") not in LONG and now - self.store.watched(job) > UNWATCHED_AFTER
        }
        if all(job.id in unwatched for job in waiting):
            return
        for job in studies:
            if job.id in unwatched and self.store.end(job, "stopped", UNWATCHED, Halted(0, 0)):
                self._kill_owner(job, "makes way from")

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
        # A clock that was set back makes the page's last sign of life one of the future.
        return abs(time.time() - asked) > patience and not self.has_work()

    def has_work(self) -> bool:
        """Whether a job waits or runs, or its end is still to be recorded."""
        try:
            return bool(self.unrecorded or self.store.jobs(states=LIVE, limit=1))
        except RunError:  # of a store that cannot be read nothing can be worked on either
            return False


def _starved() -> int:
    """Processes that this machine has ended for want of memory since it started (Linux)."""
    try:
        lines = Path("/proc/vmstat").read_text().splitlines()
    except OSError:
        return 0
    counts = [int(line.split()[1]) for line in lines if line.startswith("oom_kill ")]
    return counts[0] if counts else 0
