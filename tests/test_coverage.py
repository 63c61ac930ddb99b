"""Coverage: whatever has weights is pruned like any other, or is named, counted and told."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm, weight_norm

import pruning
from dashboard import tables
from pruning import coverage
from pruning.errors import ModelError, RecipeError
from pruning.events import Finished, Notice
from pruning.export.read_sparse import read_sparse
from pruning.measurement.sparse_file import write
from pruning.recipe import Recipe
from pruning.runs.handlers import save
from pruning.runs.results import RunResult
from pruning.studies.card import card
from pruning.studies.scores import scores
from pruning.types import Batches, Workpiece, prunable
from pruning.units.layout import lay_out
from tests.nets import Net
from tests.toys import TOYS, snapshot, toy


def work_of(model: nn.Module, x: Tensor) -> Workpiece:
    data = Batches(x, torch.arange(len(x)) % 2)
    return Workpiece("net", model.eval(), data, data, data, example=x[:1])


def finished(recipe: Recipe, work: Workpiece) -> tuple[Finished, list[str]]:
    """The last event, and the notices."""
    events = list(pruning.run(recipe, work))
    assert isinstance(events[-1], Finished)
    return events[-1], [event.text for event in events if isinstance(event, Notice)]


# ---------------------------------------------------------------- recurrent layers


def sequence(make: Callable[[], nn.Module]) -> nn.Module:
    layers: dict[str, Callable[[], nn.Module]] = {"r": make, "o": lambda: nn.LazyLinear(2)}
    net = Net(layers, lambda m, x: m.o(m.r(x)[0].mean(1)))
    net(torch.zeros(1, 5, 8))  # the lazy layer learns its size
    return net


def stepwise(cell: Callable[[], nn.Module]) -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        state = None
        for t in range(x.shape[1]):
            state = m.r(x[:, t], state)
        out: Tensor = m.o(state[0] if isinstance(state, tuple) else state)
        return out

    return Net({"r": cell, "o": lambda: nn.Linear(6, 2)}, run)


RECURRENT: dict[str, Callable[[], nn.Module]] = {
    "lstm": lambda: sequence(lambda: nn.LSTM(8, 6, 2, batch_first=True, bidirectional=True)),
    "projected": lambda: sequence(lambda: nn.LSTM(8, 6, batch_first=True, proj_size=3)),
    "gru": lambda: sequence(lambda: nn.GRU(8, 6, batch_first=True)),
    "rnn": lambda: sequence(lambda: nn.RNN(8, 6, batch_first=True)),
    "lstm_cell": lambda: stepwise(lambda: nn.LSTMCell(8, 6)),
    "gru_cell": lambda: stepwise(lambda: nn.GRUCell(8, 6)),
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_weights_are_pruned_trained_and_stored_like_any_others(name: str) -> None:
    torch.manual_seed(0)
    work = work_of(RECURRENT[name](), torch.randn(16, 5, 8))
    matrices = {n: p for n, p in work.model.named_parameters() if p.dim() > 1}
    assert prunable(work.model).keys() == matrices.keys()
    before = copy.deepcopy(work.model.state_dict())
    end, notices = finished(Recipe(sparsity=0.8, epochs=2, batch=8), work)
    total = sum(p.numel() for p in matrices.values())
    assert end.final.weights == total and not notices
    # Fine-tuning was under the masks: what was pruned is zero at the end.
    assert end.final.kept == total - round(0.8 * total)
    assert end.sparsity == pytest.approx(0.8, abs=1 / total)
    assert all(layer.macs for layer in end.final.layers)
    assert end.final.size.compressed < end.dense.size.compressed
    for key, value in work.model.state_dict().items():
        assert torch.equal(value, before[key])


def test_a_sparse_file_holds_recurrent_weights(tmp_path: Path) -> None:
    model = RECURRENT["lstm"]()
    pruning.apply(pruning.choose(Recipe(sparsity=0.9), work_of(model, torch.randn(4, 5, 8))), model)
    state = model.state_dict()
    data = write(state, prunable(model))
    (tmp_path / "sparse.safetensors").write_bytes(data)
    again = read_sparse(tmp_path / "sparse.safetensors")
    assert all(torch.equal(value, state[name]) for name, value in again.items())
    assert len(data) < 0.6 * len(write(state, ()))  # half of it is the head: it is small


@pytest.mark.parametrize("criterion", ["magnitude", "taylor", "fisher", "wanda", "obs", "random"])
def test_criteria_see_recurrent_weights(criterion: str) -> None:
    torch.manual_seed(0)
    work = work_of(RECURRENT["lstm"](), torch.randn(16, 5, 8))
    masks = pruning.choose(
        Recipe(criterion=criterion, scope="per_layer", sparsity=0.5, seed=1), work
    )
    for name, keep in masks.items():
        flat = keep.flatten()
        assert 0 < int(flat.sum()) < len(flat)
        # Scores that are all alike would prune by position.
        assert flat[: len(flat) // 2].any(), name


@pytest.mark.parametrize("granularity", ["row", "channel"])
def test_recurrent_rows_stay_dense_and_say_why(granularity: str) -> None:
    work = work_of(RECURRENT["gru"](), torch.randn(4, 5, 8))
    units = lay_out(Recipe(granularity=granularity), work)
    assert units.kept_whole().keys() >= {"r.weight_ih_l0", "r.weight_hh_l0"}
    # Nothing else can be pruned here: the message carries the reasons.
    with pytest.raises(RecipeError, match=r"gru|recurrent"):
        pruning.choose(Recipe(granularity=granularity), work)


@pytest.mark.parametrize("granularity", ["block", "column", "n_of_m"])
def test_recurrent_blocks_and_columns_are_pruned(granularity: str) -> None:
    work = work_of(RECURRENT["gru"](), torch.randn(4, 5, 8))
    masks = pruning.choose(Recipe(granularity=granularity, sparsity=0.4), work)
    keep = masks["r.weight_ih_l0"]
    assert not keep.all() and keep.any()
    if granularity == "column":  # an input is read by all gates or by none
        assert torch.equal(keep.any(0), keep.all(0))


# ---------------------------------------------------------------- embeddings


def tagger(tied: bool = False) -> nn.Module:
    def run(m: Any, x: Tensor) -> Tensor:
        out: Tensor = m.o(m.a(m.e(x)).relu().mean(1))
        return out

    width = 30 if tied else 2
    layers: dict[str, Callable[[], nn.Module]] = {
        "e": lambda: nn.Embedding(30, 8),
        "a": lambda: nn.Linear(8, 8),
        "o": lambda: nn.Linear(8, width, bias=False),
    }
    net = Net(layers, run)
    if tied:
        net.o.weight = net.e.weight
    return net


def test_embeddings_are_pruned_only_where_the_recipe_says_so() -> None:
    work = work_of(tagger(), torch.randint(0, 30, (8, 5)))
    total = 30 * 8
    left = pruning.choose(Recipe(sparsity=0.9), work)
    assert left["e.weight"].all() and not left["a.weight"].all()
    assert "embedding" in lay_out(Recipe(), work).kept_whole()["e.weight"]
    pruned = pruning.choose(Recipe(sparsity=0.9, embeddings=True, scope="per_layer"), work)
    assert int(pruned["e.weight"].sum()) == total - round(0.9 * total)
    # Counted in either case; nothing is multiplied with it.
    measured = pruning.measure(work, latency=False)
    layers = {layer.name: layer for layer in measured.layers}
    assert layers["e.weight"].total == total and layers["e.weight"].macs == 0


@pytest.mark.parametrize("scope", ["global", "per_layer"])
def test_what_the_page_previews_covers_embeddings_as_the_recipe_does(scope: str) -> None:
    work = work_of(tagger(), torch.randint(0, 30, (8, 5)))
    for embeddings in (False, True):
        recipe = Recipe(sparsity=0.9, embeddings=embeddings, scope=scope)
        _, ranking = scores(tables.scores_spec(recipe), work)
        shown = {layer.name: layer.kept for layer in ranking.preview(recipe).layers}
        masks = pruning.choose(recipe, work)
        assert shown == {name: int(keep.sum()) for name, keep in masks.items() if name in shown}
        mapped = {point.layer for point in pruning.sensitivity(work, embeddings=embeddings)}
        assert ("e.weight" in mapped) == embeddings


def test_channels_take_their_part_of_an_embedding_along() -> None:
    work = work_of(tagger(), torch.randint(0, 30, (8, 5)))
    masks = pruning.choose(Recipe(granularity="channel", scope="per_layer", sparsity=0.5), work)
    keep = masks["e.weight"]
    assert torch.equal(keep.any(0), keep.all(0)) and not keep.all()


def test_a_tied_output_layer_is_pruned_and_told() -> None:
    work = work_of(tagger(tied=True), torch.randint(0, 30, (8, 5)))
    assert set(prunable(work.model)) == {"a.weight", "o.weight"}
    masks = pruning.choose(Recipe(sparsity=0.5, scope="per_layer"), work)
    assert not masks["o.weight"].all()
    assert "e.weight" in " ".join(coverage.notes(work.model))


def test_embeddings_is_true_or_false() -> None:
    assert Recipe.from_json(Recipe(embeddings=True).to_json()).embeddings
    with pytest.raises(RecipeError, match="embeddings is 'yes', but must be true or false"):
        Recipe(embeddings="yes")  # type: ignore[arg-type]


# ---------------------------------------------------------------- parametrised weights


def normed(how: Callable[[nn.Module], nn.Module]) -> nn.Module:
    return nn.Sequential(how(nn.Linear(8, 16)), nn.ReLU(), nn.Linear(16, 2))


class Doubled(nn.Module):
    def forward(self, w: Tensor) -> Tensor:
        return 2 * w


def doubled(layer: nn.Module) -> nn.Module:
    parametrize.register_parametrization(layer, "weight", Doubled())
    return layer


def masked(layer: nn.Module) -> nn.Module:
    prune.random_unstructured(layer, "weight", 0.25)
    return layer


PARAMETRISED: dict[str, Callable[[nn.Module], nn.Module]] = {
    "weight_norm": parametrizations.weight_norm,
    "spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "doubled": doubled,
    "old weight_norm": weight_norm,
    "old spectral_norm": spectral_norm,
    "torch.nn.utils.prune": masked,
}


@pytest.mark.parametrize("name", PARAMETRISED)
def test_what_is_multiplied_is_pruned(name: str) -> None:
    torch.manual_seed(0)
    model = normed(PARAMETRISED[name])
    x = torch.randn(16, 8)
    model(x)  # old hooks leave a computed tensor on the layer
    work = work_of(model, x)
    before = snapshot(model)["state"]
    plain, baked = coverage.plain_copy(model)
    assert list(baked) == ["0.weight"] and not coverage.uncovered(plain)
    assert torch.allclose(plain(x), model(x), atol=1e-6)
    end, notices = finished(Recipe(sparsity=0.8, epochs=1), work)
    total = 8 * 16 + 16 * 2
    assert end.dense.weights == end.final.weights == total
    assert end.final.kept == total - round(0.8 * total)
    (notice,) = [text for text in notices if "plain weight" in text]
    assert baked["0.weight"] in notice and "0.weight" in notice
    after = model.state_dict()
    assert all(torch.equal(value, after[key]) for key, value in before.items())  # type: ignore[attr-defined]


def test_a_parametrised_lstm_uses_the_weights_that_are_pruned() -> None:
    torch.manual_seed(0)
    model = RECURRENT["lstm"]()
    parametrizations.weight_norm(model.r, "weight_hh_l0")  # type: ignore[arg-type]
    x = torch.randn(4, 5, 8)
    plain, baked = coverage.plain_copy(model.eval())
    assert list(baked) == ["r.weight_hh_l0"]
    assert torch.allclose(plain(x), model(x), atol=1e-6)
    with torch.no_grad():
        prunable(plain)["r.weight_hh_l0"].zero_()
    assert not torch.allclose(plain(x), model(x), atol=1e-6)


def test_a_run_of_a_parametrised_model_is_stored(tmp_path: Path) -> None:
    torch.manual_seed(0)
    work = work_of(normed(parametrizations.weight_norm), torch.randn(16, 8))
    job: Any = SimpleNamespace(folder=tmp_path)

    def keep(model: nn.Module, masks: pruning.Masks) -> None:
        save(job, work.model, model, masks)

    list(pruning.run(Recipe(sparsity=0.5), work, keep=keep))
    assert RunResult(tmp_path, None).histograms["0.weight"].dense.sum() == 8 * 16  # type: ignore[arg-type]


def test_without_a_run_parametrised_weights_are_named() -> None:
    model = normed(parametrizations.weight_norm)
    left_out = coverage.uncovered(model)
    assert {name: part.weights for name, part in left_out.items()} == {
        "0.parametrizations.weight.original1": 8 * 16
    }


def test_a_model_that_was_never_run_says_so() -> None:
    model = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(ModelError, match="LazyLinear has no weights yet: run the model once"):
        prunable(model)


# ---------------------------------------------------------------- what is not covered


class Conv1D(nn.Module):
    """GPT-2's linear layer: its weight lies by input, and it is no layer of torch's."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(inputs, outputs))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, x, self.weight)


def test_what_is_not_covered_is_named_counted_and_told() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(Conv1D(8, 6), nn.ReLU(), nn.Linear(6, 2))
    work = work_of(model, torch.randn(16, 8))
    assert coverage.uncovered(model) == {
        "0.weight": (48, "Conv1D is no layer whose weights are known here")
    }
    end, notices = finished(Recipe(sparsity=0.5), work)
    (notice,) = notices
    assert notice.startswith("48 weights in 1 tensor are not pruned") and "0.weight" in notice
    assert (end.final.weights, end.final.parameters) == (12, 48 + 6 + 12 + 2)
    assert (end.final.macs, end.final.macs_other) == (12, 48)
    assert notice in card({"model": "net"}, work)[0]["notes"]


@pytest.mark.parametrize("name", TOYS)
def test_nothing_falls_between(name: str) -> None:
    """Every parameter is prunable, named as uncovered, or a vector."""
    model = toy(name).model
    named = prunable(model).keys() | coverage.uncovered(model).keys()
    for full_name, parameter in model.named_parameters():
        assert full_name in named or sum(size > 1 for size in parameter.shape) < 2, full_name
