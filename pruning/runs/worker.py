"""A worker process: takes one job after another, until its share is done or its pool has ended.

    python -m pruning.runs.worker [--kinds run study] [--pool PID] [--jobs N] [--idle SECONDS] ...

It imports torch before it takes the first job, so that a waiting worker is a warm one.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import asdict, dataclass
from pathlib import Path

from pruning.errors import Diverged, PruningError, RunError, Stopped, StoreError
from pruning.events import Event, Failed, to_json
from pruning.runs import cache_keys, process_id
from pruning.runs.log import log, write_waiting
from pruning.runs.store import KINDS, Fenced, Job, Store
from pruning.storage import whole

POLL = 0.025
"""Seconds between looks at the queue; at whether to stop it is twice as long."""

RESTING = 60.0
RESTING_POLL = 0.1
"""Seconds between looks at the queue, after RESTING seconds without a job."""

HEAVY = 1 << 30
HUGE = 4 << 30
"""Bytes of memory after which a worker makes way for a fresh one: when it rests; at once."""

LINGER = 5.0
"""Seconds that work may go on after its job has ended: then the process is ended."""

WORKERS_STOPPED = "The workers were stopped while this was running: others resume it."
NO_MEMORY = (
    "There is not enough memory for this model and recipe: close other programs, "
    "take a smaller batch, or a smaller model."
)


class Heartbeat(threading.Thread):
    """Beside a job: renews its lease, and notices when the work should end.

    reason: "" while it should go on; "stop": somebody asked for it; "shutdown": this process has
    to end; "lost": the job is another's. ended: the job was ended from here, at once, because
    there was nothing to keep.
    """

    def __init__(self, store: Store, job: Job, shutdown: Shutdown) -> None:
        super().__init__(daemon=True, name=f"heartbeat-{job.id}")
        self.store = store
        self.job = job
        self.shutdown = shutdown
        self.reason = ""
        self.ended = False
        self._done = threading.Event()

    def run(self) -> None:
        # Ten renewals a lease: a few may fail on a busy disk before anybody gives the job up.
        interval = self.store.lease / 10
        renewed = time.monotonic()
        while not self._done.wait(2 * POLL) and not self.reason:
            try:
                if time.monotonic() - renewed > interval:
                    self.store.renew(self.job)
                    renewed = time.monotonic()
                self.reason = self._look()
            except Fenced:
                self.reason = "lost"
            except RunError as error:
                # A full disk or a locked file may pass; the lease says when to give up.
                log(f"job {self.job.id}: {error}")
                self._done.wait(1)
            write_waiting()
        # The engine looks at the reason after its batch; before its first one it may be importing
        # for seconds, and a study may not look at all.
        heard = time.monotonic()
        while not self._done.wait(POLL):
            if self.reason == "stop" and not self.ended:
                self._stop_at_once()
            over = self.ended or self.reason == "lost" or self.shutdown.orphaned()
            if over and time.monotonic() - heard > LINGER:
                self._leave()
            if time.monotonic() - renewed > interval and not self.ended:
                renewed = time.monotonic()
                try:
                    self.store.renew(self.job)
                except Fenced:
                    self.reason = "lost"
                except RunError as error:
                    log(f"job {self.job.id}: {error}")

    def _look(self) -> str:
        if self.store.stopping(self.job):
            return "stop"
        return "shutdown" if self.shutdown.due() else ""

    def _stop_at_once(self) -> None:
        """End a job that has nothing to keep; its work is fenced off, and ends when it notices."""
        try:
            if not self.store.has_reached(self.job):
                self.store.finish(self.job, "stopped", "Stopped.", self.store.halted(self.job))
                self.ended = True
        except RunError:
            pass  # the work ends its job itself, or lost it

    def _leave(self) -> None:
        """End this process: its job has ended, and its work goes on for nobody."""
        if not self.shutdown.own_process:
            return
        if self.reason == "shutdown":
            _record(self.store, self.job, self.shutdown, self.reason, Stopped())
        log(f"job {self.job.id} has ended, and its work did not notice: this process ends")
        os._exit(0)

    def should_stop(self) -> bool:
        """Whether the work should end: what the engine asks after each batch."""
        return bool(self.reason)

    def close(self) -> None:
        self._done.set()
        self.join()


@dataclass
class Shutdown:
    """Whether this process has to end: a signal asked for it, or the pool that started it ended.

    last: it takes no further job; outcomes: a pipe to the pool, for what cannot be recorded;
    own_process: it is a worker's own, which may be ended together with the work.
    """

    pool: int | None = None
    requested: bool = False
    last: bool = False
    outcomes: int | None = None
    own_process: bool = False

    def due(self) -> bool:
        return self.requested or self.orphaned()

    def orphaned(self) -> bool:
        # A process whose parent ended is handed to another one: that is how it notices.
        return self.pool is not None and os.getppid() != self.pool

    def request(self, *_: object) -> None:
        """A signal handler."""
        self.requested = True

    def take_no_more(self, *_: object) -> None:
        """A signal handler."""
        self.last = True


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pruning.runs.worker",
        description="Take jobs from the workspace, one after another.",
    )
    option = parser.add_argument
    option("--kinds", nargs="+", choices=(*KINDS, "long"), default=list(KINDS), help="of its jobs")
    option("--pool", type=int, help="process that started it; it ends when that has ended")
    option("--outcomes", type=int, help="file descriptor on which it tells its pool how jobs ended")
    option("--jobs", type=int, default=50, help="jobs after which a fresh process takes over")
    option("--idle", type=float, default=float("inf"), help="seconds without a job until it ends")
    option("--nice", type=int, default=0, help="how much it yields to other processes, 0 to 19")
    args = parser.parse_args(argv)
    os.nice(args.nice)
    shutdown = Shutdown(args.pool, outcomes=args.outcomes, own_process=True)
    signal.signal(signal.SIGTERM, shutdown.request)
    signal.signal(signal.SIGINT, shutdown.request)
    signal.signal(signal.SIGUSR1, shutdown.take_no_more)
    # Before the engine is imported: an update in between is noticed as one.
    stamp = cache_keys.stamp()
    store = _opened(shutdown)
    if store is None:
        return 0
    warm(store, shutdown, args.kinds)
    # Long studies go to the workers that take runs: one is always free for what pages wait for.
    queues = [*args.kinds, "long"] if "run" in args.kinds else args.kinds
    serve(store, shutdown, queues=queues, share=args.jobs, idle=args.idle, stamp=stamp)
    return 0


def _opened(shutdown: Shutdown) -> Store | None:
    """The store, once it can be opened; None where this process has to end before that.

    A worker that ended because the disk is full would count as one that cannot start.
    """
    complaint = ""
    while not (shutdown.due() or shutdown.last):
        try:
            return Store()
        except RunError as error:
            if str(error) != complaint:
                log(str(error))
            complaint = str(error)
            time.sleep(1)
    return None


def serve(
    store: Store,
    shutdown: Shutdown,
    *,
    queues: list[str],
    share: int,
    idle: float,
    stamp: int | None = None,
) -> None:
    """Take jobs, until it is time for this process to make way for another.

    That is: `share` jobs are done, none came for `idle` seconds, the source changed from `stamp`,
    memory grew too large, or a shutdown is due.
    """
    me = process_id.me()
    last = time.monotonic()
    complaint = ""
    while share and not shutdown.due() and time.monotonic() - last < idle:
        if shutdown.last:
            return
        try:
            if not store.any_waiting(queues):
                rest = time.monotonic() - last
                if memory() > HEAVY and rest > RESTING:
                    return
                time.sleep(POLL if rest < RESTING else RESTING_POLL)
                continue
            if stamp is not None and cache_keys.stamp() != stamp:
                return  # the engine was updated: the next worker imports it afresh
            job = store.claim(me, queues)
        except RunError as error:
            if str(error) != complaint:
                log(str(error))
            complaint = str(error)
            time.sleep(1)
            continue
        if job is None:
            continue  # another worker was faster
        if not attend(store, job, shutdown):
            return  # the job was given up: the pool may be about to end this process
        last = time.monotonic()
        share -= 1
        if memory() > HUGE:
            return


def attend(store: Store, job: Job, shutdown: Shutdown) -> bool:
    """Do a job and record how it ended. Raises nothing; False: it is no longer this worker's."""
    from pruning.runs import handlers

    heartbeat = Heartbeat(store, job, shutdown)
    heartbeat.start()
    recorded = True
    try:
        handlers.do(store, job, heartbeat.should_stop)
    except Fenced:
        recorded = False
    except BaseException as error:
        recorded = _record(store, job, shutdown, heartbeat.reason, error)
    finally:
        heartbeat.close()
    return recorded or heartbeat.ended


