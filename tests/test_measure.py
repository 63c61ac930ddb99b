"""Measurements, each against a number worked out elsewhere."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import pruning
from pruning.allocation.ranked import rank
from pruning.errors import DataError, Diverged, Stopped
from pruning.events import Accuracy
from pruning.measurement import (
    count_uses,
    dense_bytes,
    latencies,
    macs,
    output_layer,
    size,
)
from pruning.recipe import Recipe
from pruning.types import Batches
from tests.toys import TOYS, toy


def test_accuracy_and_loss_by_hand() -> None:
    work = toy("mlp")
    with torch.no_grad():  # logits are the bias: always class 1
        work.model[4].weight.zero_()  # type: ignore[index, operator]
        work.model[4].bias.copy_(torch.tensor([0.0, 5.0, 0.0]))  # type: ignore[index, operator]
    measured = pruning.measure(work, latency=False)
    assert work.test is not None and measured.accuracy is not None
    ones = int((work.test.y == 1).sum())
    assert measured.accuracy == Accuracy(ones, 48)
    wrong = math.log(2 + math.exp(5))
    assert measured.loss == pytest.approx((ones * (wrong - 5) + (48 - ones) * wrong) / 48, rel=1e-5)


@pytest.mark.parametrize("name", TOYS)
def test_dense_bytes_are_the_files(name: str, tmp_path: Path) -> None:
    model = toy(name).model
    state = {key: value.clone() for key, value in model.state_dict().items()}
    save_file(state, tmp_path / "model.safetensors")
    assert dense_bytes(model) == (tmp_path / "model.safetensors").stat().st_size


@pytest.mark.parametrize("sparsity", [0.0, 0.5, 0.9])
def test_sparse_bytes_of_the_model_and_of_the_preview_agree(sparsity: float) -> None:
    work = toy("residual")
    recipe = Recipe(sparsity=sparsity)
    preview = rank(recipe, work).ranking.preview(recipe)
    pruning.apply(pruning.choose(recipe, work), work.model)
    measured = size(work.model)
    assert measured.dense == preview.bytes_dense
    assert measured.sparse == preview.bytes_sparse
    assert measured.sparse <= measured.dense


def test_macs_by_hand() -> None:
    # residual: 6x6 images. first: 6·1·9 weights at 36 places; second 6·6·9 at 36; head 18 once.
    work = toy("residual")
    assert work.example is not None
    assert macs(work.model, work.example) == {
        "first.weight": 54 * 36,
        "second.weight": 324 * 36,
        "head.weight": 18,
    }


def test_macs_of_resnet18_are_the_published_ones() -> None:
    from torchvision.models import resnet18

    model = resnet18(weights=None)
    assert (
        sum(macs(model, torch.zeros(1, 3, 224, 224)).values()) == 1_814_073_344
    )  # without BatchNorm's, see fvcore's 1.82 G


def test_attention_and_transposed_convolutions_are_counted() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.attend = (
                nn.ConvTranspose1d(2, 4, 2, stride=2),
                nn.MultiheadAttention(4, 2, batch_first=True),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.up(x).transpose(1, 2)
            return self.attend(x, x, x)[0]  # type: ignore[no-any-return]

    # up: 2·4·2 weights, each used at 5 inputs; attention over 10 tokens: 12·4 packed weights
    used = count_uses(Mixed(), torch.zeros(1, 2, 5))
    assert used.rows["up.weight"].tolist() == [5, 5]
    assert used.rows["attend.in_proj_weight"].tolist() == [10] * 12
    assert used.rows["attend.out_proj.weight"].tolist() == [10] * 4
    assert used.other == 2 * 10 * 10 * 4  # queries times keys, and that times values


def test_a_tied_weight_counts_both_uses() -> None:
    work = toy("tied")
    assert work.example is not None
    assert set(count_uses(work.model, work.example).rows["a.weight"].tolist()) == {2}


def test_the_output_layer_is_the_last_to_run() -> None:
    assert output_layer(toy("residual")) == "head.weight"
    assert output_layer(toy("tied")) == "head.weight"


def test_latency_says_its_protocol() -> None:
    work = toy("mlp")
    assert work.example is not None
    pair = latencies([work.model, work.model], work.example, batch=4, passes=7)
    for measured in pair:
        assert measured.low <= measured.median <= measured.high
        assert (measured.batch, measured.passes, measured.threads) == (
            4,
            7,
            torch.get_num_threads(),
        )


def test_divergence_is_caught_and_named() -> None:
    def squares(out: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return (out - nn.functional.one_hot(y, 3)).square().mean()

    work = dataclasses.replace(
        toy("mlp"), model=nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 3)), loss=squares
    )
    with pytest.raises(
        Diverged, match=r"diverged in step 1, epoch \d+.*learning rate 100.*Try a tenth"
    ):
        list(pruning.run(Recipe(epochs=50, lr=100.0), work))


def test_stop_is_heard_inside_an_epoch() -> None:
    asked = iter([False] * 4 + [True] * 100)
    with pytest.raises(Stopped, match="Stopped in step 1, epoch 1"):
        list(pruning.run(Recipe(epochs=100, batch=4), toy("mlp"), stop=lambda: next(asked)))


def test_fine_tuning_without_data_is_refused_and_pruning_without_it_works() -> None:
    bare = dataclasses.replace(toy("mlp"), train=None, validation=None, test=None)
    end = list(pruning.run(Recipe(sparsity=0.5), bare))[-1]
    assert end.final.accuracy is None  # type: ignore[union-attr]
    with pytest.raises(DataError, match=r"Fine-tuning needs train data, and mlp has none"):
        list(pruning.run(Recipe(sparsity=0.5, epochs=1), bare))
    with pytest.raises(DataError, match="looks at training data"):
        pruning.choose(Recipe(criterion="taylor"), bare)


def test_batches_refuse_what_does_not_fit() -> None:
    with pytest.raises(DataError, match="3 examples but 2 targets"):
        Batches(torch.zeros(3, 1), torch.zeros(2))
    with pytest.raises(DataError, match="no examples"):
        Batches(torch.zeros(0, 1), torch.zeros(0))
    parts = [
        len(x) for x, _ in Batches(torch.zeros(9, 1), torch.zeros(9)).shuffled(torch.Generator(), 4)
    ]
    assert parts == [4, 5]  # a last batch of one joins its neighbour
