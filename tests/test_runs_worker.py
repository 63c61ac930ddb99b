"""From a press of Run to its result, through a real pool and real worker processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest

from pruning import Workpiece
from pruning.errors import DataError, PruningError, RecipeError, UnknownName
from pruning.events import ENDS, Epoch, Failed, Finished, Halted, Measured, Notice, Pruned, Started
from pruning.recipe import Recipe
from pruning.runs import local_workers, pool, process_id, resolve, results, supervisor, worker
from pruning.runs.store import ENDED, RESUMES, Job, Store

ROOT = Path(__file__).resolve().parents[1]
MODEL = "digits-mlp"


def until(met: Callable[[], bool], seconds: float = 120.0) -> float:
    """Wait; how long it took."""
    began = time.monotonic()
    while not met():
        assert time.monotonic() - began < seconds, "it never happened"
        time.sleep(0.1)  # a look is a transaction, and what is waited for needs the processor
    return time.monotonic() - began


def epochs_of(store: Store, id: str, attempt: int) -> int:
    """Epochs that are trained by the end of an attempt; 0 before it has begun."""
    last = store.last(id, Epoch) if store.job(id).attempt == attempt else None
    return last.epoch if isinstance(last, Epoch) else 0


def ended(store: Store, id: str, seconds: float = 120.0) -> Job:
    """The job once it has ended, looked at as by an open page."""

    def over() -> bool:
        store.mark_watched(id)
        return store.job(id).state in ENDED

    until(over, seconds)
    return store.job(id)


# ---------------------------------------------------------------- in this process


@pytest.fixture
def tiny_store(home: Path, tiny: Workpiece, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store whose every model is the tiny one."""
    monkeypatch.setattr("pruning.runs.handlers.resolve", lambda model, place, **ways: tiny)
    yield Store()


def attend(
    store: Store,
    spec: dict[str, object],
    kind: str = "run",
    shutdown: worker.Shutdown | None = None,
) -> Job:
    store.submit(kind, spec)
    job = store.claim()
    assert job is not None
    assert worker.attend(store, job, shutdown or worker.Shutdown())
    return store.job(job.id)


def test_a_run_leaves_events_weights_masks_histograms_and_a_result(
    tiny_store: Store, tiny: Workpiece
) -> None:
    from safetensors.numpy import load_file

    before = {name: value.clone() for name, value in tiny.model.state_dict().items()}
    job = attend(tiny_store, Recipe(model="tiny", sparsity=0.5, epochs=2).to_dict())
    events = [event for _, event in tiny_store.events(job.id)]
    assert job.state == "finished" and job.message is None
    assert [type(e) for e in events] == [
        Started,
        Measured,
        Pruned,
        Measured,
        Epoch,
        Epoch,
        Measured,
        Finished,
    ]
    result = results.load_run(job.folder)
    assert result.finished == events[-1]
    weights, masks = load_file(result.weights), result.masks()
    assert (
        sum(int(masks[name].sum()) for name in ("0.weight", "2.weight"))
        == 24
        == result.finished.final.kept
    )
    for name, keep in masks.items():
        assert (weights[name][~keep] == 0).all()
    for name, histogram in result.histograms.items():
        assert (
            histogram.dense.sum() == weights[name].size
            and histogram.final.sum() == masks[name].sum()
        )
    assert all(before[name].equal(value) for name, value in tiny.model.state_dict().items())
    assert not [file for file in job.folder.iterdir() if file.name.startswith(".")]


@pytest.mark.parametrize(
    "spec, words",
    [
        ({"sparsity": 1.5}, "sparsity is 1.5"),
        ({"criterion": "magnitud"}, "did you mean 'magnitude'"),
        ({"version": 99}, "update the workbench"),
        ({"exclude": ["no.such"]}, "no.such"),
        ({"threads": 10_000}, "threads is 10000"),
        ({"epochs": 50, "lr": 99.0, "weight_decay": 10.0}, "diverged"),
    ],
)
def test_what_people_do_wrong_becomes_a_failed_event_with_the_way_out(
    tiny_store: Store, spec: dict[str, object], words: str
) -> None:
    job = attend(tiny_store, {"model": "tiny", **spec})
    last = tiny_store.events(job.id)[-1][1]
    assert job.state == ("diverged" if words == "diverged" else "failed")
    assert job.message and words in job.message
    assert isinstance(last, Failed) and last.message == job.message
    assert not (job.folder / "error.txt").exists()


