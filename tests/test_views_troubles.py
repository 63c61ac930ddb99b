"""A store that is newer, damaged, deleted, read-only or full: every page says so and goes on."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from pages import opened, texts, walked_to

from dashboard import jobs
from pruning.recipe import Recipe
from pruning.runs import database, pool
from pruning.runs.store import Store


@pytest.fixture(autouse=True)
def no_pool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "ensure", lambda *_: False)


@pytest.fixture
def workspace(home: Path) -> Path:
    """With a finished run, the example, and nobody who has the file open."""
    Store(home)
    opened("model")
    jobs._store.cache_clear()
    return home


def execute(workspace: Path, statement: str) -> None:
    with sqlite3.connect(workspace / "runs.sqlite") as db:
        db.execute(statement)
    db.close()


def newer(workspace: Path) -> None:
    execute(workspace, "PRAGMA user_version = 99")


def overwritten(workspace: Path) -> None:
    execute(workspace, "PRAGMA wal_checkpoint(TRUNCATE)")  # else the log repairs it
    (workspace / "runs.sqlite").write_bytes(b"no database at all " * 1000)


def truncated(workspace: Path) -> None:
    execute(workspace, "PRAGMA wal_checkpoint(TRUNCATE)")
    with open(workspace / "runs.sqlite", "r+b") as file:
        file.truncate(6000)


class Trouble(NamedTuple):
    make: Callable[[Path], None]
    words: str
    page: str


TROUBLES = [
    Trouble(newer, "update the workbench", "prune"),
    Trouble(overwritten, "is damaged", "model"),
    Trouble(truncated, "is damaged", "compare"),
]


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda trouble: trouble.make.__name__)
def test_a_page_says_once_what_is_wrong_with_the_store(workspace: Path, trouble: Trouble) -> None:
    trouble.make(workspace)
    page = opened(trouble.page)
    assert not page.exception
    errors = [error.value for error in page.error]
    assert len(errors) == 1 and trouble.words in errors[0], errors
    assert page.title, "the page itself is there"


def test_a_damaged_store_is_set_aside_by_a_press(workspace: Path) -> None:
    overwritten(workspace)
    page = opened("model")
    page.button(key="store-set-aside").click().run()
    assert not page.exception and not page.error
    assert "a new one was begun" in texts(page)
    assert [job.batch for job in Store(workspace).jobs("run")] == ["example"]
    assert len(list(workspace.glob("runs-damaged-*.sqlite"))) == 1


def test_a_run_pressed_after_the_folder_was_deleted_is_in_the_new_store(workspace: Path) -> None:
    page = opened("prune")
    shutil.rmtree(workspace)
    page.button(key="run-now").click().run()
    assert not page.exception
    assert "was deleted or moved" in texts(page)
    (run,) = [job for job in Store(workspace).jobs("run") if job.batch is None]
    assert run.state == "queued"
    page.run()
    assert "was deleted or moved" not in texts(page), "it is said once"
    assert "was deleted or moved" in texts(opened("model")), "and to who comes within minutes"


def test_a_full_disk_is_said_before_anything_is_pressed(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "LEAST_ROOM", 1 << 80)
    page = opened("prune")
    assert not page.exception
    assert "The disk of" in page.error[0].value


def test_a_store_that_may_only_be_read_shows_its_results(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = Store(workspace).jobs("run")[0].id
    monkeypatch.setattr(database, "_may_write", lambda file: False)
    page = opened("model", run=run)
    assert not page.exception
    errors = [error.value for error in page.error]
    assert len(errors) == 1 and "may only be read" in errors[0]
    assert "98.6" in texts(page), "the result is there to be looked at"
    page = opened("prune")
    page.button(key="run-now").click().run()
    assert not page.exception and "may only be read" in texts(page)


BAD_ROWS = {
    "a recipe that is no JSON": "spec = '{\"model\": '",
    "a recipe that cannot be followed": "spec = '{\"version\": 99}'",
    "a state nobody knows": "state = 'melted'",
    "a time that is none": "submitted = 'yesterday'",
}


@pytest.mark.parametrize("column", BAD_ROWS.values(), ids=BAD_ROWS)
def test_one_bad_row_is_named_and_everything_else_goes_on(workspace: Path, column: str) -> None:
    id = Store(workspace).submit("run", Recipe(model="digits-mlp").to_dict())
    execute(workspace, "UPDATE jobs SET state = 'finished'")
    execute(workspace, f"UPDATE jobs SET {column} WHERE id = '{id}'")
    page = walked_to("compare")
    assert not page.exception and not page.error
    assert any(id in warning.value and "damaged" in warning.value for warning in page.warning)
    page.button(key=f"damaged-{id}").click().run()
    assert not page.exception and not page.warning
    assert len(Store(workspace).jobs("run")) == 1
