"""The job store: every write is kept exactly once, whichever process dies. No torch here."""

from __future__ import annotations

import random
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from pruning import storage
from pruning.errors import RunError
from pruning.events import (
    Accuracy,
    Epoch,
    Event,
    Failed,
    Finished,
    Halted,
    Measurement,
    Notice,
    Pruned,
    Size,
    Started,
)
from pruning.runs import cache_keys, dask_engine, local_workers, process_id, results, worker
from pruning.runs.store import (
    KINDS,
    NO_MORE_TRIES,
    PROCESS_ENDED,
    RESUMES,
    SILENT,
    Fenced,
    Job,
    Store,
    reason,
)

ROOT = Path(__file__).resolve().parents[1]
SPEC = {"model": "digits-cnn", "sparsity": 0.9}
MEASURED = Measurement(Accuracy(9, 10), 0.1, 100, 50, 110, 1000, 500, Size(480, 300, 200), None)
FINISHED = Finished(0.5, MEASURED, None, MEASURED, 1.5)


@pytest.fixture
def store(home: Path) -> Store:
    return Store()


def claimed(store: Store, kind: str = "run", as_: str | None = None) -> Job:
    id = store.submit(kind, SPEC)
    job = store.claim(as_)
    assert job is not None and job.id == id
    return job


