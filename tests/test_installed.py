"""The installed package: what its wheel holds, what it asks for, and the command that it brings."""

from __future__ import annotations

import ast
import os
import re
import shutil
import socket
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from dashboard import launch
from tests.test_house import ROOT, imported, tracked

PACKAGES = ("pruning", "sample_models", "dashboard")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def packaged() -> set[str]:
    """Tracked files of the three packages, modules and all else."""
    names = (path.relative_to(ROOT) for path in tracked())
    return {name.as_posix() for name in names if name.parts[0] in PACKAGES}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built without a network from the tracked files, so that nothing else can slip in."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in sorted({*packaged(), "pyproject.toml", "README.md"}):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    command += ["--no-index", "--quiet", "--wheel-dir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (file,) = out.glob("*.whl")
    return file


def test_the_wheel_holds_every_file_of_the_packages_and_no_other(wheel: Path) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == packaged()
    assert "dashboard/.streamlit/config.toml" in names, "who may reach the page, and its colours"


# In an interpreter that finds our packages in the unpacked wheel alone.
USED = """
import sys
from pathlib import Path
import pruning, sample_models
here = Path(sys.argv[1]).resolve()
assert Path(pruning.__file__).is_relative_to(here), pruning.__file__
assert "torch" not in sys.modules
work = sample_models.load("digits-mlp")
masks = pruning.choose(pruning.Recipe(sparsity=0.5), work)
kept = sum(int(keep.sum()) for keep in masks.values())
total = sum(keep.numel() for keep in masks.values())
assert abs(kept / total - 0.5) < 0.01
assert not {"streamlit", "plotly", "pandas", "onnx", "h5py", "onnxruntime"} & set(sys.modules)

from importlib.metadata import distribution
(command,) = distribution("pruning-workbench").entry_points.select(group="console_scripts")
assert command.name == "pruning-workbench"
main = command.load()
assert main(["--host", "0.0.0.0", "--no-browser"]) == 1  # nobody would ask others who they are

# Without the extras: a sentence that names the package.
sys.modules.update(dict.fromkeys(("onnx", "h5py", "onnxscript")))
from pruning.errors import FileRefused
from pruning.formats import magic, reader_process
from pruning.measurement.onnx import NotExported, exported
for kind, package in ((magic.ONNX, "onnx"), (magic.KERAS, "h5py")):
    try:
        reader_process._read_network(kind, None, here, {}, {})
    except FileRefused as refused:
        assert f"`pip install {package}`" in str(refused), refused
    else:
        raise AssertionError(f"read without {package}")
try:
    exported(work.model, work.example)
except NotExported as refused:
    assert "pip install onnxscript" in str(refused), refused
else:
    raise AssertionError("exported without onnxscript")
main(["--help"])
"""


def test_the_unpacked_wheel_prunes_and_brings_the_command(wheel: Path, tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "packages", tmp_path / "elsewhere"
    elsewhere.mkdir()
    zipfile.ZipFile(wheel).extractall(folder)
    env = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-c", USED, str(folder)]
    done = subprocess.run(
        command, cwd=elsewhere, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "--passphrase WORD" in done.stderr, "the refusal names the way out"
    for option in ("--port", "--host", "--data", "--model", "--behind-proxy", "--no-browser"):
        assert option in done.stdout


def pins(*names: str) -> dict[str, str]:
    """Package -> its exact version in these requirements files."""
    lines = [line for name in names for line in (ROOT / name).read_text().splitlines()]
    exact = [re.match(r"([\w.\-]+)==([\w.]+)", line) for line in lines]
    return {match[1]: match[2] for match in exact if match}


def test_the_package_asks_for_what_the_tests_run_with() -> None:
    """At least the pinned versions; of Streamlit, whose inside the page uses, exactly that one."""
    extras = PROJECT["optional-dependencies"]
    unused = set(extras["dask"])  # which nothing here imports yet
    asked = {*PROJECT["dependencies"], *(one for extra in extras.values() for one in extra)}
    known = pins("requirements.txt", "requirements-dev.txt")
    for requirement in asked - unused:
        name, sign, version = re.fullmatch(r"([\w.\-]+)(>=|==)([\w.]+)", requirement).groups()  # type: ignore[union-attr]
        assert known[name] == version, f"{requirement}: requirements.txt has {known[name]}"
        assert (sign == "==") == (name == "streamlit")
    named = {re.split("[>=]", requirement)[0] for requirement in asked}
    assert set(pins("requirements.txt")) <= named, "each is a dependency, or of an extra"


# ---------------------------------------------------------------- the command


def test_the_start_needs_nothing_installed() -> None:
    """run.py asks for it before it has made the environment."""
    source = Path(launch.__file__).read_text(encoding="utf-8")
    assert set(imported(source)) <= set(sys.stdlib_module_names)
    empty = ast.parse((ROOT / "dashboard" / "__init__.py").read_text(encoding="utf-8"))
    assert len(empty.body) == 1, "a docstring alone"


def test_what_the_current_folder_holds_does_not_stand_before_the_packages(tmp_path: Path) -> None:
    installed = launch.Place(Path("python"), None)
    assert installed.command("streamlit", "run") == ["python", "-P", "-m", "streamlit", "run"]
    # run.py's folder is where the packages are.
    assert "-P" not in launch.Place(Path("python"), tmp_path).command("streamlit")


def test_a_taken_port_gives_the_next() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        assert launch.free_port("127.0.0.1", taken) > taken
        with pytest.raises(launch.Trouble, match="--port"):
            launch.free_port("127.0.0.1", taken, tries=1)
    assert launch.free_port("127.0.0.1", taken) == taken


def test_a_browser_opens_only_where_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "LINUX", True)
    assert launch.has_screen({"DISPLAY": ":0"})
    assert not launch.has_screen({})
    assert not launch.has_screen({"DISPLAY": ":0", "CI": "true"})
