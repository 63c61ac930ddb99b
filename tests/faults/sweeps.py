"""Sweeps over processes that end: every point comes out, and each once."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from faults.kills import check_all
from faults.stage import MODEL, SHORT, Stage, check, stage, until

from pruning.sweeps import sweeps
from pruning.sweeps.plan import Plan

PLAN = Plan(
    models=(MODEL,),
    criteria=("magnitude", "taylor"),
    sparsities=(0.5, 0.8, 0.9),
    seeds=(0, 1),
    fields={"epochs": 2},
)
"""21 runs, controls among them."""


def kill_everything(here: Stage) -> None:
    """The server, the pool and its workers at once, as a machine that is switched off does."""
    for server in list(here.servers):
        here.end_server(server)
    for number in here.processes():
        with suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
    until(lambda: not here.processes(), "all of it ends", 60)


def restarted() -> str:
    """Killed in the middle, and again while it is paused."""
    with stage() as here:
        id = sweeps.submit(here.store, PLAN)
        here.open_server()
        until(lambda: sweeps.state(here.store, id).done >= 4, "four runs are done")
        kill_everything(here)
        before = {row["run"]: row for row in sweeps.rows(here.store, id) if row["state"] == "done"}
        here.open_server()
        until(lambda: sweeps.state(here.store, id).done >= len(before) + 3, "it goes on")
        sweeps.pause(here.store, id)
        kill_everything(here)
        here.open_server()
        until(lambda: not sweeps.state(here.store, id).running, "what was killed is noticed")
        paused = sweeps.state(here.store, id)
        here.ended(here.submit(replace(SHORT, seed=9)))  # a person's run is done meanwhile
        now = sweeps.state(here.store, id)
        check((now.done, now.waiting) == (paused.done, paused.waiting), "it stays paused")
        sweeps.resume(here.store, id)
        sweeps.rerun_failed(here.store, id)
        until(lambda: sweeps.state(here.store, id).ended, "its end")
        rows = sweeps.rows(here.store, id)
        check({row["state"] for row in rows} == {"done"}, f"states: {sweeps.state(here.store, id)}")
        check(len({row["run"] for row in rows}) == len(PLAN.points()), "each point is a run")
        after = {row["run"]: row for row in rows}
        check(all(after.get(run) == row for run, row in before.items()), "what was done stays")
        check_all(here.store)
        jobs = here.store.jobs("run", ("finished",), limit=1000)
        check(len(jobs) == len(rows) + 1, f"{len(jobs) - 1} finished runs for {len(rows)} points")
    return f"killed twice: {len(rows)} points, each one run"


CASES: dict[str, Callable[[], str]] = {"a sweep over restarts": restarted}
