"""The Compare page: which runs it opens with."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dashboard import example, state
from pruning.events import Finished, from_json
from pruning.recipe import Recipe
from pruning.runs import pool
from pruning.runs.results import Answers, save_answers
from pruning.runs.store import Store
from pruning.sweeps import sweeps
from pruning.sweeps.plan import Plan
from tests.pages import figures, opened, settle, texts


@pytest.fixture(autouse=True)
def no_pool(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "ensure", lambda *_: False)


def finished(recipe: Recipe, batch: str | None = None) -> str:
    """Record a finished run of the recipe, with the result of the shipped example; its id."""
    store = Store()
    lines = (example.EXAMPLE / "events.jsonl").read_text(encoding="utf-8").splitlines()
    result = from_json(lines[-1])
    assert isinstance(result, Finished)
    id = store.submit("run", recipe.to_dict(), key=f"{recipe.id}-{batch}", batch=batch)
    job = store.claim(queues=("run",))
    assert job is not None and job.id == id
    shutil.copytree(example.EXAMPLE, job.folder, dirs_exist_ok=True)
    for line in lines[:-1]:
        store.append(job, from_json(line))
    store.finish(job, "finished", event=result)
    return id


def test_it_opens_with_the_finished_runs_of_the_current_model() -> None:
    cnn = [finished(replace(state.HOME, seed=seed)) for seed in range(3)]
    mlp = [finished(replace(state.HOME, model="digits-mlp", seed=seed)) for seed in range(2)]
    page = opened("compare")
    assert set(page.multiselect(key="compare-runs").value) == set(cnn)
    page = opened("compare", r=state.encode(Recipe(model="digits-mlp")))
    assert set(page.multiselect(key="compare-runs").value) == set(mlp)
    # What a link picks stays as the link says.
    page = opened("compare", c=mlp[0])
    assert page.multiselect(key="compare-runs").value == [mlp[0]]


def test_it_opens_with_eight_at_most_and_single_runs_before_those_of_a_set() -> None:
    for seed in range(9):
        finished(replace(state.HOME, seed=seed), batch="lottery")
    single = finished(replace(state.HOME, sparsity=0.5))
    picked = opened("compare").multiselect(key="compare-runs").value
    assert len(picked) == 8
    assert picked[0] == single


def test_a_model_without_runs_shows_what_there_is() -> None:
    run = finished(state.HOME)
    page = opened("compare", r=state.encode(Recipe(model="digits-vit")))
    assert page.multiselect(key="compare-runs").value == [run]


def answered(id: str, change: int) -> None:
    """Let a run answer so many test examples otherwise than the example's does."""
    folder = Store().folder(id)
    with np.load(folder / "answers.npz") as arrays:
        parts = dict(arrays)
    parts["final"] = parts["final"].copy()
    parts["final"][:change] = (parts["targets"][:change] + 1) % 10
    save_answers(folder, Answers(**parts))


def test_what_differs_inside_is_shown_against_the_reference() -> None:
    a, b = finished(replace(state.HOME, seed=0)), finished(replace(state.HOME, seed=1))
    answered(b, 7)
    page = opened("compare", c=f"{a},{b}")
    assert not page.exception
    titles = list(figures(page))
    assert any("the same in all runs" in title for title in titles)
    assert any("both keep 1.00" in title for title in titles)
    assert any(title.startswith("Right answers by class, against A: B lost") for title in titles)
    page.toggle(key="compare-flips").set_value(True).run()
    page = settle(page)
    assert not page.exception
    # The example has all of the first seven right, whatever is shown of them.
    assert "7 wrong that A has right" in texts(page)
    assert len([image for image in page.get("image") if ", not " in str(image.proto)]) == 7


def test_a_run_of_other_data_is_refused_with_the_reason() -> None:
    cnn = finished(state.HOME)
    other = finished(replace(state.HOME, model="mnist1d-cnn"))
    child = finished(replace(state.HOME, model=f"run:{other}"))
    page = opened("compare", c=f"{cnn},{other},{child}")
    assert not page.exception
    refused = [warning.value for warning in page.warning]
    assert len(refused) == 2 and all(
        "it was measured on MNIST-1D, A on Digits" in w for w in refused
    )
    assert refused[0].startswith("B, ") and refused[1].startswith("C, ")
    assert len(page.dataframe[0].value) == 1


def test_twelve_runs_stand_side_by_side() -> None:
    runs = [finished(replace(state.HOME, seed=seed)) for seed in range(12)]
    page = opened("compare", c=",".join(runs))
    assert not page.exception and len(page.dataframe[0].value) == 12
    matrix = next(f for title, f in figures(page).items() if "beyond" in title or "keep" in title)
    assert len(matrix["data"][0]["z"]) == 12


def test_a_sweeps_runs_are_picked_at_one_level() -> None:
    plan = Plan(models=("digits-cnn",), criteria=("magnitude", "random"), sparsities=(0.5, 0.9))
    store = Store()
    sweep = sweeps.submit(store, plan)
    while (job := store.claim(queues=("run",))) is not None:
        shutil.copytree(example.EXAMPLE, job.folder, dirs_exist_ok=True)
        store.finish(job, "finished")
    page = opened("compare")
    page.session_state["compare-from-sweep"] = True  # the popover is open
    page.run()
    assert page.selectbox(key="compare-sweep").value == sweep
    page.selectbox(key="compare-sweep-level").set_value(0.9).run()
    page.button(key="compare-sweep-runs").click().run()
    assert not page.exception
    picked = page.session_state["picked"]
    specs = [store.job(id).spec for id in picked]
    assert {spec["sparsity"] for spec in specs} == {0.9}
    assert {spec.get("criterion", "magnitude") for spec in specs} == {"magnitude", "random"}


def test_a_deleted_run_is_restored_on_the_runs_page() -> None:
    run = finished(state.HOME)
    page = opened("compare", c=run)
    page.button(key=f"delete-{run}").click().run()
    assert not page.exception and Store().job(run).deleted
