"""Run a sweep in this process, one run after another, without a worker pool."""

from __future__ import annotations

import time
from collections.abc import Callable

from pruning.runs import process_id
from pruning.runs.store import Store
from pruning.runs.worker import Shutdown, attend
from pruning.sweeps.sweeps import Progress, state

POLL = 0.5
"""Seconds between looks at runs that another process does."""


def run_here(
    store: Store, id: str, shutdown: Shutdown, tell: Callable[[Progress], None] = lambda now: None
) -> None:
    """Do its runs until none waits or works, or `shutdown` is requested: the run that this
    interrupts waits again, to go on from its last checkpoint.

    tell: how far it has come, before the first run and after each.
    """
    me = process_id.me()
    store.reap()  # what a process did that was killed in the middle
    while True:
        progress = state(store, id, workers=1)
        tell(progress)
        if shutdown.due():
            return
        job = store.claim(me, ("run",), sweep=id) if progress.waiting else None
        if job is not None:
            attend(store, job, shutdown)
        elif progress.ended or (progress.state != "active" and not progress.running):
            return
        else:  # another process does them, and may be killed too
            time.sleep(POLL)
            store.reap()
