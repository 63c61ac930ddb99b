"""Sweeps in a store: each run once, pause, resume, cancel, failures, seeds, how long it takes."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pruning.cli import main, sweep
from pruning.errors import RecipeError, RunError
from pruning.events import Failed, Finished, Measurement, Size
from pruning.metrics import Accuracy, Latency
from pruning.outcomes import unpack
from pruning.recipe import Recipe
from pruning.runs import engines, process_id, waits
from pruning.runs.results import save_result
from pruning.runs.store import Job, Store
from pruning.runs.worker import Shutdown
from pruning.sweeps import make, sweeps
from pruning.sweeps.here import run_here
from pruning.sweeps.plan import Plan
from pruning.sweeps.sweeps import Progress
from pruning.sweeps.table import COLUMNS, point_of, row

DENSE = Measurement(
    Accuracy(98, 100), 0.1, 80, 80, 90, 80, 80, Size(400, 400, 300), Latency(2.0, 1.9, 2.1, 1, 1, 9)
)
FINAL = replace(DENSE, accuracy=Accuracy(95, 100), kept=20, macs_kept=40, size=Size(400, 90, 60))
FINISHED = Finished(0.75, DENSE, replace(FINAL, accuracy=Accuracy(60, 100)), FINAL, 3.0)

PLAN = Plan(
    models=("digits-mlp",),
    criteria=("magnitude", "taylor"),
    sparsities=(0.5, 0.9),
    controls=(),
    fields={"epochs": 1},
)
"""Four runs."""

REAL = Plan(models=("digits-mlp",), sparsities=(0.5, 0.9), controls=("random",))
"""Four runs of about a second: nothing is trained."""


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "workspace")


def work(store: Store, count: int = 1000, state: str = "finished") -> list[Job]:
    """Do as a worker does, without the work; the jobs in the order that they were taken."""
    taken: list[Job] = []
    while len(taken) < count and (job := store.claim(queues=("run",))) is not None:
        if state == "finished":
            save_result(job.folder, FINISHED)
            store.finish(job, "finished", event=FINISHED)
        else:
            store.finish(job, state, "It broke.", Failed("RunError", "It broke."))
        taken.append(job)
    return taken


def counts(store: Store, id: str) -> dict[str, int]:
    now = sweeps.state(store, id)
    assert now.total == now.done + now.running + now.waiting + now.failed + now.stopped
    names = ("done", "running", "waiting", "failed", "stopped")
    return {name: getattr(now, name) for name in names if getattr(now, name)}


# ---------------------------------------------------------------- each run once


def test_each_run_is_once_over_two_sweeps_and_what_people_started(store: Store) -> None:
    first = PLAN.points()[0].recipe
    # A press on a page is a run without a key; its result is the point all the same.
    store.submit("run", first.to_dict())
    (own,) = work(store)
    a = sweeps.submit(store, PLAN)
    assert counts(store, a) == {"done": 1, "waiting": 3}
    wider = replace(PLAN, criteria=("magnitude", "taylor", "wanda"))
    b = sweeps.submit(store, wider, visitor="somebody")
    assert len(store.jobs("run")) == len(wider.points()) == 6
    work(store)
    assert counts(store, a) == {"done": 4} and counts(store, b) == {"done": 6}
    runs = {row["recipe"]: row["run"] for row in sweeps.rows(store, b)}
    assert runs[first.id] == own.id
    for row_of_a in sweeps.rows(store, a):
        assert runs[row_of_a["recipe"]] == row_of_a["run"]
    assert set(store.sweeps_of_run(own.id)) == {a, b}
    # And the other way round: asked for once by a page, the sweep's run is the answer.
    other = PLAN.points()[1].recipe
    assert store.submit("run", other.to_dict(), key=f"run:{other.id}") == runs[other.id]


def test_an_equal_plan_goes_on_for_the_same_visitor_alone(store: Store) -> None:
    a = sweeps.submit(store, PLAN)
    assert sweeps.submit(store, Plan.from_json(PLAN.to_json())) == a
    other = sweeps.submit(store, PLAN, visitor="somebody", label="mine")
    assert other != a and len(store.jobs("run")) == 4
    assert store.sweep(other).label == "mine" and store.sweep(other).visitor == "somebody"
    assert [sweep.id for sweep in store.sweeps()] == [other, a]
    assert sweeps.plan_of(store, a) == PLAN


def test_runs_come_in_the_plans_order_and_after_peoples(store: Store) -> None:
    sweeps.submit(store, PLAN)
    person = store.submit("run", Recipe(model="digits-mlp", seed=9).to_dict())
    taken = work(store)
    assert taken[0].id == person
    asked = [point.recipe.to_dict() for point in PLAN.points()]
    assert [job.spec for job in taken[1:]] == asked


def test_a_finished_run_without_its_files_is_done_again(store: Store) -> None:
    a = sweeps.submit(store, PLAN)
    lost = work(store)[0]
    assert all(row["accuracy"] for row in sweeps.rows(store, a))
    (lost.folder / "result.json").unlink()
    assert counts(store, a) == {"done": 3, "stopped": 1}
    (without,) = (row for row in sweeps.rows(store, a) if row["state"] == "cancelled")
    assert without["accuracy"] is None
    sweeps.resume(store, a)
    assert counts(store, a) == {"done": 3, "waiting": 1}
    store.delete(store.runs_of_sweep(a)[-1].id)
    assert counts(store, a) == {"done": 3, "stopped": 1}
    sweeps.resume(store, a)
    work(store)
    assert counts(store, a) == {"done": 4}


# ---------------------------------------------------------------- pause, cancel


def test_a_paused_sweeps_runs_wait_until_it_is_resumed(store: Store) -> None:
    a = sweeps.submit(store, PLAN)
    work(store, 1)
    sweeps.pause(store, a)
    assert work(store) == [] and not store.any_waiting(("run",))
    assert sweeps.state(store, a).state == "paused"
    assert counts(store, a) == {"done": 1, "waiting": 3}
    sweeps.resume(store, a)
    assert len(work(store)) == 3 and sweeps.state(store, a).state == "active"


def test_pausing_leaves_what_another_sweep_or_a_person_wants(store: Store) -> None:
    a, b = sweeps.submit(store, PLAN), sweeps.submit(store, replace(PLAN, sparsities=(0.5,)))
    wanted = next(p.recipe for p in PLAN.points() if p.sparsity == 0.9)
    sweeps.pause(store, a)
    assert store.submit("run", wanted.to_dict(), key=f"run:{wanted.id}")
    taken = work(store)
    assert [job.spec["sparsity"] for job in taken] == [0.9, 0.5, 0.5], "the person's first"
    assert counts(store, b) == {"done": 2} and counts(store, a) == {"done": 3, "waiting": 1}
    # What is parked for one sweep, another that is submitted later wants at once.
    sweeps.submit(store, PLAN, visitor="somebody")
    assert len(work(store)) == 1 and counts(store, a) == {"done": 4}


def test_a_run_that_worked_while_its_sweep_was_paused_waits_like_the_others(store: Store) -> None:
    a = sweeps.submit(store, PLAN)
    job = store.claim()
    assert job is not None
    sweeps.pause(store, a)
    store.release(job)
    assert store.claim() is None


def test_cancelling_stops_what_nobody_else_wants(store: Store) -> None:
    a = sweeps.submit(store, PLAN)
    work(store, 1)
    works = store.claim()
    assert works is not None
    b = sweeps.submit(store, replace(PLAN, sparsities=(0.9,)), visitor="somebody")
    sweeps.pause(store, b)
    sweeps.cancel(store, a)
    assert sweeps.state(store, a).state == "cancelled"
    # Nothing of b is stopped, nor begun while it is paused; the one that works is a's alone.
    assert store.stopping(works) == (works.spec["sparsity"] == 0.5)
    assert "stopped" not in counts(store, b)
    assert [job for job in work(store) if job.spec["sparsity"] == 0.9] == []
    sweeps.resume(store, b)
    work(store)
    assert counts(store, b)["done"] + counts(store, b).get("running", 0) == 2


def test_a_cancelled_sweep_that_is_asked_for_again_goes_on(store: Store) -> None:
    for begin in (lambda a: sweeps.submit(store, PLAN), lambda a: sweeps.resume(store, a)):
        a = sweeps.submit(store, PLAN)
        work(store, 1)
        sweeps.cancel(store, a)
        assert "waiting" not in counts(store, a) and work(store) == []
        begin(a)
        assert "stopped" not in counts(store, a)
    work(store)
    assert counts(store, a) == {"done": 4}


# ---------------------------------------------------------------- failures, seeds


def test_failed_runs_are_run_again_for_every_sweep_that_has_them(store: Store) -> None:
    a = sweeps.submit(store, PLAN)
    b = sweeps.submit(store, replace(PLAN, criteria=("magnitude",)))
    work(store, 2, state="failed")
    work(store)
    assert counts(store, a) == {"done": 2, "failed": 2}
    assert sweeps.failures(store, a) == {"It broke.": 2}
    states = Counter(row["state"] for row in sweeps.rows(store, a))
    assert states == {"done": 2, "failed": 2}
    sweeps.resume(store, a)
    assert counts(store, a) == {"done": 2, "failed": 2}, "going on is not trying again"
    sweeps.rerun_failed(store, a)
    assert counts(store, a) == {"done": 2, "waiting": 2}
    work(store)
    assert counts(store, a) == {"done": 4} and counts(store, b) == {"done": 2}
    assert sweeps.failures(store, b) == {}


def test_added_seeds_are_new_points_beside_the_old_ones(store: Store) -> None:
    a = sweeps.submit(store, PLAN)
    before = {job.id for job in work(store)}
    sweeps.add_seeds(store, a, 2)
    assert sweeps.plan_of(store, a).seeds == (0, 1, 2)
    assert counts(store, a) == {"done": 4, "waiting": 8}
    work(store)
    assert before < {row["run"] for row in sweeps.rows(store, a)}
    with pytest.raises(RecipeError, match="2,000"):
        sweeps.add_seeds(store, a, 1000)
    assert sweeps.plan_of(store, a).seeds == (0, 1, 2)


def test_a_sweep_that_is_not_there_is_said(store: Store) -> None:
    for ask in (sweeps.state, sweeps.rows, sweeps.resume, sweeps.rerun_failed):
        with pytest.raises(RunError, match="no sweep '0f'"):
            ask(store, "0f")


# ---------------------------------------------------------------- rows and times


def test_a_row_is_the_runs_figures() -> None:
    point = point_of(Recipe(model="m", criterion="taylor", sparsity=0.75, seed=3))
    made = row(point, FINISHED, run="0f", state="finished")
    assert tuple(made) == COLUMNS
    expected = {
        "technique": "taylor",
        "sparsity": 0.75,
        "seed": 3,
        "state": "done",
        "metric": "accuracy",
        "accuracy": 0.95,
        "accuracy_pruned": 0.6,
        "dense": 0.98,
        "weights_kept": 0.25,
        "macs": 0.5,
        "bytes": 90,
        "latency_ms": 2.0,
        "seconds": 3.0,
    }
    assert {name: made[name] for name in expected} == expected
    assert made["low"] < 0.95 < made["high"]
    # Of whole channels it is the compact model that somebody takes home.
    compact = replace(FINAL, kept=10, macs=10, macs_kept=10, size=Size(44, 44, 40))
    small = row(point, replace(FINISHED, compact=compact))
    assert (small["weights_kept"], small["macs"], small["bytes"]) == (0.125, 0.125, 44)
    broken = replace(FINISHED, seconds=0.0)
    assert json.loads(json.dumps(row(point, broken), allow_nan=False)) == row(point, broken)
    waiting = row(point, state="queued")
    assert waiting["state"] == "queued" and waiting["accuracy"] is None


def timed(store: Store, job: Job, seconds: float) -> None:
    with store.database.write() as db:
        db.execute("UPDATE jobs SET started = ended - ? WHERE id = ?", (seconds, job.id))


def test_what_trained_nothing_says_nothing_of_training(store: Store) -> None:
    plan = replace(PLAN, controls=("dense",), fields={"epochs": 40})
    a = sweeps.submit(store, plan)
    (dense,) = work(store, 1)
    timed(store, dense, 5.0)
    assert dense.spec["epochs"] == 0
    assert sweeps.state(store, a).seconds_remaining is None


def test_the_time_remaining_is_that_of_measured_runs(store: Store) -> None:
    a = sweeps.submit(store, PLAN)
    assert sweeps.state(store, a).seconds_remaining is None, "nothing was ever timed"
    first, second = work(store, 2)
    assert {first.spec["criterion"], second.spec["criterion"]} == {"magnitude", "taylor"}
    seconds = {"magnitude": 10.0, "taylor": 30.0}
    for job in (first, second):
        timed(store, job, seconds[job.spec["criterion"]])
    # One of each technique waits: together on two workers as long as the longer one.
    assert sweeps.state(store, a, workers=1).seconds_remaining == pytest.approx(40)
    assert sweeps.state(store, a, workers=2).seconds_remaining == pytest.approx(30)
    # A sweep that nothing was run of yet goes by this machine's runs of the model, per epoch.
    longer = replace(PLAN, fields={"epochs": 4}, criteria=("wanda",))
    b = sweeps.submit(store, longer)
    guess = sweeps.state(store, b, workers=1).seconds_remaining
    assert guess == pytest.approx(2 * 4 * 20) == sweeps.expected(store, longer, workers=1)
    work(store)
    assert sweeps.state(store, a).seconds_remaining == 0


def worked(store: Store, times: list[tuple[float, float]], owner: str) -> None:
    """Runs of a model that took from the one to the other, in unix seconds; all wait from 0 on."""
    for started, ended in times:
        id = store.submit("run", Recipe(model="digits-mlp", epochs=1).to_dict())
        job = store.claim(owner)
        assert job is not None
        store.finish(job, "finished")
        with store.database.write() as db:
            values = (started, ended, id)
            db.execute("UPDATE jobs SET submitted = 0, started = ?, ended = ? WHERE id = ?", values)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("between", [0.0, 0.25, 1.75])
def test_what_lies_between_two_runs_is_expected_too(
    store: Store, workers: int, between: float
) -> None:
    # Each worker takes the next run so long after the end of its own. One pause is nobody's work.
    takes, runs = 4.0, 5
    starts = [1000 + each * (takes + between) for each in range(runs)]
    starts += [start + 3600 for start in starts]
    for worker in range(workers):
        worked(store, [(start + worker, start + worker + takes) for start in starts], "one:1:1")
    assert waits.between_runs(store) == pytest.approx(between)
    count = len(PLAN.points())
    whole = count * (takes + between) / workers
    assert sweeps.expected(store, PLAN, workers) == pytest.approx(whole)
    # Once it is submitted, all of it remains.
    id = sweeps.submit(store, PLAN)
    remaining = sweeps.state(store, id, workers).seconds_remaining
    assert remaining == pytest.approx(whole)


def test_a_cluster_has_an_overhead_of_its_own(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(engines.VARIABLE, "")
    worked(store, [(1000, 1004), (1004.25, 1008)], "one:1:1")
    worked(store, [(2000, 2004), (2006, 2010)], f"{engines.OWNER}one:1:1")
    assert waits.between_runs(store) == pytest.approx(0.25)
    engines.use(engines.Cluster("dask://here:1"))
    engines.keep(store.workspace)
    assert waits.between_runs(store) == pytest.approx(2)


# ---------------------------------------------------------------- real runs


def test_a_sweep_that_was_interrupted_goes_on_and_comes_out_whole(store: Store) -> None:
    shutdown = Shutdown()

    def after_two(now: Progress) -> None:
        shutdown.requested = now.done == 2

    a = sweeps.submit(store, REAL)
    run_here(store, a, shutdown, after_two)
    assert counts(store, a) == {"done": 2, "waiting": 2}
    first = {row["run"] for row in sweeps.rows(store, a) if row["state"] == "done"}
    # A process that was killed in the middle of the third.
    ended = f"{process_id.host()}:{2**22 + 1}:0"
    assert store.claim(ended) is not None
    again = Store(store.workspace)
    assert sweeps.submit(again, REAL) == a
    again.reap()
    sweeps.rerun_failed(again, a)
    run_here(again, a, Shutdown())
    rows = sweeps.rows(again, a)
    assert counts(again, a) == {"done": 4}
    assert first < {row["run"] for row in rows} and len({row["run"] for row in rows}) == 4
    for made in rows:
        assert made["weights_kept"] == pytest.approx(1 - made["sparsity"], abs=0.001)
        assert 0 < made["low"] < made["accuracy"] < made["high"] <= 1
        assert made["latency_ms"] > 0 and made["examples"] == 360
    best = {made["technique"]: made["accuracy"] for made in rows if made["sparsity"] == 0.5}
    assert best["magnitude"] > best["random"]


def test_a_sweep_is_shipped_with_the_answers_its_runs_kept(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(make, "FOLDER", tmp_path)
    plan = replace(REAL, sparsities=(0.5,), controls=())
    monkeypatch.setattr(make, "which_technique", lambda models: plan)
    file = make.make("digits-mlp", store, Shutdown())
    assert file is not None
    made = json.loads(file.read_text(encoding="utf-8"))
    assert made["plan"] == plan.to_dict() and made["machine"]["device"] == "cpu"
    (only,) = made["rows"]
    assert only["run"] is None  # it means nothing in another workspace
    assert only["latency_ms"] > 0 and only["dense_latency_ms"] > 0
    file = make.make("digits-mlp", store, Shutdown(), latency=False)
    assert file is not None
    (without,) = json.loads(file.read_text(encoding="utf-8"))["rows"]
    assert without == only | {"latency_ms": None, "dense_latency_ms": None}
    right = unpack(made["outcomes"][only["recipe"]], only["examples"])
    assert right.mean() == pytest.approx(only["accuracy"], abs=1e-6)


def test_the_shell_runs_a_plan_once_and_prints_its_rows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNING_HOME", os.environ["PRUNING_HOME"])  # put back at the end
    plan: dict[str, Any] = {"models": ["digits-mlp"], "sparsities": [0.5], "controls": []}
    file = tmp_path / "plan.json"
    file.write_text(json.dumps(plan))
    call = ["sweep", str(file), "--here", "--workspace", str(tmp_path / "w")]
    assert main([*call, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    made = json.loads(line)
    assert made["state"] == "done" and made["accuracy"] > 0.9
    assert main(call) == 0
    table = capsys.readouterr().out
    assert "50%" in table and f"{made['accuracy']:.1%}" in table
    assert len(Store(tmp_path / "w").jobs("run")) == 1, "the second call had nothing to do"
    file.write_text(json.dumps(plan | {"models": ["digits-mpl"]}))
    assert main(call) == 2 and "digits-mlp" in capsys.readouterr().err
    assert main(["sweep", str(tmp_path / "none.json")]) == 2


def test_ctrl_c_pauses_and_says_how_to_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNING_HOME", str(tmp_path / "w"))

    def interrupted(store: Store, id: str) -> None:
        work(store, 1)
        raise KeyboardInterrupt

    monkeypatch.setattr(sweep, "_wait", interrupted)
    file = tmp_path / "plan.json"
    file.write_text(PLAN.to_json())
    assert main(["sweep", str(file), "--wait"]) == 130
    said = capsys.readouterr().err
    assert "1 of 4 done" in said and f"sweep {file} --wait` continues" in said
    store = Store(tmp_path / "w")
    (row_of_sweep,) = store.sweeps()
    assert row_of_sweep.state == "paused" and work(store) == []
    monkeypatch.setattr(sweep, "_wait", lambda store, id: work(store))
    assert main(["sweep", str(file), "--wait"]) == 0
    assert counts(store, row_of_sweep.id) == {"done": 4}
