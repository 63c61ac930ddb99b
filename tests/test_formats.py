"""Uploaded weights: read, matched, kept and loaded again; or refused in one sentence."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.utils import prune

from pruning import formats
from pruning.errors import FileRefused, FitsAnother, UnknownName
from pruning.formats import architecture
from pruning.formats.types import Expected, file_name, shown

pytestmark = pytest.mark.usefixtures("read_here")
State = dict[str, Tensor]


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3))


def wanted(model: nn.Module) -> Expected:
    state = model.state_dict()
    return Expected(
        {n: tuple(t.shape) for n, t in state.items()},
        frozenset(n for n, t in state.items() if not t.is_floating_point()),
    )


EXPECTED = architecture.expected


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """The architecture "small" is the one above."""
    monkeypatch.setattr(architecture, "expected", lambda model: wanted(small()))


def brought(what: object, home: Path, name: str = "weights.pt") -> tuple[formats.Upload, State]:
    """`what`, saved, accepted and loaded again."""
    path = home.parent / name
    if name.endswith(".safetensors"):
        save_file(what, path)
    else:
        torch.save(what, path)
    upload = formats.accept(path, "small", home)
    architecture_name, state = formats.load_upload(upload.id, home)
    assert architecture_name == "small"
    return upload, state


def same(state: State, reference: State) -> bool:
    return state.keys() == reference.keys() and all(
        torch.equal(state[n], t) for n, t in reference.items()
    )


WRAPPED: dict[str, Callable[[State], object]] = {
    "plain": lambda state: state,
    "state_dict": lambda state: {
        "state_dict": state,
        "epoch": 3,
        "args": argparse.Namespace(lr=0.1),
    },
    "model and optimiser": lambda state: {
        "model_state_dict": state,
        "optimizer": torch.optim.AdamW(small().parameters()).state_dict(),
    },
    "two deep": lambda state: {"checkpoint": {"model": state}, "best": torch.tensor(0.9)},
    "an unusual key": lambda state: {"generator": state, "step": 7},
    "model before ema": lambda state: {"ema": {n: t + 1 for n, t in state.items()}, "model": state},
    "module.": lambda state: {f"module.{n}": t for n, t in state.items()},
    "module._orig_mod.": lambda state: {
        "state_dict": {f"module._orig_mod.{n}": t for n, t in state.items()}
    },
    "averaged": lambda state: {
        "n_averaged": torch.tensor(5),
        **{f"module.{n}": t for n, t in state.items()},
    },
    "parameters": lambda state: {
        n: nn.Parameter(t) if t.is_floating_point() else t for n, t in state.items()
    },
    "channels last": lambda state: {
        n: t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t
        for n, t in state.items()
    },
    "transposed": lambda state: {
        n: t.t().contiguous().t() if t.ndim == 2 else t for n, t in state.items()
    },
    "slices of one storage": lambda state: sliced(state),
    "no counters": lambda state: {n: t for n, t in state.items() if "num_batches" not in n},
}


def sliced(state: State) -> State:
    """The same values, each at its own place in one long storage."""
    long = torch.cat(
        [torch.zeros(5), *(t.flatten() for t in state.values() if t.is_floating_point())]
    )
    at, made = 5, {}
    for name, tensor in state.items():
        if tensor.is_floating_point():
            made[name] = long[at : at + tensor.numel()].view(tensor.shape)
            at += tensor.numel()
    return made


@pytest.mark.parametrize("way", WRAPPED)
def test_what_was_saved_is_what_is_loaded(way: str, home: Path) -> None:
    state = small().state_dict()
    upload, loaded = brought(WRAPPED[way](state), home)
    assert same(loaded, state)
    assert upload.tensors == len(state) and upload.numbers == sum(t.numel() for t in state.values())
    assert upload.notes[0].endswith("tensors fit small.")
    small().load_state_dict(loaded)  # strictly


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_pickle_protocol_is_read(protocol: int, home: Path) -> None:
    state = small().state_dict()
    path = home.parent / "weights.pt"
    torch.save(
        {"state_dict": state, "args": argparse.Namespace(lr=0.1), "seen": {1, 2}},
        path,
        pickle_protocol=protocol,
    )
    assert same(formats.load_upload(formats.accept(path, "small", home).id, home)[1], state)


def test_safetensors_round_trip(home: Path) -> None:
    state = small().state_dict()
    upload, loaded = brought(
        {f"model.{n}": t for n, t in state.items()}, home, "weights.safetensors"
    )
    assert same(loaded, state) and upload.format == "safetensors"
    assert "The prefix model. was taken off every name." in upload.notes


@pytest.mark.parametrize(
    ("dtype", "word"),
    [(torch.float16, "float16"), (torch.bfloat16, "bfloat16"), (torch.float64, "float64")],
)
@pytest.mark.parametrize("name", ["weights.pt", "weights.safetensors"])
def test_other_floats_become_float32_and_that_is_said(
    dtype: torch.dtype, word: str, name: str, home: Path
) -> None:
    state = {
        n: t.to(dtype) if t.is_floating_point() else t for n, t in small().state_dict().items()
    }
    upload, loaded = brought(state, home, name)
    assert same(loaded, {n: t.float() if t.is_floating_point() else t for n, t in state.items()})
    assert f"8 tensors converted from {word} to float32." in upload.notes


def test_pruned_by_torch_is_merged_and_said(home: Path) -> None:
    model = small()
    prune.l1_unstructured(model[3], "weight", amount=0.5)
    upload, loaded = brought(model.state_dict(), home)
    assert (
        torch.equal(loaded["3.weight"], model[3].weight.detach())
        and int((loaded["3.weight"] == 0).sum()) == 24
    )
    assert "Pruned by torch.nn.utils.prune: 1 weight times mask." in upload.notes


def test_large_tensors_are_read_in_pieces(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = nn.Linear(1200, 1100)  # over one piece of 2^20 numbers, and not a multiple
    prune.random_unstructured(layer, "weight", amount=0.3)
    monkeypatch.setattr(architecture, "expected", lambda model: wanted(nn.Linear(1200, 1100)))
    _, loaded = brought(layer.state_dict(), home)
    assert torch.equal(loaded["weight"], layer.weight.detach())


def test_a_prefix_of_the_architecture_itself_stays(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = nn.Module()
    inner.net = nn.Linear(4, 2)
    monkeypatch.setattr(architecture, "expected", lambda model: wanted(inner))
    upload, loaded = brought({f"module.{n}": t for n, t in inner.state_dict().items()}, home)
    assert (
        same(loaded, inner.state_dict())
        and "The prefix module. was taken off every name." in upload.notes
    )


def test_whole_numbers_are_kept_where_the_architecture_has_them(home: Path) -> None:
    state = small().state_dict()
    state["1.num_batches_tracked"] = torch.tensor(12345, dtype=torch.int32)
    assert brought(state, home)[1]["1.num_batches_tracked"] == torch.tensor(12345)


def refusal(state: object, home: Path) -> str:
    path = home.parent / "weights.pt"
    torch.save(state, path)
    with pytest.raises(FileRefused) as refused:
        formats.accept(path, "small", home)
    assert not formats.uploads(home)
    assert not list((home / "uploads").iterdir()), "nothing remains"
    return str(refused.value)


def test_what_does_not_fit_is_named_and_counted(home: Path) -> None:
    state = {n: t for n, t in small().state_dict().items() if not n.startswith("1.")}
    state |= {"head.a": torch.ones(1), "head.b": torch.ones(1), "3.weight": torch.ones(10, 16)}
    assert refusal(state, home) == (
        "weights.pt does not fit small (4 missing: 1.weight, 1.bias, 1.running_mean, ...; "
        "2 unexpected: head.a, head.b; 1 of another shape: 3.weight is 10×16, not 3×16): "
        "choose the architecture these weights were saved from."
    )


def test_quantised_weights_are_no_floats(home: Path) -> None:
    state = {n: t.to(torch.int8) if n == "3.weight" else t for n, t in small().state_dict().items()}
    assert refusal(state, home) == (
        "weights.pt has 3.weight as I8, not as floating-point weights: "
        "save the model from before it was quantised."
    )


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_weights_that_are_not_finite_are_refused_by_name(
    bad: float, dtype: torch.dtype, home: Path
) -> None:
    state = {
        n: t.to(dtype) if t.is_floating_point() else t for n, t in small().state_dict().items()
    }
    state["3.weight"][1, 2] = bad
    assert refusal(state, home) == (
        "weights.pt holds NaN or infinite weights in 3.weight, and a mask cannot remove those: "
        "load a checkpoint from before training diverged."
    )


def test_a_float64_that_float32_cannot_hold_is_refused(home: Path) -> None:
    assert "infinite weights in 3.bias" in refusal(
        {**small().state_dict(), "3.bias": torch.full((3,), 1e300, dtype=torch.float64)}, home
    )


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ({"epoch": 3, "lr": 0.1}, "holds no state_dict (it has epoch, lr)"),
        ({}, "holds no state_dict (it is empty)"),
        (torch.ones(3), "holds a single tensor, not a state_dict"),
        ([1, 2], "holds a list, not a state_dict"),
        (
            torch.optim.SGD(nn.Linear(2, 2).parameters()).state_dict(),
            "holds no state_dict (it has state, param_groups)",
        ),
    ],
    ids=["settings", "nothing", "a tensor", "a list", "an optimiser"],
)
def test_checkpoints_without_weights_say_what_they_hold(
    what: object, words: str, home: Path
) -> None:
    assert words in refusal(what, home)


def test_the_same_file_is_kept_once_and_the_list_is_newest_first(home: Path) -> None:
    state = small().state_dict()
    first, _ = brought(state, home)
    again, _ = brought(state, home)
    second, _ = brought({n: t * 2 for n, t in state.items()}, home)
    assert first == again and second.id != first.id
    assert formats.uploads(home) == [second, first]
    assert second.model == f"upload:{second.id}"


def test_the_owner_name_is_kept_without_folders_and_markup(home: Path) -> None:
    path = home.parent / "spool"
    torch.save(small().state_dict(), path)
    upload = formats.accept(path, "small", home, filename="../..\\<b>my [best](x) `model`.pt")
    assert upload.name == "_b_my _best_(x) _model_.pt"
    assert (
        json.loads((home / "uploads" / upload.id / "upload.json").read_text())["name"]
        == upload.name
    )


def test_names_to_show_are_harmless() -> None:
    assert (
        shown("a\x1b[31m<img>\n" + "b" * 100).startswith("a??31m?img??")
        and len(shown("b" * 100)) == 60
    )
    assert file_name("/") == file_name("..") == file_name("") == "file"
    assert len(file_name("n" * 300 + ".safetensors")) == 80 and file_name(
        "n" * 300 + ".safetensors"
    ).endswith(".safetensors")


def test_an_unknown_or_damaged_upload_is_not_loaded(home: Path) -> None:
    upload, _ = brought(small().state_dict(), home)
    for id in ("0" * 16, "../../etc", "", upload.id.upper() + "/"):
        with pytest.raises(UnknownName, match="upload"):
            formats.load_upload(id, home)
    weights = home / "uploads" / upload.id / "model.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(FileRefused, match="have changed on disk"):
        formats.load_upload(upload.id, home)
    (weights.parent / "upload.json").write_text("{")
    assert formats.uploads(home) == []
    assert formats.accept(home.parent / "weights.pt", "small", home).digest == upload.digest, (
        "brought again, it is whole again"
    )


def test_the_workspace_is_the_stores_unless_given(home: Path) -> None:
    path = home.parent / "weights.pt"
    torch.save(small().state_dict(), path)
    upload = formats.accept(path, "small")
    assert formats.uploads() == formats.uploads(home) == [upload]
    assert sorted(p.name for p in (home / "uploads" / upload.id).iterdir()) == [
        "model.safetensors",
        "upload.json",
    ]


def test_a_reading_lists_names_without_wrappers(home: Path) -> None:
    path = home.parent / "weights.pt"
    torch.save(
        {
            "state_dict": {f"module.{n}": t for n, t in small().half().state_dict().items()},
            "epoch": 3,
        },
        path,
    )
    reading = formats.inspect(path)
    assert reading.refusal is None and reading.wrappers == ("state_dict", "module.")
    assert reading.tensors[0] == formats.Listed("0.weight", (4, 1, 3, 3), "F16", 72)
    assert reading.notes == ("Left out, as not part of the weights: epoch.",)


def test_reading_imports_no_torch(home: Path) -> None:
    """Neither here nor in the reading process, whose limit of memory forbids it.

    torch alone takes 3.3 GB of address space.
    """
    path = home.parent / "weights.pt"
    torch.save(small().state_dict(), path)
    code = """
