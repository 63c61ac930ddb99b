"""The job store: runs and studies, their states and their events, in one SQLite file. No torch.

A worker writes under a lease, (owner, attempt), and each of its writes checks the lease: a worker
whose job was given up, and that comes back, can change nothing (fencing). Anybody may give up on
an owner that died.
"""

from __future__ import annotations

import json
import secrets
import shutil
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from itertools import count, groupby
from pathlib import Path
from typing import Any, NamedTuple

from pruning import events as _events
from pruning.errors import Damaged, Lost, OutOfRange, RunError
from pruning.events import Epoch, Event, Failed, Halted, Pruned
from pruning.recipe import Recipe
from pruning.runs import database, process_id
from pruning.runs.cache_keys import complete
from pruning.runs.database import Database
from pruning.runs.schema import check_version, migrate
from pruning.storage import default_workspace, private_folder, whole

FILE = "runs.sqlite"
KINDS = ("run", "study")
LIVE = ("queued", "running")
ENDED = ("finished", "failed", "stopped", "diverged")
FAILED = ("failed", "diverged")
"""Ended without a result: what went wrong, and a training whose loss was no finite number."""

STATE_WORDS = {"finished": "done", "stopped": "cancelled"}
"""States as people are told them, where the store's own word is another."""

CHECKPOINTS = "*.checkpoint"
"""Files in a run's folder that it goes on from."""

RESUMES = 2
"""Times that a run goes on after its process has died: what ends each that takes it must end."""

LEASE = 30.0
"""Seconds after its last renewal at which an owner is given up."""

UNWATCHED = "Nobody looked at this any more, so it made way for other work."

MOMENT = 10.0
"""Seconds within which equal runs that are asked for are one: a press that was repeated because
nothing seemed to happen, or made in two tabs.
"""

# Of each of these, what comes before the colon says why.
PROCESS_ENDED = "The process that worked on this ended before it was done: start it again."
SILENT = (
    "The process that worked on this was suspended, or its machine was: nothing was heard of it "
    "for {lease:.0f} s, so it was given up. Start it again."
)
NO_MORE_TRIES = " It had been resumed twice before, so the run ends here."
DAMAGED = (
    "The record of {id} in {file} is damaged ({reason}), so it is not shown: delete it, and start "
    "it again if you need it."
)
KEPT = 7 * 24 * 3600.0
"""Seconds for which a deleted run can be restored: then its files are removed."""

LONGEST_LABEL = 80
LONGEST_TAG = 30
MOST_TAGS = 12
LONGEST_NOTE = 4_000
"""Characters of a name, a tag and a note that people give to a run, and tags of one."""

SWEEP = -1
"""Priority of a sweep's runs, after what people wait for."""

PARKED = -1000
"""Priority of runs that only paused sweeps want: nobody takes them. Kept in the row, because idle
workers look at the queue many times a second, and must not join tables for it."""

# SQL. The queue a job stands in: studies of low priority are long, and stand in one of their own.
_IS_LONG = "(kind = 'study' AND priority < 0)"
_QUEUE = f"CASE WHEN {_IS_LONG} THEN 'long' ELSE kind END"
# Of the long studies none while one is worked on, so that runs find a free worker.
_LONG_RUNS = f"EXISTS (SELECT 1 FROM jobs WHERE state = 'running' AND {_IS_LONG})"
_ORDER = (
    "queue = 'long', queue = 'study' DESC, priority DESC, "
    "submitted * (1 - 2 * (queue = 'long')), jobs.rowid"
)
# Runs take turns between people, those of one priority: who has fewest at work, then who waited
# longest since one of theirs was begun. Who asked for many does not stand before who asks for one.
_PEOPLE = (
    "WITH people AS (SELECT visitor AS person, SUM(state = 'running') AS busy, "
    "MAX(started) AS served FROM jobs WHERE kind = 'run' GROUP BY visitor) "
)
_PERSON = "LEFT JOIN people ON kind = 'run' AND person IS visitor"
_WHO_WAITS = "SELECT DISTINCT visitor FROM jobs WHERE state = 'queued' AND kind = 'run' LIMIT 2"
_FAIR_ORDER = _ORDER.replace("submitted", "COALESCE(busy, 0), COALESCE(served, 0), submitted", 1)
# Live runs of a sweep (?) that no person wants; whether a sweep other than it (?), in one of two
# states (?, ?), wants them.
_OWN_RUNS = (
    "state IN ('queued', 'running') AND priority < 0 "
    "AND id IN (SELECT job FROM sweep_runs WHERE sweep = ?)"
)
_WANTED = (
    "EXISTS (SELECT 1 FROM sweep_runs JOIN sweeps ON sweeps.id = sweep "
    "WHERE job = jobs.id AND sweep <> ? AND sweeps.state IN (?, ?))"
)
_LINKED = (
    "SELECT jobs.* FROM sweep_runs JOIN jobs ON jobs.id = job "
    "WHERE sweep = ? AND deleted IS NULL ORDER BY submitted, jobs.rowid"
)
_ANSWERS = (
    "SELECT id, kind, spec, state FROM jobs WHERE kind = 'run' AND deleted IS NULL "
    "AND state IN ('queued', 'running', 'finished') ORDER BY submitted DESC, rowid DESC"
)
_CLAIMABLE = f"state = 'queued' AND priority > {PARKED} AND NOT ({_IS_LONG} AND {_LONG_RUNS})"


