"""A disk that is full, or may only be read: on a small file system in memory."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from faults.pages import open_page, press_run
from faults.stage import LONG, MODEL, ROOT, check, check_job, stage, until

from pruning import formats
from pruning.errors import DiskFull, FileRefused
from pruning.runs import handlers, pool
from pruning.runs.store import Store

SIZE = 24 << 20
"""Bytes of the file system."""


class NotHere(Exception):
    """This fault cannot be played on this machine."""


@contextmanager
def small_disk() -> Iterator[Path]:
    """A folder on a file system of its own. Raises NotHere where none can be mounted."""
    folder = Path(tempfile.mkdtemp(prefix="pruning-faults-"))
    _mount("-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(folder))
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _mount(*words: str) -> None:
    try:
        subprocess.run(["mount", *words], check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        raise NotHere(
            "no file system can be mounted here (it takes root): tests/test_runs_faults.py plays "
            "the same with a disk that only says that it is full"
        ) from None


def fill(folder: Path) -> Path:
    """Use up all room; the file that does."""
    file = folder / "filler"
    with open(file, "wb", buffering=0) as out, suppress(OSError):
        for size in (1 << 20, 1 << 12, 1):
            with suppress(OSError):
                while True:
                    out.write(b"\0" * size)
    return file


def full_for_a_while() -> str:
    """A run waits for room, and goes on."""
    with small_disk() as disk, stage(disk / "workspace") as here:
        here.open_server()
        run = here.submit(LONG)
        here.trained(run)
        leader = pool.pid(here.home)
        filler = fill(disk)
        time.sleep(here.store.lease + 5)  # past the lease, which nobody can renew
        check(here.job(run).state == "running", f"the run {here.job(run).state}")
        filler.unlink()
        reached = len(here.store.events(run))
        until(lambda: len(here.store.events(run)) > reached, "the run goes on")
        here.store.stop(run)
        check_job(here.store, here.ended(run))
        check(pool.pid(here.home) == leader, "the pool lives")
    return "the run waited longer than its lease, and went on"


def full_for_long() -> str:
    """A run fails with the true reason, which is recorded once there is room."""
    with small_disk() as disk, stage(disk / "workspace") as here:
        here.open_server()
        here.warm()
        run = here.submit(LONG)
        here.trained(run)
        leader = pool.pid(here.home)
        filler = fill(disk)
        time.sleep(handlers.ROOM + 10)
        check(pool.pid(here.home) == leader, "the pool lives")
        filler.unlink()
        took = until(lambda: here.job(run).state == "failed", "the reason is recorded", 20)
        message = here.job(run).message or ""
        check("The disk is full" in message and "memory" not in message, message)
        check_job(here.store, here.ended(run), {message})
        check("The disk is full" in (here.home / "pool.log").read_text(), "the log has it, too")
        check(here.ended(here.submit()).state == "finished", "the next run finishes")
        check(pool.pid(here.home) == leader, "still the same pool")
    return f"“{message}” {took:.1f} s after there was room"


def full_when_saving() -> str:
    """The last epoch is trained; its weights find no room. Nothing of it is lost."""
    with small_disk() as disk, stage(disk / "workspace") as here:
        here.open_server()
        here.warm()
        run = here.submit(LONG)
        here.trained(run)
        filler = fill(disk)
        with suppress(DiskFull):
            here.store.stop(run)  # there may be no room even for this
        time.sleep(5)
        filler.unlink()
        here.store.stop(run)
        job = here.ended(run)
        check_job(here.store, job)
        check(job.state == "stopped" and (job.folder / "result.json").is_file(), "it is kept")
    return "stopped with its weights and its result"


def full_at_a_submit() -> str:
    with small_disk() as disk:
        store = Store(disk / "workspace")
        open_page("prune", store.workspace)
        fill(disk)
        page = open_page("prune", store.workspace)
        check("disk" in page.banner, f"the page says {page.banner!r}")
        said = press_run(page)
        check("disk is full" in said, f"a press says {said!r}")
        (disk / "filler").unlink()
        page = open_page("prune", store.workspace)
        check(not page.banner, f"with room the page says {page.banner!r}")
        press_run(page)
        check(len(store.jobs("run", ("queued",))) == 1, "and Run is accepted once")
    return f"“{said}”"


def full_at_an_upload() -> str:
    with small_disk() as disk:
        weights = ROOT / "sample_models" / "weights" / f"{MODEL}.safetensors"
        formats.accept(weights, MODEL, disk / "other")  # with room it is accepted
        shutil.rmtree(disk / "other")
        fill(disk)
        try:
            formats.accept(weights, MODEL, disk / "workspace")
        except FileRefused as refused:
            said = str(refused)
        else:
            said = "nothing"
        check("disk is full" in said, f"an upload says {said!r}")
        (disk / "filler").unlink()
        left = [file for file in disk.rglob("*") if file.is_file()]
        check(left == [], f"it leaves {left}")
    return f"“{said}”"


def read_only() -> str:
    """The folder may only be read: results are shown, and nothing can be started."""
    with small_disk() as disk:
        home, mounted = disk / "workspace", disk / "read-only"
        open_page("model", home)
        run = Store(home).jobs("run")[0].id
        mounted.mkdir()
        _mount("--bind", str(home), str(mounted))
        try:
            _mount("-o", "remount,bind,ro", str(mounted))
            check(not os.access(mounted, os.W_OK), "it may not be written")
            page = open_page("run", mounted, run=run)
            check("may only be read" in page.banner, f"the page says {page.banner!r}")
            check("98.6" in page.text, "the result is shown")
            said = press_run(open_page("prune", mounted))
            check("may only be read" in said, f"a press says {said!r}")
        finally:
            subprocess.run(["umount", "--lazy", str(mounted)], check=False)
    return "results are shown; Run says that the folder may only be read"


CASES: dict[str, Callable[[], str]] = {
    "disk full for half a minute, during a run": full_for_a_while,
    "disk full for over a minute, during a run": full_for_long,
    "disk full when Stop saves": full_when_saving,
    "disk full at a submit": full_at_a_submit,
    "disk full at an upload": full_at_an_upload,
    "folder that may only be read": read_only,
}
