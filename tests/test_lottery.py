"""Lottery tickets: rewinding is exact, and controls differ from the ticket in one thing."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

import pruning
from dashboard.charts import lottery as lottery_charts
from pruning import events, masks
from pruning.cli import text
from pruning.errors import OutOfRange, RecipeError, UnknownName
from pruning.recipe import Recipe
from pruning.runs.results import PackedMask, overlap_of
from pruning.stats import Overlap
from pruning.training import controls, rewind
from pruning.training.finetune import finetune
from pruning.types import Masks, Workpiece, prunable
from tests.toys import same, toy

TICKET: dict[str, Any] = {
    "start": "random",
    "lr": 0.05,
    "rewind": "init",
    "schedule": "geometric",
    "sparsity": 0.7,
    "steps": 3,
    "epochs": 2,
}


class Training(NamedTuple):
    """How one training of a run began."""

    state: dict[str, torch.Tensor]
    keep: Masks
    options: dict[str, Any]  # of finetune


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[Training]:
    """Every training of the runs to come, in order."""
    record: list[Training] = []

    def recorded(work: Workpiece, keep: Masks, recipe: Recipe, **options: Any) -> Iterator[Any]:
        record.append(Training(rewind.state_of(work.model), keep, options))
        return finetune(work, keep, recipe, **options)

    monkeypatch.setattr(import_module("pruning.pipeline"), "finetune", recorded)
    return record


def history(recipe: Recipe, name: str = "mlp") -> list[events.Event]:
    return list(pruning.run(recipe, toy(name)))


def tickets(history: list[events.Event], kind: str = "ticket") -> list[events.Ticket]:
    return [event for event in history if isinstance(event, events.Ticket) and event.kind == kind]


def counts(keep: Masks, names: Iterable[str]) -> dict[str, int]:
    """Weights kept in each layer."""
    return {name: int(keep[name].sum()) for name in names}


@pytest.mark.parametrize("name", ["mlp", "residual"])
def test_rewinding_puts_the_first_weights_back_bit_for_bit_where_they_are_kept(
    name: str, trainings: list[Training]
) -> None:
    history(Recipe(**TICKET), name)
    dense, *rounds = trainings
    assert len(rounds) == 3
    assert all(mask.all() for mask in dense.keep.values())
    for each in rounds:
        for layer, value in each.state.items():  # statistics of BatchNorm too
            mask = each.keep.get(layer, torch.ones_like(value, dtype=torch.bool))
            assert torch.equal(value[mask], dense.state[layer][mask])
            assert value[~mask].count_nonzero() == 0
    kept = [sum(counts(each.keep, each.keep).values()) for each in rounds]
    assert kept == sorted(kept, reverse=True)


def test_late_rewinding_restores_the_weights_after_step_k(trainings: list[Training]) -> None:
    # 48 examples: 3 steps an epoch.
    recipe = Recipe(**{**TICKET, "rewind": "early"}, rewind_step=2, batch=16)
    history(recipe)
    first = trainings[0].state
    work = toy("mlp")
    work.model.load_state_dict(first)
    early = returned(finetune(work, masks.dense(work.model), recipe, step=0, remember=2))
    assert early is not None
    assert not torch.equal(early["0.weight"], first["0.weight"])
    for each in trainings[1:]:
        assert equal_where_kept(each, early)
        assert each.options["begin"] == 2


def equal_where_kept(training: Training, state: dict[str, torch.Tensor]) -> bool:
    keep = training.keep
    return all(
        torch.equal(training.state[name][keep[name]], state[name][keep[name]]) for name in keep
    )


def returned(generator: Any) -> Any:
    """What a generator returns."""
    while True:
        try:
            next(generator)
        except StopIteration as stop:
            return stop.value


def test_learning_rate_rewinding_keeps_the_weights_and_trains_again(
    trainings: list[Training],
) -> None:
    recipe = Recipe(
        sparsity=0.5,
        steps=2,
        epochs=2,
        schedule="linear",
        rewind="learning_rate",
        rewind_step=3,
        batch=16,
    )
    epochs = [event for event in history(recipe) if isinstance(event, events.Epoch)]
    assert len(trainings) == 2  # the weights are trained already: no first training
    assert trainings[0].options["begin"] == 3
    assert equal_where_kept(trainings[0], toy("mlp").model.state_dict())
    # The second half of a cosine, twice.
    assert [epoch.epoch for epoch in epochs] == [2, 2]
    assert [epoch.lr for epoch in epochs] == [pytest.approx(recipe.lr / 2)] * 2


def test_training_resumed_in_the_middle_is_the_rest_of_the_whole() -> None:
    # Momentum is not remembered: without it the two agree bit for bit.
    recipe = Recipe(epochs=3, batch=16, lr=0.05, momentum=0.0)
    middle = returned(finetune(toy("residual"), {}, recipe, remember=4))
    whole = toy("residual")
    returned(finetune(whole, {}, recipe))
    rest = toy("residual")
    rest.model.load_state_dict(middle)
    returned(finetune(rest, {}, recipe, begin=4))
    assert same(rewind.state_of(whole.model), rewind.state_of(rest.model))


def test_controls_differ_from_the_ticket_in_one_thing_each(trainings: list[Training]) -> None:
    events_of_run = history(Recipe(**TICKET, controls=("reinit", "random_mask")))
    first = trainings[0].state
    rounds = trainings[1:]
    branches = [each.options.get("branch", "") for each in rounds]
    assert branches == ["", "reinit", "random_mask"] * 3
    for i in range(0, 9, 3):
        ticket, reinit, random_mask = rounds[i : i + 3]
        layers = [name for name, mask in ticket.keep.items() if mask.dim() > 1]
        for name in layers:
            mask = ticket.keep[name]
            # The same mask on other first weights.
            assert torch.equal(mask, reinit.keep[name])
            assert (reinit.state[name][mask] != first[name][mask]).any()
            assert reinit.state[name][~mask].count_nonzero() == 0
            # Another mask, as large, on the same first weights.
            other = random_mask.keep[name]
            assert other.sum() == mask.sum()
            assert torch.equal(random_mask.state[name][other], first[name][other])
        assert any(not torch.equal(random_mask.keep[name], ticket.keep[name]) for name in layers)
    assert len(tickets(events_of_run, "dense")) == 1
    for kind in ("ticket", "reinit", "random_mask"):
        assert len(tickets(events_of_run, kind)) == 3


def test_one_shot_trains_what_the_dense_network_would_have_kept_at_once(
    trainings: list[Training],
) -> None:
    recipe = Recipe(**TICKET, controls=("one_shot",))
    history(recipe)
    first = trainings[0].state
    rounds = trainings[1:]
    work = toy("mlp")
    work.model.load_state_dict(first)
    returned(finetune(work, masks.dense(work.model), recipe, step=0))
    for step in (1, 2, 3):
        ticket, one_shot = rounds[2 * step - 2 : 2 * step]
        assert one_shot.options["branch"] == "one_shot"
        share = (1 - 0.3 ** (step / 3)) / 0.7
        assert same(one_shot.keep, pruning.choose(recipe, work, share=share))
        assert equal_where_kept(one_shot, first)
        if step == 1:  # later rounds may differ: they look at tickets that were trained in between
            assert same(one_shot.keep, ticket.keep)


def test_controls_leave_the_ticket_as_it_is() -> None:
    alone = tickets(history(Recipe(**TICKET)))
    kinds = ("random_mask", "one_shot", "reinit")
    assert tickets(history(Recipe(**TICKET, controls=kinds))) == alone


@pytest.mark.parametrize("granularity", ["channel", "n_of_m", "block", "kernel"])
def test_random_masks_keep_as_many_units_of_each_layer(granularity: str) -> None:
    work = toy("mlp" if granularity == "n_of_m" else "residual")
    recipe = Recipe(granularity=granularity, sparsity=0.4)
    keep = pruning.choose(recipe, work)
    random_mask = controls.random_masks(recipe, work, keep, 1)
    assert keep.keys() == random_mask.keys()
    # Blocks at the edge are smaller: as many blocks, not as many weights.
    if granularity != "block":
        assert counts(random_mask, keep) == counts(keep, keep)


def test_tickets_say_what_they_keep_and_share() -> None:
    run = history(Recipe(**TICKET))
    total = sum(w.numel() for w in prunable(toy("mlp").model).values())
    rounds = tickets(run)
    shares = [(1 - 0.3 ** (step / 3)) / 0.7 for step in (1, 2, 3)]
    assert [ticket.kept for ticket in rounds] == [total - round(total * 0.7 * s) for s in shares]
    assert rounds[0].shared == 1.0  # the first round is one shot at its sparsity
    # Masks are nested: the overlap with the mask before is the share of it that is kept.
    kept = [total, *(ticket.kept for ticket in rounds)]
    ratios = [after / before for before, after in itertools.pairwise(kept)]
    assert [ticket.overlap for ticket in rounds] == pytest.approx(ratios)
    finished = run[-1]
    assert isinstance(finished, events.Finished)
    assert finished.final.accuracy == rounds[-1].accuracy
    assert finished.dense.accuracy == tickets(run, "dense")[0].accuracy


def test_a_lottery_repeats_leaves_the_model_alone_and_counts_its_epochs() -> None:
    training = {"optimizer": "adam", "decay": "constant"}
    recipe = Recipe(**TICKET, controls=("reinit", "random_mask"), **training)
    work = toy("residual")
    before = rewind.state_of(work.model)
    first = list(pruning.run(recipe, work))
    second = list(pruning.run(recipe, work))
    for kind in ("ticket", "reinit"):
        assert tickets(first, kind) == tickets(second, kind)
    assert same(before, dict(work.model.state_dict()))
    epochs = [event for event in first if isinstance(event, events.Epoch)]
    assert isinstance(first[0], events.Started)
    # Two epochs of the dense model, and in each of three rounds of the ticket and two controls.
    assert first[0].epochs == len(epochs) == 2 * (1 + 3 * 3)
    assert {epoch.lr for epoch in epochs} == {recipe.lr}
    assert all(events.from_json(events.to_json(event)) == event for event in first)


def test_the_command_line_names_tickets_and_controls() -> None:
    lines = [text.event(event) for event in history(Recipe(**TICKET, controls=("reinit",)))]
    assert any(line.startswith("ticket      round 3 of 3: ") for line in lines)
    assert any(line.startswith("reinit      round 3 of 3: ") for line in lines)
    assert sum("of the control reinit: training loss" in line for line in lines) == 6


def test_masks_overlap_by_hand() -> None:
    a = {"w": torch.tensor([True, True, False, False]), "b": torch.tensor([True])}
    b = {"w": torch.tensor([True, False, True, False]), "b": torch.tensor([False])}
    assert masks.overlap_of(a, b, ["w"]) == Overlap(pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert masks.overlap_of(a, b, ["b"]) == Overlap(0.0, 0.0)
    assert masks.overlap_of(a, b, []) is None


def test_every_overlap_has_one_baseline_layer_by_layer() -> None:
    """By the whole model's share, layers that are kept at different rates looked like skill."""
    of_runs: list[dict[str, PackedMask]] = []
    of_seeds: list[Masks] = []
    for seed in (0, 1):
        recipe = Recipe(**TICKET, seed=seed)
        final: Masks = {}

        def keep(model: object, last: Masks, final: Masks = final) -> None:
            final.update(last)

        rounds = tickets(list(pruning.run(recipe, toy("mlp"), keep=keep)))
        of_seeds.append(final)
        packed = {
            name: PackedMask(np.packbits(mask.numpy()), tuple(mask.shape))
            for name, mask in final.items()
        }
        of_runs.append(packed)
        for ticket in rounds:
            assert ticket.shared is not None and ticket.shared_at_random is not None
            assert 0 < ticket.shared_at_random < ticket.shared <= 1
    names = [name for name, mask in of_seeds[0].items() if mask.dim() > 1]
    of_tensors = masks.overlap_of(*of_seeds, names)
    assert of_tensors is not None and of_tensors == overlap_of(*of_runs)
    text = lottery_charts.seed_overlap(of_runs)
    assert text is not None and text.count(" %") == 2
    assert f"{100 * of_tensors.value:.1f} %" in text
    assert f"{100 * of_tensors.at_random:.1f} %" in text


