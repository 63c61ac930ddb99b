"""The criterion check: leave-one-out loss changes, exact and without a trace, and the rank
correlations that sum them up.
"""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats
from torch import Tensor, nn

import pruning
import sample_models
from pruning import registry, stats
from pruning.allocation.ranked import rank
from pruning.analysis.criterion_check import (
    Check,
    CheckedUnit,
    CheckPlan,
    CheckResult,
    LeaveOneOut,
    criterion_check,
    sampled,
)
from pruning.cli import main
from pruning.errors import DataError, OutOfRange, RecipeError, Stopped, UnknownName
from pruning.measurement import evaluate
from pruning.sensitivity_map.replay import Replay
from pruning.types import Batches, Masks, Workpiece, prunable
from tests.test_studies import made
from tests.toys import TOYS, same, snapshot, toy

# ---------------------------------------------------------------- running again


class Shared(nn.Module):
    """One convolution called twice, an addition in place, a parameter used bare, and a branch
    that no weight of `late` reaches.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.late = (
            nn.Conv2d(2, 2, 3, padding=1),
            nn.BatchNorm2d(2),
            nn.Conv2d(2, 2, 1),
        )
        self.scale, self.act, self.head = (
            nn.Parameter(torch.ones(2, 1, 1)),
            nn.ReLU(inplace=True),
            nn.Linear(2, 3),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x * self.scale)
        other = self.norm(x)
        x = self.act(self.late(x))
        other += x
        x = torch.relu_(self.conv(other))
        out: Tensor = self.head(x.mean((2, 3)))
        return out


class Forking(nn.Module):
    """Control flow on values: it cannot be traced, and runs whole."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.a(x)
        out: Tensor = self.b(h.relu() if h.sum() > 0 else h.tanh())
        return out


def odd(model: nn.Module, *shape: int) -> Workpiece:
    x = torch.randn(30, *shape, generator=torch.Generator().manual_seed(0))
    data = Batches(x, torch.arange(30) % 3, batch=8)
    return Workpiece(type(model).__name__, model, data, data, data, example=x[:1])


def works() -> list[Workpiece]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return [*map(toy, TOYS), odd(Shared(), 2, 4, 4), odd(Forking(), 5)]


@pytest.mark.parametrize("work", works(), ids=lambda work: work.name)
def test_running_again_is_exact_to_the_bit(work: Workpiece) -> None:
    model = copy.deepcopy(work.model).eval()
    assert work.validation is not None
    replay = Replay(model, work.validation)
    assert replay.traced == (work.name != "Forking")
    with torch.no_grad():
        for weight in prunable(model).values():
            again = replay.outputs_under([weight])
            for _ in range(2):
                weight.view(-1)[torch.randint(weight.numel(), (3,))] += 0.5
                assert all(map(torch.equal, again(), replay.outputs()))
            assert replay.seconds([weight]) > 0


def test_only_what_a_weight_reaches_is_run_again() -> None:
    work = toy("residual")
    assert work.validation is not None
    replay = Replay(copy.deepcopy(work.model).eval(), work.validation)
    calls: list[str] = []
    for name, module in replay.model.named_modules():
        module.register_forward_hook(lambda *_, name=name: calls.append(name))
    with torch.no_grad():
        again = replay.outputs_under([replay.model.get_parameter("second.weight")])
        calls.clear()
        again()
    assert set(calls) == {"second", "norm2", "head"}


# ---------------------------------------------------------------- the leave-one-out change


def masked(work: Workpiece, gone: Masks) -> float:
    """The loss without what a mask removes, by masking a copy and measuring it: what the
    measurer must agree with.
    """
    model = copy.deepcopy(work.model)
    pruning.apply(gone, model)
    assert work.validation is not None
    return evaluate(model, work.validation, work.loss)[1]


def without(work: Workpiece, check: Check, layer: str, unit: int) -> Masks:
    """The mask that pruning makes when this unit scores lowest and one unit goes."""
    ranked = rank(check.recipe(), work)
    scores = {name: torch.arange(len(values)) + 1.0 for name, values in ranked.scores.items()}
    scores[layer][unit] = 0
    ranking = replace(
        ranked.ranking, units={name: np.sort(values.numpy()) for name, values in scores.items()}
    )
    return replace(ranked, scores=scores, ranking=ranking).masks({layer: 1}, work.model)


@pytest.mark.parametrize(
    "granularity", [name for name in registry.names("granularity") if name != "n_of_m"]
)
@pytest.mark.parametrize("name", TOYS)
def test_the_change_is_that_of_masking_the_unit(name: str, granularity: str) -> None:
    work = toy(name)
    before, chance = snapshot(work.model), torch.get_rng_state()
    check = Check(granularity=granularity, units=3)
    try:
        chosen = sampled(work, check)
    except RecipeError as error:
        assert "Choose another granularity" in str(error)
        return
    measurer, dense = LeaveOneOut(work, check), masked(work, {})
    assert measurer.loss == pytest.approx(dense, abs=1e-6)
    for layer, units in chosen.items():
        assert 1 <= len(units) <= measurer.size(layer)
        for unit, weights, change in measurer.changes(layer, units):
            gone = without(work, check, layer, unit)
            assert weights == sum(
                int((~keep).sum()) for name, keep in gone.items() if keep.dim() > 1
            )
            assert change == pytest.approx(masked(work, gone) - dense, abs=2e-6)
    assert same(before, snapshot(work.model))
    assert same(dict(measurer.model.state_dict()), dict(work.model.state_dict()))
    assert torch.equal(chance, torch.get_rng_state())


