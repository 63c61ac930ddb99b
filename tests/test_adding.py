"""Adding a technique is one file: the registry, the shell and the page have it, and it prunes."""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import pruning
from dashboard import colours, forms, words
from pruning import registry, selection
from pruning.cli import main
from pruning.errors import OutOfRange, RecipeError, UnknownName
from pruning.recipe import Recipe
from tests.toys import toy

FILE = '''"""Nearest to a level: weights of a size near the level are removed first.

||w| - level|, made up for this test, https://example.org/level
"""

from torch import Tensor

from pruning.evidence import Evidence
from pruning.registry import criterion
from pruning.types import Masks, Scores


@criterion(group="weights", needs="nothing", cost="reads the weights once",
           compensates=True, skips=True, granularities=("weight", "row"),
           why="it was made up for single weights and rows")
def near_level(seen: Evidence, *, level: float = 0.25, louder: bool = False) -> Scores:
    """Remove the weights whose size is nearest to a level.

    level: the size that is removed first.
    louder: twice the score.
    """
    factor = 2 if louder else 1
    return {name: (w.abs() - level).abs() * factor for name, w in seen.weights.items()}


def skips(seen: Evidence) -> dict[str, str]:
    return {list(seen.weights)[0]: "it comes first."}


def compensate(
    seen: Evidence, masks: Masks, *, level: float = 0.25, louder: bool = False
) -> dict[str, Tensor]:
    return {name: w + level for name, w in seen.weights.items() if not masks[name].all()}
'''


@pytest.fixture
def added(tmp_path: Path) -> Iterator[str]:
    file = tmp_path / "near_level.py"
    file.write_text(FILE, encoding="utf-8")
    spec = importlib.util.spec_from_file_location("near_level", file)
    assert spec and spec.loader
    module = sys.modules["near_level"] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        yield "near_level"
    finally:
        registry.forget("criterion", "near_level")
        del sys.modules["near_level"]


def test_the_registry_has_it_with_its_options_and_its_paper(added: str) -> None:
    entry = registry.entry("criterion", added)
    assert entry.title == "Remove the weights whose size is nearest to a level."
    assert entry.paper == "https://example.org/level"
    assert [(o.name, o.kind, o.default, o.help) for o in entry.options] == [
        ("level", "float", 0.25, "the size that is removed first."),
        ("louder", "bool", False, "twice the score."),
    ]
    with pytest.raises(UnknownName, match="option of criterion near_level called 'loud'"):
        Recipe(criterion=added, options={"loud": True})
    with pytest.raises(
        RecipeError,
        match=r"near_level does not work by channel: it was made up .* "
        "Choose granularity weight or row",
    ):
        Recipe(criterion=added, granularity="channel")


def test_the_shell_lists_it(added: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list", "criteria", "--json"]) == 0
    row = next(row for row in json.loads(capsys.readouterr().out) if row["name"] == added)
    assert row["tags"]["granularities"] == ["weight", "row"]
    assert [option["name"] for option in row["options"]] == ["level", "louder"]


def test_the_form_has_a_card_for_it_a_colour_and_a_sentence(added: str) -> None:
    cards = dict(forms.grouped("criterion", False))["Looks at the weights"]
    card = next(card for card in cards if card.id == added)
    assert (card.name, card.text) == (
        "Near level",
        "Remove the weights whose size is nearest to a level.",
    )
    assert colours.technique(added).colour in {light for light, _ in colours.HUES.values()}
    assert words.sentence(Recipe(criterion=added)).startswith(
        "Remove the 50 % of weights lowest by near level,"
    )
    options = forms.with_option(registry.entry("criterion", added), {}, "level", 0.5)
    assert Recipe(criterion=added, options=options).options == {"level": 0.5}


def test_it_prunes_skips_and_compensates(added: str) -> None:
    work = toy("mlp")
    recipe = Recipe(criterion=added, options={"level": 0.1}, sparsity=0.5, scope="per_layer")
    before = {name: value.clone() for name, value in work.model.state_dict().items()}
    first, second = before["0.weight"], before["2.weight"]
    keep = pruning.choose(recipe, work)
    assert keep["0.weight"].all()  # skipped
    near = (second.abs() - 0.1).abs()
    assert near[~keep["2.weight"]].max() <= near[keep["2.weight"]].min()
    selection.remove(recipe, work, keep)
    after = work.model.state_dict()
    assert torch.equal(after["2.weight"], (second + 0.1) * keep["2.weight"])
    assert torch.equal(after["0.weight"], first)
    with pytest.raises(OutOfRange, match=r"ratio of 0\.weight"):
        pruning.choose(Recipe(criterion=added, scope="manual", ratios={"0.weight": 0.5}), work)


def test_what_was_added_can_be_taken_back() -> None:
    with pytest.raises(UnknownName, match="near_level"):
        registry.entry("criterion", "near_level")
