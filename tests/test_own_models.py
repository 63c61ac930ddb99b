"""Models of one's own: code and folders that whoever starts the workbench names, nobody else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest
import timm
import torch
from torch import nn

import pruning
import sample_models
from dashboard import launch, state
from pruning import formats
from pruning.cli import main
from pruning.errors import DataError, FileRefused, ModelError, RecipeError, UnknownName
from pruning.events import Finished
from pruning.recipe import Recipe
from pruning.runs import cache_keys, outlines, own_files, own_models, pool, process_id
from pruning.runs.resolve import describe, resolve
from pruning.runs.weights_file import of_file
from tests.pages import opened, settle, settled, texts

ROOT = Path(__file__).parents[1]

CODE = """
import torch
from torch import nn
from sizes_of_mine import CLASSES

print("a line of its own")


def build():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, CLASSES))
    return model, torch.zeros(1, 1, 8, 8)


def bare():
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))


class WithExample(nn.Linear):
    example = torch.zeros(2, 4)


def attribute():
    return WithExample(4, 2)


def whole():
    import pruning, sample_models
    return sample_models.load("digits-mlp")


def wrong():
    return {"weights": 1}


def class_itself():
    return WithExample


def odd_example():
    return nn.Linear(4, 2), "a picture"


def broken():
    return nn.Linear(4, 2)(torch.zeros(1, 5))


def leaves():
    raise SystemExit(2)
"""


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that somebody starts the workbench in."""
    folder = tmp_path / "mine"
    (folder / "package").mkdir(parents=True)
    (folder / "model.py").write_text(CODE)
    (folder / "package" / "nets.py").write_text(CODE)
    (folder / "sizes_of_mine.py").write_text("CLASSES = 5\n")
    (folder / "torn.py").write_text("def build(:\n")
    monkeypatch.chdir(folder)
    monkeypatch.setenv(own_models.VARIABLE, "[]")
    path = list(sys.path)
    yield folder
    sys.path[:] = path


def named(text: str) -> pruning.Workpiece:
    return resolve(own_models.name(text))


@pytest.mark.parametrize("text", ["model.py:build", "package.nets:build"])
def test_a_function_becomes_a_model(text: str, mine: Path, capsys: pytest.CaptureFixture) -> None:
    work = named(text)
    assert work.name == text.removeprefix("code:") and not work.model.training
    assert work.example is not None and work.model(work.example).shape == (1, 5)
    assert capsys.readouterr().out == "", "what the code prints does not mix with lines of JSON"
    *_, end = pruning.run(Recipe(granularity="channel", sparsity=0.5), work)
    assert isinstance(end, Finished)


def test_every_process_builds_the_same_weights(mine: Path) -> None:
    from pruning.runs import own_code

    own = own_models.known(own_models.name("model.py:build"))
    first, again = (own_code.load(own).model.state_dict() for _ in range(2))
    assert first and all(torch.equal(first[name], again[name]) for name in first)


def test_a_model_without_data_is_pruned_by_what_needs_none(mine: Path) -> None:
    bare = named("model.py:bare")
    assert bare.example is None
    *_, end = pruning.run(Recipe(sparsity=0.5), bare)
    assert isinstance(end, Finished) and end.sparsity == 0.5
    with pytest.raises(DataError, match="training data"):
        list(pruning.run(Recipe(criterion="taylor", sparsity=0.5), bare))


def test_an_example_may_be_an_attribute_and_a_workpiece_is_whole(mine: Path) -> None:
    example = named("model.py:attribute").example
    assert isinstance(example, torch.Tensor) and example.shape == (2, 4)
    work = named("model.py:whole")
    assert work.name == "digits-mlp" and work.test is not None


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("wrong", r"wrong \(model\.py, line \d+\) returned a dict: return an nn\.Module"),
        ("class_itself", r"returned the class WithExample: call the class, and return"),
        ("odd_example", r"gives a str as example: give one batch of inputs"),
        ("broken", r"model\.py, line 45, stops model\.py:broken \(RuntimeError: mat1 and mat2"),
        ("leaves", r"model\.py, line \d+, stops model\.py:leaves \(SystemExit: 2\)"),
        ("nothing", r"model\.py has no function nothing: it has build, bare"),
    ],
)
def test_what_goes_wrong_is_one_sentence_with_file_and_line(
    function: str, words: str, mine: Path
) -> None:
    with pytest.raises(ModelError, match=words) as error:
        named(f"model.py:{function}")
    assert str(error.value).endswith(".") and "\n" not in str(error.value)


