"""BatchNorm recalibration after pruning, and distillation with the dense model as teacher."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import pruning
from pruning import events
from pruning.errors import DataError, OutOfRange, RecipeError
from pruning.recipe import Recipe
from pruning.training.distill import distillation_loss, teacher_logits
from pruning.training.recalibrate import norms, recalibrate
from pruning.types import Batches, Workpiece
from tests.toys import same, snapshot, toy


def run(recipe: Recipe, work: Workpiece) -> list[events.Event]:
    return list(pruning.run(recipe, work))


def epochs(recipe: Recipe, work: Workpiece) -> list[events.Epoch]:
    return [event for event in run(recipe, work) if isinstance(event, events.Epoch)]


def kinds(history: list[events.Event]) -> list[str]:
    """The name of each event; of a measurement, its stage."""
    return [getattr(event, "stage", type(event).__name__.lower()) for event in history]


# ---------------------------------------------------------------- recalibration


def test_statistics_are_those_of_the_data() -> None:
    """x = 0, 2, 4, 6: mean 3, unbiased variance (9 + 1 + 1 + 9) / 3 = 20/3."""
    model = nn.BatchNorm1d(1, momentum=0.3)
    data = Batches(torch.tensor([[0.0], [2.0], [4.0], [6.0]]), torch.zeros(4).long())
    assert recalibrate(model, data, batch=4) == 1
    assert model.running_mean is not None and model.running_var is not None
    assert model.running_mean.item() == 3
    assert model.running_var.item() == pytest.approx(20 / 3)
    assert (model.momentum, model.training) == (0.3, True)


def test_every_batch_counts_the_same() -> None:
    model = nn.BatchNorm1d(2)
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    data = Batches(x, torch.zeros(60).long())
    recalibrate(model, data, seed=5, batch=20)
    parts = [x[part] for part in data.order(torch.Generator().manual_seed(5), 20)]
    assert model.running_mean is not None and model.running_var is not None
    mean = torch.stack([part.mean(0) for part in parts]).mean(0)
    variance = torch.stack([part.var(0) for part in parts]).mean(0)
    assert torch.allclose(model.running_mean, mean, atol=1e-6)
    assert torch.allclose(model.running_var, variance, atol=1e-6)


def test_only_statistics_change_and_they_repeat() -> None:
    work = toy("residual")
    model = copy.deepcopy(work.model).train()
    other = copy.deepcopy(work.model)
    assert work.train is not None
    generator = torch.get_rng_state()
    assert recalibrate(model, work.train, seed=1) == recalibrate(other, work.train, seed=1) == 2
    assert torch.equal(generator, torch.get_rng_state())
    assert all(module.training for module in model.modules())
    before = work.model.state_dict()
    after = model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    statistics = ("running_mean", "running_var", "num_batches_tracked")
    assert changed == {f"{norm}.{name}" for norm in ("norm1", "norm2") for name in statistics}
    assert same(dict(after), dict(other.state_dict()))


def test_dropout_is_off_while_statistics_are_estimated() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(1)).train()
    recalibrate(model, Batches(torch.ones(8, 1), torch.zeros(8).long()))
    assert model[1].running_mean.item() == 1


def test_a_run_shows_pruned_recalibrated_and_fine_tuned() -> None:
    work = toy("residual")
    before = snapshot(work.model)
    recipe = Recipe(sparsity=0.6, steps=2, schedule="linear", epochs=1, recalibrate=True)
    history = run(recipe, work)
    # After the last step each stage is said twice: the event, then what was measured.
    first = ["pruned", "recalibrated", "epoch"]
    last = ["pruned", "pruned", "recalibrated", "recalibrated", "epoch"]
    assert kinds(history) == ["started", "dense", *first, *last, "final", "finished"]
    assert same(before, snapshot(work.model))
    finished = history[-1]
    assert isinstance(finished, events.Finished)
    assert finished.pruned and finished.recalibrated
    assert finished.recalibrated.loss != finished.pruned.loss
    assert finished.recalibrated.kept == finished.pruned.kept
    assert all(events.from_json(events.to_json(event)) == event for event in history)


def test_without_fine_tuning_the_recalibrated_model_is_the_final_one() -> None:
    history = run(Recipe(sparsity=0.6, recalibrate=True), toy("residual"))
    stages = ["pruned", "pruned", "recalibrated"]
    assert kinds(history) == ["started", "dense", *stages, "final", "finished"]
    finished = history[-1]
    assert isinstance(finished, events.Finished)
    assert finished.pruned and finished.recalibrated is None
    assert finished.final.loss != finished.pruned.loss


def test_recalibration_undoes_stale_statistics() -> None:
    """Statistics that are wrong by construction: recalibrating gives the very loss of before."""
    work = toy("residual")
    assert work.train is not None
    recalibrate(work.model, work.train)
    loss = pruning.measure(work, "train", latency=False).loss
    assert loss is not None
    for norm in norms(work.model):
        assert norm.running_mean is not None and norm.running_var is not None
        norm.running_mean += 3
        norm.running_var *= 9
    stale = pruning.measure(work, "train", latency=False).loss
    assert stale is not None and abs(stale - loss) > 0.01
    recalibrate(work.model, work.train)
    assert pruning.measure(work, "train", latency=False).loss == loss


def test_without_batchnorm_nothing_changes_and_a_notice_says_so() -> None:
    recipe = Recipe(sparsity=0.5, epochs=1, recalibrate=True)
    history = run(recipe, toy("mlp"))
    notices = [event.text for event in history if isinstance(event, events.Notice)]
    assert notices == ["Nothing was recalibrated: mlp has no BatchNorm with running statistics."]
    *_, without = run(replace(recipe, recalibrate=False), toy("mlp"))
    finished = history[-1]
    assert isinstance(finished, events.Finished) and isinstance(without, events.Finished)
    assert finished.final.loss == without.final.loss
    assert finished.recalibrated is None


def test_recalibration_needs_training_data() -> None:
    bare = replace(toy("residual"), train=None)
    with pytest.raises(DataError, match="Recalibrating BatchNorm needs train data"):
        run(Recipe(recalibrate=True), bare)
    with pytest.raises(DataError, match="at least 2 training examples"):
        recalibrate(nn.BatchNorm1d(1), Batches(torch.zeros(1, 1), torch.zeros(1).long()))


# ---------------------------------------------------------------- distillation


def test_the_teachers_term_wanted() -> None:
    """T = 2: student (0, 0) is (1/2, 1/2); teacher (2 ln 3, 0) is (3/4, 1/4).

    KL = 3/4 ln(3/2) + 1/4 ln(1/2) = 3/4 ln 3 - ln 2, times T² = 4.
    """
    student = torch.zeros(1, 2)
    teacher = torch.tensor([[2 * math.log(3), 0.0]])
    wanted = 4 * (0.75 * math.log(3) - math.log(2))
    assert distillation_loss(student, teacher, 2.0).item() == pytest.approx(wanted, abs=1e-6)
    assert distillation_loss(teacher, teacher, 2.0).item() == pytest.approx(0, abs=1e-7)
    # A mean over examples: beside one that agrees, half of it.
    students = torch.cat([teacher, student])
    teachers = torch.cat([teacher, teacher])
    half = distillation_loss(students, teachers, 2.0).item()
    assert half == pytest.approx(wanted / 2, abs=1e-6)


def test_at_high_temperature_it_matches_logits() -> None:
    """The paper's limit as T grows, of logits with mean zero.

    T²·KL → ½·mean over classes of the squared difference.
    """
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(6, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    a = a - a.mean(1, keepdim=True)
    b = b - b.mean(1, keepdim=True)
    limit = 0.5 * (a - b).square().mean(1).mean().item()
    assert distillation_loss(a, b, 1000.0).item() == pytest.approx(limit, rel=1e-2)


def test_logits_are_the_teachers_in_order() -> None:
    work = toy("tied")
    work.model.train()
    assert work.train is not None
    before = snapshot(work.model)
    logits = teacher_logits(work.model, work.train)
    assert same(before, snapshot(work.model))
    work.model.eval()
    assert torch.allclose(logits, work.model(work.train.x), atol=1e-6)


def test_each_example_meets_its_own_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is pruned and the student is the teacher: before any weight moved, they agree."""
    from pruning.training import finetune

    losses: list[float] = []

    def recorded(*arguments: Any) -> torch.Tensor:
        loss = distillation_loss(*arguments)
        losses.append(loss.item())
        return loss

    monkeypatch.setattr(finetune, "distillation_loss", recorded)
    run(Recipe(sparsity=0.0, epochs=1, distill=0.5, batch=16, lr=0.5), toy("mlp"))
    assert losses[0] == pytest.approx(0, abs=1e-6)
    assert max(losses) > 1e-4


