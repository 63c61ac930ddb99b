"""What a sweep's rows say, on toys that can be checked in the head: no winner inside the noise."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest

from dashboard.charts import sweep
from pruning.metrics import Paired
from pruning.recipe import Recipe
from pruning.sweeps import comparison
from pruning.sweeps.comparison import Cell
from pruning.sweeps.plan import Point
from pruning.sweeps.table import row

EXAMPLES = 1000


def run(technique: str, level: float, seed: int, accuracy: float, **more: Any) -> dict[str, Any]:
    """A finished run's row. Against dense (0.9) it only lost or only gained."""
    point = Point("toy", technique, level, seed, Recipe(sparsity=level, seed=seed))
    change = round((accuracy - 0.9) * EXAMPLES)
    own = {
        "metric": "accuracy",
        "higher_is_better": True,
        "accuracy": accuracy,
        "gained": max(0, change),
        "lost": max(0, -change),
        "examples": EXAMPLES,
        "weights_kept": 1 - level,
        "macs": 1 - level,
        "bytes": round(1e5 * (1 - level)) + 100,
    }
    return {**row(point), **own, **more}


def at_level(level: float = 0.9, **accuracies: list[float]) -> list[Cell]:
    rows = [
        run(name, level, seed, value)
        for name, values in accuracies.items()
        for seed, value in enumerate(values)
    ]
    return comparison.cells(rows)


def test_a_cell_is_a_technique_at_a_level_over_its_seeds() -> None:
    waiting = run("a", 0.9, 2, 0.0) | {"accuracy": None, "state": "queued"}
    rows = [run("a", 0.9, 1, 0.8), run("a", 0.9, 0, 0.7), run("b", 0.9, 0, 0.5), waiting]
    first, second = comparison.cells(rows)
    assert (first.technique, first.seeds, first.low, first.high) == ("a", 2, 0.7, 0.8)
    assert first.mean == pytest.approx(0.75)
    assert [each["seed"] for each in first.rows] == [0, 1]
    assert first.cost("bytes") == pytest.approx(10_100) and first.cost("latency_ms") is None
    assert second.technique == "b"


def test_a_large_difference_with_calm_seeds_is_clear() -> None:
    cells = at_level(a=[0.90, 0.901, 0.899], b=[0.50, 0.501, 0.499], c=[0.4, 0.401, 0.399])
    assert comparison.winner(cells) == "a"
    assert [(r.rank, r.best, r.worst) for r in comparison.ranks(cells)] == [
        (1, 1, 1),
        (2, 2, 2),
        (3, 3, 3),
    ]


def test_inside_the_spread_of_the_seeds_nobody_wins() -> None:
    cells = at_level(a=[0.95, 0.75, 0.85], b=[0.90, 0.70, 0.80])
    assert comparison.winner(cells) is None
    assert [r.technique for r in comparison.ranks(cells)] == ["a", "b"]
    assert [(r.best, r.worst) for r in comparison.ranks(cells)] == [(1, 2), (1, 2)]


def test_inside_the_noise_of_the_test_images_nobody_wins() -> None:
    """Seeds that agree exactly say nothing of which images the test set happens to have."""
    cells = at_level(a=[0.885, 0.885, 0.885], b=[0.880, 0.880, 0.880])
    (a, b) = cells
    difference = comparison.difference(a, b, comparison.noise(cells))
    assert difference.seeds is not None and not difference.seeds.crosses_zero
    assert difference.images is not None and difference.images.crosses_zero
    assert comparison.winner(cells) is None


def test_one_seed_names_no_winner_however_far_apart() -> None:
    cells = at_level(a=[0.9], b=[0.1])
    assert comparison.noise(cells) is None and comparison.winner(cells) is None
    assert all((r.best, r.worst) == (1, 2) for r in comparison.ranks(cells))


def test_the_answers_themselves_are_sharper_than_their_bound() -> None:
    cells = at_level(a=[0.885, 0.885], b=[0.860, 0.860])
    a, b = cells
    noise = comparison.noise(cells)
    bounded = comparison.difference(a, b, noise)
    same = Paired(both=860, gained=25, lost=0, neither=115)
    exact = comparison.difference(a, b, noise, lambda first, second: same)
    assert bounded.images is not None and exact.images is not None
    assert exact.images.value == pytest.approx(bounded.images.value) == pytest.approx(0.025)
    assert exact.images.high - exact.images.low < bounded.images.high - bounded.images.low
    assert exact.clear and exact.exact and not bounded.exact


def test_a_difference_reads_the_same_from_both_sides() -> None:
    cells = at_level(a=[0.9, 0.88], b=[0.7, 0.71])
    a, b = cells
    noise = comparison.noise(cells)
    there, back = comparison.difference(a, b, noise), comparison.difference(b, a, noise)
    assert there.value == pytest.approx(-back.value) and there.clear == back.clear
    assert there.seeds is not None and back.seeds is not None
    assert there.seeds.low == pytest.approx(-back.seeds.high)
    assert there.images is not None and back.images is not None
    assert there.images.low == pytest.approx(-back.images.high)


