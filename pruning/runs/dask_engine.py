"""The engine of a Dask cluster: takes runs from the store, gives each to a worker, and records what
comes back. No torch.

Workers see neither this workspace nor its store. Each works on one run at a time, in a workspace
of its own (`remote`), and is asked for news: events, checkpoints and results are written here, by
the pool. An attempt at a run belongs to the one worker that it was given to: what any other says
of it is not asked for, so that a task which Dask runs twice counts once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from pruning import events
from pruning.errors import PruningError, RunError, StoreError
from pruning.events import Failed
from pruning.runs import checkpoint_files, engines, process_id, remote
from pruning.runs.dask_link import Link, Place
from pruning.runs.engines import Cluster
from pruning.runs.log import log
from pruning.runs.parcels import pack
from pruning.runs.remote import Greeting, News
from pruning.runs.store import ENDED, Fenced, Job, Store
from pruning.storage import source_hash, whole

PATIENCE = 5.0
"""Seconds that a scheduler may be silent before its runs wait for another one."""

AGAIN = 1.0
"""Seconds between tries to reach a scheduler, or a worker that did not answer."""

WARMING = 0.2
"""Seconds between looks at whether a worker is warm."""

REFUSED = 30.0
"""Seconds after which a worker that takes no runs is asked again."""

ROSTER, QUESTIONS = 200, 100
"""Workers listed a second, and answers a second, at most: a scheduler does them all itself."""

GAP = 0.1
"""Seconds between two answers of a worker at least."""

SHARE, APART = 0.05, 1.0
"""Checkpoints come back when the last is so many seconds old, and took no larger share of them."""

# Of each of these, what comes before the colon says why.
WORKER_ENDED = (
    "The Dask worker on {host} that worked on this ended before it was done: start it again."
)
SCHEDULER_ENDED = "The Dask scheduler ended while this was running: another worker resumes it."
POOL_ENDED = "The workbench ended while this was running on a cluster: another worker resumes it."
NONSENSE = (
    "The Dask worker on {host} that worked on this answers what no workbench does: start it again, "
    "and see pool.log in the workspace."
)
NOT_BEGUN = "The Dask worker on {host} could not begin this ({error}): its log says more."

NO_SCHEDULER = (
    "The Dask scheduler at {address} does not answer ({reason}): runs wait until it is back, or "
    "until the workbench is started with another --engine."
)
NO_WORKERS = "No worker has joined the Dask scheduler at {address} yet: runs wait for one."
NO_USE = "{count} of {all} Dask workers at {address} take no runs: {why}"
OTHER_VERSION = "the one on {host} has another version of the workbench; install the same there."
NO_WORKBENCH = "the one on {host} cannot load the workbench ({error}); install it there."


@dataclass
class _Task:
    """An attempt at a run, as a worker has it.

    after: number of the last event that is recorded; files: name -> size and time of what is kept
    here; seen: of what the worker was last known to have; future: Dask's own; renewed, fetched:
    monotonic seconds of the lease and of the last checkpoint, cost: seconds that it took.
    """

    job: Job
    after: int = 0
    files: dict[str, tuple[int, int]] = field(default_factory=dict)
    seen: dict[str, tuple[int, int]] = field(default_factory=dict)
    future: Any = None
    renewed: float = field(default_factory=time.monotonic)
    fetched: float = 0.0
    cost: float = 0.0
    stop_sent: float = 0.0


@dataclass
class _Worker:
    """A worker of the cluster.

    ready: it may be given runs; refusal: why it takes none; known: digests of files that it has;
    talk: what it was asked, and then: what to do with the answer; heard, resume: monotonic seconds
    of its last answer, and before which it is asked nothing.
    """

    address: str
    place: Place
    ready: bool = False
    refusal: str = ""
    known: set[str] = field(default_factory=set)
    task: _Task | None = None
    talk: Future[Any] | None = None
    then: Callable[[Any], None] | None = None
    heard: float = field(default_factory=time.monotonic)
    resume: float = 0.0

    @property
    def host(self) -> str:
        """Without a colon: what comes before the first one of a message is its reason."""
        return self.place.host.replace(":", ".")

    def note(self) -> None:
        self.heard = time.monotonic()


@dataclass(frozen=True)
class _Answer:
    """news: None where the attempt has not begun; files: name -> content; cost: seconds that the
    checkpoint among them took; error: with which Dask's task ended, "" where it did not.
    """

    news: News | None
    files: dict[str, bytes]
    cost: float
    error: str


def release_orphans(store: Store) -> None:
    """Let what a pool that was killed had on a cluster wait again, which is no fault of it."""
    for job in store.jobs("run", ("running",), limit=10_000):
        if (job.owner or "").startswith(engines.OWNER):
            with suppress(Fenced):
                store.release(job, POOL_ENDED)


class DaskEngine:
    """Runs of one workspace on one cluster. A class because it keeps who works on what."""

    def __init__(self, store: Store, cluster: Cluster) -> None:
        self.store = store
        self.cluster = cluster
        self.link = Link(cluster)
        self.owner = f"{engines.OWNER}{process_id.me()}"
        self.workers: dict[str, _Worker] = {}
        self.roster: Future[tuple[str, dict[str, Place]]] | None = None
        self.next_roster = 0.0
        self.scheduler: str | None = None
        # Monotonic seconds since when it does not answer, and why; None while it does.
        self.silent: float | None = time.monotonic()
        self.reason = "it is being looked for"
        self.status: tuple[int, str] | None = None

    # ---------------------------------------------------------------- as an engine

    def capacity(self) -> int:
        return sum(worker.ready for worker in self.workers.values())

    def submit(self, running: list[Job]) -> None:
        """Give what waits to workers that have nothing to do."""
        for worker in self.workers.values():
            if not worker.ready or worker.task or time.monotonic() < worker.resume:
                continue
            job = self.store.claim(self.owner, ("run",))
            if job is None:
                return
            worker.task = _Task(job)
            self._ask(worker, self._start(worker, worker.task), self._started(worker, worker.task))

    def cancel(self, job: Job, why: str) -> None:
        for worker in self.workers.values():
            task = worker.task
            if task and (task.job.id, task.job.attempt) == (job.id, job.attempt):
                log(f"the Dask worker on {worker.host} {why} job {job.id} and is told to drop it")
                self._drop(worker)

    def poll(self, running: list[Job]) -> None:
        self._look_around()
        for worker in list(self.workers.values()):
            self._check_task(worker)
            self._hear(worker)
        self._tell()

    def take_no_more(self) -> bool:
        return not any(worker.task for worker in self.workers.values())

    def close(self) -> None:
        """What workers have waits again; they are told so, if they can be."""
        asked = [self._forget(worker) for worker in self.workers.values() if worker.task]
        self._release_all(POOL_ENDED)
        until = time.monotonic() + 2.0
        for talk in asked:
            with suppress(Exception):
                talk.result(max(0.0, until - time.monotonic()))
        self.link.close()
        with suppress(StoreError):
            engines.tell(self.store.workspace, None)

    # ---------------------------------------------------------------- the scheduler

    def _look_around(self) -> None:
        """Who is there now; what those had who left is given up."""
        if self.roster is None:
            if time.monotonic() >= self.next_roster:
                self.roster = self.link.begin(self.link.workers())
        elif self.roster.done():
            roster, self.roster = self.roster, None
            try:
                scheduler, places = roster.result()
            except Exception as error:
                self._lost(str(error).strip() or type(error).__name__)
                return
            self.next_roster = time.monotonic() + max(0.2, len(places) / ROSTER)
            if scheduler != self.scheduler:
                # Another one under the same address: it knows nothing of what was begun.
                self._release_all(SCHEDULER_ENDED)
                self.workers.clear()
                log(f"the Dask scheduler at {self.cluster.address} has {len(places)} workers")
            self.scheduler, self.silent = scheduler, None
            self._welcome(places)

    def _lost(self, why: str) -> None:
        now = time.monotonic()
        self.next_roster = now + AGAIN
        self.reason = why.rstrip(".").splitlines()[0]
        if self.silent is None:
            self.silent = now
            log(f"the Dask scheduler at {self.cluster.address} does not answer: {self.reason}")
        # Workers end with their scheduler: after a moment there is nobody to hear from.
        if self.workers and now - self.silent > PATIENCE:
            self._release_all(SCHEDULER_ENDED)
            self.workers.clear()

    def _welcome(self, places: dict[str, Place]) -> None:
        for address, worker in list(self.workers.items()):
            if places.get(address) == worker.place:
                continue
            if worker.task:
                message = WORKER_ENDED.format(host=worker.host)
                if self.store.give_up(worker.task.job, message):
                    log(f"the Dask worker on {worker.host} ended during job {worker.task.job.id}")
            # Only now: where the store could not be written, the next look tries again.
            del self.workers[address]
        for address in places.keys() - self.workers.keys():
            self.workers[address] = _Worker(address, places[address])

    def _release_all(self, why: str) -> None:
        for worker in self.workers.values():
            if worker.task:
                with suppress(Fenced):
                    self.store.release(worker.task.job, why)
                worker.task = None

    # ---------------------------------------------------------------- a worker

    def _ask(self, worker: _Worker, talk: Any, then: Callable[[Any], None]) -> None:
        worker.talk, worker.then = self.link.begin(talk), then

    def _hear(self, worker: _Worker) -> None:
        """Do what follows from its answer, and ask it the next thing."""
        if worker.talk is not None:
            if not worker.talk.done():
                return
            talk, then = worker.talk, worker.then
            worker.talk = worker.then = None
            error = talk.exception()
            if error is not None:
                self._unheard(worker, error)
            elif then is not None:
                worker.note()
                then(talk.result())
        if worker.talk is not None or time.monotonic() < worker.resume:
            return
        if not worker.ready:
            greeting = self.link.ask(worker.address, remote.greet)
            self._ask(worker, greeting, lambda answer: self._greeted(worker, answer))
        elif worker.task:
            task = worker.task
            news = self._listen(worker, task)
            self._ask(worker, news, lambda answer: self._record(worker, task, answer))

    def _unheard(self, worker: _Worker, error: BaseException) -> None:
        """It did not answer, or could not do what it was asked."""
        task = worker.task
        worker.resume = time.monotonic() + AGAIN
        if not worker.ready:
            if isinstance(error, ImportError | AttributeError):
                worker.refusal = NO_WORKBENCH.format(host=worker.host, error=error)
                worker.resume = time.monotonic() + REFUSED
        elif task and task.future is None:  # it was not given what it needs
            worker.task = None
            self._not_begun(worker, task, error)

    def _not_begun(self, worker: _Worker, task: _Task, error: BaseException) -> None:
        log(f"job {task.job.id} could not be given to the worker on {worker.host}: {error!r}")
        with suppress(Fenced):
            if isinstance(error, PruningError):
                failed = Failed(type(error).__name__, str(error))
                self.store.finish(task.job, "failed", str(error), failed)
            elif isinstance(error, OSError | TimeoutError):
                self.store.release(task.job, SCHEDULER_ENDED)
            else:
                message = NOT_BEGUN.format(host=worker.host, error=repr(error))
                self.store.finish(task.job, "failed", message, Failed("RunError", message))

    def _greeted(self, worker: _Worker, greeting: Greeting) -> None:
        known = (greeting.protocol, greeting.source)
        if known != (remote.PROTOCOL, source_hash()):
            worker.refusal = OTHER_VERSION.format(host=worker.host)
            worker.resume = time.monotonic() + REFUSED
            return
        worker.refusal = ""
        worker.ready = greeting.warm
        if worker.ready:
            log(f"the Dask worker on {worker.host} takes runs")
            self._forget(worker)  # what a pool before this one gave it
        else:
            worker.resume = time.monotonic() + WARMING

    def _drop(self, worker: _Worker) -> None:
        """It is to work on nothing: what it has counts no more."""
        worker.task = None
        worker.talk = self._forget(worker)
        worker.then = None

    def _forget(self, worker: _Worker) -> Future[Any]:
        return self.link.begin(self.link.ask(worker.address, remote.forget, ()))

    # ---------------------------------------------------------------- a run

    async def _start(self, worker: _Worker, task: _Task) -> Any:
        job = task.job
        packed = await asyncio.to_thread(pack, self.store, job)
        await self.link.ask(worker.address, remote.forget, ((job.id, job.attempt),))
        own = f"jobs/{job.id}/"
        once = {digest for place, digest in packed.parcel.files.items() if place.startswith(own)}
        for digest, file in packed.paths.items():
            if digest not in worker.known:
                await self.link.send(worker.address, digest, file, worker.note)
                if digest not in once:  # its checkpoint is used up
                    worker.known.add(digest)
        return await self.link.submit(worker.address, packed.parcel)

    def _started(self, worker: _Worker, task: _Task) -> Callable[[Any], None]:
        def note(future: Any) -> None:
            task.future = future

        return note

    async def _listen(self, worker: _Worker, task: _Task) -> _Answer:
        """News of a run, with the files that are new."""
        job = task.job
        busy = sum(other.task is not None for other in list(self.workers.values()))
        known = {"after": task.after, "files": task.seen}
        gap = max(GAP, busy / QUESTIONS)
        news: News | None = await self.link.ask(
            worker.address, remote.listen, job.id, job.attempt, known, gap
        )
        worker.note()
        if news is None:
            return _Answer(None, {}, 0.0, await _error_of(task.future))
        contents: dict[str, bytes] = {}
        cost = 0.0
        for name, (size, changed) in news.files.items():
            if task.files.get(name) == (size, changed) or not self._wanted(task, name, news.state):
                continue
            began = time.monotonic()
            content = await self.link.fetch(worker.address, job.id, name, size, worker.note)
            if content is not None:
                contents[name] = content
            if _is_checkpoint(name):
                cost = time.monotonic() - began
        return _Answer(news, contents, cost, "")

    def _wanted(self, task: _Task, name: str, state: str) -> bool:
        if not _is_checkpoint(name):
            return True
        since = time.monotonic() - task.fetched
        due = since >= APART and task.cost <= SHARE * since
        return state not in ENDED and due

    def _record(self, worker: _Worker, task: _Task, answer: _Answer) -> None:
        """Write what came back. Raises StoreError: then it is asked for again."""
        if worker.task is not task:
            return
        try:
            if answer.news is not None:
                self._take_in(worker, task, answer.news, answer)
            elif answer.error:
                worker.task = None
                message = NOT_BEGUN.format(host=worker.host, error=answer.error)
                self.store.finish(task.job, "failed", message, Failed("RunError", message))
        except Fenced:
            self._drop(worker)
        except StoreError:
            raise
        except Exception as error:  # it says something that is none of a run's
            log(f"job {task.job.id}: the Dask worker on {worker.host} answers nonsense: {error!r}")
            self.store.give_up(task.job, NONSENSE.format(host=worker.host))
            self._drop(worker)

    def _take_in(self, worker: _Worker, task: _Task, news: News, answer: _Answer) -> None:
        job = task.job
        ended = news.state in ENDED
        records = news.records[:-1] if ended else news.records
        if records:
            self.store.take_over(job, records)
            task.after = records[-1].number
        # Raises Fenced: files of a run that is another attempt's now are not touched.
        self.store.stopping(job)
        # The result last: where it is, all is.
        for name in sorted(answer.files, key=lambda name: (name == "result.json", name)):
            with whole(job.folder / _plain(name)) as draft:
                draft.write_bytes(answer.files[name])
            task.files[name] = news.files[name]
            if _is_checkpoint(name):
                task.fetched, task.cost = time.monotonic(), answer.cost
                checkpoint_files.delete_older(job.folder)
        task.seen = news.files
        if ended:
            missing = [name for name in news.files if not _is_checkpoint(name)]
            if all(task.files.get(name) == news.files[name] for name in missing):
                last = events.from_json(news.records[-1].body) if news.records else None
                self.store.finish(job, news.state, news.message, last)
                worker.task = None
        elif news.state == "queued":  # its worker is about to end
            self.store.release(job, news.message)
            worker.task = None

    def _check_task(self, worker: _Worker) -> None:
        """Keep its lease while its worker answers; pass on a Stop; drop what is another's now."""
        task = worker.task
        if task is None:
            return
        now = time.monotonic()
        lease = self.store.lease
        try:
            if now - task.renewed > lease / 10 and now - worker.heard < lease / 3:
                self.store.renew(task.job)
                task.renewed = now
            if self.store.stopping(task.job) and task.future and now - task.stop_sent > AGAIN:
                task.stop_sent = now
                stop = (remote.stop, task.job.id, task.job.attempt)
                self.link.begin(self.link.ask(worker.address, *stop))
        except Fenced:
            self._drop(worker)

    # ---------------------------------------------------------------- what people are told

    def _tell(self) -> None:
        status = (self.capacity(), self._trouble())
        if status == self.status:
            return
        engines.tell(self.store.workspace, engines.now(self.cluster, *status))
        self.status = status

    def _trouble(self) -> str:
        address = self.cluster.address
        if self.silent is not None:
            return NO_SCHEDULER.format(address=address, reason=self.reason)
        if not self.workers:
            return NO_WORKERS.format(address=address)
        refusals = [worker.refusal for worker in self.workers.values() if worker.refusal]
        if refusals:
            return NO_USE.format(
                count=len(refusals), all=len(self.workers), address=address, why=refusals[0]
            )
        return ""


async def _error_of(future: Any) -> str:
    """With what a task of Dask's ended, in a few words; "" where it did not, or is not known to."""
    if future is None or future.status != "error":
        return ""
    error = await future.exception(timeout=5)
    return f"{type(error).__name__}: {error}"[:300].replace(":", ",", 1)


def _is_checkpoint(name: str) -> bool:
    return name.endswith(".checkpoint")


def _plain(name: str) -> str:
    """A file's name, as a worker gives it. Raises RunError for a path."""
    if "/" in name or name.startswith("."):
        raise RunError(f"A Dask worker names a file {name!r}, which is none of a run's.")
    return name
