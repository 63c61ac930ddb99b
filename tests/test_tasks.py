"""Any task with a loss: every path ends, says what is not measured, and refuses what cannot work.

Laws over kinds of task (targets, inputs, outputs, precisions) and what may wrap a model.
"""

from __future__ import annotations

import copy
import itertools
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pruning
from pruning import Batches, Recipe, Workpiece, registry, studies
from pruning.adapted import Adapted, adapted, unadapted
from pruning.analysis.criterion_check import Check, CheckResult, criterion_check
from pruning.errors import DataError, ModelError, PruningError
from pruning.events import Epoch, Finished, Measured, Notice, Ticket, from_json, to_json
from pruning.measurement import evaluate, finalize, take_snapshot
from pruning.metrics import Measurement, Score
from pruning.prepare import prepared, ready, try_out
from pruning.tasks import (
    LABEL_ACCURACY,
    MEAN_ABSOLUTE_ERROR,
    MEAN_IOU,
    PIXEL_ACCURACY,
    Metric,
    class_dimension,
    main_output,
)
from pruning.training.distill import distillation_loss
from pruning.types import parts_of
from tests.long_forms import in_part
from tests.toys import same, snapshot

EXAMPLES = 12


class Pair(nn.Module):
    """Two inputs; outputs by name in eval and training mode alike."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 6)
        self.o = nn.Linear(6, 2)

    def forward(self, x: Tensor, other: Tensor) -> dict[str, Tensor]:
        logits = self.o((self.a(x) - self.a(other)).relu())
        return {"odds": logits.exp(), "logits": logits}


class Auxiliary(nn.Module):
    """One tensor in eval mode, a tuple in training, as Inception has it."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 6)
        self.o = nn.Linear(6, 2)
        self.other = nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        hidden = self.a(x).relu()
        if self.training:
            return self.o(hidden), self.other(hidden)
        return self.o(hidden)  # type: ignore[no-any-return]


def mlp(outputs: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, outputs))


def picture_net() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1)
    )


def work_of(model: nn.Module, x: Any, y: Tensor, **fields: Any) -> Workpiece:
    data = Batches(x, y, batch=6)
    return Workpiece("task", model, train=data, validation=data, test=data, **fields)


def numbers(*shape: int) -> Tensor:
    return torch.randn(EXAMPLES, *shape, generator=torch.Generator().manual_seed(1))


def classes(*shape: int, of: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, of, (EXAMPLES, *shape), generator=generator)


def token_net() -> nn.Sequential:
    return nn.Sequential(nn.Embedding(9, 3), nn.Flatten(), nn.Linear(15, 6), nn.ReLU(), mlp_end())


def mlp_end() -> nn.Linear:
    return nn.Linear(6, 2)


TASKS: dict[str, Callable[[], Workpiece]] = {
    "regression": lambda: work_of(
        mlp(1), numbers(4), numbers(1), loss=F.mse_loss, metric=MEAN_ABSOLUTE_ERROR
    ),
    "several labels": lambda: work_of(
        mlp(3),
        numbers(4),
        classes(3).float(),
        loss=F.binary_cross_entropy_with_logits,
        metric=LABEL_ACCURACY,
    ),
    "segmentation": lambda: work_of(picture_net(), numbers(3, 4, 4), classes(4, 4)),
    "two inputs, a dictionary": lambda: work_of(
        Pair(), (numbers(4), numbers(4).flip(0)), classes()
    ),
    "token ids": lambda: work_of(token_net(), classes(5, of=9), classes()),
    "bfloat16": lambda: work_of(mlp().bfloat16(), numbers(4), classes()),
    "float16 pictures": lambda: work_of(
        nn.Sequential(picture_net(), nn.Flatten(), nn.Linear(32, 2)).half(),
        numbers(3, 4, 4).half(),
        classes(),
    ),
    "float64 data": lambda: work_of(
        mlp(1), numbers(4).double(), numbers(1).double(), loss=F.mse_loss
    ),
}
"""Name -> a small task."""


