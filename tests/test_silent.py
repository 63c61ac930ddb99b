"""Nothing is pruned in silence for another reason than its score: the sample that scores stand on,
weights that a criterion did not see, and scores that are all equal.
"""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor, nn

import pruning
from pruning import registry
from pruning.analysis.criterion_check import Check, CheckPlan, criterion_check
from pruning.errors import RecipeError
from pruning.events import Notice
from pruning.evidence import Evidence
from pruning.recipe import Recipe
from pruning.sensitivity_map.cells import cache_key
from pruning.types import Batches, Workpiece
from tests.toys import toy

WATCHING = ("wanda", "obs", "activation")


def numbered(classes: Tensor) -> Batches:
    """Examples that show their place in the data."""
    return Batches(torch.arange(len(classes)).float().unsqueeze(1), classes)


def notices(recipe: Recipe, work: Workpiece) -> list[str]:
    return [event.text for event in pruning.run(recipe, work) if isinstance(event, Notice)]


# ---------------------------------------------------------------- a sample stands for the data


@given(
    sizes=some.lists(some.integers(1, 40), min_size=1, max_size=6),
    n=some.integers(1, 60),
    seed=some.integers(0, 5),
)
@settings(max_examples=100, deadline=None)
def test_a_sample_is_balanced_as_far_as_there_are_examples(
    sizes: list[int], n: int, seed: int
) -> None:
    # As a folder of folders is read: sorted by class, classes of any numbers.
    y = torch.cat([torch.full((size,), 3 * i - 1) for i, size in enumerate(sizes)])
    few = numbered(y).sample(n, seed, balanced=True)
    places = few.x.flatten().long()
    assert len(places.unique()) == len(places) == min(n, len(y))
    assert torch.equal(few.y, y[places])
    if n >= len(y):
        assert torch.equal(places, torch.arange(len(y)))
        return
    taken = [int((few.y == 3 * i - 1).sum()) for i in range(len(sizes))]
    # A class with fewer examples than another gave all that it has.
    for mine, size in zip(taken, sizes, strict=True):
        assert mine == size or mine >= max(taken) - 1


def test_a_sample_is_random_and_mixed_and_repeats() -> None:
    data = numbered(torch.arange(10).repeat_interleave(100))
    first, again, other = (data.sample(100, seed, balanced=True) for seed in (0, 0, 1))
    assert torch.equal(first.x, again.x) and not torch.equal(first.x, other.x)
    # Every ten of them hold all classes, so every batch does.
    assert all(len(y.unique()) == 10 for y in first.y.split(10))
    assert first.x.mean() == pytest.approx(500, abs=60)  # from the whole of each class


def test_targets_that_are_no_classes_are_sampled_at_random() -> None:
    x = torch.arange(100).float().unsqueeze(1)
    for y in (torch.randn(100), torch.randn(100, 2), torch.randint(0, 2, (100, 4, 4))):
        few = Batches(x, y).sample(10, balanced=True)
        assert torch.equal(few.y, y[few.x.flatten().long()])
        assert few.x.max() > 20


def test_all_criteria_of_one_evidence_see_the_same_sample() -> None:
    data = numbered(torch.arange(10).repeat_interleave(300))
    evidence = Evidence(nn.Linear(1, 10), data, seed=4)
    assert evidence.data is evidence.data
    assert len(evidence.data.x) == 1024
    assert not torch.equal(evidence.data.x, Evidence(nn.Linear(1, 10), data, seed=5).data.x)
    few = evidence.fewer(20).data
    assert [int((few.y == c).sum()) for c in range(10)] == [2] * 10


@pytest.mark.parametrize("criterion", ["wanda", "taylor", "snip", "obd"])
def test_the_order_of_the_data_does_not_change_what_is_pruned(criterion: str) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        x = torch.randn(4000, 16)
        y = (x @ torch.randn(16, 4)).argmax(1)
        x = x * (1 + 2 * nn.functional.one_hot(y, 16))  # what each class lights up differs
        model = nn.Sequential(nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 4))
    by_class = y.argsort()
    masks = []
    for order in (torch.arange(len(y)), by_class):
        work = Workpiece("order", model, Batches(x[order], y[order]), example=x[:1])
        options = {"examples": 1024} if criterion == "snip" else {}  # by itself it takes few
        recipe = Recipe(criterion=criterion, options=options, sparsity=0.8)
        masks.append(pruning.choose(recipe, work))
    agree = [float((masks[0][name] == masks[1][name]).float().mean()) for name in masks[0]]
    assert min(agree) > 0.85


def test_other_training_data_anywhere_is_another_map() -> None:
    work = toy("mlp")
    assert work.train and work.validation
    many = Batches(work.train.x.repeat(100, 1), work.train.y.repeat(100))
    changed = Batches(many.x.clone(), many.y)
    changed.x[-1] += 1
    keys = [
        cache_key(Recipe(criterion=criterion), replace(work, train=train), work.validation, "")
        for criterion in ("taylor", "magnitude")
        for train in (many, changed)
    ]
    assert keys[0] != keys[1]
    assert keys[2] == keys[3]  # magnitude looks at no data


