"""Faults that the runs must outlive, in small: `python3 run.py faults` plays them on real pools."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pruning import Workpiece, formats
from pruning.errors import Damaged, DiskFull, StoreError
from pruning.events import Epoch, Halted
from pruning.formats import guard, sandbox
from pruning.recipe import Recipe
from pruning.runs import handlers, local_workers, log, pool, process_id, store, supervisor, worker
from pruning.runs.store import Job, Store

ROOT = Path(__file__).resolve().parents[1]
RUN = Recipe(model="tiny", sparsity=0.5, epochs=2).to_dict()
STUDY = {"what": "card", "model": "tiny"}


def until(met: Callable[[], object], seconds: float = 20.0) -> None:
    began = time.monotonic()
    while not met():
        assert time.monotonic() - began < seconds, "it never happened"
        time.sleep(0.005)


def no_room() -> OSError:
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def tiny_store(home: Path, tiny: Workpiece, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store whose every model is the tiny one."""
    monkeypatch.setattr("pruning.runs.handlers.resolve", lambda model, place, **ways: tiny)
    return Store()


@pytest.fixture
def worker_pool(home: Path) -> supervisor.WorkerPool:
    return supervisor.WorkerPool(Store(), slots=1)


class Process:
    """Of a worker that does nothing. It has our own number, so that it lives."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.returncode: int | None = None
        self.signals: list[int] = []

    def poll(self) -> int | None:
        return self.returncode

    def send_signal(self, number: int) -> None:
        self.signals.append(number)


def employed(worker_pool: supervisor.WorkerPool, outcomes: int | None = None) -> Process:
    """The process of a worker that is added to the pool."""
    process = Process()
    added = local_workers.Worker(process, ("run", "study"), True, outcomes)  # type: ignore[arg-type]
    worker_pool.local.workers.append(added)
    return process


def claimed(store: Store, kind: str = "run", spec: dict[str, object] = RUN) -> Job:
    id = store.submit(kind, spec)
    job = store.claim(process_id.me())
    assert job is not None and job.id == id
    return job


# ---------------------------------------------------------------- between two writes


@pytest.mark.parametrize("who", ["the worker", "all at once"])
def test_a_worker_killed_as_its_run_ends_leaves_no_checkpoint(
    home: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    """It is killed after the row says how the run ended, and before its checkpoints are deleted."""
    queue = Store()
    done, works = claimed(queue), claimed(queue)
    for job in (done, works):
        job.folder.mkdir(parents=True)
        (job.folder / "000001-000000001.checkpoint").touch()
    (home / "jobs" / "no id").mkdir()
    (home / "jobs" / "no id" / "a.checkpoint").touch()
    # A pool that was there before has been begun already; another begins after all were killed.
    one = supervisor.WorkerPool(queue, slots=0)
    monkeypatch.setattr(one.local, "_start", lambda *words, **more: None)
    if who == "the worker":
        one.tick()
        process = employed(one)
    with monkeypatch.context() as patch:
        patch.setattr(Store, "_delete_checkpoints", lambda *words: None)
        queue.finish(done, "stopped", "Stopped.", Halted(0, 0))
    assert list(done.folder.glob(store.CHECKPOINTS))
    if who == "the worker":
        process.returncode = -signal.SIGKILL
        one.local._forget_ended([])
    else:
        one.tick()
    assert not list(done.folder.glob(store.CHECKPOINTS))
    assert list(works.folder.glob(store.CHECKPOINTS)), "it is gone on with from there"


# ---------------------------------------------------------------- a full disk


def test_lines_that_find_no_room_are_written_later(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[bytes] = []
    full = True

    def write(file: int, line: bytes) -> None:
        if full:
            raise no_room()
        written.append(line)

    monkeypatch.setattr(log.os, "write", write)
    monkeypatch.setattr(log.sys, "stderr", open(os.devnull, "w"))  # noqa: SIM115
    log.log("one")
    log.log("two")
    assert not written
    full = False
    log.write_waiting()
    assert [line.split()[-1] for line in written] == [b"one", b"two"]


def test_a_pool_outlives_whatever_a_tick_raises(
    worker_pool: supervisor.WorkerPool, monkeypatch: pytest.MonkeyPatch, home: Path
) -> None:
    errors = iter([DiskFull("The disk is full."), no_room(), KeyError("a mistake of ours")])
    logged: list[str] = []

    def tick(*, needed: bool) -> None:
        error = next(errors, None)
        if error is None:
            worker_pool.leaving = True
        else:
            raise error

    monkeypatch.setattr(worker_pool, "tick", tick)
    monkeypatch.setattr(pool, "log", logged.append)
    monkeypatch.setattr(pool.time, "sleep", lambda seconds: None)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    (home / "pool.heartbeat").touch()
    try:
        with open(home / "pool.lock", "a+") as lock:
            assert pool.supervise(worker_pool, lock) is False
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    assert next(errors, None) is None and worker_pool.leaving
    assert len(logged) == 5 and "The disk is full." in logged


def test_a_reason_that_finds_no_room_is_recorded_by_the_pool_later(
    tiny_store: Store, worker_pool: supervisor.WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise DiskFull("The disk is full: free some space.")

    monkeypatch.setattr(handlers, "ROOM", 0.0)
    monkeypatch.setattr(handlers.time, "sleep", lambda seconds: None)
    job = claimed(tiny_store)
    ours, theirs = os.pipe()
    os.set_blocking(ours, False)
    with monkeypatch.context() as disk:
        disk.setattr(handlers, "save", full)
        disk.setattr(Store, "finish", full)
        assert worker.attend(tiny_store, job, worker.Shutdown(outcomes=theirs))
        assert tiny_store.job(job.id).state == "running"
        process = employed(worker_pool, ours)
        worker_pool.local._note_work([])
        with pytest.raises(DiskFull):
            worker_pool.local._record_outcomes()
        assert worker_pool.has_work(), "kept in memory"
    os.close(theirs)
    process.returncode = 1
    worker_pool.local._forget_ended([tiny_store.job(job.id)])
    failed = tiny_store.job(job.id)
    assert (failed.state, failed.message) == ("failed", "The disk is full: free some space.")
    assert not worker_pool.has_work() and not worker_pool.local.workers


def test_a_run_waits_for_room_and_loses_nothing(
    tiny_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = handlers.save_result
    tries: list[int] = []

    def save_result(*args: object) -> None:
        tries.append(1)
        if len(tries) < 3:
            raise DiskFull("The disk is full.")
        saved(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(handlers, "save_result", save_result)
    monkeypatch.setattr(handlers.time, "sleep", lambda seconds: None)
    job = claimed(tiny_store)
    assert worker.attend(tiny_store, job, worker.Shutdown())
    assert tiny_store.job(job.id).state == "finished" and len(tries) == 3


def test_after_a_full_disk_workers_may_renew_before_anybody_gives_them_up(
    worker_pool: supervisor.WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = claimed(worker_pool.store)
    now = [time.time()]
    monkeypatch.setattr("time.time", lambda: now[0])

    def full(*_: object, **__: object) -> None:
        raise DiskFull("The disk is full.")

    for _ in range(5):  # by small steps, as ticks are
        now[0] += 10
        worker_pool.ticked = now[0]
        with monkeypatch.context() as disk:
            disk.setattr(Store, "_give_up", full)
            disk.setattr(Store, "check_writable", full)
            try:
                worker_pool._give_up_silent()
            except DiskFull:
                assert now[0] > worker_pool.store.job(job.id).started + 30
    assert worker_pool.unwritable
    worker_pool._give_up_silent()
    assert worker_pool.store.job(job.id).state == "running", "there is room: now it may renew"
    worker_pool.store.renew(job)
    now[0] += 10
    worker_pool._give_up_silent()
    assert worker_pool.store.job(job.id).state == "running"


def test_a_reader_without_room_for_its_answer_is_not_out_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox, "_run", lambda *_: errno.ENOSPC)
    weights = ROOT / "sample_models" / "weights" / "digits-mlp.safetensors"
    assert formats.inspect(weights).refusal == f"{weights.name} {guard.DISK_FULL}"


# ---------------------------------------------------------------- why a worker ended


@pytest.mark.parametrize(
    "code, starved, words",
    [
        (-signal.SIGKILL, 0, "from outside (SIGKILL)"),
        (-signal.SIGKILL, 1, "memory had run out"),
        (-signal.SIGSEGV, 0, "crashed (SIGSEGV)"),
        (3, 0, "crashed (exit code 3)"),
        (0, 0, store.PROCESS_ENDED),
    ],
)
def test_the_reason_is_what_is_known_and_no_guess(
    worker_pool: supervisor.WorkerPool,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    starved: int,
    words: str,
) -> None:
    count = worker_pool.local.starved + starved
    monkeypatch.setattr(local_workers, "_starved", lambda: count)
    job = claimed(worker_pool.store)
    employed(worker_pool).returncode = code
    assert worker_pool.store.reap(leave=worker_pool.local.is_of_ended) == []
    worker_pool.local._forget_ended([job])
    lost = worker_pool.store.job(job.id)
    assert lost.state == "queued" and lost.resumed == 1
    message = lost.message
    assert message and words in message
    assert ("memory" in message) == bool(starved)


def test_runs_that_end_their_worker_are_no_workers_that_cannot_start(
    worker_pool: supervisor.WorkerPool,
) -> None:
    waiting = worker_pool.store.submit("run", {**RUN, "seed": 1}, priority=-1)
    poison = worker_pool.store.submit("run", RUN)
    for attempt in range(1, store.RESUMES + 2):
        job = worker_pool.store.claim(process_id.me())
        assert job is not None and (job.id, job.attempt) == (poison, attempt)
        process = employed(worker_pool)
        worker_pool.local._note_work([job])
        process.returncode = -signal.SIGKILL
        worker_pool.local._forget_ended([job])
    lost = worker_pool.store.job(poison)
    killed = local_workers.KILLED.format(signal="SIGKILL")
    assert (lost.state, lost.message) == ("failed", killed + store.NO_MORE_TRIES)
    assert worker_pool.store.job(waiting).state == "queued" and worker_pool.local.failures == 0


# ---------------------------------------------------------------- Stop, at once


def test_work_that_does_not_look_is_stopped_all_the_same(
    tiny_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As while a cold worker imports: the job ends at once, and the worker takes the next."""
    ended = threading.Event()

    def make(*_: object) -> tuple[dict[str, object], dict[str, object]]:
        ended.wait(20)
        return {}, {}

    monkeypatch.setattr(handlers.studies, "make", make)
    job = claimed(tiny_store, "study", STUDY)
    results: list[bool] = []
    thread = threading.Thread(
        target=lambda: results.append(worker.attend(tiny_store, job, worker.Shutdown()))
    )
    thread.start()
    tiny_store.stop(job.id)
    until(lambda: tiny_store.job(job.id).state == "stopped")
    assert thread.is_alive()
    ended.set()
    thread.join(20)
    assert results == [True], "it goes on to the next job"
    assert not (job.folder / "study.json").exists()


