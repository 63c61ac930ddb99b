"""What a run is taken home as: every file opens, says the same numbers, and runs again."""

from __future__ import annotations

import importlib.util
import json
import zipfile
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from dashboard import example
from pruning.cli import main
from pruning.export import bundle
from pruning.export.bundle import Contents
from pruning.export.read_sparse import read_sparse
from pruning.export.report import report
from pruning.export.result import Result
from pruning.formats.datasets.types import JOINED
from pruning.metrics import Histogram, Layer, with_interval
from pruning.recipe import Recipe
from pruning.runs import handlers
from pruning.runs.results import RunResult, load_run
from pruning.runs.store import Store
from pruning.runs.take_home import base_of, result_of, take_home
from pruning.types import Workpiece

HALF = Recipe(model="digits-mlp", granularity="channel", scope="per_layer", sparsity=0.5, epochs=1)


def finished(store: Store, recipe: Recipe) -> str:
    """A run of the recipe, done as a worker does it; its id."""
    id = store.submit("run", recipe.to_dict())
    job = store.claim(queues=("run",))
    assert job is not None and job.id == id
    handlers.do(store, job, lambda: False)
    return id


def loaded(file: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("workspace")


@pytest.fixture(scope="module")
def run(workspace: Path) -> str:
    return finished(Store(workspace), HALF)


@pytest.fixture(scope="module")
def home_made(workspace: Path, run: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of the run, written by the shell and unpacked elsewhere."""
    made, folder = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("unpacked")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNING_HOME", str(workspace))
        assert main(["export", run[:6], "--to", str(made), "--json"]) == 0
    with zipfile.ZipFile(made / bundle.BUNDLE) as archive:
        names = archive.namelist()
        archive.extractall(folder)
    assert set(names) == {file.name for file in made.iterdir()} - {bundle.BUNDLE}
    return folder


def ended(workspace: Path, run: str) -> RunResult:
    return load_run(Store(workspace).folder(run))


def test_all_forms_of_the_network_give_the_same_answers(
    workspace: Path, run: str, home_made: Path
) -> None:
    work = result_of(Store(workspace), run).work
    x = torch.randn(5, *work.example.shape[1:])  # type: ignore[union-attr]
    with torch.no_grad():
        masked = work.model(x)
        written = loaded(home_made / "model.py").load()
        torch.testing.assert_close(written(x), masked, rtol=1e-5, atol=1e-5)
        session = onnxruntime.InferenceSession(home_made / "model.onnx")
        (onnx,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        np.testing.assert_allclose(onnx, masked.numpy(), rtol=1e-4, atol=1e-4)
    sizes = [sum(p.numel() for p in model.parameters()) for model in (written, work.model)]
    assert sizes[0] < 0.6 * sizes[1]
    own = work.model.state_dict()
    for state in (
        read_sparse(home_made / "sparse.safetensors.gz"),
        torch.load(home_made / "state_dict.pt", weights_only=True),
    ):
        assert state.keys() == own.keys()
        assert all(torch.equal(value, own[name]) for name, value in state.items())


def test_card_and_report_say_the_runs_own_numbers(
    workspace: Path, run: str, home_made: Path
) -> None:
    end = ended(workspace, run).finished
    card = (home_made / "card.md").read_text(encoding="utf-8")
    page = (home_made / "report.html").read_text(encoding="utf-8")
    for measured in (end.dense, end.pruned, end.final, end.compact):
        assert measured is not None
        assert with_interval(measured.quality) in card
        assert with_interval(measured.quality) in page
    assert "ONNX Runtime within" in card and "ONNX Runtime within" in page
    for file in filter(Path.is_file, home_made.iterdir()):  # the card says what each is for
        assert file.name == "card.md" or f"`{file.name}`" in card
    certificate = json.loads((home_made / "certificate.json").read_text(encoding="utf-8"))
    assert certificate["error"] <= certificate["limit"] and certificate["removed"] > 0
    recipe = json.loads((home_made / "recipe.json").read_text(encoding="utf-8"))
    assert Recipe.from_dict(recipe) == HALF


def test_replay_reaches_the_same_numbers_and_says_where_it_does_not(
    home_made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script = loaded(home_made / "replay.py")
    threads = torch.get_num_threads()
    try:
        assert script.main() == 0
        assert "the same numbers" in capsys.readouterr().out
        file = home_made / "expected.json"
        expected = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps(expected | {"kept": 1}), encoding="utf-8")
        assert script.main() == 1
        assert "other numbers than expected" in capsys.readouterr().out
        file.write_text(json.dumps(expected | {"start": "of others"}), encoding="utf-8")
        assert script.main() == 1
        assert "digits-mlp has other weights here" in capsys.readouterr().out
    finally:
        torch.set_num_threads(threads)


def test_a_stopped_run_is_not_run_again(workspace: Path, run: str, tmp_path: Path) -> None:
    """Its recipe would go on to the end, and reach other numbers."""
    contents = Contents()
    result = replace(result_of(Store(workspace), run), stopped=True)
    bundle._recipe(result, None, bundle._Put(tmp_path, contents))
    assert {"recipe.json"} <= contents.files.keys() and "replay.py" not in contents.files
    assert contents.notes == [
        "There is no replay.py: the run was stopped, and its recipe would go on to the end."
    ]


def test_a_run_that_went_on_from_another_starts_from_its_weights_again(
    workspace: Path, run: str, tmp_path: Path
) -> None:
    store = Store(workspace)
    more = replace(HALF, model=f"run:{run}", sparsity=0.7, epochs=0)
    take_home(store, {"run": finished(store, more)}, tmp_path)
    folder = tmp_path / "files"
    expected = json.loads((folder / "expected.json").read_text(encoding="utf-8"))
    assert expected["base"] == "digits-mlp"
    parts = {name.partition("/")[0] for name in load_file(folder / "start.safetensors")}
    assert parts == {"model", "dense", "mask"}
    # Where there is no such run, the weights that came along are started from.
    assert loaded(folder / "replay.py").main() == 0


def test_what_only_one_workspace_has_is_named_for_no_other(workspace: Path, run: str) -> None:
    store = Store(workspace)
    assert base_of(f"run:{run}", store) == base_of("digits-mlp", store) == "digits-mlp"
    assert base_of(f"digits-mlp{JOINED}0123", store) == ""  # data that somebody brought
    assert base_of("code:my_file.py:build", store) == ""


def test_a_file_of_weights_is_exported_in_its_architecture(
    tmp_path: Path, workspace: Path, run: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The zeros of whole channels are seen, though no recipe says that there are any."""
    file = ended(workspace, run).weights
    to = tmp_path / "out"
    assert main(["export", str(file), "--to", str(to)]) == 2
    assert "--model" in capsys.readouterr().err
    assert main(["export", str(file), "--model", "digits-mlp", "--to", str(to), "--json"]) == 0
    notes = " ".join(json.loads(capsys.readouterr().out)["notes"])
    assert "no replay.py" in notes
    assert (to / "model.safetensors").stat().st_size < 0.6 * file.stat().st_size


def test_what_is_neither_a_run_nor_a_file_is_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", "nothing", "--to", str(tmp_path)]) == 2
    assert "neither a file nor a run called 'nothing'" in capsys.readouterr().err


def test_the_shell_saves_the_compact_model_and_its_onnx_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    compact, onnx = tmp_path / "small.safetensors", tmp_path / "small.onnx"
    flags = ["--model", "digits-mlp", "--save-compact", str(compact)]
    channels = ["--granularity", "channel", "--save-onnx", str(onnx)]
    assert main(["run", *flags, *channels]) == 0
    model = loaded(tmp_path / "small.py").load()
    session = onnxruntime.InferenceSession(onnx)
    x = torch.randn(2, 1, 8, 8)
    (answers,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    np.testing.assert_allclose(answers, model(x).detach().numpy(), rtol=1e-4, atol=1e-4)
    assert main(["run", *flags]) == 2
    assert "made no compact model" in capsys.readouterr().err
    assert main(["run", "--model", "digits-mlp", "--save-compact", "small.py"]) == 2
    assert "small.py is where" in capsys.readouterr().err


def test_what_cannot_be_recorded_is_taken_home_as_weights(tmp_path: Path) -> None:
    branching = Workpiece("branching", _Branching(), example=torch.randn(2, 4))
    contents: Contents = bundle.write(Result(name="Branching", work=branching, masks={}), tmp_path)
    assert "model.py" not in contents.files and "model.safetensors" in contents.files
    assert any(note.startswith("model.py is missing: _Branching cannot") for note in contents.notes)


class _Branching(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Any) -> Any:
        return self.layer(x) if float(x.sum()) > 0 else -self.layer(x)


def test_the_shipped_example_of_an_earlier_version_is_taken_home(
    home: Path, tmp_path: Path
) -> None:
    store = Store()
    example.ensure(store)
    (job,) = store.jobs("run")
    result = result_of(store, job.id)
    assert result.finished is not None and result.facts is not None
    assert with_interval(result.finished.final.quality) in report(result, [])


class _Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_report_asks_nobody_and_runs_nothing_whatever_it_names(
    workspace: Path, run: str
) -> None:
    planted = "<script>alert(1)</script><img src=http://a.example/x onerror=alert(1)>"
    result = result_of(Store(workspace), run)
    histogram = Histogram(np.linspace(-1, 1, 257), np.ones(256, int), np.ones(256, int))
    pruned = replace(result.pruned[-1], layers=(Layer(planted, 10, 5),))
    result = replace(
        result, name=planted, histograms={planted: histogram}, pruned=(pruned,), date=planted
    )
    page = report(result, [planted])
    tags = _Tags(page).tags
    assert not {"script", "img", "link", "iframe", "object"} & {tag for tag, _ in tags}
    attributes = {name for _, attrs in tags for name in attrs}
    assert not {"src", "href", "onerror", "onload"} & attributes
    policy = next(attrs["content"] for tag, attrs in tags if "http-equiv" in attrs)
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"
    assert page.count("<svg") >= 2 and planted not in page
