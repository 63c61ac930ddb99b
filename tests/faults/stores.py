"""A store that is newer, damaged, cut off, deleted, or has a row that says nothing."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from faults.pages import open_page, press_run, shown
from faults.stage import SHORT, check, stage, until

from dashboard.pages import PAGE_NAMES
from pruning.runs.store import Store


def execute(home: Path, statement: str) -> None:
    with sqlite3.connect(home / "runs.sqlite") as db:
        db.execute("PRAGMA foreign_keys = ON")
        db.execute(statement)
    db.close()


def newer(home: Path) -> None:
    execute(home, "PRAGMA user_version = 99")


def overwritten(home: Path) -> None:
    execute(home, "PRAGMA wal_checkpoint(TRUNCATE)")
    (home / "runs.sqlite").write_bytes(b"no database at all " * 1000)


def cut(home: Path, size: int) -> None:
    execute(home, "PRAGMA wal_checkpoint(TRUNCATE)")
    with open(home / "runs.sqlite", "r+b") as file:
        file.truncate(size)


WHOLE: dict[str, tuple[Callable[[Path], None], str]] = {
    "newer store": (newer, "update the workbench"),
    "overwritten store": (overwritten, "is damaged"),
    "store cut to one page and a half": (partial(cut, size=6000), "is damaged"),
    "store cut to 100 bytes": (partial(cut, size=100), "is damaged"),
    "emptied store": (partial(cut, size=0), "is damaged"),
}
"""Name -> how it is made, and what every page says."""

ROWS = {
    "a recipe that is no JSON": "UPDATE jobs SET spec = '{\"model\": ' WHERE id = '{id}'",
    "a recipe that is a list": "UPDATE jobs SET spec = '[]' WHERE id = '{id}'",
    "a recipe of a later version": "UPDATE jobs SET spec = '{{\"version\": 99}}' WHERE id = '{id}'",
    "a state nobody knows": "UPDATE jobs SET state = 'melted' WHERE id = '{id}'",
    "a time that is none": "UPDATE jobs SET submitted = 'yesterday' WHERE id = '{id}'",
    "an event that is no JSON": "UPDATE events SET body = 'x' WHERE job = '{id}' AND number = 2",
}


def whole(make: Callable[[Path], None], words: str) -> str:
    """Every page says it, of a server that was running and of one that starts on it."""
    for fresh in (True, False):
        folder = Path(tempfile.mkdtemp(prefix="pruning-faults-"))
        home = folder / "workspace"
        open_page("model", home)
        make(home)
        for name in PAGE_NAMES:
            page = open_page(name, home, fresh=fresh and name == PAGE_NAMES[0])
            check(words in page.banner, f"{name} says {page.banner!r}")
            said = [error for error in page.errors if words in error]
            check(len(said) == 1, f"{name} says it {len(said)} times")
        shutil.rmtree(folder)
    return f"{2 * len(PAGE_NAMES)} pages: “{page.banner.replace(str(home), 'workspace')}”"


def one_row() -> str:
    """Pages name it and go on; workers pass over it."""
    for what, statement in ROWS.items():
        folder = Path(tempfile.mkdtemp(prefix="pruning-faults-"))
        home = folder / "workspace"
        open_page("model", home)
        store = Store(home)
        (example,) = store.jobs("run")
        id = example.id
        execute(home, statement.replace("{id}", id).replace("{{", "{").replace("}}", "}"))
        for name in PAGE_NAMES:
            page = open_page(name, home, fresh=name == PAGE_NAMES[0], run=id)
        # The last page was drawn after every row had been looked at.
        named = [text for text in page.warnings if id in text]
        check(len(named) == 1, f"{what}: {page.warnings}")
        shutil.rmtree(folder)
    return f"{len(ROWS)} kinds of row, {len(ROWS) * len(PAGE_NAMES)} pages"


def bad_rows_in_the_queue() -> str:
    with stage() as here:
        bad = [here.submit() for _ in range(5)]
        good = here.submit()
        for id in bad:
            execute(here.home, f"UPDATE jobs SET spec = 'x' WHERE id = '{id}'")
        here.open_server()
        check(here.ended(good).state == "finished", "the sound run is done")
        with sqlite3.connect(here.store.file) as db:
            states = db.execute("SELECT DISTINCT state FROM jobs WHERE spec = 'x'").fetchall()
        check(states == [("failed",)], f"the others are {states}")
    return "five of them failed in words, and the run behind them finished"


def folder_deleted() -> str:
    """Under a server: the next press is in a new store, and the page says what happened."""
    folder = Path(tempfile.mkdtemp(prefix="pruning-faults-"))
    home = folder / "workspace"
    page = open_page("prune", home)
    shutil.rmtree(home)
    said = press_run(page)
    check("was deleted or moved" in said, f"the page says {said!r}")
    (run,) = [job for job in Store(home).jobs("run") if job.batch is None]
    check(run.state == "queued", "the run is in the store")
    other = open_page("model", home, fresh=False)
    check("was deleted or moved" in other.text, "another tab says it, too")
    check("was deleted or moved" not in shown(other.page.run()).text, "once")
    shutil.rmtree(folder)
    return "the run is in the new store, and every tab says once what happened"


def folder_deleted_under_a_run() -> str:
    """Pool and workers leave it, and begin anew where a server asks."""
    with stage() as here:
        here.open_server()
        run = here.submit(SHORT.__class__(model=SHORT.model, epochs=10_000))
        here.trained(run)
        before = set(here.processes()) - {server.pid for server in here.servers}
        shutil.rmtree(here.home)
        until(lambda: not before & set(here.processes()), "the old pool and workers end", 60)
        here.store = Store(here.home)
        check(here.ended(here.submit()).state == "finished", "a new run finishes")
    return "the old pool left, a new one worked on"


CASES: dict[str, Callable[[], str]] = {
    **{name: partial(whole, make, words) for name, (make, words) in WHOLE.items()},
    "one bad row": one_row,
    "bad rows in the queue": bad_rows_in_the_queue,
    "folder deleted under a page": folder_deleted,
    "folder deleted under a run": folder_deleted_under_a_run,
}
