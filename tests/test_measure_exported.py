"""ONNX Runtime answers as torch does, or says why it does not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import sample_models
from pruning.cli import main
from pruning.measurement.onnx import export, onnx_timings, session
from tests.long_forms import in_part
from tests.toys import toy

SAMPLES, SMALL = ["digits-resnet", "digits-vit"], ["residual", "attention"]


@pytest.mark.parametrize("name", in_part([*SMALL, *SAMPLES], SMALL))
def test_its_answers_are_torchs(name: str) -> None:
    work = toy(name) if name in SMALL else sample_models.load(name)
    assert work.test is not None
    run = session(export(work.model, work.test.x[:2]), threads=1)
    for batch in (1, 8):  # one program for any batch
        x = work.test.x[:batch]
        with torch.no_grad():
            wanted = work.model.eval()(x).numpy()
        np.testing.assert_allclose(run((x.numpy(),)), wanted, rtol=1e-5, atol=1e-5)


class Fickle(nn.Module):
    """What it does depends on a number in the data, which no program without branches can hold."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x) if float(x.sum()) > 0 else self.layer(-x)
        return out


def test_what_cannot_be_exported_says_so_and_the_rest_is_timed() -> None:
    work = toy("mlp")
    assert work.example is not None
    ((dense,), (masked,)) = onnx_timings(
        [work.model, Fickle()], work.example, batches=[3], budget=0.01
    )
    assert dense.batch == 3
    assert dense.verdict == "reference" and dense.latency is not None and dense.control is not None
    assert masked.verdict == "not measured"
    assert "could not be exported by torch.onnx" in masked.why


def test_the_model_is_left_as_it_was() -> None:
    model = toy("residual").model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    export(model, torch.zeros(2, 1, 6, 6))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_verb_measures_weights_beside_the_models_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "pruned.safetensors"
    assert main(["run", "--model", "digits-mlp", "--sparsity", "0.9", "--save", str(file)]) == 0
    capsys.readouterr()
    assert main(["measure", "--model", "digits-mlp", "--weights", str(file), "--json"]) == 0
    dense, pruned = map(json.loads, capsys.readouterr().out.splitlines())
    assert (dense["weights_nonzero"], pruned["weights_nonzero"]) == (50_200, 5_020)
    assert pruned["compressed_file_bytes"] < 1.1 * pruned["entropy_limit_bytes"]
    for batch in (1, 32):
        assert dense[f"onnx_runtime_batch{batch}_verdict"] == "reference"
        assert pruned[f"onnx_runtime_batch{batch}_ms"] > 0