def test_an_unused_unit_changes_nothing() -> None:
    work = toy("mlp")
    with torch.no_grad():
        work.model.get_parameter("2.weight")[:, 4] = 0  # nobody reads unit 4 of the first layer
    change = {
        unit: change
        for unit, _, change in LeaveOneOut(work, Check(granularity="channel")).changes(
            "0.weight", range(12)
        )
    }
    assert change[4] == 0
    assert all(change[unit] != 0 for unit in change if unit != 4)


def quadratic() -> Workpiece:
    """L = ½ Σ h (w − w*)² at w = w*: without w_i it is ½ h_i w_i². h = 16, 1, 100 and w = 1, −3,
    0.5: 8, 4.5, 12.5.
    """
    model = nn.Linear(3, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, -3.0, 0.5]]))
    x = torch.diag(
        torch.tensor([16.0, 1.0, 100.0]).sqrt() * 3**0.5
    )  # three examples, one for each weight
    y = x @ torch.tensor([1.0, -3.0, 0.5])
    data = Batches(x, y)
    return Workpiece(
        "quadratic",
        model,
        data,
        data,
        data,
        loss=lambda out, y: 0.5 * (out[:, 0] - y).square().mean(),
        example=x[:1],
    )


def linear() -> Workpiece:
    """L = mean of outputs: linear in the weights, so that the first order is all there is."""
    model = nn.Linear(6, 4, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.randn(4, 6, generator=torch.Generator().manual_seed(2)))
    x = torch.rand(10, 6, generator=torch.Generator().manual_seed(3)) + 0.1
    data = Batches(x, torch.zeros(10).long())
    return Workpiece(
        "linear", model, data, data, data, loss=lambda out, y: out.mean(), example=x[:1]
    )


def told(
    work: Workpiece, criteria: dict[str, dict[str, Any]], **check: Any
) -> tuple[CheckPlan, list[CheckedUnit], CheckResult]:
    plan, *points, end = criterion_check(work, Check(**check), criteria)
    assert isinstance(plan, CheckPlan) and isinstance(end, CheckResult)
    return plan, [point for point in points if isinstance(point, CheckedUnit)], end


def test_on_a_quadratic_by_hand() -> None:
    changes = [
        change for _, _, change in LeaveOneOut(quadratic(), Check()).changes("weight", [0, 1, 2])
    ]
    assert changes == pytest.approx([8, 4.5, 12.5])


def test_where_the_loss_is_linear_taylor_is_the_loss_change() -> None:
    _, points, end = told(linear(), {"taylor": {}, "magnitude": {}})
    assert len(points) == 24
    for point in points:
        assert point.scores["taylor"] == pytest.approx(abs(point.change), rel=1e-4)
    assert end.layers[0].absolute["taylor"].value == pytest.approx(1)
    assert end.layers[0].absolute["magnitude"].value < 1  # type: ignore[operator]


def test_where_the_loss_is_a_parabola_obd_is_the_loss_change() -> None:
    _, points, end = told(
        quadratic(), {"obd": {"diagonal": "hessian", "probes": 1}, "magnitude": {}}
    )
    for point in (
        points
    ):  # at the minimum the gradient is 0, and the Hessian is diagonal: one probe reads it off
        assert point.scores["obd"] == pytest.approx(point.change, rel=1e-5)
    rho = {name: held.value for name, held in end.layers[0].signed.items()}
    assert rho == pytest.approx({"obd": 1, "magnitude": -1}), (
        "the largest weight is the one that matters least"
    )


def test_correlations_are_of_the_points_and_the_last_is_over_all() -> None:
    plan, points, end = told(
        toy("residual"), {"taylor": {}, "random": {}}, granularity="row", units=4
    )
    assert [t.layer for t in end.layers] == ["first.weight", "second.weight", ""]
    assert plan.units == {"first.weight": (4, 6), "second.weight": (4, 6)}
    assert (plan.examples, plan.refused) == (48, {})
    for held in end.layers:
        mine = [p for p in points if held.layer in ("", p.layer)]
        assert held.units == len(mine)
        scores = {name: [p.scores[name] for p in mine] for name in held.criteria}
        for name in held.criteria:
            assert held.absolute[name].value == stats.spearman(
                scores[name], [abs(p.change) for p in mine]
            )
            assert held.signed[name].value == stats.spearman(scores[name], [p.change for p in mine])
        assert held.agreement[0][1] == stats.spearman(scores["taylor"], scores["random"])