def test_what_a_run_has_reached_is_what_a_stop_may_keep(tiny_store: Store) -> None:
    job = claimed(tiny_store)
    assert not tiny_store.has_reached(job)
    tiny_store.append(job, Epoch(1, 1, 2, 0.5, None, None, 0.9, 0.01, 0.2))
    assert tiny_store.has_reached(job) and tiny_store.halted(job) == Halted(1, 1)
    tiny_store.finish(job, "stopped")
    assert not tiny_store.has_reached(claimed(tiny_store, "study", STUDY))


# ---------------------------------------------------------------- what was started is ended


def test_a_pool_is_needed_while_a_server_has_its_file_locked(home: Path) -> None:
    home.mkdir()
    assert not pool.is_needed(home)
    pool._need(home)
    assert pool.is_needed(home)
    shutil.rmtree(home)
    home.mkdir()
    assert not pool.is_needed(home)
    pool._need(home)
    assert pool.is_needed(home), "a folder that was made anew"
    pool.release(home)
    assert not pool.is_needed(home)


def test_a_pool_without_servers_begins_nothing_and_ends(
    worker_pool: supervisor.WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor, "ALONE", -1.0)
    jobs = worker_pool.store
    run = claimed(jobs)
    study, waiting = jobs.submit("study", STUDY), jobs.submit("run", RUN)
    process = employed(worker_pool)
    worker_pool.tick(needed=False)
    assert process.signals == [signal.SIGUSR1] and not worker_pool.leaving
    assert jobs.job(study).state == "stopped" and jobs.job(run.id).state == "running"
    jobs.finish(run, "finished")
    process.returncode = 0
    worker_pool.tick(needed=False)
    assert worker_pool.leaving and jobs.job(waiting).state == "queued"