def test_what_nobody_foresaw_is_one_sentence_and_a_file(
    tiny_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: str, place: Path, **ways: object) -> Workpiece:
        raise KeyError("deep inside")

    monkeypatch.setattr("pruning.runs.handlers.resolve", broken)
    job = attend(tiny_store, Recipe(model="tiny").to_dict())
    assert job.state == "failed" and job.message is not None
    assert (
        "KeyError" in job.message
        and "deep inside" not in job.message
        and f"jobs/{job.id}/error.txt" in job.message
    )
    assert "deep inside" in (job.folder / "error.txt").read_text()


def test_too_little_memory_is_said_in_plain_words(
    tiny_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(model: str, place: Path, **ways: object) -> Workpiece:
        raise RuntimeError(
            "DefaultCPUAllocator: can't allocate memory: you tried to allocate 400 bytes"
        )

    monkeypatch.setattr("pruning.runs.handlers.resolve", broken)
    assert attend(tiny_store, Recipe(model="tiny").to_dict()).message == worker.NO_MEMORY


def test_a_stop_is_noticed_within_an_epoch(tiny_store: Store, tiny: Workpiece) -> None:
    tiny_store.submit("run", Recipe(model="tiny", epochs=10_000, batch=2).to_dict())
    job = tiny_store.claim()
    assert job is not None
    tiny_store.stop(job.id)
    assert worker.attend(tiny_store, job, worker.Shutdown())
    last = tiny_store.events(job.id)[-1][1]
    assert (
        tiny_store.job(job.id).state == "stopped"
        and isinstance(last, Halted)
        and last.epoch < 10_000
    )


def test_a_worker_asked_to_end_releases_what_nobody_saw_begin(
    tiny_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pruning.runs.handlers.studies.make", lambda *asked: time.sleep(1) or ({}, {})
    )
    study = attend(
        tiny_store, {"what": "card", "model": "tiny"}, "study", worker.Shutdown(requested=True)
    )
    assert study.state == "queued"
    tiny_store.delete(study.id)
    run = attend(
        tiny_store, Recipe(model="tiny", epochs=10_000).to_dict(), shutdown=worker.Shutdown(pool=-1)
    )
    assert run.state == "queued" and run.message == worker.WORKERS_STOPPED
    assert run.resumed == 0, "it is no fault of the run"


def test_a_worker_whose_job_was_given_up_writes_nothing_more(tiny_store: Store) -> None:
    tiny_store.submit("run", Recipe(model="tiny", epochs=10_000).to_dict())
    for _ in range(RESUMES + 1):
        job = tiny_store.claim()
        assert job is not None and tiny_store.give_up(job)
    assert worker.attend(tiny_store, job, worker.Shutdown()) is False
    assert [type(event) for _, event in tiny_store.events(job.id)] == [
        Failed
    ] and not job.folder.exists()


def test_a_run_that_needs_no_data_goes_on_without_it(
    home: Path, tiny: Workpiece, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(name: str, *, data: bool, progress: object) -> Workpiece:
        if data:
            raise DataError("MNIST is not on this machine.")
        return replace(tiny, train=None, validation=None, test=None)

    monkeypatch.setattr("sample_models.load", load)
    store = Store()
    done = attend(store, Recipe(model="mnist-lenet5", sparsity=0.5).to_dict())
    first, last = store.events(done.id)[0][1], store.events(done.id)[-1][1]
    assert (
        first == Notice("MNIST is not on this machine.")
        and isinstance(last, Finished)
        and last.final.accuracy is None
    )
    failed = attend(store, Recipe(model="mnist-lenet5", epochs=1).to_dict())
    assert failed.message == "MNIST is not on this machine.", (
        "and what needs it says why there is none"
    )


# ---------------------------------------------------------------- names of models


def test_the_model_a_run_left_can_be_worked_on(
    tiny_store: Store, tiny: Workpiece, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = attend(tiny_store, Recipe(model="tiny", sparsity=0.5).to_dict())
    monkeypatch.setattr("sample_models.load", lambda name, **ways: tiny)
    work = resolve.resolve(f"run:{job.id}")
    assert (
        sum(int((p == 0).sum()) for n, p in work.model.named_parameters() if n.endswith("weight"))
        == 24
    )
    assert work.model is not tiny.model and resolve.resolve(f"run:{job.id}") is work, (
        "kept for the next time"
    )
    assert resolve.describe(f"run:{job.id}")["recipe"]["sparsity"] == 0.5


@pytest.mark.parametrize(
    "model, kind",
    [
        ("digits-mlpp", UnknownName),
        ("ftp:x", UnknownName),
        ("run:abc", PruningError),
        ("upload:../x", RecipeError),
    ],
)
def test_unknown_models_are_named(home: Path, model: str, kind: type[PruningError]) -> None:
    for ask in (resolve.resolve, resolve.describe):
        with pytest.raises(kind):
            ask(model)


def test_an_unfinished_run_has_no_model_yet(home: Path) -> None:
    id = Store().submit("run", Recipe(model=MODEL).to_dict())
    with pytest.raises(RecipeError, match="queued"):
        resolve.resolve(f"run:{id}")


# ---------------------------------------------------------------- how many workers


class Process:
    """A worker's process that does nothing; each has our own number, for the store asks whether an
    owner lives.
    """

    started: ClassVar[list[Process]] = []

    def __init__(self, command: list[str], **_: object) -> None:
        self.pid = os.getpid()
        at = command.index("--kinds") + 1
        self.kinds = tuple(word for word in command[at:] if word in ("run", "study"))
        self.returncode: int | None = None
        self.started.append(self)

    def poll(self) -> int | None:
        return self.returncode

    def terminate(self) -> None:
        self.returncode = 0


@pytest.fixture
def counted(home: Path, monkeypatch: pytest.MonkeyPatch) -> supervisor.WorkerPool:
    """A pool of two slots whose workers are no processes."""
    monkeypatch.setattr(Process, "started", [])
    monkeypatch.setattr(local_workers.subprocess, "Popen", Process)
    return supervisor.WorkerPool(Store(), slots=2)


def kinds(worker_pool: supervisor.WorkerPool) -> list[tuple[str, ...]]:
    worker_pool.tick()
    return sorted(worker.kinds for worker in worker_pool.local.workers)


BOTH, STUDIES = ("run", "study"), ("study",)


def test_an_idle_pool_keeps_one_worker(counted: supervisor.WorkerPool) -> None:
    assert kinds(counted) == [BOTH] and kinds(counted) == [BOTH]
    counted.store.submit("study", {"what": "card", "model": MODEL})
    assert kinds(counted) == [BOTH], "which takes a study that comes"


def test_a_second_worker_comes_when_the_first_is_busy(
    counted: supervisor.WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    kinds(counted)
    counted.store.submit("run", Recipe(model=MODEL).to_dict())
    job = counted.store.claim(process_id.me())
    assert job is not None and counted.local.workers[0].owns(job)
    assert kinds(counted) == [BOTH, BOTH, STUDIES], "no page waits behind the run"
    counted.store.finish(job, "stopped")
    assert kinds(counted) == [BOTH, BOTH, STUDIES], "what is warm stays for a while"
    monkeypatch.setattr(local_workers, "SPARE", -1.0)
    assert STUDIES in kinds(counted)  # asked to end,
    assert STUDIES not in kinds(counted)  # and ended


def test_two_that_wait_at_once_have_two_workers(
    counted: supervisor.WorkerPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for what in ("card", "weights"):
        counted.store.submit("study", {"what": what, "model": MODEL})
    assert kinds(counted) == [BOTH, STUDIES]
    while counted.store.claim(process_id.me()) is not None:
        pass
    monkeypatch.setattr(local_workers, "SPARE", -1.0)
    kinds(counted)
    assert STUDIES in kinds(counted), "nobody is ended in the middle of work"


# ---------------------------------------------------------------- with a real pool


def test_the_page_never_imports_torch() -> None:
    lines = """
import sys
from pruning.runs import pool, store, results, resolve
resolve.describe("digits-mlp")
print("torch" in sys.modules)
"""
    process = subprocess.run(
        [sys.executable, "-c", lines], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert process.stdout.strip() == "False"


@pytest.mark.pool
def test_a_pool_runs_stops_loses_and_replaces(home: Path) -> None:
    store = Store()
    assert pool.ensure() and not pool.ensure(), "one pool for a workspace"
    try:
        study = store.submit("study", {"what": "card", "model": MODEL})
        first = store.submit("run", Recipe(model=MODEL, sparsity=0.9, epochs=2).to_dict())
        # First what makes way when nobody looks at it, which on a busy machine may be soon.
        assert ended(store, study).state == "finished"
        done = ended(store, first)
        assert done.state == "finished" and isinstance(store.events(first)[-1][1], Finished), (
            done.message
        )
        assert (
            results.load_study(store.job(study).folder).data["weights"]
            == results.load_run(done.folder).finished.final.weights
        )
        assert pool.pid() not in (None, os.getpid())

        doomed = store.submit("run", Recipe(model=MODEL, epochs=10_000).to_dict())
        until(lambda: epochs_of(store, doomed, 1) > 0)
        owner = store.job(doomed).owner
        assert owner is not None
        reached = epochs_of(store, doomed, 1) + 5
        os.kill(int(owner.split(":")[1]), signal.SIGKILL)
        until(lambda: epochs_of(store, doomed, 2) > reached)
        assert store.job(doomed).owner not in (None, owner), "another worker took over"
        store.stop(doomed)
        took = until(lambda: store.job(doomed).state in ENDED)
        lost = store.job(doomed)
        assert (lost.state, lost.resumed) == ("stopped", 1)
        texts = [e.text for _, e in store.events(doomed) if isinstance(e, Notice)]
        assert any(text.startswith("Resumed from ") for text in texts)
        assert isinstance(store.events(doomed)[-1][1], Halted) and took < supervisor.GRACE + 3
    finally:
        assert pool.stop()
    assert pool.pid() is None
    assert all(isinstance(store.events(id)[-1][1], ENDS) for id in (first, doomed))


@pytest.mark.pool
def test_a_pool_without_its_workspace_leaves(home: Path) -> None:
    pool.ensure()
    until(lambda: bool(pool.pid()), 20)
    leader = pool.pid()
    assert leader
    (home / "pool.lock").unlink()
    process = pool._started[home].process
    assert process.wait(20) == 0 and process.pid == leader


def test_what_waits_fails_when_no_worker_can_start(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store()
    id = store.submit("run", Recipe(model=MODEL).to_dict())
    monkeypatch.setattr(local_workers.sys, "executable", "/bin/false")
    worker_pool = supervisor.WorkerPool(store, slots=2)
    for _ in range(100):
        worker_pool.local.resume = 0.0  # without its pauses
        worker_pool.tick()
        time.sleep(0.02)
        if store.job(id).state == "failed":
            break
    assert "pool.log" in (store.job(id).message or "")


def test_a_worker_that_does_not_stop_is_killed(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store()
    unresponsive = local_workers.Worker(
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]),
        ("run", "study"),
        True,
    )
    monkeypatch.setattr(supervisor, "GRACE", 0.1)
    worker_pool = supervisor.WorkerPool(store, slots=1)
    monkeypatch.setattr(worker_pool.local, "_start_missing", lambda running: None)
    worker_pool.local.workers.append(unresponsive)
    id = store.submit("run", Recipe(model=MODEL).to_dict())
    store.claim(local_workers.process_id.name(unresponsive.process.pid))
    store.stop(id)
    worker_pool.tick()
    time.sleep(0.2)
    worker_pool.tick()
    assert unresponsive.process.wait(5) == -signal.SIGKILL
    assert store.job(id).state == "stopped"


def test_after_a_sleep_of_the_machine_workers_may_renew_first(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store()
    worker_pool = supervisor.WorkerPool(store, slots=1)
    monkeypatch.setattr(worker_pool.local, "_start_missing", lambda running: None)
    job = store.submit("run", Recipe(model=MODEL).to_dict()) and store.claim()
    assert job is not None
    now = [time.time() + 3600]
    monkeypatch.setattr("time.time", lambda: now[0])
    worker_pool.tick()
    assert store.job(job.id).state == "running"
    now[0] += store.lease / 4
    worker_pool.tick()
    assert store.job(job.id).state == "queued", "it did not renew its lease"


def test_the_log_keeps_its_end(tmp_path: Path) -> None:
    log = tmp_path / "pool.log"
    log.write_text("old\n" * 400_000 + "new\n")
    pool._truncate(log)
    assert log.stat().st_size == pool.LOG // 4 and log.read_text().endswith("new\n")
