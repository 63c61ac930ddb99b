"""The Compare page: which runs it opens with."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from dashboard import example, state
from pruning.events import Finished, from_json
from pruning.recipe import Recipe
from pruning.runs import pool
from pruning.runs.store import Store
from tests.pages import opened


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
