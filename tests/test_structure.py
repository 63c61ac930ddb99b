"""Dependency groups, compact models and certificates, on nets that can be checked in the head."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from pruning import masks as engine
from pruning.errors import NotCaptured, NotTheSame
from pruning.events import Certificate
from pruning.structure import shrink as shrinking
from pruning.structure.dependency_graph import DependencyGraph, dependency_graph
from pruning.structure.liveness import Liveness
from pruning.structure.modules import cut
from pruning.structure.positions import smaller_inputs
from pruning.structure.rewrite import Rewrite
from pruning.structure.shrink import shrink, shrink_certified
from pruning.structure.unit_masks import masks_without, removed_units
from pruning.structure.verify import outputs
from tests.nets import NETS, Net, branching, conv, linear, net


def some_units(graph: DependencyGraph, share: float = 0.5, seed: int = 0) -> np.ndarray[Any, Any]:
    """A random share of each group."""
    generator = np.random.default_rng(seed)
    removed = np.zeros(graph.units, bool)
    for start, group in zip(graph.starts, graph.groups, strict=False):
        order = generator.permutation(group.units)
        removed[start + order[: int(group.units * share)]] = True
    return removed


def halved(
    model: nn.Module, example: Any, seed: int = 0
) -> tuple[DependencyGraph, np.ndarray[Any, Any], engine.Masks]:
    graph = dependency_graph(model, example)
    removed = some_units(graph, seed=seed)
    return graph, removed, masks_without(graph, removed, model)


def masked(model: nn.Module, masks: engine.Masks) -> nn.Module:
    copied = copy.deepcopy(model)
    engine.apply(masks, copied)
    return copied


@pytest.mark.parametrize("name", NETS)
def test_groups_are_those_written_beside_the_net(name: str) -> None:
    model, example = net(name)
    assert {
        group.name: (group.kind, group.units) for group in dependency_graph(model, example).groups
    } == NETS[name][2]


@pytest.mark.parametrize("name", NETS)
def test_half_of_each_group_is_removed_and_nothing_else_changes(name: str) -> None:
    model, example = net(name)
    before = copy.deepcopy(model.state_dict())
    graph, removed, masks = halved(model, example)
    assert smaller_inputs(graph.captured, example) is None, "small inputs are compared as they are"
    assert np.array_equal(removed_units(graph, masks), removed)
    compact, certificate = shrink_certified(model, masks, example)
    assert certificate.error <= 1e-12
    assert certificate.removed == removed.sum()
    assert certificate.frozen == ()
    # The same comparison with the dense model shows a difference.
    assert (certificate.control > 1e-3) == bool(removed.any())
    assert certificate.kept < certificate.parameters or not removed.any()
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    inputs = example if isinstance(example, tuple) else (example,)
    expected = outputs(masked(model, masks), inputs)
    for a, b in zip(expected, outputs(compact, inputs), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    assert set(compact.state_dict()) == set(model.state_dict())
    # No dimension of any tensor is emptied.
    assert all(0 not in p.shape for p in compact.parameters())


@pytest.mark.parametrize("name", NETS)
def test_masks_of_everything_keep_one_unit_of_each_group(name: str) -> None:
    model, example = net(name)
    graph = dependency_graph(model, example)
    masks = masks_without(graph, np.ones(graph.units, bool), model)
    compact, certificate = shrink_certified(model, masks, example)
    assert certificate.removed == graph.units - len(graph.groups)
    assert certificate.error <= 1e-12
    assert all(0 not in p.shape for p in compact.parameters())


def reasons(name: str) -> dict[tuple[str, int], str]:
    model, example = net(name)
    return {
        (b.parameter, b.dim): f"{b.operation}: {b.why}"
        for b in dependency_graph(model, example).blocked
    }


def test_what_cannot_be_removed_says_why() -> None:
    assert reasons("concat")["h.weight", 0] == "output: it is an output of the model"
    assert reasons("two_in_two_out")["a.weight", 1] == "linear: what it reads cannot lose channels"
    assert "lstm" in reasons("recurrent")["l.weight_hh_l0", 1]
    assert "lstm" in reasons("recurrent")["e.weight", 1]
    assert reasons("looked_up")["e.weight", 0] == "embedding: rows are looked up by number"
    assert (
        reasons("mixer")["i.weight", 0]
        == "layer_norm: its statistics count removed elements that are not zero"
    )
    assert "b.weight" not in {name for name, _ in reasons("concat")}


def test_members_by_hand() -> None:
    model, example = net("flatten")
    first = dependency_graph(model, example).groups[0]
    assert [(m.parameter, m.dim, m.each) for m in first.members] == [
        ("a.weight", 0, 1),
        ("a.bias", 0, 1),
        ("b.weight", 1, 9),
    ]
    model, example = net("packed_attention")
    heads = dependency_graph(model, example).groups[1]
    assert [(m.parameter, m.dim, m.each) for m in heads.members] == [
        ("m.in_proj_weight", 0, 12),
        ("m.in_proj_bias", 0, 12),
        ("m.out_proj.weight", 1, 4),
    ]


def test_a_model_with_a_branch_on_values_is_refused_with_its_line() -> None:
    with pytest.raises(NotCaptured, match=r"line \d+ of nets.py, `if x.sum\(\) > 0:` stops both"):
        dependency_graph(branching(), torch.randn(1, 4))


def test_what_export_refuses_is_traced_instead() -> None:
    class Counting(nn.Module):
        """Keeps a number of its calls, which torch.export will not have changed."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.h, self.seen = nn.Linear(4, 6), nn.Linear(6, 2), []

        def forward(self, x: Tensor) -> Tensor:
            self.seen.append(x)
            out: Tensor = self.h(self.a(x).relu())
            return out

    model, example = Counting().eval(), torch.randn(1, 4)
    graph = dependency_graph(model, example)
    assert [group.units for group in graph.groups] == [6]
    model.seen.clear()
    assert (
        shrink_certified(model, masks_without(graph, some_units(graph), model), example)[1].error
        <= 1e-12
    )


