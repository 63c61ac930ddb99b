"""Runs on a Dask cluster whose workers and whose scheduler end. Real ones, on loopback."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from faults.disks import NotHere
from faults.kills import check_all
from faults.stage import ROOT, SLOW, Stage, check, check_job, stage, until

from pruning.events import Epoch, Notice
from pruning.runs import engines
from pruning.runs.store import ENDED, Job


@dataclass
class Cluster:
    """A scheduler and its workers. folder: where they keep what is theirs; port: the scheduler's,
    so that another can take its place.
    """

    folder: Path
    port: int = 0
    scheduler: subprocess.Popen[bytes] | None = None
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def file(self) -> Path:
        return self.folder / "scheduler.json"

    @property
    def address(self) -> str:
        return f"dask://127.0.0.1:{self.port}"

    def begin(self) -> None:
        """Start a scheduler: the first, or one in the place of another that has ended."""
        self.file.unlink(missing_ok=True)
        words = ("--port", str(self.port), "--scheduler-file", str(self.file))
        self.scheduler = self._start("scheduler", *words)
        until(lambda: self.file.exists() and self.file.read_text().endswith("}"), "a scheduler")
        self.port = int(json.loads(self.file.read_text())["address"].rpartition(":")[2])

    def add(self, count: int = 1) -> None:
        words = ("--nthreads", "1", "--no-nanny", "--local-directory", str(self.folder))
        for _ in range(count):
            self.workers.append(self._start("worker", *words, self.address.replace("dask", "tcp")))

    def kill(self, process: subprocess.Popen[bytes]) -> None:
        process.kill()
        process.wait()
        if process in self.workers:
            self.workers.remove(process)

    def worker_of(self, job: Job) -> subprocess.Popen[bytes]:
        """The worker that has a run, by the folder of its own workspace."""
        folders = sorted(self.folder.glob(f"**/jobs/{job.id}"), key=lambda f: f.stat().st_mtime)
        numbers = [int(folder.parents[1].name.removeprefix("pruning-")) for folder in folders]
        living = [worker for worker in self.workers if worker.pid in numbers]
        check(bool(living), f"a worker has run {job.id}")
        return max(living, key=lambda worker: numbers.index(worker.pid))

    def _start(self, what: str, *words: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", f"distributed.cli.dask_{what}", *words]
        command += ["--host", "127.0.0.1", "--no-dashboard"]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment.pop("PRUNING_HOME", None)
        with open(self.folder / "cluster.log", "ab") as lines:
            return subprocess.Popen(command, env=environment, stdout=lines, stderr=lines, cwd="/")


@contextmanager
def on_a_cluster(workers: int = 2) -> Iterator[tuple[Stage, Cluster]]:
    """A stage whose server names a cluster. Raises NotHere without Dask."""
    try:
        import distributed  # noqa: F401
    except ImportError:
        raise NotHere("Dask is not installed") from None
    with stage() as here:
        folder = here.home.parent / "cluster"
        folder.mkdir()
        cluster = Cluster(folder)
        try:
            cluster.begin()
            cluster.add(workers)
            named = engines.Cluster(cluster.address)
            here.environment[engines.VARIABLE] = json.dumps({"address": named.address})
            here.open_server()
            # They import torch first, which takes minutes where all of it starts at once.
            until(lambda: _ready(here) == workers, "its workers are warm", 600)
            yield here, cluster
        finally:
            for process in [*cluster.workers, *filter(None, [cluster.scheduler])]:
                process.kill()
                process.wait()


def _ready(here: Stage) -> int:
    known = engines.status(here.home)
    return known.workers if known else 0


def worker_killed() -> str:
    """In the middle of a run, twice: it goes on at another, and what runs beside it is not hurt."""
    with on_a_cluster() as (here, cluster):
        whole = here.ended(here.submit(SLOW))
        runs = [here.submit(SLOW), here.submit(replace(SLOW, seed=1))]
        took = []
        for kill in range(2):
            reached = 2 * kill + 2
            until(lambda: len(_epochs(here, runs[0])) >= reached, "epochs")  # noqa: B023
            cluster.kill(cluster.worker_of(here.job(runs[0])))
            cluster.add()
            took.append(until(lambda: here.job(runs[0]).resumed == kill + 1, "noticed", 60))  # noqa: B023
        for id in runs:
            done = here.ended(id)
            check_job(here.store, done)
            check(done.state == "finished", f"the run {done.state}: {done.message}")
            check(_epochs(here, id) == list(range(1, SLOW.epochs + 1)), "each epoch counts once")
        went = [_weights(here.job(id)) == _weights(whole) for id in runs[:1]]
        check_all(here.store)
        resumed = here.job(runs[0]).resumed
        check(here.job(runs[1]).resumed <= 2, "the run beside it was resumed too often")
    bits = "the same bits" if went == [True] else "other bits"
    return f"noticed after {took[0]:.1f} and {took[1]:.1f} s, resumed {resumed} times; {bits}"


def worker_suspended() -> str:
    """Past its lease: its run goes on elsewhere, and what it does when it wakes counts no more."""
    with on_a_cluster() as (here, cluster):
        run = here.submit(SLOW)
        until(lambda: _epochs(here, run)[1:], "two epochs")
        asleep = cluster.worker_of(here.job(run))
        asleep.send_signal(signal.SIGSTOP)
        took = until(lambda: here.job(run).resumed == 1, "it was given up", 90)
        done = here.ended(run)
        asleep.send_signal(signal.SIGCONT)
        time.sleep(3)
        check_job(here.store, here.job(run))
        check(here.job(run) == done and done.state == "finished", "it counts once")
        check(_epochs(here, run) == list(range(1, SLOW.epochs + 1)), "each epoch counts once")
        check_all(here.store)
    return f"given up after {took:.0f} s, finished by another; its waking changed nothing"


def scheduler_killed() -> str:
    """Runs wait, and say so; they go on when one is back, and when another is named."""
    with on_a_cluster() as (here, cluster):
        runs = [here.submit(SLOW), here.submit(replace(SLOW, seed=1))]
        until(lambda: _epochs(here, runs[0])[1:], "two epochs")
        assert cluster.scheduler is not None
        cluster.kill(cluster.scheduler)
        until(lambda: all(here.job(id).state in ("queued", *ENDED) for id in runs), "they wait", 60)
        until(lambda: "does not answer" in engines.trouble(here.home), "pages are told so")
        for worker in list(cluster.workers):  # those that did not end with it
            cluster.kill(worker)
        cluster.begin()
        cluster.add(2)
        back = until(lambda: here.job(runs[0]).state != "queued", "it goes on")
        until(lambda: len(_epochs(here, runs[0])) >= 3, "a third epoch")
        cluster.kill(cluster.scheduler)
        for worker in list(cluster.workers):
            cluster.kill(worker)
        until(lambda: all(here.job(id).state in ("queued", *ENDED) for id in runs), "they wait", 60)
        here.environment[engines.VARIABLE] = ""  # the next server names this machine's own workers
        here.open_server()
        for id in runs:
            done = here.ended(id)
            check_job(here.store, done)
            check(done.state == "finished", f"the run {done.state}: {done.message}")
            check(done.resumed == 0, "which was no fault of it")
            check(_epochs(here, id) == list(range(1, SLOW.epochs + 1)), "each epoch counts once")
        check_all(here.store)
        notices = [
            event.text for _, event in here.store.events(runs[0]) if isinstance(event, Notice)
        ]
    return f"went on {back:.0f} s after it was back, then here; {len(notices)} times, as it says"


def _epochs(here: Stage, run: str) -> list[int]:
    return [event.epoch for _, event in here.store.events(run) if isinstance(event, Epoch)]


def _weights(job: Job) -> bytes:
    return (job.folder / "final.safetensors").read_bytes()


CASES: dict[str, Callable[[], str]] = {
    "kill -9 of a Dask worker": worker_killed,
    "SIGSTOP of a Dask worker past the lease": worker_suspended,
    "kill -9 of the Dask scheduler": scheduler_killed,
}
