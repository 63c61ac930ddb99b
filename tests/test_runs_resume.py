"""Workers that die or have to end: their runs go on from the last whole checkpoint. Played here;
`python3 run.py faults` plays it with real ones.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pruning import Workpiece, storage
from pruning.errors import DiskFull
from pruning.events import Epoch, Event, Failed, Finished, Halted, Notice, Pruned, Started
from pruning.recipe import Recipe
from pruning.runs import checkpoint_files, checkpoints, handlers, results, worker
from pruning.runs.store import CHECKPOINTS, RESUMES, Job, Store

EPOCHS = 4
RUN = Recipe(model="tiny", sparsity=0.5, epochs=EPOCHS, batch=16).to_dict()
KILLED = "The process that worked on this was ended from outside (SIGKILL): start it again."


class Kill(BaseException):
    """Ends an attempt at once: nothing of it is recorded."""


@pytest.fixture
def tiny_store(home: Path, tiny: Workpiece, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store whose every model is the tiny one, and whose checkpoints may cost what they do."""
    monkeypatch.setattr("pruning.runs.handlers.resolve", lambda model, place, **ways: tiny)
    monkeypatch.setattr(checkpoints, "SHARE", 1e9)
    return Store()


def killed_after(store: Store, epochs: int, monkeypatch: pytest.MonkeyPatch) -> Job:
    """An attempt whose process is killed after so many more epochs, its next one under way."""
    job = store.claim()
    assert job is not None
    left = [epochs]
    append = Store.append

    def counted(self: Store, job: Job, event: Event) -> int:
        if isinstance(event, Epoch):
            left[0] -= 1
            if left[0] < 0:
                raise Kill
        return append(self, job, event)

    with monkeypatch.context() as patch, pytest.raises(Kill):
        patch.setattr(Store, "append", counted)
        handlers.do(store, job, lambda: False)
    return job


def events_of(store: Store, id: str) -> list[Event]:
    return [event for _, event in store.events(id)]


def attended(store: Store, id: str) -> Job:
    job = store.claim()
    assert job is not None and job.id == id
    assert worker.attend(store, job, worker.Shutdown())
    return store.job(id)


def final_weights(job: Job) -> dict[str, bytes]:
    from safetensors.numpy import load_file

    weights = load_file(results.load_run(job.folder).weights)
    return {name: tensor.tobytes() for name, tensor in weights.items()}