def test_a_distilled_run_keeps_its_zeros_repeats_and_reports_both_losses() -> None:
    recipe = Recipe(sparsity=0.7, epochs=3, distill=0.9, temperature=2.0, seed=2)
    history = run(recipe, toy("residual"))
    first = [event for event in history if isinstance(event, events.Epoch)]
    second = epochs(recipe, toy("residual"))
    assert all(epoch.teacher is not None and epoch.teacher >= 0 for epoch in first)
    losses = [(epoch.train_loss, epoch.teacher) for epoch in first]
    assert losses == [(epoch.train_loss, epoch.teacher) for epoch in second]
    assert first[-1].teacher < first[0].teacher
    finished = history[-1]
    assert isinstance(finished, events.Finished)
    assert round(finished.sparsity, 2) == 0.7
    plain = epochs(replace(recipe, distill=0.0), toy("residual"))
    assert all(epoch.teacher is None for epoch in plain)


def test_a_student_from_random_weights_learns_from_the_dense_model_alone() -> None:
    """distill = 1: labels are not used, and still the student comes to predict as the teacher."""
    work = toy("mlp")
    recipe = Recipe(start="random", sparsity=0.0, epochs=30, distill=1.0, lr=0.1, batch=16, seed=1)
    losses = [epoch.teacher for epoch in epochs(recipe, work)]
    assert losses[-1] < 0.2 * losses[0]