def test_files_that_cannot_be_imported_say_which_line(mine: Path) -> None:
    with pytest.raises(ModelError, match=r"torn\.py, line 1, is no Python"):
        named("torn.py:build")
    with pytest.raises(ModelError, match=r"package\.none:build cannot be imported"):
        named("package.none:build")
    (mine / "needs.py").write_text("import no_such_package\n")
    with pytest.raises(ModelError, match=r"needs\.py, line 1, .*No module named 'no_such_package'"):
        named("needs.py:build")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("model.py", r"names no function: add the one .* model\.py:build"),
        ("model.py:not a name", "names no function"),
        ("none.py:build", r"There is no file .*none\.py"),
        ("hf:", "names no folder"),
        ("hf:nowhere", "names no folder"),
    ],
)
def test_names_that_lead_nowhere_are_refused_at_the_start(
    text: str, words: str, mine: Path
) -> None:
    with pytest.raises(RecipeError, match=words):
        own_models.name(text)
    assert own_models.named() == []


@pytest.mark.parametrize("model", ["digits-mlp", "torchvision:resnet18", "run:a", "timm:resnet10t"])
def test_other_names_stay_as_they_are(model: str, mine: Path) -> None:
    assert own_models.name(model) == model and own_models.named() == []


# ---------------------------------------------------------------- by nobody else


def test_code_that_nobody_named_is_never_looked_at(mine: Path, home: Path) -> None:
    """Of a link, a recipe file, a run: whatever names it."""
    (mine / "model.py").write_text("raise RuntimeError('it was run')")
    for model in ("code:model.py:build", f"hf:{mine}", "code:os:getcwd", "code:../x.py:f"):
        assert cache_keys.facts(model, home) == cache_keys.facts("nothing", home)
        for ask in (resolve, describe, own_models.check):
            with pytest.raises(RecipeError, match="was not started with it"):
                ask(model)
    (mine / "recipe.json").write_text(json.dumps({"model": "code:model.py:build"}))
    assert main(["run", "recipe.json"]) == 2


def test_the_name_alone_is_allowed_and_not_what_looks_like_it(mine: Path) -> None:
    own_models.name("model.py:build")
    for other in ("code:model.py:bare", "code:./model.py:build", "code:model.py:build "):
        with pytest.raises(RecipeError, match="was not started with it"):
            resolve(other)


