"""Runs that follow on a run: going on with a stopped one, and comparison runs."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest

import pruning
from pruning import Workpiece
from pruning.events import Finished, Halted, Measured, Measurement, Pruned, Size
from pruning.masks import sparsity
from pruning.recipe import Recipe
from pruning.runs import handlers, resolve, results
from pruning.runs.follow_ups import DENSE, RANDOM, SCRATCH, comparison_runs, continued
from pruning.runs.store import Job, Store
from pruning.types import Masks
from tests.toys import toy

MEASURED = Measurement(None, None, 8, 4, 8, 8, 4, Size(48, 30, 20), None)
RESULT = Finished(0.5, MEASURED, None, MEASURED, 1.0)


def after(recipe: Recipe, step: int, epoch: int, done: int, planned: int) -> Recipe | None:
    return continued(recipe, "abc", Halted(step, epoch, done, planned, RESULT))


def test_going_on_does_what_was_left() -> None:
    once = Recipe(model="m", sparsity=0.9, epochs=10)
    rest = after(once, 1, 3, 3, 10)
    assert rest == replace(once, model="run:abc", epochs=7)
    stepwise = replace(once, steps=4, epochs=2)
    assert after(stepwise, 2, 1, 3, 8) == replace(stepwise, model="run:abc", steps=3)
    assert after(stepwise, 2, 2, 4, 8) == replace(stepwise, model="run:abc", steps=2)
    assert after(stepwise, 4, 1, 7, 8) == replace(stepwise, model="run:abc", steps=1, epochs=1)
    untrained = replace(once, steps=5, epochs=0)
    assert after(untrained, 2, 0, 2, 5) == replace(untrained, model="run:abc", steps=3)
    scratch = replace(once, start="random")
    assert after(scratch, 1, 3, 3, 10) == replace(
        scratch, model="run:abc", start="trained", epochs=7
    )


def test_what_cannot_go_on_is_not_offered() -> None:
    recipe = Recipe(model="m", sparsity=0.9, epochs=10)
    assert after(recipe, 1, 10, 10, 10) is None, "all was done"
    assert continued(recipe, "abc", Halted(0, 0)) is None, "nothing was kept"
    lottery = replace(recipe, start="random", rewind="init")
    assert after(lottery, 1, 3, 13, 20) is None


def test_the_dense_comparison_run_is_one_for_every_criterion_amount_and_unit() -> None:
    runs = [
        Recipe(model="m", sparsity=0.9, epochs=10, criterion="taylor"),
        Recipe(model="m", sparsity=0.5, epochs=10, scope="per_layer", granularity="channel"),
        Recipe(model="m", scope="manual", ratios={"a": 0.3}, epochs=10, exclude=("b",)),
        Recipe(model="m", sparsity=0.5, epochs=10, granularity="channel", finetune_compact=True),
    ]
    dense = {comparison_runs(recipe, str(number))[DENSE] for number, recipe in enumerate(runs)}
    (one,) = dense
    assert one == Recipe(model="m", sparsity=0.0, epochs=10)
    assert not one.prunes
    longer = comparison_runs(replace(runs[0], steps=3, lr=0.1, seed=4), "a")[DENSE]
    assert (longer.training_epochs(), longer.lr, longer.seed) == (30, 0.1, 4)


def test_the_random_comparison_run_differs_in_the_criterion_alone() -> None:
    recipe = Recipe(model="m", sparsity=0.9, epochs=10, criterion="taylor", scope="erk")
    assert comparison_runs(recipe, "a")[RANDOM] == replace(recipe, criterion="random")
    assert RANDOM not in comparison_runs(replace(recipe, criterion="random"), "a")
    assert RANDOM not in comparison_runs(replace(recipe, scope="threshold"), "a")


def test_what_prunes_nothing_or_trains_nothing_has_no_comparison_runs() -> None:
    assert not comparison_runs(Recipe(model="m", epochs=0), "a")
    assert not comparison_runs(Recipe(model="m", sparsity=0.0, epochs=3), "a")
    lottery = Recipe(model="m", epochs=1, start="random", rewind="init", controls=("reinit",))
    assert not comparison_runs(lottery, "a")


# ---------------------------------------------------------------- followed by the engine


@pytest.fixture
def toys(home, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store whose models are the toys, and its runs."""
    monkeypatch.setattr("sample_models.load", lambda name, **ways: toy(name))
    return Store()


