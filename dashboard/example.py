"""The example: a real run, recorded, that an empty workspace starts with."""

from __future__ import annotations

import shutil
from pathlib import Path

from pruning.events import Finished, Started, from_json, to_json
from pruning.runs.store import Job, Store

EXAMPLE = Path(__file__).parent / "examples" / "digits-cnn"
BATCH = "example"
FIRST = 1_000_000  # before anything that waits: it takes a moment and no work


def ensure(store: Store) -> None:
    """Record the example as a finished run, if the workspace has no run yet."""
    # One that somebody deleted can be restored: another one would be beside it then.
    has_runs = store.jobs("run", limit=1) or store.trashed(1)
    if not (EXAMPLE / "events.jsonl").exists() or has_runs:
        return
    lines = (EXAMPLE / "events.jsonl").read_text(encoding="utf-8").splitlines()
    events = [from_json(line) for line in lines]
    started = events[0]
    result = events[-1]
    if not isinstance(started, Started) or not isinstance(result, Finished):
        return
    # The normal path of a run, worked off here: the store has no other way to a finished run.
    id = store.submit("run", started.recipe, key=BATCH, priority=FIRST, batch=BATCH)
    job = store.claim(queues=("run",))
    if job is None or job.id != id:  # another server was faster, and records it
        return
    job.folder.mkdir(parents=True, exist_ok=True)
    for file in EXAMPLE.iterdir():
        if file.name != "events.jsonl":
            shutil.copyfile(file, job.folder / file.name)
    for event in events[:-1]:
        store.append(job, event)
    store.finish(job, "finished", event=result)


def record(store: Store, id: str, folder: Path = EXAMPLE) -> None:
    """Make a finished run of a workspace the example that is shipped."""
    job = store.job(id)
    folder.mkdir(parents=True, exist_ok=True)
    for file in job.folder.iterdir():
        shutil.copyfile(file, folder / file.name)
    lines = [to_json(event) for _, event in store.events(id)]
    (folder / "events.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def is_example(job: Job) -> bool:
    return job.batch == BATCH
