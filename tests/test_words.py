"""Numbers and sentences are exactly those that people read on every page."""

from __future__ import annotations

import copy
import re
from dataclasses import fields, replace

import pytest

import pruning
from dashboard import colours, forms, words
from dashboard.components import icons
from pruning import describe, registry
from pruning.events import Accuracy, Latency, Layer, Pruned
from pruning.recipe import Recipe
from tests.toys import toy


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (Accuracy(353, 360), "98.1 % ± 1.5"),
        (Accuracy(0, 360), "0.0 % ± 0.5"),
        (Accuracy(9812, 10_000), "98.1 % ± 0.3"),
        (0.981, "98.1 %"),
        (None, "not measured"),
    ],
)
def test_percent(value, text):
    assert words.percent(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.9, "90 %"), (0.935, "93.5 %"), (0.98765, "98.77 %"), (0.0, "0 %"), (1.0, "100 %")],
)
def test_share(value, text):
    assert words.share(value) == text


def test_points_are_signed_and_never_minus_zero():
    assert words.points(Accuracy(99, 100), Accuracy(98, 100)) == "+1.0 points"
    assert words.points(0.5, 0.514) == "−1.4 points"
    assert words.points(0.5, 0.50004) == "±0.0 points"
    assert words.points(None, 0.5) == "not measured"


COUNTS = {
    0: "0",
    842: "842",
    999: "999",
    1000: "1.0 k",
    61_706: "61.7 k",
    999_960: "1.0 M",
    11_689_512: "11.7 M",
    446_000_000: "446 M",
}


@pytest.mark.parametrize(("n", "text"), COUNTS.items())
def test_count(n, text):
    assert words.count(n) == text


@pytest.mark.parametrize(
    ("n", "text"),
    [(812, "812 B"), (246_824, "247 kB"), (46_800_000, "46.8 MB"), (None, "not measured")],
)
def test_size(n, text):
    assert words.size(n) == text


def test_whole_ms_times_seconds_plural_shape():
    assert words.whole(61_706) == "61,706"
    assert words.ms(Latency(0.4212, 0.4, 0.454, 1, 1, 50)) == "0.42 ms (0.40 to 0.45)"
    assert words.ms(Latency(58.84, 58.1, 60.0, 1, 1, 50)) == "58.8 ms (58.1 to 60.0)"
    assert words.ms(None) == "not measured"
    assert (words.times(3.42), words.times(9.96), words.times(1234)) == ("3.4×", "10×", "1,234×")
    assert [words.seconds(s) for s in (0.84, 42, 59.7, 200, 7500)] == [
        "0.8 s",
        "42 s",
        "1 min 0 s",
        "3 min 20 s",
        "2 h 5 min",
    ]
    assert (words.plural(1, "epoch"), words.plural(1024, "example")) == (
        "1 epoch",
        "1,024 examples",
    )
    assert words.shape((16, 1, 3, 3)) == "16 × 1 × 3 × 3"


