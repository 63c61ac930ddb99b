"""After pruning: BatchNorm recalibrated, and the dense model as teacher."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
from torch import nn

import pruning
from pruning import events
from pruning.errors import DataError, ModelError, OutOfRange, RecipeError
from pruning.recipe import Recipe
from pruning.training.distill import distillation_loss, teacher_logits
from pruning.training.recalibrate import norms, recalibrate
from pruning.types import Batches, Workpiece
from tests.toys import same, snapshot, toy


def said(recipe: Recipe, work: Workpiece) -> list[events.Event]:
    return list(pruning.run(recipe, work))


def kinds(told: list[events.Event]) -> list[str]:
    return [e.stage if isinstance(e, events.Measured) else type(e).__name__.lower() for e in told]


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
    assert torch.allclose(
        model.running_mean, torch.stack([p.mean(0) for p in parts]).mean(0), atol=1e-6
    )
    assert torch.allclose(
        model.running_var, torch.stack([p.var(0) for p in parts]).mean(0), atol=1e-6
    )


def test_only_statistics_change_and_they_repeat() -> None:
    work = toy("residual")
    model, other = copy.deepcopy(work.model), copy.deepcopy(work.model)
    model.train()
    assert work.train is not None
    chance = torch.get_rng_state()
    assert recalibrate(model, work.train, seed=1) == recalibrate(other, work.train, seed=1) == 2
    assert torch.equal(chance, torch.get_rng_state())
    assert all(m.training for m in model.modules())
    before, after = work.model.state_dict(), model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed == {
        f"norm{i}.{what}"
        for i in (1, 2)
        for what in ("running_mean", "running_var", "num_batches_tracked")
    }
    assert same(dict(after), dict(other.state_dict()))


def test_dropout_draws_nothing_while_statistics_are_estimated() -> None:
    model = nn.Sequential(nn.Dropout(0.9), nn.BatchNorm1d(1)).train()
    recalibrate(model, Batches(torch.ones(8, 1), torch.zeros(8).long()))
    assert model[1].running_mean.item() == 1  # type: ignore[union-attr]


def test_a_run_shows_pruned_recalibrated_and_healed() -> None:
    work = toy("residual")
    before = snapshot(work.model)
    told = said(Recipe(sparsity=0.6, steps=2, schedule="linear", epochs=1, recalibrate=True), work)
    first, last = (
        ["pruned", "recalibrated", "epoch"],
        ["pruned", "pruned", "recalibrated", "recalibrated", "epoch"],
    )  # event, Measured
    assert kinds(told) == ["started", "dense", *first, *last, "final", "finished"]
    assert same(before, snapshot(work.model))
    end = told[-1]
    assert isinstance(end, events.Finished)
    assert end.pruned and end.recalibrated
    assert end.recalibrated.loss != end.pruned.loss and end.recalibrated.kept == end.pruned.kept
    assert all(events.from_json(events.to_json(e)) == e for e in told)


def test_without_healing_the_end_is_the_recalibrated_model() -> None:
    told = said(Recipe(sparsity=0.6, recalibrate=True), toy("residual"))
    assert kinds(told) == [
        "started",
        "dense",
        "pruned",
        "pruned",
        "recalibrated",
        "final",
        "finished",
    ]
    end = told[-1]
    assert isinstance(end, events.Finished) and end.pruned and end.recalibrated is None
    assert end.final.loss != end.pruned.loss


def test_recalibration_takes_back_what_stale_statistics_changed() -> None:
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


def test_without_batchnorm_nothing_changes_and_it_is_said() -> None:
    plain, asked = (
        said(Recipe(sparsity=0.5, epochs=1, recalibrate=flag), toy("mlp")) for flag in (False, True)
    )
    notices = [e.text for e in asked if isinstance(e, events.Notice)]
    assert notices == ["Nothing was recalibrated: mlp has no BatchNorm with running statistics."]
    a, b = plain[-1], asked[-1]
    assert isinstance(a, events.Finished) and isinstance(b, events.Finished)
    assert a.final.loss == b.final.loss and b.recalibrated is None


def test_recalibration_needs_training_data() -> None:
    bare = replace(toy("residual"), train=None)
    with pytest.raises(DataError, match="Recalibrating BatchNorm needs train data"):
        said(Recipe(recalibrate=True), bare)
    with pytest.raises(DataError, match="at least 2 training examples"):
        recalibrate(nn.BatchNorm1d(1), Batches(torch.zeros(1, 1), torch.zeros(1).long()))


# ---------------------------------------------------------------- distillation


def test_the_teachers_term_by_hand() -> None:
    """T = 2: student (0, 0) is (1/2, 1/2); teacher (2 ln 3, 0) is (3/4, 1/4).

    KL = 3/4 ln(3/2) + 1/4 ln(1/2) = 3/4 ln 3 - ln 2, times T² = 4.
    """
    student, teacher = torch.zeros(1, 2), torch.tensor([[2 * math.log(3), 0.0]])
    assert distillation_loss(student, teacher, 2.0).item() == pytest.approx(
        4 * (0.75 * math.log(3) - math.log(2)), abs=1e-6
    )
    assert distillation_loss(teacher, teacher, 2.0).item() == pytest.approx(0, abs=1e-7)
    both = torch.cat([teacher, student]), torch.cat([teacher, teacher])
    assert distillation_loss(*both, 2.0).item() == pytest.approx(
        2 * (0.75 * math.log(3) - math.log(2)), abs=1e-6
    )


def test_at_high_temperature_it_matches_logits() -> None:
    """The paper's limit: with zero-mean logits, T²·KL → ½·mean over classes of the squared difference, as T grows."""
    chance = torch.Generator().manual_seed(0)
    a, b = (torch.randn(6, 4, generator=chance, dtype=torch.float64) for _ in range(2))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    assert distillation_loss(a, b, 1000.0).item() == pytest.approx(
        0.5 * (a - b).square().mean(1).mean().item(), rel=1e-2
    )