def test_a_run_goes_on_where_its_worker_was_killed(
    tiny_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = attended(tiny_store, tiny_store.submit("run", RUN))
    id = tiny_store.submit("run", RUN)
    for attempt in range(RESUMES):
        job = killed_after(tiny_store, 1, monkeypatch)
        assert tiny_store.give_up(job, KILLED)
        waiting = tiny_store.job(id)
        assert (waiting.state, waiting.resumed) == ("queued", attempt + 1)
    done = attended(tiny_store, id)
    assert (done.state, done.message, done.attempt) == ("finished", None, RESUMES + 1)
    assert final_weights(done) == final_weights(whole)
    events = events_of(tiny_store, id)
    without = [event for event in events if not isinstance(event, Notice)]
    assert [type(e) for e in without] == [type(e) for e in events_of(tiny_store, whole.id)]
    assert [e.epoch for e in events if isinstance(e, Epoch)] == list(range(1, EPOCHS + 1))
    why = "after the process that worked on this was ended from outside (SIGKILL)."
    notices = [event.text for event in events if isinstance(event, Notice)]
    assert notices == [f"Resumed from epoch {epoch} of step 1 {why}" for epoch in (1, 2)]
    assert sum(isinstance(event, Started) for event in events) == 1
    assert not list(done.folder.glob(CHECKPOINTS)), "nobody goes on from there any more"


def test_a_run_that_kills_every_worker_is_given_up(
    tiny_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = tiny_store.submit("run", RUN)
    for _ in range(RESUMES + 1):
        assert tiny_store.give_up(killed_after(tiny_store, 0, monkeypatch), KILLED)
    failed = tiny_store.job(id)
    assert failed.state == "failed" and tiny_store.claim() is None
    assert failed.message is not None and failed.message.startswith(KILLED)
    assert isinstance(events_of(tiny_store, id)[-1], Failed)
    assert not list(failed.folder.glob(CHECKPOINTS))


ENDINGS: dict[str, Callable[[Store, Job], object]] = {
    "stopped": lambda store, job: store.stop(job.id),
    "ended": lambda store, job: store.end(job, "stopped", "Stopped.", Halted(0, 0)),
    "trashed": lambda store, job: store.trash(job.id),
    "nobody to do it": lambda store, job: store.fail_waiting("No worker can start."),
    "its sweep cancelled": lambda store, job: store.cancel_sweep(store.sweeps()[0].id),
    "its row damaged": lambda store, job: damage(store, job),
}


def damage(store: Store, job: Job) -> None:
    with store.database.write() as db:
        db.execute("UPDATE jobs SET spec = '[]' WHERE id = ?", (job.id,))
    assert store.claim() is None


@pytest.mark.parametrize("how", ENDINGS)
def test_however_a_waiting_run_ends_its_checkpoints_are_deleted(
    tiny_store: Store, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    tiny_store.begin_sweep({}, {"run": RUN})
    job = killed_after(tiny_store, 1, monkeypatch)
    tiny_store.give_up(job, KILLED)
    assert list(job.folder.glob(CHECKPOINTS)), "it would go on from there"
    ENDINGS[how](tiny_store, tiny_store.job(job.id))
    assert not list(job.folder.glob(CHECKPOINTS))


@pytest.mark.parametrize("cut", [0, 40, -1])
def test_of_a_torn_checkpoint_the_one_before_counts(
    tiny_store: Store, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    id = tiny_store.submit("run", RUN)
    job = killed_after(tiny_store, 3, monkeypatch)
    _, newest = sorted(job.folder.glob(CHECKPOINTS))
    with open(newest, "r+b") as file:
        file.truncate(newest.stat().st_size + cut if cut < 0 else cut)
    tiny_store.give_up(job, KILLED)
    saved = checkpoints.newest(job.folder)
    assert saved is not None and saved.checkpoint.training and saved.checkpoint.training.epoch == 2
    done = attended(tiny_store, id)
    assert done.state == "finished", done.message
    events = events_of(tiny_store, id)
    assert [e.epoch for e in events if isinstance(e, Epoch)] == list(range(1, EPOCHS + 1))
    assert any(isinstance(e, Notice) and "from epoch 2 of step 1" in e.text for e in events)


def test_a_byte_that_changed_is_no_checkpoint(
    tiny_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_store.submit("run", RUN)
    job = killed_after(tiny_store, 1, monkeypatch)
    for file in job.folder.glob(CHECKPOINTS):
        content = bytearray(file.read_bytes())
        content[len(content) // 2] ^= 1
        file.write_bytes(bytes(content))
    assert checkpoints.newest(job.folder) is None
    tiny_store.give_up(job, KILLED)
    done = attended(tiny_store, job.id)
    assert done.state == "finished", done.message
    assert events_of(tiny_store, job.id)[0] == Notice(
        "Began anew after the process that worked on this was ended from outside (SIGKILL)."
    )


def test_a_worker_that_has_to_end_leaves_its_run_to_the_next(
    tiny_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = tiny_store.submit("run", RUN)
    shutdown = worker.Shutdown()
    append = Store.append

    def asked_to_end(self: Store, job: Job, event: Event) -> int:
        number = append(self, job, event)
        if isinstance(event, Epoch) and event.epoch == 2:
            shutdown.request()
        return number

    job = tiny_store.claim()
    assert job is not None
    with monkeypatch.context() as patch:
        patch.setattr(Store, "append", asked_to_end)
        # As if each look came at once: the heartbeat looks only now and then.
        patch.setattr(worker.Heartbeat, "should_stop", lambda self: shutdown.requested)
        patch.setattr(worker.Heartbeat, "reason", "shutdown", raising=False)
        patch.setattr(worker.Heartbeat, "run", lambda self: setattr(self, "reason", "shutdown"))
        assert worker.attend(tiny_store, job, shutdown)
    waiting = tiny_store.job(id)
    assert (waiting.state, waiting.resumed) == ("queued", 0)
    assert not (waiting.folder / "final.safetensors").exists(), "it did not wait to save a model"
    done = attended(tiny_store, id)
    assert done.state == "finished", done.message
    epochs = [e.epoch for e in events_of(tiny_store, id) if isinstance(e, Epoch)]
    assert epochs == list(range(1, EPOCHS + 1))


def test_a_stop_after_a_resume_keeps_what_was_reached_before(
    tiny_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = tiny_store.submit("run", {**RUN, "steps": 2, "epochs": 1})
    tiny_store.give_up(killed_after(tiny_store, 1, monkeypatch), KILLED)
    job = tiny_store.claim()
    assert job is not None
    tiny_store.stop(id)
    assert tiny_store.has_reached(job) is False, "its events come with the checkpoint"
    handlers.do(tiny_store, job, lambda: True)
    stopped = tiny_store.job(id)
    last = events_of(tiny_store, id)[-1]
    assert stopped.state == "stopped" and isinstance(last, Halted) and last.result is not None
    assert (last.step, last.epoch, last.done) == (1, 1, 1)
    assert sum(isinstance(event, Pruned) for event in events_of(tiny_store, id)) == 2
    assert results.has_result(stopped.folder)


def test_a_checkpoint_that_finds_no_room_is_left_out(
    tiny_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise DiskFull("The disk is full.")

    monkeypatch.setattr(checkpoints, "write", full)
    done = attended(tiny_store, tiny_store.submit("run", RUN))
    assert done.state == "finished", done.message
    assert isinstance(events_of(tiny_store, done.id)[-1], Finished)


def test_where_epochs_are_short_checkpoints_are_a_second_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])

    def slow(*_: object) -> None:
        now[0] += 0.1

    monkeypatch.setattr(checkpoints, "write", slow)
    writer = checkpoints.Writer(tmp_path, 1)
    written = 0
    for _ in range(1000):  # epochs of 50 ms
        now[0] += 0.05
        if writer.due():
            writer.write(None)  # type: ignore[arg-type]
            written += 1
    # Two percent would be one in five seconds: no more work than a second's is to be lost.
    assert written == pytest.approx(now[0] / (checkpoints.APART + 0.1), rel=0.06)


def test_only_the_two_newest_are_kept_and_each_is_whole(
    tiny_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny_store.submit("run", RUN)
    drafts: list[Path] = []
    replace = os.replace

    def replaced(draft: Path, file: Path) -> None:
        if Path(file).match(CHECKPOINTS):
            drafts.append(Path(draft))
            assert checkpoints._read(Path(draft)) is not None, "whole before it has its name"
        replace(draft, file)

    monkeypatch.setattr(storage.os, "replace", replaced)
    job = killed_after(tiny_store, 3, monkeypatch)
    assert len(drafts) == 4, "after the pruning, and after each epoch"
    assert len(list(job.folder.glob(CHECKPOINTS))) == checkpoint_files.KEPT
    assert not list(job.folder.glob(".*"))
