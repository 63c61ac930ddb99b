"""Bytes: each against a number worked out by hand, and files that give back what went in."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import sample_models
from pruning import masks, selection
from pruning.export.read_sparse import read_sparse
from pruning.measurement import size
from pruning.measurement.sizes import memory, peak_activations
from pruning.measurement.sparse_file import compressed, entropy, length, write
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


def test_sizes_of_a_square_layer_by_hand() -> None:
    model = nn.Sequential(nn.Linear(40, 40))
    with torch.no_grad():
        model[0].weight.zero_()
        model[0].weight[0, 0] = model[0].weight[3, 3] = 1.0
    sizes = size(model)
    # safetensors: 8 bytes of length, 136 of head, 1,600 weights and 40 biases of 4 bytes
    assert sizes.dense == 8 + 136 + 6560
    # 1,600 bits are 200 bytes, 2 values 8, in place of 6,400; the head is longer by 24 and 128
    assert sizes.sparse == sizes.dense - 6400 + 200 + 8 + 152
    # 2 of 1,600 kept: 1,600·H(1/800) = 22.2 bits, 2 values of 4 bytes, 40 biases of 4 bytes
    assert sizes.limit == math.ceil(22.17 / 8 + 8 + 160)


def test_a_layer_too_small_for_bits_is_stored_as_it_is() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    nn.init.zeros_(model[0].weight)
    assert size(model).sparse == size(model).dense


def back(state: dict[str, torch.Tensor], folder: Path, *, packed: bool) -> dict[str, torch.Tensor]:
    """What the reader that goes with the file makes of it; the file is as long as was said."""
    file = folder / "file"
    data = write(state, {"a.weight"})
    assert len(data) == length(state, {"a.weight"})
    file.write_bytes(compressed(state, {"a.weight"}) if packed else data)
    return read_sparse(file)


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    some.lists(some.sampled_from([0.0, 0.0, 0.0, 1.5, -2.0, 3e-39]), min_size=1, max_size=900),
    some.sampled_from([torch.float32, torch.float64, torch.bfloat16]),
    some.booleans(),
)
def test_a_sparse_file_comes_back_bit_by_bit(
    tmp_path: Path, values: list[float], kind: torch.dtype, packed: bool
) -> None:
    state = {
        "a.weight": torch.tensor(values, dtype=kind),
        "b": torch.tensor(7),
        "empty": torch.zeros(0, 3),
    }
    again = back(state, tmp_path, packed=packed)
    assert set(again) == set(state)
    for name, value in state.items():
        assert again[name].dtype == value.dtype and torch.equal(again[name], value)


@pytest.mark.parametrize("kept", [0.5, 0.1, 0.01])
@pytest.mark.parametrize("shape", [(1, 1), (40, 50), (3, 70, 10)])
def test_zeros_anywhere_and_zeros_in_rows_come_back(
    tmp_path: Path, kept: float, shape: tuple[int, ...]
) -> None:
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(shape, generator=generator)
    apart, rows = weight * (torch.rand(shape, generator=generator) < kept), weight.clone()
    rows[: int(shape[0] * (1 - kept))] = 0
    for value in (apart, rows, torch.zeros(shape)):
        for packed in (False, True):
            assert torch.equal(
                back({"a.weight": value}, tmp_path, packed=packed)["a.weight"], value
            )


def test_a_sparse_file_opens_with_numpy_alone(tmp_path: Path) -> None:
    weight = torch.eye(64)
    file = tmp_path / "sparse.safetensors"
    file.write_bytes(write({"w": weight}, {"w"}))
    assert file.stat().st_size < weight.nbytes
    assert (read_sparse(file, "numpy")["w"] == weight.numpy()).all()
    # Any reader of safetensors opens it, and knows what is in it.
    assert set(load_file(file)) == {"w.bitmask", "w.values"}


@pytest.mark.parametrize(("sparsity", "over"), [(0.8, 1.1), (0.9, 1.25), (0.95, 1.6)])
def test_the_sparse_file_beside_the_entropy_limit(sparsity: float, over: float) -> None:
    work = sample_models.load("digits-cnn")
    model = copy.deepcopy(work.model)  # the sample is shared
    masks.apply(selection.choose(Recipe(sparsity=sparsity), work), model)
    sizes = size(model)
    assert sizes.limit is not None
    assert sizes.limit <= sizes.sparse <= over * sizes.limit
    assert sizes.compressed < sizes.sparse
    assert sizes.compressed <= 1.1 * sizes.limit


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
