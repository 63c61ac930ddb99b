"""The class room: who is in it, what its teacher asked for, what people predicted. Imports no page.

A file of its own in the workspace, which is there only while a room is: ending a room overwrites
what was in it and removes the file. Names and answers are untrusted text and numbers; nothing here
writes them to a log. Who somebody is, is what `visitors` calls them.

Members' tabs learn of news by the question that pages wait with (`components.wait`): `orders` names
what concerns all of a page, `offers` its notice of a recipe alone, `reports` what the teacher
follows.
"""

from __future__ import annotations

import hmac
import json
import math
import os
import secrets
import sqlite3
import time
import unicodedata
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from threading import RLock
from typing import Any

from dashboard import access, visitors
from dashboard.launch import new_code, plain_code
from pruning.errors import PruningError, StoreError
from pruning.storage import default_workspace, private_file

FILE = "room.sqlite"
CODE = "PRUNING_CLASS"
"""The variable that holds the code of the room that a server opens when it starts."""

ADDRESS = "PRUNING_ADDRESS"
"""The variable that holds the address at which others reach such a server; run.py sets it."""

LONGEST_NAME = 24  # characters of a pseudonym
MOST_MEMBERS = 200
MOST_OWN = 10_000  # predictions of people without a room that are remembered
HOURS = 12.0
"""After which a room that nobody ended is over."""

BUSY = 5.0  # seconds to wait for another process's writing
NEWS = "room-"
"""Begins the names by which pages ask for news of a room."""

BEST, SMALLEST = "best", "smallest"
"""Rules of a leader board: the best accuracy from a sparsity on, the fewest bytes from an accuracy
on."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS rooms (
    id TEXT PRIMARY KEY, code TEXT NOT NULL UNIQUE, teacher TEXT, opened REAL NOT NULL,
    orders INTEGER NOT NULL DEFAULT 0, reports INTEGER NOT NULL DEFAULT 0,
    board INTEGER NOT NULL DEFAULT 0,
    lesson TEXT, step INTEGER NOT NULL DEFAULT 1, starts INTEGER NOT NULL DEFAULT 0,
    locks TEXT NOT NULL DEFAULT '[]', hidden TEXT NOT NULL DEFAULT '[]',
    recipe TEXT, directly INTEGER NOT NULL DEFAULT 0, pushes INTEGER NOT NULL DEFAULT 0,
    resets INTEGER NOT NULL DEFAULT 0, rule TEXT
);
CREATE TABLE IF NOT EXISTS members (
    room TEXT NOT NULL, visitor TEXT NOT NULL, name TEXT NOT NULL, folded TEXT NOT NULL,
    joined REAL NOT NULL, lesson TEXT, step INTEGER, listed INTEGER NOT NULL DEFAULT 0,
    pushes INTEGER NOT NULL DEFAULT 0, starts INTEGER NOT NULL DEFAULT 0,
    resets INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (room, visitor), UNIQUE (room, folded)
);
CREATE TABLE IF NOT EXISTS predictions (
    room TEXT NOT NULL, visitor TEXT NOT NULL, lesson TEXT NOT NULL, step INTEGER NOT NULL,
    value REAL NOT NULL, PRIMARY KEY (room, visitor, lesson, step)
);
CREATE TABLE IF NOT EXISTS runs (
    room TEXT NOT NULL, visitor TEXT NOT NULL, run TEXT NOT NULL, PRIMARY KEY (room, visitor, run)
);
"""
TABLES = ("predictions", "runs", "members")

NO_ROOM = "No class has this code: look at it again, or ask who teaches."
FULL = "This room has {most} people in it already: ask who teaches to end it and open another."
NO_NAME = "A name needs at least one letter or digit: enter another."
NO_COOKIES = "A class needs cookies, to know one browser from another: allow them for this address."
WAIT = "Too many wrong codes from your address: try again in {seconds:.0f} s."
ONE_ROOM = "A class is in progress on this server: end it before another one is opened."
UNUSABLE = (
    "The file of the class room cannot be used ({reason}): check {folder}, its room and rights."
)


class Refused(PruningError):
    """Why somebody could not join a room, or open one."""


@dataclass(frozen=True)
class Rule:
    """What a leader board counts, for runs of one model.

    kind: BEST or SMALLEST; least: the share pruned, or the accuracy, that a run needs to count.
    """

    kind: str
    least: float
    model: str