@dataclass(frozen=True)
class Job:
    """Work to do, doing or done. Times are unix seconds; folder: where its files lie.

    state: queued, running, finished, failed, stopped or diverged; attempt: times claimed; owner:
    who works on it; message: why it failed, in one sentence, or why its last attempt ended, where
    it goes on; stopping: somebody asked it to stop; batch: the set it belongs to; resumed: times
    that it went on after its process had died; visitor: who asked for it, None for nobody known.

    deleted: when it was deleted, None where it was not; label, tags, note: what people call it;
    priority: higher first, SWEEP of a sweep's runs that no person asked for, PARKED of paused ones.
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
    batch: str | None = None
    resumed: int = 0
    deleted: float | None = None
    label: str | None = None
    tags: tuple[str, ...] = ()
    note: str | None = None
    priority: int = 0
    visitor: str | None = None


_JOB_COLUMNS = {field.name for field in fields(Job)} - {"spec", "stopping", "folder", "tags"}


@dataclass(frozen=True)
class Sweep:
    """Runs that are asked for as one.

    plan: plain data, as `pruning.sweeps.plan` reads it; state: active, paused or cancelled;
    created: unix seconds; visitor: who asked for it; label: the name it was given.
    """

    id: str
    plan: dict[str, Any]
    state: str
    created: float
    visitor: str | None
    label: str | None


class Recorded(NamedTuple):
    """An event as the store has it. at: unix seconds; body: JSON."""

    number: int
    at: float
    body: str


class Unreadable(RunError):
    """A row of the store that says nothing sensible: damaged, or written by something else."""


class Fenced(Lost):
    """This worker no longer owns the job: somebody gave up on it, or deleted the job."""


class Store:
    """Jobs and events in `<workspace>/runs.sqlite`, for many processes and threads at once.

    workspace: by default that of `storage.default_workspace`; lease: seconds. Raises StoreError,
    with the way out, when the file cannot be read.

    damaged: id -> why its row cannot be read, as far as such rows were met; everything else goes on
    without them.
    """

    def __init__(self, workspace: Path | None = None, *, lease: float = LEASE) -> None:
        self.workspace = workspace or default_workspace()
        self.file = self.workspace / FILE
        self.lease = lease
        self.damaged: dict[str, str] = {}
        with database.readable_errors(self.file):
            private_folder(self.workspace, self.file)
            self.database = Database(self.file)
            if _is_emptied(self.workspace):
                raise Damaged(f"{self.file} is damaged (it is empty): {database.SET_IT_ASIDE}")
        with self.database.read() as db:
            migrate(db)

    @property
    def writable(self) -> bool:
        """Whether it can be written too, and not only read."""
        return self.database.writable

    # ---------------------------------------------------------------- for everybody

    def submit(
        self,
        kind: str,
        spec: dict[str, Any],
        *,
        key: str | None = None,
        priority: int = 0,
        batch: str | None = None,
        within: float = 0.0,
        visitor: str | None = None,
    ) -> str:
        """Queue a job; its id. Where a job of the same key is live or finished, the id of that one.

        within: seconds; where the same visitor submitted one of an equal spec no longer ago, and it
        has not ended, the id of that one. The lock that writers take settles a race of two.

        A study's key is completed with all that its answer depends on (weights, code), so answers
        stay true across sessions. Raises RunError for an unknown kind.
        """
        if kind not in KINDS:
            known = ", ".join(KINDS)
            raise RunError(f"There is no kind of job called {kind!r}: known are {known}.")
        if kind == "study":
            key = complete(spec, key, self.workspace)
        id = secrets.token_hex(6)
        text = _text(spec)
        with self.database.write() as db:
            same = _same_key(db, key)
            if same is not None and self._answers(same):
                # A sweep's run that a person asks for now.
                if kind == "run" and same["priority"] < priority:
                    db.execute("UPDATE jobs SET priority = ? WHERE id = ?", (priority, same["id"]))
                return str(same["id"])
            if same is not None:
                # Its files were deleted: the row alone is no answer, and must free the key.
                db.execute("UPDATE jobs SET key = NULL WHERE id = ?", (same["id"],))
            now = time.time()
            for row in _submitted_since(db, kind, now - within, visitor) if within else ():
                if row["batch"] is None and _in_progress(row) and row["spec"] == text:
                    return str(row["id"])
            _insert(db, id, kind, text, key, now, priority, batch, visitor)
        # Deleted in that very moment: the row is in a file that nobody will ever read.
        self.database.check()
        return id

    def submit_set(
        self,
        specs: Sequence[dict[str, Any]],
        *,
        within: float = 0.0,
        visitor: str | None = None,
    ) -> str:
        """Queue runs that belong together, all of them or none; the set's id.

        within: as for `submit`, where a set of equal specs was submitted.
        """
        batch = secrets.token_hex(5)
        texts = [_text(spec) for spec in specs]
        with self.database.write() as db:
            now = time.time()
            recent: dict[str, list[sqlite3.Row]] = {}
            for row in _submitted_since(db, "run", now - within, visitor) if within else ():
                if row["batch"] is not None:
                    recent.setdefault(row["batch"], []).append(row)
            for earlier, rows in recent.items():
                if [row["spec"] for row in rows] == texts and any(map(_in_progress, rows)):
                    return earlier
            for text in texts:
                _insert(db, secrets.token_hex(6), "run", text, None, now, 0, batch, visitor)
        self.database.check()
        return batch

    def record_study(self, spec: dict[str, Any], key: str | None, files: Sequence[Path]) -> str:
        """A study that was worked out elsewhere, as a finished one; its id.

        files: what a worker would have written, in that order. Where a study of the same key is
        live or finished, the id of that one.
        """
        key = complete(spec, key, self.workspace)
        id = secrets.token_hex(6)
        folder = self.folder(id)
        with self.database.write() as db:
            same = _same_key(db, key)
            if same is not None and self._answers(same):
                return str(same["id"])
            if same is not None:
                db.execute("UPDATE jobs SET key = NULL WHERE id = ?", (same["id"],))
            # The files first: a row that says finished has them. No times: it took none here.
            for file in files:
                with whole(folder / file.name) as draft:
                    shutil.copyfile(file, draft)
            db.execute(
                "INSERT INTO jobs (id, kind, spec, key, state, attempt, submitted) "
                "VALUES (?, 'study', ?, ?, 'finished', 1, ?)",
                (id, _text(spec), key, time.time()),
            )
        return id

    def known(self, spec: dict[str, Any], key: str | None) -> bool:
        """Whether that study waits, runs or is finished: submitting it would begin nothing."""
        key = complete(spec, key, self.workspace)
        with self.database.read() as db:
            same = _same_key(db, key)
        return same is not None and self._answers(same)

    def job(self, id: str) -> Job:
        """Raises RunError for an id the store does not have."""
        with self.database.read() as db:
            row = db.execute("SELECT * FROM jobs WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise RunError(
                f"There is no job {id!r} in this workspace: it was deleted, or belongs to another "
                "one. Choose one from the list."
            )
        return self._read_row(row)

    def jobs(
        self,
        kind: str | None = None,
        states: Collection[str] | None = None,
        limit: int = 200,
        batch: str | None = None,
        visitor: str | None = None,
    ) -> list[Job]:
        """Newest first. visitor: None for those of all."""
        wanted: dict[str, Collection[str] | None] = {
            "kind": [kind] if kind else None,
            "state": states,
            "batch": [batch] if batch else None,
            "visitor": [visitor] if visitor else None,
        }
        conditions = ["deleted IS NULL"]
        values: list[Any] = []
        for column, allowed in wanted.items():
            if allowed is not None:
                conditions.append(f"{column} IN ({_marks(allowed)})")
                values += allowed
        # The row id decides between jobs of one clock tick.
        query = (
            f"SELECT * FROM jobs WHERE {' AND '.join(conditions)} "
            "ORDER BY submitted DESC, rowid DESC LIMIT ?"
        )
        with self.database.read() as db:
            return self._readable(db.execute(query, (*values, limit)))

    def newest(self, state: str) -> tuple[int, float | None]:
        """(how many jobs are in a state, when the last of them ended): whether there are others."""
        query = "SELECT COUNT(*), MAX(ended) FROM jobs WHERE state = ?"
        with self.database.read() as db:
            count, ended = db.execute(query, (state,)).fetchone()
        return int(count), ended

    def jobs_of(self, kind: str, spec: dict[str, Any]) -> list[Job]:
        """The jobs of exactly this spec, newest first."""
        query = (
            "SELECT * FROM jobs WHERE kind = ? AND spec = ? AND deleted IS NULL "
            "ORDER BY submitted DESC, rowid DESC"
        )
        with self.database.read() as db:
            return self._readable(db.execute(query, (kind, _text(spec))))

    def events(
        self, id: str, after: int = 0, attempt: int | None = None
    ) -> list[tuple[int, Event]]:
        """(number, event) of an attempt, past number `after`, in order.

        Numbers count from 1. attempt: None for the current one.
        """
        query = (
            "SELECT number, body FROM events JOIN jobs ON jobs.id = events.job "
            "AND events.attempt = COALESCE(?, jobs.attempt) "
            "WHERE job = ? AND number > ? ORDER BY number"
        )
        with self.database.read() as db:
            rows = db.execute(query, (attempt, id, after)).fetchall()
        events = [(row["number"], self._event(id, row["body"])) for row in rows]
        return [(number, event) for number, event in events if event is not None]

    def last(self, id: str, kind: type[Event]) -> Event | None:
        """The newest event of a kind in the current attempt; None where there is none yet."""
        query = (
            "SELECT body FROM events JOIN jobs "
            "ON jobs.id = events.job AND jobs.attempt = events.attempt "
            "WHERE job = ? AND body LIKE ? ORDER BY number DESC LIMIT 1"
        )
        # The kind comes first in the JSON of every event, so that only one is read.
        first = f'{{"event":"{kind.__name__.lower()}"%'
        with self.database.read() as db:
            row = db.execute(query, (id, first)).fetchone()
        return self._event(id, row["body"]) if row else None

    def stop(self, id: str) -> None:
        """Ask a job to stop: at once when it waits, soon when it runs, never when it has ended."""
        with self.database.write() as db:
            row = db.execute(
                "SELECT * FROM jobs WHERE id = ? AND state IN ('queued', 'running')", (id,)
            ).fetchone()
            if row is None:
                return
            _stop(db, row)
        self._delete_checkpoints(id)

    def delete(self, id: str) -> None:
        """Forget a job, its events and its files. Its worker notices at its next write."""
        with self.database.write() as db:
            db.execute("DELETE FROM jobs WHERE id = ?", (id,))
        self.damaged.pop(id, None)
        # Last: a worker that still writes is fenced off by then.
        shutil.rmtree(self.folder(id), ignore_errors=True)

    # ---------------------------------------------------------------- names, and deleting with undo

    def label(self, id: str, label: str) -> None:
        """Call a job by a name; "": by none. Raises OutOfRange for one that is too long."""
        self._set(id, label=_text_of("a run's name", label, LONGEST_LABEL) or None)

    def tag(self, id: str, tags: Iterable[str]) -> None:
        """Replace a job's tags. Raises OutOfRange for too many, or one that is too long."""
        wanted = [_text_of("a tag", tag, LONGEST_TAG) for tag in tags]
        unique = list(dict.fromkeys(filter(None, wanted)))
        if len(unique) > MOST_TAGS:
            raise OutOfRange("The number of a run's tags", len(unique), f"at most {MOST_TAGS}")
        self._set(id, tags=json.dumps(unique))

    def note(self, id: str, note: str) -> None:
        """Replace what is noted of a job. Raises OutOfRange for too much."""
        self._set(id, note=_text_of("a run's note", note, LONGEST_NOTE, lines=True) or None)

    def trash(self, id: str) -> None:
        """Delete a job, to be restored within KEPT seconds; one that waits or works is stopped.

        No list has it from now on, and an equal run begins anew; what was started from its result
        can go on. Raises RunError for an id the store does not have.
        """
        self.job(id)
        with self.database.write() as db:
            now = time.time()
            row = db.execute(
                "UPDATE jobs SET deleted = COALESCE(deleted, ?), key = NULL WHERE id = ? "
                "RETURNING *",
                (now, id),
            ).fetchone()
            if row is not None and row["state"] in LIVE:
                db.execute(
                    "UPDATE jobs SET stopping = COALESCE(stopping, ?) WHERE id = ?", (now, id)
                )
            if row is not None and row["state"] == "queued":
                _end(db, row, "stopped", "Stopped before it began.", Halted(0, 0))
        self._delete_checkpoints(id)

    def visitor_of(self, id: str) -> str | None:
        """Who asked for a job, also where its row cannot be read; None for nobody in particular.

        Raises RunError for an id the store does not have.
        """
        with self.database.read() as db:
            row = db.execute("SELECT visitor FROM jobs WHERE id = ?", (id,)).fetchone()
        if row is None:
            self.job(id)
        return None if row is None or row["visitor"] is None else str(row["visitor"])

    def restore(self, id: str) -> None:
        """Undo `trash`. Raises RunError where it was too long ago."""
        self.job(id)
        self._set(id, deleted=None)

    def trashed(self, limit: int = 200) -> list[Job]:
        """Deleted runs that can be restored, the last deleted first."""
        query = "SELECT * FROM jobs WHERE deleted IS NOT NULL ORDER BY deleted DESC LIMIT ?"
        with self.database.read() as db:
            return self._readable(db.execute(query, (limit,)))

    def sweep_trash(self, kept: float = KEPT) -> list[str]:
        """Remove what was deleted longer than `kept` seconds ago, with its files; the ids.

        Not what waits or works still, or what such a run starts from.
        """
        before = time.time() - kept
        with self.database.read() as db:
            rows = db.execute("SELECT id, state FROM jobs WHERE deleted < ?", (before,)).fetchall()
            live = db.execute("SELECT spec FROM jobs WHERE state IN ('queued', 'running')")
            wanted = "\n".join(row["spec"] for row in live) if rows else ""
        # An id is 12 hexadecimal digits: where a live spec names it, its files are needed.
        ids = [row["id"] for row in rows if row["state"] in ENDED and row["id"] not in wanted]
        for id in ids:
            self.delete(id)
        return ids

    def _set(self, id: str, **columns: str | float | None) -> None:
        """Raises RunError for an id the store does not have."""
        self.job(id)
        names = ", ".join(f"{name} = ?" for name in columns)
        with self.database.write() as db:
            db.execute(f"UPDATE jobs SET {names} WHERE id = ?", (*columns.values(), id))

    # ---------------------------------------------------------------- the state of the queue

    def reap(self, leave: Callable[[Job], bool] = lambda job: False) -> list[Job]:
        """Give up on jobs whose owner is dead, or silent for longer than the lease.

        leave: whether somebody else knows more of how a job's owner ended, and sees to it. Returns
        the jobs as they were. What becomes of them: see `give_up`.
        """
        with self.database.read() as db:
            rows = db.execute("SELECT * FROM jobs WHERE state = 'running'").fetchall()
        lost = []
        for row in rows:
            try:
                job = self._job(row)
            except Unreadable as error:
                self._fail_damaged(row, str(error))
                continue
            if leave(job) or not _is_lost(row):
                continue
            if self._give_up(job, _why_lost(row, self.lease), lost_only=True):
                lost.append(job)
        return lost

    def give_up(self, job: Job, message: str = PROCESS_ENDED) -> bool:
        """Take a running job from its worker, which is fenced off from now on.

        A run goes back into the queue, to go on from its last checkpoint, RESUMES times; a study
        once; then they fail. message: why; False: it has ended already.
        """
        return self._give_up(job, message, lost_only=False)

    def end(self, job: Job, state: str, message: str, event: Event) -> bool:
        """End a waiting or working job from outside; whoever works on it is fenced off.

        False: it has ended, or begun anew, meanwhile.
        """
        query = "SELECT * FROM jobs WHERE id = ? AND state = ? AND attempt = ?"
        with self.database.write() as db:
            row = db.execute(query, (job.id, job.state, job.attempt)).fetchone()
            if row is not None:
                _end(db, row, state, message, event)
        self._delete_checkpoints(job.id)
        return row is not None

    def mark_watched(self, id: str) -> None:
        """Somebody looks at this study: it need not make way for what waits."""
        folder = self.folder(id)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "watched").touch()

    def watched(self, job: Job) -> float:
        """When somebody last looked at a study, or requested it; unix seconds."""
        last = max(job.submitted, job.started or 0.0)
        with suppress(OSError):
            last = max(last, (job.folder / "watched").stat().st_mtime)
        return last

    def stop_studies(self) -> None:
        """Stop all that waits or works for a page: there is no page any more."""
        for job in self.jobs("study", LIVE):
            if not job.stopping:
                self.stop(job.id)

    def has_reached(self, job: Job) -> bool:
        """Whether a Stop has something to keep: the first whole epoch of a run that trains, or its
        first step. Studies keep nothing that is not in their cache already.
        """
        if job.kind == "study":
            return False
        trains = job.spec.get("epochs", Recipe().epochs) != 0
        return self.last(job.id, Epoch if trains else Pruned) is not None

    def halted(self, job: Job) -> Halted:
        """The step and epoch that a job has reached."""
        with self.database.read() as db:
            return _halted(db, _owned(db, job))

    def check(self) -> None:
        """Raises StoreError where the store cannot be read, or a newer workbench has been at it."""
        with self.database.read() as db:
            check_version(db)
            db.execute("SELECT 1 FROM jobs LIMIT 1").fetchone()

    def check_writable(self) -> None:
        """Write something that changes nothing. Raises DiskFull, StoreError where that fails."""
        with self.database.write() as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            db.execute(f"PRAGMA user_version = {version}")

    def waiting(self) -> dict[str, int]:
        """How many jobs could be claimed, by queue: run, study or long. Takes no lock."""
        query = f"SELECT {_QUEUE} AS queue, COUNT(*) FROM jobs WHERE {_CLAIMABLE} GROUP BY queue"
        with self.database.read() as db:
            return dict(db.execute(query).fetchall())

    def ahead(self, id: str) -> tuple[str, list[Job]]:
        """The queue that a waiting job stands in, and the jobs of its workers that come before it:
        those that work, then those that wait, in the order that `claim` takes them. Takes no lock.

        Studies wait for studies alone, since one worker takes nothing else; runs and long studies
        share the others.
        """
        query = (
            f"{_PEOPLE} SELECT jobs.*, {_QUEUE} AS queue, COALESCE(busy, 0) AS busy, "
            f"COALESCE(served, 0) AS served FROM jobs {_PERSON} "
            f"WHERE state IN ('queued', 'running') ORDER BY state = 'running' DESC, {_ORDER}"
        )
        with self.database.read() as db:
            rows = _in_turns(db.execute(query).fetchall())
        ids = [row["id"] for row in rows]
        if id not in ids:  # it has ended meanwhile
            return "", []
        own = rows[ids.index(id)]["queue"]
        before = rows[: ids.index(id)]
        shared = [row for row in before if (row["queue"] == "study") is (own == "study")]
        return own, self._readable(shared)

    def any_waiting(self, queues: Collection[str]) -> bool:
        """Whether a job of these queues could be claimed. Takes no lock."""
        return not set(queues).isdisjoint(self.waiting())

    def fail_waiting(self, message: str, kinds: Collection[str] = KINDS) -> None:
        """End every queued job of these kinds: there is nobody to do them."""
        query = (
            f"SELECT * FROM jobs WHERE state = 'queued' AND priority <> {PARKED} "
            f"AND kind IN ({_marks(kinds)})"
        )
        with self.database.write() as db:
            waiting = db.execute(query, tuple(kinds)).fetchall()
            for row in waiting:
                _end(db, row, "failed", message, Failed("RunError", message))
        for row in waiting:
            self._delete_checkpoints(row["id"])

    def folder(self, id: str) -> Path:
        """Where a job's files lie. Raises RunError for what is no id."""
        # Ids are hexadecimal, so that a name from outside cannot be a path.
        if not id or not set(id) <= set("0123456789abcdef"):
            raise RunError(
                f"{id!r} is not the id of a job: ids are hexadecimal, like 5f0c2a9b41de."
            )
        return self.workspace / "jobs" / id

    # ---------------------------------------------------------------- sweeps

    def begin_sweep(
        self,
        plan: dict[str, Any],
        runs: Mapping[str, dict[str, Any]],
        *,
        visitor: str | None = None,
        label: str | None = None,
        anew: bool = False,
    ) -> str:
        """Queue a sweep's runs, each once, all of them or none; the sweep's id.

        runs: key -> spec, in the order that they are wanted. A run of an equal spec that waits,
        works or is finished is the sweep's too, whoever asked for it. A sweep of an equal plan that
        the visitor has goes on instead, with what is missing; anew: begin another in any case.
        """
        text = json.dumps(plan, sort_keys=True, separators=(",", ":"))
        query = (
            "SELECT id, state FROM sweeps WHERE plan = ? AND visitor IS ? "
            "ORDER BY created DESC LIMIT 1"
        )
        with self.database.write() as db:
            row = None if anew else db.execute(query, (text, visitor)).fetchone()
            id = str(row["id"]) if row else secrets.token_hex(6)
            if row is None:
                db.execute(
                    "INSERT INTO sweeps (id, plan, created, visitor, label) VALUES (?, ?, ?, ?, ?)",
                    (id, text, time.time(), visitor, label),
                )
            else:
                db.execute("UPDATE sweeps SET state = 'active' WHERE id = ?", (id,))
            # A cancelled one asked for anew: what its cancelling stopped is wanted again.
            again = ("stopped",) if row and row["state"] == "cancelled" else ()
            self._queue_for(db, id, runs, visitor, again)
        self.database.check()
        return id

    def extend_sweep(
        self,
        id: str,
        runs: Mapping[str, dict[str, Any]],
        *,
        plan: dict[str, Any] | None = None,
        again: Collection[str] = (),
        wake: bool = True,
    ) -> bool:
        """Queue what the sweep has no run of, and let it go on; whether that was done.

        plan: what it is from now on; again: states of runs that are replaced by new ones, in every
        sweep that has them; wake: also where it is paused or cancelled, which else changes nothing.
        Raises RunError for an id the store does not have.
        """
        visitor = self.sweep(id).visitor
        with self.database.write() as db:
            # Looked at under the lock: somebody may pause it while its next runs are thought out.
            state = db.execute("SELECT state FROM sweeps WHERE id = ?", (id,)).fetchone()
            if not wake and (state is None or state["state"] != "active"):
                return False
            if plan is not None:
                text = json.dumps(plan, sort_keys=True, separators=(",", ":"))
                db.execute("UPDATE sweeps SET plan = ? WHERE id = ?", (text, id))
            db.execute("UPDATE sweeps SET state = 'active' WHERE id = ?", (id,))
            self._queue_for(db, id, runs, visitor, again)
        self.database.check()
        return True

    def pause_sweep(self, id: str) -> None:
        """Let nobody take its waiting runs, but for those that others want; what runs, runs on."""
        with self.database.write() as db:
            db.execute("UPDATE sweeps SET state = 'paused' WHERE id = ?", (id,))
            # Of running ones too: one that has to be begun anew waits like the others.
            db.execute(
                f"UPDATE jobs SET priority = {PARKED} WHERE {_OWN_RUNS} AND NOT {_WANTED}",
                (id, id, "active", "active"),
            )

    def cancel_sweep(self, id: str) -> None:
        """Stop its runs, but for those that a person or another sweep wants, paused or not."""
        with self.database.write() as db:
            db.execute("UPDATE sweeps SET state = 'cancelled' WHERE id = ?", (id,))
            unwanted = db.execute(
                f"SELECT * FROM jobs WHERE {_OWN_RUNS} AND NOT {_WANTED}",
                (id, id, "active", "paused"),
            ).fetchall()
            for row in unwanted:
                _stop(db, row)
            # What only paused sweeps still want waits for them.
            db.execute(
                f"UPDATE jobs SET priority = {PARKED} WHERE {_OWN_RUNS} AND NOT {_WANTED}",
                (id, id, "active", "active"),
            )
        for row in unwanted:
            self._delete_checkpoints(row["id"])

    def want(self, id: str) -> None:
        """A person wants this run now: it waits among people's, and no sweep's pause holds it."""
        with self.database.write() as db:
            db.execute("UPDATE jobs SET priority = 0 WHERE id = ? AND priority < 0", (id,))

    def sweep(self, id: str) -> Sweep:
        """Raises RunError for an id the store does not have."""
        with self.database.read() as db:
            row = db.execute("SELECT * FROM sweeps WHERE id = ?", (id,)).fetchone()
        if row is None:
            raise RunError(
                f"There is no sweep {id!r} in this workspace: it was deleted, or belongs to "
                "another one. Choose one from the list."
            )
        return _sweep(row)

    def sweeps(self, limit: int = 200) -> list[Sweep]:
        """Newest first."""
        query = "SELECT * FROM sweeps ORDER BY created DESC, rowid DESC LIMIT ?"
        with self.database.read() as db:
            return [_sweep(row) for row in db.execute(query, (limit,))]

    def runs_of_sweep(self, id: str) -> list[Job]:
        """Its runs, in the order they were submitted."""
        with self.database.read() as db:
            return self._readable(db.execute(_LINKED, (id,)))

    def sweeps_of_run(self, id: str) -> list[str]:
        """The sweeps that a run is part of."""
        with self.database.read() as db:
            rows = db.execute("SELECT sweep FROM sweep_runs WHERE job = ?", (id,))
            return [row["sweep"] for row in rows]

    def _queue_for(
        self,
        db: sqlite3.Connection,
        sweep: str,
        runs: Mapping[str, dict[str, Any]],
        visitor: str | None,
        again: Collection[str],
    ) -> None:
        """Link the sweep with a run of each spec; queue those that there are none of."""
        own = {row["spec"]: row for row in db.execute(_LINKED, (sweep,))}
        answers: dict[str, list[sqlite3.Row]] = {}
        for row in db.execute(_ANSWERS):
            # Files are looked for only where it matters: a store may hold thousands of runs.
            answers.setdefault(row["spec"], []).append(row)
        now = time.time()
        for key, spec in runs.items():
            text = _text(spec)
            linked = own.get(text)
            if linked is not None and self._serves(linked, again):
                continue
            same = next(filter(self._answers, answers.get(text, ())), None)
            if same is None:
                job = secrets.token_hex(6)
                # A row without its files, or one that was deleted, must free the key.
                db.execute("UPDATE jobs SET key = NULL WHERE key = ?", (key,))
                _insert(db, job, "run", text, key, now, SWEEP, None, visitor)
            else:
                job = same["id"]
            if linked is not None:  # the new run takes its place in every sweep
                db.execute(
                    "UPDATE OR IGNORE sweep_runs SET job = ? WHERE job = ?", (job, linked["id"])
                )
                db.execute("DELETE FROM sweep_runs WHERE job = ?", (linked["id"],))
            db.execute("INSERT OR IGNORE INTO sweep_runs VALUES (?, ?)", (sweep, job))
        db.execute(
            f"UPDATE jobs SET priority = {SWEEP} WHERE priority = {PARKED} "
            "AND id IN (SELECT job FROM sweep_runs WHERE sweep = ?)",
            (sweep,),
        )

    def _serves(self, row: sqlite3.Row, again: Collection[str]) -> bool:
        """Whether a sweep's run need not be replaced."""
        if row["state"] == "finished":
            return self._answers(row)
        return row["state"] not in again

    # ---------------------------------------------------------------- for the worker of a job

    def claim(
        self,
        owner: str | None = None,
        queues: Collection[str] = KINDS,
        sweep: str | None = None,
    ) -> Job | None:
        """Take the next job of these queues, or of one sweep alone. None: nothing waits.

        Studies before runs, higher priority first, then first come, first served, but that people
        take turns with their runs; long studies last, the newest first, because that is what
        somebody looks at.
        """
        # Looked at without a lock first: idle workers ask many times a second.
        if not self.any_waiting(queues):
            return None
        now = time.time()
        query = (
            f"{{people}} SELECT id, {_QUEUE} AS queue FROM jobs {{person}} "
            f"WHERE {_CLAIMABLE} AND queue IN ({_marks(queues)}) "
            "AND (? IS NULL OR id IN (SELECT job FROM sweep_runs WHERE sweep = ?)) "
            "ORDER BY {order} LIMIT 1"
        )
        # Who has the queue to themselves need not wait until all past runs were looked at.
        alone = query.format(people="", person="", order=_ORDER)
        fair = query.format(people=_PEOPLE, person=_PERSON, order=_FAIR_ORDER)
        claim = (
            "UPDATE jobs SET state = 'running', attempt = attempt + 1, owner = ?, lease = ?, "
            "started = ? WHERE id = ? RETURNING *"
        )
        while True:
            with self.database.write() as db:
                several = len(db.execute(_WHO_WAITS).fetchall()) > 1
                row = db.execute(fair if several else alone, (*queues, sweep, sweep)).fetchone()
                if row is None:
                    return None
                lease = (owner or process_id.me(), now + self.lease, now, row["id"])
                row = db.execute(claim, lease).fetchone()
            try:
                return self._job(row)
            except Unreadable as error:
                # It must not be claimed again and again: each time a worker would end over it.
                self._fail_damaged(row, str(error))

    def renew(self, job: Job) -> None:
        """Let the lease begin anew: the worker's heartbeat. Raises Fenced."""
        with self.database.write(durable=False) as db:
            _owned(db, job)
            db.execute("UPDATE jobs SET lease = ? WHERE id = ?", (time.time() + self.lease, job.id))

    def stopping(self, job: Job) -> bool:
        """Whether somebody asked the job to stop. Takes no lock. Raises Fenced."""
        with self.database.read() as db:
            return _owned(db, job)["stopping"] is not None

    def append(self, job: Job, event: Event) -> int:
        """Add an event; its number. Raises Fenced."""
        # An event or two may be lost with the power, as the run is then too.
        with self.database.write(durable=False) as db:
            return _append(db, _owned(db, job), event)

    def release(self, job: Job, message: str | None = None) -> None:
        """Put the job back into the queue, unharmed: its worker has to end. message: why.

        Raises Fenced.
        """
        with self.database.write() as db:
            row = _owned(db, job)
            if row["stopping"] is not None:
                _end(db, row, "stopped", "Stopped.", _halted(db, row))
            else:
                _requeue(db, row, message)

    def carry_over(self, job: Job, attempt: int, last: int) -> None:
        """Let this attempt begin with the events of an earlier one, up to number `last`.

        Raises Fenced.
        """
        with self.database.write() as db:
            _owned(db, job)
            db.execute(
                "INSERT INTO events SELECT job, ?, number, at, body FROM events "
                "WHERE job = ? AND attempt = ? AND number <= ?",
                (job.attempt, job.id, attempt, last),
            )
            # Of those before it nobody will need anything again.
            db.execute("DELETE FROM events WHERE job = ? AND attempt < ?", (job.id, attempt))

    def finish(
        self, job: Job, state: str, message: str | None = None, event: Event | None = None
    ) -> None:
        """End the job and add its last event, in one transaction. Raises Fenced."""
        if state not in ENDED:
            raise RunError(f"A job cannot end as {state!r}: it ends as {', '.join(ENDED)}.")
        with self.database.write() as db:
            _end(db, _owned(db, job), state, message, event)
        self._delete_checkpoints(job.id)

    # ---------------------------------------------------------------- of runs worked on elsewhere

    def recorded(self, id: str, after: int) -> list[Recorded]:
        """What a job's current attempt has recorded past number `after`."""
        query = (
            "SELECT number, at, body FROM events JOIN jobs "
            "ON jobs.id = events.job AND jobs.attempt = events.attempt "
            "WHERE job = ? AND number > ? ORDER BY number"
        )
        with self.database.read() as db:
            return [Recorded(*row) for row in db.execute(query, (id, after))]

    def hand_out(self, job: Job, attempt: int, last: int) -> list[Recorded]:
        """What another store needs to begin with the events of an earlier attempt, up to `last`:
        `carry_over` is done there. Raises Fenced.
        """
        query = (
            "SELECT number, at, body FROM events "
            "WHERE job = ? AND attempt = ? AND number <= ? ORDER BY number"
        )
        with self.database.write() as db:
            _owned(db, job)
            db.execute("DELETE FROM events WHERE job = ? AND attempt < ?", (job.id, attempt))
            return [Recorded(*row) for row in db.execute(query, (job.id, attempt, last))]

    def take_over(self, job: Job, records: Sequence[Recorded]) -> None:
        """Add what was recorded elsewhere of this attempt; what is there already counts once.

        Raises Fenced.
        """
        with self.database.write(durable=False) as db:
            _owned(db, job)
            rows = [(job.id, job.attempt, *record) for record in records]
            db.executemany("INSERT OR IGNORE INTO events VALUES (?, ?, ?, ?, ?)", rows)

    def receive(self, job: Job, attempt: int = 0, records: Sequence[Recorded] = ()) -> Job:
        """Have a job of another store here: one that works is this process's from now on.

        records: of an earlier attempt, which a checkpoint in its folder has behind it.
        """
        owner = process_id.me() if job.state == "running" else job.owner
        values = (
            *(job.id, job.kind, _text(job.spec), job.state, job.attempt, owner),
            *(time.time() + self.lease, job.submitted, job.started, job.message, job.resumed),
        )
        columns = (
            "id, kind, spec, state, attempt, owner, lease, submitted, started, message, resumed"
        )
        with self.database.write() as db:
            db.execute("DELETE FROM jobs WHERE id = ?", (job.id,))
            db.execute(f"INSERT INTO jobs ({columns}) VALUES ({_marks(values)})", values)
            rows = [(job.id, attempt, *record) for record in records]
            db.executemany("INSERT INTO events VALUES (?, ?, ?, ?, ?)", rows)
        return self.job(job.id)

    # ---------------------------------------------------------------- inside

    def _job(self, row: sqlite3.Row) -> Job:
        """The row as a job. Raises Unreadable."""
        # The table's columns, but for those that only the store needs: key, lease, priority.
        columns = {name: value for name, value in dict(row).items() if name in _JOB_COLUMNS}
        try:
            spec = json.loads(row["spec"])
            reason = _what_is_wrong(row, spec)
        except (ValueError, TypeError, RecursionError):
            reason = "its recipe is no JSON"
        if reason:
            raise Unreadable(DAMAGED.format(id=row["id"], file=self.file, reason=reason))
        return Job(
            **columns,
            spec=spec,
            stopping=row["stopping"] is not None,
            tags=_tags(row["tags"]),
            folder=self.workspace / "jobs" / row["id"],
        )

    def _read_row(self, row: sqlite3.Row) -> Job:
        """The same, and a damaged row is noted."""
        try:
            return self._job(row)
        except Unreadable as error:
            self.damaged[str(row["id"])] = str(error)
            raise

    def _readable(self, rows: Iterable[sqlite3.Row]) -> list[Job]:
        """The jobs of the rows that can be read; the others are noted."""
        jobs = []
        for row in rows:
            with suppress(Unreadable):
                jobs.append(self._read_row(row))
        return jobs

    def _event(self, id: str, body: str) -> Event | None:
        """An event; None, and its job is noted, where it cannot be read."""
        try:
            return _events.from_json(body)
        except Exception:  # whatever is in the row: the other events of the job can be read
            reason = "one of its events cannot be read"
            self.damaged[id] = DAMAGED.format(id=id, file=self.file, reason=reason)
            return None

    def _fail_damaged(self, row: sqlite3.Row, message: str) -> None:
        """End a job whose row cannot be read: nobody can work on it."""
        self.damaged[str(row["id"])] = message
        with self.database.write() as db:
            _end(db, row, "failed", message, None)
        with suppress(RunError):  # the damage may be its id
            self._delete_checkpoints(row["id"])

    def _answers(self, row: sqlite3.Row) -> bool:
        """Whether a job under the same key is an answer: it is live, or its files are there."""
        result = {"run": "result.json", "study": "study.json"}[row["kind"]]
        return row["state"] in LIVE or (self.folder(row["id"]) / result).exists()

    def _give_up(self, job: Job, message: str, *, lost_only: bool) -> bool:
        """End one job of a lost owner; False when it ended meanwhile, or its lease was renewed."""
        with self.database.write() as db:
            # Read again under the lock: since the job was looked at, anything may have happened.
            row = _owned_row(db, job)
            if row is None:
                return False
            if lost_only and not _is_lost(row):
                return False
            if row["stopping"] is not None:
                _end(db, row, "stopped", "Stopped.", _halted(db, row))
            # Once only: a study that ends its process twice would do so for ever.
            elif row["kind"] == "study" and row["attempt"] < 2:
                _requeue(db, row)
            elif row["kind"] == "run" and row["resumed"] < RESUMES:
                db.execute("UPDATE jobs SET resumed = resumed + 1 WHERE id = ?", (row["id"],))
                _requeue(db, row, message)
            else:
                message += NO_MORE_TRIES if row["kind"] == "run" else ""
                _end(db, row, "failed", message, Failed("Lost", message))
        self._delete_checkpoints(job.id)
        return True

    def tidy(self) -> None:
        """Delete checkpoints of runs that have ended: a process that is killed between the two
        leaves its own.
        """
        for id in {file.parent.name for file in self.workspace.glob(f"jobs/*/{CHECKPOINTS}")}:
            with suppress(RunError):  # somebody's folder, whose name is no id
                self._delete_checkpoints(id)

    def _delete_checkpoints(self, id: str) -> None:
        """Of a run that has ended, if it has: nobody goes on from there."""
        with self.database.read() as db:
            row = db.execute("SELECT state FROM jobs WHERE id = ?", (id,)).fetchone()
        if row is not None and row["state"] in ENDED:
            for file in self.folder(id).glob(CHECKPOINTS):
                with suppress(OSError):
                    file.unlink()


