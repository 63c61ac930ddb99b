"""Weights files that people have: what is read of them, and what the others are called."""

from __future__ import annotations

import enum
import functools
import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import parametrizations

import sample_models
from pruning import formats
from pruning.errors import FileRefused, FitsAnother
from pruning.formats import architecture, fingerprints, shards
from pruning.formats.types import Expected
from pruning.runs.resolve import resolve

pytestmark = pytest.mark.usefixtures("read_here")
State = dict[str, Tensor]


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))


EXPECTED = architecture.expected


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The architecture "small" is the one above, with any number of classes."""
    state = small().state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in state.items()}
    whole = frozenset({"1.num_batches_tracked"})
    expected = Expected(shapes, whole, frozenset({"3.weight", "3.bias"}))
    monkeypatch.setattr(
        architecture, "expected", lambda model: expected if model == "small" else EXPECTED(model)
    )


def accepted(what: object, home: Path, model: str = "small") -> tuple[formats.Upload, State]:
    path = home.parent / "mine.pt"
    torch.save(what, path)
    upload = formats.accept(path, model, home)
    return upload, formats.load_upload(upload.id, home)[1]


def refused(what: object, home: Path, model: str = "small", name: str = "mine.pt") -> str:
    path = home.parent / name
    torch.save(what, path)
    with pytest.raises(FileRefused) as refusal:
        formats.accept(path, model, home)
    assert str(refusal.value).startswith(name) and str(refusal.value).endswith(".")
    return str(refusal.value)


def same(state: State, reference: State) -> bool:
    return state.keys() == reference.keys() and all(
        torch.equal(state[name], tensor) for name, tensor in reference.items()
    )


def under(prefix: str, state: State) -> State:
    return {prefix + name: tensor for name, tensor in state.items()}


# ---------------------------------------------------------------- classes


def test_the_number_of_classes_is_read_from_the_head(home: Path) -> None:
    state = {**small().state_dict(), "3.weight": torch.randn(7, 16), "3.bias": torch.randn(7)}
    upload, loaded = accepted(state, home)
    assert same(loaded, state) and upload.classes == 7
    assert "Its head tells 7 classes apart." in upload.notes
    whole, _ = accepted(small().state_dict(), home)
    assert whole.classes == 3 and not any("classes" in note for note in whole.notes)


def test_a_head_of_another_width_or_of_two_minds_does_not_fit(home: Path) -> None:
    state = small().state_dict()
    wide = {**state, "3.weight": torch.ones(7, 17), "3.bias": torch.ones(7)}
    assert "3.weight is 7×17, not 7×16" in refused(wide, home)
    torn = {**state, "3.weight": torch.ones(7, 16), "3.bias": torch.ones(6)}
    assert "1 of another shape" in refused(torn, home) or "2 of another shape" in refused(
        torn, home
    )
    assert "does not fit" in refused({**state, "3.weight": torch.ones(0, 16)}, home)


def test_a_head_that_was_replaced_is_taken_for_the_head(home: Path) -> None:
    """nn.Sequential(nn.Dropout(), nn.Linear(16, 7)) in its place; of several layers it is told."""
    body = {name: value for name, value in small().state_dict().items() if name[0] != "3"}
    weight, bias = torch.randn(7, 16), torch.randn(7)
    own = {**body, "3.1.weight": weight, "3.1.bias": bias}
    upload, loaded = accepted(under("net.", own), home)
    assert same(loaded, {**body, "3.weight": weight, "3.bias": bias}) and upload.classes == 7
    assert any(note.startswith("Its head is 3.1 in place of 3: ") for note in upload.notes)
    several = {**own, "3.0.weight": torch.randn(16, 16), "3.0.bias": torch.randn(16)}
    assert "fits small but for its head (3.1.weight" in refused(several, home)
    elsewhere = {**body, "9.1.weight": weight, "9.1.bias": bias}
    assert "2 missing" in refused(elsewhere, home)


def test_a_fine_tuned_torchvision_model_is_a_model_of_its_classes(home: Path) -> None:
    """From the file to the model that a worker gets, which answers for 5 classes."""
    # MNASNet asks for the version that its weights were written by.
    model = sample_models.build("torchvision:mnasnet0_5", seed=1, classes=5)
    upload, _ = accepted(model.state_dict(), home, "torchvision:mnasnet0_5")
    work = resolve(upload.model, home)
    example = torch.randn(1, 3, 64, 64)
    assert torch.equal(work.model(example), model(example)) and work.classes == ()
    assert work.model(example).shape == (1, 5)


def test_every_head_of_torchvision_is_known_without_building_it() -> None:
    names = [one.name for one in fingerprints.table()]
    assert names == sample_models.torchvision_names()
    assert len({one.digest for one in fingerprints.table()}) == len(names)
    for name in ("alexnet", "regnet_y_400mf", "mnasnet0_5"):
        built = architecture._build(f"torchvision:{name}")
        assert fingerprints.fingerprint(name, built.shapes, built.head) in fingerprints.table()
        assert built.classes == 1000


def test_weights_of_another_architecture_name_it(home: Path) -> None:
    outline = sample_models.build("torchvision:squeezenet1_0", classes=4).state_dict()
    with pytest.raises(FitsAnother) as refusal:
        accepted({"state_dict": under("model.net.", outline)}, home)
    assert refusal.value.fits == ("torchvision:squeezenet1_0",)
    assert formats.accept(home.parent / "mine.pt", refusal.value.fits[0], home).classes == 4


# ---------------------------------------------------------------- names


@pytest.mark.parametrize(
    "prefix", ["backbone.", "student.", "_forward_module.model.encoder.", "0."]
)
def test_any_prefix_is_taken_off(prefix: str, home: Path) -> None:
    state = small().state_dict()
    upload, loaded = accepted(under(prefix, state), home)
    assert same(loaded, state)
    assert f"The prefix {prefix} was taken off every name." in upload.notes


def test_wrappers_of_single_layers_are_taken_off_too(home: Path) -> None:
    """model[3] = torch.compile(model[3]), or a layer of FSDP's."""
    state = small().state_dict()
    for wrapper in ("_orig_mod", "_fsdp_wrapped_module"):
        wrapped = {name.replace("3.", f"3.{wrapper}."): value for name, value in state.items()}
        assert same(accepted(under("model.", wrapped), home)[1], state)
    twice = {**state, "3._orig_mod.weight": state["3.weight"]}
    assert "3._orig_mod.weight" in refused(twice, home)