def _record(store: Store, job: Job, shutdown: Shutdown, reason: str, error: BaseException) -> bool:
    """Record what ended a job early. False when the job is no longer this worker's."""
    try:
        # It waits again: whoever comes next begins a study anew, and goes on with a run.
        if reason == "shutdown":
            store.release(job, WORKERS_STOPPED if job.kind == "run" else None)
            return True
        state, message, event = outcome(store, job, reason, error)
        try:
            store.finish(job, state, message, event)
        except StoreError as failure:
            log(f"job {job.id}: {message} That could not be recorded: {failure}")
            return _tell_pool(shutdown, job, state, message, event)
    except Fenced:
        return False
    except RunError as failure:
        # The lease will run out, and then the pool records the loss.
        log(f"job {job.id}: {error!r} could not be recorded: {failure}")
        return False
    return True


def _tell_pool(shutdown: Shutdown, job: Job, state: str, message: str, event: Event) -> bool:
    """Hand over how a job ended to the pool, which records it once it can be; whether it could."""
    if shutdown.outcomes is None:
        return False
    known = {**asdict(job), "folder": str(job.folder)}
    outcome = {"job": known, "state": state, "message": message, "event": to_json(event)}
    try:
        os.write(shutdown.outcomes, json.dumps(outcome).encode() + b"\n")
    except OSError:
        return False
    return True


