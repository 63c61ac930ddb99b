"""The machine's clock is set an hour on, or back, while a run works."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from faults.stage import LONG, SHORT, check, check_job, stage

SHIFTED = """
import os, time
_time, _file = time.time, os.environ.get("FAULTS_CLOCK")
def shifted():
    try:
        with open(_file) as file:
            return _time() + float(file.read() or 0)
    except (OSError, ValueError):
        return _time()
if _file:
    time.time = shifted
"""
"""Loaded by every Python process of the stage, as its `sitecustomize`: the clock alone is false."""


def clock_set(hours: float) -> str:
    folder = Path(tempfile.mkdtemp(prefix="pruning-faults-"))
    (folder / "sitecustomize.py").write_text(SHIFTED)
    clock = folder / "clock"
    clock.write_text("0")
    with stage(PYTHONPATH=str(folder), FAULTS_CLOCK=str(clock)) as here:
        here.open_server()
        run = here.submit(LONG)
        here.trained(run)
        clock.write_text(str(3600 * hours))
        time.sleep(here.store.lease / 2)
        check(here.job(run).state == "running", f"the run {here.job(run).state}")
        # Back again, as a clock that was wrong is.
        clock.write_text("0")
        time.sleep(here.store.lease / 2)
        check(here.job(run).state == "running", f"the run {here.job(run).state} when set back")
        here.store.stop(run)
        check_job(here.store, here.ended(run))
        clock.write_text(str(3600 * hours))
        done = here.ended(here.submit(SHORT))
        check(done.state == "finished", f"the next run {done.state}: {done.message}")
    return "the run went on both times, and the next one finished"


CASES: dict[str, Callable[[], str]] = {
    "clock an hour on": partial(clock_set, 1),
    "clock an hour back": partial(clock_set, -1),
}