EXTRAS: dict[str, Callable[[State], dict[str, Any]]] = {
    "operation counts": lambda s: {
        **s,
        "total_ops": torch.zeros(1),
        "3.total_params": torch.ones(1),
    },
    "a loss's weights": lambda s: {**under("model.", s), "criterion.weight": torch.ones(3)},
    "metric states": lambda s: {**under("net.", s), "val_acc.tp": torch.ones(3, dtype=torch.int64)},
    "a loss without prefix": lambda s: {**s, "loss_fn.pos_weight": torch.ones(3)},
    "an average beside": lambda s: {**under("model.", s), **under("ema_model.", s)},
    "an auxiliary head": lambda s: {**s, "aux1.fc.weight": torch.ones(3, 16)},
}


@pytest.mark.parametrize("kind", EXTRAS)
def test_harmless_extras_are_left_out_and_named(kind: str, home: Path) -> None:
    state = small().state_dict()
    upload, loaded = accepted(EXTRAS[kind](state), home)
    assert same(loaded, state)
    assert any(note.startswith("Left out, as no weights of the model: ") for note in upload.notes)


@pytest.mark.parametrize("name", ["3.gate.weight", "4.weight", "backbone.weight", "3.scale"])
def test_what_may_be_a_layer_more_is_not_left_out(name: str, home: Path) -> None:
    refusal = refused({**small().state_dict(), name: torch.ones(3)}, home)
    assert name in refusal


@pytest.mark.parametrize("second", ["teacher.", "discriminator."])
def test_two_models_in_one_file_are_named(second: str, home: Path) -> None:
    state = small().state_dict()
    flat = refused({**under("student.", state), **under(second, state)}, home)
    assert "holds more than one model" in flat and "one of them" in flat
    nested = refused({"generator": state, second.strip("."): state}, home)
    assert "holds 2 state_dicts (generator, " in nested and "one of them" in nested
    # Another network beside it, not the same one again.
    other = {**under("student.", state), f"{second}head.weight": torch.ones(3)}
    assert "holds more than one model" in refused(other, home)


# ---------------------------------------------------------------- objects beside


class Colour(enum.Enum):
    RED = 1


class Settings:
    def __init__(self) -> None:
        self.rate, self.weights, self.table = 0.1, torch.ones(3), {(1, 2): 3, Colour: 4}


