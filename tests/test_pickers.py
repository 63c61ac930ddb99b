"""Pickers offer what fits the model and the other choices, and say why the rest does not."""

from __future__ import annotations

import re
from typing import Any

import pytest
from pages import settled, texts

from dashboard import colours, forms, models, state, words
from dashboard.components import base
from pruning import registry, studies
from pruning.recipe import Recipe
from pruning.units.layout import lay_out
from tests.toys import toy

COMPONENTS = base.HERE
REWOUND = {"start": "random", "epochs": 1}
BARE = {
    "norms": 0,
    "fits": {"head": "the model has no attention."},
    "measurement": {"accuracy": None, "loss": None},
}
ANSWERS = {"accuracy": {"correct": 1, "total": 2}, "loss": 0.7}
FULL = {"norms": 3, "fits": {}, "measurement": ANSWERS}


def why_not(kind: str, name: str, card: dict[str, Any] | None = None, **recipe: Any) -> str:
    return models.why_not(kind, registry.entry(kind, name), Recipe(**recipe), card)


def test_what_the_model_does_not_have_is_not_offered() -> None:
    head = why_not("granularity", "head", BARE)
    assert head == "It fits no layer of this model: the model has no attention."
    data = why_not("criterion", "taylor", BARE)
    assert data == "It needs data, and there is none for this model."
    assert why_not("criterion", "magnitude", BARE) == ""
    assert why_not("criterion", "taylor", FULL) == ""
    assert why_not("granularity", "head", FULL) == ""
    # While nothing is known of the model, everything is offered.
    assert why_not("granularity", "head") == ""


def test_what_has_no_meaning_beside_the_other_choice_is_not_offered() -> None:
    criterion = "geometric_median"
    why = why_not("criterion", criterion, FULL)
    assert why.startswith("Geometric median does not work by weight: it compares whole filters")
    assert "It works by channel" in why
    recipe = {"criterion": criterion, "granularity": "channel"}
    assert why_not("granularity", "weight", FULL, **recipe) == why
    assert why_not("criterion", criterion, FULL, granularity="channel") == ""


@pytest.mark.parametrize("name", ["mlp", "residual", "attention"])
def test_a_card_says_which_granularities_fit_as_the_engine_does(name: str) -> None:
    work = toy(name)
    reasons = studies.card.without_units(work)
    granularities = registry.names("granularity")
    covered = {g: lay_out(Recipe(granularity=g), work).covered() for g in granularities}
    assert set(reasons) == {g for g in granularities if not covered[g]}
    assert all(why.endswith(".") for why in reasons.values())
    assert ("head" in reasons, "kernel" in reasons) == (name != "attention", name != "residual")


def test_every_technique_has_a_card_in_a_group() -> None:
    for kind in registry.KINDS:
        cards = [card for _, group in forms.grouped(kind, False) for card in group]
        assert sorted(card.id for card in cards) == sorted(registry.names(kind))
        assert all(card.name and card.text.endswith(".") for card in cards)
        if kind != "criterion":
            assert all(card.drawing for card in cards if card.id != "by_sensitivity")


@pytest.mark.parametrize("dark", [False, True])
def test_criteria_are_told_apart_in_the_picker(dark: bool) -> None:
    cards = [card for _, group in forms.grouped("criterion", dark) for card in group]
    looks = {(card.swatch, card.mark) for card in cards}
    assert len(looks) == len(cards) >= 16
    drawn = (COMPONENTS / "cards.js").read_text(encoding="utf-8")
    for card in cards:
        assert re.search(rf'^  "?{card.mark}"?: "M', drawn, re.MULTILINE), card.mark


def test_a_criterion_that_comes_later_looks_like_no_other() -> None:
    known = registry.names("criterion")
    taken = {(look.colour, look.marker) for look in map(colours.technique, known)}
    for i in range(200):
        look = colours.technique(f"criterion_{i}")
        assert (look.colour, look.marker) not in taken


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        (
            {"granularity": "n_of_m"},
            "Remove weights, at most 2 of every 4 neighbours, smallest in magnitude, "
            "50 % of the weights",
        ),
        (
            {"granularity": "block", "granularity_options": {"rows": 2}},
            "Remove 2 × 4 blocks smallest in magnitude, 50 % of the weights",
        ),
        ({"granularity": "head"}, "Remove the 50 % of heads smallest in magnitude"),
        (
            {"granularity": "channel", "budget": "macs"},
            "Remove channels smallest in magnitude, 50 % of the MACs",
        ),
        (
            {"scope": "threshold", "scope_options": {"value": 0.1}},
            "Remove the weights that score below 0.1 by magnitude, wherever they",
        ),
        (
            {"scope": "per_layer", "scope_options": {"output": 0.5}},
            "the same share in each layer, less in the output layer",
        ),
        (
            {**REWOUND, "rewind": "init", "steps": 2, "schedule": "geometric"},
            "in 2 rounds of one rate, each time rewinding to the first",
        ),
        (
            {**REWOUND, "rewind": "early", "rewind_step": 40},
            "rewinding to the weights after step 40 and training 1 epoch",
        ),
    ],
)
def test_recipes_in_words(recipe: dict[str, Any], sentence: str) -> None:
    assert sentence in words.sentence(Recipe(**recipe))


def test_the_page_follows_a_pattern_a_threshold_and_heads(home: object) -> None:
    page = settled(
        "prune", r=state.encode(Recipe(model="digits-mlp", granularity="n_of_m", sparsity=0.9))
    )
    assert not page.exception
    assert "2 of every group" in texts(page)
    page = settled(
        "prune",
        r=state.encode(
            Recipe(model="digits-mlp", scope="threshold", scope_options={"value": 0.02})
        ),
    )
    assert "the threshold decides, not the slider" in texts(page)
    assert page.number_input(key="form-sparsity").disabled
    page = settled("prune", r=state.encode(Recipe(model="digits-mlp", granularity="head")))
    assert "head fits no layer of this model" in texts(
        page
    ) and "choose another granularity" in texts(page)
    page = settled(
        "prune", r=state.encode(Recipe(model="digits-vit", granularity="head", scope="manual"))
    )
    assert not page.exception and not page.error