def test_what_cannot_be_distilled_is_refused_or_noticed() -> None:
    history = run(Recipe(sparsity=0.5, distill=0.5), toy("mlp"))
    notices = [event.text[:22] for event in history if isinstance(event, events.Notice)]
    assert notices == ["Nothing was distilled:"]
    with pytest.raises(DataError, match="Distillation needs train data"):
        run(Recipe(sparsity=0.5, distill=0.5, epochs=1), replace(toy("mlp"), train=None))
    for wrong in ({"distill": 1.5}, {"distill": True}, {"temperature": 0}, {"recalibrate": 1}):
        with pytest.raises(OutOfRange, match=next(iter(wrong))):
            Recipe(**wrong)
    with pytest.raises(RecipeError):
        Recipe.from_dict({"recalibrate": "yes"})


def test_events_of_before_are_read() -> None:
    """Runs that were stored before these stages existed are still read."""
    epoch = events.Epoch(1, 1, 1, 0.5, None, None, 0.5, 0.01, 0.1)
    stored = events.to_dict(epoch)
    del stored["teacher"]
    assert events.from_dict(stored) == epoch


# ---------------------------------------------------------------- augmentation


def test_fine_tuning_augments_when_asked_and_repeats() -> None:
    shapes: list[tuple[int, ...]] = []

    def noisy(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        shapes.append(tuple(x.shape))
        return x + torch.randn(x.shape, generator=generator)

    work = replace(toy("mlp"), augment=noisy)
    plain, asked = Recipe(epochs=1), Recipe(epochs=1, augment=True)
    ends = [list(pruning.run(recipe, work))[-1] for recipe in (asked, asked, plain)]
    first, again, without = (end.final.loss for end in ends)
    assert first == again != without
    assert sum(shape[0] for shape in shapes) == 2 * len(work.train.x)
    # Training from random weights, and a teacher's answers, are of the data as they are.
    shapes.clear()
    for recipe in (replace(asked, start="random"), replace(asked, distill=0.5)):
        list(pruning.run(recipe, work))
    assert not shapes