# ---------------------------------------------------------------- weights that nobody saw


class Scaled(nn.Module):
    """Its first weight is scaled before it is used, so it never multiplies anything itself."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(5, 12)
        self.second = nn.Linear(12, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.linear(x, self.first.weight * 2, self.first.bias).relu()
        out: Tensor = self.head(self.second(x).relu())
        return out


class Cast(nn.Module):
    """Autocast inside: every weight is cast before it is used."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 3))

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            out: Tensor = self.body(x)
        return out.float()


class Branching(nn.Module):
    """Uses a layer only for some inputs, and not for the example."""

    def __init__(self) -> None:
        super().__init__()
        self.often, self.seldom = nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.often(x)
        return out + self.seldom(x) if float(x.sum()) > 0 else out


def on(model: nn.Module) -> Workpiece:
    return replace(toy("mlp"), model=model.eval())


@pytest.mark.parametrize("criterion", WATCHING)
def test_a_weight_that_was_not_seen_at_work_stays_dense_and_the_run_says_why(
    criterion: str,
) -> None:
    granularity = "row" if criterion == "activation" else "weight"
    recipe = Recipe(criterion=criterion, granularity=granularity, sparsity=0.5)
    work = on(Scaled())
    assert "scaled" in Evidence.of(work).unwatched["first.weight"]
    masks = pruning.choose(recipe, work)
    assert masks["first.weight"].all() and not masks["second.weight"].all()
    texts = notices(recipe, work)
    assert any(f"{criterion} leaves first.weight dense" in text for text in texts)
    with pytest.raises(RecipeError, match=r"it is scaled, cast .*choose another granularity or cr"):
        pruning.choose(recipe, on(Cast()))
    assert notices(replace(recipe, criterion="magnitude"), work) == []


def test_a_branch_that_other_inputs_take_is_seen() -> None:
    work = on(Branching())
    assert work.example is not None
    work = replace(work, example=-work.example.abs())
    assert Evidence.of(work).unwatched == {}
    assert set(Evidence.of(replace(work, train=None)).unwatched) == {"seldom.weight"}


@pytest.mark.parametrize("criterion", registry.names("criterion"))
def test_criteria_that_watch_say_what_they_did_not_see(criterion: str) -> None:
    """Each criterion either skips what it did not see, or needs not to see it."""
    work = on(Scaled())
    skips = registry.companion(criterion, "skips")
    skipped = skips(Evidence.of(work)) if skips else {}
    watches = registry.entry("criterion", criterion).tags["group"] == "activations"
    assert "first.weight" in skipped or not (watches or criterion in WATCHING)


# ---------------------------------------------------------------- scores that are all equal


def test_equal_scores_are_pruned_by_position_only_with_a_notice() -> None:
    work = toy("mlp")
    with torch.no_grad():
        work.model[2].weight.fill_(0.1)  # type: ignore[operator, index, union-attr]
    recipe = Recipe(scope="per_layer", sparsity=0.5)
    (text,) = notices(recipe, work)
    assert "2.weight (42 of 42)" in text and "0.weight" not in text
    with pytest.warns(UserWarning, match=r"magnitude scores units alike.*2\.weight \(42 of 42\)"):
        pruning.choose(recipe, work)
    # In several steps it is said once.
    assert len(notices(replace(recipe, steps=3, schedule="linear"), work)) == 1


@pytest.mark.parametrize("criterion", ["grasp", "fisher"])
def test_float16_that_underflows_is_noticed(criterion: str) -> None:
    work = toy("mlp")
    assert work.train is not None
    small = Batches(work.train.x.half() * 1e-4, work.train.y)
    work = replace(work, model=work.model.half(), train=small, example=small.x[:1])
    with pytest.warns(UserWarning, match=r"place alone decided .*become 0 in float16"):
        pruning.choose(Recipe(criterion=criterion, sparsity=0.5), work)


def test_what_needs_no_notice_gets_none() -> None:
    work = toy("mlp")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        masks = pruning.choose(Recipe(sparsity=0.5), work)
        # Weights that are zero already: which of them are masked is all the same.
        pruning.apply(masks, work.model)
        pruning.choose(Recipe(sparsity=0.3), work)


def test_a_check_leaves_out_a_criterion_that_sees_nothing_of_a_layer() -> None:
    check = Check(layers=("first.weight",))
    plan = next(criterion_check(on(Scaled()), check, {"magnitude": {}, "wanda": {}}))
    assert isinstance(plan, CheckPlan)
    assert plan.refused == {"wanda": "wanda has no scores for first.weight: check other layers."}