def a_dead_process() -> str:
    """The name of a process of this machine that is no more."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    name = process_id.name(process.pid)
    process.kill()
    process.wait()
    return name


# ---------------------------------------------------------------- one after another


def test_a_job_goes_its_way(store: Store) -> None:
    id = store.submit("run", SPEC)
    waiting = store.job(id)
    assert (waiting.state, waiting.spec, waiting.attempt, waiting.owner) == (
        "queued",
        SPEC,
        0,
        None,
    )
    assert waiting.folder == store.workspace / "jobs" / id
    job = store.claim("here:1:1")
    assert job is not None and (job.state, job.attempt, job.owner) == ("running", 1, "here:1:1")
    assert store.claim() is None
    store.append(job, Notice("a floor held"))
    store.finish(job, "finished", event=FINISHED)
    assert store.events(id) == [(1, Notice("a floor held")), (2, FINISHED)]
    assert store.events(id, after=1) == [(2, FINISHED)]
    done = store.job(id)
    assert done.state == "finished" and done.started and done.ended
    assert done.submitted <= done.started <= done.ended


@pytest.mark.parametrize(
    "event",
    [
        Started(SPEC, {"threads": 1}, 5),
        Pruned(1, 2, 0.45, ()),
        Epoch(1, 2, 3, 0.5, None, Accuracy(3, 4), 0.9, 0.01, 0.2),
        FINISHED,
        Failed("Diverged", "The loss is no longer a finite number: try a tenth of it — “×”."),
        Halted(1, 2),
    ],
)
def test_every_event_comes_back_as_it_went_in(store: Store, event: Event) -> None:
    job = claimed(store)
    store.append(job, event)
    assert [stored for _, stored in store.events(job.id)] == [event]


def test_studies_come_before_runs_then_priority_then_first_come(store: Store) -> None:
    first, second = store.submit("run", SPEC), store.submit("run", SPEC)
    urgent, study = (
        store.submit("run", SPEC, priority=1),
        store.submit("study", {"what": "card", **SPEC}),
    )
    assert [job.id for _ in range(4) if (job := store.claim())] == [study, urgent, first, second]


def test_a_worker_takes_only_the_kinds_it_does(store: Store) -> None:
    store.submit("run", SPEC)
    assert store.claim(queues=("study",)) is None
    assert store.claim(queues=("study", "run")) is not None


def test_jobs_are_listed_newest_first_by_kind_state_and_batch(store: Store) -> None:
    a, b = store.submit("run", SPEC, batch="sweep"), store.submit("run", SPEC)
    study = store.submit("study", {"what": "card", **SPEC})
    assert [job.id for job in store.jobs()] == [study, b, a]
    assert [job.id for job in store.jobs("run")] == [b, a]
    assert [job.id for job in store.jobs("run", limit=1)] == [b]
    assert [job.id for job in store.jobs(batch="sweep")] == [a]
    assert store.jobs("run", ("finished",)) == []
    assert store.jobs("run", ()) == []


def test_an_unknown_job_is_named(store: Store) -> None:
    with pytest.raises(RunError, match="no job 'abc'"):
        store.job("abc")
    with pytest.raises(RunError, match="kind of job called 'sweep'"):
        store.submit("sweep", SPEC)


@pytest.mark.parametrize("id", ["../../etc", "", "/", "a/b"])
def test_an_id_from_outside_is_never_a_path(store: Store, id: str) -> None:
    with pytest.raises(RunError, match="hexadecimal"):
        store.delete(id)


# ---------------------------------------------------------------- the same work once


def test_the_same_study_is_the_same_job_while_it_is_an_answer(store: Store) -> None:
    spec = {"what": "card", **SPEC}
    id = store.submit("study", spec)
    assert store.submit("study", dict(reversed(spec.items()))) == id
    assert store.submit("study", {**spec, "what": "weights"}) != id
    while (job := store.claim()) and job.id != id:
        pass
    assert job is not None and store.submit("study", spec) == id
    results.save_study(job.folder, {"what": "card", "model": "digits-cnn"}, {})
    store.finish(job, "finished")
    assert store.submit("study", spec) == id, "finished: the answer is there"
    (job.folder / "study.json").unlink()
    assert store.submit("study", spec) != id, "its files were deleted: it is no answer"


@pytest.mark.parametrize("state", ["failed", "stopped"])
def test_what_failed_or_was_stopped_is_tried_anew(store: Store, state: str) -> None:
    id = store.submit("study", SPEC)
    job = store.claim()
    assert job is not None
    store.finish(job, state, "It went wrong.")
    assert store.submit("study", SPEC) != id


def test_runs_without_a_key_are_each_their_own(store: Store) -> None:
    assert store.submit("run", SPEC) != store.submit("run", SPEC)
    assert store.submit("run", SPEC, key="k") == store.submit("run", SPEC, key="k")


def test_a_studys_key_follows_the_weights_and_the_code(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = {"what": "card", "model": "upload:0123456789abcdef"}
    folder = store.workspace / "uploads" / "0123456789abcdef"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"one")
    before = cache_keys.complete(spec, None, store.workspace)
    assert cache_keys.complete(spec, None, store.workspace) == before
    (folder / "model.safetensors").write_bytes(b"other")
    changed = cache_keys.complete(spec, None, store.workspace)
    assert changed != before
    monkeypatch.setattr(cache_keys, "source_hash", lambda: "a later version")
    assert cache_keys.complete(spec, None, store.workspace) != changed


# ---------------------------------------------------------------- stopping and deleting


def test_stop_ends_what_waits_and_asks_what_runs(store: Store) -> None:
    waiting = store.submit("run", SPEC)
    store.stop(waiting)
    assert store.job(waiting).state == "stopped" and store.events(waiting) == [(1, Halted(0, 0))]
    job = claimed(store)
    store.renew(job)
    assert store.stopping(job) is False
    store.stop(job.id)
    store.renew(job)
    assert store.stopping(job) is True
    assert store.job(job.id).state == "running" and store.job(job.id).stopping
    store.finish(job, "stopped", "Stopped.", Halted(1, 2))
    store.stop(job.id)
    assert store.job(job.id).state == "stopped", "a second press changes nothing"


def test_a_deleted_job_leaves_nothing_and_its_worker_notices(store: Store) -> None:
    job = claimed(store)
    store.append(job, Notice("one"))
    storage.write_json(job.folder / "result.json", {})
    store.delete(job.id)
    assert not job.folder.exists() and store.events(job.id) == [] and store.jobs() == []
    for write in (
        lambda: store.append(job, Notice("two")),
        lambda: store.renew(job),
        lambda: store.finish(job, "finished"),
    ):
        with pytest.raises(Fenced):
            write()


# ---------------------------------------------------------------- lost owners


@pytest.mark.parametrize("kind", KINDS)
def test_a_dead_owner_is_given_up_at_once(store: Store, kind: str) -> None:
    job = claimed(store, kind, a_dead_process())
    assert [lost.id for lost in store.reap()] == [job.id]
    assert store.job(job.id).state == "queued"
    assert store.reap() == []


def test_a_lost_run_says_so_in_its_state_and_its_events(store: Store) -> None:
    id = store.submit("run", SPEC)
    while (job := store.claim(a_dead_process())) is not None:
        store.append(job, Notice("one"))
        store.reap()
        assert str(store.job(id).message).startswith(PROCESS_ENDED)
    message = PROCESS_ENDED + NO_MORE_TRIES
    assert store.job(id).message == message
    assert store.events(id) == [(1, Notice("one")), (2, Failed("Lost", message))]


@pytest.mark.parametrize("kind, tries", [("study", 2), ("run", 1 + RESUMES)])
def test_what_ends_its_process_is_tried_again_so_often(store: Store, kind: str, tries: int) -> None:
    id = store.submit(kind, SPEC)
    for attempt in range(1, tries + 1):
        job = store.claim(a_dead_process())
        assert job is not None and job.attempt == attempt
        store.reap()
        assert store.job(id).state == ("failed" if attempt == tries else "queued")


def test_a_release_is_no_fault_of_the_run(store: Store) -> None:
    id = store.submit("run", SPEC)
    for _ in range(RESUMES + 2):
        job = store.claim()
        assert job is not None
        store.release(job, "The workers were stopped.")
    assert (store.job(id).state, store.job(id).resumed) == ("queued", 0)
    job = store.claim()
    assert job is not None
    store.stop(id)
    store.release(job)
    assert store.job(id).state == "stopped", "nobody begins what was asked to stop"


def test_an_attempt_begins_with_the_events_that_a_checkpoint_knows(store: Store) -> None:
    job = claimed(store)
    for text in "abcd":
        store.append(job, Notice(text))
    store.release(job)
    for _ in range(2):  # the second dies before it has a checkpoint of its own
        heir = store.claim()
        assert heir is not None
        store.carry_over(heir, job.attempt, 2)
        assert store.append(heir, Notice("went on")) == 3
        store.give_up(heir)
    assert [e.text for _, e in store.events(job.id)] == ["a", "b", "went on"]  # type: ignore[union-attr]
    assert len(store.events(job.id, attempt=1)) == 4
    last = store.claim()
    assert last is not None
    store.carry_over(last, last.attempt - 1, 3)
    assert len(store.events(job.id)) == 3 and not store.events(job.id, attempt=1)
    with pytest.raises(Fenced):
        store.carry_over(job, 1, 1)


@pytest.mark.parametrize(
    "message",
    [
        PROCESS_ENDED,
        SILENT.format(lease=30),
        local_workers.KILLED.format(signal="SIGKILL"),
        local_workers.STARVED,
        local_workers.CRASHED.format(how="SIGSEGV"),
        dask_engine.WORKER_ENDED.format(host="node7"),
        dask_engine.SCHEDULER_ENDED,
        dask_engine.POOL_ENDED,
        worker.WORKERS_STOPPED,
    ],
)
def test_why_an_attempt_ended_is_a_clause(message: str) -> None:
    clause = reason(message)
    subjects = ("process", "system", "workers", "Dask", "workbench")
    assert clause.startswith(tuple(f"the {subject}" for subject in subjects))
    assert not clause.endswith(".") and len(clause.split()) >= 7


def test_a_lost_run_that_was_asked_to_stop_is_stopped(store: Store) -> None:
    job = claimed(store, as_=a_dead_process())
    store.append(job, Epoch(2, 3, 5, 0.5, None, None, 0.9, 0.01, 0.2))
    store.stop(job.id)
    store.reap()
    assert store.job(job.id).state == "stopped"
    assert store.events(job.id)[-1] == (2, Halted(2, 3))


def test_the_living_are_left_alone_until_their_lease_is_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.time()]
    monkeypatch.setattr("pruning.runs.store.time.time", lambda: now[0])
    job = claimed(store)
    now[0] += 25
    store.renew(job)
    now[0] += 25
    assert store.reap() == [], "the heartbeat renewed the lease"
    now[0] += 25
    assert [lost.id for lost in store.reap()] == [job.id]


def test_another_machines_owner_is_judged_by_its_lease_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.time()]
    monkeypatch.setattr("pruning.runs.store.time.time", lambda: now[0])
    claimed(store, as_="elsewhere:1:1")
    assert store.reap() == []
    now[0] += 31
    assert len(store.reap()) == 1


def test_a_worker_back_from_the_dead_changes_nothing(store: Store) -> None:
    lost = claimed(store, "study", a_dead_process())
    store.reap()
    heir = store.claim("here:2:2")
    assert heir is not None and heir.id == lost.id and heir.attempt == 2
    store.append(heir, Notice("heir"))
    for write in (
        lambda: store.append(lost, Notice("ghost")),
        lambda: store.renew(lost),
        lambda: store.finish(lost, "finished"),
    ):
        with pytest.raises(Fenced):
            write()
    store.finish(heir, "finished")
    assert store.events(heir.id) == [(1, Notice("heir"))]


def test_a_recycled_process_number_is_another_owner() -> None:
    mine = process_id.me()
    assert not process_id.dead(mine)
    assert process_id.dead(mine.rsplit(":", 1)[0] + ":1")


def test_giving_a_job_back_puts_it_into_the_queue(store: Store) -> None:
    job = claimed(store)
    store.release(job)
    assert store.job(job.id).state == "queued"
    with pytest.raises(Fenced):
        store.append(job, Notice("late"))


# ---------------------------------------------------------------- many processes, some killed

BUSY = """
import itertools, os, sys
from pruning.events import Notice
from pruning.runs.store import Store

