"""Reconstruction: what is kept is solved anew so that each layer gives what it gave before."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import pruning
from pruning import events
from pruning.criteria.reconstruction import greedy
from pruning.errors import DataError, NotCaptured, RecipeError, Stopped
from pruning.recipe import Recipe
from pruning.structure.capture import inputs
from pruning.training.layer_inputs import inputs_at, outputs_at, positions
from pruning.training.least_squares import solve
from pruning.training.reconstruct import Reconstruction, reconstruct
from pruning.types import Batches, Masks, Workpiece
from tests.toys import TOYS, same, snapshot, toy

CUTS = {
    "channel": {"granularity": "channel"},
    "row": {"granularity": "row"},
    "column": {"granularity": "column"},
    "weight": {"granularity": "weight"},
    "block": {"granularity": "block"},
}


def pruned_copy(work: Workpiece, recipe: Recipe) -> tuple[nn.Module, Masks]:
    masks = pruning.choose(recipe, work)
    model = copy.deepcopy(work.model)
    pruning.apply(masks, model)
    return model, masks


def done(work: Workpiece, recipe: Recipe) -> tuple[nn.Module, Masks, Reconstruction]:
    model, masks = pruned_copy(work, recipe)
    assert work.train
    return model, masks, reconstruct(model, work.model, masks, work.train, work.example)


def outputs(model: nn.Module, work: Workpiece) -> Tensor:
    assert work.test
    with torch.no_grad():
        result: Tensor = model.eval()(work.test.x)
    return result


# ---------------------------------------------------------------- laws


@pytest.mark.parametrize("name", TOYS)
def test_with_nothing_pruned_nothing_changes(name: str) -> None:
    work = toy(name)
    model, _, report = done(work, Recipe(sparsity=0.0))
    assert same(snapshot(model), snapshot(work.model))
    assert not report.layers


FITTING = [
    (name, cut)
    for name, cut in itertools.product(TOYS, CUTS)
    if (name, cut) not in {("tied", "channel"), ("attention", "channel"), ("one_unit", "block")}
]


@pytest.mark.parametrize(("name", "cut"), FITTING)
def test_pruned_weights_stay_zero_and_no_layer_gets_worse(name: str, cut: str) -> None:
    work = toy(name)
    before = snapshot(work.model)
    recipe = Recipe(sparsity=0.5, scope="per_layer", **CUTS[cut])
    model, masks, report = done(work, recipe)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    for parameter, keep in masks.items():
        assert bool((parameters[parameter][~keep] == 0).all()), parameter
    for layer, (was, now) in report.layers.items():
        assert now <= was, layer
    assert same(snapshot(work.model), before)
    assert not any(module.training for module in model.modules())


UNITS = [
    ("mlp", "channel"),
    ("residual", "channel"),
    ("depthwise", "channel"),
    ("attention", "head"),
]


@pytest.mark.parametrize(("name", "units"), UNITS)
def test_the_network_comes_closer_to_what_it_was(name: str, units: str) -> None:
    work = toy(name)
    recipe = Recipe(sparsity=0.5, scope="per_layer", granularity=units)
    as_pruned, _ = pruned_copy(work, recipe)
    model, _, _ = done(work, recipe)
    target = outputs(work.model, work)
    before = (outputs(as_pruned, work) - target).square().sum()
    after = (outputs(model, work) - target).square().sum()
    assert after < 0.7 * before


@pytest.mark.parametrize(("name", "units"), UNITS)
def test_the_compact_model_is_the_reconstructed_one(name: str, units: str) -> None:
    work = toy(name)
    recipe = Recipe(sparsity=0.5, scope="per_layer", granularity=units, reconstruct=True)
    *history, finished = pruning.run(recipe, work)
    assert isinstance(finished, events.Finished)
    assert finished.certificate and finished.certificate.error < 1e-9
    assert finished.compact and finished.compact.accuracy == finished.final.accuracy
    assert any(isinstance(event, events.Reconstructed) for event in history)


# ---------------------------------------------------------------- toys in one's head


def test_a_neighbour_takes_over_for_its_twin() -> None:
    """Two inputs that are always equal, weights 1 and 2: without the second, the first gets 3."""
    x = torch.randn(1, 40, 1, generator=torch.Generator().manual_seed(0)).double()
    solved = solve(
        torch.tensor([[[1.0, 2.0]]]),
        torch.zeros(1, 1),
        torch.tensor([[[True, False]]]),
        x.expand(1, 40, 2),
        3 * x,
        ridge=1e-9,
        intercept=False,
    )
    assert solved.weight.flatten().tolist() == pytest.approx([3, 0])
    assert solved.after == pytest.approx(0, abs=1e-9) and solved.before > 1


def test_the_bias_takes_over_the_mean_of_a_constant_input() -> None:
    """y = x + 2·5, and the constant input 5 is pruned: the bias becomes 10, the weight stays."""
    x = torch.randn(1, 40, 1, generator=torch.Generator().manual_seed(0)).double()
    seen = torch.cat([x, torch.full_like(x, 5)], 2)
    solved = solve(
        torch.tensor([[[1.0, 2.0]]]),
        torch.zeros(1, 1),
        torch.tensor([[[True, False]]]),
        seen,
        x + 10,
        ridge=1e-9,
        intercept=True,
    )
    assert solved.weight.flatten().tolist() == pytest.approx([1, 0])
    assert solved.bias.item() == pytest.approx(10)


def test_least_squares_are_numpys() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 60, 5, generator=generator).double()
    y = torch.randn(1, 60, 2, generator=generator).double()
    keep = torch.tensor([[[True, True, False, True, True], [False, True, True, False, True]]])
    solved = solve(
        torch.zeros(1, 2, 5), torch.zeros(1, 2), keep, x, y, ridge=1e-12, intercept=False
    )
    for row in range(2):
        on = keep[0, row].numpy()
        expected = np.linalg.lstsq(x[0].numpy()[:, on], y[0, :, row].numpy(), rcond=None)[0]
        assert solved.weight[0, row].numpy()[on] == pytest.approx(expected, abs=1e-8)


def test_rows_of_large_layers_are_solved_nearly_as_small_ones(monkeypatch) -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(1, 80, 12, generator=generator).double()
    y = torch.randn(1, 80, 6, generator=generator).double()
    keep = torch.rand(1, 6, 12, generator=generator) < 0.5
    args = (torch.zeros(1, 6, 12), torch.zeros(1, 6), keep, x, y)
    exact = solve(*args, ridge=1e-3, intercept=True)
    monkeypatch.setattr("pruning.training.least_squares.DIRECT", 0)
    near = solve(*args, ridge=1e-3, intercept=True)
    assert torch.allclose(near.weight, exact.weight, atol=1e-6)


# ---------------------------------------------------------------- what a layer reads

CONVOLUTIONS = {
    "plain": nn.Conv2d(4, 6, 3),
    "padded": nn.Conv2d(4, 6, 3, stride=2, padding=1),
    "grouped": nn.Conv2d(4, 6, 3, groups=2, padding=1),
    "depthwise": nn.Conv2d(4, 8, 3, groups=4),
    "dilated": nn.Conv2d(4, 6, (3, 1), dilation=2, padding=(2, 0)),
    "same": nn.Conv2d(4, 6, 4, padding="same"),
    "line": nn.Conv1d(4, 6, 3, stride=2, padding=2),
    "volume": nn.Conv3d(4, 6, 2),
}


@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_inputs_times_weights_are_outputs(kind: str) -> None:
    """inputs · Wᵀ at some places are what the convolution gives there."""
    conv = CONVOLUTIONS[kind]
    assert isinstance(conv, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    x = torch.randn(3, 4, *[7] * (conv.weight.dim() - 2))
    with torch.no_grad():
        output = conv(x)
    args = {
        "padding": conv.padding,
        "stride": conv.stride,
        "dilation": conv.dilation,
        "groups": conv.groups,
    }
    places = torch.arange(0, positions(output, True), 5)
    seen = inputs_at(args, x, conv.weight, output, places)
    rows = conv.weight.detach().reshape(conv.groups, -1, seen.shape[2])
    assert conv.bias is not None
    product = torch.einsum("ngi,gri->ngr", seen, rows).flatten(1) + conv.bias.detach()
    assert torch.allclose(product, outputs_at(output, places, True), atol=1e-5)


# ---------------------------------------------------------------- in a run


def test_a_run_shows_pruned_and_reconstructed() -> None:
    recipe = Recipe(sparsity=0.5, granularity="channel", epochs=1, reconstruct=True)
    history = list(pruning.run(recipe, toy("residual")))
    stages = [event.stage for event in history if isinstance(event, events.Measured)]
    assert stages == ["dense", "pruned", "reconstructed", "final"]
    finished = history[-1]
    assert isinstance(finished, events.Finished)
    assert finished.pruned and finished.reconstructed
    dense, pruned, again = finished.dense.loss, finished.pruned.loss, finished.reconstructed.loss
    assert dense and pruned and again
    assert abs(again - dense) < abs(pruned - dense)


def test_without_fine_tuning_the_reconstructed_model_is_the_final_one() -> None:
    history = list(pruning.run(Recipe(sparsity=0.5, reconstruct=True), toy("mlp")))
    stages = [event.stage for event in history if isinstance(event, events.Measured)]
    assert stages == ["dense", "pruned", "final"]
    assert isinstance(history[-1], events.Finished) and history[-1].reconstructed is None


def test_the_same_recipe_gives_the_same_numbers() -> None:
    recipe = Recipe(sparsity=0.5, granularity="channel", reconstruct=True, seed=3)
    first, second = [list(pruning.run(recipe, toy("residual")))[-1] for _ in range(2)]
    assert isinstance(first, events.Finished) and isinstance(second, events.Finished)
    assert first.final.loss == second.final.loss


def test_several_steps_aim_at_the_network_as_it_was_trained() -> None:
    """Two steps without training end about where one ends: errors do not pile up."""
    once = Recipe(sparsity=0.5, scope="per_layer", granularity="channel", reconstruct=True)
    twice = replace(once, steps=2, schedule="linear")
    losses = []
    for recipe in (once, twice):
        finished = list(pruning.run(recipe, toy("residual")))[-1]
        assert isinstance(finished, events.Finished) and finished.final.loss is not None
        losses.append(finished.final.loss)
    assert losses[1] < 1.2 * losses[0]


def test_it_is_never_recalibrated_afterwards() -> None:
    with pytest.raises(RecipeError, match="both on"):
        Recipe(reconstruct=True, recalibrate=True)


def test_what_cannot_be_reconstructed_is_said() -> None:
    """A weight that is used twice cannot be solved for one of its uses."""
    work = toy("tied")
    recipe = Recipe(sparsity=0.5, reconstruct=True)
    history = list(pruning.run(recipe, work))
    (event,) = [event for event in history if isinstance(event, events.Reconstructed)]
    assert event.left == ("a.weight",)
    notices = [event.text for event in history if isinstance(event, events.Notice)]
    assert any("a.weight" in text and "more than once" in text for text in notices)


class Branching(nn.Module):
    """Its way depends on values, so that it cannot be recorded."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(5, 6)
        self.b = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        if float(x.sum()) > 0:
            x = x.relu()
        out: Tensor = self.b(x)
        return out


