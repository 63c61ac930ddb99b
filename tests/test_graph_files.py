"""Dependency groups on disk: the same groups, made anew wherever a file does not fit."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

import pruning
import sample_models
from pruning.recipe import Recipe
from pruning.structure import dependency_graph as graphs
from pruning.structure import graph_files
from pruning.structure.dependency_graph import dependency_graph, dependency_groups
from tests.long_forms import in_part

CHANNEL = Recipe(granularity="channel", sparsity=0.5)


@pytest.fixture(autouse=True)
def workspace(home: Path) -> Iterator[Path]:
    """A workspace that is there, and a process that knows nothing."""
    home.mkdir()
    graphs.forget()
    yield home
    graphs.forget()


@pytest.fixture
def captures(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A name for each time that a model is followed."""
    seen: list[str] = []
    capture = graphs.capture

    def counted(model: nn.Module, example: graphs.Example) -> graphs.Captured:
        seen.append(type(model).__name__)
        return capture(model, example)

    monkeypatch.setattr(graphs, "capture", counted)
    return seen


@pytest.mark.parametrize(
    "name", in_part(["digits-resnet", "digits-depthwise", "digits-vit"], ["digits-depthwise"])
)
def test_a_new_process_reads_the_same_groups(name: str, captures: list[str]) -> None:
    work = sample_models.load(name, data=False)
    assert work.example is not None
    masks = pruning.choose(CHANNEL, work)
    graph = dependency_graph(work.model, work.example)
    graphs.forget()
    again = pruning.choose(CHANNEL, work)
    groups = dependency_groups(work.model, work.example)
    assert len(captures) == 1
    assert list(masks) == list(again)
    assert all(torch.equal(masks[name], again[name]) for name in masks)
    assert (groups.groups, groups.blocked) == (graph.groups, graph.blocked)
    assert (groups.first_name, groups.how) == (graph.first_name, graph.captured.how)
    assert list(groups.unit_of_index) == list(graph.unit_of_index)
    for place, units in groups.unit_of_index.items():
        assert np.array_equal(units, graph.unit_of_index[place])
    # Only a compact model needs the operations themselves.
    pruning.shrink(work.model, masks, work.example)
    assert len(captures) == 2


def test_another_structure_is_another_file(workspace: Path, captures: list[str]) -> None:
    def residual(width: int) -> nn.Sequential:
        block = torchvision.models.resnet.Bottleneck(16, 4, base_width=width)
        return nn.Sequential(nn.Conv2d(3, 16, 1), block, nn.Conv2d(16, 4, 1)).eval()

    x = torch.randn(1, 3, 8, 8)
    for width in (64, 32):
        dependency_groups(residual(width), x)
    other = residual(32)
    other[1].stride = 7
    dependency_groups(other, x)
    dependency_groups(other, torch.randn(1, 3, 10, 10))
    assert len(captures) == 4
    assert len(list((workspace / "graphs").iterdir())) == 4


def test_new_code_asks_anew(captures: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    work = sample_models.load("digits-mlp", data=False)
    pruning.choose(CHANNEL, work)
    for name, value in (("source_hash", lambda: "other"), ("torch", _Torch())):
        with monkeypatch.context() as patch:
            patch.setattr(graph_files, name, value)
            graphs.forget()
            pruning.choose(CHANNEL, work)
    assert len(captures) == 3


class _Torch:
    __version__ = "99.0"


def test_what_has_no_version_is_not_kept(workspace: Path) -> None:
    class Local(nn.Sequential):
        """Nobody finds it by its name."""

    def layers() -> list[nn.Module]:
        return [nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)]

    x = torch.randn(1, 4)
    hooked, attributed = nn.Sequential(*layers()), nn.Sequential(*layers())
    hooked[0].register_forward_hook(lambda module, inputs, output: None)
    attributed.extra = lambda x: x
    traced = torch.fx.symbolic_trace(nn.Sequential(*layers()))
    for model in (Local(*layers()), hooked, attributed, traced):
        dependency_groups(model.eval(), x)
        assert not (workspace / "graphs").exists()
    graphs.forget()
    dependency_groups(nn.Sequential(*layers()).eval(), x)
    assert len(list((workspace / "graphs").iterdir())) == 1


def test_where_there_is_no_workspace_none_is_made(workspace: Path) -> None:
    workspace.rmdir()
    pruning.choose(CHANNEL, sample_models.load("digits-cnn", data=False))
    assert not workspace.exists()


def damaged(file: Path) -> list[bytes]:
    whole = file.read_bytes()
    middle = bytearray(whole)
    middle[len(whole) // 2] ^= 255
    return [b"", b"text", whole[: len(whole) // 2], bytes(middle), b"\x80\x04]\x94."]


def test_damaged_files_are_made_anew(workspace: Path, captures: list[str]) -> None:
    work = sample_models.load("digits-mlp", data=False)
    masks = pruning.choose(CHANNEL, work)
    (file,) = (workspace / "graphs").iterdir()
    for count, content in enumerate(damaged(file), start=2):
        file.write_bytes(content)
        graphs.forget()
        again = pruning.choose(CHANNEL, work)
        assert all(torch.equal(masks[name], again[name]) for name in masks)
        assert len(captures) == count
    graphs.forget()
    pruning.choose(CHANNEL, work)
    assert len(captures) == count  # and the last one made is whole


def test_groups_of_another_model_are_refused(workspace: Path) -> None:
    first, second = nn.Linear(4, 6), nn.Linear(5, 6)
    x = torch.randn(1, 4)
    small = nn.Sequential(first, nn.ReLU(), nn.Linear(6, 2)).eval()
    dependency_groups(small, x)
    (file,) = (workspace / "graphs").iterdir()
    other = nn.Sequential(second, nn.ReLU(), nn.Linear(6, 2))
    assert graph_files.read(file, dict(small.named_parameters())) is not None
    assert graph_files.read(file, dict(other.named_parameters())) is None
    assert not file.exists()


def test_the_folder_is_bounded(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph_files, "MOST_FILES", 3)
    folder = workspace / "graphs"
    for width in range(4, 10):
        model = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2)).eval()
        dependency_groups(model, torch.randn(1, 4))
        for age, file in enumerate(sorted(folder.iterdir(), key=lambda f: f.stat().st_mtime)):
            os.utime(file, (age, age))
    assert len(list(folder.iterdir())) == 3


def test_a_full_disk_costs_time_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez_compressed", full)
    pruning.choose(CHANNEL, sample_models.load("digits-cnn", data=False))