import sys
from pruning.formats import inspect, uploads
print(len(inspect(sys.argv[1]).tensors), "torch" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code, str(path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    )
    assert done.stdout.split() == ["9", "False"]


def test_sample_and_torchvision_architectures_by_name(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sample's own weights come back; torchvision's shapes need no weights to be made."""
    import sample_models

    monkeypatch.setattr(architecture, "expected", EXPECTED)
    path = home.parent / "mine.pt"
    reference = sample_models.build("digits-resnet", seed=3)
    torch.save({"state_dict": {f"module.{n}": t for n, t in reference.state_dict().items()}}, path)
    _, state = formats.load_upload(formats.accept(path, "digits-resnet", home).id, home)
    sample_models.build("digits-resnet").load_state_dict(state)
    assert same(state, dict(reference.state_dict()))
    with pytest.raises(
        FileRefused, match=r"mine\.pt does not fit torchvision:vit_h_14 \(392 missing"
    ):
        formats.accept(path, "torchvision:vit_h_14", home)


def test_weights_of_another_sample_are_refused_with_its_name(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """page.md, fault 28: it listed tensors, though it knew every architecture."""
    import sample_models

    monkeypatch.setattr(architecture, "expected", EXPECTED)
    path = home.parent / "mine.pt"
    for name in sample_models.names():
        weights = sample_models.build(name, seed=3).state_dict()
        torch.save({"state_dict": {f"module.{n}": t for n, t in weights.items()}}, path)
        wrong = "digits-mlp" if name != "digits-mlp" else "digits-cnn"
        with pytest.raises(FitsAnother) as refused:
            formats.accept(path, wrong, home)
        assert name in refused.value.fits and wrong not in refused.value.fits
        assert str(refused.value).endswith(f"They fit {' and '.join(refused.value.fits)}.")
    assert not formats.uploads(home)
    # Refused for what is in it, not for where it was brought: no other place takes it either.
    weights = sample_models.build("mnist-lenet5", seed=3).state_dict()
    next(iter(weights.values())).view(-1)[0] = float("nan")
    torch.save(weights, path)
    with pytest.raises(FileRefused) as refused_for_nan:
        formats.accept(path, "mnist-lenet5", home)
    assert not isinstance(refused_for_nan.value, FitsAnother)


def test_the_shapes_of_samples_are_those_that_are_built() -> None:
    for name, shapes in architecture.samples().items():
        assert shapes == architecture._build(name), name


def test_an_architecture_is_described_by_a_process_of_its_own() -> None:
    """The page's way: the same answer as here, and an unknown name says which are known."""
    answer = architecture.answered("pruning.formats.architecture", "digits-mlp")
    assert Expected.from_json(answer) == architecture._build("digits-mlp")
    with pytest.raises(
        UnknownName, match=r"There is no architecture called 'digits-mpl'.*digits-mlp"
    ):
        EXPECTED("digits-mpl")
