"""Sample models: what their cards say, how they load offline, and how they are trained."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

import sample_models
from pruning.errors import DataError, FileRefused, UnknownName
from pruning.types import Batches, Workpiece, prunable
from sample_models import __main__ as shell
from sample_models import architectures, cards, catalogue, data, loading, making
from sample_models.blocks import blocks
from sample_models.cards import WEIGHTS
from sample_models.training import augment, correct, pace, shifted, train
from tests.toys import same

ROOT = Path(__file__).parent.parent
NAMES = sample_models.names()
SMALL = "squeezenet1_1"
RESNET18 = "resnet18-f37072fd.pth"


@pytest.fixture(scope="module", params=NAMES)
def work(request: pytest.FixtureRequest) -> Workpiece:
    return sample_models.load(request.param, data=False)


# What is shipped


def test_a_loaded_model_is_ready_to_use(work: Workpiece) -> None:
    assert not work.model.training
    for parameter in work.model.parameters():
        assert parameter.dtype is torch.float32
        assert parameter.isfinite().all()
    assert work.example is not None
    logits = work.model(work.example)
    assert logits.shape == (2, len(work.classes))
    assert logits.isfinite().all()
    assert (work.train, work.validation, work.test) == (None, None, None)


def test_the_card_counts_what_is_there(work: Workpiece) -> None:
    card = sample_models.card(work.name)
    assert card.weights == sum(w.numel() for w in prunable(work.model).values())
    assert card.parameters == sum(p.numel() for p in work.model.parameters())
    assert card.shipped == (WEIGHTS / f"{work.name}.safetensors").stat().st_size < 1_000_000
    assert card.bytes > 4 * card.parameters
    assert card.test == card.accuracy.total
    assert card.classes == work.classes
    texts = (card.title, card.good_for, card.about, card.data_about, card.licence)
    assert all((*texts, card.versions["torch"]))


def test_blocks_have_every_prunable_weight_in_order(work: Workpiece) -> None:
    assert work.example is not None
    strip = blocks(work.model, work.example[:1])
    assert strip == sample_models.card(work.name).blocks
    kinds = ("conv", "depthwise", "linear", "attention")
    weights = [f"{block.name}.weight" for block in strip if block.kind in kinds]
    assert sorted(weights) == sorted(prunable(work.model))
    assert strip[-1].output == (10,)
    assert all(block.weights == int(np.prod(block.shape)) for block in strip if block.shape)


@pytest.mark.parametrize("name", NAMES)
def test_the_accuracy_on_the_card_is_that_of_the_shipped_file(name: str) -> None:
    kind = catalogue.sample(name)
    if kind.dataset in data.FOLDERS and data.find(kind.dataset) is None:
        pytest.skip(f"{kind.dataset} is not here: set PRUNING_DATA to a folder that has it")
    loaded = sample_models.load(name)
    assert loaded.test is not None
    card = sample_models.card(name).accuracy
    assert len(loaded.test.x) == card.total
    # Another processor may round one of 5,000 the other way.
    assert abs(correct(loaded.model, loaded.test) - card.correct) <= card.total // 5000


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("digits-mlp", 0.97),
        ("digits-vit", 0.97),
        ("mnist1d-cnn", 0.9),
        ("mnist-lenet300", 0.982),
        ("mnist-lenet5", 0.99),
        ("fashion-lenet5", 0.895),
        ("fashion-resnet20", 0.92),
    ],
)
def test_models_are_trained_well_enough_to_show_something(name: str, least: float) -> None:
    assert sample_models.card(name).accuracy.value >= least


@pytest.mark.parametrize("name", ["digits-resnet", "digits-depthwise", "digits-vit", "mnist1d-cnn"])
def test_models_can_be_traced(name: str) -> None:
    """Structure work reads the graph; no branch may depend on the data."""
    work = sample_models.load(name, data=False)
    assert work.example is not None
    logits = work.model(work.example)
    exported = torch.export.export(work.model, (work.example,)).module()
    torch.testing.assert_close(exported(work.example), logits)
    traced = torch.fx.symbolic_trace(work.model)
    torch.testing.assert_close(traced(work.example), logits)


def test_everything_in_the_catalogue_is_shipped() -> None:
    assert list(catalogue.SAMPLES) == NAMES


def test_a_card_that_is_not_there_is_named_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sample_models.cards.CARDS", tmp_path)
    (tmp_path / "digits-mlp.json").write_text('{"torn": ')
    for name in ("digits-mlp", "digits-cnn"):
        with pytest.raises(FileRefused, match=f"sample_models train {name}"):
            cards.card.__wrapped__(name)


def test_lists_and_cards_come_without_torch() -> None:
    lists = "s.names(); [s.card(n) for n in s.names()]; s.datasets(); s.torchvision_names()"
    heavy = {"torch", "torchvision", "sklearn", "pandas", "scipy.stats"}
    script = f"import sys, sample_models as s\n{lists}\nprint(*({heavy} & set(sys.modules)))"
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_unknown_names_list_the_known_ones() -> None:
    for function in (sample_models.load, sample_models.build, sample_models.card):
        with pytest.raises(UnknownName, match="digits-cnn"):
            function("digits-cn")
    with pytest.raises(UnknownName, match="did you mean 'resnet18'"):
        sample_models.load("torchvision:resnet-18")
    with pytest.raises(UnknownName, match="fashion-mnist"):
        sample_models.fetch("fashion")


def test_a_damaged_weights_file_is_named_with_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loading, "WEIGHTS", tmp_path)
    (tmp_path / "digits-mlp.safetensors").write_bytes(b"torn")
    for name in ("digits-mlp", "digits-cnn"):
        with pytest.raises(FileRefused, match=f"sample_models train {name}"):
            sample_models.load(name)


def test_building_depends_on_the_seed_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    models = [sample_models.build("digits-cnn", seed) for seed in (1, 1, 2)]
    first, second, other = (list(model.parameters()) for model in models)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], other[0])


# torchvision's architectures


def test_the_list_of_architectures_is_torchvisions() -> None:
    theirs = torchvision.models.list_models(module=torchvision.models)
    assert sample_models.torchvision_names() == theirs


def test_offline_an_architecture_has_random_weights_that_say_so_and_repeat(nowhere: Path) -> None:
    first = sample_models.load(f"torchvision:{SMALL}")
    second = sample_models.load(SMALL, weights="trained")
    assert first.name == second.name == f"{SMALL} (random weights)"
    assert first.example is not None
    assert first.example.shape == (2, 3, 224, 224)
    assert same(first.example, second.example)
    assert first.test is None
    assert not first.model.training
    assert same(dict(first.model.state_dict()), dict(second.model.state_dict()))
    with pytest.raises(DataError, match="random weights"):
        sample_models.fetch(SMALL)
    with pytest.raises(UnknownName, match="auto, random, trained"):
        sample_models.load(SMALL, weights="best")


def test_heads_that_only_training_uses_are_left_out() -> None:
    for name in ("inception_v3", "googlenet"):
        with torch.device("meta"):
            model = sample_models.build(name)
        assert not [path for path, _ in model.named_modules() if "aux" in path.lower()]


def test_trained_weights_at_hand_are_used(nowhere: Path) -> None:
    path = nowhere / "torch" / "hub" / "checkpoints" / RESNET18
    path.parent.mkdir(parents=True)
    stored = sample_models.build("resnet18", seed=9).state_dict()
    torch.save(stored, path)
    work = sample_models.load("resnet18")
    assert work.name == "resnet18"
    assert len(work.classes) == 1000
    assert same(dict(work.model.state_dict()), dict(stored))
    assert sample_models.load("resnet18", weights="random").name == "resnet18 (random weights)"
    assert sample_models.fetch("resnet18") == path


def test_a_planted_file_in_the_cache_is_refused_and_not_run(nowhere: Path) -> None:
    path = nowhere / "torch" / "hub" / "checkpoints" / RESNET18
    path.parent.mkdir(parents=True)
    for planted in (pickle.dumps(Planted(nowhere / "ran"), protocol=2), b"torn"):
        path.write_bytes(planted)
        with pytest.raises(FileRefused, match="delete it"):
            sample_models.load("resnet18")
    torch.save({"state_dict": Planted(nowhere / "ran")}, path)
    with pytest.raises(FileRefused, match="delete it"):
        sample_models.load("resnet18")
    assert not (nowhere / "ran").exists()


@dataclasses.dataclass
class Planted:
    """Reading this as a pickle makes a file."""

    target: Path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.target,)


# Training them again


def test_the_pace_rises_then_falls_to_nothing() -> None:
    assert [round(pace(p), 6) for p in (0.05, 0.1, 0.55, 1)] == [0.5, 1, 0.5, 0]


def test_pictures_are_moved_whole() -> None:
    x = torch.zeros(200, 1, 5, 5)
    x[:, 0, 2, 2] = 1
    moved = shifted(x, 1, torch.Generator().manual_seed(0))
    where = moved.flatten(1).argmax(1)
    assert moved.shape == x.shape
    assert bool((moved.sum((1, 2, 3)) == 1).all())
    assert set(where.tolist()) == {5 * r + c for r in (1, 2, 3) for c in (1, 2, 3)}


def test_about_half_of_the_pictures_are_mirrored() -> None:
    x = torch.zeros(400, 1, 2, 2)
    x[..., 0] = 1
    recipe = catalogue.Training(epochs=1, flip=True)
    augmented = augment(x, torch.Generator().manual_seed(0), recipe=recipe)
    assert 150 < int(augmented[:, 0, 0, 1].sum()) < 250


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_training_learns_and_repeats(optimizer: str) -> None:
    whole, validation, _ = data.splits("digits")
    part = Batches(whole.x[:600], whole.y[:600])
    lr = {"sgd": 0.05, "adamw": 3e-3}[optimizer]
    recipe = catalogue.Training(epochs=4, optimizer=optimizer, lr=lr, shift=1)
    lines: list[str] = []
    first, second = (
        train(sample_models.build("digits-mlp"), part, validation, recipe, 1, lines.append)
        for _ in range(2)
    )
    assert correct(first, validation) > 90
    assert not first.training
    assert same(dict(first.state_dict()), dict(second.state_dict()))
    assert lines[3].startswith("epoch 4/4")


def test_the_command_trains_ships_and_describes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in (making, loading):
        monkeypatch.setattr(module, "WEIGHTS", tmp_path)
    monkeypatch.setattr(making, "CARDS", tmp_path)
    training = catalogue.Training(epochs=2)
    quick = dataclasses.replace(catalogue.sample("digits-mlp"), training=training, half=True)
    monkeypatch.setitem(catalogue.SAMPLES, "digits-mlp", quick)
    assert shell.main(["train", "digits-mlp", "--seed", "3"]) == 0
    assert "digits-mlp:" in capsys.readouterr().out
    shipped = sample_models.load("digits-mlp")
    assert shipped.test is not None
    facts = making.measured(shipped, quick)
    assert facts["accuracy"]["correct"] == correct(shipped.model, shipped.test)
    assert facts["shipped"] < facts["bytes"] * 0.6
    assert all(p.dtype is torch.float32 for p in shipped.model.parameters())


def test_the_command_lists_and_refuses(capsys: pytest.CaptureFixture[str]) -> None:
    assert shell.main(["list"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == len(NAMES)
    assert shell.main(["train", "digits-mlpp"]) == 1
    assert "did you mean 'digits-mlp'" in capsys.readouterr().err


def test_a_weight_too_large_for_half_precision_is_not_shipped() -> None:
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, 1e6)
    with pytest.raises(OverflowError, match="float16"):
        making._stored(layer.weight, half=True)
    assert torch.equal(making._stored(layer.weight, half=False), layer.weight)


def test_an_architecture_wants_its_own_size(nowhere: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(architectures, "build", lambda name: nn.Identity())
    for name, side in (("inception_v3", 299), ("vit_h_14", 224)):
        example = architectures.load(name).example
        assert example is not None
        assert example.shape[-1] == side