def test_a_model_that_cannot_be_followed_is_pruned_and_said() -> None:
    work = replace(toy("mlp"), model=Branching().eval())
    history = list(pruning.run(Recipe(sparsity=0.5, reconstruct=True), work))
    notices = [event.text for event in history if isinstance(event, events.Notice)]
    assert any(text.startswith("Nothing was reconstructed") for text in notices)
    assert isinstance(history[-1], events.Finished)
    with pytest.raises(NotCaptured):
        done(work, Recipe(sparsity=0.5))


def test_it_needs_training_examples() -> None:
    work = toy("mlp")
    with pytest.raises(DataError, match="Reconstruction needs train data"):
        list(pruning.run(Recipe(reconstruct=True), replace(work, train=None)))
    one = Batches(torch.zeros(1, 5), torch.zeros(1).long())
    with pytest.raises(DataError, match="at least 2"):
        reconstruct(copy.deepcopy(work.model), work.model, {}, one)


def test_it_stops_when_asked() -> None:
    work = toy("residual")
    recipe = Recipe(sparsity=0.5, granularity="channel")
    model, masks = pruned_copy(work, recipe)
    assert work.train
    with pytest.raises(Stopped):
        reconstruct(model, work.model, masks, work.train, work.example, stop=lambda: True)


def test_few_examples_are_run_where_many_would_not_fit(monkeypatch) -> None:
    work = toy("residual")
    monkeypatch.setattr("pruning.training.reconstruct.LIVE_BYTES", 60_000)
    _, _, report = done(work, Recipe(sparsity=0.5, granularity="channel"))
    assert 2 <= report.examples < 48


