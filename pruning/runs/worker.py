"""A worker process: takes one job after another, until it has done its share or its pool is gone.

    python -m pruning.runs.worker [--kinds run study] [--pool PID] [--jobs N] [--idle SECONDS] [--nice N]

It imports torch before it takes the first job, so that a waiting worker is a warm one.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from pruning.errors import Lost, PruningError, RunError, Stopped
from pruning.events import Epoch, Event, Failed, Halted, Pruned
from pruning.runs import cache_keys, process_id
from pruning.runs.store import KINDS, Fenced, Job, Store
from pruning.storage import whole

POLL, DOZE = 0.025, 0.1
"""Seconds between glances at the queue, and at whether to stop; the same after RESTING seconds without a job."""

RESTING = 60.0
HEAVY, HUGE = 1 << 30, 4 << 30
"""Bytes of memory beyond which a worker makes way for a fresh one, once it rests; at once."""

LEFT = "The workers were stopped while this was running: start it again."
MEMORY = "There is not enough memory for this model and recipe: close other programs, take a smaller batch, or a smaller model."


class Watch(threading.Thread):
    """Beside a job: keeps its lease alive, and hears when the work should end.

    reason: "" while it should go on; "stop": somebody asked; "leave": this process has to end; "lost": the job is another's.
    """

    def __init__(self, store: Store, job: Job, leaving: Leaving) -> None:
        super().__init__(daemon=True, name=f"watch-{job.id}")
        self.store, self.job, self.leaving = store, job, leaving
        self.reason, self._done = "", threading.Event()

    def run(self) -> None:
        beaten = time.monotonic()
        while not self._done.wait(2 * POLL) and not self.reason:
            try:
                if time.monotonic() - beaten > self.store.lease / 10:
                    self.store.beat(self.job)
                    beaten = time.monotonic()
                self.reason = self._heard()
            except Fenced:
                self.reason = "lost"
            except (
                RunError
            ) as error:  # a full disk or a locked file may pass; the lease says when to give up
                say(f"job {self.job.id}: {error}")
                self._done.wait(1)
        while not self._done.wait(self.store.lease / 10):  # on its way out, which may take a while
            try:
                self.store.beat(self.job)
            except RunError:
                return

    def _heard(self) -> str:
        if self.store.stopping(self.job):
            return "stop"
        return "leave" if self.leaving.now() else ""

    def asked(self) -> bool:
        """Whether the work should end: what the engine asks after each batch."""
        return bool(self.reason)

    def close(self) -> None:
        self._done.set()
        self.join()


@dataclass
class Leaving:
    """Whether this process has to end: it was told so, or the pool that started it is gone."""

    pool: int | None = None
    told: bool = False

    def now(self) -> bool:
        return self.told or (self.pool is not None and os.getppid() != self.pool)

    def tell(self, number: int = 0, frame: FrameType | None = None) -> None:
        self.told = True


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m pruning.runs.worker",
        description="Take jobs from the workspace, one after another.",
    )
    parser.add_argument(
        "--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="the jobs it takes"
    )
    parser.add_argument(
        "--pool", type=int, help="process that started it; it ends when that is gone"
    )
    parser.add_argument(
        "--jobs", type=int, default=50, help="jobs after which it makes way for a fresh process"
    )
    parser.add_argument(
        "--idle", type=float, default=float("inf"), help="seconds without a job after which it ends"
    )
    parser.add_argument(
        "--nice", type=int, default=0, help="how much it steps back for others, 0 to 19"
    )
    args = parser.parse_args(argv)
    os.nice(args.nice)
    leaving = Leaving(args.pool)
    signal.signal(signal.SIGTERM, leaving.tell)
    signal.signal(signal.SIGINT, leaving.tell)
    stamp = cache_keys.stamp()
    store = Store()
    warm(store, args.kinds)
    kinds = (
        [*args.kinds, "long"] if "run" in args.kinds else args.kinds
    )  # one worker is always free for what pages wait for
    serve(store, leaving, kinds=kinds, share=args.jobs, idle=args.idle, stamp=stamp)
    return 0


def serve(
    store: Store,
    leaving: Leaving,
    *,
    kinds: list[str],
    share: int,
    idle: float,
    stamp: int | None = None,
) -> None:
    """Take jobs until the share is done, nothing came for `idle` seconds, the source changed, memory ran up, or it is time to leave."""
    last, me = time.monotonic(), process_id.me()
    while share and not leaving.now() and time.monotonic() - last < idle:
        try:
            if not any(store.waiting().get(kind) for kind in kinds):
                rest = time.monotonic() - last
                if memory() > HEAVY and rest > RESTING:
                    return
                time.sleep(POLL if rest < RESTING else DOZE)
                continue
            if stamp is not None and cache_keys.stamp() != stamp:
                return  # the engine was updated: the next worker imports it afresh
            job = store.claim(me, kinds)
        except RunError as error:
            say(str(error))
            time.sleep(1)
            continue
        if job is None:
            continue
        if not attend(store, job, leaving):
            return  # who was given up once steps back: the pool may be about to end this process
        last, share = time.monotonic(), share - 1
        if memory() > HUGE:
            return


def attend(store: Store, job: Job, leaving: Leaving) -> bool:
    """Do a job and record how it ended. Raises nothing; False when the job was no longer this worker's."""
    from pruning.runs import handlers

    watch = Watch(store, job, leaving)
    watch.start()
    try:
        handlers.do(store, job, watch.asked)
    except Fenced:
        return False
    except BaseException as error:
        return _end(store, job, watch.reason, error)
    finally:
        watch.close()
    return True


