"""The sensitivity map: every cell what a plain loop says, and honest about what it does not know
yet.
"""

from __future__ import annotations

import copy
import math
import threading
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import pruning
import sample_models
from pruning import events
from pruning.errors import DataError, NothingToPrune, OutOfRange, RecipeError, Stopped, UnknownName
from pruning.events import Point
from pruning.measurement import evaluate
from pruning.recipe import Recipe
from pruning.runs.map_study import reconstructed
from pruning.sensitivity_map import cells, evaluator
from pruning.sensitivity_map.replay import PartialForward
from pruning.sensitivity_map.sensitivity import LEVELS
from pruning.stats import paired_change
from pruning.types import Workpiece
from pruning.units.layout import lay_out
from tests.long_forms import in_part
from tests.toys import TOYS, toy


@pytest.fixture(autouse=True)
def nothing_remembered() -> None:
    """Each test measures for itself."""
    cells._counts.clear()


def plain(work: Workpiece, point: Point, **fields: object) -> tuple[events.Accuracy, float]:
    """The slow way: a deep copy, this one layer pruned, everything evaluated."""
    model = copy.deepcopy(work.model)
    recipe = Recipe(scope="manual", ratios={point.layer: point.level}, **fields)  # type: ignore[arg-type]
    pruning.apply(pruning.choose(recipe, work), model)
    assert work.validation is not None
    return evaluate(model, work.validation, work.loss)[:2]


def differing(work: Workpiece, points: list[Point], **fields: object) -> list[Point]:
    found = [(point, *plain(work, point, **fields)) for point in points]
    assert all(
        math.isclose(point.loss, loss, rel_tol=1e-5, abs_tol=1e-6) for point, _, loss in found
    )
    return [point for point, accuracy, _ in found if point.accuracy != accuracy]


