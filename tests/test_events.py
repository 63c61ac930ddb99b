"""Every event survives JSON, and none of them needs torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as some

from pruning import events, metrics
from pruning.metrics import Size
from pruning.recipe import Recipe

finite = some.floats(allow_nan=False, allow_infinity=False)
shares = some.floats(0, 1)
accuracies = some.integers(1, 10_000).flatmap(
    lambda n: some.builds(events.Accuracy, some.integers(0, n), some.just(n))
)
layers = some.lists(some.builds(events.Layer), max_size=3).map(tuple)
spreads = some.builds(metrics.Spread, finite, finite, finite)
later = {
    "memory": some.none() | some.builds(metrics.Memory),
    "energy": some.none()
    | some.builds(metrics.Energy, finite, finite, measured=some.none() | finite),
    "timings": some.lists(
        some.builds(metrics.Timing, speedup=some.none() | spreads, control=some.none() | finite),
        max_size=2,
    ).map(tuple),
    "behaviour": some.none()
    | some.builds(
        metrics.Behaviour, train=some.none() | accuracies, noisy=accuracies, calibration=spreads
    ),
    "paired": some.none() | some.builds(metrics.Paired),
}
measurements = some.builds(
    events.Measurement,
    accuracy=some.none() | accuracies,
    loss=some.none() | finite,
    layers=layers,
    **later,
)
plain = some.dictionaries(some.text(), some.integers() | some.text() | shares)
any_event = some.one_of(
    some.builds(events.Started, recipe=plain, machine=plain),
    some.builds(events.Measured, measurement=measurements, seconds=some.none() | finite),
    some.builds(events.Pruned, layers=layers, sparsity=shares),
    some.builds(
        events.Epoch,
        accuracy=some.none() | accuracies,
        train_loss=finite,
        loss=some.none() | finite,
        lr=finite,
    ),
    some.builds(events.Recalibrated, seconds=finite),
    some.builds(events.Notice),
    some.builds(
        events.Finished,
        dense=measurements,
        pruned=some.none() | measurements,
        final=measurements,
        seconds=finite,
        sparsity=shares,
    ),
    some.builds(events.Failed),
    some.builds(events.Halting),
    some.builds(events.Halted),
)
some.register_type_strategy(float, finite)


@given(any_event)
def test_json_round_trip(event: events.Event) -> None:
    assert events.from_json(events.to_json(event)) == event


def test_every_kind_is_tried_above_and_named_in_its_json() -> None:
    assert set(events.KINDS.values()) == set(get_args(events.Event))
    assert json.loads(events.to_json(events.Notice("a"))) == {"event": "notice", "text": "a"}


def test_unknown_kinds_are_not_taken_for_another() -> None:
    with pytest.raises(KeyError):
        events.from_dict({"event": "unheard of"})


# ---------------------------------------------------------------- stored by earlier versions


OLD_SIZE = {"dense": 8, "sparse": 4, "compressed": 2, "coded": 3}
OLD_MEASUREMENT = {
    "accuracy": None,
    "loss": None,
    "weights": 2,
    "kept": 1,
    "parameters": 2,
    "macs": 2,
    "macs_kept": 1,
    "size": OLD_SIZE,
    "latency": None,
}


def test_what_was_stored_before_a_figure_existed_still_loads() -> None:
    """The shipped example and older workspaces: what they lack is not measured."""
    size = {"dense": 8, "sparse": 4, "compressed": 2}
    stored = {
        "event": "measured",
        "stage": "dense",
        "measurement": OLD_MEASUREMENT | {"size": size},
    }
    event = events.from_dict(stored)
    assert isinstance(event, events.Measured)
    measurement = event.measurement
    assert (measurement.memory, measurement.timings) == (None, ())
    assert measurement.size.limit is None


def test_fields_that_were_renamed_still_load() -> None:
    certificate = {
        "error": 1e-9,
        "limit": 1e-6,
        "checks": ["weights"],
        "control": 0.5,
        "removed": 1,
        "units": 4,
        "parameters": 100,
        "left": 75,
    }
    stored = {
        "event": "finished",
        "sparsity": 0.5,
        "dense": OLD_MEASUREMENT,
        "pruned": None,
        "final": OLD_MEASUREMENT,
        "seconds": 1.0,
        "slim": OLD_MEASUREMENT,
        "certificate": certificate,
    }
    event = events.from_dict(stored)
    assert isinstance(event, events.Finished)
    assert event.compact is not None and event.compact.size == Size(8, 4, 2)
    assert event.certificate is not None and event.certificate.kept == 75
    assert events.from_json(events.to_json(event)) == event


def test_the_shipped_example_still_reads() -> None:
    folder = Path(__file__).parents[1] / "dashboard" / "examples" / "digits-cnn"
    lines = (folder / "events.jsonl").read_text(encoding="utf-8").splitlines()
    started, *_, end = map(events.from_json, lines)
    assert isinstance(started, events.Started) and isinstance(end, events.Finished)
    assert end.final.size.limit is not None
    recipe = Recipe.from_dict(started.recipe)
    assert (recipe.min_units, recipe.training_epochs()) == (1, started.epochs)