def test_where_lower_is_better_the_lowest_wins() -> None:
    values = {"a": [2.0, 2.01, 1.99], "b": [1.0, 1.01, 0.99]}
    rows = [
        run(name, 0.9, seed, value, metric="loss", higher_is_better=False, gained=None, lost=None)
        for name, of_name in values.items()
        for seed, value in enumerate(of_name)
    ]
    cells = comparison.cells(rows)
    assert comparison.winner(cells) == "b"
    assert [cell.technique for cell in comparison.front(cells, "bytes")] == ["b"]


def test_a_winner_is_seldom_named_where_all_techniques_are_one() -> None:
    """Six equal techniques, whose seeds alone differ: 5 % of levels at most may have a winner."""
    generator = np.random.default_rng(0)
    winners = 0
    for _ in range(100):
        draws = generator.normal(0.8, 0.02, (6, 3)).clip(0, 1)
        cells = at_level(**{f"t{i}": list(values) for i, values in enumerate(draws)})
        winners += comparison.winner(cells) is not None
    assert winners <= 5


def test_controls_do_not_compete() -> None:
    cells = at_level(a=[0.9, 0.9], b=[0.1, 0.1])
    control = replace(cells[0], technique="random", control="random")
    assert comparison.levels([*cells, control]) == {0.9: cells}
    assert control not in comparison.front([control, *cells], "macs")
    assert list(comparison.techniques([*cells, control])) == ["a", "b", "random"]


def test_the_front_holds_what_nothing_is_as_cheap_and_as_good_as() -> None:
    rows = [
        run("a", 0.5, 0, 0.9),
        run("a", 0.9, 0, 0.7),
        run("b", 0.5, 0, 0.8),
        run("b", 0.9, 0, 0.75),
    ]
    front = comparison.front(comparison.cells(rows), "weights_kept")
    assert [(cell.technique, cell.sparsity) for cell in front] == [("b", 0.9), ("a", 0.5)]


def test_a_budget_is_read_between_levels_and_never_beyond() -> None:
    rows = [
        run(name, level, 0, 0.9 if name == "a" else 0.6)
        for name, level in product("ab", (0.5, 0.9))
    ]
    rows += [run("c", 0.5, 0, 0.8)]
    cells = comparison.cells(rows)
    (a, c, b) = comparison.at_budget(cells, "weights_kept", 0.5)
    assert (a.technique, a.value, a.measured) == ("a", pytest.approx(0.9), True)
    assert (c.technique, c.measured) == ("c", True) and b.technique == "b"
    middle = {r.technique: r for r in comparison.at_budget(cells, "weights_kept", 0.2)}
    assert middle["a"].between == (pytest.approx(0.1), pytest.approx(0.5))
    assert middle["a"].value == pytest.approx(0.9) and not middle["a"].measured
    assert middle["c"].value is None
    assert all(r.value is None for r in comparison.at_budget(cells, "weights_kept", 0.05))


def test_how_far_techniques_stay_within_a_point_of_dense() -> None:
    rows = [
        run("a", 0.5, 0, 0.895),
        run("a", 0.9, 0, 0.80),
        run("a", 0.95, 0, 0.91),  # beyond a level that is not: it does not count
        run("b", 0.5, 0, 0.85),
    ]
    assert comparison.kept_to(comparison.cells(rows), 0.9) == (0.5, ["a"])
    assert comparison.kept_to(comparison.cells(rows[3:]), 0.9) is None


def test_what_a_search_tried_is_in_the_front_and_competes_at_no_level() -> None:
    twice = [run("search", 0.7, 0, 0.91), run("search", 0.7, 0, 0.91)]
    other = [run("search", 0.7, 0, 0.6, recipe="other"), run("search", 0.9, 0, 0.89)]
    cells = comparison.cells([run("a", 0.5, 0, 0.9), run("a", 0.9, 0, 0.7), *twice, *other])
    searched = [cell for cell in cells if cell.technique == "search"]
    assert [(cell.sparsity, cell.seeds, cell.mean) for cell in searched] == [
        (0.7, 1, 0.91),
        (0.7, 1, 0.6),
        (0.9, 1, 0.89),
    ], "one recipe is one run, and two of one level are no seeds of each other"
    front = comparison.front(cells, "bytes")
    assert [(cell.technique, cell.sparsity) for cell in front] == [("search", 0.9), ("search", 0.7)]
    assert list(comparison.levels(cells)) == [0.5, 0.9]
    assert comparison.at_budget(cells, "weights_kept", 0.2)[0].technique == "a"
    assert comparison.kept_to(cells, 0.9) == (0.5, ["a"])
    traces = sweep.picture([row for cell in cells for row in cell.rows], "bytes", dark=False)[
        "data"
    ]
    modes = {trace["name"]: trace["mode"] for trace in traces if trace.get("customdata")}
    assert modes["search"] == "markers" and modes["a"] == "lines+markers"