def outcome(store: Store, job: Job, reason: str, error: BaseException) -> tuple[str, str, Event]:
    """(state, message, last event) of a job that `error` ended."""
    if reason == "stop":
        return "stopped", "Stopped.", store.halted(job)
    # A Stopped that nobody asked for is a mistake of ours, not a message for the user.
    if isinstance(error, PruningError) and not isinstance(error, Stopped):
        message = str(error)
    else:
        message = _unexpected(store, job, error)
    state = "diverged" if isinstance(error, Diverged) else "failed"
    return state, message, Failed(type(error).__name__, message)


def _unexpected(store: Store, job: Job, error: BaseException) -> str:
    """A sentence for an error of ours; its traceback goes into `error.txt`, for its report.

    Raises Fenced: the folder of a job that is another's now is not touched.
    """
    lines = "".join(traceback.format_exception(error))
    place = f"jobs/{job.id}/error.txt"
    try:
        store.stopping(job)
        with whole(job.folder / "error.txt") as draft:
            draft.write_text(lines, encoding="utf-8")
    except StoreError:
        log(lines)
        place = "pool.log"
    # torch reports too little memory as a RuntimeError, in these words.
    words = ("allocate memory", "not enough memory")
    if isinstance(error, MemoryError) or any(word in str(error) for word in words):
        return NO_MEMORY
    return (
        f"The workbench itself went wrong here ({type(error).__name__}): try another recipe, "
        f"and report this one together with the file {place} in the workspace."
    )


def warm(store: Store, shutdown: Shutdown, kinds: list[str]) -> None:
    """Import what jobs need, and do a small one: it takes seconds that nobody should wait for.

    Only the imports when somebody waits already: the job itself does the rest.
    """
    from pruning.runs import handlers

    over = shutdown.due() or shutdown.last  # whoever started this may have ended during the import
    if not over and not store.any_waiting(kinds):
        handlers.warm_up(train="run" in kinds)


def memory() -> int:
    """Bytes of this process that are resident; 0 where there is no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    sys.exit(main())