@dataclass(frozen=True)
class Room:
    """What its teacher asked for. No names are in it: every member may see all of this.

    id: names it inside the server; code: what people enter; teacher: who opened it, None where the
    server did; orders, reports, board: count what changed for members, for the teacher, and on the
    leader board.
    lesson, step: started for all, so many times (starts). locks, hidden: names of controls.
    recipe: was handed to all as the number `pushes`; directly: without asking them. resets: how
    often everybody was sent back to the start. rule: of the leader board, None without one.
    """

    id: str
    code: str
    teacher: str | None
    orders: int
    reports: int
    board: int
    lesson: str | None
    step: int
    starts: int
    locks: frozenset[str]
    hidden: frozenset[str]
    recipe: dict[str, Any] | None
    directly: bool
    pushes: int
    resets: int
    rule: Rule | None


@dataclass(frozen=True)
class Member:
    """Somebody in the room. name: as they entered it, told apart from equal ones; listed: whether
    they stand on the leader board; pushes, starts, resets: of the teacher's, up to which they
    followed.
    """

    visitor: str
    name: str
    lesson: str | None
    step: int | None
    listed: bool
    pushes: int
    starts: int
    resets: int


# ---------------------------------------------------------------- the file

_lock = RLock()


def _file() -> Path:
    return default_workspace() / FILE


# One connection for all threads: a page asks dozens of times, and opening takes longer than asking.
@lru_cache(maxsize=4)
def _connection(file: str, inode: int) -> sqlite3.Connection:
    """inode: another file of the same name is another room."""
    db = sqlite3.connect(file, timeout=BUSY, isolation_level=None, check_same_thread=False)
    db.row_factory = sqlite3.Row
    # Deleted rows are overwritten, and no copy of a page outlives its transaction: SQLite removes
    # its journal then, where a write-ahead log would keep what it holds.
    db.execute("PRAGMA secure_delete = ON")
    db.execute("PRAGMA journal_mode = DELETE")
    db.execute("PRAGMA temp_store = MEMORY")
    # Waiting for the disk at every answer would keep the others waiting: a power cut ends a class.
    db.execute("PRAGMA synchronous = OFF")
    return db


Version = tuple[str, int, int, int, int]
"""Of the file: its name, inode, time and size, and how often this process has written it."""

_written = [0]
"""How often this process has written it: two writes may fall into one tick of the file's clock."""

_rows: dict[Version, dict[tuple[Any, ...], list[sqlite3.Row]]] = {}
"""What was read of the file as it is now, by the question: pages ask at every control."""


def _version() -> Version | None:
    """None where there is no room at all."""
    try:
        now = os.stat(_file())
    except OSError:
        return None
    return str(_file()), now.st_ino, now.st_mtime_ns, now.st_size, _written[0]


def _inode() -> int | None:
    """None where there is no room at all, which is the rule: pages ask at every control."""
    version = _version()
    return None if version is None else version[1]


@contextmanager
def _reading() -> Iterator[sqlite3.Connection | None]:
    """The file; None without one. A file that cannot be read is no room: pages work without."""
    with _lock:
        inode = _inode()
        yield None if inode is None else _connection(str(_file()), inode)


@contextmanager
def _writing(make: bool = False) -> Iterator[sqlite3.Connection | None]:
    """One transaction. make: the file where there is none. Raises StoreError."""
    with _lock, _explained():
        if make and _inode() is None:
            _file().parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            private_file(_file())
        inode = _inode()
        if inode is None:
            yield None
            return
        db = _connection(str(_file()), inode)
        if make:
            db.executescript(SCHEMA)
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")
        _written[0] += 1


@contextmanager
def _explained() -> Iterator[None]:
    """What the disk or SQLite say, as a sentence."""
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        folder = default_workspace()
        raise StoreError(UNUSABLE.format(reason=error, folder=folder)) from error


def _one(text: str, *values: Any) -> sqlite3.Row | None:
    rows = _every(text, *values)
    return rows[0] if rows else None