@pytest.fixture(autouse=True)
def untimed(monkeypatch: pytest.MonkeyPatch) -> None:
    """No run waits for its timings: they are the same for every task, and take seconds."""
    monkeypatch.setattr(pruning.measurement, "BATCHES", ())


def task(name: str) -> Workpiece:
    torch.manual_seed(0)
    return TASKS[name]()


def finished(recipe: Recipe, work: Workpiece) -> tuple[Finished, list[Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        events = list(pruning.run(recipe, work))
    assert isinstance(events[-1], Finished)
    return events[-1], events


# ---------------------------------------------------------------- every path ends


NAMES = [*TASKS]
CROSSED = [*itertools.product(registry.names("criterion"), NAMES)]
IN_TURN = [
    (criterion, NAMES[(turn + more) % len(NAMES)])
    for turn, criterion in enumerate(registry.names("criterion"))
    for more in (0, 3)
]
"""Each criterion with two kinds of tasks, and each kind with several criteria."""


@pytest.mark.parametrize(("criterion", "name"), in_part(CROSSED, IN_TURN))
def test_every_criterion_prunes_every_kind_of_task(criterion: str, name: str) -> None:
    """From start to Finished; or, before anything is trained, our own sentence that says why."""
    work = task(name)
    channels = registry.misfit(criterion, "weight") is not None
    options = {"steps": 20} if criterion == "movement" else {}
    recipe = Recipe(
        criterion=criterion,
        options=options,
        granularity="channel" if channels else "weight",
        scope="per_layer",
        sparsity=0.4,
    )
    before = snapshot(work.model)
    try:
        end, _ = finished(recipe, work)
    except PruningError as error:
        no_path = name in ("two inputs, a dictionary", "token ids") and criterion == "synflow"
        no_norm = criterion == "bn_scale"
        assert no_path or no_norm, str(error)
        return
    assert end.sparsity > 0
    assert same(before, snapshot(work.model))


PATHS = {
    "steps": Recipe(sparsity=0.5, steps=2, schedule="linear", epochs=1, batch=6),
    "distilled": Recipe(sparsity=0.5, epochs=1, batch=6, distill=0.5),
    "reconstructed": Recipe(sparsity=0.5, reconstruct=True),
    "recalibrated": Recipe(sparsity=0.5, recalibrate=True),
    "lottery": Recipe(
        sparsity=0.5, epochs=1, batch=6, rewind="init", start="random", controls=("reinit",)
    ),
    "by_sensitivity": Recipe(sparsity=0.5, scope="by_sensitivity"),
}


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("path", PATHS)
def test_every_path_ends_for_every_kind_of_task(path: str, name: str) -> None:
    _, events = finished(PATHS[path], task(name))
    for event in events:
        assert to_json(from_json(to_json(event))) == to_json(event)


@pytest.mark.parametrize("name", ["regression", "two inputs, a dictionary", "float16 pictures"])
def test_compact_models_are_finetuned_and_measured(name: str) -> None:
    recipe = Recipe(
        sparsity=0.4,
        granularity="channel",
        scope="per_layer",
        epochs=1,
        batch=6,
        finetune_compact=True,
    )
    work = task(name)
    compact: list[nn.Module] = []
    events = list(pruning.run(recipe, work, keep_compact=lambda model, _: compact.append(model)))
    end = events[-1]
    assert isinstance(end, Finished) and end.compact is not None
    assert end.compact.loss == pytest.approx(end.final.loss, rel=1e-2)
    assert not isinstance(compact[0], Adapted)
    if name == "two inputs, a dictionary":  # what is handed out gives what the model gave
        assert set(compact[0](*work.test.head(2).x)) == {"odds", "logits"}  # type: ignore[union-attr]


@pytest.mark.parametrize("name", TASKS)
def test_maps_checks_and_studies_of_every_kind_of_task(name: str) -> None:
    work = task(name)
    for tier in ("estimate", "progressive", "exact"):
        points = list(pruning.sensitivity(work, levels=(0.5,), tier=tier))
        assert points and all(point.final for point in points)
    checked = list(criterion_check(work, Check(units=3), {"magnitude": {}}, examples=6))
    assert isinstance(checked[-1], CheckResult)
    for what in ("card", "weights", "scores", "reconstruction"):
        spec = {"what": what, "model": "task", "criterion": "magnitude", "sparsity": 0.5}
        assert studies.make(spec, work)[0]["what"] == what


def test_data_give_the_example_that_nobody_gave() -> None:
    for name in TASKS:
        work = task(name)
        assert work.train is not None and work.example is not None
        pairs = zip(parts_of(work.example), parts_of(work.train.x), strict=True)
        assert all(torch.equal(one, x[:1]) and one._base is None for one, x in pairs)
        assert isinstance(work.example, tuple) == isinstance(work.train.x, tuple)
        bare = replace(work, train=None, validation=None)
        assert bare.example is work.example  # another data set asks for no other one
    picture = task("segmentation")
    for split in ("train", "validation", "test"):
        alone = Workpiece("one", picture.model, **{split: picture.test})  # type: ignore[arg-type]
        assert alone.example is not None
    assert Workpiece("none", picture.model).example is None
    end, _ = finished(Recipe(sparsity=0.5, granularity="channel"), picture)
    assert end.final.macs == 16 * (4 * 27 + 2 * 4) and end.compact is not None
    assert end.compact.macs is not None and end.compact.macs < end.final.macs


# ---------------------------------------------------------------- what is measured


def test_a_metric_of_the_tasks_own_takes_the_place_of_accuracy() -> None:
    work = task("regression")
    end, events = finished(Recipe(sparsity=0.5, epochs=1, batch=6), work)
    assert end.final.accuracy is None and end.final.paired is None
    score = end.final.score
    assert score is not None and work.test is not None
    outputs = work.model(work.test.x)
    errors = (outputs - work.test.y).abs().detach()
    dense = end.dense.score
    assert dense is not None and dense.value == pytest.approx(float(errors.mean()), rel=1e-5)
    assert (dense.name, dense.higher_is_better) == ("mean absolute error", False)
    half = 1.959964 * float(errors.std()) / EXAMPLES**0.5
    assert dense.high == pytest.approx(dense.value + half, rel=1e-4)
    change = end.final.score_change
    assert change is not None and change.value == pytest.approx(score.value - dense.value)
    epoch = next(event for event in events if isinstance(event, Epoch))
    assert epoch.accuracy is None and epoch.score is not None
    final = [event for event in events if isinstance(event, Measured)][-1]
    assert final.validation_score == epoch.score
    assert end.final.behaviour is not None and end.final.behaviour.noisy_score is not None


def test_lottery_tickets_have_the_metric() -> None:
    _, events = finished(PATHS["lottery"], task("regression"))
    tickets = [event for event in events if isinstance(event, Ticket)]
    assert tickets and all(ticket.score is not None for ticket in tickets)


def test_what_has_no_meaning_is_not_measured_and_says_why() -> None:
    end, events = finished(Recipe(sparsity=0.5), task("segmentation"))
    assert set(end.final.not_measured) == {"accuracy", "calibration"}
    assert "not one class for each example" in end.final.not_measured["accuracy"]
    assert end.final.behaviour is not None and end.final.behaviour.calibration is None
    assert any("not measured" in e.text for e in events if isinstance(e, Notice))
    tokens, _ = finished(Recipe(sparsity=0.5), task("token ids"))
    assert tokens.final.accuracy is not None and tokens.final.behaviour is not None
    assert tokens.final.behaviour.noisy is None and "noise" in tokens.final.not_measured


def test_results_of_before_are_read() -> None:
    """Fields of metrics came later: stored results lack them."""
    end, _ = finished(Recipe(sparsity=0.5), task("token ids"))
    import json

    data = json.loads(to_json(end))
    for stage in ("dense", "final"):
        for name in ("score", "score_change", "not_measured"):
            del data[stage][name]
        for name in ("train_score", "noisy_score"):
            del data[stage]["behaviour"][name]
    older = from_json(json.dumps(data))
    assert isinstance(older, Finished) and isinstance(older.final, Measurement)
    assert older.final.score is None and older.final.accuracy == end.final.accuracy


@pytest.mark.parametrize(
    ("metric", "outputs", "targets", "value"),
    [
        (LABEL_ACCURACY, [[1.0, -1.0], [2.0, 3.0]], [[1.0, 1.0], [1.0, 1.0]], 0.75),
        (PIXEL_ACCURACY, [[[1.0, 0.0], [0.0, 1.0]]] * 2, [[0, 0], [0, 1]], 0.75),
        (MEAN_IOU, [[[1.0, 0.0], [0.0, 1.0]]] * 2, [[0, 1], [1, 1]], (0.5 + 2 / 3) / 2),
    ],
)
def test_metrics_by_hand(
    metric: Metric, outputs: list[Any], targets: list[Any], value: float
) -> None:
    result = metric.function(torch.tensor(outputs), torch.tensor(targets))
    mean = result.mean() if isinstance(result, Tensor) else result
    assert float(mean) == pytest.approx(value)  # type: ignore[arg-type]


def test_counts_have_wilsons_interval_and_numbers_none() -> None:
    data = Batches(numbers(4), classes())
    counted = Metric("hits", lambda out, y: (9, 12), unit="%")
    quality = evaluate(mlp(), data, F.cross_entropy, counted)
    assert quality.accuracy is None and quality.score is not None
    assert quality.score.text == "75.0 %" and quality.score.low == pytest.approx(0.468, abs=1e-3)
    single = evaluate(mlp(), data, F.cross_entropy, Metric("gap", lambda out, y: 0.5)).score
    assert single == Score("gap", 0.5, EXAMPLES) and single.spread is None


def test_a_metric_that_fails_at_the_end_costs_no_run() -> None:
    calls = []

    def fragile(outputs: Tensor, targets: Tensor) -> float:
        calls.append(len(outputs))
        if len(outputs) > 2:
            raise ValueError("one class alone")
        return 1.0

    end, _ = finished(Recipe(sparsity=0.5), replace(task("token ids"), metric=Metric("f", fragile)))
    assert calls[0] == 2 and end.final.score is None and end.final.loss is not None


def test_distillation_by_hand() -> None:
    """Each pixel is an answer of its own; outputs that are no classes are compared by distance."""
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 2, 2), torch.randn(2, 3, 2, 2)
    pixels = [
        distillation_loss(student[:, :, i, j], teacher[:, :, i, j], 2.0)
        for i in range(2)
        for j in range(2)
    ]
    mean = torch.stack(pixels).mean()
    torch.testing.assert_close(distillation_loss(student, teacher, 2.0, 1), mean)
    distance = (student - teacher).square().mean()
    torch.testing.assert_close(distillation_loss(student, teacher, 2.0, None), distance)
    assert class_dimension(student, torch.zeros(2, 2, 2).long()) == 1
    assert class_dimension(torch.zeros(2, 5, 9), torch.zeros(2, 5).long()) == 2
    assert class_dimension(torch.zeros(2, 3), torch.zeros(2, 3)) is None


# ---------------------------------------------------------------- inputs, outputs, precision


def test_outputs_are_picked_by_name_by_place_or_by_a_function() -> None:
    one, two = torch.zeros(1), torch.ones(1)
    assert main_output({"aux": one, "out": two}) is two
    assert main_output({"first": one, "second": two}) is one
    assert main_output((one, two)) is one and main_output("nothing") is None
    by_hand = work_of(Pair(), (numbers(4), -numbers(4)), classes(), outputs=lambda d: d["logits"])
    end, events = finished(Recipe(sparsity=0.5), by_hand)
    assert end.final.accuracy is not None and not any(isinstance(e, Notice) for e in events)
    _, events = finished(Recipe(sparsity=0.5), task("two inputs, a dictionary"))
    assert any("`logits` of it" in e.text for e in events if isinstance(e, Notice))


def test_auxiliary_outputs_of_training_are_left_alone() -> None:
    end, _ = finished(
        Recipe(sparsity=0.5, epochs=1, batch=6), work_of(Auxiliary(), numbers(4), classes())
    )
    assert end.final.accuracy is not None


def test_an_adapted_model_shares_all_with_its_own() -> None:
    model = Pair()
    one = adapted(model)
    x = (numbers(4), numbers(4))
    assert torch.equal(one(x), model(*x)["logits"]) and torch.equal(one(*x), one(x))
    one.eval()
    assert not model.training and one.a.weight is model.a.weight
    copied = copy.deepcopy(one)
    assert isinstance(copied, Adapted) and copied.a.weight is not model.a.weight
    assert type(unadapted(copied)) is Pair and type(model) is Pair
    graph = adapted(torch.fx.symbolic_trace(mlp()), outputs=lambda out: out * 2)
    again = copy.deepcopy(graph)
    torch.testing.assert_close(again(numbers(4)), unadapted(again)(numbers(4)) * 2)


def test_a_model_is_tried_once_for_inputs_of_a_kind() -> None:
    calls: list[tuple[int, ...]] = []

    class Counted(nn.Sequential):
        def forward(self, x: Tensor) -> Tensor:
            calls.append(tuple(x.shape))
            return super().forward(x)  # type: ignore[no-any-return]

    class Two(nn.Linear):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
            return super().forward(x), x

    model = Counted(nn.Linear(4, 6), nn.Linear(6, 2))
    work = work_of(model, numbers(4), classes())
    for _ in range(3):
        assert prepared(work).notes == ()
    assert calls == [(2, 4)]
    model[1] = Two(6, 2)  # of the same object, something else comes now
    for _ in range(2):
        (note,) = prepared(work).notes
        assert "gives a tuple" in note
    assert len(calls) == 2
    for _ in range(2):
        with pytest.raises(DataError, match="does not take its data"):
            ready(work_of(model, numbers(5), classes()))
    assert len(calls) == 4, "what failed is tried again: it may have been mended"


def test_half_precision_is_trained_in_float32_and_handed_out_rounded() -> None:
    work = task("bfloat16")
    kept: list[nn.Module] = []
    recipe = Recipe(sparsity=0.5, epochs=4, batch=6, optimizer="sgd", lr=1e-3, momentum=0.0)
    list(pruning.run(recipe, work, keep=lambda model, _: kept.append(model)))
    assert {p.dtype for p in kept[0].parameters()} == {torch.bfloat16}
    assert {p.dtype for p in work.model.parameters()} == {torch.bfloat16}
    # Steps of 1e-3 are lost in bfloat16 one by one, and move weights when they add up.
    masks = pruning.choose(recipe, work)
    pruned = pruning.plain(work.model)
    pruning.apply(masks, pruned)
    assert not same(snapshot(kept[0]), snapshot(pruned))


def test_scores_of_float16_do_not_overflow() -> None:
    """|g|² of a model with large outputs is beyond float16, and sums of inputs' squares are."""
    model = mlp().half()
    with torch.no_grad():
        model[2].weight.mul_(300)
    work = work_of(model, 100 * numbers(4), classes())
    for criterion in ("fisher", "wanda", "taylor"):
        end, _ = finished(Recipe(criterion=criterion, sparsity=0.5), work)
        assert end.sparsity == pytest.approx(0.5, abs=0.05)


# ---------------------------------------------------------------- what wraps a model


def wrapped(kind: str) -> nn.Module:
    torch.manual_seed(0)
    model = mlp()
    match kind:
        case "DataParallel":
            return nn.DataParallel(model)
        case "torch.compile":
            return torch.compile(model)  # type: ignore[return-value]
        case "compiled in place":
            model.compile()
        case "compiled inside":
            model[2] = torch.compile(model[2])  # type: ignore[assignment]
        case "prune hooks":
            torch.nn.utils.prune.l1_unstructured(model[0], "weight", 0.25)  # type: ignore[no-untyped-call]
        case "weight_norm":
            torch.nn.utils.parametrizations.weight_norm(model[0])
    return model


@pytest.mark.parametrize(
    "kind",
    [
        "DataParallel",
        "torch.compile",
        "compiled in place",
        "compiled inside",
        "prune hooks",
        "weight_norm",
    ],
)
def test_what_wraps_or_computes_weights_comes_off_in_every_verb(kind: str) -> None:
    work = work_of(wrapped(kind), numbers(4), classes())
    plainly = work_of(mlp(), numbers(4), classes())
    recipe = Recipe(criterion="taylor", sparsity=0.5)
    masks = pruning.choose(recipe, work)
    assert set(masks) == set(pruning.choose(recipe, plainly)) == {"0.weight", "2.weight"}
    end, _ = finished(recipe, work)
    assert end.final.weights == pruning.measure(work).weights == 36
    bare = pruning.plain(work.model)
    pruning.apply(masks, bare)
    small = pruning.shrink(bare, masks, numbers(4)[:1])
    torch.testing.assert_close(small(numbers(4)), bare.eval()(numbers(4)))
    if kind in ("DataParallel", "torch.compile"):  # by the names of the model inside
        pruning.apply(masks, work.model)
        assert int((bare[0].weight == 0).sum()) == int((~masks["0.weight"]).sum())
    if kind in ("prune hooks", "weight_norm"):
        with pytest.raises(ModelError, match=r"pruning\.plain\(model\)"):
            pruning.apply(masks, work.model)


def test_models_out_of_reach_are_refused_with_the_way_out() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scripted = torch.jit.trace(mlp(), numbers(4))
        quantised = torch.ao.quantization.quantize_dynamic(mlp(), {nn.Linear})
    lazy = nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2))
    for model, words in (
        (scripted, "load_state_dict"),
        (quantised, "float model"),
        (lazy, "run it once"),
    ):
        work = work_of(model, numbers(4), classes())
        for verb in (pruning.choose, lambda recipe, work: list(pruning.run(recipe, work))):
            with pytest.raises(ModelError, match=words):
                verb(Recipe(sparsity=0.5), work)
    assert isinstance(lazy[0], nn.LazyLinear)  # nothing ran it behind somebody's back


