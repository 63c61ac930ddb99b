"""Bytes: each against a number worked out by hand, and files that give back what went in."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from safetensors.torch import save_file
from torch import Tensor, nn

import sample_models
from pruning import masks, selection
from pruning.measurement import size
from pruning.measurement.sizes import memory, peak_activations
from pruning.measurement.sparse_file import entropy, read, write
from pruning.recipe import Recipe
from tests.toys import Residual


def test_entropy_by_hand() -> None:
    assert entropy(8, 16) == 16  # a coin for each weight: a bit each
    assert entropy(4, 16) == pytest.approx(16 * (0.25 * 2 + 0.75 * math.log2(4 / 3)))
    assert entropy(0, 16) == entropy(16, 16) == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_dense_bytes_are_the_files_in_every_precision(dtype: torch.dtype, tmp_path: Path) -> None:
    # BatchNorm's counter is an int64 beside the floats: kinds are mixed.
    model = nn.Sequential(nn.Linear(70, 30), nn.BatchNorm1d(30), nn.Linear(30, 5)).to(dtype)
    model.register_buffer("seen", torch.zeros(9, dtype=torch.bool))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    assert size(model).dense == (tmp_path / "model.safetensors").stat().st_size


def test_sizes_of_a_four_by_four_layer_by_hand() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[0, 0] = model[0].weight[3, 3] = 1.0
    sizes = size(model)
    # safetensors: 8 bytes of length, 128 of head, 16 weights and 4 biases of 4 bytes
    assert sizes.dense == 8 + 128 + 80
    # 16 bits are 2 bytes, 2 values 8, in place of 64
    assert sizes.sparse == sizes.dense - 64 + 2 + 8
    # 2 of 16 kept: 16·H(1/8) = 8.70 bits, 2 values of 4 bytes, 4 biases of 4 bytes
    assert sizes.limit == math.ceil(8.697 / 8 + 8 + 16)


@settings(deadline=None, max_examples=60)
@given(
    some.lists(some.sampled_from([0.0, 0.0, 0.0, 1.5, -2.0, 3e-39]), min_size=1, max_size=300),
    some.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    some.booleans(),
)
def test_a_sparse_file_comes_back_bit_by_bit(
    values: list[float], kind: torch.dtype, compress: bool
) -> None:
    state = {
        "a.weight": torch.tensor(values, dtype=kind),
        "b": torch.tensor(7),
        "empty": torch.zeros(0, 3),
    }
    back = read(write(state, {"a.weight"}, compress=compress))
    assert list(back) == list(state)
    for name, value in state.items():
        assert back[name].dtype == value.dtype and torch.equal(back[name], value)


@pytest.mark.parametrize("kept", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("shape", [(1, 1), (40, 50), (3, 700)])
def test_zeros_anywhere_and_zeros_in_rows_come_back(kept: float, shape: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator)
    apart, rows = weight * (torch.rand(shape, generator=generator) < kept), weight.clone()
    rows[: int(shape[0] * (1 - kept))] = 0
    for value in (apart, rows, torch.zeros(shape)):
        for compress in (False, True):
            assert torch.equal(read(write({"w": value}, {"w"}, compress=compress))["w"], value)


@pytest.mark.parametrize("sparsity", [0.8, 0.9, 0.95, 0.99])
def test_the_sparse_file_is_within_a_fifth_of_the_entropy_limit(sparsity: float) -> None:
    work = sample_models.load("digits-cnn")
    state = read(write(work.model.state_dict(), ()))  # a copy: the sample is shared
    model = sample_models.build("digits-cnn")
    model.load_state_dict(state)
    masks.apply(selection.choose(Recipe(sparsity=sparsity), work), model)
    sizes = size(model)
    assert sizes.entropy_coded is not None and sizes.limit is not None
    assert sizes.limit <= sizes.entropy_coded <= 1.2 * sizes.limit
    assert sizes.compressed < sizes.entropy_coded < sizes.sparse


def test_peak_activations_of_a_chain_by_hand() -> None:
    # Floats alive, the input of 5 always: after the first layer 5 + 12; while ReLU works 5 + 12 +
    # 12, the most; then the
    # second layer 5 + 12 + 7, ReLU 5 + 7 + 7, and 5 + 7 + 3.
    model = nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 3))
    assert peak_activations(model, torch.zeros(2, 5)) == 4 * (5 + 12 + 12)
    model[1] = nn.ReLU(inplace=True)  # now the second layer needs most
    assert peak_activations(model, torch.zeros(2, 5)) == 4 * (5 + 12 + 7)


def test_a_residual_keeps_its_input_alive() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.wide, self.back = nn.Linear(4, 16), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            y = x + 1  # not the input itself, which the caller holds anyway
            z: Tensor = self.back(self.wide(y))
            return y + z

    # x 4, y 4 and wide's 16 while back makes 4; after that 16 go: x, y, z and the sum are 16 in all
    assert peak_activations(Skip(), torch.zeros(1, 4)) == 4 * (4 + 4 + 16 + 4)


def test_memory_counts_zeros_buffers_and_tied_weights_once() -> None:
    model = Residual()
    with torch.no_grad():
        model.first.weight.zero_()
    params = 54 + (324 + 6) + 4 * 6 + (18 + 3)
    buffers = 4 * (4 * 6) + 2 * 8  # means and variances, and two int64 counts
    assert memory(model, None).weights == 4 * params + buffers
    assert memory(model, None).activations is None
    tied = nn.Sequential(nn.Linear(5, 5, bias=False), nn.Linear(5, 5, bias=False))
    tied[1].weight = tied[0].weight
    assert memory(tied, None).weights == 100


def test_nothing_is_left_behind_by_measuring_memory() -> None:
    model = Residual().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    peak_activations(model, torch.randn(1, 1, 6, 6))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
