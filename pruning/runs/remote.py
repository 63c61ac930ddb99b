"""What a worker of a Dask cluster does for a workbench that asks it: run, and answer. No torch.

It has a workspace of its own, in the folder that Dask gives it: what comes with a parcel is put in
there, the run is worked on as any worker does, and its store and folder are what the workbench is
told of. Nothing here knows the other workspace, and what happens here counts only once it stands
there.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pruning.events import Halted
from pruning.runs import cache_keys, checkpoint_files, worker
from pruning.runs.parcels import Parcel, here
from pruning.runs.store import ENDED, Recorded, Store
from pruning.storage import source_hash, whole

PROTOCOL = 1
"""Raised when what the two sides say to each other changes."""

LOOK = 0.1
"""Seconds between looks at whether there is news."""

LONGEST_WAIT = 5.0
"""Seconds after which there is an answer though there is none."""

ABANDONED = 600.0
"""Seconds without a question after which nobody is thought to wait for the run."""

PIECE = 4 << 20
"""Bytes of a file that go on the way at once."""


@dataclass(frozen=True)
class Greeting:
    """What a worker is. source: hash of its workbench; warm: it has imported what runs need."""

    protocol: int
    source: str
    warm: bool


@dataclass(frozen=True)
class News:
    """Of a run that is worked on here, since the workbench last asked.

    files: name -> size and time, of those that are whole; records: past the number asked for.
    """

    state: str
    message: str | None
    files: dict[str, tuple[int, int]]
    records: list[Recorded]


@dataclass
class Desk:
    """This process's own. attempts: the newest at each run that it ever had; kept: runs whose files
    are still here; asked: when it was last asked for any, in monotonic seconds.
    """

    workspace: Path
    store: Store
    attempts: dict[str, int] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    asked: float = field(default_factory=time.monotonic)
    warm: bool = False
    lock: threading.Lock = field(default_factory=threading.Lock)


_desks: list[Desk] = []
"""One, once the process was greeted."""


@dataclass
class _Unasked(worker.Shutdown):
    """This process ends work that nobody asks for any more, and all when Dask closes it."""

    closing: Any = None

    def due(self) -> bool:
        abandoned = time.monotonic() - _desks[0].asked > ABANDONED
        return abandoned or bool(self.closing and self.closing())


# ---------------------------------------------------------------- answers to the workbench


async def greet(dask_worker: Any) -> Greeting:
    """Say what this is; the first time it begins to warm up, which takes seconds."""
    if not _desks:
        folder = Path(dask_worker.local_directory).resolve() / f"pruning-{os.getpid()}"
        # All that looks for a workspace in this process finds this one.
        os.environ["PRUNING_HOME"] = str(folder)
        _desks.append(Desk(folder, Store(folder)))
        threading.Thread(target=_warm_up, args=_desks, daemon=True, name="warm-up").start()
    return Greeting(PROTOCOL, source_hash(), _desks[0].warm)


async def put(digest: str, offset: int, piece: bytes) -> None:
    """Take in a part of a file."""
    await asyncio.to_thread(_put, _desks[0].workspace / "contents" / digest, offset, piece)


async def listen(id: str, attempt: int, known: dict[str, Any], wait: float) -> News | None:
    """News of a run, as soon as there is some; None where that attempt has not begun here.

    known: as `_news` takes it; wait: seconds before which there is no answer.
    """
    desk = _desks[0]
    desk.asked = time.monotonic()
    until = time.monotonic() + LONGEST_WAIT
    await asyncio.sleep(wait)
    while True:
        news = await asyncio.to_thread(_news, desk, id, attempt, **known)
        if (news is not None and _is_new(news, **known)) or time.monotonic() > until:
            desk.asked = time.monotonic()
            return news
        await asyncio.sleep(LOOK)


async def fetch(id: str, name: str, offset: int) -> bytes | None:
    """A part of a file, up to PIECE bytes; None where it is not there any more."""
    _desks[0].asked = time.monotonic()
    return await asyncio.to_thread(_part, _desks[0].store.folder(id) / name, offset)


async def stop(id: str, attempt: int) -> None:
    """Somebody asked the run to stop."""
    if _desks and _desks[0].attempts.get(id) == attempt:
        await asyncio.to_thread(_desks[0].store.stop, id)


async def forget(keep: Sequence[tuple[str, int]]) -> None:
    """End whatever is worked on here but these attempts, and delete it."""
    if _desks:
        await asyncio.to_thread(_forget, _desks[0], set(keep))


# ---------------------------------------------------------------- the work itself


def work(parcel: Parcel) -> None:
    """Unpack, and do the run. A task of Dask's: what comes of it is asked for by `listen`."""
    desk = _desks[0]
    job = here(parcel.job, desk.workspace)
    with desk.lock:
        if desk.attempts.get(job.id, 0) >= job.attempt:
            return  # the scheduler gave it twice
        desk.attempts[job.id] = job.attempt
        desk.kept.add(job.id)
    _unpack(desk, parcel)
    for result in parcel.results:
        desk.store.receive(here(result, desk.workspace))
    job = desk.store.receive(job, parcel.attempt, parcel.records)
    worker.attend(desk.store, job, _Unasked(closing=_closing()))


