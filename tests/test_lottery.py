"""Lottery tickets: what is put back is bit for bit what was there, and controls differ from the ticket in just one thing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from importlib import import_module
from typing import Any

import pytest
import torch
from torch import nn

import pruning
from pruning import events, masks
from pruning.cli import text
from pruning.errors import OutOfRange, RecipeError, UnknownName
from pruning.recipe import Recipe
from pruning.training import controls
from pruning.training.finetune import finetune
from pruning.types import Masks, Workpiece, prunable
from tests.toys import toy

TICKET: dict[str, Any] = {
    "start": "random",
    "lr": 0.05,
    "rewind": "init",
    "schedule": "geometric",
    "sparsity": 0.7,
    "steps": 3,
    "epochs": 2,
}


class Watched:
    """Every training of a run: the weights it began with, its masks, and what it was told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun: list[tuple[dict[str, torch.Tensor], Masks, dict[str, Any]]] = []

        def watch(work: Workpiece, keep: Masks, recipe: Recipe, **more: Any) -> Iterator[Any]:
            self.begun.append((controls.snapshot(work.model), keep, more))
            return finetune(work, keep, recipe, **more)

        monkeypatch.setattr(import_module("pruning.pipeline"), "finetune", watch)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> Watched:
    return Watched(monkeypatch)


def told(recipe: Recipe, name: str = "mlp") -> list[events.Event]:
    return list(pruning.run(recipe, toy(name)))


def tickets(said: list[events.Event], kind: str = "ticket") -> list[events.Ticket]:
    return [event for event in said if isinstance(event, events.Ticket) and event.kind == kind]


@pytest.mark.parametrize("name", ["mlp", "residual"])
def test_rewinding_puts_the_first_weights_back_bit_for_bit_where_they_are_kept(
    name: str, watched: Watched
) -> None:
    told(Recipe(**TICKET), name)
    (first, dense, _), *rounds = watched.begun
    assert len(rounds) == 3 and all(keep.all() for keep in dense.values())
    for state, keep, _ in rounds:
        for layer, value in state.items():
            mask = keep.get(layer, torch.ones_like(value, dtype=torch.bool))
            assert torch.equal(value[mask], first[layer][mask])  # statistics of BatchNorm too
            assert value[~mask].count_nonzero() == 0
    counts = [sum(int(keep[n].sum()) for n in keep) for _, keep, _ in rounds]
    assert counts == sorted(counts, reverse=True)


def test_late_rewinding_goes_back_to_the_weights_after_step_k(watched: Watched) -> None:
    recipe = Recipe(
        **{**TICKET, "rewind": "early"}, rewind_step=2, batch=16
    )  # 48 examples: 3 steps an epoch
    told(recipe)
    first = watched.begun[0][0]
    work = toy("mlp")
    work.model.load_state_dict(first)
    again = finetune(work, masks.dense(work.model), recipe, step=0, remember=2)
    early = returned(again)
    assert early is not None and not torch.equal(early["0.weight"], first["0.weight"])
    for state, keep, more in watched.begun[1:]:
        assert all(torch.equal(state[n][keep[n]], early[n][keep[n]]) for n in keep)
        assert more["begin"] == 2