def _every(text: str, *values: Any) -> list[sqlite3.Row]:
    """Rows; none where there is no room, or its file cannot be read."""
    with suppress(sqlite3.Error), _lock:
        version = _version()
        if version is None:
            return []
        db = _connection(version[0], version[1])
        if db.in_transaction:  # it may yet be taken back
            return list(db.execute(text, values))
        if version not in _rows:
            _rows.clear()
            _rows[version] = {}
        known = _rows[version]
        if (text, *values) not in known:
            known[text, *values] = list(db.execute(text, values))
        return known[text, *values]
    return []


def _remove_file() -> None:
    """Inside the lock. What SQLite itself has overwritten by then."""
    _connection.cache_clear()
    _rows.clear()
    for suffix in ("", "-journal", "-wal", "-shm"):
        with suppress(OSError):
            Path(f"{_file()}{suffix}").unlink(missing_ok=True)


# ---------------------------------------------------------------- rooms


def open_room(teacher: str | None, code: str | None = None) -> Room:
    """A new room. code: None to make one. Raises Refused where one is open, StoreError."""
    with _lock:
        if current() is not None:
            raise Refused(ONE_ROOM)
        with _writing(make=True) as db:
            assert db is not None
            db.execute(
                "INSERT INTO rooms (id, code, teacher, opened) VALUES (?, ?, ?, ?)",
                (secrets.token_hex(8), plain_code(code or "") or new_code(), teacher, time.time()),
            )
        room = current()
        assert room is not None
        return room


def begin(code: str) -> None:
    """When a server starts: open the room of its code, or go on with it after a crash. Without a
    code nothing begins, and a room that is over by its age ends. Raises StoreError.
    """
    room = current()
    if room is not None and code and room.code != plain_code(code):
        end(room.id)
        room = None
    if room is None and code:
        open_room(None, code)


def current() -> Room | None:
    """The room of this server; None without one. One that is over by its age ends here."""
    row = _one("SELECT * FROM rooms ORDER BY opened DESC LIMIT 1")
    if row is None:
        return None
    if time.time() - row["opened"] > 3600 * HOURS:
        end(row["id"])
        return None
    return _room(row)


def _room(row: sqlite3.Row) -> Room:
    return Room(
        id=row["id"],
        code=row["code"],
        teacher=row["teacher"],
        orders=row["orders"],
        reports=row["reports"],
        board=row["board"],
        lesson=row["lesson"],
        step=row["step"],
        starts=row["starts"],
        locks=frozenset(json.loads(row["locks"])),
        hidden=frozenset(json.loads(row["hidden"])),
        recipe=json.loads(row["recipe"]) if row["recipe"] else None,
        directly=bool(row["directly"]),
        pushes=row["pushes"],
        resets=row["resets"],
        rule=Rule(**json.loads(row["rule"])) if row["rule"] else None,
    )


def room_of(visitor: str | None) -> Room | None:
    """The room that somebody is a member of; None without one, and for who teaches it."""
    row = _one(
        "SELECT rooms.* FROM rooms JOIN members ON room = id "
        "WHERE visitor = ? ORDER BY opened DESC LIMIT 1",
        visitor,
    )
    return None if row is None else _room(row)


def room_of_teacher(visitor: str | None) -> Room | None:
    """The room that whoever looks teaches: who opened it, and the owner of a shared server."""
    room = current()
    if room is None:
        return None
    if room.teacher is not None and room.teacher == visitor:
        return room
    return room if visitors.shared() and visitors.is_owner() else None


def end(id: str) -> None:
    """End a room, and delete all that was in it. Raises StoreError."""
    with _lock:
        with _writing() as db:
            if db is None:
                return
            for table in TABLES:
                db.execute(f"DELETE FROM {table} WHERE room = ?", (id,))
            db.execute("DELETE FROM rooms WHERE id = ?", (id,))
            remain = db.execute("SELECT COUNT(*) FROM rooms").fetchone()[0]
        with _explained(), _reading() as whole:
            if whole is not None:
                whole.execute("VACUUM")  # a page that had room for a name once may lie free
        if not remain:
            _remove_file()


# ---------------------------------------------------------------- joining

_tries = access.Tries(time.monotonic)
"""Wrong codes by address, as the passphrase has them."""


