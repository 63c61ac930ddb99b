"""Nothing is measured twice in a run: no weights answer the same examples again."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import pruning
import sample_models
from pruning import measurement, pipeline
from pruning.events import Finished, Measured, Ticket
from pruning.measurement import quality, remembered
from pruning.recipe import Recipe
from pruning.types import Batches, Workpiece
from tests.toys import toy

LOTTERY = Recipe(
    rewind="init", start="random", steps=2, epochs=1, sparsity=0.5, controls=("reinit",)
)
RECIPES = {
    "one epoch": Recipe(sparsity=0.5, epochs=1),
    "steps, recalibrated": Recipe(sparsity=0.5, steps=2, epochs=2, recalibrate=True),
    "reconstructed": Recipe(granularity="channel", sparsity=0.4, epochs=1, reconstruct=True),
    "not trained": Recipe(sparsity=0.5),
    "compact": Recipe(granularity="channel", sparsity=0.4, epochs=1),
    "compact trained": Recipe(granularity="channel", sparsity=0.4, epochs=1, finetune_compact=True),
    "lottery": LOTTERY,
}


def work_with_splits() -> Workpiece:
    """Three splits of their own: a toy's are one, and one pass over it would look like another."""
    work = toy("residual")
    assert work.train is not None
    splits = [work.train.head(n) for n in (40, 30, 20)]
    return replace(work, train=splits[0], validation=splits[1], test=splits[2])


def digest(model: nn.Module, x: Tensor) -> str:
    hashed = hashlib.sha256(x.contiguous().numpy().tobytes())
    for name, value in model.state_dict().items():
        hashed.update(name.encode() + value.contiguous().numpy().tobytes())
    return hashed.hexdigest()


@pytest.mark.parametrize("name", RECIPES)
def test_no_model_answers_the_same_examples_twice(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: Counter[str] = Counter()
    correct = quality.logits

    def counted(model: nn.Module, data: Batches) -> Tensor:
        passes[digest(model, data.x)] += 1
        return correct(model, data)

    for module in (quality, measurement, pipeline, remembered):
        monkeypatch.setattr(module, "logits", counted)
    list(pruning.run(RECIPES[name], work_with_splits()))
    assert len(passes) > 4
    assert set(passes.values()) == {1}


@pytest.mark.parametrize("name", RECIPES)
def test_what_was_known_is_what_measuring_again_gives(name: str) -> None:
    work = work_with_splits()
    kept: list[nn.Module] = []
    events = list(pruning.run(RECIPES[name], work, keep=lambda model, masks: kept.append(model)))
    end = events[-1]
    assert isinstance(end, Finished) and work.test is not None and work.validation is not None
    final = next(e for e in events if isinstance(e, Measured) and e.stage == "final")
    on_test = measurement.evaluate(kept[0], work.test, work.loss)
    assert (end.final.accuracy, end.final.loss) == on_test[:2]
    on_validation = measurement.evaluate(kept[0], work.validation, work.loss)
    assert (final.validation, final.validation_loss) == on_validation[:2]
    tickets = [e for e in events if isinstance(e, Ticket)]
    if tickets:
        assert (tickets[0].accuracy, tickets[0].loss) == (end.dense.accuracy, end.dense.loss)


@pytest.mark.parametrize("name", ["digits-cnn", "digits-resnet", "digits-depthwise", "digits-vit"])
def test_answers_do_not_depend_on_how_many_are_asked_at_once(name: str) -> None:
    work = sample_models.load(name)
    assert work.test is not None and len(work.test.x) > 2 * quality.PASS
    with torch.inference_mode():
        whole = torch.cat([work.model(x) for x in torch.split(work.test.x, 256)])
    assert torch.equal(quality.logits(work.model, replace(work.test, batch=256)), whole)


def passes_of(
    recipe: Recipe, work: Workpiece, cache: Path, monkeypatch
) -> tuple[list, Counter[str]]:
    """Its events, and how many whole passes each model made."""
    passes: Counter[str] = Counter()
    compute = quality.logits

    def counted(model: nn.Module, data: Batches) -> Tensor:
        passes[digest(model, data.x[:0])] += 1
        return compute(model, data)

    for module in (quality, measurement, pipeline, remembered):
        monkeypatch.setattr(module, "logits", counted)
    events = list(pruning.run(recipe, work, cache=cache))
    for module in (quality, measurement, pipeline, remembered):
        monkeypatch.setattr(module, "logits", compute)
    return events, passes


def test_the_next_run_of_a_model_remembers_the_dense_outputs(tmp_path, monkeypatch) -> None:
    work = work_with_splits()
    recipe = RECIPES["one epoch"]
    dense = digest(work.model, work.example[:0])
    first, passes = passes_of(recipe, work, tmp_path, monkeypatch)
    assert passes[dense] == 4  # test, validation, under noise, training
    again, passes = passes_of(recipe, work, tmp_path, monkeypatch)
    assert passes[dense] == 0 and passes
    assert first[-1].dense.accuracy == again[-1].dense.accuracy
    assert first[-1].dense.behaviour == again[-1].dense.behaviour
    assert first[-1].final.paired == again[-1].final.paired
    stages = [[e for e in run if isinstance(e, Measured)] for run in (first, again)]
    assert [e.validation for e in stages[0]] == [e.validation for e in stages[1]]
    assert stages[0][0].seconds == pytest.approx(stages[1][0].seconds)  # what a pass takes


@pytest.mark.parametrize("what", ["weights", "examples", "code", "torn"])
def test_outputs_of_another_model_are_not_remembered(what, tmp_path) -> None:
    work = work_with_splits()
    known, _ = remembered.remembered_outputs(work.model, work.test, tmp_path)
    data = work.test
    match what:
        case "weights":
            next(work.model.parameters()).data.mul_(1.5)
        case "examples":
            data = replace(data, x=data.x + 1)
        case "code":  # no hash sees what a hook does
            work.model.register_forward_hook(lambda module, given, out: out + 1)
        case "torn":
            (file,) = tmp_path.iterdir()
            file.write_bytes(file.read_bytes()[:-9])
    outputs, _ = remembered.remembered_outputs(work.model, data, tmp_path)
    assert torch.equal(outputs, quality.logits(work.model, data))
    assert torch.equal(outputs, known) == (what == "torn")
