"""Runs on a Dask cluster: what is sent there, what comes back, and what the store makes of it.

Most of it is played on a wire of our own, in this process; the last test has a real scheduler and
real workers.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pruning import Workpiece
from pruning.errors import RecipeError, RunError
from pruning.events import ENDS, Epoch, Event, Notice
from pruning.recipe import Recipe
from pruning.runs import checkpoints, dask_engine, engines, parcels, pool, remote, results
from pruning.runs.dask_engine import SCHEDULER_ENDED, DaskEngine
from pruning.runs.dask_link import Link, Place
from pruning.runs.engines import Cluster
from pruning.runs.parcels import Parcel
from pruning.runs.store import CHECKPOINTS, ENDED, RESUMES, Job, Store

ROOT = Path(__file__).resolve().parents[1]
EPOCHS = 4
RUN = Recipe(model="tiny", sparsity=0.5, epochs=EPOCHS, batch=16)
HERE = Cluster("dask://here:8786")
ONE, TWO = "tcp://one:1", "tcp://two:2"


class Kill(BaseException):
    """Ends a worker's process in the middle of its work."""


class Wire:
    """Stands in for a Link: its workers are folders, and do their work when they are asked for
    news. down: why the scheduler does not answer; deaths: worker -> epochs until it is killed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.scheduler = "first"
        self.down = ""
        self.desks: dict[str, remote.Desk] = {}
        self.given: dict[str, Parcel] = {}
        self.sent: list[tuple[str, str]] = []
        self.deaths: dict[str, int] = {}

    def add(self, worker: str) -> None:
        folder = self.folder / worker.rpartition(":")[2]
        self.desks[worker] = remote.Desk(folder, Store(folder), warm=True)

    def begin(self, talk: Coroutine[Any, Any, Any]) -> Future[Any]:
        answer: Future[Any] = Future()
        try:
            answer.set_result(asyncio.run(talk))
        except Exception as error:
            answer.set_exception(error)
        return answer

    def close(self) -> None:
        pass

    async def workers(self) -> tuple[str, dict[str, Place]]:
        if self.down:
            raise OSError(self.down)
        return self.scheduler, {
            worker: Place(worker.split(":")[1][2:], str(desk.workspace))
            for worker, desk in self.desks.items()
        }

    async def submit(self, worker: str, parcel: Parcel) -> Any:
        self.given[worker] = parcel
        return SimpleNamespace(status="pending")

    async def ask(self, worker: str, question: Callable[..., Any], *words: Any) -> Any:
        if self.down or worker not in self.desks:
            raise OSError("nobody answers")
        remote._desks[:] = [self.desks[worker]]
        if question is remote.listen and worker in self.given:
            self.work(worker, self.given.pop(worker))
        return await question(*words, *([None] if question is remote.greet else []))

    async def send(self, worker: str, digest: str, file: Path, heard: Callable[[], None]) -> None:
        self.sent.append((worker, digest))
        await self.ask(worker, remote.put, digest, 0, file.read_bytes())

    async def fetch(
        self, worker: str, id: str, name: str, size: int, heard: Callable[[], None]
    ) -> bytes | None:
        return await self.ask(worker, remote.fetch, id, name, 0)  # type: ignore[no-any-return]

    def work(self, worker: str, parcel: Parcel) -> None:
        remote._desks[:] = [self.desks[worker]]
        remaining = [self.deaths.pop(worker, EPOCHS + 1)]
        append = Store.append

        def counted(self: Store, job: Job, event: Event) -> int:
            if isinstance(event, Epoch):
                remaining[0] -= 1
                if remaining[0] < 0:
                    raise Kill
            return append(self, job, event)

        # As it is killed, nothing of it is recorded any more.
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Store, "append", counted)
            patch.setattr("pruning.runs.worker._record", lambda *_: False)
            remote.work(parcel)


@pytest.fixture
def store(home: Path, tiny: Workpiece, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store whose every model is the tiny one, and a checkpoint after each epoch."""
    monkeypatch.setattr("pruning.runs.handlers.resolve", lambda model, place, **ways: tiny)
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)
    monkeypatch.setattr(remote, "LONGEST_WAIT", 0.0)
    monkeypatch.setattr(remote, "_closing", lambda: lambda: False)
    for name in ("GAP", "APART", "WARMING", "PATIENCE"):
        monkeypatch.setattr(dask_engine, name, 0.0)
    return Store()