def join(code: str, name: str, visitor: str | None, address: str) -> Room:
    """Become a member, or take another name. address: of who tries.

    Raises Refused with what to do; StoreError.
    """
    if visitor is None:
        raise Refused(NO_COOKIES)
    wait = _tries.wait(address)
    if wait > 0:
        raise Refused(WAIT.format(seconds=math.ceil(wait)))
    room = current()
    entered = plain_code(code)
    # Compared in one length of time, also where there is no room at all.
    right = hmac.compare_digest(entered.encode(), (room.code if room else "-").encode())
    if room is None or not right:
        _tries.note(address)
        raise Refused(NO_ROOM)
    shown = plain_name(name)
    _tries.forget(address)
    with _writing() as db:
        if db is None:
            raise Refused(NO_ROOM)
        others = {
            row["visitor"]: row["folded"]
            for row in db.execute("SELECT visitor, folded FROM members WHERE room = ?", (room.id,))
        }
        if visitor not in others and len(others) >= MOST_MEMBERS:
            raise Refused(FULL.format(most=MOST_MEMBERS))
        taken = {folded for who, folded in others.items() if who != visitor}
        shown = _distinct(shown, taken)
        # Who comes late gets what was handed out last, and follows no reset of before.
        db.execute(
            "INSERT INTO members (room, visitor, name, folded, joined, resets) "
            "VALUES (?, ?, ?, ?, ?, ?) "
            "ON CONFLICT (room, visitor) DO UPDATE SET name = excluded.name, "
            "folded = excluded.folded",
            (room.id, visitor, shown, _folded(shown), time.time(), room.resets),
        )
        _report(db, room.id, board=True)
    return room


def plain_name(text: str) -> str:
    """A pseudonym that can be shown: one line, without marks that turn or stack text.

    Raises Refused where nothing readable is in it.
    """
    composed = unicodedata.normalize("NFKC", text[:400])
    # Spaces of all kinds become one; control, format (which turns text), private and unassigned
    # characters are dropped, and marks that do not compose, which pile up over other lines.
    kept = (" " if char.isspace() else char for char in composed)
    readable = "".join(c for c in kept if unicodedata.category(c)[0] != "C" and not _stacks(c))
    name = " ".join(readable.split())[:LONGEST_NAME].strip()
    if not any(char.isalnum() for char in name):
        raise Refused(NO_NAME)
    return name


def _stacks(char: str) -> bool:
    return unicodedata.category(char) in ("Mn", "Me")


def _folded(name: str) -> str:
    """Equal for names that people take for the same."""
    return unicodedata.normalize("NFKC", name).casefold()


def _distinct(name: str, taken: Iterable[str]) -> str:
    """Ben, Ben 2, Ben 3 ..."""
    taken = set(taken)
    number, shown = 1, name
    while _folded(shown) in taken:
        number += 1
        end = f" {number}"
        shown = f"{name[: LONGEST_NAME - len(end)]}{end}"
    return shown


def leave(visitor: str | None) -> None:
    """Delete what the room knows of a member."""
    room = room_of(visitor)
    if room is None:
        return
    with _writing() as db:
        if db is None:
            return
        for table in TABLES:
            db.execute(f"DELETE FROM {table} WHERE room = ? AND visitor = ?", (room.id, visitor))
        _report(db, room.id)
        _order(db, room.id)  # a tab of theirs that is open elsewhere learns of it, too


def me(visitor: str | None) -> Member | None:
    """What the room knows of one member."""
    row = _one("SELECT * FROM members WHERE visitor = ? ORDER BY joined DESC LIMIT 1", visitor)
    return None if row is None else _member(row)


def members(id: str) -> list[Member]:
    """Of a room, in the order they joined: for its teacher."""
    return [
        _member(row) for row in _every("SELECT * FROM members WHERE room = ? ORDER BY joined", id)
    ]


def _member(row: sqlite3.Row) -> Member:
    return Member(
        visitor=row["visitor"],
        name=row["name"],
        lesson=row["lesson"],
        step=row["step"],
        listed=bool(row["listed"]),
        pushes=row["pushes"],
        starts=row["starts"],
        resets=row["resets"],
    )


# ---------------------------------------------------------------- what members do


def note_step(visitor: str | None, lesson: str, step: int) -> None:
    """A member is at this step of a lesson. Costs nothing where that is known."""
    here = me(visitor)
    if here is None or (here.lesson, here.step) == (lesson, step):
        return
    _write_report(
        visitor,
        "UPDATE members SET lesson = ?, step = ? WHERE room = ? AND visitor = ?",
        lesson,
        step,
    )