def state_word(state: str) -> str:
    """The one word for a state that people read: queued, running, done, failed, cancelled or
    diverged.
    """
    return STATE_WORDS.get(state, state)


def reason(message: str) -> str:
    """Why an attempt ended, as a clause: `the process that worked on this crashed (SIGSEGV)`."""
    why = message.partition(":")[0]
    return why[:1].lower() + why[1:]


def set_aside(workspace: Path) -> Path:
    """Rename a store that cannot be read, so that a new one can be begun; its new name.

    The files of its runs stay where they are. Raises StoreError.
    """
    return database.set_aside(workspace / FILE)


# ---------------------------------------------------------------- rows, inside a transaction


def _text(spec: dict[str, Any]) -> str:
    return json.dumps(spec, separators=(",", ":"), allow_nan=False)


def _insert(
    db: sqlite3.Connection,
    id: str,
    kind: str,
    text: str,
    key: str | None,
    submitted: float,
    priority: int,
    batch: str | None,
    visitor: str | None = None,
) -> None:
    db.execute(
        "INSERT INTO jobs (id, kind, spec, key, submitted, priority, batch, visitor) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        (id, kind, text, key, submitted, priority, batch, visitor),
    )


def _text_of(what: str, text: str, longest: int, *, lines: bool = False) -> str:
    """Text that people gave, without what cannot be drawn. lines: it may have several.

    Raises OutOfRange.
    """
    kept = "\n" if lines else ""
    shown = "".join(c if c.isprintable() or c in kept else " " for c in text)
    shown = shown.strip() if lines else " ".join(shown.split())
    if len(shown) > longest:
        raise OutOfRange(f"The length of {what}", len(shown), f"at most {longest:,} characters")
    return shown


