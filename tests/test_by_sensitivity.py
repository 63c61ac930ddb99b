"""by_sensitivity: a measured way down, followed as far as the budget goes, and what it foretells."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pruning
import sample_models
from pruning import events, masks
from pruning.allocation.path import AllocationPath, PathStep
from pruning.allocation.ranking import Ranking
from pruning.allocation.scopes import Ranked, spend
from pruning.errors import DataError, OutOfRange, RecipeError, Stopped
from pruning.recipe import Recipe
from pruning.sensitivity_map import netadapt
from tests.toys import toy

# Two layers of 4 and 8 weights. Leg 1 takes 2 of a, then 1 of b; leg 2 takes 4 of b. Accuracy on 10 images: 9, 9, 7 right.
WAY = AllocationPath(
    (
        PathStep((), 0, 1.0, 9),
        PathStep((("a", 2), ("b", 1)), 3, 1.2, 9),
        PathStep((("b", 4),), 7, 2.0, 7),
    ),
    10,
)


def two(**more: object) -> Ranked:
    return Ranked(
        {"a": np.arange(4.0), "b": np.arange(8.0) - 10}, {"a": 1, "b": 1}, route=WAY, **more
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("share", "drops"),
    [
        (0, {"a": 0, "b": 0}),
        (1 / 12, {"a": 1, "b": 0}),  # half of the first step
        (3 / 12, {"a": 2, "b": 1}),  # leg 1 whole
        (5 / 12, {"a": 2, "b": 3}),  # and half of leg 2
        (
            8 / 12,
            {"a": 2, "b": 6},
        ),  # one more than the route knows: the lowest score anywhere is b's
        (0.99, {"a": 3, "b": 7}),  # both keep their floor
    ],
)
def test_the_route_is_followed_as_far_as_the_budget_goes(
    share: float, drops: dict[str, int]
) -> None:
    assert spend("by_sensitivity", two(), share, {}) == drops


def test_what_is_foretold_lies_between_the_legs() -> None:
    assert WAY.predicted(3) == (pytest.approx(0.2), 0.0)
    assert WAY.predicted(5) == (
        pytest.approx(0.6),
        pytest.approx(0.1),
    )  # half-way between 9 and 7 right of 10
    assert WAY.within(0.1) == pytest.approx(5)
    assert WAY.within(0.5) == 7
    assert AllocationPath.from_dict(json.loads(json.dumps(WAY.to_dict()))) == WAY


def test_a_tolerated_drop_stops_earlier() -> None:
    assert spend("by_sensitivity", two(), 0.9, {"tolerate": 10.0}) == {"a": 2, "b": 3}
    assert spend("by_sensitivity", two(), 0.1, {"tolerate": 10.0}) == {
        "a": 1,
        "b": 0,
    }  # the share asked for comes first
    with pytest.raises(OutOfRange, match="from 0 to 100"):
        spend("by_sensitivity", two(), 0.9, {"tolerate": -1.0})


def test_a_share_of_macs_or_bytes_is_reached_and_never_passed() -> None:
    # b's weights are used 9 times, a's once: 76 MACs. Of 3 gone weights (a: 2, b: 1) 11 go, of 4 (b: 2) 20.
    assert spend("by_sensitivity", two(macs={"a": 4, "b": 72}), 15 / 76, {"of": "macs"}) == {
        "a": 2,
        "b": 1,
    }
    # A bit for each weight (1 byte a layer) and 4 bytes for each kept, of 48: with 5 gone 1+8 and 1+20, with 6 gone 1+8 and 1+16.
    assert spend("by_sensitivity", two(), 18 / 48, {"of": "bytes"}) == {"a": 2, "b": 3}
    with pytest.raises(RecipeError, match="no example input"):
        spend("by_sensitivity", two(), 0.5, {"of": "macs"})


def test_scores_without_measurements_say_so() -> None:
    with pytest.raises(RecipeError, match="hold no measurements"):
        spend("by_sensitivity", replace(two(), route=None), 0.5, {})
    with pytest.raises(DataError, match="by_sensitivity needs validation data"):
        pruning.choose(Recipe(scope="by_sensitivity"), replace(toy("mlp"), validation=None))


@pytest.mark.parametrize("name", ["mlp", "residual", "attention"])
def test_a_longer_way_goes_on_from_a_shorter_one(name: str, tmp_path: Path) -> None:
    work, far = toy(name), Recipe(scope="by_sensitivity", sparsity=0.9)
    netadapt._held.clear()
    whole = masks.rank(far, work).ranking.route
    netadapt._held.clear()
    half = netadapt.route(
        replace(far, sparsity=0.5), work, masks.rank(Recipe(), work), folder=tmp_path
    )
    netadapt._held.clear()
    assert whole and len(half.legs) < len(whole.legs) and half.legs == whole.legs[: len(half.legs)]
    assert netadapt.route(far, work, masks.rank(Recipe(), work), folder=tmp_path) == whole


def test_it_can_be_stopped() -> None:
    netadapt._held.clear()
    with pytest.raises(Stopped):
        netadapt.route(
            Recipe(sparsity=0.9), toy("mlp"), masks.rank(Recipe(), toy("mlp")), stop=lambda: True
        )


@pytest.mark.parametrize("granularity", ["weight", "channel"])
def test_the_preview_survives_the_disk_and_says_what_pruning_does(
    granularity: str, tmp_path: Path
) -> None:
    work = sample_models.load("digits-mlp")
    recipe = Recipe(scope="by_sensitivity", sparsity=0.95, granularity=granularity)
    masks.rank(recipe, work).ranking.save(tmp_path / "ranking.npz")
    held = Ranking.load(tmp_path / "ranking.npz")
    for share in (0.3, 0.8, 0.95):
        less = replace(recipe, sparsity=share)
        keep = pruning.choose(less, work)
        assert {layer.name: layer.kept for layer in held.preview(less).layers} == {
            n: int(k.sum()) for n, k in keep.items() if k.dim() > 1
        }


def test_it_finds_what_uniform_pruning_misses_and_foretells_it() -> None:
    work = sample_models.load("digits-mlp")
    said = list(pruning.run(Recipe(scope="by_sensitivity", sparsity=0.9), work))
    predicted = next(e for e in said if isinstance(e, events.Forecast))
    uniform = list(pruning.run(Recipe(scope="per_layer", sparsity=0.9), work))[-1]
    end = said[-1]
    assert isinstance(end, events.Finished) and isinstance(uniform, events.Finished)
    assert (
        end.final.accuracy
        and uniform.final.accuracy
        and end.final.accuracy.correct > uniform.final.accuracy.correct + 50
    )
    assert predicted.accuracy and predicted.drop_achieved == pytest.approx(predicted.drop, abs=0.02)
    assert predicted.loss_achieved == pytest.approx(predicted.loss, abs=0.05)
    assert events.from_json(events.to_json(predicted)) == predicted


def test_excluded_layers_stay_whole() -> None:
    work = toy("mlp")
    keep = pruning.choose(Recipe(scope="by_sensitivity", sparsity=0.8, exclude=("2.weight",)), work)
    assert keep["2.weight"].all()
    assert sum(int((~k).sum()) for n, k in keep.items() if n != "2.weight") == round(
        0.8 * (60 + 21)
    )