def done(store: Store, recipe: Recipe) -> Job:
    id = store.submit("run", recipe.to_dict())
    job = store.claim()
    assert job is not None and job.id == id
    handlers.do(store, job, lambda: False)
    return store.job(id)


@pytest.mark.parametrize("granularity", ["weight", "channel"])
def test_from_scratch_is_the_same_size_under_the_same_masks(toys: Store, granularity: str) -> None:
    # Another seed: the toys' "trained" weights are their first ones, from seed 0.
    fields = {"sparsity": 0.5, "epochs": 2, "steps": 2, "seed": 3}
    recipe = Recipe(model="residual", granularity=granularity, **fields)
    first = done(toys, recipe)
    scratch = comparison_runs(recipe, first.id)[SCRATCH]
    assert scratch.training_epochs() == recipe.training_epochs()
    second = done(toys, scratch)
    one, other = (results.load_run(job.folder) for job in (first, second))
    assert all((one.masks()[name] == keep).all() for name, keep in other.masks().items())
    assert one.finished.final.kept == other.finished.final.kept
    assert one.finished.sparsity == other.finished.sparsity
    # Compared with the dense model, not with the pruned one whose masks it took.
    assert one.finished.dense.accuracy == other.finished.dense.accuracy
    assert other.finished.dense.kept == one.finished.dense.kept
    if granularity == "channel":
        assert one.finished.compact and other.finished.compact
        assert one.finished.compact.parameters == other.finished.compact.parameters
    weights = [resolve.resolve(f"run:{job.id}").model.state_dict() for job in (first, second)]
    assert any(not weights[0][name].equal(value) for name, value in weights[1].items())


def test_what_was_pruned_stays_pruned_in_a_run_that_goes_on(toys: Store) -> None:
    recipe = Recipe(model="residual", sparsity=0.6, epochs=1, criterion="random")
    first = done(toys, recipe)
    work: Workpiece = resolve.resolve(f"run:{first.id}")
    before = results.load_run(first.folder).masks()
    for sparse in (0.0, 0.3, 0.6, 0.8):
        again = replace(recipe, model="", sparsity=sparse, seed=7)
        ends: list[Masks] = []
        keep = partial(lambda ends, model, masks: ends.append(masks), ends)
        events = list(pruning.run(again, work, keep=keep))
        (kept,) = ends
        assert not any((kept[name].numpy() & ~keep).any() for name, keep in before.items())
        assert sparsity(kept) == pytest.approx(max(0.6, sparse), abs=0.02)
        dense = next(e for e in events if isinstance(e, Measured) and e.stage == "dense")
        assert dense.measurement.kept == dense.measurement.weights
        pruned = [event for event in events if isinstance(event, Pruned)]
        assert pruned[-1].sparsity == pytest.approx(max(0.6, sparse), abs=0.02)


def test_two_runs_answers_are_paired_on_the_same_examples(toys: Store) -> None:
    from pruning.runs.results import load_study

    recipe = Recipe(model="residual", sparsity=0.6, epochs=1)
    jobs = [done(toys, replace(recipe, seed=seed)) for seed in (0, 1)]
    spec = {"what": "pair", "model": "residual", "run": jobs[0].id, "other": jobs[1].id}
    id = toys.submit("study", spec, key="pair")
    handlers.do(toys, toys.claim(), lambda: False)  # type: ignore[arg-type]
    answers = load_study(toys.job(id).folder).data["answers"]
    this, other = (results.load_run(job.folder).finished.final.accuracy for job in jobs)
    assert this and other
    assert answers["both"] + answers["gained"] == this.correct
    assert answers["both"] + answers["lost"] == other.correct
    assert sum(answers.values()) == this.total