def _tags(text: object) -> tuple[str, ...]:
    """None where the column holds something else: tags alone hide no run."""
    with suppress(ValueError, TypeError, RecursionError):
        tags = json.loads(str(text))
        if isinstance(tags, list):
            return tuple(tag for tag in tags if isinstance(tag, str))
    return ()


def _sweep(row: sqlite3.Row) -> Sweep:
    return Sweep(**{**dict(row), "plan": json.loads(row["plan"])})


def _submitted_since(
    db: sqlite3.Connection, kind: str, since: float, visitor: str | None
) -> list[sqlite3.Row]:
    """A visitor's jobs submitted since then, in the order they were queued."""
    query = "SELECT * FROM jobs WHERE kind = ? AND submitted > ? AND visitor IS ? ORDER BY rowid"
    return db.execute(query, (kind, since, visitor)).fetchall()


def _standing(row: sqlite3.Row) -> tuple[str, str, int]:
    """Jobs of which only turns decide which comes first."""
    return row["state"], row["queue"], row["priority"]


def _in_turns(rows: Sequence[sqlite3.Row]) -> list[sqlite3.Row]:
    """Jobs in the order that `claim` takes them: waiting runs of one priority by turns of people.

    rows: as `_ORDER` has them, with busy and served of whoever asked for each.
    """
    ordered: list[sqlite3.Row] = []
    for (state, queue, _), group in groupby(rows, _standing):
        if (state, queue) != ("queued", "run"):
            ordered += group
            continue
        people: dict[str | None, deque[sqlite3.Row]] = {}
        for row in group:
            people.setdefault(row["visitor"], deque()).append(row)
        # Person -> at work, and when served last; whoever has a turn was served after all others.
        standing = {who: (rows[0]["busy"], rows[0]["served"]) for who, rows in people.items()}
        for turn in count(time.time()):
            if not people:
                break
            who = min(people, key=lambda who: (*standing[who], people[who][0]["submitted"]))
            ordered.append(people[who].popleft())
            standing[who] = (standing[who][0] + 1, turn)
            if not people[who]:
                del people[who]
    return ordered