def note_prediction(visitor: str | None, lesson: str, step: int, value: float) -> None:
    """What somebody expects before the run. Without a room it is remembered in memory alone."""
    if visitor is None or not math.isfinite(value):
        return
    if room_of(visitor) is None:
        with _lock:
            _own[visitor, lesson, step] = float(value)
            while len(_own) > MOST_OWN:
                _own.popitem(last=False)
        return
    _write_report(
        visitor,
        "INSERT OR REPLACE INTO predictions (lesson, step, value, room, visitor) "
        "VALUES (?, ?, ?, ?, ?)",
        lesson,
        step,
        float(value),
    )


_own: OrderedDict[tuple[str, str, int], float] = OrderedDict()
"""Predictions without a room: nothing on disk tells who expected what."""


def predictions(visitor: str | None, lesson: str, step: int) -> list[float]:
    """Everybody's of the room that somebody is in or teaches, smallest first, so that their order
    tells nothing; only one's own without a room.
    """
    room = room_of(visitor) or room_of_teacher(visitor)
    if room is None:
        with _lock:
            return [_own[key] for key in [(visitor or "", lesson, step)] if key in _own]
    rows = _every(
        "SELECT value FROM predictions WHERE room = ? AND lesson = ? AND step = ? ORDER BY value",
        room.id,
        lesson,
        step,
    )
    return [float(row["value"]) for row in rows]


def predicted_steps(id: str) -> list[tuple[str, int]]:
    """The steps of lessons that a room has predictions of, the one answered last at the end."""
    rows = _every(
        "SELECT lesson, step FROM predictions WHERE room = ? GROUP BY lesson, step "
        "ORDER BY MAX(rowid)",
        id,
    )
    return [(row["lesson"], row["step"]) for row in rows]


def note_run(visitor: str | None, run: str) -> None:
    """A member asked for this run, or for an equal one that was there. Pages cannot say so: what
    starts runs does.
    """
    text = "INSERT OR IGNORE INTO runs (run, room, visitor) VALUES (?, ?, ?)"
    _write_report(visitor, text, run, board=True)


def runs_of(visitor: str | None) -> list[str]:
    """Runs that a member asked for in the room."""
    rows = _every("SELECT run FROM runs WHERE visitor = ? ORDER BY rowid", visitor)
    return [row["run"] for row in rows]


def who_asked(run: str) -> list[str]:
    """The members that asked for a run."""
    return [row["visitor"] for row in _every("SELECT visitor FROM runs WHERE run = ?", run)]


def be_listed(visitor: str | None, listed: bool) -> None:
    """Stand on the leader board, or no longer."""
    text = "UPDATE members SET listed = ? WHERE room = ? AND visitor = ?"
    _write_report(visitor, text, listed, board=True)


def follow_up(visitor: str | None, what: str, number: int) -> None:
    """A member has followed that order. what: "pushes", "starts" or "resets"."""
    assert what in ("pushes", "starts", "resets")
    room = room_of(visitor)
    if room is None:
        return
    with _writing() as db:
        if db is not None:
            db.execute(
                f"UPDATE members SET {what} = ? WHERE room = ? AND visitor = ?",
                (number, room.id, visitor),
            )


def _write_report(visitor: str | None, text: str, *values: Any, board: bool = False) -> None:
    """Write something of a member; nothing where they are in no room.

    text: SQL whose last two placeholders are the room and the member; board: it may change who
    stands on the leader board.
    """
    room = room_of(visitor)
    if room is None:
        return
    with _writing() as db:
        if db is not None:
            db.execute(text, (*values, room.id, visitor))
            _report(db, room.id, board)


# ---------------------------------------------------------------- what the teacher does


def start_lesson(id: str, lesson: str | None, step: int = 1) -> None:
    """Start a lesson for all, at a step; None to take it back."""
    _order_all(id, "lesson = ?, step = ?, starts = starts + 1", lesson, step)


def push(id: str, recipe: dict[str, Any], directly: bool) -> None:
    """Hand a recipe to all. directly: it becomes theirs at once, else when they take it.

    One that is only offered concerns no page but its notice, once there was one at all.
    """
    with _writing() as db:
        if db is not None:
            db.execute(
                "UPDATE rooms SET orders = orders + (? OR recipe IS NULL), reports = reports + 1, "
                "recipe = ?, directly = ?, pushes = pushes + 1 WHERE id = ?",
                (directly, json.dumps(recipe), directly, id),
            )