def test_a_worker_that_takes_no_more_leaves_what_waits(tiny_store: Store, home: Path) -> None:
    id = tiny_store.submit("run", RUN)
    shutdown = worker.Shutdown()
    shutdown.take_no_more()
    worker.serve(tiny_store, shutdown, queues=["run"], share=5, idle=5)
    assert tiny_store.job(id).state == "queued"


CHILD = """
import sys, time
from pruning.formats.parent import end_with_parent
end_with_parent()
print("ready", flush=True)
time.sleep(60)
"""
PARENT = """
import os, subprocess, sys, time
environment = {**os.environ, "PRUNING_PARENT": str(os.getpid())}
child = subprocess.Popen([sys.executable, "-c", sys.argv[1]], env=environment)
print(child.pid, flush=True)
time.sleep(60)
"""


def test_a_reader_ends_with_the_process_that_started_it() -> None:
    command = [sys.executable, "-c", PARENT, CHILD]
    parent = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert parent.stdout.readline() == "ready\n"
    name = process_id.name(child)
    assert not process_id.dead(name)
    parent.kill()
    parent.wait()
    until(lambda: process_id.dead(name))


# ---------------------------------------------------------------- the store itself


@pytest.fixture
def rows(home: Path) -> Iterator[Callable[[str], None]]:
    """Writes into the store, past it."""

    def execute(statement: str) -> None:
        with sqlite3.connect(home / "runs.sqlite") as db:
            db.execute(statement)
        db.close()

    yield execute