def _in_progress(row: sqlite3.Row) -> bool:
    """Whether a job waits or works, and nobody asked it to stop."""
    return row["state"] in LIVE and row["stopping"] is None


def _marks(values: Collection[object]) -> str:
    """A question mark for each value, for SQL's IN."""
    return ", ".join("?" * len(values))


def _same_key(db: sqlite3.Connection, key: str | None) -> sqlite3.Row | None:
    """The job under that key that neither failed nor was stopped."""
    query = "SELECT * FROM jobs WHERE key = ? AND state IN ('queued', 'running', 'finished')"
    row: sqlite3.Row | None = db.execute(query, (key,)).fetchone()
    return row


def _owned_row(db: sqlite3.Connection, job: Job) -> sqlite3.Row | None:
    """The job's row while this owner's attempt at it runs: the check that fences others off."""
    query = "SELECT * FROM jobs WHERE id = ? AND state = 'running' AND owner = ? AND attempt = ?"
    row: sqlite3.Row | None = db.execute(query, (job.id, job.owner, job.attempt)).fetchone()
    return row


def _owned(db: sqlite3.Connection, job: Job) -> sqlite3.Row:
    row = _owned_row(db, job)
    if row is None:
        raise Fenced(f"Job {job.id} is no longer this worker's: it was given up or deleted.")
    return row