def test_what_cannot_work_is_said_before_anything_is_trained() -> None:
    cases = [
        # (n, 1) less (n,) is (n, n)
        (work_of(mlp(1), numbers(4), numbers(), loss=F.mse_loss), r"y\.reshape\(-1, 1\)"),
        (work_of(mlp(3), numbers(4), numbers(3), loss=F.nll_loss), "The loss does not take"),
        (work_of(mlp(), numbers(5), classes()), "does not take its data, 2 × 5"),
        (
            work_of(mlp(), numbers(4), classes(), metric=Metric("f1", lambda o, y: o.nothing)),  # type: ignore[attr-defined]
            "The f1 does not take",
        ),
        (
            work_of(
                mlp(),
                numbers(4),
                classes(),
                loss=lambda out, y: F.cross_entropy(out, y, reduction="none"),
            ),
            "more than one number",
        ),
    ]
    for work, words in cases:
        events = pruning.run(Recipe(sparsity=0.5, epochs=1), work)
        with pytest.raises(DataError, match=words):
            list(events)
    with pytest.raises(DataError, match="as many as the others"):
        Batches((numbers(4), numbers(4)[:3]), classes())


def test_a_batch_that_cannot_be_timed_costs_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning.measurement, "BATCHES", (1, 32))

    class Single(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            if len(x) > 6:
                raise ValueError("at most 6")
            return self.a(x)  # type: ignore[no-any-return]

    work = work_of(Single(), numbers(4), classes())
    assert not try_out(ready(work))
    (measured,) = finalize([take_snapshot(work)])
    assert [timing.why != "" for timing in measured.timings] == [False, True]
