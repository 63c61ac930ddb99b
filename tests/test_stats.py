"""Intervals, paired change, rank correlation and curves: by hand, by law and against scipy."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some
from scipy import stats as scipy_stats

from pruning import stats
from pruning.metrics import Accuracy
from pruning.stats import Spread, difference, isotonic, lower_hull, paired_change, wilson

TABLES = some.tuples(some.integers(0, 200), some.integers(0, 200), some.integers(1, 200)).map(
    lambda table: (table[0], table[1], sum(table))
)
"""(lost, gained, n) of the same examples."""

SHARES = some.integers(1, 10_000).flatmap(lambda n: some.tuples(some.integers(0, n), some.just(n)))

# ---------------------------------------------------------------- intervals


@given(SHARES)
def test_wilson_interval_is_scipys(share: tuple[int, int]) -> None:
    correct, total = share
    ours = wilson(correct, total)
    theirs = scipy_stats.binomtest(correct, total).proportion_ci(0.95, method="wilson")
    assert ours.low == pytest.approx(theirs.low, abs=1e-9)
    assert ours.high == pytest.approx(theirs.high, abs=1e-9)
    assert Accuracy(correct, total).interval == (ours.low, ours.high)


def test_the_difference_of_independent_shares_is_newcombes() -> None:
    # Newcombe 1998, Statistics in Medicine 17:873, table II, method 10:
    # 56/70 - 48/80 is 0.0524 to 0.3339
    change = difference(wilson(56, 70), wilson(48, 80))
    assert (round(change.low, 4), round(change.value, 4)) == (0.0524, 0.2)
    assert round(change.high, 4) == 0.3339


def test_a_difference_of_intervals_by_hand() -> None:
    # 5 (2 to 6) less 1 (0 to 5): 4, by √(3² + 4²) below and √(1² + 1²) above
    change = difference(Spread(2, 5, 6), Spread(0, 1, 5))
    assert (change.low, change.value) == (-1, 4)
    assert change.high == pytest.approx(4 + 2**0.5)
    assert change.crosses_zero


@given(SHARES, SHARES)
def test_a_difference_turns_round_with_its_sides(a: tuple[int, int], b: tuple[int, int]) -> None:
    there = difference(wilson(*a), wilson(*b))
    back = difference(wilson(*b), wilson(*a))
    assert (there.low, there.value, there.high) == (-back.high, -back.value, -back.low)
    assert there.low <= there.value <= there.high


def test_the_paired_change_by_hand() -> None:
    """12 answers lost, 2 gained, of 98: half an answer more in each of four cells makes 100.

    Middle -10/100; variance (15 - 10²/100)/100² = 14/10⁴, so ± 1.96 · 0.0374 = 0.0733.
    """
    change = paired_change(12, 2, 98)
    assert change.value == -10 / 98
    assert change.low == pytest.approx(-0.10 - 0.0733, abs=1e-4)
    assert change.high == pytest.approx(-0.10 + 0.0733, abs=1e-4)
    nothing = paired_change(0, 0, 98)
    assert nothing.low == pytest.approx(-0.0196, abs=1e-4)
    assert nothing.high == -nothing.low


@given(TABLES)
def test_a_paired_change_holds_its_value_and_turns_round(table: tuple[int, int, int]) -> None:
    lost, gained, n = table
    change, back = paired_change(lost, gained, n), paired_change(gained, lost, n)
    assert -1 <= change.low <= change.value <= change.high <= 1
    assert (change.low, change.value, change.high) == (-back.high, -back.value, -back.low)
    assert change.crosses_zero or lost != gained


def test_the_paired_interval_covers_as_often_as_it_says() -> None:
    """In 2000 tables of 180 examples, 6 % lost and 3 % gained: about 95 % hold -3 %."""
    tables = np.random.default_rng(0).multinomial(180, [0.06, 0.03, 0.91], size=2000)
    changes = [paired_change(int(lost), int(gained), 180) for lost, gained, _ in tables]
    assert 0.93 <= np.mean([change.low <= -0.03 <= change.high for change in changes]) <= 0.98


def test_there_is_one_paired_test_and_one_interval_of_a_share() -> None:
    """Their marks in the source: the paper's link, and the deviations of a normal."""
    root = Path(stats.__file__).parents[1]
    files = [file for room in ("pruning", "dashboard") for file in (root / room).rglob("*.py")]
    for mark in ("sim.1781", "1.9599", "2276774", "0962280210365018"):
        assert [file.name for file in files if mark in file.read_text("utf-8")] == ["stats.py"]
    named = [
        node.name
        for node in ast.walk(ast.parse(Path(stats.__file__).read_text("utf-8")))
        if isinstance(node, ast.FunctionDef) and "paired" in node.name
    ]
    assert named == ["paired_change"]


