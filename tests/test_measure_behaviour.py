"""Calibration, noise and the train/test gap, on outputs that can be counted by hand."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch

import pruning
from pruning.measurement.quality import behaviour, calibration, logits, paired
from pruning.metrics import Accuracy, Paired
from pruning.types import Batches
from tests.toys import toy


def sure(share: float) -> list[float]:
    """Logits of two classes of which the first is given this share."""
    return [math.log(share / (1 - share)), 0.0]


def test_calibration_error_of_four_examples_by_hand() -> None:
    # Confidence 0.95 (right), 0.95 (wrong): bin (14/15, 1], accuracy 0.5, off by 0.45, weight 2/4.
    # Confidence 0.62 (right): bin (9/15, 10/15], off by 0.38, weight 1/4. Confidence 0.75 (right):
    # bin (11/15, 12/15], 0.25, 1/4.
    logits = torch.tensor([sure(0.95), sure(0.95), sure(0.62), sure(0.75)])
    measured = calibration(logits, torch.tensor([0, 1, 0, 0]))
    assert measured.value == pytest.approx(0.45 * 2 / 4 + 0.38 / 4 + 0.25 / 4, abs=1e-6)
    assert measured.low <= measured.value <= measured.high


def test_errors_of_opposite_sign_in_one_bin_cancel() -> None:
    # Sure by 0.75 each, three of four right: calibrated
    measured = calibration(torch.tensor([sure(0.75)] * 4), torch.tensor([0, 0, 0, 1]))
    assert measured.value == pytest.approx(0, abs=1e-6)


def test_certainty_falls_into_the_last_bin() -> None:
    measured = calibration(torch.tensor([[1000.0, 0.0], [1000.0, 0.0]]), torch.tensor([0, 1]))
    assert measured.value == pytest.approx(0.5)


def test_pairs_by_hand() -> None:
    data = Batches(torch.zeros(4, 1), torch.tensor([0, 0, 0, 0]))
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    this, dense = (
        torch.tensor([right, right, wrong, wrong]),
        torch.tensor([right, wrong, right, wrong]),
    )
    assert paired(this, dense, data) == Paired(both=1, gained=1, lost=1, neither=1)
    assert paired(this, None, data) is None


def test_behaviour_repeats_and_meets_the_same_noise() -> None:
    work = toy("mlp")
    assert work.test is not None
    outputs = logits(work.model, work.test)
    measured = behaviour(work, outputs)
    assert measured == behaviour(work, outputs)
    assert measured is not None and measured.noisy is not None
    assert measured.sigma == pytest.approx(0.3 * float(work.test.x.std()))
    assert measured.train == Accuracy(
        int((outputs.argmax(1) == work.test.y).sum()), 48
    )  # the toy trains on what it is tested on


def test_without_data_nothing_is_said_of_behaviour() -> None:
    bare = dataclasses.replace(toy("mlp"), train=None, validation=None, test=None)
    measured = pruning.measure(bare, full=True)
    assert (measured.behaviour, measured.paired, measured.accuracy) == (None, None, None)
    assert (
        measured.memory is not None and measured.energy is not None and measured.latency is not None
    )


def test_measuring_in_full_leaves_everything_as_it_was() -> None:
    work = toy("tied")
    work.model.train()
    before = {name: value.clone() for name, value in work.model.state_dict().items()}
    seed = torch.random.get_rng_state()
    pruning.measure(work, full=True)
    assert work.model.training
    assert torch.equal(seed, torch.random.get_rng_state())
    assert all(torch.equal(value, before[name]) for name, value in work.model.state_dict().items())
    assert not any(module._forward_hooks for module in work.model.modules())