def returned(steps: Any) -> Any:
    """What a generator returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value


def test_learning_rate_rewinding_keeps_the_weights_and_trains_again(watched: Watched) -> None:
    recipe = Recipe(
        sparsity=0.5,
        steps=2,
        epochs=2,
        schedule="linear",
        rewind="learning_rate",
        rewind_step=3,
        batch=16,
    )
    said = told(recipe)
    found = toy("mlp").model.state_dict()
    state, keep, more = watched.begun[0]
    assert (
        len(watched.begun) == 2 and more["begin"] == 3
    )  # the weights are trained already: no first training
    assert all(torch.equal(state[n][keep[n]], found[n][keep[n]]) for n in keep)
    rates = [(e.epoch, e.lr) for e in said if isinstance(e, events.Epoch)]
    assert rates == [
        (2, pytest.approx(recipe.lr / 2)),
        (2, pytest.approx(recipe.lr / 2)),
    ]  # the second half of a cosine


def test_training_resumed_in_the_middle_is_the_rest_of_the_whole() -> None:
    recipe = Recipe(epochs=3, batch=16, lr=0.05)
    whole = toy("residual")
    middle = returned(finetune(whole, {}, recipe, remember=4))
    rest = toy("residual")
    rest.model.load_state_dict(middle)
    plain = Recipe(
        epochs=3, batch=16, lr=0.05, momentum=0.0
    )  # momentum is not remembered: without it the two agree bit for bit
    whole, middle = toy("residual"), returned(finetune(toy("residual"), {}, plain, remember=4))
    rest.model.load_state_dict(middle)
    returned(finetune(whole, {}, plain))
    returned(finetune(rest, {}, plain, begin=4))
    ends = [controls.snapshot(work.model) for work in (whole, rest)]
    assert all(torch.equal(ends[0][n], ends[1][n]) for n in ends[0])


def test_controls_differ_from_the_ticket_in_one_thing_each(watched: Watched) -> None:
    said = told(Recipe(**TICKET, controls=("reinit", "random_mask")))
    first, rounds = watched.begun[0][0], watched.begun[1:]
    assert [more.get("branch", "") for _, _, more in rounds] == ["", "reinit", "random_mask"] * 3
    for i in range(0, 9, 3):
        (_, mask, _), (other, same, _), (state, lot, _) = rounds[i : i + 3]
        layers = [n for n in mask if mask[n].dim() > 1]
        assert all(torch.equal(mask[n], same[n]) for n in layers)
        assert all((other[n][mask[n]] != first[n][mask[n]]).any() for n in layers)
        assert all(other[n][~mask[n]].count_nonzero() == 0 for n in layers)
        assert {n: int(lot[n].sum()) for n in layers} == {n: int(mask[n].sum()) for n in layers}
        assert any(not torch.equal(lot[n], mask[n]) for n in layers)
        assert all(torch.equal(state[n][lot[n]], first[n][lot[n]]) for n in layers)
    assert {
        kind: len(tickets(said, kind)) for kind in ("dense", "ticket", "reinit", "random_mask")
    } == {
        "dense": 1,
        "ticket": 3,
        "reinit": 3,
        "random_mask": 3,
    }


def test_one_shot_trains_what_the_dense_network_would_have_kept_at_once(watched: Watched) -> None:
    recipe = Recipe(**TICKET, controls=("one_shot",))
    told(recipe)
    first, rounds = watched.begun[0][0], watched.begun[1:]
    work = toy("mlp")
    work.model.load_state_dict(first)
    returned(finetune(work, masks.dense(work.model), recipe, step=0))
    for step in (1, 2, 3):
        (_, ticket, _), (state, shot, more) = rounds[2 * step - 2 : 2 * step]
        share = (1 - 0.3 ** (step / 3)) / 0.7
        wanted = pruning.choose(recipe, work, share=share)
        assert more["branch"] == "one_shot" and all(torch.equal(shot[n], wanted[n]) for n in wanted)
        assert all(torch.equal(state[n][shot[n]], first[n][shot[n]]) for n in wanted)
        if step == 1:  # later rounds may differ: they look at tickets that were trained in between
            assert all(torch.equal(shot[n], ticket[n]) for n in wanted)


def test_controls_leave_the_ticket_as_it_is() -> None:
    alone, beside = (
        tickets(told(Recipe(**TICKET))),
        tickets(told(Recipe(**TICKET, controls=("random_mask", "one_shot", "reinit")))),
    )
    assert alone == beside


@pytest.mark.parametrize("granularity", ["channel", "n_of_m", "block", "kernel"])
def test_random_masks_keep_as_many_units_of_each_layer(granularity: str) -> None:
    work = toy("residual" if granularity != "n_of_m" else "mlp")
    recipe = Recipe(granularity=granularity, sparsity=0.4)
    gone = pruning.choose(recipe, work)
    lot = controls.by_lot(recipe, work, gone, 1)
    assert gone.keys() == lot.keys()
    if (
        granularity != "block"
    ):  # blocks at the edge are smaller: as many blocks, not as many weights
        assert {n: int(k.sum()) for n, k in lot.items()} == {
            n: int(k.sum()) for n, k in gone.items()
        }


def test_tickets_say_what_they_keep_and_share() -> None:
    said = told(Recipe(**TICKET))
    total = sum(w.numel() for w in prunable(toy("mlp").model).values())
    found = tickets(said)
    assert [t.kept for t in found] == [
        total - round(total * 0.7 * s) for s in ((1 - 0.3 ** (r / 3)) / 0.7 for r in (1, 2, 3))
    ]
    assert found[0].shared == 1.0  # the first round is one shot at its sparsity
    before = [total, *(t.kept for t in found)]
    assert [t.overlap for t in found] == [
        pytest.approx(a / b) for b, a in itertools.pairwise(before)
    ]  # masks are nested
    end = said[-1]
    assert isinstance(end, events.Finished)
    assert (
        end.final.accuracy == found[-1].accuracy
        and end.dense.accuracy == tickets(said, "dense")[0].accuracy
    )


def test_a_lottery_repeats_leaves_the_model_alone_and_counts_its_epochs() -> None:
    recipe = Recipe(
        **TICKET, controls=("reinit", "random_mask"), optimizer="adam", decay="constant"
    )
    work = toy("residual")
    before = controls.snapshot(work.model)
    first, again = list(pruning.run(recipe, work)), list(pruning.run(recipe, work))
    assert tickets(first) == tickets(again) and tickets(first, "reinit") == tickets(again, "reinit")
    after = work.model.state_dict()
    assert all(torch.equal(before[n], after[n]) for n in before)
    trained = [e for e in first if isinstance(e, events.Epoch)]
    assert isinstance(first[0], events.Started) and first[0].epochs == len(trained) == 2 * (
        1 + 3 * 3
    )
    assert {e.lr for e in trained} == {recipe.lr}
    assert all(events.from_json(events.to_json(e)) == e for e in first)


def test_a_shell_tells_tickets_from_controls() -> None:
    said = [text.event(event) for event in told(Recipe(**TICKET, controls=("reinit",)))]
    assert any(line.startswith("ticket      round 3 of 3: ") for line in said)
    assert any(line.startswith("reinit      round 3 of 3: ") for line in said)
    assert sum("of the control reinit: training loss" in line for line in said) == 6


def test_masks_overlap_by_hand() -> None:
    a = {"w": torch.tensor([True, True, False, False]), "b": torch.tensor([True])}
    b = {"w": torch.tensor([True, False, True, False]), "b": torch.tensor([False])}
    assert controls.overlap(a, b, ["w"]) == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("fields", "error", "said"),
    [
        (
            {"rewind": "init", "epochs": 2},
            RecipeError,
            "those of a trained model are gone: set start to random",
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
    fields: dict[str, Any], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        Recipe(**fields)


def test_a_step_past_the_end_of_training_is_refused() -> None:
    with pytest.raises(OutOfRange, match=r"rewind_step is 500, but must be below 6"):
        told(Recipe(**{**TICKET, "rewind": "early"}, rewind_step=500, batch=16))


def test_weights_drawn_anew_are_the_seeds() -> None:
    work = toy("attention")
    one, again, other = (controls.drawn(work.model, seed).state_dict() for seed in (1, 1, 2))
    assert all(torch.equal(one[n], again[n]) for n in one)
    assert not torch.equal(one["head.weight"], other["head.weight"])
    assert isinstance(work.model, nn.Module) and not torch.equal(
        work.model.get_parameter("head.weight"), one["head.weight"]
    )
