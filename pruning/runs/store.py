"""The job store: runs and studies, their states and their events, in one SQLite file. No torch.

A worker writes under a lease, (owner, attempt), and each of its writes asks whether the lease still holds: a worker that
was given up for dead and comes back can change nothing. Everybody may give up on an owner that died.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sqlite3
import time
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pruning import events as _events
from pruning.errors import Lost, RunError
from pruning.events import Event, Failed, Halted
from pruning.runs import process_id as _owner
from pruning.runs.cache_keys import complete
from pruning.runs.schema import migrate
from pruning.storage import default_workspace

KINDS = ("run", "study")
LIVE = ("queued", "running")
ENDED = ("finished", "failed", "stopped")
LEASE = 30.0
"""Seconds after its last sign of life at which an owner is given up."""

GONE = "The process that worked on this ended before it was done (the memory may have run out): start it again."
BUSY = 10.0
"""Seconds to wait for other writers."""


@dataclass(frozen=True)
class Job:
    """Work to do, doing or done. Times are unix seconds; folder: what it leaves behind.

    state: queued, running, finished, failed or stopped; attempt: times claimed; owner: who works on it;
    message: why it failed, in one sentence; stopping: somebody asked it to stop; batch: the sweep it belongs to.
    """

    id: str
    kind: str
    spec: dict[str, Any]
    state: str
    attempt: int
    owner: str | None
    submitted: float
    started: float | None
    ended: float | None
    message: str | None
    stopping: bool
    folder: Path
    parent: str | None = None
    batch: str | None = None


class Fenced(Lost):
    """This worker no longer holds the job: somebody gave up on it, or deleted the job."""


class Store:
    """Jobs and events in `<workspace>/runs.sqlite`, for any number of processes and threads at once.

    lease: seconds. Raises RunError, with the way out, when the file cannot be read or written.
    """

    def __init__(self, workspace: Path | None = None, *, lease: float = LEASE) -> None:
        self.workspace = workspace or default_workspace()
        self.file, self.lease = self.workspace / "runs.sqlite", lease
        self._idle: deque[sqlite3.Connection] = deque()
        self._process = os.getpid()
        with _plainly(self.file):
            self.workspace.mkdir(parents=True, exist_ok=True)
        with self._read() as db:
            migrate(db)

    # ---------------------------------------------------------------- for everybody

    def submit(
        self,
        kind: str,
        spec: dict[str, Any],
        *,
        key: str | None = None,
        priority: int = 0,
        parent: str | None = None,
        batch: str | None = None,
    ) -> str:
        """Queue a job; its id. Under the same key, and neither failed nor stopped, it is the job that is there already.

        A study's key is completed with all that its answer depends on (weights, code), so answers stay true across sessions.
        """
        if kind not in KINDS:
            raise RunError(
                f"There is no kind of job called {kind!r}: known are {', '.join(KINDS)}."
            )
        key = complete(spec, key, self.workspace) if kind == "study" else key
        id, text = secrets.token_hex(6), json.dumps(spec, separators=(",", ":"), allow_nan=False)
        with self._write() as db:
            held = db.execute(
                "SELECT * FROM jobs WHERE key = ? AND state IN ('queued', 'running', 'finished')",
                (key,),
            ).fetchone()
            if held is not None and self._worth(held):
                return str(held["id"])
            if held is not None:  # its files are gone: the row alone is no answer
                db.execute("UPDATE jobs SET key = NULL WHERE id = ?", (held["id"],))
            row = (id, kind, text, key, time.time(), priority, parent, batch)
            db.execute(
                "INSERT INTO jobs (id, kind, spec, key, submitted, priority, parent, batch) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )
        return id

    def known(self, spec: dict[str, Any], key: str | None) -> bool:
        """Whether that study waits, works or is done: asking for it would begin nothing."""
        key = complete(spec, key, self.workspace)
        with self._read() as db:
            held = db.execute(
                "SELECT * FROM jobs WHERE key = ? AND state IN ('queued', 'running', 'finished')",
                (key,),
            ).fetchone()
        return held is not None and self._worth(held)

    def job(self, id: str) -> Job:
        """Raises RunError for an id the store does not have."""
        with self._read() as db:
            row = db.execute("SELECT * FROM jobs WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise RunError(
                f"There is no job {id!r} in this workspace: it was deleted, or belongs to another one. Choose one from the list."
            )
        return self._job(row)

    def jobs(
        self,
        kind: str | None = None,
        states: Collection[str] | None = None,
        limit: int = 200,
        batch: str | None = None,
    ) -> list[Job]:
        """Newest first."""
        where, given = ["1"], list[Any]()
        for column, values in (
            ("kind", kind and [kind]),
            ("state", states),
            ("batch", batch and [batch]),
        ):
            if values is not None:
                where.append(f"{column} IN ({', '.join('?' * len(values))})")
                given += values
        with self._read() as db:
            asked = f"SELECT * FROM jobs WHERE {' AND '.join(where)} ORDER BY submitted DESC, rowid DESC LIMIT ?"
            return [self._job(row) for row in db.execute(asked, (*given, limit))]

    def events(self, id: str, after: int = 0) -> list[tuple[int, Event]]:
        """(number, event) of the current attempt, past number `after`, in order. Numbers count from 1."""
        asked = """SELECT number, body FROM events JOIN jobs ON jobs.id = events.job AND jobs.attempt = events.attempt
                   WHERE job = ? AND number > ? ORDER BY number"""
        with self._read() as db:
            return [
                (row["number"], _events.from_json(row["body"]))
                for row in db.execute(asked, (id, after))
            ]

    def stop(self, id: str) -> None:
        """Ask a job to stop: at once when it waits, soon when it runs, nothing when it has ended."""
        now = time.time()
        with self._write() as db:
            row = db.execute(
                "SELECT * FROM jobs WHERE id = ? AND state IN ('queued', 'running')", (id,)
            ).fetchone()
            if row is None:
                return
            db.execute("UPDATE jobs SET stopping = COALESCE(stopping, ?) WHERE id = ?", (now, id))
            if row["state"] == "queued":
                self._end(db, row, "stopped", "Stopped before it began.", Halted(0, 0))

    def delete(self, id: str) -> None:
        """Forget a job, its events and its files. Whoever works on it notices at its next write."""
        with self._write() as db:
            db.execute("DELETE FROM jobs WHERE id = ?", (id,))
        shutil.rmtree(self.folder(id), ignore_errors=True)

    def reap(self, owners: Collection[str] = ()) -> list[Job]:
        """Give up on jobs whose owner is dead, or silent for longer than the lease, or in `owners`. The jobs as they were.

        Runs fail with the sentence of `Lost`; studies, which nobody watches, go back into the queue once.
        """
        with self._read() as db:
            rows = db.execute("SELECT * FROM jobs WHERE state = 'running'").fetchall()
        now = time.time()
        lost = [
            row
            for row in rows
            if row["owner"] in owners or row["lease"] < now or _owner.dead(row["owner"])
        ]
        return [
            job
            for job in map(self._job, lost)
            if self._give_up(job, silent=job.owner not in owners)
        ]

    def give_up(self, job: Job) -> bool:
        """End a running job without its worker, which is fenced off from now on. False: it has ended already."""
        return self._give_up(job, silent=False)

    def waiting(self) -> dict[str, int]:
        """How many jobs could be claimed, by kind; "long": studies of low priority, one at a time. A glance that takes no lock."""
        with self._read() as db:
            return dict(
                db.execute(
                    f"SELECT {_WHAT} AS what, COUNT(*) FROM jobs WHERE {_OPEN} GROUP BY what"
                ).fetchall()
            )

    def fail_waiting(self, message: str) -> None:
        """End every queued job: there is nobody to do them."""
        with self._write() as db:
            for row in db.execute("SELECT * FROM jobs WHERE state = 'queued'").fetchall():
                self._end(db, row, "failed", message, Failed("RunError", message))

    def folder(self, id: str) -> Path:
        """Where a job leaves its files. Ids are hexadecimal, so that a name from outside cannot be a path."""
        if not id or not set(id) <= set("0123456789abcdef"):
            raise RunError(
                f"{id!r} is not the id of a job: ids are hexadecimal, like 5f0c2a9b41de."
            )
        return self.workspace / "jobs" / id

    # ---------------------------------------------------------------- for the worker that holds the job

    def claim(self, owner: str | None = None, kinds: Collection[str] = KINDS) -> Job | None:
        """Take the next job: studies before runs, higher priority first, then first come, first served; "long" ones last, the newest
        first, because that is what somebody looks at. None: nothing waits.
        """
        if not any(self.waiting().get(kind) for kind in kinds):
            return None
        now = time.time()
        asked = f"""SELECT id, {_WHAT} AS what FROM jobs WHERE {_OPEN} AND what IN ({", ".join("?" * len(kinds))})
                    ORDER BY what = 'long', what = 'study' DESC, priority DESC, submitted * (1 - 2 * (what = 'long')), rowid LIMIT 1"""
        with self._write() as db:
            row = db.execute(asked, tuple(kinds)).fetchone()
            if row is None:
                return None
            taken = "UPDATE jobs SET state = 'running', attempt = attempt + 1, owner = ?, lease = ?, started = ? WHERE id = ? RETURNING *"
            return self._job(
                db.execute(
                    taken, (owner or _owner.me(), now + self.lease, now, row["id"])
                ).fetchone()
            )

    def beat(self, job: Job) -> bool:
        """A sign of life: the lease begins anew. Returns whether somebody asked the job to stop. Raises Fenced."""
        with self._write(full=False) as db:
            row = self._held(db, job)
            db.execute("UPDATE jobs SET lease = ? WHERE id = ?", (time.time() + self.lease, job.id))
        return row["stopping"] is not None

    def stopping(self, job: Job) -> bool:
        """Whether somebody asked the job to stop; a glance that takes no lock. Raises Fenced."""
        with self._read() as db:
            return self._held(db, job)["stopping"] is not None

    def append(self, job: Job, event: Event) -> int:
        """Add an event; its number. Raises Fenced."""
        with self._write(full=False) as db:
            return self._append(db, self._held(db, job), event)

    def release(self, job: Job) -> None:
        """Give the job back unharmed: it waits again, for whoever comes next. Raises Fenced."""
        with self._write() as db:
            self._requeue(db, self._held(db, job))

    def finish(
        self, job: Job, state: str, message: str | None = None, event: Event | None = None
    ) -> None:
        """End the job, and say so with a last event in the same breath. Raises Fenced."""
        if state not in ENDED:
            raise RunError(f"A job cannot end as {state!r}: it ends as {', '.join(ENDED)}.")
        with self._write() as db:
            self._end(db, self._held(db, job), state, message, event)

    # ---------------------------------------------------------------- inside

    def _job(self, row: sqlite3.Row) -> Job:
        plain = (
            "id",
            "kind",
            "state",
            "attempt",
            "owner",
            "submitted",
            "started",
            "ended",
            "message",
            "parent",
            "batch",
        )
        kept = {name: row[name] for name in plain}
        return Job(
            **kept,
            spec=json.loads(row["spec"]),
            stopping=row["stopping"] is not None,
            folder=self.workspace / "jobs" / row["id"],
        )

    def _worth(self, row: sqlite3.Row) -> bool:
        """Whether a job under the same key is an answer: it is on its way, or its files are there."""
        result = {"run": "result.json", "study": "study.json"}[row["kind"]]
        return row["state"] in LIVE or (self.folder(row["id"]) / result).exists()

    def _held(self, db: sqlite3.Connection, job: Job) -> sqlite3.Row:
        asked = (
            "SELECT * FROM jobs WHERE id = ? AND state = 'running' AND owner = ? AND attempt = ?"
        )
        row: sqlite3.Row | None = db.execute(asked, (job.id, job.owner, job.attempt)).fetchone()
        if row is None:
            raise Fenced(f"Job {job.id} is no longer this worker's: it was given up or deleted.")
        return row

    def _append(self, db: sqlite3.Connection, row: sqlite3.Row, event: Event) -> int:
        asked = "SELECT COALESCE(MAX(number), 0) + 1 FROM events WHERE job = ? AND attempt = ?"
        number = int(db.execute(asked, (row["id"], row["attempt"])).fetchone()[0])
        body = _events.to_json(event)
        db.execute(
            "INSERT INTO events VALUES (?, ?, ?, ?, ?)",
            (row["id"], row["attempt"], number, time.time(), body),
        )
        return number

    def _end(
        self,
        db: sqlite3.Connection,
        row: sqlite3.Row,
        state: str,
        message: str | None,
        event: Event | None,
    ) -> None:
        if event is not None:
            self._append(db, row, event)
        db.execute(
            "UPDATE jobs SET state = ?, message = ?, ended = ?, lease = NULL WHERE id = ?",
            (state, message, time.time(), row["id"]),
        )

    def _give_up(self, job: Job, *, silent: bool) -> bool:
        """End one job of a lost owner, unless somebody was faster. silent: unless its owner gave a sign of life meanwhile."""
        with self._write() as db:
            asked = "SELECT * FROM jobs WHERE id = ? AND state = 'running' AND owner = ? AND attempt = ?"
            now = db.execute(asked, (job.id, job.owner, job.attempt)).fetchone()
            if now is None or (
                silent and now["lease"] >= time.time() and not _owner.dead(now["owner"])
            ):
                return False
            if now["stopping"] is not None:
                self._end(db, now, "stopped", "Stopped.", self._halted(db, now))
            elif now["kind"] == "study" and now["attempt"] < 2:
                self._requeue(db, now)
            else:
                self._end(db, now, "failed", GONE, Failed("Lost", GONE))
            return True

    def _requeue(self, db: sqlite3.Connection, row: sqlite3.Row) -> None:
        db.execute(
            "UPDATE jobs SET state = 'queued', owner = NULL, lease = NULL, started = NULL WHERE id = ?",
            (row["id"],),
        )

    def _halted(self, db: sqlite3.Connection, row: sqlite3.Row) -> Halted:
        """How far a job came, from its last event that says so."""
        asked = "SELECT body FROM events WHERE job = ? AND attempt = ? ORDER BY number DESC"
        for (body,) in db.execute(asked, (row["id"], row["attempt"])):
            data = json.loads(body)
            if "step" in data:
                return Halted(data["step"], data.get("epoch", 0))
        return Halted(0, 0)

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        """A connection of one's own for a moment: threads of a page share a Store."""
        if os.getpid() != self._process:  # a fork must not use its parent's connections
            self._idle, self._process = deque(), os.getpid()
        with _plainly(self.file):
            try:
                db = self._idle.pop()
            except IndexError:
                db = self._open()
            try:
                yield db
            finally:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                self._idle.append(db)

    @contextmanager
    def _write(self, *, full: bool = True) -> Iterator[sqlite3.Connection]:
        """A transaction that takes the write lock first, so that it waits instead of failing midway.

        full: on the disk when it returns, even if the power goes; else the last moments may be lost, but nothing torn.
        """
        with self._read() as db:
            db.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")

    def _open(self) -> sqlite3.Connection:
        db = sqlite3.connect(self.file, timeout=BUSY, isolation_level=None, check_same_thread=False)
        db.row_factory = sqlite3.Row
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA foreign_keys = ON")
        return db


_WHAT = "CASE WHEN kind = 'study' AND priority < 0 THEN 'long' ELSE kind END"
_LONG = "(kind = 'study' AND priority < 0)"
_OPEN = f"state = 'queued' AND NOT ({_LONG} AND EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND {_LONG}))"
"""Jobs that may be claimed: of the long studies none while one is worked on, so that runs find a free worker."""


@contextmanager
def _plainly(file: Path) -> Iterator[None]:
    """What SQLite and the disk say, in words people can act on."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        said = str(error)
        if "full" in said or "No space" in said:
            raise RunError(
                f"The disk is full: {file.parent} could not be written. Free some space and try again."
            ) from error
        if "not a database" in said or "malformed" in said:
            raise RunError(
                f"{file} is damaged ({said}): move it aside, and the workbench begins a new one."
            ) from error
        if "locked" in said or "busy" in said:
            raise RunError(
                f"{file} has been locked for {BUSY:.0f} s: close other programs that have it open."
            ) from error
        raise RunError(
            f"{file} cannot be used ({said}): check that its folder exists and may be written."
        ) from error
