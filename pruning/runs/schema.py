"""The tables of the job store, and how an older store becomes a newer one."""

from __future__ import annotations

import sqlite3

from pruning.errors import StoreError

MIGRATIONS = (
    """
    CREATE TABLE jobs (
        id        TEXT PRIMARY KEY,
        kind      TEXT NOT NULL,                    -- "run" or "study"
        spec      TEXT NOT NULL,                    -- JSON object
        key       TEXT,                             -- equal for the same work; NULL: never the same
        state     TEXT NOT NULL DEFAULT 'queued',
        attempt   INTEGER NOT NULL DEFAULT 0,       -- times claimed
        owner     TEXT,                             -- host:pid:start of the process with the lease
        lease     REAL,                             -- unix seconds at which the lease is over
        submitted REAL NOT NULL,
        started   REAL,
        ended     REAL,
        message   TEXT,
        stopping  REAL,                             -- unix seconds of the request to stop
        priority  INTEGER NOT NULL DEFAULT 0,       -- higher first
        parent    TEXT,                             -- no longer written: the job it is part of
        batch     TEXT                              -- the sweep that this one belongs to
    );
    CREATE UNIQUE INDEX jobs_key ON jobs (key)
        WHERE key IS NOT NULL AND state IN ('queued', 'running', 'finished');
    CREATE INDEX jobs_waiting ON jobs (state, kind, priority, submitted);
    CREATE INDEX jobs_newest ON jobs (kind, submitted);
    CREATE TABLE events (
        job     TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        attempt INTEGER NOT NULL,
        number  INTEGER NOT NULL,                   -- from 1, without gaps, in each attempt
        at      REAL NOT NULL,
        body    TEXT NOT NULL,                      -- pruning.events.to_json
        PRIMARY KEY (job, attempt, number)
    ) WITHOUT ROWID;
    """,
    """
    ALTER TABLE jobs ADD COLUMN visitor TEXT;       -- who asked for it; NULL: nobody in particular
    ALTER TABLE jobs ADD COLUMN resumed INTEGER NOT NULL DEFAULT 0;  -- from a checkpoint, so often
    ALTER TABLE jobs ADD COLUMN deleted REAL;       -- unix seconds; its files are kept for a while
    ALTER TABLE jobs ADD COLUMN label TEXT;         -- the name that people gave it
    ALTER TABLE jobs ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';     -- JSON list of strings
    ALTER TABLE jobs ADD COLUMN note TEXT;
    CREATE INDEX jobs_visitor ON jobs (visitor, state);
    CREATE TABLE sweeps (
        id      TEXT PRIMARY KEY,
        plan    TEXT NOT NULL,                      -- JSON object: pruning.sweeps.plan
        state   TEXT NOT NULL DEFAULT 'active',     -- active, paused or cancelled
        created REAL NOT NULL,
        visitor TEXT,
        label   TEXT
    );
    CREATE TABLE sweep_runs (                       -- a run may belong to several sweeps
        sweep TEXT NOT NULL REFERENCES sweeps (id) ON DELETE CASCADE,
        job   TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE,
        PRIMARY KEY (sweep, job)
    ) WITHOUT ROWID;
    CREATE INDEX sweep_runs_job ON sweep_runs (job);
    """,
)
"""Step i takes a store from version i to i + 1.

Only ever add to the end: stores out there have run the earlier ones.
"""


def migrate(db: sqlite3.Connection) -> None:
    """Bring the store up to this workbench's version, once, whoever comes first.

    Raises StoreError for a newer store.
    """
    check_version(db)
    if _version(db) == len(MIGRATIONS):
        return
    db.execute("BEGIN IMMEDIATE")
    try:
        # The version is read again under the lock: another process may have been first.
        for step in MIGRATIONS[_version(db) :]:
            for statement in _statements(step):
                db.execute(statement)
        db.execute(f"PRAGMA user_version = {len(MIGRATIONS)}")
        db.execute("COMMIT")
    except BaseException:
        db.execute("ROLLBACK")
        raise


def check_version(db: sqlite3.Connection) -> None:
    """Raises StoreError for a newer store, which this workbench must neither read nor write."""
    version = _version(db)
    if version > len(MIGRATIONS):
        raise StoreError(
            f"This workspace has version {version}, and this workbench reads up to version "
            f"{len(MIGRATIONS)}: update the workbench, or point PRUNING_HOME at another folder."
        )


def _version(db: sqlite3.Connection) -> int:
    return int(db.execute("PRAGMA user_version").fetchone()[0])


def _statements(script: str) -> list[str]:
    """The script's statements, without its comments."""
    # One by one, because executescript would commit in between.
    statements = []
    statement = ""
    for line in script.splitlines():
        statement += line.split("--")[0] + "\n"
        if sqlite3.complete_statement(statement):
            statements.append(statement)
            statement = ""
    return statements