def restrict(id: str, locked: Iterable[str], hidden: Iterable[str]) -> None:
    """Disable the one controls and draw the others for nobody; all that are not named are free."""
    texts = [json.dumps(sorted(set(names))) for names in (locked, hidden)]
    _order_all(id, "locks = ?, hidden = ?", *texts)


def open_board(id: str, rule: Rule) -> None:
    """A leader board by this rule, which stays as it is until the board is closed."""
    _order_all(id, "rule = COALESCE(rule, ?)", json.dumps(asdict(rule)))


def close_board(id: str) -> None:
    with _writing() as db:
        if db is not None:
            db.execute("UPDATE members SET listed = 0 WHERE room = ?", (id,))
            db.execute("UPDATE rooms SET rule = NULL WHERE id = ?", (id,))
            _order(db, id)


def reset(id: str) -> None:
    """Send everybody back to the start: answers, steps, orders and runs of the room are deleted."""
    with _writing() as db:
        if db is None:
            return
        db.execute("DELETE FROM predictions WHERE room = ?", (id,))
        db.execute("DELETE FROM runs WHERE room = ?", (id,))
        db.execute(
            "UPDATE members SET lesson = NULL, step = NULL, listed = 0 WHERE room = ?", (id,)
        )
        db.execute(
            "UPDATE rooms SET lesson = NULL, step = 1, locks = '[]', hidden = '[]', recipe = NULL, "
            "rule = NULL, resets = resets + 1 WHERE id = ?",
            (id,),
        )
        _order(db, id)


def dismiss(id: str, visitor: str) -> None:
    """Take somebody out of the room: for a name that nobody should read. They may join again."""
    room = room_of(visitor)
    if room is not None and room.id == id:
        leave(visitor)


def _order_all(id: str, change: str, *values: Any) -> None:
    with _writing() as db:
        if db is not None:
            db.execute(f"UPDATE rooms SET {change} WHERE id = ?", (*values, id))
            _order(db, id)


def _order(db: sqlite3.Connection, id: str) -> None:
    """What the teacher asks for concerns what the teacher sees, too."""
    db.execute("UPDATE rooms SET orders = orders + 1, reports = reports + 1 WHERE id = ?", (id,))


def _report(db: sqlite3.Connection, id: str, board: bool = False) -> None:
    db.execute(
        "UPDATE rooms SET reports = reports + 1, board = board + ? WHERE id = ?", (board, id)
    )


# ---------------------------------------------------------------- news


def orders(room: Room) -> dict[str, str]:
    """What a member's tab asks to be told of: name -> state, as `states` answers it."""
    # By its id and not its code: who may ask must not learn which codes there are.
    return {f"{NEWS}orders-{room.id}": str(room.orders)}


def offers(room: Room) -> dict[str, str]:
    """What the notice of a recipe that is handed out asks to be told of."""
    return {f"{NEWS}offers-{room.id}": str(room.pushes)}


def reports(room: Room) -> dict[str, str]:
    """What the teacher's tab asks to be told of."""
    # After the point is what is told in turn, the farther apart the more tabs follow it.
    return {f"{NEWS}reports-{room.id}": f"{room.orders}.{room.reports}"}


def board_news(room: Room) -> dict[str, str]:
    """What a leader board asks to be told of, beside the runs on it."""
    return {f"{NEWS}board-{room.id}": f"{room.orders}.{room.board}"}


def states(names: Iterable[str]) -> dict[str, str]:
    """The states of such names; "ended" of a room that is no more."""
    return {name: _state(name.removeprefix(NEWS)) for name in names}


def _state(name: str) -> str:
    what, _, id = name.partition("-")
    row = _one("SELECT orders, reports, board, pushes FROM rooms WHERE id = ?", id)
    if row is None:
        return "ended"
    if what == "orders":
        return str(row["orders"])
    if what == "offers":
        return str(row["pushes"])
    return f"{row['orders']}.{row['board' if what == 'board' else 'reports']}"


def parted(names: Iterable[str]) -> tuple[list[str], list[str]]:
    """The names that are of rooms, and the others."""
    every = list(names)
    return [name for name in every if name.startswith(NEWS)], [
        name for name in every if not name.startswith(NEWS)
    ]
