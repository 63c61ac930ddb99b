"""What is measured of a model: changes and verdicts, by numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pruning.metrics import (
    Accuracy,
    Behaviour,
    Latency,
    Measurement,
    Paired,
    Size,
    Spread,
    Timing,
    accuracy_change,
    sparse_bytes,
    train_test_gap,
)
from pruning.stats import difference, paired_change

MEASURED = Measurement(None, None, 2, 1, 2, 2, 1, Size(8, 4, 2), None)
LATENCY = Latency(1.0, 0.9, 1.1, 1, 1, 30)


def test_a_paired_change_is_narrower_where_answers_agree() -> None:
    # 360 examples, 4 lost and 2 gained: the two intervals of ±1.5 points hide what the pairs show
    change = Paired(both=350, gained=2, lost=4, neither=4).change
    apart = difference(Accuracy(352, 360).spread, Accuracy(354, 360).spread)
    assert change.value == pytest.approx(-2 / 360)
    assert apart.low < change.low < change.value < change.high < apart.high


def test_a_paired_change_without_any_difference_is_zero() -> None:
    same = Paired(both=10, gained=0, lost=0, neither=0).change
    assert same.value == 0
    assert same.low <= 0 <= same.high


def test_a_change_of_accuracy_is_paired_where_answers_were_compared() -> None:
    dense = replace(MEASURED, accuracy=Accuracy(354, 360))
    after = replace(MEASURED, accuracy=Accuracy(352, 360))
    compared = replace(after, paired=Paired(both=350, gained=2, lost=4, neither=4))
    change, apart = accuracy_change(compared, dense), accuracy_change(after, dense)
    assert change is not None and apart is not None
    assert change == paired_change(lost=4, gained=2, n=360)
    assert change.value == pytest.approx(apart.value)
    assert apart.high - apart.low > change.high - change.low
    assert accuracy_change(MEASURED, dense) is None, "no data, no change"


def test_a_gap_is_of_training_less_test() -> None:
    behaviour = Behaviour(Accuracy(90, 100), None, 0.0, None)
    gap = train_test_gap(replace(MEASURED, accuracy=Accuracy(80, 100), behaviour=behaviour))
    assert gap is not None and gap.value == pytest.approx(0.1)
    assert train_test_gap(MEASURED) is None


def test_sparse_bytes_by_hand() -> None:
    """A bit for each of 20 weights is 3 bytes; 3 values of 4 bytes; dense where that is smaller."""
    assert sparse_bytes(20, 3) == 3 + 3 * 4
    assert sparse_bytes(20, 20) == 20 * 4
    assert sparse_bytes(20, 3, width=2) == 3 + 3 * 2


@pytest.mark.parametrize(
    ("speedup", "control", "verdict"),
    [
        (Spread(1.50, 1.60, 1.70), 0.01, "faster"),
        # its lower end is not beyond the 5 % that count as none
        (Spread(1.04, 1.10, 1.20), 0.01, "the same"),
        (Spread(0.98, 1.00, 1.02), 0.05, "the same"),
        (Spread(0.50, 0.60, 0.70), 0.01, "slower"),
        (Spread(0.90, 0.94, 0.97), 0.01, "the same"),
        # two timings of one model differed by more than 5 %
        (Spread(1.50, 1.60, 1.70), 0.051, "no verdict"),
        (Spread(1.50, 1.60, 1.70), None, "no verdict"),
        (None, 0.01, "reference"),
    ],
)
def test_a_verdict_on_speed_needs_a_control_that_holds(
    speedup: Spread | None, control: float | None, verdict: str
) -> None:
    assert Timing("torch", 1, 1, LATENCY, speedup, control).verdict == verdict


def test_what_was_not_timed_has_no_verdict() -> None:
    assert Timing("ONNX Runtime", 1, 1, why="it could not be exported.").verdict == "not measured"
