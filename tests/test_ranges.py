"""Numbers and texts of any size: every one that a recipe can carry has a range, and what is outside
is refused in one sentence.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from dashboard import state
from pruning import registry
from pruning.cli import main
from pruning.errors import LONGEST, OutOfRange, PruningError, RecipeError, shown
from pruning.ranges import ANY, SHARE, Range
from pruning.recipe import RANGES, Recipe
from pruning.registry import Option
from tests.pages import opened

HUGE = 10**401
"""JSON holds it, a float does not."""
NUMBERS = [
    (kind, name, option)
    for kind in registry.KINDS
    for name, entry in registry.entries(kind).items()
    for option in entry.options
    if option.kind in ("int", "float")
]
NO_NUMBERS = (HUGE, -HUGE, float("nan"), float("inf"), -float("inf"), True, "1", None, [1])


def outside(range: Range, whole: bool) -> list[Any]:
    """Values just beyond the range, and none that is a number of its kind."""
    step = 1 if whole else 1e-6
    beyond: list[Any] = [range.low - step, range.high + max(step, range.high * 1e-6)]
    if whole:
        beyond = [int(range.low) - 1, int(range.high) + 1, 1.5]
    ends = [range.low] * range.above + [range.high] * range.below
    return [*beyond, *ends, *NO_NUMBERS]


@pytest.mark.parametrize(
    ("kind", "name", "option"), NUMBERS, ids=[f"{n}.{o.name}" for _, n, o in NUMBERS]
)
def test_every_option_that_is_a_number_has_a_range(kind: str, name: str, option: Option) -> None:
    assert option.range is not None and option.range is not ANY, "annotate it with a Range"
    assert option.range.holds(option.default)
    whole = option.kind == "int"
    for value in outside(option.range, whole):
        with pytest.raises(RecipeError) as refused:
            registry.check_options(kind, name, {option.name: value})
        assert len(str(refused.value)) < 300
    registry.check_options(kind, name, {option.name: option.default})


@pytest.mark.parametrize("name", RANGES)
def test_every_number_of_a_recipe_has_a_range(name: str) -> None:
    default = getattr(Recipe(), name)
    for value in outside(RANGES[name], isinstance(default, int)):
        with pytest.raises(OutOfRange, match=name):
            Recipe(**{name: value})


def test_no_number_of_a_recipe_is_without_a_range() -> None:
    numbers = {field.name for field in dataclasses.fields(Recipe) if field.type in ("int", "float")}
    assert numbers == set(RANGES)
    with pytest.raises(OutOfRange, match=r"ratio of conv1\.weight is 1000"):
        Recipe(scope="manual", ratios={"conv1.weight": HUGE})


def test_a_range_says_what_it_holds() -> None:
    assert Range(1, 1000).in_words(whole=True) == "a whole number from 1 to 1,000"
    assert Range(0, 100, above=True).in_words() == "a number above 0, up to 100"
    assert SHARE.in_words() == "a share from 0 up to, not including, 1"


def test_a_message_quotes_a_part_of_what_is_long() -> None:
    for value in ("x" * 10**6, HUGE, 10**5000, [[]] * 10**5, {"a": "b" * 10**5}):
        assert len(shown(value)) < LONGEST + 40


# ---------------------------------------------------------------- texts from outside

DEEP = '{"options": ' + "[" * 10_000 + "]" * 10_000 + "}"
LONG = "9" * 401
TEXTS = (
    DEEP,
    "[" * 10_000,
    "{",
    "[]",
    "null",
    '{"model": "\\ud800"}',
    '{"exclude": ["\\udfff"]}',
    '{"scope": "manual", "ratios": {"\\ud800": 0.5}}',
    '{"criterion": "\\ud800"}',
    '{"\\ud800": 1}',
    '{"options": {"\\ud800": 1}}',
    '{"model": "' + "x" * 100_000 + '"}',
    '{"model": null}',
    '{"criterion": "hutchinson", "options": {"probes": 1000000000}}',
    '{"criterion": "hutchinson", "options": {"probes": -5}}',
    '{"criterion": "grasp", "options": {"temperature": NaN}}',
    '{"sparsity": -Infinity}',
    '{"lr": ' + "9" * 5000 + "}",
    *(f'{{"{name}": {LONG}}}' for name in RANGES),
    *(f'{{"{name}": 1e400}}' for name in RANGES),
    '{"version": ' + LONG + "}",
)


def link(text: str) -> str:
    """The text of an address that holds this JSON."""
    return base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")


@pytest.mark.parametrize("text", TEXTS, ids=lambda text: text[:40])
def test_what_cannot_be_a_recipe_is_one_sentence(
    text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(PruningError) as refused:
        Recipe.from_json(text)
    assert len(str(refused.value)) < 1000
    str(refused.value).encode()  # a page sends it as UTF-8
    with pytest.raises(PruningError):
        state.decode(link(text))
    file = tmp_path / "recipe.json"
    file.write_text(text, encoding="utf-8")
    # Of a recipe that names no model: none is loaded before it is read.
    assert main(["run", str(file)]) == 2
    sentence = capsys.readouterr().err
    assert sentence.count("\n") == 1 and "Traceback" not in sentence


def test_options_of_the_shell_are_read_like_recipes(capsys: pytest.CaptureFixture[str]) -> None:
    for value in ("1" + "0" * 401, "[" * 10_000, "NaN", "1e400"):
        flags = ["run", "--model", "digits-mlp", "--criterion", "hutchinson"]
        assert main([*flags, "--options", f"probes={value}"]) == 2
        assert "probes" in capsys.readouterr().err


# ---------------------------------------------------------------- the page


def test_the_page_has_the_ranges_and_shows_what_its_fields_cannot_hold() -> None:
    """A seed beyond a browser's numbers stays in the recipe; the widgets end where ranges do."""
    recipe = {"criterion": "obd", "model": "digits-cnn", "seed": 2**63 - 1, "lr": 1e-300}
    page = opened("prune", r=link(json.dumps(recipe)))
    assert not page.error and not page.exception
    probes = next(field for field in page.number_input if field.label == "Probes")
    assert (probes.min, probes.max) == (1, 1000)
    seed = next(field for field in page.text_input if field.label == "Seed")
    assert seed.disabled and seed.value == f"{2**63 - 1:,}"
