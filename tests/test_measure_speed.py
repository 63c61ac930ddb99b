"""The protocol of timing, and what is timed: outputs stay what they were."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import pruning
from pruning.measurement import finalize, take_snapshot
from pruning.measurement.energy import energy, joules
from pruning.measurement.speed import compare, interleaved, timings, to_sparse
from pruning.metrics import Spread
from pruning.recipe import Recipe
from pruning.types import Workpiece
from tests.toys import toy


def test_each_round_times_every_contestant_once_from_both_ends() -> None:
    order: list[str] = []
    passes = [lambda: order.append("a"), lambda: order.append("b"), lambda: order.append("c")]
    times = interleaved(passes, least=1, most=4, budget=10, warm=1)
    assert "".join(order) == "abc" + "abc" + "cba" + "abc" + "cba"
    assert [len(taken) for taken in times] == [4, 4, 4]


def test_the_budget_ends_the_rounds_but_never_below_the_least() -> None:
    assert len(interleaved([lambda: None], least=7, most=100, budget=0)[0]) == 7


def test_ratios_are_taken_round_by_round() -> None:
    # The machine slows down tenfold half-way: each pass of b still takes half of a's beside it, and
    # the copy as long as a.
    a = [1.0] * 50 + [10.0] * 50
    compared = compare("torch", [a, [t / 2 for t in a], a], batch=1, threads=1)
    assert len(compared) == 2
    assert compared[0].speedup is None and compared[0].control == 0
    assert compared[1].speedup == Spread(2, 2, 2)
    assert [one.verdict for one in compared] == ["reference", "faster"]


def test_a_copy_that_differs_from_its_original_forbids_verdicts() -> None:
    compared = compare("torch", [[1.0] * 9, [0.5] * 9, [1.1] * 9], batch=1, threads=1)
    assert compared[1].control == pytest.approx(1 - 1 / 1.1)
    assert compared[1].verdict == "no verdict"


def test_the_interval_of_a_median_ratio_by_hand() -> None:
    # Of 25 ratios 1.00 to 1.24, 0.98·√25 = 4.9 ranks either side of the middle: the 8th (1.07) and
    # the 19th (1.18)
    compared = compare(
        "torch",
        [[1 + i / 100 for i in range(25)], [1.0] * 25, [1 + i / 100 for i in range(25)]],
        1,
        1,
    )
    speedup = compared[1].speedup
    assert speedup is not None
    assert (speedup.low, speedup.value, speedup.high) == pytest.approx((1.07, 1.12, 1.18))


def sparse_pair(sparsity: float) -> tuple[Workpiece, Workpiece]:
    work = toy("mlp")
    thin = dataclasses.replace(work, model=toy("mlp").model)
    pruning.apply(pruning.choose(Recipe(sparsity=sparsity, scope="per_layer"), work), thin.model)
    return work, thin


def test_sparse_layers_give_what_dense_ones_give() -> None:
    _, thin = sparse_pair(0.85)
    sparse = to_sparse(thin.model)
    assert sparse is not None and thin.test is not None
    assert any(type(module).__name__ == "SparseLinear" for module in sparse.modules())
    torch.testing.assert_close(sparse(thin.test.x), thin.model(thin.test.x), rtol=0, atol=1e-5)
    tokens = torch.randn(2, 3, 5)  # leading dimensions are kept
    torch.testing.assert_close(sparse(tokens), thin.model(tokens), rtol=0, atol=1e-5)
    alone = to_sparse(thin.model[0])  # type: ignore[index]
    assert alone is not None
    torch.testing.assert_close(alone(tokens), thin.model[0](tokens), rtol=0, atol=1e-5)


def test_few_zeros_are_not_tried_as_sparse() -> None:
    assert to_sparse(sparse_pair(0.5)[1].model) is None
    assert to_sparse(toy("residual").model) is None


def test_timings_name_runtime_batch_threads_and_control() -> None:
    dense, thin = sparse_pair(0.85)
    assert dense.example is not None
    measured = timings([dense.model, thin.model], dense.example, batch=4, budget=0.01)
    assert [[one.runtime for one in each] for each in measured] == [
        ["torch"],
        ["torch", "torch CSR"],
    ]
    for one in (one for each in measured for one in each):
        assert (one.batch, one.threads) == (4, torch.get_num_threads())
        assert one.latency is not None and one.latency.passes >= 5
        assert one.control is not None


def test_a_batch_too_slow_to_repeat_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.modules["pruning.measurement.speed"], "SLOW", 0.0)
    work = toy("mlp")
    assert work.example is not None
    (only,) = timings([work.model], work.example, batch=32)[0]
    assert only.verdict == "not measured"
    assert "too long to repeat" in only.why


# ---------------------------------------------------------------- energy


def test_energy_of_two_layers_by_hand() -> None:
    # 5·12 + 12·3 = 96 MACs of 3.7 + 0.9 pJ; with 24 weights left, 24 of them where zeros are
    # skipped
    model = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 3))
    with torch.no_grad():
        model[0].weight.zero_()
        model[2].weight[:, 4:] = 0
        model[0].weight[0, :] = model[0].weight[1, :] = 1.0
        model[0].weight[2, :2] = 1.0
    work = Workpiece("two", model, example=torch.zeros(1, 5))
    measured = finalize([take_snapshot(work)])[0].energy
    assert measured is not None
    assert measured.executed == pytest.approx(96 * 4.6)
    assert measured.skipping == pytest.approx(24 * 4.6)
    assert (measured.multiply, measured.add) == (3.7, 0.9)


def test_the_counter_is_read_where_there_is_one_and_wraps(tmp_path: Path) -> None:
    model, example = nn.Linear(2, 2), torch.zeros(1, 2)
    assert joules(model, example, seconds=0.01, place=tmp_path / "none") is None
    package, part = tmp_path / "intel-rapl:0", tmp_path / "intel-rapl:0:0"
    for folder in (package, part):
        folder.mkdir()
        (folder / "max_energy_range_uj").write_text("1000000")
        (folder / "energy_uj").write_text("900000")

    class Spends(nn.Module):
        """Each pass makes the counter read 100,000: from 900,000 that is 200,000 on, past its
        range.
        """

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            (package / "energy_uj").write_text("100000")
            return x

    assert joules(Spends(), example, seconds=0.0, place=tmp_path) == pytest.approx(
        0.2
    )  # one pass; the part is not counted again
    assert energy(10, 5, 0.2).measured == 0.2