@pytest.fixture
def wire(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Wire]:
    wire = Wire(tmp_path / "cluster")
    for worker in (ONE, TWO):
        wire.add(worker)
    monkeypatch.setattr(dask_engine, "Link", lambda cluster: wire)
    yield wire
    remote._desks.clear()


def engine_on(store: Store) -> DaskEngine:
    engines.use(HERE)
    engines.keep(store.workspace)
    return DaskEngine(store, HERE)


def turns(engine: DaskEngine, until: Callable[[], object], most: int = 40) -> None:
    """What a pool does again and again."""
    for _ in range(most):
        if until():
            return
        engine.next_roster = 0.0
        for worker in engine.workers.values():
            worker.resume = 0.0
        engine.poll([])
        engine.submit([])
    raise AssertionError("it never happened")


def ended(engine: DaskEngine, id: str) -> Job:
    turns(engine, lambda: engine.store.job(id).state in ENDED)
    return engine.store.job(id)


def epochs(store: Store, id: str) -> list[int]:
    return [event.epoch for _, event in store.events(id) if isinstance(event, Epoch)]


def check_whole(store: Store, job: Job) -> None:
    """It finished, and each of its events, its end and its files are there once."""
    assert (job.state, job.message) == ("finished", None)
    numbers = [number for number, _ in store.events(job.id)]
    assert numbers == list(range(1, len(numbers) + 1))
    assert epochs(store, job.id) == list(range(1, EPOCHS + 1))
    assert sum(isinstance(event, ENDS) for _, event in store.events(job.id)) == 1
    assert results.load_run(job.folder).finished == store.events(job.id)[-1][1]
    assert results.load_run(job.folder).masks() and not list(job.folder.glob(CHECKPOINTS))


# ---------------------------------------------------------------- on a wire of our own


def test_runs_are_given_out_and_come_back_whole(store: Store, wire: Wire) -> None:
    engine = engine_on(store)
    ids = [store.submit("run", replace(RUN, seed=seed).to_dict()) for seed in range(3)]
    turns(engine, lambda: store.job(ids[0]).state == store.job(ids[1]).state == "running")
    assert engine.capacity() == 2 and store.job(ids[2]).state == "queued"
    for id in ids:
        check_whole(store, ended(engine, id))
    assert engines.status(store.workspace) is not None
    assert engines.slots(store.workspace) == 2 and not engines.trouble(store.workspace)
    assert engine.take_no_more()


def test_a_run_goes_on_where_its_worker_was_killed(store: Store, wire: Wire) -> None:
    engine = engine_on(store)
    whole = ended(engine, store.submit("run", RUN.to_dict()))
    id = store.submit("run", RUN.to_dict())
    for resumed in range(RESUMES):
        wire.deaths = {ONE: 1, TWO: 1}
        turns(engine, lambda: len(epochs(store, id)) == 1 + resumed)  # noqa: B023
        (busy,) = [worker for worker in engine.workers.values() if worker.task]
        del wire.desks[busy.address]
        turns(engine, lambda: store.job(id).state == "queued" or store.job(id).resumed > resumed)  # noqa: B023
        wire.add(f"tcp://new:{9 + resumed}")
    done = ended(engine, id)
    check_whole(store, done)
    assert (done.attempt, done.resumed) == (RESUMES + 1, RESUMES)
    weights = [(job.folder / "final.safetensors").read_bytes() for job in (whole, done)]
    assert weights[0] == weights[1]
    notices = [event.text for _, event in store.events(id) if isinstance(event, Notice)]
    assert [text.split(" of step")[0] for text in notices] == [
        f"Resumed from epoch {epoch}" for epoch in (1, 2)
    ]
    assert "the Dask worker on" in notices[-1]


