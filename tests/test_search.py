"""Searches: what a goal asks for, which recipes are tried, and that nothing is tried twice."""

from __future__ import annotations

import importlib
import json
import random
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pruning.cli import main
from pruning.errors import DataError, OutOfRange, RecipeError, RunError, UnknownName
from pruning.events import Failed, Finished, Layer, Measured, Measurement, Size
from pruning.metrics import Accuracy, Score
from pruning.recipe import Recipe
from pruning.runs.results import save_result
from pruning.runs.store import Store
from pruning.sweeps import search, sweeps
from pruning.sweeps.goal import Goal, Outcome, groups, points_below
from pruning.sweeps.plan import RANDOM_SEARCH, SEARCH, Plan
from pruning.sweeps.search import advance, answers, best, default, open_search, trials

LAYERS = tuple(Layer(f"layer{i}", 100 * (i + 1), 100 * (i + 1)) for i in range(6))
DENSE = Measurement(Accuracy(98, 100), 0.1, 2100, 2100, 2200, 80, 80, Size(8400, 8400, 8000), None)
DENSE = replace(DENSE, layers=LAYERS)
GOAL = Goal(
    "digits-mlp",
    within_points=2,
    epochs=2,
    criteria=("magnitude", "taylor"),
    granularities=("weight",),
    scopes=("global", "manual"),
    steps=(1, 2),
    kept=(0.01, 0.9),
    reconstruct=False,
    confirm=0,
)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "workspace")


def correct(recipe: Recipe) -> int:
    """Of 1,000 validation examples: few weights cost accuracy, and by Taylor less than else."""
    kept = 1 - recipe.sparsity
    worse = 0.4 if recipe.criterion == "taylor" else 1.0
    return round(980 - worse / kept)


def work(store: Store, count: int = 1000, validation: bool = True, luck: int = 0) -> list[Recipe]:
    """Do as a worker does, without the work: what a run reaches is a formula of its recipe.

    luck: correct answers of the first seed that no other has where fewer than 0.3 are kept. On test
    data the order is the other way round, so that a search that looks there goes wrong.
    """
    done: list[Recipe] = []
    while len(done) < count and (job := store.claim(queues=("run",))) is not None:
        recipe = Recipe.from_dict(job.spec)
        right = correct(recipe)
        if recipe.seed and recipe.sparsity > 0.7:
            right -= luck
        final = replace(
            DENSE,
            accuracy=Accuracy(1000 - right, 1000),
            kept=round(2100 * (1 - recipe.sparsity)),
            size=Size(8400, round(8400 * (1 - recipe.sparsity)), 0),
        )
        finished = Finished(recipe.sparsity, DENSE, None, final, 1.0)
        for stage, count_right in (("dense", 980), ("final", right)) if validation else ():
            store.append(job, Measured(stage, final, Accuracy(count_right, 1000)))
        save_result(job.folder, finished)
        store.finish(job, "finished", event=finished)
        done.append(recipe)
    return done


def drive(store: Store, goal: Goal, count: int) -> search.Search:
    """A search to its end."""
    made = open_search(store, goal)
    while advance(made, count):
        work(store)
    work(store)
    return made


def of(made: search.Search, line: str) -> list[search.Trial]:
    return [trial for trial in trials(made) if trial.line == line]


# ---------------------------------------------------------------- what a goal asks for

OUTCOME = Outcome(0.97, 0.98, 1.0, 1000, 0.1, 0.2, 0.5)


def test_points_below_dense_are_of_the_metrics_own_kind() -> None:
    assert points_below(Accuracy(96, 100), Accuracy(98, 100)) == 2
    assert points_below(Accuracy(99, 100), Accuracy(98, 100)) == -1
    share = Score("IoU", 0.5, 10, unit="%")
    assert points_below(replace(share, value=0.45), share) == 5
    error = Score("MAE", 4.0, 10, higher_is_better=False)
    assert points_below(replace(error, value=5.0), error) == 25, "percent of dense's"


def test_limits_are_exceeded_in_points_and_percent() -> None:
    goal = Goal("m", within_points=0.5, most_bytes=800, most_weights=0.1, most_macs=0.4)
    expected = {"within_points": 0.5, "most_bytes": 25.0, "most_weights": 0.0, "most_macs": -50.0}
    assert goal.excess(OUTCOME) == pytest.approx(expected)
    assert not goal.allows(OUTCOME)
    assert goal.allows(replace(OUTCOME, points=0.5, bytes=800)), "just on a limit is within it"
    with pytest.raises(DataError, match="macs"):
        goal.excess(replace(OUTCOME, macs=None))


