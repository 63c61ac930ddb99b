"""Evidence is what happens in a model: each weight times its recorded inputs gives its outputs."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pruning.evidence import Evidence
from pruning.evidence.activations import WatchWeights, WeightUse, layouts
from pruning.types import Batches
from tests.toys import toy


class Cross(nn.Module):
    """Attention whose queries come from elsewhere than its keys and values."""

    def __init__(self, **more: object) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True, **more)

    def forward(self, x: Tensor) -> Tensor:
        kv = x.flip(1) * 2
        if self.attention.kdim != 8:
            kv = kv[..., : self.attention.kdim]
        out: Tensor = self.attention(x, kv, kv, need_weights=False)[0]
        return out


LAYERS: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(5, 3), (4, 5)),
    "linear on tokens": (nn.Linear(5, 3), (4, 6, 5)),
    "linear without bias": (nn.Linear(5, 3, bias=False), (4, 6, 5)),
    "linear, input turned": (nn.Sequential(nn.Flatten(2), nn.Linear(6, 3)), (4, 2, 2, 3)),
    "conv1d": (nn.Conv1d(3, 4, 3, stride=2, padding=1), (2, 3, 9)),
    "conv2d": (nn.Conv2d(3, 4, 3, padding=1), (2, 3, 5, 6)),
    "strided and dilated": (
        nn.Conv2d(3, 4, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(2, 1)),
        (2, 3, 8, 7),
    ),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (2, 4, 5, 5)),
    "depthwise": (nn.Conv2d(4, 8, 3, groups=4, padding=1), (2, 4, 5, 5)),
    "padded round": (nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 2, 5, 5)),
    "padded to the same size": (nn.Conv2d(2, 3, 3, padding="same", dilation=2), (2, 2, 6, 6)),
    "conv3d": (nn.Conv3d(2, 3, 2, stride=2), (2, 2, 4, 4, 4)),
    "transposed": (
        nn.ConvTranspose2d(3, 4, 3, stride=2, padding=1, output_padding=1),
        (2, 3, 4, 5),
    ),
    "transposed and grouped": (
        nn.ConvTranspose2d(4, 6, 2, stride=3, groups=2, dilation=2),
        (2, 4, 3, 3),
    ),
    "transposed, padded wide": (nn.ConvTranspose1d(2, 3, 2, stride=1, padding=2), (2, 2, 9)),
    "packed attention": (Cross(), (2, 5, 8)),
    "attention of other sizes": (Cross(kdim=6, vdim=6), (2, 5, 8)),
    "batch second": (nn.TransformerEncoderLayer(8, 2, 16, batch_first=False), (5, 2, 8)),
    "bfloat16": (nn.Conv2d(3, 4, 3).bfloat16(), (2, 3, 5, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_weights_times_inputs_are_the_outputs(name: str) -> None:
    model, shape = LAYERS[name]
    model.eval()
    kind = next(model.parameters()).dtype
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(kind)
    placed = layouts(model)
    weights = dict(model.named_parameters())
    seen = set()

    def check(use: WeightUse) -> None:
        seen.add(use.name)
        w = weights[use.name]
        matrices = placed[use.name].matrices(w)[use.groups].float()
        back = placed[use.name].weight(placed[use.name].matrices(w), w.shape)
        assert torch.equal(back, w)
        inputs = torch.cat(list(use.inputs(w.shape))).float()  # (positions, groups or 1, inputs)
        inputs = inputs.expand(-1, len(matrices), -1)
        made = torch.einsum("gri,ngi->ngr", matrices, inputs).flatten(1)
        out = use.output.float()
        if use.convolution:
            out = out.movedim(1, -1).reshape(made.shape)
        rest = out - made  # the bias, the same at every position; or nothing
        tolerance = 0.05 if kind == torch.bfloat16 else 1e-5
        assert torch.allclose(rest, rest[:1].expand_as(rest), atol=tolerance)

    with torch.no_grad(), WatchWeights(model, check):
        model(x)
    assert seen == set(placed)


def test_input_norms_and_grams_are_those_of_the_inputs() -> None:
    layer = nn.Conv2d(4, 6, 3, groups=2, padding=1, bias=False)
    x = torch.randn(5, 4, 5, 5)
    evidence = Evidence(layer, Batches(x, torch.zeros(5, dtype=torch.long), batch=2))
    parts = [
        torch.nn.functional.unfold(part, 3, padding=1).transpose(1, 2).flatten(0, 1)
        for part in x.split(2, dim=1)
    ]
    grams = dict(evidence.grams())["weight"]
    assert grams.shape == (2, 18, 18)
    for part, gram, norms in zip(
        parts, grams, evidence.input_norms["weight"].reshape(2, 3, 18), strict=True
    ):
        assert torch.allclose(gram, part.T @ part / 5, atol=1e-4)
        assert torch.allclose(norms, part.norm(dim=0).expand(3, 18), atol=1e-4)


def test_a_weight_used_twice_reads_both_inputs() -> None:
    work = toy("tied")
    evidence = Evidence.of(work)
    assert work.train is not None
    first = work.train.x
    second = work.model.a(first).relu().detach()  # type: ignore[operator, union-attr]
    expected = (first.square().sum(0) + second.square().sum(0)).sqrt()
    assert torch.allclose(evidence.input_norms["a.weight"][0], expected, rtol=1e-5)


def test_grams_that_do_not_fit_are_gathered_in_several_passes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = dict(Evidence.of(toy("mlp")).grams())
    monkeypatch.setattr("pruning.evidence.GRAMS", 150)
    parts = dict(Evidence.of(toy("mlp")).grams())
    assert list(parts) == list(whole)
    assert all(torch.equal(parts[name], whole[name]) for name in whole)
    assert list(dict(Evidence.of(toy("mlp")).grams(leave={"2.weight"}))) == ["0.weight", "4.weight"]


def test_what_follows_a_layer_is_found() -> None:
    work = toy("residual")
    model = work.model
    evidence = Evidence.of(work)
    assert {name: scale is not None for name, scale in evidence.batch_scales.items()} == {
        "first.weight": True,
        "second.weight": True,
    }
    assert torch.equal(evidence.batch_scales["second.weight"], model.norm2.weight)
    activations, share = next(iter(evidence.activations()))
    x = work.train.x[:32]  # type: ignore[union-attr]
    with torch.no_grad():
        one = model.norm1(model.first(x)).relu()  # type: ignore[operator, union-attr]
        two = (one + model.norm2(model.second(one))).relu()  # type: ignore[operator]
        out = model(x)
    assert share == pytest.approx(32 / 48)
    assert torch.allclose(activations["first.weight"], one, atol=1e-6)
    assert torch.allclose(
        activations["second.weight"], two, atol=1e-6
    )  # through the sum, to what bends it
    assert torch.allclose(activations["head.weight"], out, atol=1e-6)


def test_evidence_is_gathered_once() -> None:
    work = toy("residual")
    calls = []
    evidence = Evidence.of(work)
    work.model.register_forward_hook(lambda *_: calls.append(1))
    for ask in (
        lambda: evidence.gradients,
        lambda: evidence.squared_gradients,
        lambda: evidence.input_norms,
    ):
        first, before = ask(), len(calls)
        assert ask() is first
        assert len(calls) == before
    assert evidence.hessian_diagonal(2) is evidence.hessian_diagonal(2)
    assert evidence.gauss_newton(1) is evidence.gauss_newton(1)


def test_memory_of_examples_gradients_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    work = toy("mlp")
    whole = Evidence.of(work).squared_gradients
    monkeypatch.setattr("pruning.evidence.gradients.CHUNK", 1)  # one example at a time
    single = Evidence.of(work).squared_gradients
    assert all(torch.allclose(whole[name], single[name], rtol=1e-4) for name in whole)


class Deciding(nn.Module):
    """Decides by what it sees, which cannot be done for many examples at once."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(x)
        return out * 2 if float(x.detach().sum()) > 0 else out