@pytest.mark.parametrize(
    ("recipe", "text"),
    [
        (
            Recipe(sparsity=0.9, schedule="linear", steps=4, epochs=2),
            "Remove the 90 % of weights smallest in magnitude, "
            "anywhere in the model, in 4 equal steps, fine-tuning 2 epochs each.",
        ),
        (
            Recipe(sparsity=0.9, schedule="cubic", steps=4, epochs=2),
            "Remove the 90 % of weights smallest in magnitude, "
            "anywhere in the model, in 4 steps, fine-tuning 2 epochs each.",
        ),
        (
            Recipe(sparsity=0.5, criterion="random", granularity="channel", scope="per_layer"),
            "Remove the 50 % of channels chosen at random, "
            "the same share in each layer, in one step, without fine-tuning.",
        ),
        (
            Recipe(
                scope="manual",
                ratios={"conv1.weight": 0.25, "fc.weight": 0.9},
                epochs=1,
                criterion="taylor",
            ),
            "Remove the weights that change the loss least, "
            "a share for each layer (conv1 25 %, fc 90 %), in one step, fine-tuning 1 epoch.",
        ),
        (
            Recipe(sparsity=0.8, exclude=("fc.weight",), epochs=3),
            "Remove the 80 % of weights smallest in magnitude, "
            "anywhere in the model, but not in fc, in one step, fine-tuning 3 epochs.",
        ),
        (
            Recipe(
                sparsity=0.5, criterion="bn_scale", granularity="channel", slimming=0.03, epochs=4
            ),
            "Remove the 50 % of channels with the smallest BatchNorm scale, anywhere in the model, "
            "after 4 epochs of slimming BatchNorm, in one step, fine-tuning 4 epochs.",
        ),
        (
            Recipe(sparsity=0.0, epochs=10, start="random"),
            "Train all weights for 10 epochs, starting from random weights.",
        ),
        (Recipe(sparsity=0.0), "Remove nothing."),
        (Recipe(sparsity=0.0, recalibrate=True), "Remove nothing, recalibrating BatchNorm."),
        (
            Recipe(sparsity=0.0, epochs=10, steps=4, distill=0.5),
            "Train all weights for 40 epochs, in 4 rounds of 10 with the dense model as teacher.",
        ),
        (
            Recipe(sparsity=0.0, epochs=4, slimming=0.03),
            "Train all weights for 4 epochs, after 4 epochs of slimming BatchNorm.",
        ),
        (
            Recipe(model="run:3f2a91bc", sparsity=0.0, epochs=10),
            "Train the weights that run 3f2a91 kept for 10 epochs. "
            "What run 3f2a91 pruned stays pruned.",
        ),
        (
            Recipe(model="run:3f2a91bc", sparsity=0.0, epochs=10, start="random", augment=True),
            "Train the weights that run 3f2a91 kept for 10 epochs, starting from random weights. "
            "What run 3f2a91 pruned stays pruned.",
        ),
        (
            Recipe(model="run:3f2a91bc", sparsity=0.9, epochs=3),
            "Remove the 90 % of weights smallest in magnitude, anywhere in the model, in one step, "
            "fine-tuning 3 epochs. What run 3f2a91 pruned stays pruned.",
        ),
        (
            Recipe(
                sparsity=0.5, epochs=2, schedule="cubic", steps=3, recalibrate=True, distill=0.5
            ),
            "Remove the 50 % of weights smallest in magnitude, anywhere in the model, in 3 steps, "
            "recalibrating BatchNorm, fine-tuning 2 epochs each with the dense model as teacher.",
        ),
    ],
)
def test_sentence(recipe, text):
    assert words.sentence(recipe) == text


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("slimming", [0.0, 0.1])
@pytest.mark.parametrize("start", ["trained", "random"])
def test_a_recipe_that_only_trains_says_all_its_epochs(steps, slimming, start):
    """Comparison runs train as long as theirs: 3 steps of 10 epochs were called 10."""
    for recipe in (
        Recipe(sparsity=0.0, epochs=10, steps=steps, slimming=slimming, start=start),
        Recipe(scope="manual", epochs=10, steps=steps, slimming=slimming, start=start),
    ):
        said = re.findall(r"(\d+) epochs", words.sentence(recipe))
        assert sum(map(int, said)) == recipe.training_epochs(), words.sentence(recipe)


@pytest.mark.parametrize("fields", [{"sparsity": 0.0, "epochs": 1}, {"sparsity": 0.8}])
@pytest.mark.parametrize("start", ["trained", "random"])
def test_what_an_earlier_run_pruned_stays_pruned_as_the_sentence_says(fields, start):
    first = toy("mlp")
    masks = pruning.choose(Recipe(sparsity=0.5), first)
    work = replace(first, model=copy.deepcopy(first.model), dense=first.model, masks=masks)
    pruning.apply(masks, work.model)
    recipe = Recipe(model="run:3f2a91bc", start=start, **fields)
    assert words.sentence(recipe).endswith("What run 3f2a91 pruned stays pruned.")
    ends = {}
    events = list(
        pruning.run(recipe, work, keep=lambda model, final: ends.update(model.state_dict()))
    )
    assert all(not ends[name][~keep].any() for name, keep in masks.items())
    # Whose masks they are: a run that prunes nothing itself has no criterion.
    [last] = [event for event in events if isinstance(event, Pruned)]
    facts = describe.facts(recipe, last)
    earlier = "Masks of run 3f2a91, 49.7 %"  # 82 of 165
    own = "Magnitude, global, 80.0 %" if recipe.prunes else earlier
    assert words.outcome(facts).startswith(f"{own} of the weights pruned")
    assert words.label(recipe, facts) == own[0].lower() + own[1:]


def test_differences_name_each_field_once():
    a = Recipe(model="digits-cnn", sparsity=0.9)
    b = Recipe(model="digits-cnn", sparsity=0.95, criterion="taylor", options={"squared": True})
    assert [str(d) for d in words.differences(a, b)] == [
        "criterion: magnitude → taylor",
        "criterion options: as usual → squared True",
        "sparsity asked: 90 % → 95 %",
    ]
    assert words.differences(a, a) == []


