"""Supervision of what works for a workspace, wherever it works. No torch."""

from __future__ import annotations

import os
import time

from pruning.errors import RunError, StoreError
from pruning.events import Failed, Halted
from pruning.runs import engines
from pruning.runs.dask_engine import DaskEngine, release_orphans
from pruning.runs.engines import Engine
from pruning.runs.local_workers import ALL, GRACE, NO_RUNS, LocalWorkers
from pruning.runs.log import log
from pruning.runs.store import LIVE, UNWATCHED, Job, Store

IDLE = 15 * 60.0
"""Seconds without work or a page until the pool ends (PRUNING_POOL_IDLE overrides it)."""

ALONE = 3.0
"""Seconds without a server after which only what runs is brought to its end."""

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

MOST_RUNNING = 10_000

UNWATCHED_AFTER = 30.0
"""Seconds after its last look at which a study makes way for what waits."""


class WorkerPool:
    """Looks after the engines of one workspace, and what they work on. A class because it keeps
    them: this machine's workers, and the cluster that was named, which takes the runs then.
    """

    def __init__(self, store: Store, slots: int) -> None:
        self.store = store
        self.local = LocalWorkers(store, slots)
        self.cluster: DaskEngine | None = None
        self.leaving = False
        self.begun = False
        # (job, attempt) -> when its stop was first seen, in monotonic seconds.
        self.stops: dict[tuple[str, int], float] = {}
        # (job, attempt) -> when it was first seen running, likewise.
        self.seen: dict[tuple[str, int], float] = {}
        # Unix seconds, because leases are: of the last tick, and before which nobody is silent.
        self.ticked = time.time()
        self.patient_until = 0.0
        # Whether the last write failed, so that nobody could renew a lease either.
        self.unwritable = False
        # Monotonic seconds at which the last server ended; None while there is one.
        self.alone: float | None = None

    @property
    def engines(self) -> list[Engine]:
        return [self.local, self.cluster] if self.cluster else [self.local]

    def tick(self, *, needed: bool = True) -> None:
        """One look at every engine and every running job. needed: a server uses the workspace."""
        if not self.begun:
            # Of a pool that was killed: it alone could have heard of them again.
            release_orphans(self.store)
            self.store.tidy()
            self.begun = True
        self._choose_cluster()
        running = self.store.jobs(states=("running",), limit=MOST_RUNNING)
        self._note_seen(running)
        for engine in self.engines:
            engine.poll(running)
        self._give_up_silent()
        self._end_unresponsive(running)
        self._end_over_budget(running)
        self._end_unwatched(running)
        if self._is_alone(needed):
            self._wind_down()
            return
        for engine in self.engines:
            engine.submit(running)

    def close(self) -> None:
        """End every engine."""
        for engine in self.engines:
            engine.close()

    def _choose_cluster(self) -> None:
        """Follow who names another engine: what the one before works on waits for it."""
        cluster = engines.named(self.store.workspace)
        if cluster == (self.cluster.cluster if self.cluster else None):
            return
        if self.cluster:
            self.cluster.close()
        self.cluster = DaskEngine(self.store, cluster) if cluster else None
        self.local.kinds = NO_RUNS if cluster else ALL
        log(f"runs are worked on {f'at {cluster.address}' if cluster else 'on this machine'}")

    def _note_seen(self, running: list[Job]) -> None:
        now = time.monotonic()
        attempts = [(job.id, job.attempt) for job in running]
        self.seen = {attempt: self.seen.get(attempt, now) for attempt in attempts}

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
        # Every one of them is to hear of it.
        self.leaving = all([engine.take_no_more() for engine in self.engines])

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
            lost = self.store.reap(leave=self.local.is_of_ended)
        except StoreError:
            self.unwritable = True
            raise
        for job in lost:
            self._cancel(job, "fell silent during")

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
                self._cancel(job, "did not stop")

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
                self._cancel(job, "took too long for")

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
                self._cancel(job, "makes way from")

    def _cancel(self, job: Job, why: str) -> None:
        for engine in self.engines:
            engine.cancel(job, why)

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
            return bool(self.local.unrecorded or self.store.jobs(states=LIVE, limit=1))
        except RunError:  # of a store that cannot be read nothing can be worked on either
            return False