def _end(store: Store, job: Job, reason: str, error: BaseException) -> bool:
    """Record what ended a job early. False when that is no longer this worker's to say."""
    try:
        if reason == "leave" and (job.kind == "study" or not store.events(job.id)):
            store.release(
                job
            )  # a study, or a run nobody has seen begin: whoever comes next does it
            return True
        state, message, event = ending(store, job, reason, error)
        store.finish(job, state, message, event)
    except Fenced:
        return False
    except RunError as trouble:  # the lease will be over, and the pool records the loss
        say(f"job {job.id}: {error!r} could not be recorded: {trouble}")
        return False
    return True


def ending(store: Store, job: Job, reason: str, error: BaseException) -> tuple[str, str, Event]:
    """(state, sentence, last event) of a job that `error` ended."""
    if reason == "stop":
        return "stopped", "Stopped.", _halted(store, job)
    if reason == "leave":
        return "failed", LEFT, Failed(Lost.__name__, LEFT)
    message = (
        str(error)
        if isinstance(error, PruningError) and not isinstance(error, Stopped)
        else _unexpected(job, error)
    )
    return "failed", message, Failed(type(error).__name__, message)


def _unexpected(job: Job, error: BaseException) -> str:
    """A sentence for what nobody foresaw; the traceback goes into `error.txt`, for whoever mends it."""
    with whole(job.folder / "error.txt") as draft:
        draft.write_text("".join(traceback.format_exception(error)), encoding="utf-8")
    if (
        isinstance(error, MemoryError)
        or "allocate memory" in str(error)
        or "not enough memory" in str(error)
    ):
        return MEMORY
    return (
        f"The workbench itself went wrong here ({type(error).__name__}): try another recipe, and report this one "
        f"together with the file jobs/{job.id}/error.txt in the workspace."
    )


def _halted(store: Store, job: Job) -> Halted:
    """How far a stopped job came."""
    for _, event in reversed(store.events(job.id)):
        if isinstance(event, Epoch | Pruned):
            return Halted(event.step, event.epoch if isinstance(event, Epoch) else 0)
    return Halted(0, 0)


def warm(store: Store, kinds: list[str]) -> None:
    """Import what jobs need, and go through the motions once: it takes seconds, and nobody should wait for it.

    Only the imports when somebody waits already: the job itself does the rest.
    """
    from pruning.runs import handlers

    if not any(store.waiting().get(kind) for kind in kinds):
        handlers.rehearse(train="run" in kinds)


def memory() -> int:
    """Bytes of this process that are resident; 0 where there is no /proc."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def say(line: str) -> None:
    """A line for the pool's log."""
    print(
        f"{time.strftime('%Y-%m-%d %H:%M:%S')} worker {os.getpid()}: {line}",
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