def test_scores_are_those_that_prune() -> None:
    work = toy("residual")
    _, points, _ = told(
        work, {"taylor": {"squared": True}}, granularity="channel", layers=("first.weight",)
    )
    recipe = pruning.Recipe(criterion="taylor", options={"squared": True}, granularity="channel")
    ranking = rank(recipe, work).ranking.units["first.weight"]
    assert sorted(p.scores["taylor"] for p in points) == ranking.tolist()


def test_it_repeats_and_leaves_no_trace_even_when_left_halfway() -> None:
    work = toy("tied")
    work.model.train()
    before = snapshot(work.model)
    first, again = (told(work, {"random": {}}, units=7, seed=5) for _ in range(2))
    assert first[1] == again[1] and replace(first[2], seconds=0) == replace(again[2], seconds=0)
    assert first[1] != told(work, {"random": {}}, units=7, seed=6)[1]
    going = criterion_check(work, Check(), {"random": {}})
    next(going), next(going)
    going.close()
    assert same(before, snapshot(work.model))
    with pytest.raises(Stopped, match="after 0 units"):
        list(criterion_check(work, Check(), {"random": {}}, stop=lambda: True))


def test_what_cannot_be_asked_says_why() -> None:
    work = toy("residual")
    with pytest.raises(
        UnknownName, match=r"no layer called 'firs\.weight'.*did you mean 'first\.weight'"
    ):
        told(work, {"magnitude": {}}, layers=("firs.weight",))
    with pytest.raises(RecipeError, match=r"head\.weight stays whole by channel: its outputs"):
        told(work, {"magnitude": {}}, layers=("head.weight",), granularity="channel")
    with pytest.raises(
        RecipeError, match="which weights of a unit are removed depends on the criterion"
    ):
        told(
            toy("depthwise"),
            {"magnitude": {}},
            granularity="n_of_m",
            granularity_options={"n": 1, "m": 2},
        )
    with pytest.raises(RecipeError, match="No layer has units by head: the model has no attention"):
        told(work, {"magnitude": {}}, granularity="head")
    with pytest.raises(OutOfRange, match="units is 2"):
        Check(units=2)
    with pytest.raises(RecipeError, match="No criterion is named"):
        told(work, {})
    with pytest.raises(DataError, match="The leave-one-out loss change needs validation data"):
        told(replace(work, validation=None), {"magnitude": {}})
    bare = replace(work, train=None)
    plan, points, _ = told(bare, {"magnitude": {}, "taylor": {}})
    assert "training data" in plan.refused["taylor"] and list(points[0].scores) == ["magnitude"]
    with pytest.raises(DataError, match="training data"):
        told(bare, {"taylor": {}})


# ---------------------------------------------------------------- as studies, and from a shell


def test_studies_join_to_what_the_generator_says(tmp_path: Path) -> None:
    work = toy("residual")
    _, points, _ = told(work, {"taylor": {}}, granularity="row", units=4, seed=2)
    asked = {"model": work.name, "granularity": "row", "units": 4, "seed": 2}
    scores = made(tmp_path / "units", work, "units", criterion="taylor", **asked)
    assert scores.data["names"] == ["first.weight", "second.weight"]
    assert "the model's answers" in scores.data["fixed"]["head.weight"]
    for i, layer in enumerate(scores.data["names"]):
        held = made(tmp_path / layer, work, "criterion_check", layer=layer, **asked)
        mine = [p for p in points if p.layer == layer]
        assert scores.arrays[f"scores_{i}"].tolist() == [p.scores["taylor"] for p in mine]
        assert held.arrays["units"].tolist() == [p.unit for p in mine]
        assert held.arrays["change"].tolist() == [p.change for p in mine]
        assert (held.data["of"], held.data["examples"]) == (6, 48)


def test_the_shell_says_points_then_correlations(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "check",
        "--model",
        "digits-mlp",
        "--layer",
        named("digits-mlp")[1],
        "--criteria",
        "magnitude",
        "taylor",
    ]
    more = [
        "--granularity",
        "channel",
        "--units",
        "8",
        "--options",
        "taylor.squared=true",
        "--seed",
        "1",
    ]
    assert main([*words, *more, "--json"]) == 0
    plan, *points, end = map(json.loads, capsys.readouterr().out.splitlines())
    assert (plan["event"], len(points), end["event"]) == ("plan", 8, "summary")
    assert {p["layer"] for p in points} == {named("digits-mlp")[1]}
    scores, changes = [p["scores"]["magnitude"] for p in points], [abs(p["change"]) for p in points]
    assert end["layers"][0]["absolute"]["magnitude"]["value"] == pytest.approx(
        scipy_stats.spearmanr(scores, changes).statistic
    )
    assert main([*words, *more]) == 0
    said = capsys.readouterr().out
    assert "8 units" in said and "taylor" in said and " to " in said
    assert main([*words, "--options", "wanda.x=1"]) == 2
    assert "'wanda.x' is not CRITERION.NAME" in capsys.readouterr().err


def named(model: str) -> list[str]:
    return list(prunable(sample_models.build(model)))