def test_workers_pass_over_rows_that_cannot_be_read(
    tiny_store: Store, rows: Callable[[str], None]
) -> None:
    bad, running = claimed(tiny_store), tiny_store.submit("run", RUN)
    good = tiny_store.submit("run", RUN)
    rows(f"UPDATE jobs SET owner = 'nobody' WHERE id = '{bad.id}'")
    rows(f"UPDATE jobs SET spec = 'x' WHERE id = '{running}'")
    job = tiny_store.claim(process_id.me())
    assert job is not None and job.id == good
    assert tiny_store.reap() == []
    assert [job.id for job in tiny_store.jobs()] == [good, bad.id], "one of them can be read now"
    assert set(tiny_store.damaged) == {running, bad.id}
    assert tiny_store.job(bad.id).state == "failed"
    tiny_store.delete(running)
    assert set(tiny_store.damaged) == {bad.id}


def test_a_store_that_was_deleted_is_noticed_and_not_written_to(home: Path) -> None:
    before = Store()
    before.submit("run", RUN)
    shutil.rmtree(home)
    with pytest.raises(StoreError, match="deleted or moved"):
        before.submit("run", RUN)
    assert before.database.deleted() and not home.exists(), "nobody but a page makes it anew"
    after = Store()
    id = before.submit("run", RUN)
    assert [job.id for job in after.jobs()] == [id], "and then everybody goes on with the new one"


def test_an_emptied_store_is_damaged_and_no_new_one(home: Path) -> None:
    jobs = Store()
    (home / "jobs" / jobs.submit("run", RUN)).mkdir(parents=True)
    os.truncate(home / "runs.sqlite", 0)
    (home / "runs.sqlite-wal").unlink(missing_ok=True)
    with pytest.raises(Damaged):
        Store()
    aside = store.set_aside(home)
    assert aside.exists() and Store().jobs() == []