def _is_lost(row: sqlite3.Row) -> bool:
    """Whether the owner of a running job has died, or let its lease run out."""
    return _is_silent(row) or process_id.dead(row["owner"])


def _is_silent(row: sqlite3.Row) -> bool:
    return bool(row["lease"] < time.time())


def _why_lost(row: sqlite3.Row, lease: float) -> str:
    if _is_silent(row) and not process_id.dead(row["owner"]):
        return SILENT.format(lease=lease)
    return PROCESS_ENDED


def _what_is_wrong(row: sqlite3.Row, spec: Any) -> str:
    """Why a row is no job, as the end of a sentence; "" where it is one."""
    if not isinstance(spec, dict):
        return "its recipe is no table"
    if row["kind"] not in KINDS or row["state"] not in (*LIVE, *ENDED):
        return f"it is a {row['kind']} that is {row['state']}"
    numbers = ("attempt", "resumed", "submitted", "started", "ended", "lease", "deleted")
    # SQLite keeps whatever it is given in a column, of any type.
    for name in numbers:
        if not isinstance(row[name], int | float | None):
            return f"{name} is no number"
    for name in ("label", "note"):
        if not isinstance(row[name], str | None):
            return f"its {name} is no text"
    running = row["state"] == "running"
    if running and (row["lease"] is None or str(row["owner"]).count(":") < 2):
        return "nobody is known to work on it"
    return ""


