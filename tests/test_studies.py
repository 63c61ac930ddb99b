"""Studies: the plain numbers that pages draw, against what torch says directly."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pruning import Batches, Workpiece, choose, run, studies
from pruning.errors import DataError, NotFinite, RunError, UnknownName
from pruning.events import Measured, Measurement, from_dict
from pruning.recipe import ONE_STEP, Recipe
from pruning.runs import handlers, process_id
from pruning.runs.resolve import resolve
from pruning.runs.results import Study, load_study, save_study
from pruning.runs.store import Store

SAMPLES = ("digits-cnn", "mnist1d-cnn")


def made(folder: Path, work: Workpiece, what: str, **spec: Any) -> Study:
    """The study, through its files."""
    save_study(folder, *studies.make({"what": what, "model": work.name, **spec}, work))
    return load_study(folder)


@pytest.fixture
def pictures() -> Workpiece:
    """A convolution, a depthwise one and a linear layer on 40 pictures of 12×12, some of which it
    gets wrong.
    """
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 3, 12, 12, generator=generator)
    y = torch.randint(0, 4, (40,), generator=generator)
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layers = (
            nn.Conv2d(3, 6, 3),
            nn.ReLU(),
            nn.Conv2d(6, 6, 3, groups=6),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 4),
        )
        model = nn.Sequential(*layers).eval()
    data = Batches(x, y, batch=16)
    return Workpiece("pictures", model, data, data, data, example=x[:1], classes=tuple("abcd"))


def test_a_card_lists_layers_with_shapes_macs_and_outputs(
    tmp_path: Path, pictures: Workpiece
) -> None:
    card = made(tmp_path, pictures, "card").data
    assert [
        (row["name"], row["kind"], row["shape"], row["macs"], row["output"])
        for row in card["layers"]
    ] == [
        ("0.weight", "conv", [6, 3, 3, 3], 162 * 100, [6, 10, 10]),
        ("2.weight", "depthwise", [6, 1, 3, 3], 54 * 64, [6, 8, 8]),
        ("5.weight", "linear", [4, 6], 24, [4]),
    ]
    assert card["weights"] == 162 + 54 + 24 and card["parameters"] == 240 + 6 + 6 + 4
    assert card["classes"] == list("abcd") and card["labelled_random"] is False


def test_a_cards_measurement_is_one(tmp_path: Path, tiny: Workpiece) -> None:
    card = made(tmp_path, tiny, "card").data
    event = from_dict({"event": "measured", "stage": "dense", "measurement": card["measurement"]})
    measured = event.measurement  # type: ignore[union-attr]
    assert tiny.test is not None
    right = int((tiny.model(tiny.test.x).argmax(1) == tiny.test.y).sum())
    assert isinstance(measured, Measurement) and measured.accuracy is not None
    assert (measured.accuracy.correct, measured.accuracy.total) == (right, 64)


def test_a_card_shows_right_and_wrong_answers_as_pictures(
    tmp_path: Path, pictures: Workpiece
) -> None:
    arrays = made(tmp_path, pictures, "card").arrays
    images = arrays["images"]
    assert (images.shape, images.min(), images.max()) == ((24, 12, 12, 3), 0, 1)
    wrong = arrays["predicted"] != arrays["targets"]
    assert wrong.any() and wrong[: wrong.sum()].all(), "wrong ones first"
    assert ((arrays["confidence"] >= 0.25) & (arrays["confidence"] <= 1)).all()
    again = studies.card.examples(pictures.model, pictures.test)  # type: ignore[arg-type]
    assert all(np.array_equal(again[name], arrays[name]) for name in arrays)


def test_right_answers_come_one_of_each_class_in_turn() -> None:
    targets = np.array([0] * 30 + [1] * 30 + [2] * 30)
    chosen = studies.card._pick(targets.copy(), targets, np.ones(90))
    assert targets[chosen].tolist() == [0, 1, 2] * 8
    predicted = targets.copy()
    predicted[:20] = 1
    confidence = np.linspace(0, 1, 90)
    surest = studies.card._pick(predicted, targets, confidence)[:8].tolist()
    assert surest == [19, 18, 17, 16, 15, 14, 13, 12], "the surest mistakes, a third at most"


@pytest.mark.parametrize(
    "shape, name, shown",
    [
        ((5, 1, 8, 8), "images", (5, 8, 8)),
        ((5, 64), "images", (5, 8, 8)),
        ((5, 1, 40), "series", (5, 40)),
        ((5, 4), "series", (5, 4)),
    ],
)
def test_inputs_are_shown_as_what_they_are(
    shape: tuple[int, ...], name: str, shown: tuple[int, ...]
) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    arrays = studies.card.pictures(x)
    assert {name: values.shape for name, values in arrays.items()} == {name: shown}


def test_a_model_without_data_has_a_card_without_accuracy(
    tmp_path: Path, pictures: Workpiece
) -> None:
    bare = replace(pictures, train=None, validation=None, test=None)
    card = made(tmp_path, bare, "card")
    assert card.data["measurement"]["accuracy"] is None and card.arrays == {}
    assert "not measured" in card.data["notes"][0]


def test_a_card_without_an_example_knows_no_macs(tmp_path: Path, pictures: Workpiece) -> None:
    rows = made(tmp_path, Workpiece("bare", pictures.model), "card").data["layers"]
    assert all(row["macs"] is None and row["output"] is None for row in rows) and len(rows) == 3


def test_weights_are_counted_whole(tmp_path: Path, pictures: Workpiece) -> None:
    study = made(tmp_path, pictures, "weights")
    assert study.data["names"] == ["0.weight", "2.weight", "5.weight"]
    for i, (name, row) in enumerate(zip(study.data["names"], study.data["layers"], strict=True)):
        weight = pictures.model.get_parameter(name).detach()
        edges = study.arrays[f"edges_{i}"]
        assert edges.shape == (257,) and np.allclose(edges, -edges[::-1])
        assert study.arrays[f"counts_{i}"].sum() == weight.numel()
        assert row["shape"] == list(weight.shape)
        assert np.isclose(row["mean"], weight.mean().item(), atol=1e-6)
        assert np.allclose(study.arrays[f"norms_l1_{i}"], weight.flatten(1).abs().sum(1), atol=1e-5)
        assert np.allclose(study.arrays[f"norms_l2_{i}"], weight.flatten(1).norm(dim=1), atol=1e-5)
        assert np.allclose(study.arrays[f"picture_{i}"], weight.flatten(1).abs(), atol=1e-6), (
            "small enough to show whole"
        )
    assert study.arrays["filters"].shape == (6, 3, 3, 3)


def test_a_large_matrix_is_pooled_to_the_mean() -> None:
    matrix = np.random.default_rng(0).normal(size=(256, 640))
    shown = studies.weights.picture(matrix)
    assert shown.shape == (128, 128)
    assert np.allclose(shown, np.abs(matrix).reshape(128, 2, 128, 5).mean((1, 3)), atol=1e-6)
    odd = studies.weights.picture(np.ones((300, 129)))
    assert odd.shape == (128, 128) and np.allclose(odd, 1)


@pytest.mark.parametrize("criterion", ["magnitude", "random", "taylor"])
@pytest.mark.parametrize("granularity", ["weight", "channel"])
def test_scores_answer_a_slider_exactly(
    tmp_path: Path, pictures: Workpiece, criterion: str, granularity: str
) -> None:
    study = made(tmp_path, pictures, "scores", criterion=criterion, granularity=granularity, seed=3)
    for sparsity in (0.0, 0.3, 0.75):
        recipe = Recipe(criterion=criterion, granularity=granularity, sparsity=sparsity, seed=3)
        kept = {name: int(mask.sum()) for name, mask in choose(recipe, pictures).items()}
        assert {layer.name: layer.kept for layer in study.ranking.preview(recipe).layers} == {
            n: k for n, k in kept.items() if n in study.data["names"]
        }
    assert study.data["criterion"] == criterion and set(study.data["fixed"]) == (
        {"5.weight"} if granularity == "channel" else set()
    )


def test_studies_leave_the_model_as_found(pictures: Workpiece) -> None:
    before = {name: value.clone() for name, value in pictures.model.state_dict().items()}
    pictures.model.train()
    for what in ("card", "weights", "scores"):
        options = {"criterion": "taylor"} if what == "scores" else {}
        studies.make({"what": what, "model": "pictures", **options}, pictures)
    assert pictures.model.training and all(p.grad is None for p in pictures.model.parameters())
    assert all(before[name].equal(value) for name, value in pictures.model.state_dict().items())


def test_what_cannot_be_studied_says_why(pictures: Workpiece) -> None:
    with pytest.raises(
        UnknownName,
        match="known are card, criterion_check, examples, pair, profiles, reconstruction, "
        "runtimes, scores, structure, surgery, units, weights",
    ):
        studies.make({"what": "cards", "model": "pictures"}, pictures)
    with pytest.raises(UnknownName, match="did you mean 'taylor'"):
        studies.make({"what": "scores", "model": "pictures", "criterion": "tailor"}, pictures)
    with pytest.raises(DataError, match="training data"):
        studies.make(
            {"what": "scores", "model": "pictures", "criterion": "taylor"},
            replace(pictures, train=None),
        )
    with torch.no_grad():
        pictures.model.get_parameter("0.weight")[0] = torch.nan
    for what in ("card", "weights", "scores"):
        with pytest.raises(NotFinite, match="27 weights"):
            studies.make({"what": what, "model": "pictures"}, pictures)


def test_a_missing_study_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no study\.json"):
        load_study(tmp_path)


@pytest.mark.parametrize("name", SAMPLES)
def test_real_models_have_all_three(tmp_path: Path, name: str) -> None:
    import sample_models

    work, expected = sample_models.load(name), sample_models.card(name)
    card = made(tmp_path / "card", work, "card")
    accuracy = card.data["measurement"]["accuracy"]
    assert card.data["weights"] == expected.weights
    assert card.data["parameters"] == expected.parameters
    assert accuracy["correct"] == expected.accuracy.correct
    assert accuracy["total"] == expected.accuracy.total
    assert len(card.arrays["images" if name.startswith("digits") else "series"]) == 24
    assert (card.arrays["predicted"] != card.arrays["targets"]).any(), "some wrong ones to look at"
    weights = made(tmp_path / "weights", work, "weights")
    counts = [weights.arrays[f"counts_{i}"].sum() for i in range(len(card.data["layers"]))]
    assert sum(counts) == expected.weights
    preview = made(tmp_path / "scores", work, "scores").ranking.preview(Recipe(sparsity=0.9))
    assert preview.weights - preview.kept == round(0.9 * expected.weights)


def test_a_compact_model_is_timed_in_onnx_runtime_beside_the_masked_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNING_HOME", str(tmp_path))
    store = Store()
    recipe = Recipe(model="digits-mlp", granularity="channel", scope="per_layer", sparsity=0.5)
    id = store.submit("run", recipe.to_dict())
    job = store.claim(process_id.me(), ["run"])
    assert job is not None
    handlers.do(store, job, lambda: False)
    spec = {"what": "runtimes", "model": recipe.model, "run": id}
    data, _ = studies.make(spec, resolve(recipe.model), partial(handlers.finished_run, store))
    for name in ("dense", "final", "compact"):
        assert [timing["why"] for timing in data[name]] == ["", ""]
    for timing in data["compact"]:
        assert timing["runtime"] == "ONNX Runtime" and timing["latency"]["median"] > 0


# ---------------------------------------------------------------- reconstruction


@pytest.mark.parametrize("units", ["channel", "weight"])
def test_the_accuracy_after_reconstruction_is_a_runs_that_trains_nothing(
    tmp_path: Path, pictures: Workpiece, units: str
) -> None:
    recipe = Recipe(model="pictures", granularity=units, sparsity=0.5, seed=3)
    asked = {name: getattr(recipe, name) for name in ONE_STEP}
    study = made(tmp_path, pictures, "reconstruction", **asked).data
    history = list(run(replace(recipe, reconstruct=True), pictures))
    measured = {e.stage: e.validation for e in history if isinstance(e, Measured)}
    assert study["dense"] == asdict(measured["dense"])
    assert study["pruned"] == asdict(measured["pruned"])
    assert study["reconstructed"] == asdict(measured["final"])
    assert study["examples"] == 40 and study["layers"] >= 1


def test_reconstruction_needs_data_and_says_what_it_cannot_follow(
    tmp_path: Path, pictures: Workpiece
) -> None:
    with pytest.raises(DataError, match="needs train data"):
        made(tmp_path, replace(pictures, train=None), "reconstruction")

    class Branching(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x if float(x.sum()) > 0 else -x)

    branching = replace(pictures, model=Branching(*pictures.model.children()).eval())
    study = made(tmp_path, branching, "reconstruction").data
    assert study["reconstructed"] is None and "Branching" in study["refused"]
