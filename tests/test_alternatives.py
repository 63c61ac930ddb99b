"""int8, half precision and a smaller dense network, measured as runs are."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch

import sample_models
from pruning import measurement
from pruning.advice import shipped
from pruning.advice.rows import macs_of
from pruning.errors import OutOfRange, Stopped
from pruning.measurement import logits, quantised, speed
from pruning.measurement.onnx import NotExported
from pruning.outcomes import unpack
from pruning.studies import alternatives as study
from pruning.studies.alternatives import COLUMNS, FAMILIES, Plan, groups
from pruning.tasks import hits
from tests.toys import toy


@pytest.fixture(autouse=True)
def short_timings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("timings", "program_timings"):
        measure = getattr(study, name)
        monkeypatch.setattr(study, name, partial(measure, budget=0.0))


@pytest.fixture(scope="module")
def rows() -> dict[str, dict[str, Any]]:
    """Everything of a toy with convolutions, trained for an epoch."""
    with pytest.MonkeyPatch.context() as patched:
        for name in ("timings", "program_timings"):
            patched.setattr(study, name, partial(getattr(study, name), budget=0.0))
        patched.setattr(measurement, "timings", partial(speed.timings, budget=0.0))
        plan = Plan(weights=(), channels=(0.5,), epochs=1, scratch=1)
        every = [row for group in groups(toy("residual"), plan) for row in group]
    return {row["id"]: row for row in every}


def test_every_row_has_every_column_and_survives_json(rows: dict[str, dict[str, Any]]) -> None:
    assert {row["family"] for row in rows.values()} == set(FAMILIES)
    for row in rows.values():
        assert tuple(row) == COLUMNS
        assert json.loads(json.dumps(row)) == row
        assert not row["why"].get("") or row["accuracy"] is None
        measured = row["accuracy"] is not None
        assert measured == (row["bytes"] is not None), row["id"]


def test_the_control_in_onnx_runtime_answers_as_pytorch(rows: dict[str, dict[str, Any]]) -> None:
    control, dense = rows["onnx"], rows["dense"]
    assert control["accuracy"] == dense["accuracy"] and control["outcomes"] == dense["outcomes"]
    assert control["gained"] == control["lost"] == 0


def test_accuracy_through_onnx_runtime_is_pytorchs_of_a_trained_model() -> None:
    work = sample_models.load("digits-mlp")
    assert work.test is not None and work.train is not None and work.example is not None
    torch_says = logits(work.model, work.test)
    program = quantised.program(work.model, work.example)
    outputs = quantised.answers(program, work.test)
    np.testing.assert_allclose(outputs.numpy(), torch_says.numpy(), rtol=1e-4, atol=1e-4)
    assert torch.equal(hits(outputs, work.test.y), hits(torch_says, work.test.y))
    # A quarter of the numbers' bits, and a trained model's answers hardly change.
    for small in (
        quantised.dynamic_int8(program),
        quantised.static_int8(program, work.train),
    ):
        assert small.bytes < 0.45 * program.bytes
        right = hits(quantised.answers(small, work.test), work.test.y).float().mean()
        assert abs(float(right) - float(hits(torch_says, work.test.y).float().mean())) < 0.02
    # Calibrated on other examples, ranges are others: it does look at the data.
    nothing = work.train.head(1)
    dark = type(nothing)(torch.zeros_like(nothing.tensors[0]), nothing.y)
    blind = quantised.static_int8(program, dark)
    assert not torch.equal(quantised.answers(blind, work.test), quantised.answers(small, work.test))


def test_half_of_the_bits_are_half_of_the_file(rows: dict[str, dict[str, Any]]) -> None:
    for name in ("float16-file", "torch-float16", "torch-bfloat16"):
        assert rows[name]["bytes"] < rows["dense"]["bytes"]
        assert rows[name]["torch_ms"] > 0
    assert rows["float16-file"]["bits"] == 32, "read back, it is computed in float32"


def test_a_smaller_network_has_the_widths_of_the_compact_model(
    rows: dict[str, dict[str, Any]],
) -> None:
    compact, smaller = rows["channels-0.5-0"], rows["smaller-0.5-0"]
    assert smaller["macs"] == compact["macs"] < rows["dense"]["macs"]
    assert smaller["epochs"] == 1 and smaller["recipe"] is None


def test_what_stops_is_stopped_and_what_was_measured_is_not_measured_again() -> None:
    with pytest.raises(Stopped):
        list(groups(toy("mlp"), Plan(), stop=lambda: True, done=["dense"]))
    done = ["dense", "weights-0.9-0", "channels-0.5-0"]
    assert list(groups(toy("mlp"), Plan(), done=done)) == []


@pytest.mark.parametrize(
    "bad", [{"weights": 0.5}, {"seeds": ["a"]}, {"epochs": 0}, {"scratch": 1e9}], ids=str
)
def test_a_plan_that_cannot_be_is_refused(bad: dict[str, Any]) -> None:
    with pytest.raises(OutOfRange):
        Plan.of(bad)


def test_without_onnx_runtime_its_rows_say_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(*_: Any, **__: Any) -> Any:
        raise NotExported("cannot be tried, for ONNX Runtime is not installed")

    monkeypatch.setattr(study, "program", absent)
    every = [row for group in groups(toy("mlp"), Plan(weights=(), channels=())) for row in group]
    by_id = {row["id"]: row for row in every}
    assert "not installed" in by_id["int8-static"]["why"][""]
    assert by_id["int8-static"]["accuracy"] is None
    assert by_id["torch-bfloat16"]["accuracy"] is not None


# ---------------------------------------------------------------- what is shipped


@pytest.mark.parametrize("model", shipped.names())
def test_shipped_rows_are_what_they_say(model: str) -> None:
    there = shipped.find(model)
    assert there is not None and there.model == model and there.machine["torch"]
    by_id = {row["id"]: row for row in there.rows}
    card = sample_models.card(model)
    dense = by_id["dense"]
    assert dense["accuracy"] == pytest.approx(card.accuracy.value, abs=1e-6)
    assert abs(dense["bytes"] - card.bytes) < 4096
    assert dense["macs"] == macs_of(model), "the card says what was counted"
    assert by_id["onnx"]["gained"] == by_id["onnx"]["lost"] == 0
    for row in there.rows:
        if row["accuracy"] is None:
            assert row["why"]
            continue
        right = unpack(row["outcomes"], row["examples"]) if row.get("outcomes") else None
        if right is not None:
            assert right.mean() == pytest.approx(row["accuracy"], abs=1e-6)
        counted = dense["accuracy"] + (row["gained"] - row["lost"]) / row["examples"]
        assert counted == pytest.approx(row["accuracy"], abs=1e-5)
        if row["family"] == "int8":
            assert row["bytes"] < 0.5 * by_id["onnx"]["bytes"]
        if row["option"] == "pruned-weights":  # zeros are multiplied too
            assert row["macs"] == dense["macs"] > row["macs_kept"]
        if row["family"] == "half":
            assert row["bytes"] < 0.6 * by_id["onnx"]["bytes"]


def test_those_that_were_asked_for_are_shipped() -> None:
    assert {"digits-cnn", "digits-resnet", "fashion-resnet20"} <= set(shipped.names())