def test_a_model_that_decides_by_what_it_sees_is_looped_over() -> None:
    model, data = Deciding(), Batches(torch.randn(6, 5), torch.tensor([0, 1, 2, 0, 1, 2]))
    squares = Evidence(model, data).squared_gradients["head.weight"]
    expected = torch.zeros(3, 5)
    for x, y in zip(data.x, data.y, strict=True):
        (part,) = torch.autograd.grad(
            nn.functional.cross_entropy(model(x[None]), y[None]), [model.head.weight]
        )
        expected += part.square() / 6
    assert torch.allclose(squares, expected, rtol=1e-4, atol=1e-9)


def test_the_gauss_newton_diagonal_of_a_regression_is_its_hessians() -> None:
    """By hand: the loss is the mean over 3 outputs of (Wx − y)², so that it is 2/3 · mean x²."""
    x = torch.randn(6, 5)
    evidence = Evidence(nn.Linear(5, 3), Batches(x, torch.randn(6, 3)), nn.functional.mse_loss)
    expected = (2 / 3 * x.square().mean(0)).expand(3, 5)
    torch.testing.assert_close(evidence.gauss_newton(1)["weight"], expected)


def test_gradients_of_examples_carry_no_graph() -> None:
    """A model with biases, which are derived by nobody, must not leave its graph on the sums."""
    evidence = Evidence(nn.Linear(4, 2), Batches(torch.randn(6, 4), torch.tensor([0, 1] * 3)))
    assert not evidence.gradient_sizes["weight"].requires_grad
    assert not evidence.squared_gradients["weight"].requires_grad