def test_an_architecture_is_analysed_once_and_another_is_not_taken_for_it() -> None:
    model, example = net("residual")
    assert dependency_graph(model, example) is dependency_graph(copy.deepcopy(model), example)
    one = Net({"a": linear(4, 6), "h": linear(6, 2)}, lambda m, x: m.h(m.a(x).relu()))
    other = Net(
        {"a": linear(4, 6), "h": linear(6, 2)}, lambda m, x: m.h(m.a(x).relu()) + m.a(x)[:, :2]
    )
    x = torch.randn(1, 4)
    assert dependency_graph(one, x) is not dependency_graph(other, x)
    # A cached graph has no weights.
    assert all(p.is_meta for p in dependency_graph(one, x).captured.graph.parameters())


def test_a_wrong_compact_model_is_never_handed_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A rewriting that goes wrong for one group: that is frozen and named, the rest is removed."""
    model, example = net("separate_attention")
    _, removed, masks = halved(model, example)
    correct = shrinking.build

    def wrong(model: nn.Module, rewrite: Rewrite, masks: engine.Masks) -> Any:
        compact = correct(model, rewrite, masks)
        if compact.q.weight.shape[0] < 12:
            _scaled(compact)
        return compact

    monkeypatch.setattr(shrinking, "build", wrong)
    compact, certificate = shrink_certified(model, masks, example)
    assert [(f.group, f.units) for f in certificate.frozen] == [("q.weight", 1)]
    assert certificate.error <= 1e-12
    assert certificate.removed == removed.sum() - 1
    assert compact.q.weight.shape == (12, 6)  # type: ignore[union-attr]

    monkeypatch.setattr(shrinking, "build", lambda *args: _scaled(correct(*args)))
    with pytest.raises(NotTheSame, match="it is not handed out"):
        shrink_certified(model, masks, example)


def _scaled(compact: Any) -> Any:
    for node in compact.graph.nodes:
        if node.op == "call_function" and node.target is torch.ops.aten.div.Tensor:
            node.args = (node.args[0], 3)
    compact.recompile()
    return compact


def test_certificates_survive_their_file() -> None:
    model, example = net("residual")
    certificate = shrink_certified(model, halved(model, example)[2], example)[1]
    assert Certificate.from_dict(certificate.to_dict()) == certificate


def test_masks_of_single_weights_stay_as_zeros() -> None:
    model, example = net("residual")
    masks = {"b.weight": torch.rand(4, 6, 1, 1) > 0.5}
    compact, certificate = shrink_certified(model, masks, example)
    assert certificate.removed == 0
    assert torch.equal(compact.b.weight != 0, masks["b.weight"])  # type: ignore[union-attr]


# ---------------------------------------------------------------- it trains, copies, saves, exports


class Trained(nn.Module):
    """Acts in training alone: BatchNorm, stochastic depth, dropouts as modules and functions."""

    def __init__(self, p: float = 0.0) -> None:
        super().__init__()
        self.a, self.n, self.drop = (
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.Dropout2d(p),
        )
        self.b, self.depth, self.h, self.p = (
            nn.Conv2d(8, 8, 3, padding=1),
            StochasticDepth(0.4, "row"),
            nn.Linear(8, 3),
            p,
        )
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.n(self.a(x)))
        x = x + self.depth(self.b(self.drop(x)))
        out: Tensor = self.h(
            nn.functional.dropout(self.relu(x).mean((2, 3)), self.p, self.training)
        )
        return out


def step(model: nn.Module, x: Tensor) -> float:
    torch.manual_seed(3)
    model.train()
    model.zero_grad()
    loss = model(x).square().mean()
    loss.backward()
    return float(loss)


def test_masked_and_compact_train_alike() -> None:
    torch.manual_seed(0)
    model, x = Trained().eval(), torch.randn(6, 1, 6, 6)
    _, _, masks = halved(model, x)
    compact, dense = shrink(model, masks, x), masked(model, masks)
    assert step(dense, x) == pytest.approx(step(compact, x), abs=1e-6)
    liveness = Liveness(
        dependency_graph(model, x), removed_units(dependency_graph(model, x), masks)
    )
    theirs = dict(dense.named_parameters())
    assert {name for name, _ in compact.named_parameters()} == set(theirs)
    for name, parameter in compact.named_parameters():
        grad = theirs[name].grad
        assert grad is not None
        assert parameter.grad is not None
        assert torch.allclose(cut(liveness, name, grad), parameter.grad, atol=1e-6)
    for name, buffer in compact.named_buffers():  # the statistics moved alike
        assert torch.allclose(
            cut(liveness, name, dict(dense.named_buffers())[name]), buffer, atol=1e-6
        )


def test_dropout_and_stochastic_depth_act_in_training_alone() -> None:
    torch.manual_seed(0)
    model, x = Trained(0.5).eval(), torch.randn(6, 1, 6, 6)
    compact = shrink(model, halved(model, x)[2], x)
    assert not compact.training
    assert torch.equal(compact(x), compact(x))
    compact.train()
    assert not torch.equal(compact(x), compact(x))
    kinds = {name: type(module).__name__ for name, module in compact.named_modules()}
    assert (kinds["drop"], kinds["depth"], kinds["n"], kinds["relu"]) == (
        "Dropout2d",
        "StochasticDepth",
        "BatchNorm2d",
        "ReLU",
    )
    assert [m.p for name, m in compact.named_modules() if name.startswith("dropout")] == [0.5]
    attention = nn.Sequential(
        nn.TransformerEncoder(
            nn.TransformerEncoderLayer(8, 2, 16, dropout=0.3, batch_first=True), 1
        )
    ).eval()
    words = torch.randn(2, 5, 8)
    compact = shrink(attention, halved(attention, words)[2], words)
    assert {m.p for m in compact.modules() if hasattr(m, "p")} == {0.3}
    assert sum(type(m).__name__ == "Attention" for m in compact.modules()) == 1


def test_it_copies_saves_loads_and_exports() -> None:
    torch.manual_seed(0)
    model, x = Trained().eval(), torch.randn(2, 1, 6, 6)
    _, _, masks = halved(model, x)
    compact = shrink(model, masks, x)
    expected = compact(x)
    assert torch.equal(copy.deepcopy(compact)(x), expected)
    file = io.BytesIO()
    torch.save(compact.state_dict(), file)
    file.seek(0)
    again = shrink(Trained().eval(), masks, x)  # another model of the architecture, the same masks
    again.load_state_dict(torch.load(file, weights_only=True))
    assert torch.equal(again(x), expected)
    program = torch.export.export(compact, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))
    assert torch.allclose(
        program.module()(torch.cat([x, x])), torch.cat([expected, expected]), atol=1e-6
    )


def test_it_runs_in_onnx_runtime() -> None:
    import onnxruntime

    torch.manual_seed(0)
    model, x = Trained().eval(), torch.randn(2, 1, 6, 6)
    compact = shrink(model, halved(model, x)[2], x)
    file = io.BytesIO()
    program = torch.onnx.export(compact, (x,), dynamo=True, verbose=False)
    program.save(file)  # type: ignore[union-attr, arg-type]
    session = onnxruntime.InferenceSession(file.getvalue())
    (output,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    assert np.abs(output - compact(x).detach().numpy()).max() < 1e-5


def test_rounds_keep_the_first_analysis_and_never_revive() -> None:
    model, example = net("residual")
    graph = dependency_graph(model, example)
    first, more = some_units(graph, 0.3), some_units(graph, 0.7, seed=1)
    masks = engine.intersect(masks_without(graph, more, model), masks_without(graph, first, model))
    removed = removed_units(graph, masks)
    assert (
        np.array_equal(removed, first | more) or removed.sum() < (first | more).sum()
    )  # unless that empties a group
    assert shrink_certified(model, masks, example)[1].error <= 1e-12


# ---------------------------------------------------------------- random nets


@settings(max_examples=12)
@given(
    some.lists(
        some.tuples(
            some.sampled_from(["plain", "residual", "concat", "depthwise"]), some.integers(2, 5)
        ),
        min_size=1,
        max_size=4,
    ),
    some.integers(0, 99),
)
def test_random_nets_shrink_exactly(blocks: list[tuple[str, int]], seed: int) -> None:
    layers: dict[str, Any] = {"stem": conv(1, 4)}
    width = 4
    for i, (kind, n) in enumerate(blocks):
        if kind == "plain":
            layers[f"b{i}"] = conv(width, n)
            width = n
        elif kind == "residual":
            layers[f"b{i}"] = conv(width, width, 3, padding=1)
        elif kind == "concat":
            layers[f"b{i}"] = conv(width, n)
            width += n
        else:
            layers[f"b{i}"] = conv(width, width, 3, padding=1, groups=width)
    layers["h"] = linear(width, 3)

    def run(m: Any, x: Tensor) -> Any:
        x = m.stem(x).relu()
        for i, (kind, _) in enumerate(blocks):
            y = getattr(m, f"b{i}")(x)
            x = (
                x + y if kind == "residual" else torch.cat([x, y], 1) if kind == "concat" else y
            ).sigmoid()
        return m.h(x.mean((2, 3)))

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Net(layers, run).eval()
        x = torch.randn(1, 1, 4, 4)
    _, removed, masks = halved(model, x, seed)
    certificate = shrink_certified(model, masks, x)[1]
    assert certificate.error <= 1e-12
    assert certificate.removed == removed.sum()