def test_workers_that_run_already_learn_it_from_the_workspace(
    mine: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home.mkdir(exist_ok=True)
    model = own_models.name("model.py:build")
    own_models.keep(home)
    monkeypatch.setenv(own_models.VARIABLE, "[]")
    monkeypatch.chdir(home)
    assert resolve(model, home).name == "model.py:build"
    with pytest.raises(RecipeError):
        own_models.check(model)  # what a page asks, of a server that was not started with it
    own_models.keep(home)  # by a server that was started without it
    with pytest.raises(RecipeError):
        own_models.known(model, home)
    (home / own_models.KEPT / "torn.json").write_text("{")
    with pytest.raises(RecipeError):
        own_models.known(model, home)


def test_two_servers_of_a_workspace_name_models_of_their_own(
    mine: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = [sys.executable, "-c", "input()"]
    with subprocess.Popen(other, stdin=subprocess.PIPE) as process:
        second = process_id.name(process.pid)
        for server, model in ((process_id.me(), "model.py:build"), (second, "model.py:bare")):
            monkeypatch.setenv(own_models.VARIABLE, "[]")
            monkeypatch.setattr(process_id, "me", partial(str, server))
            own_models.name(model)
            own_models.keep(home)
        monkeypatch.setenv(own_models.VARIABLE, "[]")
        names = ("code:model.py:build", "code:model.py:bare")
        assert [own_models.known(name, home).folder for name in names] == [mine, mine]
        # Where both mean another one by a name, neither is guessed.
        (mine / "package" / "model.py").write_text(CODE)
        own_models.name("model.py:build", mine / "package")
        own_models.keep(home)
        monkeypatch.setenv(own_models.VARIABLE, "[]")
        with pytest.raises(RecipeError, match="another model for each of two servers"):
            own_models.known("code:model.py:build", home)
        process.communicate(b"\n")
    # What a server named that has ended lasts until another one starts.
    assert second in [server for _, server, _ in own_models._kept(home)]
    monkeypatch.setattr(process_id, "me", partial(process_id.name, os.getpid()))
    own_models.keep(home)
    assert own_models._kept(home) == []


def test_changed_code_is_another_model(mine: Path, home: Path) -> None:
    model = own_models.name("model.py:bare")
    before, stamp = cache_keys.facts(model, home), cache_keys.stamp()
    resolve(model, home)
    (mine / "model.py").write_text(CODE.replace("nn.Linear(6, 2)", "nn.Linear(6, 9)"))
    assert cache_keys.facts(model, home) != before and cache_keys.stamp() != stamp
    assert resolve(model, home).model(torch.zeros(1, 4)).shape == (1, 9)
    # What it imports from beside it counts as well.
    before = cache_keys.facts(model, home)
    (mine / "sizes_of_mine.py").write_text("CLASSES = 11\n")
    assert cache_keys.facts(model, home) != before


# ---------------------------------------------------------------- shell, server, page


def test_the_shell_takes_it_with_every_verb(mine: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--model", "model.py:build", "--sparsity", "0.5", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["event"] == "finished"
    assert main(["sensitivity", "--model", "model.py:build"]) == 2
    assert "needs validation data" in capsys.readouterr().err
    check = ["check", "--model", "package.nets:whole", "--layer", "fc3", "--criteria", "magnitude"]
    assert main([*check, "--json"]) == 0
    weights = {name: value * 2 for name, value in named("model.py:bare").model.state_dict().items()}
    torch.save({"state_dict": weights}, mine / "mine.pt")
    assert main(["measure", "--model", "model.py:bare", "--weights", "mine.pt", "--json"]) == 0
    assert main(["export", "mine.pt", "--model", "model.py:build", "--to", "out"]) == 2
    assert "does not fit code:model.py:build" in capsys.readouterr().err
    assert main(["export", "mine.pt", "--model", "model.py:bare", "--to", "out"]) == 0
    assert (mine / "out" / "bundle.zip").is_file()


def test_the_start_passes_names_on_and_refuses_others(mine: Path) -> None:
    place = launch.Place(Path(sys.executable), ROOT)
    variable = launch.own_models(["model.py:build", "package.nets:bare"], place)
    assert json.loads(variable["PRUNING_MODELS"]) == [
        ["model.py:build", str(mine), ""],
        ["package.nets:bare", str(mine), ""],
    ]
    for wrong in ("digits-mlp", "none.py:build", "none.onnx"):
        with pytest.raises(launch.Trouble) as caught:
            launch.own_models([wrong], place)
        assert len(str(caught.value).splitlines()) == 1
    assert launch.own_models([], place) == {}


def test_it_stands_first_in_the_gallery_and_is_used(
    mine: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "ensure", lambda *_: False)
    model = own_models.name("model.py:build")
    page = settled()
    assert not page.exception and not page.error
    buttons = [button.key for button in page.button if str(button.key).startswith("choose-")]
    assert buttons[0] == f"choose-{model}"
    assert "model.py" in texts(page) and "756 weights" in texts(page)
    page.button(key=f"choose-{model}").click()
    settle(page.run())
    assert not page.exception and not page.error
    assert state.decode(page.query_params["r"]).model == model
    assert list(page.dataframe[0].value["weights"]) == [36, 720]


# ---------------------------------------------------------------- files


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("network") / "net.onnx"
    work = sample_models.load("digits-cnn")
    assert isinstance(work.example, torch.Tensor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # The older exporter, which takes no seconds.
        torch.onnx.export(work.model, (work.example,), file, dynamo=False)
    return file


@pytest.fixture
def files(mine: Path, home: Path, network: Path, read_here: None) -> Path:
    """Weights of a sample, of one's own code, the same for 3 classes, and a network as ONNX."""
    shutil.copy(network, mine)
    torch.save(sample_models.load("digits-cnn").model.state_dict(), mine / "digits.pt")
    own = named("model.py:build").model.state_dict()
    torch.save({name: value + 1 for name, value in own.items()}, mine / "mine.pt")
    own["3.weight"], own["3.bias"] = own["3.weight"][:3] + 1, own["3.bias"][:3]
    torch.save(own, mine / "three.pt")
    os.environ[own_models.VARIABLE] = "[]"
    return mine


def test_the_shell_takes_files(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for file in ("net.onnx", "digits.pt"):
        assert main(["measure", "--model", file, "--json"]) == 0
        line = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert line["model"] == file and line["accuracy"]["value"] > 0.9
    sweep = ["--levels", "0.5", "--tier", "estimate", "--json"]
    assert main(["sensitivity", "--model", "digits.pt", *sweep]) == 0
    capsys.readouterr()
    run = ["run", "--sparsity", "0.5", "--json", "--model"]
    assert main([*run, "model.py:build=three.pt"]) == 0
    end = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert end["event"] == "finished" and end["weights"]["total"] == 36 + 3 * 144


def test_weights_are_measured_beside_a_network_that_is_a_file(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    state = resolve(own_files.name("net.onnx")).model.state_dict()
    torch.save({name: value * (value > 0) for name, value in state.items()}, files / "half.pt")
    words = ["measure", "--model", "net.onnx", "--weights", "half.pt", "--json"]
    assert main(words) == 0
    dense, half = map(json.loads, capsys.readouterr().out.splitlines())
    assert (dense["weights"], half["weights"]) == ("dense", "half.pt")
    assert half["weights_nonzero"] < 0.7 * dense["weights_nonzero"]
    assert half["accuracy"]["total"] == dense["accuracy"]["total"]
    # What it was compared with is kept, and what was only measured is not.
    assert [upload.name for upload in formats.uploads()] == ["net.onnx"]


@pytest.mark.parametrize("model", ["digits.pt", "model.py:build=mine.pt", "digits-cnn"])
def test_a_file_in_the_architecture_of_any_model(files: Path, model: str) -> None:
    name = own_files.name(model)
    dense = resolve(name)
    state = {key: value + 1 for key, value in dense.model.state_dict().items()}
    torch.save(state, files / "other.pt")
    work = of_file(files / "other.pt", name)
    for key, value in work.model.state_dict().items():
        assert torch.equal(value, state[key])
    assert (work.test is None) == (dense.test is None)
    if name.startswith("upload:"):
        with pytest.raises(FileRefused, match=rf"does not fit {dense.name} \("):
            of_file(files / "three.pt" if model == "digits.pt" else files / "digits.pt", name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("none.pt", r"There is no file .*none\.pt: check the path"),
        ("torchvision:resnet18=none.pt", r"There is no file .*none\.pt"),
        ("mine.pt", r"fits no sample model .* as in my_file\.py:build=mine\.pt"),
        ("digits-cnn=net.onnx", "brings its own architecture: leave digits-cnn="),
        ("model.py:bare=mine.pt", r"mine\.pt does not fit code:model\.py:bare"),
        ("model.py:bare=three.pt", r"three\.pt does not fit code:model\.py:bare"),
        ("text.pt", r"text\.pt is a text file"),
    ],
)
def test_files_that_lead_nowhere_are_refused_at_the_start(
    text: str, words: str, files: Path
) -> None:
    (files / "text.pt").write_text("no weights")
    with pytest.raises((RecipeError, FileRefused), match=words):
        own_files.name(text)
    assert not [own for own in own_models.named() if own.kept]


def test_files_stand_first_in_the_gallery(
    files: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "ensure", lambda *_: False)
    kept = [own_files.name(file) for file in ("net.onnx", "digits.pt")]
    assert [own.model for own in own_models.named()] == kept
    page = settled()
    assert not page.exception and not page.error
    buttons = [button.key for button in page.button if str(button.key).startswith("choose-")]
    assert buttons[:2] == [f"choose-{model}" for model in kept]
    assert "net.onnx" in texts(page) and "digits.pt" in texts(page)
    page.button(key=buttons[0]).click()
    settle(page.run())
    assert not page.exception and not page.error
    assert state.decode(page.query_params["r"]).model == kept[0]


def test_weights_of_own_code_and_timm_come_by_the_page(
    files: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "ensure", lambda *_: False)
    code = own_models.name("model.py:build")
    torch.save(timm.create_model("test_vit", num_classes=4).state_dict(), files / "vit.pt")
    for architecture, file, classes in (
        (code, "mine.pt", 5),
        (code, "three.pt", 3),
        ("timm:test_vit", "vit.pt", 4),
    ):
        # The current model is the one that is offered first.
        page = opened(r=state.encode(Recipe(model=architecture)))
        page.segmented_control(key="way").set_value("Your own weights").run()
        assert page.selectbox(key="own-architecture").value == architecture
        page.file_uploader[0].upload(file, (files / file).read_bytes()).run()
        assert not page.exception and not page.error, [box.value for box in page.error]
        model = state.decode(page.query_params["r"]).model
        work = resolve(model)
        assert model.startswith("upload:") and work.example is not None
        assert work.model(work.example).shape[-1] == classes
        saved = torch.load(files / file)
        assert all(torch.equal(saved[name], v) for name, v in work.model.state_dict().items())
    with pytest.raises(RecipeError, match="was not started with it"):
        outlines.expected("code:os:getcwd")


def test_weights_of_code_that_was_edited_since_are_asked_for_again(files: Path, home: Path) -> None:
    model = own_files.name("model.py:build=mine.pt")
    before = cache_keys.facts(model, home)
    assert resolve(model).model[0].weight.shape == (4, 1, 3, 3)
    code = CODE.replace("Conv2d(1, 4, 3)", "Conv2d(1, 2, 3)").replace("144", "72")
    (files / "model.py").write_text(code)
    assert cache_keys.facts(model, home) != before
    with pytest.raises(ModelError, match="changed since these weights were brought"):
        resolve(model)
    with pytest.raises(FileRefused, match="does not fit"):
        own_files.name("model.py:build=mine.pt")


def test_only_a_last_layer_of_its_own_takes_other_classes(mine: Path) -> None:
    from pruning.runs.new_head import with_classes

    head = with_classes(named("model.py:attribute"), 9)
    assert head(torch.zeros(2, 4)).shape == (2, 9) and head.out_features == 9
    x = torch.zeros(1, 4)
    tied = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    tied[1].weight = tied[0].weight
    two = nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))
    for model in (tied, two, nn.Sequential(nn.Linear(4, 4), nn.Unflatten(1, (2, 2)))):
        with pytest.raises(ModelError, match="another number of classes"):
            with_classes(pruning.Workpiece("odd", model, example=x), 9)
    with pytest.raises(ModelError, match="another number of classes"):
        with_classes(named("model.py:bare"), 9)


def test_a_link_to_code_that_the_server_was_not_started_with_is_refused(
    mine: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "ensure", lambda *_: False)
    (mine / "model.py").write_text("raise RuntimeError('it was run')")
    page = opened(r=state.encode(Recipe(model="code:model.py:build")))
    assert not page.exception
    assert any("was not started with it" in box.value for box in page.error)


# ---------------------------------------------------------------- other libraries


def test_timm_by_name() -> None:
    work = resolve("timm:resnet10t")
    assert work.name == "resnet10t (random weights)" and work.example is not None
    with pytest.raises(UnknownName, match="resnet10t"):
        resolve("timm:resnet10x")
    for hostile in ("timm:hf-hub:a/b", "timm:local-dir:/tmp/x", "timm:../x", "timm:"):
        with pytest.raises(UnknownName):
            resolve(hostile)


@pytest.fixture
def bert(mine: Path) -> Path:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=40,
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=24,
        max_position_embeddings=32,
        num_labels=3,
    )
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(config)
    model.save_pretrained(mine / "bert")
    return mine / "bert"


def test_a_hugging_face_directory(bert: Path) -> None:
    work = named("hf:bert")
    assert work.example is not None and work.example.shape == (2, 16)
    assert work.model(work.example).logits.shape == (2, 3)
    *_, end = pruning.run(Recipe(sparsity=0.5), work)
    assert isinstance(end, Finished)


def test_a_directory_with_code_of_its_own_or_without_weights_is_refused(bert: Path) -> None:
    about = json.loads((bert / "config.json").read_text())
    (bert / "config.json").write_text(json.dumps({**about, "auto_map": {"AutoModel": "x.Net"}}))
    with pytest.raises(FileRefused, match="code of its own"):
        named("hf:bert")
    for architectures in (["Trainer"], ["os"], None, [7]):
        (bert / "config.json").write_text(json.dumps({**about, "architectures": architectures}))
        with pytest.raises(FileRefused, match="names no model of transformers"):
            named("hf:bert")
    (bert / "config.json").write_text("[" * 10_000)
    with pytest.raises(FileRefused, match="that is a table"):
        named("hf:bert")
    (bert / "config.json").write_text(json.dumps(about))
    (bert / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(FileRefused, match="could not be read as Bert"):
        named("hf:bert")
    (bert / "model.safetensors").unlink()
    (bert / "pytorch_model.bin").write_bytes(b"a pickle, which is never read")
    with pytest.raises(FileRefused, match=r"holds no \.safetensors"):
        named("hf:bert")
