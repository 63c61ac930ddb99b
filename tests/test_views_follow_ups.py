"""What follows on a run, on its page: going on with a stopped one, and comparison runs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
from pages import opened, settle, settled, texts

from dashboard import jobs
from dashboard.charts import comparison_runs as charts
from dashboard.charts.comparison_runs import ComparisonRun
from pruning.events import Epoch, Finished, Measurement, Size
from pruning.metrics import Accuracy, Paired
from pruning.recipe import Recipe
from pruning.runs import follow_ups, handlers, pool
from pruning.runs.follow_ups import DENSE, RANDOM, SCRATCH
from pruning.runs.store import Job, Store

RECIPE = Recipe(model="digits-mlp", sparsity=0.9, epochs=2, seed=5)


@pytest.fixture(autouse=True)
def no_pool(home, monkeypatch):
    monkeypatch.setattr(pool, "ensure", lambda *_: False)


def end_with(correct: int) -> Finished:
    size = Size(48, 30, 20)
    measured = Measurement(Accuracy(correct, 360), 0.1, 100, 10, 110, 1000, 100, size, None)
    return Finished(0.9, measured, None, measured, 1.0)


def work_off_runs(store: Store, stop_after: int | None = None) -> None:
    """Do the runs that wait, as a worker does; stop_after: epochs, for one that is stopped."""

    def stop(job: Job) -> bool:
        epochs = [event for _, event in store.events(job.id) if isinstance(event, Epoch)]
        stopped = stop_after is not None and len(epochs) >= stop_after
        if stopped:
            store.stop(job.id)
        return stopped

    while (job := store.claim(queues=("run",))) is not None:
        handlers.do(store, job, partial(stop, job))


# ---------------------------------------------------------------- the table


def test_rows_are_compared_on_the_same_examples_where_both_answered_them() -> None:
    this = end_with(353)
    answers = Paired(both=351, gained=2, lost=4, neither=3)
    paired = ComparisonRun(DENSE, "finished", end_with(355), answers)
    unpaired = replace(paired, kind=RANDOM, answers=None)
    waiting = ComparisonRun(SCRATCH, "next in the queue")
    table = charts.table(this, [paired, unpaired, waiting])
    assert list(table["run"]) == ["This run", *(charts.NAMES[k] for k in (DENSE, RANDOM, SCRATCH))]
    own, first, second, third = table["this run against it"]
    assert own == "—" and third == "next in the queue"
    assert first.startswith("−0.6 points (") and first.endswith("interval; same test examples")
    assert second.startswith("−0.6 points (") and second.endswith("interval; not paired")
    # Pairing tells more: its interval is the narrower one.
    bounds = [text[text.index("(") : text.index(")")] for text in (first, second)]
    widths = [
        float(high.replace("−", "-")) - float(low.replace("−", "-"))
        for low, high in (text[1:].split(" to ") for text in bounds)
    ]
    assert widths[0] < widths[1]
    assert "98.6 %" in charts.finding(this, [paired]) and not charts.finding(this, [unpaired])


# ---------------------------------------------------------------- on the page


def test_equal_recipes_are_one_run() -> None:
    runs = [replace(RECIPE, criterion=name) for name in ("magnitude", "taylor")]
    dense = [follow_ups.comparison_runs(run, "a")[DENSE] for run in runs]
    ids = {jobs.start_once(recipe) for recipe in (*dense, *dense)}
    assert len(ids) == 1
    work_off_runs(Store())
    assert jobs.start_once(dense[0]) in ids, "and not run again when it is finished"


def test_one_click_each_starts_what_a_result_is_compared_with() -> None:
    store = Store()
    id = store.submit("run", RECIPE.to_dict())
    work_off_runs(store)
    page = settled("run", run=id)
    assert not page.exception
    keys = {kind: f"comparison-{kind}-{id}" for kind in (DENSE, RANDOM, SCRATCH)}
    for key in keys.values():
        page.button(key=key).click().run()
    waiting = store.jobs("run", ("queued",))
    assert len(waiting) == 3
    wanted = follow_ups.comparison_runs(RECIPE, id)
    assert {Recipe.from_dict(job.spec).id for job in waiting} == {
        recipe.id for recipe in wanted.values()
    }
    work_off_runs(store)
    page = settle(page.run())
    shown = [table.value for table in page.table if "this run against it" in table.value]
    (rows,) = shown
    assert list(rows.index) == ["This run", *charts.NAMES.values()]
    assert all(text.endswith("same test examples") for text in rows["this run against it"][1:])
    assert not [button.key for button in page.button if button.key in keys.values()]


def test_a_stopped_run_says_what_it_kept_and_can_be_continued() -> None:
    store = Store()
    id = store.submit("run", replace(RECIPE, epochs=5).to_dict())
    work_off_runs(store, stop_after=3)
    page = settled("run", run=id)
    assert not page.exception
    assert "after epoch 3 of 5" in texts(page).replace("\\", "")
    page.button(key=f"continue-{id}").click().run()
    (waiting,) = store.jobs("run", ("queued",))
    assert Recipe.from_dict(waiting.spec) == replace(RECIPE, model=f"run:{id}", epochs=2)
    compare = settled("compare", c=id)
    assert not compare.exception
    chips = compare.multiselect(key="compare-runs")
    assert chips.value == [id]
    assert "stopped after epoch 3 of 5" in texts(compare).replace("\\", "") or any(
        "stopped after epoch 3 of 5" in option for option in chips.options
    )


def test_a_run_that_was_stopped_at_once_says_that_nothing_is_kept() -> None:
    store = Store()
    id = store.submit("run", RECIPE.to_dict())
    store.stop(id)
    page = opened("run", run=id)
    assert not page.exception and not [b for b in page.button if b.key == f"continue-{id}"]
    assert "othing" in texts(page)