# ---------------------------------------------------------------- rank correlation


@given(some.lists(some.tuples(some.integers(-5, 5), some.integers(-5, 5)), min_size=3, max_size=30))
def test_spearman_is_scipys(pairs: list[tuple[int, int]]) -> None:
    a, b = map(list, zip(*pairs, strict=True))
    ours = stats.spearman(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert ours is None
    else:
        assert ours == pytest.approx(scipy_stats.spearmanr(a, b).statistic, abs=1e-12)
    ranks = stats._ranks(np.array(a, float), np.ones((1, len(a))))
    assert ranks.tolist() == [scipy_stats.rankdata(a).tolist()]


def test_spearman_by_hand() -> None:
    """1 2 3 4 and 1 3 2 4: squared differences of ranks sum to 2, so ρ = 1 - 6·2 / (4·15) = 0.8."""
    assert stats.spearman([1, 2, 3, 4], [10, 30, 20, 40]) == pytest.approx(0.8)
    assert stats.spearman([1, 2, 3, 4], [4, 3, 2, 1]) == pytest.approx(-1)
    assert stats.spearman([1, 2], [1, 2]) is None
    assert stats.correlation([1, 1, 1], [1, 2, 3]) == stats.Correlation(None)
    few = stats.correlation([1, 2, 3, 4], [1, 3, 2, 4])
    assert few.value == pytest.approx(0.8)
    assert (few.low, few.high) == (None, None)


def test_a_bootstrap_sample_counts_units_as_often_as_it_holds_them() -> None:
    """The bootstrap never builds a sample: ranks by counts, against scipy on the sample itself."""
    generator = np.random.default_rng(1)
    x, y = generator.normal(size=12), generator.integers(0, 4, 12).astype(float)
    counts = generator.multinomial(12, np.full(12, 1 / 12), size=20)
    ours = stats._resampled(x, y, counts.astype(float))
    for rho, row in zip(ours, counts, strict=True):
        theirs = scipy_stats.spearmanr(np.repeat(x, row), np.repeat(y, row)).statistic
        assert rho == pytest.approx(theirs, abs=1e-12)


def test_the_bootstrap_interval_covers_as_often_as_it_says() -> None:
    """Normal pairs with correlation r have Spearman (6/π)·asin(r/2).

    In 200 samples of 64 it lies inside about 95 % of the time.
    """
    generator, r = np.random.default_rng(0), 0.6
    true = 6 / np.pi * np.arcsin(r / 2)
    inside = 0
    for i in range(200):
        a = generator.normal(size=64)
        b = r * a + np.sqrt(1 - r * r) * generator.normal(size=64)
        rho = stats.correlation(a, b, seed=i)
        assert rho.low is not None and rho.high is not None and rho.value is not None
        assert rho.low <= rho.value <= rho.high
        inside += rho.low <= true <= rho.high
    assert 175 <= inside <= 200


def test_matrix_is_symmetric_and_repeats() -> None:
    columns = {name: np.random.default_rng(i).normal(size=20) for i, name in enumerate("abc")}
    rho = np.array(stats.matrix(columns))
    assert np.diag(rho) == pytest.approx(1)
    assert rho == pytest.approx(rho.T)
    a, b = columns["a"], columns["b"]
    assert stats.correlation(a, b, seed=3) == stats.correlation(a, b, seed=3)


# ---------------------------------------------------------------- curves


def test_the_lower_hull_by_hand() -> None:
    corners = [
        (0.0, 0.0, 0),
        (1.0, 3.0, 1),  # lies above the line to (2, 2)
        (2.0, 2.0, 2),
        (3.0, 4.0, 3),
        (3.0, 9.0, 4),
    ]
    assert [k for _, _, k in lower_hull(corners)] == [0, 2, 3]


@given(some.lists(some.integers(-50, 50), min_size=1, max_size=30))
def test_slopes_of_a_hull_rise_and_no_point_lies_below_it(ys: list[int]) -> None:
    points = list(enumerate(ys))
    hull = lower_hull(points)
    assert (hull[0], hull[-1]) == (points[0], points[-1])
    xs, heights = zip(*hull, strict=True)
    slopes = np.diff(heights) / np.diff(xs)
    assert (np.diff(slopes) > 0).all()
    assert (np.interp(range(len(ys)), xs, heights) <= np.array(ys) + 1e-9).all()


def test_isotonic_regression_by_hand() -> None:
    """3 and 1 fall, so they pool to 2 and meet the 2 before them: one pool of three; 5 stays."""
    xs, ys = isotonic([0, 1, 2, 3, 7], [0, 2, 3, 1, 5])
    assert (xs.tolist(), ys.tolist()) == ([0, 2, 7], [0, 2, 5])


@given(some.lists(some.integers(-20, 20), min_size=1, max_size=30))
def test_isotonic_regression_only_rises_and_keeps_the_mean(ys: list[int]) -> None:
    xs, heights = isotonic(range(len(ys)), [y / 7 for y in ys])
    assert (np.diff(xs) > 0).all() and (np.diff(heights) > 0).all()
    assert heights[0] <= sum(ys) / 7 / len(ys) + 1e-9 <= heights[-1] + 2e-9


# ---------------------------------------------------------------- random orders


def test_the_band_of_random_orders_by_hand() -> None:
    """Of 4 units ρ of the 24 orders: ±1 once each, ±0.8 three times each, and smaller ones.

    Of 3, two of the six orders have ±1: nothing is beyond the band.
    """
    three, four = stats.random_band(3), stats.random_band(4)
    assert three and four
    assert (three.low, three.high) == (-1, 1)
    assert four.high == 1  # 22 of 24 lie within 0.8, which is less than 95 %
    assert stats.random_band(2) is None


@pytest.mark.parametrize("units", [8, 20, 64, 100, 101, 256])
def test_the_band_holds_95_of_100_random_orders(units: int) -> None:
    band = stats.random_band(units)
    assert band and band.low == -band.high
    generator = np.random.default_rng(7)
    order = np.arange(units)
    orders = np.array([generator.permutation(units) for _ in range(2000)])
    # Spearman's own formula for orders without ties: a call of scipy's for each took seconds.
    rho = 1 - 6 * ((orders - order) ** 2).sum(1) / (units * (units**2 - 1))
    assert rho[0] == pytest.approx(scipy_stats.spearmanr(order, orders[0])[0])
    inside = np.mean(np.abs(rho).round(12) <= band.high)
    assert inside == pytest.approx(0.95, abs=0.02)
    # The usual approximation of the null's standard deviation, 1/√(n - 1).
    assert band.high == pytest.approx(stats.Z / (units - 1) ** 0.5, rel=0.05)


def test_a_criterion_is_better_than_random_by_its_interval_alone() -> None:
    lucky = stats.Correlation(0.38, 0.16, 0.58)  # one random order of 64 units, clear of 0
    assert stats.better_than_random(lucky, 64) is False
    assert stats.better_than_random(stats.Correlation(0.71, 0.55, 0.83), 64) is True
    assert stats.better_than_random(stats.Correlation(0.9), 5) is None