def test_answers_are_the_teachers_in_order() -> None:
    work = toy("tied")
    work.model.train()
    assert work.train is not None
    before = snapshot(work.model)
    found = teacher_logits(work.model, work.train)
    assert same(before, snapshot(work.model))
    work.model.eval()
    assert torch.allclose(found, work.model(work.train.x), atol=1e-6)


def test_each_example_meets_its_own_teacher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is removed and the student is the teacher: in the first step, before any weight moved, they agree."""
    from pruning.training import finetune

    seen: list[float] = []

    def watch(student: torch.Tensor, teacher: torch.Tensor, temperature: float) -> torch.Tensor:
        seen.append(distillation_loss(student, teacher, temperature).item())
        return distillation_loss(student, teacher, temperature)

    monkeypatch.setattr(finetune, "distillation_loss", watch)
    said(Recipe(sparsity=0.0, epochs=1, distill=0.5, batch=16, lr=0.5), toy("mlp"))
    assert seen[0] == pytest.approx(0, abs=1e-6) and max(seen) > 1e-4


def test_a_distilled_run_keeps_its_zeros_repeats_and_says_both_losses() -> None:
    recipe = Recipe(sparsity=0.7, epochs=3, distill=0.9, temperature=2.0, seed=2)
    first, again = said(recipe, toy("residual")), said(recipe, toy("residual"))
    epochs = [e for e in first if isinstance(e, events.Epoch)]
    assert all(e.teacher is not None and e.teacher >= 0 for e in epochs)
    assert [(e.train_loss, e.teacher) for e in epochs] == [
        (e.train_loss, e.teacher) for e in again if isinstance(e, events.Epoch)
    ]
    assert epochs[-1].teacher < epochs[0].teacher  # type: ignore[operator]
    end = first[-1]
    assert isinstance(end, events.Finished) and round(end.sparsity, 2) == 0.7
    plain = [
        e
        for e in said(replace(recipe, distill=0.0), toy("residual"))
        if isinstance(e, events.Epoch)
    ]
    assert all(e.teacher is None for e in plain)


def test_a_student_from_random_weights_learns_from_the_dense_model_alone() -> None:
    """distill = 1: labels are not used, and still the student comes to answer as the teacher does."""
    work = toy("mlp")
    recipe = Recipe(start="random", sparsity=0.0, epochs=30, distill=1.0, lr=0.1, batch=16, seed=1)
    epochs = [e for e in said(recipe, work) if isinstance(e, events.Epoch)]
    assert epochs[-1].teacher < 0.2 * epochs[0].teacher  # type: ignore[operator]


def test_what_cannot_be_distilled_is_refused_or_said() -> None:
    told = said(Recipe(sparsity=0.5, distill=0.5), toy("mlp"))
    assert [e.text[:22] for e in told if isinstance(e, events.Notice)] == ["Nothing was distilled:"]
    with pytest.raises(DataError, match="Distillation needs train data"):
        said(Recipe(sparsity=0.5, distill=0.5, epochs=1), replace(toy("mlp"), train=None))
    with pytest.raises(
        ModelError, match="compares scores of classes, and this model's output for one example is 1"
    ):
        teacher_logits(nn.Linear(5, 1), Batches(torch.zeros(2, 5), torch.zeros(2).long()))
    for wrong in ({"distill": 1.5}, {"distill": True}, {"temperature": 0}, {"recalibrate": 1}):
        with pytest.raises(OutOfRange, match=next(iter(wrong))):
            Recipe(**wrong)  # type: ignore[arg-type]
    with pytest.raises(RecipeError):
        Recipe.from_dict({"recalibrate": "yes"})


def test_events_of_before_are_read() -> None:
    """Runs that were stored without the new stages keep their story."""
    epoch = events.Epoch(1, 1, 1, 0.5, None, None, 0.5, 0.01, 0.1)
    held = events.to_dict(epoch)
    del held["teacher"]
    assert events.from_dict(held) == epoch
