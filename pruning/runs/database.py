"""One SQLite file for many processes and threads: opened, locked, and its errors told with the way
out. What is in it, its users know.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pruning.errors import Damaged, DiskFull, StoreError
from pruning.storage import is_full, private_file

BUSY = 10.0
"""Seconds to wait for other writers."""

DELETED = (
    "{file} was deleted or moved while it was in use: what was in it cannot be read or saved any "
    "more. Open the page again to begin a new one, or put the folder back."
)
SET_IT_ASIDE = "move it aside, and the workbench begins a new one."
READ_ONLY = (
    "{file} may only be read: results can be looked at, and nothing can be started or saved. Let "
    "its folder be written, or point PRUNING_HOME at another one."
)


class Database:
    """A file, and connections to it. Its folder is there. Raises StoreError, with the way out.

    writable: whether it can be written too.
    """

    def __init__(self, file: Path) -> None:
        self.file = file
        self._idle: deque[sqlite3.Connection] = deque()
        self._process = os.getpid()
        # Of the file when it was opened, (device, inode): another one may take its place.
        self._identity: tuple[int, int] | None = None
        self.writable = _may_write(file)

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection of one's own for a moment: threads of a page share them."""
        if os.getpid() != self._process:  # a fork must not use its parent's connections
            self._idle = deque()
            self._process = os.getpid()
        with readable_errors(self.file):
            self.check()
            try:
                db = self._idle.pop()
            except IndexError:
                db = self._open()
            try:
                yield db
            finally:
                # An error inside: what was begun must not block the next writer.
                if db.in_transaction:
                    db.execute("ROLLBACK")
                self._idle.append(db)

    @contextmanager
    def write(self, *, durable: bool = True) -> Iterator[sqlite3.Connection]:
        """A transaction that takes the write lock first, so that it waits and never fails midway.

        durable: on the disk when it returns, even if the power fails; else the last moments may be
        lost, but nothing is half written.
        """
        with self.read() as db:
            if not self.writable:
                raise StoreError(READ_ONLY.format(file=self.file))
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")

    def _open(self) -> sqlite3.Connection:
        options: dict[str, Any] = {"timeout": BUSY, "isolation_level": None}
        options["check_same_thread"] = False
        db: sqlite3.Connection
        if self.writable:
            private_file(self.file)
            db = sqlite3.connect(self.file, **options)
            # With a write-ahead log pages read while a worker writes.
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA foreign_keys = ON")
        else:
            db = _open_to_read(self.file, options)
        db.row_factory = sqlite3.Row
        self._identity = _identity(self.file)
        return db

    def check(self) -> None:
        """Notice that the file is no longer the one that is open: SQLite itself would not, and
        would go on to write into a file without a name. Raises StoreError where there is none.
        """
        if self._identity is None:
            return
        identity = _identity(self.file)
        if identity is None:
            raise StoreError(DELETED.format(file=self.file))
        writable = _may_write(self.file)
        if (identity, writable) != (self._identity, self.writable):
            # Another process began a new one, or it was opened for writing again: go on with that.
            self._idle.clear()
            self._identity, self.writable = identity, writable

    def deleted(self) -> bool:
        """Whether the file was deleted or moved since it was opened."""
        return self._identity is not None and _identity(self.file) is None


def set_aside(file: Path) -> Path:
    """Rename a file that cannot be read, so that a new one can be begun; its new name.

    Raises StoreError.
    """
    aside = file.with_name(f"{file.stem}-damaged-{time.strftime('%Y%m%d-%H%M%S')}.sqlite")
    with readable_errors(file):
        os.replace(file, aside)
        # The write-ahead log belongs to it, and must never be taken for the new one's.
        for end in ("-wal", "-shm"):
            if Path(f"{file}{end}").exists():
                os.replace(f"{file}{end}", f"{aside}{end}")
    return aside


def _identity(file: Path) -> tuple[int, int] | None:
    """(device, inode) of a file; None where there is none."""
    try:
        status = os.stat(file)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _open_to_read(file: Path, options: dict[str, Any]) -> sqlite3.Connection:
    """A connection to a store that may only be read."""
    address = f"{file.as_uri()}?mode=ro"
    db: sqlite3.Connection = sqlite3.connect(address, uri=True, **options)
    try:
        db.execute("SELECT COUNT(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        # Reading a write-ahead log takes a file beside it. Without one: as if nobody ever wrote.
        db.close()
        db = sqlite3.connect(f"{address}&immutable=1", uri=True, **options)
    return db


def _may_write(file: Path) -> bool:
    """Whether a store may be written; one that is not there yet counts as such."""
    # SQLite writes beside the file as well, so that its folder decides too.
    return not file.exists() or (os.access(file, os.W_OK) and os.access(file.parent, os.W_OK))


@contextmanager
def readable_errors(file: Path) -> Iterator[None]:
    """Errors of SQLite and the disk, as StoreErrors with the way out."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise _explained(file, error) from error


def _explained(file: Path, error: Exception) -> StoreError:
    reason = str(error)  # SQLite's errors differ only in their text
    if is_full(error) or "database or disk is full" in reason:
        return DiskFull(
            f"The disk is full: {file.parent} could not be written. Free some space and try again."
        )
    if "readonly" in reason or (isinstance(error, PermissionError) and file.exists()):
        return StoreError(READ_ONLY.format(file=file))
    # A table or a column that is missing: cut off, or another program's.
    if any(word in reason for word in ("not a database", "malformed", "no such", "has no column")):
        return Damaged(f"{file} is damaged ({reason}): {SET_IT_ASIDE}")
    if "locked" in reason or "busy" in reason:
        return StoreError(
            f"{file} has been locked for {BUSY:.0f} s: close other programs that have it open."
        )
    return StoreError(
        f"{file} cannot be used ({reason}): check that its folder exists and may be written."
    )
