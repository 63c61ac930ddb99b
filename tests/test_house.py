"""Rules of the whole project: torch-free modules, the public names, pinned versions, run.py."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCES = sorted(
    p for room in ("pruning", "dashboard", "sample_models") for p in (ROOT / room).rglob("*.py")
)
TORCH_FREE = (
    "pruning",
    "pruning.stats",
    "pruning.errors",
    "pruning.events",
    "pruning.sensitivity_map.planning",
    "pruning.metrics",
    "pruning.allocation.ranking",
    "pruning.recipe",
    "pruning.registry",
    "pruning.allocation.path",
    "pruning.runs.pool",
    "pruning.runs.results",
    "pruning.runs.store",
    "pruning.allocation.schedules",
    "pruning.allocation.scopes",
    "pruning.structure.groups",
    "pruning.cli.text",
    "sample_models",
)
SURFACE = [
    "Batches",
    "Event",
    "Masks",
    "Measurement",
    "Metric",
    "Recipe",
    "Scores",
    "Workpiece",
    "apply",
    "choose",
    "frame",
    "measure",
    "on_device",
    "plain",
    "run",
    "sensitivity",
    "shrink",
    "watch",
]


def named(path: Path) -> str:
    return str(path.relative_to(ROOT))


def imported(source: str) -> Iterator[str]:
    """Every top-level package a file names in an import, however deeply nested."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = getattr(node.func, "id", getattr(node.func, "attr", ""))
            if function in ("import_module", "__import__"):
                yield str(node.args[0].value).split(".")[0]


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout: which files belong to the project is not known")
    paths = [ROOT / name for name in listed.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


# ---------------------------------------------------------------- who imports whom


def test_imports_are_found_wherever_they_hide() -> None:
    source = (
        "def f():\n"
        "    if x:\n"
        "        from torch.nn import Linear\n"
        "    importlib.import_module('streamlit.web')\n"
        "import a.b, c\n"
    )
    assert sorted(imported(source)) == ["a", "c", "streamlit", "torch"]


@pytest.mark.parametrize(
    ("room", "never"),
    [
        ("dashboard", {"torch", "torchvision"}),
        ("pruning", {"streamlit", "plotly", "dashboard"}),
        ("sample_models", {"streamlit", "plotly", "dashboard"}),
    ],
)
def test_a_room_never_imports(room: str, never: set[str]) -> None:
    files = [path for path in SOURCES if path.relative_to(ROOT).parts[0] == room]
    assert files
    wrong = {}
    for path in files:
        wrong[named(path)] = never & set(imported(path.read_text(encoding="utf-8")))
    assert not {name: packages for name, packages in wrong.items() if packages}


def in_a_fresh_process(script: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", script]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


# One process imports one after the other and prints the first that loads torch or streamlit.
WHO_LOADS = """
import importlib, sys
for name in {modules!r}:
    importlib.import_module(name)
    if {{"torch", "streamlit"}} & set(sys.modules):
        print(name)
        break
"""


def test_what_pages_read_does_not_load_torch() -> None:
    done = in_a_fresh_process(WHO_LOADS.format(modules=TORCH_FREE))
    assert done.returncode == 0, done.stderr
    assert not done.stdout, f"{done.stdout.strip()} loads torch or streamlit"


LIST_MODELS = """
import sys, sample_models
assert sample_models.names()
[sample_models.card(name) for name in sample_models.names()]
list(sample_models.datasets())
assert "torch" not in sys.modules
"""


def test_the_model_picker_lists_models_without_torch() -> None:
    done = in_a_fresh_process(LIST_MODELS)
    assert done.returncode == 0, done.stderr


def test_the_page_does_not_load_torch() -> None:
    """Every module of the page, imported in one process, as the web process would over its life."""
    files = [path.relative_to(ROOT) for path in SOURCES if ROOT / "dashboard" in path.parents]
    modules = [".".join(file.with_suffix("").parts) for file in files]
    # Views and tab.py draw when they are imported, which needs a session of Streamlit's.
    drawing = ("dashboard.views", "dashboard.tab")
    importable = [name for name in modules if not name.startswith(drawing)]
    script = f"import importlib, sys\nfor name in {importable!r}: importlib.import_module(name)\n"
    done = in_a_fresh_process(script + "assert 'torch' not in sys.modules")
    assert done.returncode == 0, done.stderr


def test_the_public_surface() -> None:
    import pruning

    assert sorted(pruning.__all__) == SURFACE
    assert all(getattr(pruning, name) is not None for name in SURFACE)
    assert callable(pruning.run) and callable(pruning.sensitivity) and callable(pruning.shrink)
    with pytest.raises(AttributeError, match="no attribute 'prune'"):
        pruning.prune  # noqa: B018


# ---------------------------------------------------------------- files


def test_requirements_are_pinned_exactly() -> None:
    pins = {}
    for name in ("requirements.txt", "requirements-dev.txt"):
        for line in (ROOT / name).read_text().splitlines():
            pin = line.split("#")[0].strip()
            if not pin:
                continue
            exact = re.fullmatch(r"([A-Za-z0-9_.\-]+)==([0-9][0-9A-Za-z.]*)", pin)
            assert exact, f"{name}: {pin} is not pinned exactly"
            pins[exact[1]] = exact[2]
    assert (pins["torch"], pins["torchvision"], pins["streamlit"]) == ("2.14.1", "0.29.1", "1.67.0")


def test_nothing_names_a_machine_or_an_index() -> None:
    """A clone works anywhere: no path of somebody's machine, no package index."""
    paths = r"/(?:home|Users|root|work|opt)/\w|--(?:extra-)?index-url"
    hosts = r"pypi\.org|pythonhosted\.org|download\.pytorch\.org"
    assert matches(f"{paths}|{hosts}", set(tracked()) - {Path(__file__).resolve()}) == {}


def matches(pattern: str, paths: Iterable[Path]) -> dict[str, str]:
    """File -> the first match in it; files that are not text have none."""
    texts = {path: text_of(path) or "" for path in paths}
    hits = {path: re.search(pattern, text) for path, text in texts.items()}
    return {named(path): hit.group() for path, hit in hits.items() if hit}


def test_nothing_unsafe_is_switched_on() -> None:
    switches = r"unsafe_allow_html\s*=\s*True|weights_only\s*=\s*False"
    swallowed = r"except[^:\n]*:\s*\n?\s*pass\b.*#\s*$|except\s*:"
    assert matches(f"{switches}|{swallowed}", SOURCES) == {}


def test_the_page_has_no_folder_called_pages() -> None:
    pages = ROOT / "dashboard" / "pages"
    assert not pages.exists(), "Streamlit would take it for navigation of its own"
    assert not (ROOT / "tests" / "pruning").exists(), "it would shadow the engine"


# ---------------------------------------------------------------- run.py


@pytest.fixture
def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """run.py as a module, its folders moved to an empty place."""
    spec = importlib.util.spec_from_file_location("house_run", ROOT / "run.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "VENV", tmp_path / ".venv")
    monkeypatch.setattr(module, "PYTHON", tmp_path / ".venv" / "python")
    monkeypatch.setattr(module, "STAMP", tmp_path / ".venv" / "installed.json")
    monkeypatch.setattr(module, "SCRATCH", tmp_path / ".venv" / "unpacking")
    for name in module.ALL:
        (tmp_path / name).write_text("numpy==2.4.6\n")
    return module


def test_run_reads_on_an_old_python() -> None:
    source = (ROOT / "run.py").read_text(encoding="utf-8")
    ast.parse(source, feature_version=(3, 6))
    assert "from __future__" not in source, "Python 3.6 does not know annotations there"
    # What starts the page is for newer Pythons: it is asked for once this one is known to be new.
    assert set(imported(source)) <= {*sys.stdlib_module_names, "dashboard"}


def test_an_old_python_learns_what_would_do(house: ModuleType) -> None:
    assert house.too_old((3, 11, 0), []) is None
    assert house.too_old((3, 14, 1), []) is None
    assert "this is Python 3.9.18" in house.too_old((3, 9, 18), [])
    assert "`python3.12 run.py`" in house.too_old((3, 9, 18), ["python3.12"])


def test_a_machine_without_venv_learns_the_package(
    house: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    fails = subprocess.CompletedProcess([], 1)
    monkeypatch.setattr(house.subprocess, "run", lambda *_, **__: fails)
    with pytest.raises(house.Trouble, match=rf"python3\.{sys.version_info[1]}-venv"):
        house.make_venv()


@pytest.mark.parametrize("code", [1, 2, -9])
def test_a_pip_that_fails_is_heard_and_the_way_out_follows(
    house: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    code: int,
) -> None:
    """pip's own lines reach the terminal unchanged; ours names the code and what helps."""
    house.VENV.mkdir()
    real = house.subprocess.run

    def pip(command: list[str], **options: object) -> object:
        assert command[1:4] == ["-m", "pip", "install"]
        last = f"os.kill(os.getpid(), {-code})" if code < 0 else f"sys.exit({code})"
        script = f"import os, sys; print('ERROR: no room', flush=True); {last}"
        return real([sys.executable, "-c", script], **options)

    monkeypatch.setattr(house, "check_disk", lambda free, have_torch: None)
    monkeypatch.setattr(house.subprocess, "run", pip)
    with pytest.raises(house.Trouble, match=f"code {code};") as caught:
        house.install(house.APP)
    assert "ERROR: no room" in capfd.readouterr().out
    for word in ("disk", "network", "Start again", "kept"):
        assert word in str(caught.value)
    assert not house.SCRATCH.exists()


def test_pip_writes_where_the_disk_was_looked_at_and_nowhere_else(
    house: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_TARGET", "elsewhere")
    monkeypatch.setenv("PIP_INDEX_URL", "https://mirror.example")
    env = house.pip_env()
    assert env["TMPDIR"] == str(house.SCRATCH)
    assert "PIP_TARGET" not in env
    assert env["PIP_INDEX_URL"] == "https://mirror.example"


def test_the_disk_is_looked_at_first(house: ModuleType) -> None:
    with pytest.raises(house.Trouble, match=r"Only 1\.0 GB are free.*make room"):
        house.check_disk(1.0, False)
    with pytest.raises(house.Trouble, match="make room for 1 GB"):
        house.check_disk(0.4, True)
    house.check_disk(house.LEAST + 0.1, False)
    house.check_disk(1.0, True)


def test_a_full_disk_stops_before_anything_is_fetched(
    house: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.VENV.mkdir()
    usage = type("Usage", (), {"free": int(2e9)})()
    monkeypatch.setattr(house.shutil, "disk_usage", lambda _: usage)
    monkeypatch.setattr(house.subprocess, "run", lambda *_, **__: pytest.fail("started pip"))
    if house.LEAST > 2:
        with pytest.raises(house.Trouble, match=r"Only 2\.0 GB"):
            house.install(house.APP)


def test_a_second_start_installs_nothing_and_a_changed_file_is_noticed(
    house: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    calls: list[tuple[str, ...]] = []

    def make() -> None:
        house.VENV.mkdir(exist_ok=True)
        house.PYTHON.touch()

    monkeypatch.setattr(house, "make_venv", make)
    monkeypatch.setattr(house, "install", calls.append)
    house.ensure(house.ALL)
    house.ensure(house.APP)
    house.ensure(house.ALL)
    assert calls == [house.ALL]
    (house.ROOT / "requirements.txt").write_text("numpy==2.4.5\n")
    house.ensure(house.APP)
    assert calls == [house.ALL, house.APP]
    assert "requirements.txt changed" in capsys.readouterr().out
    house.ensure(house.ALL)
    assert len(calls) == 2


def test_an_interrupted_or_torn_start_is_taken_up_again(
    house: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, ...]] = []

    def interrupted(files: tuple[str, ...]) -> None:
        raise KeyboardInterrupt

    def make() -> None:
        house.VENV.mkdir(exist_ok=True)
        house.PYTHON.touch()

    monkeypatch.setattr(house, "make_venv", make)
    monkeypatch.setattr(house, "install", interrupted)
    with pytest.raises(KeyboardInterrupt):
        house.ensure(house.APP)
    assert not house.ready(house.APP)
    house.STAMP.write_text('{"requirements.txt": ')
    assert not house.ready(house.APP)
    monkeypatch.setattr(house, "install", calls.append)
    house.ensure(house.APP)
    assert house.ready(house.APP)
    house.PYTHON.unlink()  # the Python it was made from was removed
    assert not house.ready(house.APP)


def test_any_failing_check_fails_the_whole_and_pytest_comes_last(
    house: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[str] = []
    codes = {"ruff": 1, "mypy": 0, "pytest": 0}

    class Done:
        def __init__(self, command: list[str], **_: object) -> None:
            ran.append(command[2])
            self.returncode = codes[command[2]]

        def communicate(self) -> tuple[bytes, None]:
            return b"Success", None

        def kill(self) -> None:
            pass

    monkeypatch.setattr(house, "ensure", lambda _: None)
    monkeypatch.setattr(house.subprocess, "run", Done)
    monkeypatch.setattr(house.subprocess, "Popen", Done)
    assert house.test([]) == 1
    assert ran == ["ruff", "mypy", "pytest"]
    assert capsys.readouterr().out.splitlines()[-1] == "== pytest"  # nothing of ours follows it
    codes.update(ruff=0, pytest=2)
    assert house.test([]) == 2
    codes.update(pytest=0, mypy=1)
    assert house.test([]) == 1
    codes.update(mypy=0)
    assert house.test([]) == 0


def test_unknown_commands_and_benchmarks_list_the_known_ones(
    house: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    assert house.main(["tset"]) == 1
    assert "known are app, test, bench" in capsys.readouterr().err
    (house.ROOT / "tests" / "bench").mkdir(parents=True)
    (house.ROOT / "tests" / "bench" / "slider.py").touch()
    assert house.main(["bench", "sliders"]) == 1
    assert "known are slider" in capsys.readouterr().err


def test_the_stamp_is_never_half_written(house: ModuleType) -> None:
    house.VENV.mkdir()
    house.replace(house.STAMP, json.dumps({"a": "b"}))
    assert house.installed() == {"a": "b"}
    assert [path.name for path in house.VENV.iterdir()] == ["installed.json"]
