"""What every fault is played on: a workspace with a real pool, stand-in servers, and checks."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pruning.events import ENDS, Epoch, Failed, Finished, Halted
from pruning.recipe import Recipe
from pruning.runs import pool
from pruning.runs.results import has_result
from pruning.runs.store import CHECKPOINTS, ENDED, RESUMES, Job, Store

ROOT = Path(__file__).resolve().parents[2]
MODEL = "digits-mlp"
SHORT = Recipe(model=MODEL, sparsity=0.8, epochs=2)
LONG = Recipe(model=MODEL, sparsity=0.8, epochs=10_000)
# Its epochs take longer than checkpoints cost, so that each has one.
SLOW = Recipe(model="digits-cnn", sparsity=0.8, epochs=6, batch=4)
PATIENCE = 180.0
"""Seconds to wait for what must happen, on a busy machine."""

SERVER = """
import sys, time
from pruning.runs import pool
while True:
    pool.ensure()
    print("ready", flush=True)
    time.sleep(1)
"""
"""What a web server is to a pool: a process that uses the workspace, and asks now and then."""


class Broken(AssertionError):
    """A fault did what it must not."""


def check(met: bool, what: str) -> None:
    if not met:
        raise Broken(what)


def until(met: Callable[[], object], what: str, seconds: float = PATIENCE) -> float:
    """Wait for it; the seconds it took. Raises Broken."""
    began = time.monotonic()
    while not met():
        check(time.monotonic() - began < seconds, f"{what}: not within {seconds:.0f} s")
        time.sleep(0.01)
    return time.monotonic() - began


@dataclass
class Stage:
    """A workspace, and what was started for it. environment: of servers, and of their pool."""

    home: Path
    environment: dict[str, str]
    store: Store
    servers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def open_server(self) -> subprocess.Popen[bytes]:
        """A stand-in for a web server, once it has a pool."""
        command = [sys.executable, "-c", SERVER]
        process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=subprocess.PIPE)
        self.servers.append(process)
        assert process.stdout is not None
        check(process.stdout.readline() == b"ready\n", "the server did not start")
        until(lambda: pool.pid(self.home), "a pool")
        return process

    def end_server(self, process: subprocess.Popen[bytes], how: int = signal.SIGKILL) -> None:
        process.send_signal(how)
        process.wait()
        self.servers.remove(process)

    def submit(self, recipe: Recipe = SHORT) -> str:
        return self.store.submit("run", recipe.to_dict())

    def study(self, what: str = "card", **spec: object) -> str:
        return self.store.submit("study", {"what": what, "model": MODEL, **spec})

    def running(self, id: str) -> int:
        """Wait until the job is worked on; the worker's process."""
        until(lambda: self.job(id).state == "running", "the job began")
        return owner(self.job(id))

    def trained(self, id: str) -> int:
        """Wait until a run has trained a whole epoch; its worker's process."""
        until(lambda: self.store.last(id, Epoch), "a whole epoch")
        return owner(self.job(id))

    def ended(self, id: str) -> Job:
        until(lambda: self.job(id).state in ENDED, f"the end of job {id}")
        return self.job(id)

    def job(self, id: str) -> Job:
        return self.store.job(id)

    def warm(self) -> None:
        """Wait until a worker has done a run, so that the next begins at once."""
        done = self.ended(self.submit())
        check(done.state == "finished", f"a first run {done.state}: {done.message}")

    def processes(self) -> dict[int, str]:
        """Every process that has this workspace as its own, but this one: number -> command."""
        return processes_of(self.home)


def owner(job: Job) -> int:
    check(job.owner is not None, f"job {job.id} has an owner")
    return int(str(job.owner).split(":")[1])


def processes_of(home: Path) -> dict[int, str]:
    found = {}
    wanted = f"PRUNING_HOME={home}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if wanted in (folder / "environ").read_bytes().split(b"\0"):
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                # A zombie has no command: it has ended, and its parent has not looked yet.
                if command and int(folder.name) != os.getpid():
                    found[int(folder.name)] = command
    return found


@contextmanager
def stage(home: Path | None = None, **environment: str) -> Iterator[Stage]:
    """A stage in an empty folder, or in `home`. At its end nothing of it may be left running."""
    folder = Path(tempfile.mkdtemp(prefix="pruning-faults-"))
    workspace = home or folder / "workspace"
    settings = {"OMP_NUM_THREADS": "1", **environment}
    everything = {**os.environ, "PRUNING_HOME": str(workspace), **settings}
    here = Stage(workspace, everything, Store(workspace))
    try:
        yield here
        for process in list(here.servers):
            here.end_server(process)
        until(lambda: not here.processes(), "nothing is left running", 60)
    finally:
        for process in here.servers:
            process.kill()
            process.wait()
        for number in here.processes():
            with suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)


# ---------------------------------------------------------------- what must hold of every job


def check_job(store: Store, job: Job, reasons: Iterable[str] = ()) -> None:
    """It ended once, says how, and has what it says. reasons: sentences with which it may fail."""
    check(job.state in ENDED, f"job {job.id} is {job.state}")
    check(job.resumed <= RESUMES, f"job {job.id} went on {job.resumed} times")
    check(job.kind == "run" or job.attempt <= 2, f"study {job.id}: {job.attempt} attempts")
    if job.state == "failed":
        check(job.message in set(reasons), f"job {job.id} failed: {job.message}")
    if job.kind != "run":
        return
    numbered = store.events(job.id)
    numbers = [number for number, _ in numbered]
    events = [event for _, event in numbered]
    check(numbers == list(range(1, len(numbers) + 1)), f"job {job.id}: gaps among its events")
    ends = [event for event in events if isinstance(event, ENDS)]
    check(ends == events[-1:], f"job {job.id} ends {len(ends)} times")
    ends_as = {"finished": Finished, "failed": Failed, "diverged": Failed, "stopped": Halted}
    expected = ends_as[job.state]
    check(isinstance(ends[0], expected), f"job {job.id} is {job.state} and ends as {ends[0]}")
    passes = [(event.step, event.epoch, event.branch) for event in events if type(event) is Epoch]
    check(len(passes) == len(set(passes)), f"job {job.id}: an epoch that counts twice")
    # It is deleted after the row says that the run ended; of a worker that was killed between the
    # two, by the pool that notices.
    gone = f"job {job.id} ended and has no checkpoint any more"
    until(lambda: not list(job.folder.glob(CHECKPOINTS)), gone, 30)
    if job.state == "finished":
        check(has_result(job.folder), f"job {job.id} has no result")
        check((job.folder / "final.safetensors").is_file(), f"job {job.id} has no weights")