def beside() -> dict[str, Any]:
    layer = nn.Linear(2, 2)
    adam = torch.optim.Adam(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    adam.step()
    return {
        "optimizer": adam,
        "scheduler": torch.optim.lr_scheduler.StepLR(adam, 3),
        "scaler": torch.amp.GradScaler("cpu"),
        "criterion": nn.CrossEntropyLoss(weight=torch.ones(3)),
        "function": nn.functional.cross_entropy,
        "partial": functools.partial(torch.optim.SGD, lr=0.1),
        "settings": Settings(),
        "colour": Colour.RED,
        "by class": {Colour: 1, (1, "a"): 2},
        "random": np.random.default_rng(0),
        "older random": np.random.RandomState(0),
    }


@pytest.mark.parametrize("protocol", [2, 4])
def test_objects_beside_the_weights_are_skipped_as_data(protocol: int, home: Path) -> None:
    """Whatever lies there: none is made, and the weights are those that were saved."""
    state = small().state_dict()
    path = home.parent / "mine.pt"
    torch.save({**beside(), "state_dict": state}, path, pickle_protocol=protocol)
    upload = formats.accept(path, "small", home)
    assert same(formats.load_upload(upload.id, home)[1], state)
    assert "Left out, as not part of the weights: optimizer" in " ".join(upload.notes)


@pytest.mark.parametrize(
    "what",
    [
        lambda: {"model": small(), "optimizer": {"state": {}}},
        lambda: {"net": small(), "rng": torch.ones(3)},
        lambda: {"model": Settings(), "epoch": 3},
    ],
)
def test_an_object_in_the_place_of_the_weights_is_a_whole_module(
    what: Callable[[], Any], home: Path
) -> None:
    assert "holds a whole pickled module" in refused(what(), home)


@pytest.mark.parametrize("protocol", [2, 4])
def test_a_call_that_starts_a_process_is_no_object_beside(protocol: int, home: Path) -> None:
    """Nothing would run, but such a file was made to do harm."""

    class Planted:
        def __reduce__(self) -> tuple[Any, ...]:
            return subprocess.Popen, (["true"],)

    path = home.parent / "mine.pt"
    planted = {"state_dict": small().state_dict(), "x": Planted()}
    torch.save(planted, path, pickle_protocol=protocol)
    # Protocol 2 calls the module by the name that it had in Python 2.
    with pytest.raises(FileRefused, match=r"a pickled call of \w+\.Popen, which is a program"):
        formats.accept(path, "small", home)


# ---------------------------------------------------------------- told as what they are


def normed(old: bool) -> State:
    how = nn.utils.weight_norm if old else parametrizations.weight_norm
    return dict(nn.Sequential(how(nn.Linear(4, 4))).state_dict())


@pytest.mark.filterwarnings("ignore")  # torch's own, about weight_norm's older way
def test_kinds_that_do_not_fit_are_called_by_their_name(home: Path) -> None:
    orthogonal = nn.Sequential(parametrizations.orthogonal(nn.Linear(4, 4))).state_dict()
    one = torch.ones(4)
    for state, words in (
        (normed(old=False), "weight_norm's pairs"),
        (normed(old=True), "weight_norm's pairs"),
        (orthogonal, "parametrised weights"),
        ({"a.qweight": one, "a.qzeros": one, "a.scales": one}, "holds quantised weights"),
        ({"a.weight": one, "a.weight.absmax": one}, "holds quantised weights"),
        ({"a.lora_A.weight": one, "a.lora_B.weight": one}, "merge it into the model"),
    ):
        assert words in refused(dict(state), home)


# ---------------------------------------------------------------- shards


def sharded(state: State, folder: Path, count: int = 3) -> list[Path]:
    """As Hugging Face writes them, with the index."""
    folder.mkdir()
    names = sorted(state)
    paths = []
    for number in range(count):
        path = folder / f"model-{number + 1:05}-of-{count:05}.safetensors"
        save_file({name: state[name] for name in names[number::count]}, path)
        paths.append(path)
    table = {name: paths[i % count].name for i, name in enumerate(names)}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": table}))
    return paths


def test_shards_are_read_as_a_set(home: Path) -> None:
    state = small().state_dict()
    paths = sharded(state, home.parent / "hub")
    from_folder = formats.accept(home.parent / "hub", "small", home)
    index = home.parent / "hub" / "model.safetensors.index.json"
    from_files = formats.accept([*reversed(paths), index], "small", home)
    for upload in (from_folder, from_files):
        assert same(formats.load_upload(upload.id, home)[1], state)
        assert upload.name == "model (3 shards)" and "Read from 3 shards." in upload.notes
    reading = formats.inspect(home.parent / "hub")
    assert reading.refusal is None and len(reading.tensors) == len(state)
    assert reading.file == "model (3 shards)"


def test_a_set_that_is_not_whole_says_what_is_missing(home: Path) -> None:
    state = small().state_dict()
    first, second, third = sharded(state, home.parent / "hub")

    def refusal(*paths: Path) -> str:
        with pytest.raises(FileRefused) as refused:
            formats.accept(list(paths), "small", home)
        return str(refused.value)

    assert "is shard 2 of 3 by its name: bring all 3 files together" in refusal(second)
    assert "are 2 of 3 shards" in refusal(first, third) and "missing: 2" in refusal(first, third)
    assert "are not shards of one model" in refusal(first, home.parent / "mine.pt")
    save_file({"0.weight": torch.ones(2)}, second)
    save_file({"0.weight": torch.ones(2)}, third)
    assert "names a tensor again in shard" in refusal(first, second, third)
    third.write_bytes(b"\x80\x02" + bytes(99))
    assert "which is a program" in refusal(first, second, third)
    assert not formats.uploads(home)


def test_a_window_is_a_file_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(100)))
    with path.open("rb") as file:
        window = shards.Window(file, 10, 20)
        assert window.read() == bytes(range(10, 30)) and window.read(5) == b""
        assert window.seek(-3, 2) == 17 and window.read(99) == bytes((27, 28, 29))
        with pytest.raises(ValueError, match="before the beginning"):
            window.seek(-1)