def test_what_is_best_is_never_outside_of_the_limits() -> None:
    outcomes = {
        0: replace(OUTCOME, bytes=100, points=9.0, latency=0.1),
        1: replace(OUTCOME, bytes=500, points=1.0, latency=0.9),
        2: replace(OUTCOME, bytes=300, points=0.9, latency=1.2),
        3: replace(OUTCOME, bytes=300, points=0.2, latency=0.6),
        4: replace(OUTCOME, bytes=900, points=-0.5, latency=0.8),
    }
    assert Goal("m").best(outcomes) == [2], "the first of two equal ones"
    assert Goal("m", find="fastest", most_bytes=600).best(outcomes) == [3]
    assert Goal("m", find="most accurate", most_bytes=500).best(outcomes) == [3]
    assert Goal("m", find="front", within_points=5).best(outcomes) == [3, 4]
    assert Goal("m", find="front").best(outcomes) == [0, 3, 4]
    assert Goal("m", within_points=0.1, most_bytes=10).best(outcomes) == []


def test_a_goal_is_plain_data() -> None:
    goal = Goal.from_json('{"model": "m", "find": "fastest", "most_bytes": 200000, "lr": 0.1}')
    assert goal.within_points == 1, "the fastest model of all is one that answers at random"
    assert goal.fields == {"lr": 0.1}
    assert Goal.from_dict(json.loads(json.dumps(goal.to_dict()))) == goal
    assert goal.id == Goal.from_dict(goal.to_dict()).id != replace(goal, seed=1).id
    assert goal.in_words() == "the fastest within 1 point of dense, of at most 200,000 bytes"


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ([], RecipeError, "JSON object"),
        ({"find": "smallest"}, RecipeError, "no model"),
        ({"model": "m", "find": "cheapest"}, UnknownName, "smallest"),
        ({"model": "m", "sise": 3}, UnknownName, "most_bytes"),
        ({"model": "m", "find": "most accurate"}, RecipeError, "most_bytes"),
        ({"model": "m", "most_bytes": "big"}, OutOfRange, "most_bytes"),
        ({"model": "m", "kept": [0.5, 0.1]}, OutOfRange, "kept"),
        ({"model": "m", "criterion": "taylor"}, RecipeError, "criteria"),
        ({"model": "m", "criteria": []}, RecipeError, "criteria"),
        ({"model": "m", "criteria": [["taylor"]]}, RecipeError, "list of names"),
        ({"model": "m", "criteria": ["tailor"]}, UnknownName, "taylor"),
        ({"model": "m", "scopes": ["threshold"]}, RecipeError, "rule of its own"),
        ({"model": "m", "scopes": ["manual"]}, RecipeError, "single weights alone"),
        ({"model": "m", "criteria": ["obs"]}, RecipeError, "obs does not work by channel"),
        ({"model": "m", "rewind": "init"}, RecipeError, "trained anew"),
        ({"model": "m", "version": 99}, RecipeError, "version"),
    ],
)
def test_a_goal_that_cannot_be_looked_for_is_refused(
    given: Any, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        Goal.from_dict(given)


class Lot:
    """Chooses at random, as Optuna's trials do."""

    def __init__(self, seed: int) -> None:
        self.generator = random.Random(seed)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self.generator.choice(choices)

    def suggest_float(self, name: str, low: float, high: float, *, log: bool) -> float:
        return self.generator.uniform(low, high)


def test_every_recipe_of_the_space_trains_as_long_and_stays_inside() -> None:
    goal = Goal("m", kept=(0.05, 0.5), kept_units=(0.2, 0.8), epochs=4)
    layers = [(layer.name, layer.total) for layer in LAYERS]
    recipes = [goal.propose(layers, Lot(seed)) for seed in range(300)]
    assert {recipe.steps * recipe.epochs for recipe in recipes} == {4}
    assert {recipe.scope for recipe in recipes} == set(goal.scopes)
    assert {recipe.reconstruct for recipe in recipes} == {True, False}
    for recipe in recipes:
        low, high = goal.kept if recipe.granularity == "weight" else goal.kept_units
        assert low - 1e-4 <= 1 - recipe.sparsity <= high + 1e-4
        assert (recipe.scope == "manual") == bool(recipe.ratios)
        if recipe.ratios:
            assert list(recipe.ratios) == [name for name, _ in layers]
            assert len(set(recipe.ratios.values())) <= 4
    weights = [100, 200, 300, 400, 500, 600]
    manual = next(recipe for recipe in recipes if recipe.ratios)
    removed = sum(map(float.__mul__, manual.ratios.values(), map(float, weights)))
    assert manual.sparsity == pytest.approx(removed / 2100, abs=1e-4)


def test_groups_are_of_neighbours_the_ends_alone() -> None:
    layers = [(name, 1) for name in "abcdefg"]
    assert ["".join(name for name, _ in g) for g in groups(layers)] == ["a", "bc", "def", "g"]
    assert [len(group) for group in groups(layers[:3])] == [1, 1, 1]


# ---------------------------------------------------------------- its runs


def test_a_search_stands_in_one_sweep_and_runs_each_recipe_once(store: Store) -> None:
    made = drive(store, GOAL, 11)
    assert {line: len(of(made, line)) for line in made.studies} == {SEARCH: 11, RANDOM_SEARCH: 11}
    recipes = {trial.recipe.id for trial in trials(made)}
    jobs = store.jobs("run")
    assert max(Counter(json.dumps(job.spec) for job in jobs).values()) == 1
    # The default at five levels, dense, and dense trained as long.
    assert len(jobs) == len(recipes) + 7 and len(default(made)) == 5
    # The first ten are drawn at random, from the same seeds.
    first = [[trial.recipe for trial in of(made, line)[:10]] for line in made.studies]
    assert first[0] == first[1] and len(recipes) > 10
    rows = sweeps.rows(store, made.sweep)
    assert Counter(row["technique"] for row in rows)[SEARCH] == 11
    assert all(row["state"] == "done" for row in rows)
    # What it chose is the smallest that keeps the limit on validation data.
    (answer,) = best(GOAL, of(made, SEARCH))
    allowed = [t for t in of(made, SEARCH) if t.outcome and t.outcome.points <= 2]
    assert 0 < len(allowed) < 11
    assert answer.outcome and answer.outcome.bytes == min(t.outcome.bytes for t in allowed)  # type: ignore[union-attr]
    frozen = made.studies[SEARCH].best_trial
    assert frozen.number == answer.number and frozen.values == [answer.outcome.bytes]
    assert frozen.constraints["within_points"] == pytest.approx(answer.outcome.points - 2)


def test_a_search_that_was_interrupted_proposes_what_it_would_have(
    store: Store, tmp_path: Path
) -> None:
    whole = drive(Store(tmp_path / "other"), GOAL, 4)
    begun = open_search(store, GOAL)
    for _ in range(3):
        advance(begun, 4)
        work(store)
    advance(begun, 4)  # one of each line is open when the process ends
    runs = len(store.jobs("run"))
    again = drive(Store(store.workspace), Goal.from_dict(GOAL.to_dict()), 4)
    assert again.sweep == begun.sweep and len(store.jobs("run")) > runs
    assert [t.recipe for t in trials(again)] == [t.recipe for t in trials(whole)]
    assert [t.outcome for t in trials(again)] == [t.outcome for t in trials(whole)]
    # Asked for as many again, nothing is left to do; asked for more, it goes on.
    before = len(store.jobs("run"))
    assert not advance(open_search(store, GOAL), 4)
    assert len(store.jobs("run")) == before
    assert [t.recipe for t in of(drive(store, GOAL, 5), SEARCH)[:4]] == [
        t.recipe for t in of(whole, SEARCH)
    ]


def test_an_answer_keeps_the_limits_with_further_seeds_too(store: Store) -> None:
    goal = replace(GOAL, confirm=2, criteria=("taylor",), scopes=("global",))
    made = open_search(store, goal)
    while advance(made, 6):
        work(store, luck=100)
    (lucky,) = best(goal, of(made, SEARCH))
    (answer,) = answers(made, SEARCH)
    assert lucky.recipe.sparsity > 0.7 >= answer.trial.recipe.sparsity
    assert answer.seeds == 3 and answer.mean.points <= 2
    allowed = [t for t in of(made, SEARCH) if t.outcome and goal.allows(t.outcome)]
    calm = [t for t in allowed if t.recipe.sparsity <= 0.7]
    assert answer.trial.recipe.sparsity == max(t.recipe.sparsity for t in calm)
    seeds = Counter(row["seed"] for row in sweeps.rows(store, made.sweep))
    assert seeds[1] == seeds[2] > 0, "they stand in the sweep as well"
    runs = len(store.jobs("run"))
    assert not advance(open_search(store, goal), 6) and len(store.jobs("run")) == runs


def test_a_process_that_ended_while_it_proposed_costs_no_trial(store: Store) -> None:
    made = open_search(store, GOAL)
    made.studies[SEARCH].ask()
    assert len(of(drive(store, GOAL, 1), SEARCH)) == 1


def test_a_run_that_fails_is_a_trial_that_failed(store: Store) -> None:
    made = open_search(store, GOAL)
    assert advance(made, 3)
    work(store)
    assert advance(made, 3)
    job = store.claim()
    assert job is not None
    store.finish(job, "failed", "It broke.", Failed("RunError", "It broke."))
    while advance(made, 3):
        work(store)
    failed = [trial for trial in trials(made) if trial.state == "failed"]
    assert {trial.why for trial in failed} == {"It broke."}
    assert {trial.recipe for trial in failed} == {Recipe.from_dict(job.spec)}
    assert len(of(made, SEARCH)) == 3


def test_a_front_is_searched_by_two_objectives(store: Store) -> None:
    made = drive(store, replace(GOAL, find="front", within_points=None), 5)
    assert type(made.studies[SEARCH].sampler).__name__ == "NSGAIISampler"
    answers = best(made.goal, of(made, SEARCH))
    sizes = [trial.outcome.bytes for trial in answers if trial.outcome]
    points = [trial.outcome.points for trial in answers if trial.outcome]
    assert len(answers) > 1 and sizes == sorted(sizes)
    assert points == sorted(points, reverse=True), "more bytes buy accuracy"
    numbers = {trial.number for trial in made.studies[SEARCH].best_trials}
    assert {trial.number for trial in answers} <= numbers


def test_what_stands_in_the_way_of_a_search_is_said(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = open_search(store, GOAL)
    sweeps.pause(store, made.sweep)
    with pytest.raises(RunError, match="paused elsewhere"):
        advance(made, 3)
    made = open_search(store, GOAL)
    assert sweeps.state(store, made.sweep).state == "active", "the same call goes on"
    work(store, validation=False)
    with pytest.raises(DataError, match="validation data"):
        advance(made, 3)

    def missing(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(RunError, match="pip install optuna"):
        open_search(store, GOAL)


def test_single_runs_of_a_plan_stand_beside_what_is_crossed() -> None:
    plan = Plan(models=("m",), sparsities=(0.5,), controls=(), seeds=(3,))
    assert "singles" not in plan.to_dict(), "plans without have the ids that they had"
    single = {"name": "search", "sparsity": 0.7, "scope": "lamp", "seed": 5}
    wider = replace(plan, singles=(single, {"name": "search"}), fields={"epochs": 2})
    assert Plan.from_json(wider.to_json()) == wider and wider.id != plan.id
    first, last = wider.points()[1:]
    assert (first.technique, first.sparsity, first.seed) == ("search", 0.7, 5)
    assert first.recipe == Recipe(model="m", sparsity=0.7, scope="lamp", seed=5, epochs=2)
    assert last.recipe == Recipe(model="m", seed=3, epochs=2)
    for wrong in ({"name": "x", "model": "y"}, {"name": "dense"}, {"sparsity": 0.5}, "x"):
        with pytest.raises(RecipeError, match="single run"):
            replace(plan, singles=(wrong,))


# ---------------------------------------------------------------- for real


def test_a_search_from_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, workspace = tmp_path / "goal.json", tmp_path / "workspace"
    goal = {"model": "digits-mlp", "find": "most accurate", "most_weights": 0.2, "epochs": 0}
    goal |= {"criteria": ["magnitude"], "granularities": ["weight"], "reconstruct": False}
    file.write_text(json.dumps(goal))
    words = ["search", str(file), "--trials", "4", "--here", "--workspace", str(workspace)]
    assert main([*words, "--alone", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    own = [line for line in lines if line["line"] == "search"]
    assert [line["state"] for line in own] == ["done"] * 4
    allowed = [line for line in own if line["weights"] <= 0.2]
    assert {line["recipe_id"] for line in allowed} == {
        line["recipe_id"] for line in own if line["allowed"]
    }
    chosen = [line for line in own if line["best"]]
    assert [line["points"] for line in chosen] == [min(line["points"] for line in allowed)]
    assert all(0 <= line["test_accuracy"] <= 1 for line in own)
    assert chosen[0]["seeds"] == 3 and chosen[0]["mean_points"] is not None
    # The same call again runs nothing, and says it in words.
    runs = len(Store(workspace).jobs("run"))
    assert main([*words, "--alone"]) == 0
    text = capsys.readouterr().out
    assert re.search(r"^search +4 ", text, re.MULTILINE) and "none" not in text
    assert "optuna-dashboard sqlite:///" in text and chosen[0]["recipe_id"] in text
    assert len(Store(workspace).jobs("run")) == runs
