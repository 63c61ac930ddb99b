"""Compact models hold for the input sizes that the original takes, or refuse others in words."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models import VisionTransformer

from pruning import masks as engine
from pruning.structure import shrink as shrinking
from pruning.structure.capture import capture
from pruning.structure.dependency_graph import dependency_graph
from pruning.structure.shrink import shrink_certified
from pruning.structure.size_words import sizes_in_words
from pruning.structure.verify import distance, outputs
from tests.nets import Net, conv, linear
from tests.test_structure import halved

Made = tuple[nn.Module, Any]


def picture(layers: Any, run: Callable[..., Any], side: int = 16) -> Made:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Net(layers, run).eval(), torch.randn(2, 3, side, side)


def averaged_by_hand() -> Made:
    """The number of positions is a number in the graph."""
    layers = {"a": conv(3, 8, 3, padding=1), "h": linear(8, 4)}
    return picture(layers, lambda m, x: m.h(m.a(x).relu().sum((2, 3)) / (x.shape[2] * x.shape[3])))


def resized() -> Made:
    """A head that resizes to its input."""
    layers = {"a": conv(3, 8, 3, padding=1), "h": conv(8, 4)}

    def run(m: Any, x: Tensor) -> Any:
        small = m.a(x).relu()[..., ::2, ::2]
        return {"out": F.interpolate(m.h(small), size=x.shape[-2:], mode="bilinear")}

    return picture(layers, run)


def viewed() -> Made:
    """Positions in one row, by sizes that the code reads."""
    layers = {"a": conv(3, 8, 3, padding=1), "h": linear(8, 4)}

    def run(m: Any, x: Tensor) -> Any:
        n, c, h, w = m.a(x).shape
        return m.h(m.a(x).relu().reshape(n, c, h * w).transpose(1, 2)).view(n, h, w, 4)

    return picture(layers, run)


def shuffled() -> Made:
    layers = {"a": conv(3, 8), "b": conv(8, 8, 3, padding=1), "h": linear(8, 4)}

    def run(m: Any, x: Tensor) -> Any:
        x = m.a(x).relu()
        n, c, h, w = x.size()
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        return m.h(m.b(x).relu().mean((2, 3)))

    return picture(layers, run)


def pieces_of_positions() -> Made:
    """As many pieces as there are rows: no line reads a size."""
    layers = {"a": conv(3, 8, 3, padding=1), "h": linear(8, 4)}

    def run(m: Any, x: Tensor) -> Any:
        return m.h(sum(piece.sum(2) for piece in m.a(x).relu().split(8, 2)).mean(2))

    return picture(layers, run)


def padded_windows() -> Made:
    """Padded to windows of five by five, and cut to size again."""
    layers = {"a": conv(3, 8), "b": linear(25, 25), "h": linear(8, 4)}

    def run(m: Any, x: Tensor) -> Any:
        x = m.a(x).relu()
        n, c, h, w = x.shape
        x = F.pad(x, (0, (5 - w % 5) % 5, 0, (5 - h % 5) % 5))
        high, wide = x.shape[2] // 5, x.shape[3] // 5
        x = x.view(n, c, high, 5, wide, 5).transpose(3, 4).reshape(n, c, -1, 25)
        x = m.b(x).view(n, c, high, wide, 5, 5).transpose(3, 4).reshape(n, c, high * 5, wide * 5)
        return m.h(x[:, :, :h, :w].relu().mean((2, 3)))

    return picture(layers, run)


def tokens() -> Made:
    """Positions looked up by the length of the text."""
    layers = {
        "e": lambda: nn.Embedding(9, 8),
        "p": lambda: nn.Embedding(32, 8),
        "a": linear(8, 12),
        "h": linear(12, 3),
    }

    def run(m: Any, x: Tensor) -> Any:
        return m.h(m.a(m.e(x) + m.p(torch.arange(x.size(1)))).relu())

    model, _ = picture(layers, run)
    return model, torch.randint(0, 9, (2, 6))


def two_pictures() -> Made:
    layers = {"a": conv(3, 8, 3, padding=1), "b": conv(3, 8, 3, padding=1), "h": conv(8, 2)}
    model, x = picture(
        layers, lambda m, x, y: m.h(F.interpolate(m.a(x), y.shape[2:]).relu() + m.b(y))
    )
    return model, (x, torch.randn(2, 3, 16, 16))


HOLD = [averaged_by_hand, resized, viewed, shuffled, padded_windows, tokens, two_pictures]


@pytest.mark.parametrize("make", HOLD)
def test_it_holds_for_other_sizes(make: Callable[[], Made]) -> None:
    model, example = make()
    _, _, masks = halved(model, example)
    compact, certificate = shrink_certified(model, masks, example)
    assert certificate.error <= 1e-12 and certificate.removed > 0 and not certificate.frozen
    sizes = {check.partition(" of ")[2] for check in certificate.checks}
    assert len(sizes) >= 3
    assert "alone" not in certificate.sizes
    masked = copy.deepcopy(model)
    engine.apply(masks, masked)
    inputs = example if isinstance(example, tuple) else (example,)
    # Larger by half, which no check has asked for.
    others = tuple(
        torch.cat([x, x[..., : x.shape[-1] // 2]], -1)[:, :, : x.shape[-1]]
        if x.dim() > 3
        else torch.cat([x, x[:, :4]], 1)
        for x in inputs
    )
    with torch.no_grad():
        assert distance(outputs(masked, others), outputs(compact, others)) < 1e-5


def in_windows() -> Made:
    """Windows of four by four: no other sizes than their multiples."""
    layers = {"a": conv(3, 8), "b": linear(16, 16), "h": linear(8, 4)}

    def run(m: Any, x: Tensor) -> Any:
        x = m.a(x).relu()
        n, c, h, w = x.shape
        windows = x.view(n, c, h // 4, 4, w // 4, 4).transpose(3, 4).reshape(n, c, -1, 16)
        return m.h(m.b(windows).relu().mean((2, 3)))

    return picture(layers, run)


def other_above() -> Made:
    """Another network for large pictures."""
    layers = {"a": conv(3, 8, 3, padding=1), "h": linear(8, 4)}

    def run(m: Any, x: Tensor) -> Any:
        y = m.a(x).relu()
        return m.h((y * 0.5 if x.shape[-1] > 20 else y).mean((2, 3)))

    return picture(layers, run)


def learned_positions() -> Made:
    layers = {"a": conv(3, 8), "p": lambda: nn.Embedding(256, 8), "h": linear(8, 4)}

    def run(m: Any, x: Tensor) -> Any:
        y = m.a(x).relu().flatten(2).transpose(1, 2)
        return m.h((y + m.p.weight).mean(1))

    return picture(layers, run)


@pytest.mark.parametrize("make", [in_windows, other_above, learned_positions, pieces_of_positions])
def test_sizes_that_it_does_not_hold_for_are_refused(make: Callable[[], Made]) -> None:
    """Never other numbers: an error, of ours where torch has none."""
    model, x = make()
    _, _, masks = halved(model, x)
    compact, certificate = shrink_certified(model, masks, x)
    assert certificate.error <= 1e-12 and certificate.removed > 0
    masked = copy.deepcopy(model)
    engine.apply(masks, masked)
    agreed = refused = 0
    for height, width in ((16, 16), (16, 24), (20, 16), (18, 22), (32, 32)):
        other = torch.randn(2, 3, height, width)
        try:
            actual = outputs(compact, (other,))
        except (ValueError, RuntimeError):
            refused += 1
            continue
        assert distance(outputs(masked, (other,)), actual) < 1e-5
        agreed += 1
    assert agreed and refused


def test_a_refusal_names_the_sizes_and_the_way_out() -> None:
    model, x = other_above()
    compact, certificate = shrink_certified(model, halved(model, x)[2], x)
    assert certificate.sizes == "height any, width from 1 to 20"
    match = r"made for inputs of 3 × 16 × 16 .* 3 × 16 × 24: it holds for height any, width .* Make"
    with pytest.raises(ValueError, match=match):
        compact(torch.randn(1, 3, 16, 24))
    # Copies and files of the module refuse as well.
    file = io.BytesIO()
    torch.save(copy.deepcopy(compact), file)
    file.seek(0)
    with pytest.raises(ValueError, match=match):
        torch.load(file, weights_only=False)(torch.randn(1, 3, 16, 24))


def halved_five_times() -> nn.Module:
    """Down to one position, and torch.export takes a size of 1 for fixed where shapes are read."""
    layers = {f"c{i}": conv(4 if i else 3, 4, 3, padding=1, stride=2) for i in range(5)}

    def run(m: Any, x: Tensor) -> Any:
        for i in range(5):
            x = getattr(m, f"c{i}")(x)
        n, c, h, w = x.size()
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, c, h, w)
        return m.h(x.mean((2, 3)))

    return picture({**layers, "h": linear(4, 4)}, run)[0]


@pytest.mark.parametrize(
    ("make", "side", "words"),
    [
        (
            lambda: timm.create_model("test_vit", depth=1),
            64,
            "height and width multiples of 16, from 16 on",
        ),
        (
            lambda: VisionTransformer(32, 16, 1, 2, 16, 16, num_classes=4),
            32,
            "3 × 32 × 32 only",
        ),
        (halved_five_times, 96, "height and width at least 33"),
        (lambda: timm.create_model("test_resnet"), 64, "every size that the original takes"),
    ],
)
def test_sizes_are_said_in_words(make: Callable[[], nn.Module], side: int, words: str) -> None:
    assert capture(make().eval(), torch.randn(2, 3, side, side)).sizes.in_words() == words


@pytest.mark.parametrize(
    ("shape", "conditions", "words"),
    [
        ((1, 3, 64, 64), ["x.shape[2] == x.shape[3]"], "squares of every size"),
        (
            (1, 3, 64, 64),
            ["x.shape[2] == x.shape[3]", "x.shape[2] > 9"],
            "squares of side at least 10",
        ),
        (
            (1, 3, 64, 96),
            ["x.shape[2] % 32 == 0", "x.shape[3] >= 8"],
            "height multiples of 32, from 32 on, width at least 8",
        ),
        (
            (1, 3, 64, 64),
            ["x.shape[2] % 32 == 0 and x.shape[2] <= 128", "x.shape[3] == 64"],
            "height multiples of 32, from 32 to 128, width 64 only",
        ),
        (
            (1, 3, 64, 64),
            ["x.shape[2] <= 600", "x.shape[3] <= 600"],
            "height and width from 1 to 512 at least",
        ),
        (
            (1, 3, 64, 64),
            ["x.shape[2] * x.shape[3] == 4096"],
            "3 × 64 × 64, and those others that its own check lets pass",
        ),
        ((1, 12), ["x.shape[1] <= 32"], "lengths from 1 to 32"),
        ((1, 5, 4), ["x.shape[2] == 4", "x.shape[1] <= 9"], "lengths from 1 to 9"),
        (
            (1, 5, 4),
            ["x.shape[2] == 4", "x.shape[1] in (3, 5, 6, 8, 20)"],
            "lengths 3, 5, 6 or 8, or some of the others",
        ),
    ],
)
def test_conditions_become_words(shape: tuple[int, ...], conditions: list[str], words: str) -> None:
    assert sizes_in_words(("x",), (shape,), tuple(conditions)) == words


def test_what_differs_at_other_sizes_is_handed_out_for_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A rewriting that is right at the example's size alone."""
    model, x = resized()
    correct = shrinking.build

    def wrong(*args: Any) -> Any:
        compact = correct(*args)
        for node in compact.graph.nodes:
            if "upsample" in str(node.target):
                node.args = (node.args[0], [16, 16], *node.args[2:])
        compact.recompile()
        return compact

    monkeypatch.setattr(shrinking, "build", wrong)
    compact, certificate = shrink_certified(model, halved(model, x)[2], x)
    assert certificate.error <= 1e-12
    assert certificate.sizes.startswith("3 × 16 × 16 alone, for the compact model differs")
    with pytest.raises(ValueError, match="Make it again with an example of that size"):
        compact(torch.randn(1, 3, 24, 24))


class Remembering(nn.Module):
    """Keeps a table for each size that it has seen, as attention biases are."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.h, self.tables = nn.Linear(4, 6), nn.Linear(6, 2), {}
        self.bias = nn.Parameter(torch.randn(9, 6))

    def forward(self, x: Tensor) -> Any:
        length = x.shape[1]
        if length not in self.tables:
            self.tables[length] = self.bias[:length]
        return self.h(self.a(x).relu() + self.tables[length])


def test_tables_that_a_model_keeps_are_of_no_other_recording() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = Remembering().eval(), torch.randn(2, 5, 4)
    graph = dependency_graph(model, x)
    assert graph.captured.how == "torch.export" and graph.units == 6
    assert not model.tables
