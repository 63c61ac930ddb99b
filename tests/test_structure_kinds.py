"""Kinds of networks that people report other tools to fail at: each shrinks, and exactly."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pruning
from pruning import masks as engine
from pruning.errors import NotTheSame
from pruning.export.source import write
from pruning.recipe import Recipe
from pruning.structure.dependency_graph import dependency_graph
from pruning.structure.shrink import shrink_certified
from pruning.structure.verify import InDouble, distance, outputs
from pruning.types import Workpiece
from tests.nets import Net, conv, linear
from tests.test_structure import halved

PICTURE, FLAT, TEXT, SERIES = (2, 3, 8, 8), (2, 8), "text", (2, 4, 6)
Kind = tuple[Callable[..., Any], dict[str, Any], Any]


def raw(*shape: int) -> Callable[[], nn.Module]:
    """A parameter that belongs to no layer: `m.w[0]`."""
    return lambda: nn.ParameterList([nn.Parameter(torch.randn(shape) / 3)])


def between(run: Callable[[Tensor], Tensor]) -> Callable[..., Any]:
    """A function between two layers a and b."""
    return lambda m, x: m.b(run(m.a(x)))


CONVS = {"a": conv(3, 16, 3), "b": conv(16, 4)}
LINEARS = {"a": linear(8, 16), "b": linear(16, 3)}
SCALE = {"w": raw(16, 1, 1), "c": raw(16, 1, 1)}


def norm_by_hand(m: Any, x: Tensor) -> Any:
    x = m.a(x)
    mean = x.mean(1, keepdim=True)
    var = (x - mean).pow(2).mean(1, keepdim=True)
    return m.b((x - mean) / (var + 1e-6).sqrt() * m.w[0] + m.c[0])


def norm_by_var(m: Any, x: Tensor) -> Any:
    x = m.a(x).permute(0, 2, 3, 1)
    var, mean = torch.var_mean(x, dim=-1, keepdim=True)
    x = (x - mean) / (var + 1e-6).sqrt() + (x.std(-1, keepdim=True) - x.var(-1, keepdim=True))
    return m.b((x * m.w[0].flatten()).permute(0, 3, 1, 2))


def spatial_attention(m: Any, x: Tensor) -> Any:
    """Mean and extremes over channels, removed ones at sigmoid(0) among them."""
    x = m.a(x).sigmoid()
    pooled = (x.mean(1, True), x.max(1, True)[0], x.amin(1, True), x.sum(1, True))
    return m.b(x) * m.k(torch.cat(pooled, 1)).sigmoid()


def response_norm(m: Any, x: Tensor) -> Any:
    x = F.gelu(m.a(x))
    size = torch.norm(x, p=2, dim=(2, 3), keepdim=True)
    return m.b(m.w[0] * (x * (size / (size.mean(1, keepdim=True) + 1e-6))) + m.c[0] + x)


def cosine(m: Any, x: Tensor) -> Any:
    x = F.normalize(m.a(x).relu(), dim=-1)
    return F.linear(x, F.normalize(m.w[0], dim=-1)) * 10


def gru(m: Any, x: Tensor) -> Any:
    """Input and state concatenated; the state starts from zeros."""
    h = x.new_zeros(x.shape[0], 16)
    for t in range(x.shape[1]):
        z, r = m.g(torch.cat([x[:, t], h], 1)).sigmoid().chunk(2, 1)
        h = (1 - z) * m.n(torch.cat([x[:, t], r * h], 1)).tanh() + z * h
    return m.h(h)


def lstm(m: Any, x: Tensor) -> Any:
    h = c = torch.zeros(x.size(0), 16)
    for t in range(x.size(1)):
        i, f, g, o = (m.i(x[:, t]) + m.r(h)).chunk(4, 1)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
    return m.h(h)


def rnn(m: Any, x: Tensor) -> Any:
    """A state that starts from a half, a raw weight, and all states as output."""
    h, states = torch.full((x.shape[0], 16), 0.5), []
    for t in range(x.shape[1]):
        h = (m.i(x[:, t]) + h @ m.w[0]).tanh()
        states.append(h)
    return m.h(torch.stack(states, 1))


def variational(m: Any, x: Tensor) -> Any:
    x = m.a(x).relu()
    mean, spread = m.mean(x), (0.5 * m.spread(x)).exp()
    return m.h(mean + torch.randn_like(mean) * spread)


def noisy(x: Tensor) -> Tensor:
    """Random numbers by a mask, in place, by probabilities, and of a fixed size."""
    x = F.dropout(x.relu(), 0.3, training=True)
    x = x + torch.empty_like(x).normal_() * 0.1 + torch.rand(x.shape[0], 16)
    return x * torch.bernoulli(x.sigmoid())


def rotary(kind: str) -> Callable[..., Any]:
    def turned(x: Tensor) -> Tensor:
        powers = 1 / (100 ** (torch.arange(0, 8, 2).float() / 8))
        angles = torch.outer(torch.arange(x.shape[-2]).float(), powers)
        if kind == "halves":
            cos, sin = (torch.cat([f(angles)] * 2, -1) for f in (torch.cos, torch.sin))
            return x * cos + torch.cat([-x[..., 4:], x[..., :4]], -1) * sin
        if kind == "pairs":
            a, b = x[..., ::2], x[..., 1::2]
            cos, sin = angles.cos(), angles.sin()
            return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)
        pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], 4, 2))
        turns = torch.polar(torch.ones_like(angles), angles)
        return torch.view_as_real(pairs * turns).flatten(-2).type_as(x)

    def run(m: Any, x: Tensor) -> Any:
        n, t, _ = x.shape
        h = m.i(x)
        q, k, v = (f(h).view(n, t, 3, 8).transpose(1, 2) for f in (m.q, m.k, m.v))
        mixed = F.scaled_dot_product_attention(turned(q), turned(k), v)
        return m.h((h + m.o(mixed.transpose(1, 2).reshape(n, t, 24))).mean(1))

    return run


HEADS = {
    "i": linear(6, 12),
    "q": linear(12, 24),
    "k": linear(12, 24),
    "v": linear(12, 24),
    "o": linear(24, 12),
    "h": linear(12, 3),
}


def casts(m: Any, x: Tensor) -> Any:
    gate = F.softmax(m.g(x), -1, dtype=torch.float32).to(x.dtype)
    x = m.a(x).relu().half().float().bfloat16().to(torch.float32) * gate[:, :1]
    power = x.double().pow(2).mean(-1, keepdim=True).type_as(x)
    return m.b(m.w[0] * (x * torch.rsqrt(power + 1e-6)).type_as(x))


def regions(m: Any, x: Tensor) -> Any:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = m.a(x).relu()
    with torch.no_grad():
        mean = x.mean(1, keepdim=True)
    return m.b(x.float() * mean)


def embedded(m: Any, x: Tensor) -> Any:
    x = m.e(x)
    return F.linear(x + m.b(m.a(x).relu()), m.e.weight)


def with_positions(m: Any, x: Tensor) -> Any:
    """A class token and a table of positions."""
    token = m.c[0].expand(x.shape[0], -1, -1)
    return m.b((torch.cat([token, m.a(x)], 1) + m.p[0]).relu())


def deconv(into: int, out: int, groups: int) -> Kind:
    layers = {
        "a": conv(3, into, 3),
        "t": lambda: nn.ConvTranspose2d(into, out, 3, stride=2, groups=groups),
        "n": lambda: nn.BatchNorm2d(out),
        "b": conv(out, 4),
    }
    return lambda m, x: m.b(m.n(m.t(m.a(x).relu())).relu()), layers, PICTURE


KINDS: dict[str, Kind] = {
    "norm by hand": (norm_by_hand, {**CONVS, **SCALE}, PICTURE),
    "norm by var_mean": (norm_by_var, {**CONVS, **SCALE}, PICTURE),
    "spatial attention": (spatial_attention, {**CONVS, "k": conv(4, 1)}, PICTURE),
    "global response norm": (response_norm, {**CONVS, **SCALE}, PICTURE),
    "group norm over all": (
        lambda m, x: m.b(m.n(m.a(x)).relu()),
        {**CONVS, "n": lambda: nn.GroupNorm(1, 16)},
        PICTURE,
    ),
    "normalize": (between(lambda x: F.normalize(x.relu(), dim=1)), CONVS, PICTURE),
    "cosine head": (cosine, {**LINEARS, "w": raw(5, 16)}, FLAT),
    "glu": (
        between(lambda x: F.glu(x, 1)),
        {"a": lambda: nn.Conv1d(6, 32, 3, padding=1), "b": lambda: nn.Conv1d(16, 3, 1)},
        (2, 6, 8),
    ),
    "glu of linears": (
        lambda m, x: m.b(m.g(m.a(x))),
        {"a": linear(8, 32), "g": lambda: nn.GLU(), "b": linear(16, 3)},
        FLAT,
    ),
    "maximum of two": (
        lambda m, x: m.b(torch.min(torch.max(m.a(x), m.k(x)), m.a(x).relu())),
        {**CONVS, "k": conv(3, 16, 3)},
        PICTURE,
    ),
    "narrow groups transposed": deconv(16, 16, 4),
    "wide groups transposed": deconv(16, 12, 2),
    "depthwise transposed": deconv(8, 16, 8),
    "raw scale": (lambda m, x: m.b(m.a(x).relu() * m.w[0]), {**CONVS, **SCALE}, PICTURE),
    "raw weights": (
        lambda m, x: m.b(torch.einsum("nd,dh->nh", F.linear(x, m.w[0], m.v[0]).relu(), m.u[0])),
        {"w": raw(16, 8), "v": raw(16), "u": raw(16, 12), "b": linear(12, 3)},
        FLAT,
    ),
    "class token": (
        with_positions,
        {"a": linear(6, 16), "c": raw(1, 1, 16), "p": raw(1, 5, 16), "b": linear(16, 3)},
        SERIES,
    ),
    "tied embedding": (
        embedded,
        {"e": lambda: nn.Embedding(30, 16), "a": linear(16, 32), "b": linear(32, 16)},
        TEXT,
    ),
    "gru": (gru, {"g": linear(22, 32), "n": linear(22, 16), "h": linear(16, 3)}, SERIES),
    "lstm": (lstm, {"i": linear(6, 64), "r": linear(16, 64), "h": linear(16, 3)}, SERIES),
    "rnn": (rnn, {"i": linear(6, 16), "w": raw(16, 16), "h": linear(16, 3)}, SERIES),
    "sampling": (
        variational,
        {"a": linear(8, 16), "mean": linear(16, 6), "spread": linear(16, 6), "h": linear(6, 8)},
        FLAT,
    ),
    "noise": (between(noisy), LINEARS, FLAT),
    "casts": (casts, {**LINEARS, "g": linear(8, 4), "w": raw(16)}, FLAT),
    "regions": (regions, LINEARS, FLAT),
    **{f"rotary {kind}": (rotary(kind), HEADS, SERIES) for kind in ("halves", "pairs", "complex")},
}


def made(name: str) -> tuple[nn.Module, Tensor]:
    run, layers, shape = KINDS[name]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Net(layers, run).eval()
        return model, torch.randint(0, 30, (2, 6)) if shape == TEXT else torch.randn(shape)


@pytest.mark.parametrize("name", KINDS)
def test_half_of_every_group_is_removed_exactly(name: str) -> None:
    model, x = made(name)
    graph, removed, masks = halved(model, x)
    compact, certificate = shrink_certified(model, masks, x)
    assert certificate.error <= 1e-12 and certificate.frozen == ()
    assert certificate.removed == removed.sum() > 0
    assert certificate.control > 1e-3
    assert certificate.kept < certificate.parameters
    masked = copy.deepcopy(model)
    engine.apply(masks, masked)
    # In their own precision too, with the same random numbers.
    assert distance(outputs(masked, (x,)), outputs(compact, (x,))) < 1e-4
    assert graph.captured.how == "torch.export"


@pytest.mark.parametrize("name", ["raw scale", "raw weights", "tied embedding", "class token"])
def test_a_recipe_prunes_them(name: str) -> None:
    """Groups of parameters that belong to no layer rank, count and mask like others."""
    model, x = made(name)
    recipe = Recipe(granularity="channel", scope="per_layer", sparsity=0.5)
    masks = pruning.choose(recipe, Workpiece(name, model, example=x))
    small = pruning.shrink(model, masks, x)
    sizes = [sum(p.numel() for p in module.parameters()) for module in (small, model)]
    assert sizes[0] < sizes[1]


@pytest.mark.parametrize("name", ["norm by var_mean", "group norm over all", "noise", "gru"])
def test_they_are_written_as_source(name: str) -> None:
    """`write` runs what it wrote, and hands out nothing that differs."""
    model, x = made(name)
    compact, _ = shrink_certified(model, halved(model, x)[2], x)
    assert "class Model(nn.Module):" in write(compact, x, name).text  # type: ignore[arg-type]


def test_a_scale_names_no_group() -> None:
    model, x = made("raw scale")
    (group,) = dependency_graph(model, x).groups
    assert group.name == "a.weight"


def test_one_weight_used_in_two_ways_keeps_both() -> None:
    """The second call has another stride: a module has one."""

    def run(m: Any, x: Tensor) -> Any:
        y = m.a(x).relu()
        return m.b(y)[..., ::2, ::2] + m.b(F.conv2d(x, m.a.weight, m.a.bias, stride=2))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        model, x = Net({"a": conv(3, 8), "b": conv(8, 4)}, run).eval(), torch.randn(PICTURE)
    compact, certificate = shrink_certified(model, halved(model, x)[2], x)
    assert certificate.error <= 1e-12 and certificate.removed == 4
    assert [name for name, _ in compact.named_parameters()] == [
        name for name, _ in model.named_parameters()
    ]


def test_tied_weights_stay_tied() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = {"e": lambda: nn.Embedding(30, 16), "a": linear(16, 16), "o": linear(16, 30)}
        model = Net(layers, lambda m, x: m.o(m.a(m.e(x)).relu() + m.e(x))).eval()
        model.o.weight = model.e.weight  # type: ignore[union-attr]
    x = torch.randint(0, 30, (2, 6))
    compact, certificate = shrink_certified(model, halved(model, x)[2], x)
    assert certificate.error <= 1e-12 and certificate.removed == 8
    assert compact.o.weight is compact.e.weight  # type: ignore[union-attr]
    assert isinstance(compact.e, nn.Embedding) and isinstance(compact.o, nn.Linear)


# ---------------------------------------------------------------- the comparison itself


def test_a_nan_anywhere_is_a_difference() -> None:
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([3.0, torch.nan])
    assert distance([a, a], [a, b]) == float("inf")
    assert distance([a, b], [a, a]) == float("inf")
    assert distance([a, b], [a, b]) == 0  # both have none there
    assert distance([b[1:]], [b[1:]]) == float("inf")  # nothing was compared
    assert distance([a, b[1:]], [a, b[1:]]) == float("inf")  # nothing of the second
    infinite = torch.tensor([torch.inf, 2.0])
    assert distance([infinite], [infinite]) == 0
    assert distance([infinite], [-infinite]) == float("inf")
    assert distance([a], [a + 1]) == 0.5
    assert distance([a + 1j], [a + 2j]) == 0.5
    assert distance([a], [a, a]) == float("inf")


def test_casts_inside_are_read_as_float64() -> None:
    x = torch.tensor([0.1], dtype=torch.float64)
    with InDouble():  # type: ignore[no-untyped-call]
        assert torch.equal(x.half().float(), x)
        assert torch.zeros(2).dtype == torch.float64
        # A table keeps the numbers that it was written with.
        assert torch.equal(torch.full((1,), 0.1).double(), torch.full((1,), 0.1))
    assert x.half().double() != x


def insists(m: Any, x: Tensor) -> Any:
    """Runs in single precision alone."""
    y = m.a(x).relu().numpy() if x.dtype == torch.float64 else m.a(x).relu()
    return m.b(y)


def test_what_insists_on_its_precision_is_compared_in_it() -> None:
    model, x = made("noise")
    model.run = insists  # type: ignore[assignment]
    certificate = shrink_certified(model, halved(model, x)[2], x)[1]
    assert certificate.removed == 8 and 1e-9 < certificate.limit < 1e-3
    assert all("in its own precision" in check for check in certificate.checks)
    assert certificate.error < certificate.limit


def test_a_model_that_fails_on_its_example_is_said_to() -> None:
    model, x = made("noise")
    _, _, masks = halved(model, x)

    def fails(m: Any, x: Tensor) -> Any:
        if type(x) is Tensor:  # and no stand-in of the recording
            raise KeyError("no such thing")
        return m.b(m.a(x).relu())

    model.run = fails  # type: ignore[assignment]
    with pytest.raises(NotTheSame, match=r"does not run on its own example.*no such thing"):
        shrink_certified(model, masks, x)
