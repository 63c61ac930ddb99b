"""What people call runs, and deleting with undo: laws of the store."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from pruning.errors import OutOfRange, RunError
from pruning.recipe import Recipe
from pruning.runs.store import KEPT, LONGEST_LABEL, MOST_TAGS, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def run(store: Store, seed: int = 0, model: str = "digits-cnn") -> str:
    recipe = Recipe(model=model, sparsity=0.5, seed=seed)
    return store.submit("run", recipe.to_dict(), key=f"run:{recipe.id}")


def finish(store: Store) -> str:
    """Finish the next run, with a file in its folder."""
    job = store.claim(queues=("run",))
    assert job is not None
    job.folder.mkdir(parents=True, exist_ok=True)
    (job.folder / "result.json").write_text("{}")
    store.finish(job, "finished")
    return job.id


def test_names_tags_and_notes_are_kept_as_they_were_given(store: Store) -> None:
    id = run(store)
    job = store.job(id)
    assert (job.label, job.tags, job.note, job.deleted) == (None, (), None, None)
    store.label(id, "  the <b>best</b>\none\x00 ")
    store.tag(id, ["thesis", "thesis", " ", "*bold*"])
    store.note(id, "line 1\nline 2\u202e")
    job = Store(store.workspace).job(id)
    assert (job.label, job.tags) == ("the <b>best</b> one", ("thesis", "*bold*"))
    assert job.note == "line 1\nline 2"
    store.label(id, " ")
    store.tag(id, [])
    store.note(id, "")
    job = store.job(id)
    assert (job.label, job.tags, job.note) == (None, (), None)


def test_what_is_too_long_is_refused_and_nothing_changes(store: Store) -> None:
    id = run(store)
    store.label(id, "a")
    with pytest.raises(OutOfRange, match="81, but must be at most 80"):
        store.label(id, "x" * (LONGEST_LABEL + 1))
    with pytest.raises(OutOfRange, match="13, but must be at most 12"):
        store.tag(id, [str(i) for i in range(MOST_TAGS + 1)])
    with pytest.raises(OutOfRange, match="a run's note"):
        store.note(id, "x" * 5000)
    assert store.job(id).label == "a"
    for change in (store.label, store.note):
        with pytest.raises(RunError, match="no job"):
            change("abc", "x")


def test_a_column_that_holds_something_else_takes_no_list_down(store: Store) -> None:
    whole, tags, label = run(store), run(store, 1), run(store, 2)
    with sqlite3.connect(store.file) as db:
        db.execute("UPDATE jobs SET tags = '{\"a\": [' WHERE id = ?", (tags,))
        db.execute("UPDATE jobs SET label = x'00ff' WHERE id = ?", (label,))
    assert {job.id: job.tags for job in store.jobs("run")} == {whole: (), tags: ()}
    assert "no text" in store.damaged[label]


def test_a_deleted_run_is_in_no_list_and_comes_back_whole(store: Store) -> None:
    id = run(store)
    finish(store)
    store.label(id, "kept")
    store.trash(id)
    spec = store.job(id).spec
    assert store.jobs("run") == [] and store.jobs_of("run", spec) == []
    assert [job.id for job in store.trashed()] == [id]
    before = store.job(id).deleted
    store.trash(id)  # a second press changes nothing
    assert store.job(id).deleted == before
    # An equal run begins anew.
    again = run(store)
    assert again != id
    store.restore(id)
    assert {job.id for job in store.jobs("run")} == {id, again}
    job = store.job(id)
    assert (job.state, job.label, job.deleted) == ("finished", "kept", None)
    assert (job.folder / "result.json").exists() and store.trashed() == []
    with pytest.raises(RunError, match="no job"):
        store.trash("abc")


def test_what_waits_or_works_is_stopped_by_deleting_it(store: Store) -> None:
    works, waits = run(store), run(store, 1)
    job = store.claim(queues=("run",))
    assert job is not None and job.id == works
    store.trash(works)
    store.trash(waits)
    assert store.job(waits).state == "stopped" and store.waiting() == {}
    assert store.stopping(job)  # its worker ends it as it ends any run
    store.finish(job, "stopped", "Stopped.")
    store.restore(works)
    assert [job.id for job in store.jobs("run")] == [works]


def test_files_are_removed_after_a_while_and_not_before(store: Store) -> None:
    old, young = run(store), run(store, 1)
    finish(store), finish(store)
    store.trash(old)
    store.trash(young)
    with sqlite3.connect(store.file) as db:
        db.execute("UPDATE jobs SET deleted = deleted - ? WHERE id = ?", (KEPT + 1, old))
    assert store.sweep_trash() == [old]
    assert not store.folder(old).exists() and store.folder(young).exists()
    with pytest.raises(RunError, match="no job"):
        store.restore(old)
    assert store.sweep_trash() == []


def test_a_run_keeps_the_files_that_it_starts_from(store: Store) -> None:
    parent = run(store)
    finish(store)
    child = run(store, model=f"run:{parent}")
    store.trash(parent)
    assert store.sweep_trash(kept=-1) == []
    assert finish(store) == child
    assert store.sweep_trash(kept=-1) == [parent]
