"""From a sensitivity map to ratios, worked out by hand."""

from __future__ import annotations

import pytest

from pruning.cli.sensitivity import summary_text
from pruning.events import Accuracy, Point
from pruning.sensitivity_map import planning


def point(layer: str, level: float, loss: float, fall: int | None) -> Point:
    """A cell on 100 images, where the dense model has loss 1 and 90 right."""
    if fall is None:
        return Point(layer, level, 10, round(10 * (1 - level)), "estimate", None, 1 + loss, 1.0)
    return Point(
        layer,
        level,
        units=10,
        kept=round(10 * (1 - level)),
        tier="exact",
        accuracy=Accuracy(90 - fall, 100),
        loss=1 + loss,
        loss_dense=1.0,
        lost=max(fall, 0),
        won=max(-fall, 0),
        interval=(-0.1, 0.1),
    )


# a: flat, then a cliff. b: costs from the start. c: better without half of it.
MAP = [
    *(point("a", *cell) for cell in ((0.5, 0.01, 0), (0.9, 1.0, 30))),
    *(point("b", *cell) for cell in ((0.5, 0.10, 2), (0.9, 0.40, 10))),
    *(point("c", *cell) for cell in ((0.5, -0.02, -1), (0.9, 0.02, 1))),
]


def test_losses_add_up_and_accuracy_is_read_off_the_cells() -> None:
    """Cells by loss: 0 → −1 and 0.01 → 0 (pooled with the origin: no fall), 0.02 → 1, 0.1 → 2,
    0.4 → 10, 1 → 30.
    """
    of = planning.worth(MAP)
    assert [of(loss) for loss in (0, 0.02, 0.1, 0.25, 0.4, 1, 5)] == pytest.approx(
        [0, 0.01, 0.02, 0.06, 0.1, 0.3, 0.3]
    )
    assert planning.predicted(MAP, {"a": 0.5, "b": 0.25, "c": 0.9}) == (
        pytest.approx(0.01 + 0.05 + 0.02),
        pytest.approx(0.0175),
    )
    assert planning.predicted(MAP, {}) == (0, 0)


def test_filling_takes_the_cheapest_weights_first_and_stops_at_the_tolerated_drop() -> None:
    """Of 100 weights each: c's half is free, a's half costs 0.01, c to 0.9 costs 0.02: 0.03 in all,
    1.125 percentage points. b's half makes 0.13.
    """
    weights = {"a": 100, "b": 100, "c": 100}
    assert planning.fill(MAP, weights, 0.0113) == {"a": 0.5, "c": 0.9}
    assert planning.fill(MAP, weights, 0.01) == {"a": 0.5, "c": 0.5}
    assert planning.fill(MAP, weights, 0.05) == {"a": 0.5, "b": 0.5, "c": 0.9}
    assert planning.fill(MAP, weights, 1.0) == {"a": 0.9, "b": 0.9, "c": 0.9}
    assert planning.fill(MAP, {"a": 100}, 0.05) == {"a": 0.5}


def test_estimates_alone_predict_no_accuracy() -> None:
    guess = [point("a", 0.5, 0.1, None)]
    assert planning.predicted(guess, {"a": 0.5}) == (pytest.approx(0.1), None)
    assert planning.fill(guess, {"a": 10}, 0.5) == {}


def test_the_summary_ends_a_row_at_its_first_fall_of_a_point() -> None:
    found = planning.summary(MAP)
    assert found["within_1_point"] == {"a": 0.5, "b": 0.0, "c": 0.9}
    assert (found["cells"], found["layers"], found["accuracy_dense"]["correct"]) == (6, 3, 90)
    assert "estimated from gradients" in summary_text(
        planning.summary([point("a", 0.5, 0.1, None)]) | {"seconds": 1.0}
    )
