"""README's worked example: a network and pictures of one's own, from dense to a file to ship."""

from __future__ import annotations

import copy
import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from pruning.cli import main
from pruning.recipe import Recipe
from pruning.runs import handlers
from pruning.runs.resolve import resolve
from pruning.runs.store import Store
from tests.test_export_source import FRESH

README = Path(__file__).parents[1] / "README.md"
CLASSES = ("left_to_right", "top_to_bottom")


@pytest.fixture
def mine(tmp_path: Path, home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which README's example is typed: my_net.py and a folder of pictures."""
    (code,) = re.findall(r"```python\n(# my_net\.py\n.*?)```", README.read_text("utf-8"), re.DOTALL)
    (tmp_path / "my_net.py").write_text(code)
    dice = np.random.default_rng(0)
    for turned, name in enumerate(CLASSES):
        folder = tmp_path / "pictures" / name
        folder.mkdir(parents=True)
        for i in range(40):
            ramp = np.tile(np.linspace(0, 200, 16), (16, 1)) + dice.uniform(0, 50, (16, 16))
            pixels = (ramp.T if turned else ramp).astype(np.uint8)
            Image.fromarray(np.stack([pixels] * 3, 2)).save(folder / f"{i}.png")
    home.mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def shell() -> list[list[str]]:
    """The commands of the example, as README has them."""
    text = README.read_text("utf-8")
    (block,) = re.findall(
        r"```sh\n(python -m pruning run --model my_net\.py.*?)```", text, re.DOTALL
    )
    lines = block.replace("\\\n", " ").splitlines()
    return [line.partition("#")[0].split()[3:] for line in lines if line.strip()]


def test_from_a_network_of_ones_own_to_a_file_to_ship(
    mine: Path, home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run,) = shell()
    assert main([*run, "--json"]) == 0
    started, *_, end = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert end["event"] == "finished"
    assert end["macs"]["kept"] == pytest.approx(end["macs"]["dense"] / 2, rel=0.1)
    assert end["certificate"]["error"] <= 1e-9
    assert end["accuracy_after"]["value"] > 0.9  # two directions are no hard task
    assert (mine / "small.onnx").stat().st_size > 0

    # The same recipe from the page is a run, and a run is taken home as a bundle.
    store = Store(home)
    recipe = Recipe.from_dict(started["recipe"])
    id = store.submit("run", recipe.to_dict())
    job = store.claim(queues=("run",))
    assert job is not None and job.id == id
    handlers.do(store, job, lambda: False)
    assert main(["export", id, "--to", str(mine / "out"), "--json"]) == 0
    bundle = mine / "fresh" / "bundle"
    with zipfile.ZipFile(mine / "out" / "bundle.zip") as archive:
        archive.extractall(bundle)

    card = (bundle / "card.md").read_text("utf-8")
    assert card.startswith(f"# Run {id[:6]} on my\\_net.py:build on pictures\n")

    work = resolve(recipe.model, home)
    assert work.example is not None
    masked = copy.deepcopy(work.model)
    masked.load_state_dict(load_file(job.folder / "final.safetensors"))
    tries = {"bundle": bundle, "shell": mine / "fresh" / "shell"}
    tries["shell"].mkdir()
    shutil.copy(mine / "small.py", tries["shell"] / "model.py")
    shutil.copy(mine / "small.safetensors", tries["shell"])
    x = torch.randn(3, *work.example.shape[1:])
    with torch.no_grad():
        y = masked.eval()(x)
    for folder in tries.values():
        save_file({"x": x, "y": y}, folder / "tried.safetensors")
    command = [sys.executable, "-I", "-c", FRESH, str(mine / "fresh")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.split() == list(tries)
