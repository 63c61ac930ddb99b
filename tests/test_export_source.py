"""`model.py`: the network written out gives the network's answers, where nothing of ours is."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

import sample_models
from pruning.errors import ModelError
from pruning.export import source
from pruning.structure.capture import Example, inputs
from pruning.structure.dependency_graph import dependency_graph
from pruning.structure.modules import build
from pruning.structure.rewrite import Rewrite
from pruning.structure.shrink import shrink
from tests.nets import NETS, Net, linear, net
from tests.short_nets import pictures, short
from tests.test_structure_kinds import made

CONNECTIONS = """
    two_in_two_out shared one_channel packed_attention upward looked_up recurrent shuffled mixer
    gated regions
"""
"""Nets in each of which something is written in a way of its own."""

FRESH = """
import importlib.util, sys
from pathlib import Path

class Nothing:
    '''Nothing of the workbench can be imported, and nothing beside torch's own needs.'''
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("pruning", "sample_models", "dashboard", "torchvision", "timm"):
            raise ImportError(name)

sys.meta_path.insert(0, Nothing())
import torch
from safetensors.torch import load_file

for folder in sorted(Path(sys.argv[1]).iterdir()):
    spec = importlib.util.spec_from_file_location("model", folder / "model.py")
    room = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(room)
    tried = load_file(folder / "tried.safetensors")
    with torch.no_grad():
        outputs = room.load()(tried["x"])
    torch.testing.assert_close(outputs, tried["y"], rtol=1e-5, atol=1e-5)
    print(folder.name)
"""


ZOO = ("mobilenet_v3", "densenet", "resnet", "vit")
"""Families that have in them what the sample models do not, the first two most."""


def recorded(model: nn.Module, example: Example, share: float) -> Any:
    """The network without that share of each group's units, uncertified: that takes longer."""
    graph = dependency_graph(model, example)
    removed = np.zeros(graph.units, bool)
    for start, end in pairwise(graph.starts):
        removed[start : start + int(share * (end - start))] = True
    rewrite = Rewrite(graph, removed)
    rewrite.run()
    return build(model, rewrite, {}).eval()


@pytest.mark.parametrize("every", [False, pytest.param(True, marks=pytest.mark.long)])
def test_written_networks_give_the_same_answers_where_only_torch_is(
    every: bool, tmp_path: Path
) -> None:
    """Compact ones, which have all that masked ones have; of some samples, or each, those too."""
    works: dict[str, tuple[nn.Module, Tensor]] = {}
    # The first of each architecture: of another width or depth it is written by the same lines.
    names = reversed(sample_models.names())
    samples = {sample_models.sample(name).architecture.partition(":")[0]: name for name in names}
    for name in samples.values():
        work = sample_models.load(name, data=False)
        assert work.example is not None
        works[name] = work.model, work.example
    families = ZOO if every else ZOO[:2]
    works |= {name: (short(name), pictures(name)) for name in families}
    masked = samples.values() if every else (samples["mlp"], samples["vit"])
    for name, (model, example) in works.items():
        for kind, share in (("masked", 0.0), ("compact", 0.5))[name not in masked :]:
            module = recorded(model, example, share)
            written = source.write(module, example, f"{name}, {kind}")
            assert "torch.ops" not in written.text  # all of it is in PyTorch's usual words
            folder = tmp_path / f"{name}-{kind}"
            folder.mkdir()
            (folder / "model.py").write_text(written.text, encoding="utf-8")
            save_file(written.state, folder / source.WEIGHTS)
            # Not the example that it was written by, and another batch.
            x = torch.randn(3, *example.shape[1:])
            with torch.no_grad():
                tried = {"x": x, "y": module(x).contiguous()}
            save_file(tried, folder / "tried.safetensors")
    command = [sys.executable, "-I", "-c", FRESH, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.split()) == len(works) + len(masked)


@pytest.mark.parametrize("name", CONNECTIONS.split())
def test_every_kind_of_connection_is_written_out(name: str) -> None:
    model, example = net(name) if name in NETS else made(name)
    module = recorded(model, example, 0.5)
    written = source.write(module, example, name)  # which holds them to each other
    fresh = source.loaded(written)
    names = set(dict(module.named_parameters(remove_duplicate=False)))
    assert names == set(dict(fresh.named_parameters(remove_duplicate=False)))
    assert {n for n in names if "." in n} <= {re.sub(r"\[(\d+)\]", r".\1", n) for n in names}


def test_the_source_reads_as_people_write_it() -> None:
    work = sample_models.load("digits-resnet", data=False)
    assert work.example is not None
    text = source.write(shrink(work.model, {}, work.example), work.example, "A network").text
    assert "self.conv = nn.Conv2d(1, 16, 3, padding=1, bias=False)" in text
    assert "        x = self.conv(x)\n" in text
    assert re.search(r"^        x = [xyz] \+ [xyz]$", text, re.MULTILINE)
    assert max(map(len, text.splitlines())) <= 110


