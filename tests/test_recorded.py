"""Runs whose recipe was allowed once and is refused today: shown like any other, not run again."""

from __future__ import annotations

import json
import sqlite3
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from pages import opened, texts

from dashboard import jobs
from pruning import registry
from pruning.errors import OutOfRange, RecipeError
from pruning.recipe import RANGES, Recipe
from pruning.recorded import RecordedRecipe, check, recorded, refusal
from pruning.runs import pool
from pruning.runs.resolve import recipe_of
from pruning.runs.store import Store

OLD: dict[str, Any] = {"criterion": "hutchinson", "options": {"probes": 5000}}


def test_a_recipe_that_is_allowed_is_itself() -> None:
    recipe = Recipe(criterion="hutchinson", options={"probes": 8})
    assert type(recorded(recipe.to_dict())) is Recipe and recorded(recipe.to_dict()) == recipe
    assert refusal(recipe) == ""


@pytest.mark.parametrize("field", RANGES)
def test_every_number_of_a_recipe_may_be_an_older_one(field: str) -> None:
    above = {"sparsity": 1.0}.get(field, RANGES[field].high * 2)
    if field == "seed":  # nothing beyond it ever was one
        above = -1.0
    values = {field: type(getattr(Recipe(), field))(above)}
    with pytest.raises(OutOfRange):
        Recipe.from_dict(values)
    recipe = recorded(values)
    assert getattr(recipe, field) == above
    assert refusal(recipe).startswith(f"{field} is ") and "must be" in refusal(recipe)


def test_so_may_every_option() -> None:
    """Its range, by the technique's own signature; and the ratios of layers."""
    for kind in registry.KINDS:
        field = "options" if kind == "criterion" else f"{kind}_options"
        for name, entry in registry.entries(kind).items():
            for option in entry.options:
                if option.range is None:
                    continue
                least = type(option.default)(option.range.low - 1)
                recipe = recorded({kind: name, field: {option.name: least}} | fits(kind, name))
                assert getattr(recipe, field) == {option.name: least}
                assert option.name in refusal(recipe), name
    ratios = recorded({"scope": "manual", "ratios": {"fc1.weight": 1.0}})
    assert ratios.ratios == {"fc1.weight": 1.0} and "fc1.weight" in refusal(ratios)


def fits(kind: str, name: str) -> dict[str, str]:
    """A granularity that a criterion works by."""
    if kind == "criterion" and registry.misfit(name, "weight"):
        return {"granularity": "channel"}
    return {}


@pytest.mark.parametrize(
    "data",
    [
        {"criterion": "nothing"},
        {"criterion": "hutchinson", "options": {"probes": "many"}},
        {"criterion": "hutchinson", "options": {"probes": 10**400}},
        {"criterion": "hutchinson", "options": {"probe": 8}},
        {"lr": float("nan")},
        {"sparsity": True},
        {"steps": 2000, "granularity": "nothing"},
    ],
)
def test_what_never_was_a_recipe_is_refused_as_before(data: dict[str, Any]) -> None:
    with pytest.raises(RecipeError):
        recorded(data)


def test_what_is_made_from_it_is_of_its_kind_and_not_run() -> None:
    recipe = recorded(OLD)
    assert isinstance(replace(recipe, sparsity=0.0), RecordedRecipe)
    assert isinstance(recipe_of(recipe.to_dict() | {"threads": 1}), RecordedRecipe)
    with pytest.raises(OutOfRange, match="probes of hutchinson is 5000, but must be a whole"):
        check(recipe)
    check(replace(recipe, options={}))


def test_such_a_run_is_shown_and_compared_and_not_run_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "ensure", lambda *_: False)
    opened("model")
    (run,) = Store().jobs("run")  # which an empty workspace is given
    spec = json.dumps({**run.spec, **OLD})
    with sqlite3.connect(home / "runs.sqlite") as db:
        db.execute("UPDATE jobs SET spec = ?", (spec,))
    db.close()
    page = opened("model", run=run.id)
    assert not page.exception and not page.error and jobs.damaged() == {}
    assert "Hutchinson" in texts(page)
    assert "probes of hutchinson is 5000, but must be a whole" in texts(page)
    assert page.button(key=f"again-{run.id}").disabled and page.button(key=f"use-{run.id}").disabled
    with pytest.raises(OutOfRange, match="probes"):
        jobs.start(jobs.recipe_of(run := Store().job(run.id)))
    compared = opened("compare", c=run.id)
    assert not compared.exception and not compared.error and jobs.damaged() == {}