@pytest.mark.parametrize(
    ("fields", "error", "message"),
    [
        (
            {"rewind": "init", "epochs": 2},
            RecipeError,
            "those of a trained model are not known: set start to random",
        ),
        (
            {"rewind": "init", "start": "random"},
            OutOfRange,
            r"epochs is 0, but must be 1 or more where rewind is init",
        ),
        ({"controls": ("reinit",)}, RecipeError, "set rewind to init"),
        (
            {"rewind": "back"},
            UnknownName,
            "no rewind called 'back': known are early, init, learning_rate, none",
        ),
        ({**TICKET, "controls": ("dense",)}, UnknownName, "no control called 'dense'"),
        ({**TICKET, "controls": ("reinit", "reinit")}, RecipeError, "name each once"),
        ({"decay": "step"}, UnknownName, "no decay called 'step'"),
    ],
)
def test_what_cannot_be_rewound_is_refused(
    fields: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        Recipe(**fields)


def test_a_step_past_the_end_of_training_is_refused() -> None:
    with pytest.raises(OutOfRange, match=r"rewind_step is 500, but must be below 6"):
        history(Recipe(**{**TICKET, "rewind": "early"}, rewind_step=500, batch=16))


def test_reinitialised_weights_depend_on_the_seed() -> None:
    model = toy("attention").model
    first, second, other = (controls.reinitialised(model, seed).state_dict() for seed in (1, 1, 2))
    assert same(dict(first), dict(second))
    assert not torch.equal(first["head.weight"], other["head.weight"])
    assert not torch.equal(first["head.weight"], model.get_parameter("head.weight"))
