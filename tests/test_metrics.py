"""What is measured of a model: changes and verdicts, by numbers worked out by hand."""

from __future__ import annotations

import pytest

from pruning.metrics import Accuracy, Latency, Paired, Spread, Timing
from pruning.stats import difference

TOOK = Latency(1.0, 0.9, 1.1, 1, 1, 30)


def test_a_paired_change_is_narrower_where_answers_agree() -> None:
    # 360 examples, 4 lost and 2 gained: the two intervals of ±1.5 points apart would hide what the pairs show
    change = Paired(both=350, gained=2, lost=4, neither=4).change
    apart = difference(Accuracy(352, 360).spread, Accuracy(354, 360).spread)
    assert change.value == pytest.approx(-2 / 360)
    assert apart.low < change.low < change.value < change.high < apart.high


def test_a_paired_change_without_any_difference_is_zero() -> None:
    same = Paired(both=10, gained=0, lost=0, neither=0).change
    assert same.value == 0
    assert same.low <= 0 <= same.high


@pytest.mark.parametrize(
    ("speedup", "control", "said"),
    [
        (Spread(1.50, 1.60, 1.70), 0.01, "faster"),
        (
            Spread(1.04, 1.10, 1.20),
            0.01,
            "the same",
        ),  # its lower end is not beyond the 5 % that count as none
        (Spread(0.98, 1.00, 1.02), 0.05, "the same"),
        (Spread(0.50, 0.60, 0.70), 0.01, "slower"),
        (Spread(0.90, 0.94, 0.97), 0.01, "the same"),
        (
            Spread(1.50, 1.60, 1.70),
            0.051,
            "no verdict",
        ),  # two timings of one model differed by more than 5 %
        (Spread(1.50, 1.60, 1.70), None, "no verdict"),
        (None, 0.01, "reference"),
    ],
)
def test_a_verdict_on_speed_needs_a_control_that_holds(
    speedup: Spread | None, control: float | None, said: str
) -> None:
    assert Timing("torch", 1, 1, TOOK, speedup, control).verdict == said


def test_what_was_not_timed_has_no_verdict() -> None:
    assert Timing("ONNX Runtime", 1, 1, why="it could not be exported.").verdict == "not measured"