def test_labels_are_not_looked_at() -> None:
    work = toy("residual")
    assert work.train and work.example is not None
    recipe = Recipe(sparsity=0.5, granularity="channel")
    other = replace(work.train, y=torch.zeros_like(work.train.y))
    models = []
    for data in (work.train, other):
        model, masks = pruned_copy(work, recipe)
        reconstruct(model, work.model, masks, data, inputs(work.example)[0])
        models.append(model.state_dict())
    assert same(dict(models[0]), dict(models[1]))


# ---------------------------------------------------------------- the criterion


def test_a_channel_whose_double_is_kept_costs_nothing() -> None:
    """Inputs a, b, a: either a can be done without, then b costs less than the last a."""
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 500, generator=generator).double()
    x = torch.stack([a, b, a], 1)
    gram = x.T @ x + 1e-6 * torch.eye(3)
    scores = greedy(torch.tensor([[2.0, 1.0, 2.0]]), gram, 1)
    assert min(scores[0], scores[2]) == pytest.approx(0, abs=1e-6)
    assert scores[1] < max(scores[0], scores[2])


@pytest.mark.parametrize("size", [1, 4])
def test_the_first_channel_is_the_one_that_solving_anew_misses_least(size: int) -> None:
    """By the slow way: leave each channel out, solve all others, sum the squared error."""
    generator = torch.Generator().manual_seed(size)
    channels, rows = 5, 3
    x = torch.randn(200, channels * size, generator=generator).double()
    w = torch.randn(rows, channels * size, generator=generator).double()
    gram = x.T @ x
    scores = greedy(w, gram, size)
    slow = []
    for channel in range(channels):
        others = [i for i in range(channels * size) if i // size != channel]
        solved = torch.linalg.lstsq(x[:, others], x @ w.T).solution
        slow.append(float((x @ w.T - x[:, others] @ solved).square().sum()) / 2)
    first = int(scores.argmin())
    assert first == min(range(channels), key=slow.__getitem__)
    outputs = float((x @ w.T).square().sum()) / 2
    assert float(scores[first]) == pytest.approx(slow[first] / outputs, rel=1e-6)


def test_the_others_are_solved_before_the_next_is_chosen() -> None:
    """The last two of a greedy order leave what solving without the first ones misses."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(300, 6, generator=generator).double()
    w = torch.randn(2, 6, generator=generator).double()
    scores = greedy(w, x.T @ x, 1)
    order = scores.argsort().tolist()
    errors = [0.0]
    for count in range(1, 5):
        kept = sorted(order[count:])
        solved = torch.linalg.lstsq(x[:, kept], x @ w.T).solution
        errors.append(float((x @ w.T - x[:, kept] @ solved).square().sum()) / 2)
    outputs = float((x @ w.T).square().sum()) / 2
    rises = [(b - a) / outputs for a, b in itertools.pairwise(errors)]
    for turn in range(len(rises)):
        # Never below an earlier one, so that the order outlasts pruning the lowest scores.
        assert float(scores[order[turn]]) == pytest.approx(max(rises[: turn + 1]), rel=1e-5)


def test_a_layers_readers_say_which_of_its_channels_matter() -> None:
    """Channels of "0" are scored by the layer that reads them, not by their own weights."""
    work = toy("mlp")
    recipe = Recipe(criterion="reconstruction", granularity="channel", sparsity=0.5)
    masks = pruning.choose(recipe, work)
    with torch.no_grad():
        first = work.model.get_parameter("0.weight")
        first.mul_(3)  # the same answers after the ReLU's reader is scaled back
        work.model.get_parameter("0.bias").mul_(3)
        work.model.get_parameter("2.weight").div_(3)
    again = pruning.choose(recipe, work)
    assert same(dict(masks), dict(again))