def work(me):
    store = Store()
    for i in itertools.count():
        key = f"shared-{i % 40}" if i % 4 == 0 else None
        print("submitted", store.submit("run", {"by": me, "i": i}, key=key), flush=True)
        job = store.claim()
        if job is None:
            continue
        for k in range(5):
            store.append(job, Notice(f"{me} {k}"))
        store.finish(job, "finished", event=Notice("done"))
        (job.folder).mkdir(parents=True, exist_ok=True)
        (job.folder / "result.json").write_text("{}")
        print("finished", job.id, flush=True)

# "start NUMBER LOG" -> its process; "end PROCESS" -> the signal that ended it.
for line in sys.stdin:
    match line.split():
        case "start", number, log:
            process = os.fork()
            if not process:
                os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT), 1)
                work(int(number))
            print(process, flush=True)
        case "end", process:
            os.kill(int(process), 9)
            print(os.WTERMSIG(os.waitpid(int(process), 0)[1]), flush=True)
"""
"""Forks the writers, whose imports took longer than what they were started for."""


def test_four_writers_killed_at_random_lose_nothing_and_double_nothing(
    store: Store, tmp_path: Path
) -> None:
    generator, killed = random.Random(0), 0
    logs = [tmp_path / f"{i}.txt" for i in range(16)]
    writers: list[int] = []
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    parent = subprocess.Popen([sys.executable, "-c", BUSY], cwd=ROOT, bufsize=1, **pipes)

    def ask(*words: object) -> int:
        assert parent.stdin and parent.stdout
        print(*words, file=parent.stdin, flush=True)
        return int(parent.stdout.readline())

    def start(i: int) -> None:
        writers.append(ask("start", i, logs[i]))
        # On a busy machine its start could outlast it, and nothing would be interrupted.
        until = time.monotonic() + 60
        while not (logs[i].exists() and logs[i].stat().st_size) and time.monotonic() < until:
            time.sleep(0.01)

    try:
        for i in range(4):
            start(i)
        for i in range(4, 16):
            time.sleep(generator.uniform(0.06, 0.16))
            victim = writers.pop(generator.randrange(len(writers)))
            killed += ask("end", victim) == signal.SIGKILL
            start(i)
            store.reap()
    finally:
        for process in writers:
            ask("end", process)
        parent.communicate()
    store.reap()

    lines = [
        line.split()
        for log in logs
        for line in log.read_text().splitlines()
        if len(line.split()) == 2
    ]
    submitted = {id for word, id in lines if word == "submitted"}
    finished = [id for word, id in lines if word == "finished"]
    jobs = {job.id: job for job in store.jobs(limit=100_000)}
    assert killed == 12 and len(finished) > 100, "the test must have had something to lose"
    assert submitted <= jobs.keys(), "an acknowledged job is there"
    assert len(finished) == len(set(finished)) and all(
        jobs[id].state == "finished" for id in finished
    )
    assert all(
        job.state in ("queued", "finished", "failed") and job.resumed <= RESUMES
        for job in jobs.values()
    )
    for job in jobs.values():
        numbered = store.events(job.id)
        numbers, events = [number for number, _ in numbered], [event for _, event in numbered]
        assert numbers == list(range(1, len(numbers) + 1)), "no gap, no double"
        if job.state == "finished":
            assert len(events) == 6 and len({event.text.split()[0] for event in events[:5]}) == 1, (
                "one worker did it"
            )
        if job.state == "failed":
            assert events[-1] == Failed("Lost", PROCESS_ENDED + NO_MORE_TRIES)
    with sqlite3.connect(store.file) as db:
        live = "SELECT COUNT(*) AS n FROM jobs WHERE key IS NOT NULL AND state != 'failed'"
        most = f"SELECT MAX(n) FROM ({live} GROUP BY key)"
        assert db.execute(most).fetchone()[0] == 1, "a key has one live job"
        assert db.execute("PRAGMA integrity_check").fetchone()[0] == "ok"


def test_long_studies_come_last_the_newest_first_and_one_at_a_time(store: Store) -> None:
    first, second = (store.submit("study", {"what": "map", "n": n}, priority=-1) for n in (1, 2))
    run, card = store.submit("run", SPEC), store.submit("study", {"what": "card"})
    assert store.waiting() == {"run": 1, "study": 1, "long": 2}
    assert [store.claim(queues=("run", "study", "long")).id for _ in range(3)] == [
        card,
        run,
        second,
    ]  # type: ignore[union-attr]
    assert store.claim(queues=("run", "study", "long")) is None and store.waiting() == {}
    store.release(store.job(second))
    long = store.claim(queues=("long",))
    assert long is not None and long.id == second
    store.finish(long, "finished")
    assert store.claim(queues=("study",)) is None
    assert store.claim(queues=("long",)).id == first  # type: ignore[union-attr]


def test_a_press_that_is_repeated_is_one_run(store: Store) -> None:
    """At the store, where presses of all tabs and servers meet."""
    with ThreadPoolExecutor(8) as threads:
        presses = [threads.submit(store.submit, "run", SPEC, within=60.0) for _ in range(24)]
        (id,) = {press.result() for press in presses}
    # Another seed is another run; so is one of a set, and one after a moment.
    assert store.submit("run", {**SPEC, "seed": 1}, within=60.0) != id
    assert store.submit("run", SPEC, within=0.0) != id
    assert store.submit("run", SPEC, batch="set", within=0.0) != id
    # Asked to stop, or ended: pressing Run means a new one.
    store.stop(id)
    again = store.submit("run", SPEC, within=60.0)
    assert again != id and store.job(again).state == "queued"


def test_run_again_after_the_end_is_a_new_run(store: Store) -> None:
    id = store.submit("run", SPEC, within=60.0)
    job = store.claim()
    assert job is not None and store.submit("run", SPEC, within=60.0) == id
    store.finish(job, "finished", event=FINISHED)
    assert store.submit("run", SPEC, within=60.0) != id


def test_a_set_that_is_asked_for_twice_is_one_set(store: Store) -> None:
    specs = [{**SPEC, "seed": seed} for seed in range(3)]
    with ThreadPoolExecutor(4) as threads:
        presses = [threads.submit(store.submit_set, specs, within=60.0) for _ in range(8)]
        (id,) = {press.result() for press in presses}
    assert [job.spec["seed"] for job in store.jobs("run", batch=id)] == [2, 1, 0]
    assert store.submit_set(specs[:2], within=60.0) != id
    # The first of them has ended: the set goes on, and is still the same.
    job = store.claim()
    assert job is not None
    store.finish(job, "failed", "It did.")
    assert store.submit_set(specs, within=60.0) == id