def test_another_process_at_the_address_of_one_that_died_is_another_worker(
    store: Store, wire: Wire
) -> None:
    engine = engine_on(store)
    id = store.submit("run", RUN.to_dict())
    wire.deaths = {ONE: 1, TWO: 1}
    turns(engine, lambda: len(epochs(store, id)) == 1)
    (busy,) = [worker for worker in engine.workers.values() if worker.task]
    folder = wire.folder / "restarted"
    wire.desks[busy.address] = remote.Desk(folder, Store(folder), warm=True)
    wire.deaths.clear()
    done = ended(engine, id)
    check_whole(store, done)
    assert done.resumed == 1


def test_nonsense_from_a_worker_harms_nothing_else(
    store: Store, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_on(store)
    poison, sound = (store.submit("run", replace(RUN, seed=seed).to_dict()) for seed in (0, 1))
    take_in = engine._take_in

    def damaged(worker: Any, task: Any, news: remote.News, answer: Any) -> None:
        if task.job.id == poison:
            answer.files["../../elsewhere"] = b""
        take_in(worker, task, news, answer)

    monkeypatch.setattr(engine, "_take_in", damaged)
    check_whole(store, ended(engine, sound))
    failed = ended(engine, poison)
    assert failed.state == "failed" and "resumed twice" in (failed.message or "")
    assert not (store.workspace / "elsewhere").exists()


def test_a_run_that_ends_every_worker_is_given_up(store: Store, wire: Wire) -> None:
    engine = engine_on(store)
    id = store.submit("run", RUN.to_dict())
    for attempt in range(RESUMES + 1):
        wire.deaths = {worker: 0 for worker in wire.desks}
        turns(engine, lambda: store.job(id).attempt == attempt + 1 and not wire.given)  # noqa: B023
        (busy,) = [worker for worker in engine.workers.values() if worker.task]
        del wire.desks[busy.address]
        wire.add(f"tcp://new:{9 + attempt}")
        turns(engine, lambda: store.job(id).resumed > attempt or store.job(id).state == "failed")  # noqa: B023
    failed = store.job(id)
    assert failed.state == "failed" and "resumed twice" in (failed.message or "")


def test_without_a_scheduler_runs_wait_and_it_is_no_fault_of_theirs(
    store: Store, wire: Wire
) -> None:
    engine = engine_on(store)
    id = store.submit("run", RUN.to_dict())
    wire.deaths = {ONE: 2, TWO: 2}
    turns(engine, lambda: len(epochs(store, id)) == 2)
    wire.down = "connection refused"
    turns(engine, lambda: store.job(id).state == "queued")
    assert store.job(id).message == SCHEDULER_ENDED
    assert "does not answer (connection refused)" in engines.trouble(store.workspace)
    wire.down, wire.scheduler = "", "second"
    for worker in (ONE, TWO):  # they ended with it
        del wire.desks[worker]
    wire.add("tcp://new:9")
    done = ended(engine, id)
    check_whole(store, done)
    assert (done.attempt, done.resumed) == (2, 0) and not engines.trouble(store.workspace)


def test_what_a_killed_pool_had_there_goes_on_with_the_next(store: Store, wire: Wire) -> None:
    id = store.submit("run", RUN.to_dict())
    first = engine_on(store)
    wire.deaths = {ONE: 2, TWO: 2}
    turns(first, lambda: len(epochs(store, id)) == 2)
    assert store.reap() == [], "its lease still runs"
    dask_engine.release_orphans(store)
    done = ended(engine_on(store), id)
    check_whole(store, done)
    assert (done.attempt, done.resumed) == (2, 0)


def test_a_task_that_runs_twice_counts_once(store: Store, wire: Wire) -> None:
    engine = engine_on(store)
    id = store.submit("run", RUN.to_dict())
    turns(engine, lambda: wire.given)
    (worker,) = wire.given
    parcel = wire.given[worker]
    other = TWO if worker == ONE else ONE
    wire.work(other, parcel)  # by the scheduler's mistake
    wire.work(worker, parcel)
    done = ended(engine, id)  # and once more on the same, when it is asked
    check_whole(store, done)
    assert done.attempt == 1
    assert len(wire.desks[worker].store.events(id)) == len(store.events(id))


def test_what_was_given_up_writes_nothing_more(store: Store, wire: Wire) -> None:
    engine = engine_on(store)
    id = store.submit("run", RUN.to_dict())
    wire.deaths = {ONE: 2, TWO: 2}
    turns(engine, lambda: len(epochs(store, id)) == 2)
    (busy,) = [worker for worker in engine.workers.values() if worker.task]
    job = store.job(id)
    store.delete(id)
    engine.poll([])
    assert busy.task is None and not job.folder.exists()
    assert not wire.desks[busy.address].store.folder(id).exists(), "the worker was told so"


def test_stop_and_delete_reach_the_worker(store: Store, wire: Wire) -> None:
    engine = engine_on(store)
    id = store.submit("run", RUN.to_dict())
    turns(engine, lambda: wire.given)
    (worker,) = [worker for worker in engine.workers.values() if worker.task]
    desk = wire.desks[worker.address]
    desk.attempts[id] = 1
    desk.store.receive(store.job(id))
    wire.given.clear()  # it works, and has nothing new to say
    engine.poll([])
    store.stop(id)
    engine.poll([])
    assert desk.store.job(id).stopping
    engine.cancel(store.job(id), "did not stop")
    assert worker.task is None


def test_the_same_bytes_go_to_a_worker_once(
    store: Store, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = store.workspace / "weights"
    file.write_bytes(b"of a large model")
    monkeypatch.setattr(parcels, "_needs", lambda store, model: [("uploads/a/weights", file)])
    engine = engine_on(store)
    for seed in range(4):
        ended(engine, store.submit("run", replace(RUN, seed=seed).to_dict()))
    assert len(wire.sent) == len(set(wire.sent)) <= 2
    there = wire.desks[wire.sent[0][0]].workspace / "uploads" / "a" / "weights"
    assert there.read_bytes() == file.read_bytes()


def test_a_worker_of_another_version_takes_nothing_and_the_page_says_so(
    store: Store, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dask_engine, "source_hash", lambda: "another")
    engine = engine_on(store)
    id = store.submit("run", RUN.to_dict())
    turns(engine, lambda: "another version" in engines.trouble(store.workspace))
    assert engine.capacity() == 0 and store.job(id).state == "queued"


def test_a_pool_that_ends_puts_back_what_workers_have(store: Store, wire: Wire) -> None:
    engine = engine_on(store)
    id = store.submit("run", RUN.to_dict())
    wire.deaths = {ONE: 1, TWO: 1}
    turns(engine, lambda: len(epochs(store, id)) == 1)
    engine.close()
    waiting = store.job(id)
    assert (waiting.state, waiting.resumed) == ("queued", 0)
    assert engines.status(store.workspace) is None


# ---------------------------------------------------------------- what travels


def test_a_run_that_begins_from_another_takes_its_result_along(
    store: Store, wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_on(store)
    first = ended(engine, store.submit("run", RUN.to_dict()))
    id = store.submit("run", replace(RUN, model=f"run:{first.id}").to_dict())
    packed = parcels.pack(store, store.job(id))
    places = {f"jobs/{first.id}/{name}" for name in parcels.RESULTS}
    assert set(packed.parcel.files) == places and packed.parcel.results == [first]
    check_whole(store, ended(engine, id))


def test_uploads_data_sets_and_downloads_are_packed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pruning.formats import accept, datasets

    weights = ROOT / "sample_models" / "weights" / "digits-mlp.safetensors"
    upload = accept(weights, "digits-mlp", filename="mine.safetensors")
    table = tmp_path / "table.csv"
    table.write_text("a,b,y\n" + "".join(f"{i},{i * i % 7},{i % 2}\n" for i in range(60)))
    data = datasets.accept(table)
    raw = tmp_path / "data" / "MNIST" / "raw"
    raw.mkdir(parents=True)
    (raw / "train-images-idx3-ubyte").write_bytes(b"0")
    monkeypatch.setenv("PRUNING_DATA", str(tmp_path / "data"))
    store = Store()

    def places(model: str) -> set[str]:
        id = store.submit("run", {"model": model})
        return set(parcels.pack(store, store.job(id)).parcel.files)

    uploaded = places(f"upload:{upload.id}@data:{data.id}")
    assert f"uploads/{upload.id}/upload.json" in uploaded
    assert f"datasets/{data.id}/data.json" in uploaded
    assert places("digits-mlp") == set()
    assert places("mnist-lenet300") == {"data/MNIST/raw/train-images-idx3-ubyte"}
    with pytest.raises(RecipeError, match="stay on this machine"):
        places("code:net.py:build")


# ---------------------------------------------------------------- its name


@pytest.mark.parametrize(
    "text", ["dask://", "dask://host", "http://host:1", "dask://h:p", "host:1"]
)
def test_what_is_no_engine_is_refused(text: str) -> None:
    with pytest.raises(RunError, match="is no engine"):
        engines.parse(text)


def test_an_engine_is_named_by_who_starts(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home.mkdir()
    monkeypatch.delenv(engines.VARIABLE, raising=False)
    certificate = home / "ca.pem"
    certificate.touch()
    cluster = engines.parse("tls://host:8786", {"ca": str(certificate), "key": ""})
    assert cluster == Cluster("tls://host:8786", ca=str(certificate))
    assert cluster.scheduler == "tls://host:8786" and HERE.scheduler == "tcp://here:8786"
    engines.use(cluster)
    engines.keep(home)
    assert engines.named(home) == cluster
    monkeypatch.delenv(engines.VARIABLE)  # a shell that has no opinion
    engines.keep(home)
    assert engines.named(home) == cluster
    engines.use(engines.parse("local"))
    engines.keep(home)
    assert engines.named(home) is None
    with pytest.raises(RunError, match="not encrypted"):
        engines.parse("dask://host:1", {"ca": str(certificate)})
    with pytest.raises(RunError, match="There is no file"):
        engines.parse("tls://host:1", {"ca": "nowhere.pem"})
    (home / engines.NAMED).write_text(json.dumps({**asdict(HERE), "more": 1}))
    assert engines.named(home) is None, "what somebody else wrote there"


def test_without_dask_one_sentence_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "find_spec", lambda name: None)
    with pytest.raises(RunError, match="-m pip install distributed"):
        engines.parse("dask://host:1")


# ---------------------------------------------------------------- real processes


def until(met: Callable[[], object], seconds: float = 240.0) -> None:
    began = time.monotonic()
    while not met():
        assert time.monotonic() - began < seconds, "it never happened"
        time.sleep(0.05)


def started(what: str, *words: str) -> subprocess.Popen[bytes]:
    """A scheduler or a worker of Dask, a process of its own."""
    command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *words]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment.pop("PRUNING_HOME")
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env=environment, stdout=quiet, stderr=quiet, cwd="/")


@pytest.mark.pool
def test_a_real_worker_is_killed_and_the_run_goes_on_at_the_other(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("distributed")
    file = tmp_path / "scheduler.json"
    quick = ("--host", "127.0.0.1", "--no-dashboard")
    processes = [started("scheduler", *quick, "--port", "0", "--scheduler-file", str(file))]
    try:
        until(file.exists)
        until(lambda: file.read_text().endswith("}"))
        address = json.loads(file.read_text())["address"]
        folder = ("--local-directory", str(tmp_path / "cluster"))
        alone = ("--nthreads", "1", "--no-nanny", "--scheduler-file", str(file))
        workers = [started("worker", *quick, *alone, *folder) for _ in range(2)]
        processes += workers
        store = Store()
        # Its epochs take longer than checkpoints may be apart.
        recipe = Recipe(model="digits-cnn", sparsity=0.8, epochs=5, batch=4)
        id = store.submit("run", recipe.to_dict())
        monkeypatch.setenv(engines.VARIABLE, "")
        engines.use(engines.parse(address.replace("tcp", "dask")))
        pool.ensure(home)
        until(lambda: epochs(store, id)[1:] and list(store.folder(id).glob(CHECKPOINTS)))
        owner = store.job(id)
        assert (owner.owner or "").startswith(engines.OWNER)
        # Which of the two has it is known by the folder of its own workspace.
        (own,) = (tmp_path / "cluster").glob(f"**/jobs/{id}")
        number = int(own.parents[1].name.removeprefix("pruning-"))
        (victim,) = [worker for worker in workers if worker.pid == number]
        reached = max(epochs(store, id))
        victim.send_signal(signal.SIGKILL)
        until(lambda: store.job(id).state in ENDED)
        done = store.job(id)
        assert (done.state, done.message, done.resumed) == ("finished", None, 1)
        assert epochs(store, id) == list(range(1, recipe.epochs + 1))
        went = [event.text for _, event in store.events(id) if isinstance(event, Notice)]
        assert len(went) == 1 and went[0].startswith("Resumed from ")
        assert int(went[0].split()[3]) >= reached - 2, "at most what came since its checkpoint"
        assert results.load_run(done.folder).masks()
    finally:
        for process in reversed(processes):
            process.kill()
            process.wait()


# ---------------------------------------------------------------- over TLS


def certified(folder: Path) -> dict[str, str]:
    """A certificate that signs itself, and its key, made by `openssl`: file by its flag's name."""
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    made = ("-keyout", str(key), "-out", str(certificate), "-days", "2", "-nodes")
    whose = ("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1")
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1")
    subprocess.run(
        ["openssl", "req", "-x509", *curve, *made, *whose], check=True, stderr=subprocess.DEVNULL
    )
    return {"ca": str(certificate), "certificate": str(certificate), "key": str(key)}


@pytest.fixture
def encrypted(tmp_path: Path) -> Iterator[Cluster]:
    """A scheduler that speaks to nobody without a certificate of its own."""
    pytest.importorskip("distributed")
    if shutil.which("openssl") is None:
        pytest.skip("no certificates can be made: openssl is not installed")
    files = certified(tmp_path)
    file = tmp_path / "scheduler.json"
    flags = ("--tls-ca-file", files["ca"], "--tls-cert", files["certificate"])
    flags += ("--tls-key", files["key"], "--no-dashboard")
    listen = ("--host", "tls://127.0.0.1", "--port", "0", "--scheduler-file", str(file))
    scheduler = started("scheduler", *flags, *listen)
    try:
        until(lambda: file.exists() and file.read_text().endswith("}"))
        address = json.loads(file.read_text())["address"]
        assert address.startswith("tls://")
        yield engines.parse(address, files) or HERE
    finally:
        scheduler.kill()
        scheduler.wait()


@pytest.fixture
def encrypted_worker(encrypted: Cluster, tmp_path: Path) -> Iterator[None]:
    flags = ("--tls-ca-file", encrypted.ca, "--tls-cert", encrypted.certificate)
    flags += ("--tls-key", encrypted.key, "--no-dashboard")
    folder = ("--local-directory", str(tmp_path / "cluster"))
    alone = ("--nthreads", "1", "--no-nanny", "--host", "tls://127.0.0.1")
    worker = started("worker", *flags, *alone, *folder, encrypted.address)
    yield
    worker.kill()
    worker.wait()


def test_nobody_is_answered_without_certificates(encrypted: Cluster) -> None:
    stranger = Link(engines.parse(encrypted.address.replace("tls", "dask")) or HERE)
    known = Link(encrypted)
    try:
        with pytest.raises((OSError, TimeoutError)):
            stranger.begin(stranger.workers()).result(60)
        scheduler, workers = known.begin(known.workers()).result(60)
        assert scheduler and workers == {}
    finally:
        stranger.close()
        known.close()


@pytest.mark.long
@pytest.mark.usefixtures("encrypted_worker")
def test_certificates_let_runs_through(
    encrypted: Cluster, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way: what was named, engine, scheduler, worker, and what comes back.

    Without a certificate the same way is gone above, by a run whose worker is killed.
    """
    store = Store()
    monkeypatch.setenv(engines.VARIABLE, "")
    id = store.submit("run", Recipe(model="digits-mlp", sparsity=0.5).to_dict())
    engines.use(encrypted)
    engines.keep(home)
    # As a pool does, which would start processes for studies beside it.
    engine = DaskEngine(store, engines.named(home) or HERE)

    def ended() -> bool:
        engine.poll([])
        engine.submit([])
        return store.job(id).state in ENDED

    try:
        until(ended)
    finally:
        engine.close()
    done = store.job(id)
    assert (done.state, done.message) == ("finished", None)
    assert (done.owner or "").startswith(engines.OWNER)
    assert results.load_run(done.folder).masks()