class Branching(nn.Module):
    """Decides by a value which way to go: no tracer can follow."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 12), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x).relu()
        out: Tensor = self.second(x * 2 if float(x.detach().sum()) > 0 else x)
        return out


class Writing(nn.Module):
    """Writes over a value that is read again: skipping to the middle must not see what an
    earlier pass wrote.
    """

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.relu = (
            nn.Linear(5, 12),
            nn.Linear(12, 12),
            nn.ReLU(inplace=True),
        )
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(x))
        y = self.second(x)
        y += x
        y *= 2
        out: Tensor = self.head(self.relu(y))
        return out


def with_model(model: nn.Module, like: str = "mlp") -> Workpiece:
    return replace(toy(like), model=model.eval())


def seeded(make: type[nn.Module]) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make()


# ---------------------------------------------------------------- exact


@pytest.mark.parametrize(
    ("name", "levels"),
    in_part(
        [
            ("digits-cnn", (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)),
            ("digits-resnet", (0.5, 0.8, 0.95)),
            ("digits-vit", (0.7,)),
        ],
        [("digits-cnn", (0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99))],
    ),
)
def test_every_cell_equals_a_plain_loop_on_trained_models(
    name: str, levels: tuple[float, ...]
) -> None:
    work = sample_models.load(name)
    points = list(pruning.sensitivity(work, levels=levels, keep=None))
    assert len({(p.layer, p.level) for p in points}) == len(points)
    assert len(points) == len(levels) * len(lay_out(Recipe(), work).covered())
    assert {p.tier for p in points} == {"exact"} and all(p.final for p in points)
    assert differing(work, points) == []


@pytest.mark.parametrize("name", TOYS)
@pytest.mark.parametrize("fields", [{"criterion": "taylor"}, {"granularity": "channel"}], ids=str)
def test_every_cell_equals_a_plain_loop_on_toys(name: str, fields: dict[str, str]) -> None:
    work = toy(name)
    if not lay_out(Recipe(**fields), work).covered():  # type: ignore[arg-type]
        with pytest.raises(RecipeError, match="fits no layer"):
            list(pruning.sensitivity(work, keep=None, **fields))  # type: ignore[arg-type]
        return
    points = list(pruning.sensitivity(work, levels=(0.0, 0.3, 0.5, 0.9), keep=None, **fields))  # type: ignore[arg-type]
    assert differing(work, points, **fields) == []
    assert all(events.from_json(events.to_json(p)) == p for p in points)


def test_a_model_that_cannot_be_traced_gives_the_same_numbers() -> None:
    work = with_model(seeded(Branching))
    assert not PartialForward(work.model, work.example).traced  # type: ignore[arg-type]
    assert differing(work, list(pruning.sensitivity(work, keep=None))) == []


def test_steps_that_write_in_place_do_not_spoil_what_is_read_again() -> None:
    work = with_model(seeded(Writing))
    assert PartialForward(work.model, work.example).traced  # type: ignore[arg-type]
    assert differing(work, list(pruning.sensitivity(work, keep=None))) == []


def test_only_what_follows_a_change_is_run_again() -> None:
    work = toy("residual")
    partial = PartialForward(work.model, work.example)  # type: ignore[arg-type]
    steps = [
        partial.first_step([name]) for name in ("first.weight", "second.weight", "head.weight")
    ]
    assert steps == sorted(steps) and len(set(steps)) == 3
    assert partial.first_step(["head.weight", "first.weight"]) == steps[0]
    assert len(partial.folds) == 2


def test_memory_is_one_batch_whatever_the_map() -> None:
    """What is alive at the cut, for one part of a batch: at most the input and the two values of
    a residual block.
    """
    work = toy("residual")
    partial = PartialForward(work.model, work.example)  # type: ignore[arg-type]
    forward = partial.start(work.validation.x[:20])  # type: ignore[union-attr]
    for name in ("first.weight", "second.weight", "head.weight"):
        forward.advance_to(partial.first_step([name]))
        for _ in range(3):
            forward.finish()
        assert len(forward.values) <= 2  # type: ignore[attr-defined]


def test_two_workers_say_what_one_says() -> None:
    work = sample_models.load("digits-cnn")
    one, two = (
        list(pruning.sensitivity(work, levels=(0.5, 0.9), keep=None, workers=n, seed=n))
        for n in (1, 2)
    )
    assert {(p.layer, p.level): p.accuracy for p in one} == {
        (p.layer, p.level): p.accuracy for p in two
    }
    assert threading.active_count() < 10


def test_the_model_is_left_as_found() -> None:
    work = toy("residual")
    before = copy.deepcopy(work.model.state_dict())
    for tier in ("estimate", "progressive", "exact"):
        list(pruning.sensitivity(work, tier=tier, keep=None))
    assert all(torch.equal(value, work.model.state_dict()[name]) for name, value in before.items())
    assert all(p.grad is None for p in work.model.parameters())


# ---------------------------------------------------------------- intervals and tiers


def interval(lost: int, won: int, n: int) -> tuple[float, float]:
    change = paired_change(lost, won, n)
    return change.low, change.high


def test_the_paired_interval_by_hand() -> None:
    """12 answers lost, 2 won, of 98: half an answer more in each count gives 15 that differ among
    100, 10 more lost than won.

    Change −10/100; variance (15 − 10²/100)/100² = 14/10⁴, so ± 1.96 · 0.0374 = 0.0733.
    """
    low, high = interval(12, 2, 98)
    assert (low + high) / 2 == pytest.approx(-0.10)
    assert (high - low) / 2 == pytest.approx(1.96 * math.sqrt(14) / 100, rel=1e-4)
    low, high = interval(0, 0, 98)  # no answer differed: still a width
    assert (low, high) == (pytest.approx(-0.0196, abs=1e-4), pytest.approx(0.0196, abs=1e-4))


def test_progressive_cells_are_sure_or_collapsed_or_exact() -> None:
    work = sample_models.load("digits-cnn")
    points = list(pruning.sensitivity(work, tier="progressive", within=0.03, keep=None))
    assert sorted((p.layer, p.level) for p in points) == sorted(
        (layer, level) for layer in {p.layer for p in points} for level in LEVELS
    )
    for p in points:
        assert p.final and p.accuracy and p.interval
        low, high = p.interval
        assert low <= p.change <= high  # type: ignore[operator]
        row = [q for q in points if q.layer == p.layer and q.level <= p.level and q.interval]
        collapsed = any(q.interval[1] < evaluator.COLLAPSED for q in row if q.interval)
        assert (high - low) / 2 <= 0.03 or p.accuracy.total == 180 or collapsed
    assert sum(p.accuracy.total for p in points if p.accuracy) < 180 * len(points)


def test_running_points_only_ever_grow_surer() -> None:
    work = sample_models.load("digits-cnn")
    seen: dict[tuple[str, float], list[int]] = {}
    for p in pruning.sensitivity(
        work, tier="progressive", running=True, keep=None, levels=(0.5, 0.9)
    ):
        assert p.accuracy
        seen.setdefault((p.layer, p.level), []).append(p.accuracy.total)
    assert all(row == sorted(set(row)) for row in seen.values())
    assert max(map(len, seen.values())) > 1


def test_the_estimate_ranks_cells_as_measuring_does() -> None:
    work = sample_models.load("digits-cnn")
    exact = {
        (p.layer, p.level): p.loss - p.loss_dense for p in pruning.sensitivity(work, keep=None)
    }
    guess = {
        (p.layer, p.level): p.loss - p.loss_dense
        for p in pruning.sensitivity(work, tier="estimate", keep=None)
    }
    assert exact.keys() == guess.keys()
    order = torch.tensor([[exact[k], guess[k]] for k in exact]).argsort(0).argsort(0).double().T
    assert float(torch.corrcoef(order)[0, 1]) > 0.8


def test_gradients_of_single_examples_where_torch_cannot_map_them() -> None:
    """A branch on a value stops vmap; one example after another gives the gradients that mapping
    gives where nothing branches.
    """
    work = with_model(seeded(Branching))
    points = list(pruning.sensitivity(work, tier="estimate", keep=None))
    assert len(points) == 2 * len(LEVELS) and all(
        math.isfinite(p.loss) and p.accuracy is None for p in points
    )


# ---------------------------------------------------------------- kept, stopped, gone on with


def test_a_second_asking_measures_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work = toy("residual")
    first = list(pruning.sensitivity(work, keep=tmp_path))
    cells._counts.clear()
    monkeypatch.setattr(evaluator, "Evaluator", lambda *_: pytest.fail("measured again"))
    again = list(pruning.sensitivity(work, keep=tmp_path))
    assert sorted(map(events.to_json, again)) == sorted(map(events.to_json, first))


def test_other_weights_criteria_or_seeds_are_other_maps() -> None:
    work, other = toy("mlp"), toy("mlp", seed=1)
    assert work.validation and other.validation
    keys = {
        cells.cache_key(recipe, held, held.validation, how)  # type: ignore[arg-type]
        for held in (work, other, replace(work, validation=work.validation.head(9)))
        for recipe in (
            Recipe(),
            Recipe(criterion="random"),
            Recipe(granularity="channel"),
            Recipe(criterion="random", seed=1),
        )
        for how in ("exact", "progressive")
    }
    assert len(keys) == 3 * 4 * 2


@pytest.mark.parametrize("tier", ["exact", "progressive"])
def test_a_stopped_map_goes_on_where_it_was(tier: str, tmp_path: Path) -> None:
    work = sample_models.load("digits-cnn")
    work = replace(work, validation=replace(work.need("validation", ""), batch=45))
    whole = {
        (p.layer, p.level): p
        for p in pruning.sensitivity(work, tier=tier, levels=(0.5, 0.9), keep=None)
    }
    cells._counts.clear()
    said = 0

    def enough() -> bool:
        nonlocal said
        said += 1
        return said > 13

    with pytest.raises(Stopped, match="the map continues there"):
        list(pruning.sensitivity(work, tier=tier, levels=(0.5, 0.9), keep=tmp_path, stop=enough))
    cells._counts.clear()
    stored = next(tmp_path.glob("*.json")).read_text()
    assert "conv1.weight|" in stored
    resumed = {
        (p.layer, p.level): p
        for p in pruning.sensitivity(work, tier=tier, levels=(0.5, 0.9), keep=tmp_path)
    }
    assert {k: p.accuracy for k, p in resumed.items()} == {k: p.accuracy for k, p in whole.items()}


def test_a_reader_that_leaves_loses_nothing(tmp_path: Path) -> None:
    work = toy("residual")
    for _ in pruning.sensitivity(work, keep=tmp_path):
        break
    assert list(tmp_path.glob("*.json"))


# ---------------------------------------------------------------- what cannot be asked


def test_what_cannot_be_asked_is_said_at_once() -> None:
    work = toy("mlp")
    with pytest.raises(OutOfRange, match="A level is 1"):
        pruning.sensitivity(work, levels=(1,))
    with pytest.raises(UnknownName, match="estimate, exact, progressive"):
        pruning.sensitivity(work, tier="guess")
    with pytest.raises(UnknownName, match="no criterion called"):
        pruning.sensitivity(work, criterion="magnitud")
    with pytest.raises(DataError, match="sensitivity map needs validation data"):
        pruning.sensitivity(replace(work, validation=None))
    with pytest.raises(UnknownName, match="nowhere"):
        list(pruning.sensitivity(work, exclude=("nowhere",)))
    names = list(lay_out(Recipe(), work).covered())
    with pytest.raises(NothingToPrune, match="excluded"):
        list(pruning.sensitivity(work, exclude=names))


# ---------------------------------------------------------------- repaired cells


def test_a_repaired_cell_is_the_plain_way_with_the_repair() -> None:
    """Each cell's own model is pruned, repaired and asked; the work's model is left as it is."""
    work = toy("residual")
    assert work.validation and work.train
    before = {name: value.clone() for name, value in work.model.state_dict().items()}
    repair = partial(reconstructed, work=work, data=work.train, seed=0)
    asked = {"granularity": "channel", "levels": (0.4, 0.8), "repair": repair}
    points = list(pruning.sensitivity(work, **asked))
    plainly = list(pruning.sensitivity(work, granularity="channel", levels=(0.4, 0.8)))
    assert [(p.layer, p.level, p.kept) for p in points] == [
        (p.layer, p.level, p.kept) for p in plainly
    ]
    for point in points:
        recipe = Recipe(scope="manual", ratios={point.layer: point.level}, granularity="channel")
        masks = pruning.choose(recipe, work)
        model = copy.deepcopy(work.model)
        pruning.apply(masks, model)
        repair(model, masks)
        accuracy, loss, _ = evaluate(model, work.validation, work.loss)
        assert point.accuracy == accuracy
        assert point.loss == pytest.approx(loss, rel=1e-4)
    assert sum(p.loss for p in points) != sum(p.loss for p in plainly)
    assert all(torch.equal(before[name], value) for name, value in work.model.state_dict().items())


def test_only_exact_maps_are_repaired() -> None:
    with pytest.raises(RecipeError, match="choose exact"):
        pruning.sensitivity(toy("mlp"), tier="progressive", repair=lambda *_: None)
