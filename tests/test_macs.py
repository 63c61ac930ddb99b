"""MACs: what belongs to which weight by hand, and the sum by torch's own counter."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.utils.flop_counter import FlopCounterMode

import pruning
from pruning.allocation.ranked import rank
from pruning.evidence import frozen_eval
from pruning.masks import by_layer
from pruning.measurement import count_uses, macs
from pruning.recipe import Recipe
from pruning.types import Workpiece, prunable
from tests.nets import Net


def cross_attention() -> nn.Module:
    """2 queries read what 50 keys and values hold: width 16, 4 heads."""
    layers: dict[str, Callable[[], nn.Module]] = {
        "attend": lambda: nn.MultiheadAttention(16, 4, batch_first=True)
    }
    return Net(layers, lambda m, x: m.attend(x[:, :2], x, x)[0])


def recurrent() -> nn.Module:
    return Net({"r": lambda: nn.LSTM(8, 6, batch_first=True)}, lambda m, x: m.r(x)[0])


def scaled() -> nn.Module:
    """The weight is scaled, cast and cast back before it is multiplied."""
    layers: dict[str, Callable[[], nn.Module]] = {"a": lambda: nn.Linear(8, 4)}
    return Net(layers, lambda m, x: linear(x, (m.a.weight * 2).double().float(), m.a.bias))


def test_the_output_projection_of_attention_counts() -> None:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    assert macs(layer, torch.zeros(1, 5, 16)) == {
        "self_attn.in_proj_weight": 5 * 48 * 16,
        "self_attn.out_proj.weight": 5 * 16 * 16,
        "linear1.weight": 5 * 32 * 16,
        "linear2.weight": 5 * 32 * 16,
    }


def test_keys_and_values_count_by_their_own_length() -> None:
    model, x = cross_attention(), torch.zeros(1, 50, 16)
    assert macs(model, x)["attend.in_proj_weight"] == 16 * 16 * (2 + 50 + 50)
    used = count_uses(model, x)
    assert used.rows["attend.in_proj_weight"].tolist() == [2] * 16 + [50] * 32
    assert used.other == 2 * (2 * 50 * 16)  # queries times keys, and that times values


def test_kept_macs_follow_the_rows_that_are_kept() -> None:
    model, x = cross_attention(), torch.zeros(1, 50, 16)
    keep = torch.ones(48, 16, dtype=torch.bool)
    keep[:16] = False  # the queries' rows: few of the MACs
    rows = count_uses(model, x).rows
    (layer,) = by_layer({"attend.in_proj_weight": keep}, rows, {"attend.in_proj_weight"})
    assert layer.macs_kept == 16 * 16 * (50 + 50)
    pruning.apply({"attend.in_proj_weight": keep}, model)
    measured = pruning.measure(Workpiece("cross", model, example=x), latency=False)
    assert measured.layers[0].macs_kept == layer.macs_kept


def test_recurrent_weights_count_once_for_each_time_step() -> None:
    assert macs(recurrent(), torch.zeros(1, 5, 8)) == {
        "r.weight_ih_l0": 5 * 24 * 8,
        "r.weight_hh_l0": 5 * 24 * 6,
    }


def test_a_weight_that_is_changed_before_its_product_is_still_that_weight() -> None:
    used = count_uses(scaled(), torch.zeros(1, 3, 8))
    assert used.rows["a.weight"].tolist() == [3] * 4 and used.other == 0


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "encoder": (lambda: nn.TransformerEncoderLayer(16, 4, 32, batch_first=True), (5, 16)),
    "cross_attention": (cross_attention, (50, 16)),
    "recurrent": (recurrent, (5, 8)),
    "upsampling": (lambda: nn.ConvTranspose2d(4, 6, 3, 2, groups=2), (4, 5, 7)),
    "resnet18": (lambda: torchvision.models.resnet18(weights=None), (3, 32, 32)),
    "mobilenet": (
        lambda: torchvision.models.mobilenet_v3_small(weights=None),
        (3, 32, 32),
    ),
    "shufflenet": (lambda: torchvision.models.shufflenet_v2_x0_5(weights=None), (3, 32, 32)),
    "swin": (
        lambda: torchvision.models.SwinTransformer([4, 4], 16, [2, 2], [2, 4], [4, 4]),
        (3, 32, 32),
    ),
    "vit": (
        lambda: torchvision.models.VisionTransformer(16, 8, 2, 4, 32, 64, num_classes=5),
        (3, 16, 16),
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_sum_is_that_of_torchs_own_counter(name: str) -> None:
    make, shape = MODELS[name]
    model, x = make().eval(), torch.zeros(1, *shape)
    counter = FlopCounterMode(display=False)
    # Fused, attention and LSTMs are operations that it knows nothing of.
    with torch.no_grad(), frozen_eval(model), counter:
        model(x)
    measured = pruning.measure(Workpiece(name, model, example=x), latency=False)
    assert measured.all_macs == counter.get_total_flops() // 2  # two operations a MAC
    # Every covered weight has its share: none is counted as nobody's.
    assert all(layer.macs for layer in measured.layers)


def test_a_vision_transformer_has_the_published_macs() -> None:
    model = torchvision.models.vit_b_16(weights=None)
    x = torch.zeros(1, 3, 224, 224)
    used = count_uses(model, x)
    rows = {name: weight.shape[1:].numel() for name, weight in prunable(model).items()}
    own = sum(float(used.rows[name].sum()) * size for name, size in rows.items())
    published = torchvision.models.ViT_B_16_Weights.IMAGENET1K_V1.meta["_ops"]  # in G
    assert (own + used.other) / 1e9 == pytest.approx(published, rel=0.001)


def test_energy_is_of_all_macs_and_shares_are_of_weights() -> None:
    model = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    work = Workpiece("encoder", model, example=torch.zeros(1, 5, 16))
    measured = pruning.measure(work, full=True)
    assert measured.macs_other == 2 * 5 * 5 * 16
    assert measured.energy is not None and measured.all_macs is not None
    assert measured.energy.executed == pytest.approx(measured.all_macs * 4.6)
    # What no weight can save stands in no share that a scope spends.
    recipe = Recipe()
    assert sum(rank(recipe, work).ranking.macs.values()) == measured.macs


def test_a_bare_product_belongs_to_the_model_and_no_weight() -> None:
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(8, 6)
            self.raw = nn.Parameter(torch.ones(6, 3))

        def forward(self, x: Tensor) -> Tensor:
            return self.first(x) @ self.raw  # type: ignore[no-any-return]

    used = count_uses(Bare(), torch.zeros(1, 8))
    assert used.other == 6 * 3 and list(used.rows) == ["first.weight"]