def _append(db: sqlite3.Connection, row: sqlite3.Row, event: Event) -> int:
    query = "SELECT COALESCE(MAX(number), 0) + 1 FROM events WHERE job = ? AND attempt = ?"
    number = int(db.execute(query, (row["id"], row["attempt"])).fetchone()[0])
    body = _events.to_json(event)
    values = (row["id"], row["attempt"], number, time.time(), body)
    db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?)", values)
    return number


def _stop(db: sqlite3.Connection, row: sqlite3.Row) -> None:
    """Ask a live job to stop; one that waits ends at once."""
    # The first request counts: a second one must not give the worker more time.
    db.execute(
        "UPDATE jobs SET stopping = COALESCE(stopping, ?) WHERE id = ?", (time.time(), row["id"])
    )
    if row["state"] == "queued":
        begun = row["attempt"] > 0
        halted = _halted(db, row) if begun else Halted(0, 0)
        _end(db, row, "stopped", "Stopped." if begun else "Stopped before it began.", halted)


def _end(
    db: sqlite3.Connection,
    row: sqlite3.Row,
    state: str,
    message: str | None,
    event: Event | None,
) -> None:
    if event is not None:
        _append(db, row, event)
    db.execute(
        "UPDATE jobs SET state = ?, message = ?, ended = ?, lease = NULL WHERE id = ?",
        (state, message, time.time(), row["id"]),
    )


def _requeue(db: sqlite3.Connection, row: sqlite3.Row, message: str | None = None) -> None:
    db.execute(
        "UPDATE jobs SET state = 'queued', owner = NULL, lease = NULL, started = NULL, message = ? "
        "WHERE id = ?",
        (message, row["id"]),
    )


def _halted(db: sqlite3.Connection, row: sqlite3.Row) -> Halted:
    """The step and epoch that a job reached, by its last event that has them."""
    query = "SELECT body FROM events WHERE job = ? AND attempt = ? ORDER BY number DESC"
    for (body,) in db.execute(query, (row["id"], row["attempt"])):
        with suppress(ValueError, TypeError, KeyError):  # a damaged event says nothing
            data = json.loads(body)
            return Halted(data["step"], data.get("epoch", 0))
    return Halted(0, 0)


def _is_emptied(workspace: Path) -> bool:
    """Whether the store was cut to nothing: SQLite would take it for a new one."""
    file, runs = workspace / FILE, workspace / "jobs"
    # Without runs it may be one whose first write found no room.
    return file.exists() and file.stat().st_size == 0 and runs.exists() and any(runs.iterdir())
