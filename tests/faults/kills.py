"""Processes that end, are suspended, or are asked to stop, at any moment."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from faults.stage import LONG, SHORT, SLOW, Broken, Stage, check, check_job, owner, stage, until

from pruning.events import Epoch, Halted, Measured, Notice, Pruned, Started
from pruning.runs import local_workers, pool, supervisor
from pruning.runs.store import CHECKPOINTS, ENDED, NO_MORE_TRIES, RESUMES, Job, Store

KILLED = local_workers.KILLED.format(signal="SIGKILL")
VICTIMS = ("worker", "pool", "server")


def goes_on(end: Callable[[Stage, str], object], resumes: int, lost: int = 1) -> str:
    """What works on a run ends in the middle of an epoch; the run finishes as if it had not.

    resumes: how often it counts as one that went on; lost: whole epochs at most.
    """
    with stage() as here:
        here.open_server()
        whole = here.ended(here.submit(SLOW))
        run = here.submit(SLOW)
        until(lambda: _epochs(here, run)[2:], "three epochs")
        reached = _epochs(here, run)[-1]
        end(here, run)
        ended_at = time.monotonic()
        until(lambda: here.job(run).attempt > 1, "it was given up, and begun again", 90)
        noticed = time.monotonic() - ended_at
        done = here.ended(run)
        check_job(here.store, done)
        check(done.state == "finished", f"the run {done.state}: {done.message}")
        check(done.resumed == resumes, f"it counts as gone on {done.resumed} times")
        check(_epochs(here, run) == list(range(1, SLOW.epochs + 1)), "each epoch counts once")
        (began,) = _went_on(here, run)
        check(began >= reached - lost, f"it went on from epoch {began} after {reached}")
        bits = "the same bits" if _weights(done) == _weights(whole) else "other bits"
        check_all(here.store)
    return f"went on {noticed:.0f} s later from epoch {began} of {reached}; {bits} at the end"


def _kill_worker(here: Stage, run: str) -> None:
    os.kill(owner(here.job(run)), signal.SIGKILL)


def _suspend_worker(here: Stage, run: str) -> None:
    os.kill(owner(here.job(run)), signal.SIGSTOP)


def _kill_pool(here: Stage, run: str) -> None:
    os.kill(pool.pid(here.home) or 0, signal.SIGKILL)


def _end_pool(here: Stage, run: str) -> None:
    os.kill(pool.pid(here.home) or 0, signal.SIGTERM)


def _restart_all(here: Stage, run: str) -> None:
    """Server, pool and worker at once, as when the machine goes down."""
    numbers = [*here.processes()]
    for number in numbers:
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    for server in list(here.servers):
        here.end_server(server)
    here.open_server()


def _tear_checkpoint(here: Stage, run: str) -> None:
    """The newest is cut in the middle while nobody looks; the worker is killed."""
    leader = pool.pid(here.home) or 0
    os.kill(leader, signal.SIGSTOP)
    _kill_worker(here, run)
    newest = sorted(here.job(run).folder.glob(CHECKPOINTS))[-1]
    os.truncate(newest, newest.stat().st_size // 2)
    os.kill(leader, signal.SIGCONT)


def _epochs(here: Stage, run: str) -> list[int]:
    return [event.epoch for _, event in here.store.events(run) if isinstance(event, Epoch)]


def _went_on(here: Stage, run: str) -> list[int]:
    """The epochs that it says it went on from."""
    notices = [event.text for _, event in here.store.events(run) if isinstance(event, Notice)]
    went = (re.match(r"Resumed from epoch (\d+)", text) for text in notices)
    return [int(match[1]) for match in went if match]


def _weights(job: Job) -> bytes:
    return (job.folder / "final.safetensors").read_bytes()


def server_killed() -> str:
    """Its run goes on to its end; what only a page waits for, and what waits, does not begin."""
    with stage() as here:
        server = here.open_server()
        here.warm()
        running = [here.submit(SHORT) for _ in range(2)]
        here.running(running[0])
        study = here.study("map", criterion="magnitude", tier="exact")
        here.end_server(server)
        done = here.ended(running[0])
        check_job(here.store, done)
        check(done.state == "finished", f"the run {done.state}: {done.message}")
        took = until(lambda: not here.processes(), "pool and workers end", 60)
        check(here.job(study).state in ("stopped", "finished"), "no study is left")
        check(here.job(running[1]).state in ("queued", "finished"), "the second run is not lost")
        here.open_server()
        check(here.ended(running[1]).state == "finished", "the next server works it off")
    return f"the run finished; nothing runs {took:.0f} s later"


def pool_asked_to_end() -> str:
    """SIGTERM: what runs and what waits is done by the next pool."""
    with stage() as here:
        here.open_server()
        run = here.submit(LONG)
        here.trained(run)
        waiting = [here.submit(SHORT) for _ in range(2)]
        leader = pool.pid(here.home)
        assert leader
        os.kill(leader, signal.SIGTERM)
        for id in waiting:
            done = here.ended(id)
            check_job(here.store, done)
            check(done.state == "finished", f"what waited {done.state}: {done.message}")
        until(lambda: here.job(run).attempt == 2, "the running one goes on")
        check(here.job(run).resumed == 0, "which is no fault of it")
        here.store.stop(run)
        check_job(here.store, here.ended(run))
    return "the next pool went on with the one and did the others"


def server_asked_to_end() -> str:
    with stage() as here:
        server = here.open_server()
        run = here.submit(SHORT)
        here.running(run)
        here.end_server(server, signal.SIGTERM)
        check(here.ended(run).state == "finished", "the run finished")
        until(lambda: not here.processes(), "pool and workers end", 60)
    return "the run finished, and nothing is left running"


def suspended() -> str:
    """SIGSTOP past the lease, of the pool, which must accuse nobody when it wakes."""
    with stage() as here:
        here.open_server()
        run = here.submit(LONG)
        here.trained(run)
        leader = pool.pid(here.home)
        assert leader
        os.kill(leader, signal.SIGSTOP)
        time.sleep(here.store.lease + 5)
        os.kill(leader, signal.SIGCONT)
        time.sleep(3)
        check(here.job(run).state == "running", "the run goes on after the pool slept")
        check(here.job(run).attempt == 1, "in its first attempt")
        here.store.stop(run)
        check_job(here.store, here.ended(run))
    return "the pool's sleep cost nothing"


def two_servers() -> str:
    with stage() as here:
        first, second = here.open_server(), here.open_server()
        here.warm()
        leader = pool.pid(here.home)
        runs = [here.submit(SHORT) for _ in range(3)]
        here.end_server(first)
        for id in runs:
            check(here.ended(id).state == "finished", "all runs finish")
        time.sleep(2 * supervisor.ALONE)
        check(pool.pid(here.home) == leader, "the pool stays for the second server")
        here.end_server(second)
        took = until(lambda: not here.processes(), "pool and workers end", 60)
    return f"one pool for both; it ended {took:.0f} s after the second"


def poisonous_runs() -> str:
    """Runs that end every worker which takes them, beside sound ones."""
    with stage() as here:
        here.open_server()
        poison = [here.submit(LONG) for _ in range(5)]
        study = here.study()
        sound = here.submit(SHORT)
        killed: set[tuple[str, int]] = set()
        began = time.monotonic()
        while any(here.job(id).state not in ENDED for id in (*poison, sound, study)):
            check(time.monotonic() - began < 300, "all of them end")
            for id in (*poison, study):
                job = here.job(id)
                if job.state == "running" and (id, job.attempt) not in killed:
                    killed.add((id, job.attempt))
                    os.kill(owner(job), signal.SIGKILL)
            time.sleep(0.01)
        for id in poison:
            check_job(here.store, here.job(id), {KILLED + NO_MORE_TRIES})
            check(here.job(id).state == "failed", "a poisonous run fails")
            check(here.job(id).attempt == RESUMES + 1, f"after {here.job(id).attempt} attempts")
        check_job(here.store, here.job(study), {KILLED})
        check(here.job(sound).state == "finished", f"a sound run: {here.job(sound).message}")
    return f"{len(killed)} workers ended; the sound run beside them finished"


STAGES: dict[str, Callable[[Stage, str], object]] = {
    "as it begins": lambda here, id: until(lambda: here.job(id).state == "running", "it began"),
    "started": lambda here, id: until(lambda: here.store.last(id, Started), "it started"),
    "dense measured": lambda here, id: until(lambda: here.store.last(id, Measured), "measured"),
    "pruned": lambda here, id: until(lambda: here.store.last(id, Pruned), "pruned"),
    "trained": lambda here, id: until(lambda: here.store.last(id, Epoch), "trained"),
}


def stopped_cold() -> str:
    """Stop at each stage of the first run of a worker that has just been started."""
    took = {}
    for name, reached in STAGES.items():
        with stage() as here:
            run = here.submit(LONG)
            here.open_server()
            reached(here, run)
            took[name] = _stop(here, run)
    with stage() as here:
        run = here.submit(LONG)
        here.open_server()
        took["queued"] = _stop(here, run)
    return _slowest(took)


def stopped_warm() -> str:
    """The same on a warm worker, which must live on."""
    took = {}
    with stage() as here:
        here.open_server()
        here.warm()
        for name, reached in STAGES.items():
            run = here.submit(LONG)
            reached(here, run)
            took[name] = _stop(here, run)
        check_job(here.store, here.ended(here.submit()))
    return _slowest(took)


def _slowest(took: dict[str, float]) -> str:
    over = [name for name, seconds in took.items() if seconds > 1.0]
    line = ", ".join(f"{name} {seconds:.2f} s" for name, seconds in took.items())
    return line + (f"; over a second: {', '.join(over)}" if over else "")


def _stop(here: Stage, run: str) -> float:
    """Press Stop; the seconds until the run is stopped, or is known to keep what it reached."""
    began = time.monotonic()
    here.store.stop(run)
    job = here.ended(run)
    took = time.monotonic() - began
    check_job(here.store, job)
    check(job.state == "stopped", f"it {job.state}: {job.message}")
    end = here.store.events(run)[-1][1]
    assert isinstance(end, Halted)
    trained = [event for _, event in here.store.events(run) if isinstance(event, Epoch)]
    if trained:
        check(end.result is not None, "what it reached is measured")
        check((job.folder / "final.safetensors").is_file(), "its weights are kept")
        check((job.folder / "masks.npz").is_file(), "its masks are kept")
        check((end.step, end.epoch) == (trained[-1].step, trained[-1].epoch), "of the last epoch")
    return took


READER = """
import sys
from pathlib import Path
import pruning.formats as formats
from pruning.formats import architecture
formats.inspect(Path(sys.argv[1]))
"""


def reader_of_a_killed_server() -> str:
    """It ends at once, also where it is in the middle of something."""
    weights = Path(__file__).parents[2] / "sample_models" / "weights" / "digits-mlp.safetensors"
    folder = Path(tempfile.mkdtemp(prefix="pruning-faults-"))
    environment = {**os.environ, "TMPDIR": str(folder)}
    server = subprocess.Popen([sys.executable, "-c", READER, str(weights)], env=environment)
    until(lambda: _children(server.pid), "a reader that has set its limits")
    (reader,) = _children(server.pid)
    os.kill(reader, signal.SIGSTOP)
    server.kill()
    server.wait()
    try:
        took = until(lambda: not _alive(reader), "the reader ends", 5)
    finally:
        if _alive(reader):
            os.kill(reader, signal.SIGKILL)
        shutil.rmtree(folder, ignore_errors=True)
    return f"gone after {1000 * took:.0f} ms, though it was suspended"


def _children(parent: int) -> list[int]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rsplit(")", 1)[1].split()
            command = (folder / "cmdline").read_bytes()
            limits = (folder / "limits").read_text()
        except OSError:
            continue
        # It sets its limits after it has asked to end with its parent.
        limited = not re.search("Max address space +unlimited", limits)
        if int(fields[1]) == parent and b"reader_process" in command and limited:
            found.append(int(folder.name))
    return found


def _alive(process: int) -> bool:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return False
    return fields[0] not in "ZX"


# ---------------------------------------------------------------- at random


def random_kills(repeats: int, seed: int = 0) -> str:
    """Kill a worker, a server or the pool at any moment, over and over, on one workspace."""
    generator = random.Random(seed)
    counts = dict.fromkeys(VICTIMS, 0)
    resumed = dict.fromkeys(VICTIMS, 0)
    with stage() as here:
        here.open_server()
        here.warm()
        for repeat in range(repeats):
            victim = generator.choice(VICTIMS)
            counts[victim] += 1
            try:
                resumed[victim] += _repeat(here, generator, victim)
            except Broken as broken:
                raise Broken(f"repeat {repeat + 1}, {victim}: {broken}") from None
        check_all(here.store)
    return ", ".join(f"{name} {counts[name]} times ({resumed[name]} went on)" for name in counts)


def _repeat(here: Stage, generator: random.Random, victim: str) -> int:
    """One kill among four runs and a study, which all finish; how many runs went on."""
    if not here.servers:
        here.open_server()
    ids = [here.submit(SHORT) for _ in range(3)]
    key = f"once-{ids[0]}"
    twice = {here.store.submit("run", SHORT.to_dict(), key=key) for _ in range(2)}
    check(len(twice) == 1, "the same work is one job")
    ids += twice
    study = here.study("weights", seed=generator.randrange(1 << 30))
    time.sleep(generator.uniform(0, 3))
    if victim == "server":
        here.end_server(here.servers[0])
        time.sleep(generator.uniform(0, 2 * supervisor.ALONE))
        here.open_server()
    elif victim == "pool":
        # Between two pools there is none.
        until(lambda: pool.pid(here.home), "a pool")
        os.kill(pool.pid(here.home) or 0, signal.SIGKILL)
    else:
        workers = [n for n, command in here.processes().items() if "runs.worker" in command]
        if workers:
            os.kill(generator.choice(workers), signal.SIGKILL)
    went_on = 0
    for id in ids:
        job = here.ended(id)
        check_job(here.store, job)
        check(job.state == "finished", f"a run {job.state}: {job.message}")
        went_on += job.attempt > 1
    check(here.ended(study).state in ("finished", "stopped"), "the study ends")
    return went_on


def check_all(store: Store) -> None:
    """Nothing doubled, and the file itself is sound."""
    jobs = store.jobs(limit=100_000)
    check(len({job.id for job in jobs}) == len(jobs), "every job is there once")
    with store.database.read() as db:
        verdict = db.execute("PRAGMA integrity_check").fetchone()[0]
    check(verdict == "ok", f"the store is {verdict}")


CASES: dict[str, Callable[[], str]] = {
    "kill -9 of a worker": partial(goes_on, _kill_worker, 1),
    "kill -9 of a worker, its checkpoint torn": partial(goes_on, _tear_checkpoint, 1, lost=2),
    "kill -9 of the pool, during a run": partial(goes_on, _kill_pool, 0),
    "kill -9 of everything, and a restart": partial(goes_on, _restart_all, 1),
    "SIGTERM of the pool, during a run": partial(goes_on, _end_pool, 0),
    "SIGSTOP of a worker past the lease": partial(goes_on, _suspend_worker, 1),
    "kill -9 of the server": server_killed,
    "kill -9 of the server while a file is read": reader_of_a_killed_server,
    "SIGTERM of the pool": pool_asked_to_end,
    "SIGTERM of the server": server_asked_to_end,
    "SIGSTOP of the pool past the lease": suspended,
    "two servers": two_servers,
    "runs that kill their worker": poisonous_runs,
    "Stop at each stage, cold worker": stopped_cold,
    "Stop at each stage, warm worker": stopped_warm,
}