def pruned(recipe: Recipe, kept: int, total: int = 1000) -> describe.RunFacts:
    layers = (Layer("a.weight", total, kept),)
    return describe.facts(recipe, Pruned(1, 1, 1 - kept / total, layers))


def test_labels_say_what_was_pruned_and_what_differs():
    a, b = Recipe(sparsity=0.9, epochs=2), Recipe(sparsity=0.9, epochs=5)
    assert words.labels([(a, pruned(a, 100)), (b, pruned(b, 226))]) == [
        "magnitude, global, 90.0 %, 2 epochs each",
        "magnitude, global, 77.4 %, 5 epochs each",
    ]
    assert words.label(a, pruned(a, 100)) == "magnitude, global, 90.0 %"
    assert words.label(a, None) == "magnitude, global, nothing pruned"


def test_the_sparsity_that_a_manual_recipe_does_not_use_is_said_nowhere():
    """page.md, fault 1: `magnitude, 90 %` was said where 77.4 % were pruned."""
    manual = Recipe(sparsity=0.9, scope="manual", ratios={"a.weight": 0.774})
    facts = pruned(manual, 226)
    said = [
        words.outcome(facts),
        words.sentence(manual),
        *words.labels([(manual, facts), (replace(manual, sparsity=0.8), facts)]),
    ]
    assert not any("90" in text for text in said)
    assert words.outcome(facts) == (
        "Magnitude, manual, 77.4 % of the weights pruned (774 of 1,000)."
    )
    assert words.differences(manual, replace(manual, sparsity=0.8)) == []
    between = words.differences(Recipe(sparsity=0.9), manual)
    assert [str(d) for d in between] == [
        "scope: global → manual",
        "sparsity asked: 90 % → unused",
        "share by layer: unused → a 77.4 %",
    ]


def test_a_share_of_channels_and_one_of_weights_are_two_numbers():
    """page.md, fault 2: `Remove the 50 % of channels` was said of 61 of 192 channels."""
    channels = Recipe(granularity="channel", sparsity=0.5, budget="weights")
    last = Pruned(1, 1, 0.5, (Layer("a.weight", 1000, 500),), "weights", 0.5, (61, 192))
    text = words.outcome(describe.facts(channels, last))
    assert text == (
        "Magnitude, global, 61 of 192 channels, 50.0 % of the weights pruned (500 of 1,000)."
    )
    assert words.label(channels, describe.facts(channels, last)).endswith("61 of 192 channels")
    assert "50 % of channels" not in words.sentence(channels)
    assert "50 % of the weights" in words.sentence(channels)
    # A run of an earlier version did not count what a budget of channels asks for.
    old = describe.facts(replace(channels, budget="units"), replace(last, share=None, units=None))
    assert words.outcome(old).endswith("(500 of 1,000), 50 % of the channels asked.")


def test_a_share_that_is_nearly_all_is_not_called_all():
    assert words.percent(0.99996) == "99.996 %"
    assert words.percent(0.0002) == "0.02 %"
    assert (words.percent(1.0), words.percent(0.0)) == ("100.0 %", "0.0 %")


def test_a_runtime_is_named_with_its_device():
    assert words.runtime("torch") == "PyTorch"
    assert words.runtime("torch on cuda:0") == "PyTorch on cuda:0"


def test_every_field_of_a_recipe_has_a_name_for_people():
    assert set(words.FIELDS) == {field.name for field in fields(Recipe)}


def test_plain_text_carries_no_markdown():
    hostile = "![x](http://evil) **bold** :red[a] $x$ <b>"
    assert words.plain(hostile) == "\\!\\[x\\]\\(http\\:\u2060//evil\\) " + (
        r"\*\*bold\*\* \:red\[a\] \$x\$ \<b\>"
    )
    assert words.plain("two\nlines") == "two lines"


def test_every_criterion_has_words_a_drawing_and_a_look_of_its_own() -> None:
    known = registry.names("criterion")
    assert set(known) <= set(words.CRITERIA)
    assert set(known) <= set(icons.CRITERIA)
    looks = {name: colours.technique(name) for name in known}
    assert set(known) - {"random"} <= set(colours.FIXED)
    assert len({(look.colour, look.dash) for look in looks.values()}) == len(known)
    assert len({(look.colour, look.marker) for look in looks.values()}) == len(known)
    assert {entry.tags["group"] for entry in registry.entries("criterion").values()} <= set(
        forms.GROUPS
    )