def test_layers_called_by_numbers_are_entries_of_the_network() -> None:
    layers = (nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = nn.Sequential(*layers, nn.Linear(4, 2)).eval()
    example = torch.randn(2, 1, 8, 8)
    written = source.write(recorded(model, example, 0.5), example, "numbered")
    assert "class Model(nn.ModuleDict):" in written.text
    assert "        self['0'] = nn.Conv2d(1, 2, 3)\n" in written.text
    assert "        x = self['4'](x)\n" in written.text and "getattr" not in written.text


def test_ties_precision_and_frozen_layers_stay() -> None:
    def run(m: Any, x: Tensor) -> dict[str, Any]:
        y = m.b(m.a(x).relu())
        return {"out": y.float(), "parts": (y, [x])}

    model = Net({"a": linear(5, 5), "b": linear(5, 5)}, run)
    model.b.weight = model.a.weight  # type: ignore[union-attr]
    model.a.bias.requires_grad_(False)  # type: ignore[union-attr]
    model.to(torch.bfloat16).eval()
    x = torch.randn(2, 5, dtype=torch.bfloat16)
    written = source.write(recorded(model, x, 0.0), x, "tied")  # type: ignore[arg-type]
    fresh = source.loaded(written)
    assert fresh.b.weight is fresh.a.weight and fresh.a.weight.dtype is torch.bfloat16
    assert set(written.state) == {"a.weight", "a.bias", "b.bias"}
    outputs = fresh(x)
    assert set(outputs) == {"out", "parts"} and torch.equal(outputs["parts"][1][0], x)


def test_what_acts_in_training_still_does() -> None:
    layers = {
        "a": linear(5, 5),
        "depth": lambda: torchvision.ops.StochasticDepth(0.5, "row"),
        "drop": lambda: nn.Dropout(0.5),
    }
    model = Net(layers, lambda m, x: x + m.depth(m.drop(m.a(x)))).eval()
    x = torch.randn(64, 5)
    fresh = source.loaded(source.write(recorded(model, x, 0.0), x, "stochastic depth"))
    assert {"DropPath", "Dropout"} <= {type(module).__name__ for module in fresh.modules()}
    fresh.train()
    assert not torch.equal(fresh(x), fresh(x))
    skipped = (fresh(x) == x).all(1).float().mean()
    assert 0.2 < skipped < 0.8


def test_a_name_from_elsewhere_ends_no_string_and_no_comment() -> None:
    """Names of layers may come from a file: they are written as data."""
    planted = "a'; raise SystemExit(1) #"
    x = torch.randn(2, 4)
    title = '"""\nraise SystemExit(2)\n\\'
    network = shrink(nn.Sequential(nn.Linear(4, 4)), {}, x)
    writer = source._Writer(network, x, title, True)  # type: ignore[arg-type]
    tree = ast.parse(writer.run()[0])
    assert "SystemExit" not in {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    part = source._Part(parts={planted: source._Part(nn.ReLU()), "class": source._Part(nn.Tanh())})
    block = ast.parse(writer._part(part, 0), mode="eval").body
    assert isinstance(block, ast.Call) and isinstance(block.keywords[0].value, ast.Dict)
    names = [ast.literal_eval(key) for key in block.keywords[0].value.keys if key]
    assert names == [planted, "class"]


def test_what_torch_alone_does_not_have_is_refused_in_words() -> None:
    x = torch.randn(2, 4)
    module = shrink(nn.Sequential(nn.Linear(4, 4)), {}, x)

    class Other(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x

    module.add_module("0", Other())
    with pytest.raises(ModelError, match="class Other, which is not torch's"):
        source.write(module, x, "unknown")  # type: ignore[arg-type]


def test_inputs_of_several_kinds_are_named() -> None:
    model, example = net("two_in_two_out")
    text = source.write(recorded(model, example, 0.5), example, "two").text
    assert len(inputs(example)) == 2
    assert re.search(r"def forward\(self, \w+: Tensor, \w+: Tensor\)", text)


def test_other_sizes_are_taken_or_refused_as_by_the_recorded_network() -> None:
    def run(m: Any, x: Tensor) -> Tensor:
        out: Tensor = m.b(x.flatten(1))
        return out

    fixed = Net({"b": linear(16, 3)}, run).eval()
    x = torch.randn(2, 1, 4, 4)
    network = recorded(fixed, x, 0.0)
    fresh = source.loaded(source.write(network, x, "fixed"))
    free = Net({"a": lambda: nn.Conv2d(1, 4, 3)}, lambda m, x: m.a(x).mean((2, 3)) / x.shape[2])
    anywhere = source.loaded(source.write(recorded(free.eval(), x, 0.0), x, "free"))
    wide = torch.randn(2, 1, 4, 8)
    torch.testing.assert_close(anywhere(wide), free(wide))
    for module in (network, fresh):
        with pytest.raises((ValueError, RuntimeError)):
            module(wide)
