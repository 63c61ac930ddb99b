"""What a run keeps of its answers, the overlap of masks, and test examples as pictures."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import sample_models
from pruning import studies
from pruning.errors import DataError, OutOfRange
from pruning.events import Event, Finished, Halted
from pruning.measurement import Snapshot
from pruning.metrics import Paired
from pruning.pipeline import run
from pruning.recipe import Recipe
from pruning.runs.handlers import answers_of, do
from pruning.runs.results import Answers, load_run, save_answers
from pruning.runs.store import Store
from pruning.stats import overlap
from pruning.types import Workpiece

RECIPES = (
    Recipe(sparsity=0.75, epochs=1),
    Recipe(sparsity=0.5, granularity="channel", epochs=0),  # its compact model is the result
    Recipe(sparsity=0.5, rewind="init", start="random", epochs=1, steps=1),
)


def ran(recipe: Recipe, work: Workpiece, **more: Any) -> tuple[Answers, list[Event]]:
    kept: list[Answers | None] = []

    def keep(dense: Snapshot, final: Snapshot) -> None:
        kept.append(answers_of(dense, final))

    events = list(run(recipe, work, keep_answers=keep, **more))
    (answers,) = kept
    assert answers is not None
    return answers, events


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_answers_add_up_to_what_the_run_says(recipe: Recipe, tiny: Workpiece) -> None:
    answers, events = ran(recipe, tiny)
    end = events[-1]
    assert isinstance(end, Finished) and end.dense.accuracy and end.deliverable.accuracy
    assert answers.right.sum() == end.deliverable.accuracy.correct
    assert answers.dense_right.sum() == end.dense.accuracy.correct
    assert Paired.of(answers.right, answers.dense_right) == end.deliverable.paired
    assert tiny.test is not None
    assert np.array_equal(answers.targets, tiny.test.y.numpy())


def test_a_stopped_run_keeps_the_answers_of_what_it_had_reached(tiny: Workpiece) -> None:
    seen = 0

    def stop() -> bool:
        nonlocal seen
        seen += 1
        return seen > 12

    answers, events = ran(Recipe(sparsity=0.75, epochs=200), tiny, stop=stop)
    end = events[-1]
    assert isinstance(end, Halted) and end.result and end.result.final.accuracy
    assert answers.right.sum() == end.result.final.accuracy.correct


def test_a_model_that_is_judged_otherwise_has_no_answers(tiny: Workpiece) -> None:
    assert tiny.test is not None
    other = replace(tiny, metric="f1")
    snapshot = Snapshot(other, None, torch.zeros(64, 2))  # type: ignore[arg-type]
    assert answers_of(snapshot, snapshot) is None
    without = Snapshot(replace(tiny, test=None), None, None)  # type: ignore[arg-type]
    assert answers_of(without, without) is None


@pytest.mark.parametrize("classes", [2, 256, 1000, 70_000])
def test_answers_are_read_as_they_were_written(classes: int, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    arrays = generator.integers(0, classes, (3, 500))
    arrays[0, 0] = classes - 1
    save_answers(tmp_path, Answers(*arrays))
    stored = load_of(tmp_path)
    assert stored is not None
    for name, wanted in zip(("targets", "dense", "final"), arrays, strict=True):
        assert np.array_equal(getattr(stored, name), wanted)


def load_of(folder: Path) -> Answers | None:
    from pruning.runs.results import RunResult

    return RunResult(folder, None).answers  # type: ignore[arg-type]


def test_ten_thousand_answers_are_small(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    targets = generator.integers(0, 10, 10_000)
    # Nine in ten right, as a good model's are.
    guesses = [
        np.where(generator.random(10_000) < 0.9, targets, generator.integers(0, 10, 10_000))
        for _ in range(2)
    ]
    save_answers(tmp_path, Answers(targets, *guesses))
    assert (tmp_path / "answers.npz").stat().st_size < 25_000


def test_a_worker_keeps_them_beside_the_result_and_old_runs_have_none(tmp_path: Path) -> None:
    store = Store(tmp_path)
    id = store.submit("run", Recipe(model="digits-mlp", sparsity=0.9, epochs=0).to_dict())
    job = store.claim(queues=("run",))
    assert job is not None
    do(store, job, lambda: False)
    result = load_run(store.folder(id))
    accuracy = result.finished.deliverable.accuracy
    assert accuracy and result.answers and result.answers.right.sum() == accuracy.correct
    packed = result.packed_masks()
    for name, keep in result.masks().items():
        assert np.bitwise_count(packed[name].bits).sum() == keep.sum()
        assert packed[name].weights == keep.size
    (job.folder / "answers.npz").unlink()
    assert load_run(store.folder(id)).answers is None


def test_overlap_of_masks_by_hand() -> None:
    # 10 weights: 4 and 6 kept, 3 of them by both: 3 of 7. At random 4·6/10 = 2.4 of 7.6.
    same = overlap([(10, 4, 6, 3)])
    assert same is not None
    assert same.value == pytest.approx(3 / 7) and same.at_random == pytest.approx(2.4 / 7.6)
    whole = overlap([(10, 10, 10, 10), (5, 0, 0, 0)])
    assert whole is not None and (whole.value, whole.at_random) == (1, 1)
    apart = overlap([(10, 5, 5, 0)])
    assert apart is not None and apart.value == 0
    assert overlap([(10, 0, 0, 0)]) is None and overlap([]) is None


def test_random_masks_overlap_as_chance_has_it() -> None:
    generator = np.random.default_rng(0)
    layers = []
    for weights, share in ((20_000, 0.1), (3_000, 0.6)):
        one, other = generator.random((2, weights)) < share
        layers.append((weights, int(one.sum()), int(other.sum()), int((one & other).sum())))
    random = overlap(layers)
    assert random is not None and abs(random.value - random.at_random) < 0.01


def test_examples_are_shown_without_asking_a_model() -> None:
    work = sample_models.load("digits-cnn")
    spec = {"what": "examples", "model": "digits-cnn", "examples": [7, 0, 359]}
    data, arrays = studies.make(spec, work)
    assert isinstance(arrays, dict)
    images = arrays["images"]
    assert images.shape == (3, 8, 8) and images.min() == 0 and images.max() == 1
    assert data["examples"] == [7, 0, 359] and len(data["classes"]) == 10
    for wrong in ([], [360], [-1], [True], ["0"], list(range(49)), "7"):
        with pytest.raises(OutOfRange):
            studies.make({**spec, "examples": wrong}, work)
    with pytest.raises(DataError, match="test"):
        studies.make(spec, replace(work, test=None))