def _closing() -> Any:
    """Asks whether Dask is about to end this process."""
    from distributed import get_worker
    from distributed.core import Status

    this = get_worker()
    return lambda: this.status not in (Status.running, Status.paused)


def _unpack(desk: Desk, parcel: Parcel) -> None:
    folder = desk.store.folder(parcel.job.id)
    shutil.rmtree(folder, ignore_errors=True)  # of an earlier attempt, of which others know more
    for place, digest in parcel.files.items():
        content = desk.workspace / "contents" / digest
        kind, _, rest = place.partition("/")
        if kind == "hub":
            target = cache_keys.hub() / rest
        else:
            target = desk.workspace / place
        if kind == "data":
            os.environ["PRUNING_DATA"] = str(desk.workspace / "data")
        if target.exists() and kind != "jobs":
            continue
        # Its own checkpoint is of this attempt alone; everything else may be wanted again.
        with whole(target) as draft:
            if target.parent == folder:
                content.replace(draft)
            else:
                _link(content, draft)


def _link(content: Path, draft: Path) -> None:
    try:
        os.link(content, draft)
    except OSError:  # on another disk
        shutil.copyfile(content, draft)


# ---------------------------------------------------------------- inside


def _warm_up(desk: Desk) -> None:
    from pruning.runs import handlers

    try:
        handlers.warm_up(train=True)
    finally:  # what went wrong here goes wrong in the first run too, which tells
        desk.warm = True


def _put(file: Path, offset: int, piece: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("r+b" if offset else "wb") as content:
        content.seek(offset)
        content.write(piece)


def _news(
    desk: Desk, id: str, attempt: int, after: int, files: dict[str, tuple[int, int]]
) -> News | None:
    """after: number of the last event that is known; files: what is known of them."""
    if desk.attempts.get(id) != attempt:
        return None
    with suppress(Exception):  # it is not unpacked yet
        job = desk.store.job(id)
        # In this order: whoever reads that it has ended has all of it, and whoever has a
        # checkpoint has the events behind it.
        there = _files(job.folder)
        return News(job.state, job.message, there, desk.store.recorded(id, after))
    return None


def _is_new(news: News, after: int, files: dict[str, tuple[int, int]]) -> bool:
    return news.state != "running" or bool(news.records) or news.files != files


def _files(folder: Path) -> dict[str, tuple[int, int]]:
    """Those that are whole; of checkpoints the newest alone."""
    names = [file for file in sorted(folder.glob("*")) if not file.name.startswith(".")]
    older = checkpoint_files.oldest_first(folder)[:-1]
    there = {}
    for file in names:
        with suppress(OSError):  # an old checkpoint
            if file not in older and file.is_file():
                state = file.stat()
                there[file.name] = (state.st_size, state.st_mtime_ns)
    return there


def _part(file: Path, offset: int) -> bytes | None:
    try:
        with file.open("rb") as content:
            content.seek(offset)
            return content.read(PIECE)
    except OSError:
        return None


def _forget(desk: Desk, keep: set[tuple[str, int]]) -> None:
    for id in list(desk.kept):
        if (id, desk.attempts[id]) in keep:
            continue
        desk.kept.discard(id)
        with suppress(Exception):  # it was not unpacked yet
            job = desk.store.job(id)
            if job.state not in ENDED:
                # Whoever works on it notices at its next look, and ends.
                desk.store.end(job, "stopped", "Another attempt at this run counts.", Halted(0, 0))
            shutil.rmtree(job.folder, ignore_errors=True)
