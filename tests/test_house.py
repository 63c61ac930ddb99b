"""The laws of the house: who imports whom, what is public, what is pinned, and what run.py says when something is missing."""

from __future__ import annotations

import ast
import importlib.util
import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
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
    "Recipe",
    "Scores",
    "Workpiece",
    "apply",
    "choose",
    "measure",
    "run",
    "sensitivity",
    "shrink",
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
            if getattr(node.func, "id", getattr(node.func, "attr", "")) in (
                "import_module",
                "__import__",
            ):
                yield str(node.args[0].value).split(".")[0]


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip(
            "not a git checkout: the files that belong to the project cannot be told from others"
        )
    return [
        path
        for name in listed.stdout.decode().split("\0")
        if name and (path := ROOT / name).is_file()
    ]


def text_of(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


# ---------------------------------------------------------------- who imports whom


def test_imports_are_found_wherever_they_hide() -> None:
    source = "def f():\n    if x:\n        from torch.nn import Linear\n    importlib.import_module('streamlit.web')\nimport a.b, c\n"
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
    broken = {
        named(path): bad
        for path in files
        if (bad := never & set(imported(path.read_text(encoding="utf-8"))))
    }
    assert not broken


@pytest.mark.parametrize("module", TORCH_FREE)
def test_what_pages_read_does_not_load_torch(module: str) -> None:
    script = f"import sys, {module}\nassert not {{'torch', 'streamlit'}} & set(sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_gallery_lists_models_without_torch() -> None:
    lists = "assert s.names()\n[s.card(name) for name in s.names()]\nlist(s.datasets())"
    script = f"import sys, sample_models as s\n{lists}\nassert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_page_does_not_load_torch() -> None:
    """Every module of the page, imported in one process, as the web process would over its life."""
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in SOURCES
        if path.relative_to(ROOT).parts[0] == "dashboard"
    ]
    pure = [
        name.removesuffix(".__init__")
        for name in modules
        if ".views" not in name and name != "dashboard.app"
    ]
    script = f"import importlib, sys\nfor name in {pure!r}: importlib.import_module(name)\nassert 'torch' not in sys.modules"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
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
            if wanted := line.split("#")[0].strip():
                assert re.fullmatch(r"[A-Za-z0-9_.\-]+==[0-9][0-9A-Za-z.]*", wanted), (
                    f"{name}: {wanted} is not pinned exactly"
                )
                package, version = wanted.split("==")
                pins[package] = version
    assert (pins["torch"], pins["torchvision"], pins["streamlit"]) == ("2.14.1", "0.29.1", "1.67.0")


def test_nothing_names_a_machine_or_an_index() -> None:
    """A clone works anywhere: no absolute path of somebody's machine, no package index spelt out."""
    paths, hosts = (
        r"/(?:home|Users|root|work|opt)/\w|--(?:extra-)?index-url",
        r"pypi\.org|pythonhosted\.org|download\.pytorch\.org",
    )
    strange = re.compile(f"{paths}|{hosts}")
    me = Path(__file__).resolve()
    found = {
        named(path): hit.group()
        for path in tracked()
        if path != me and (text := text_of(path)) and (hit := strange.search(text))
    }
    assert found == {}


def test_nothing_unsafe_is_switched_on() -> None:
    unsafe = re.compile(
        r"unsafe_allow_html\s*=\s*True|weights_only\s*=\s*False|except[^:\n]*:\s*\n?\s*pass\b.*#\s*$|except\s*:"
    )
    found = {
        named(path): hit.group()
        for path in SOURCES
        if (hit := unsafe.search(path.read_text(encoding="utf-8")))
    }
    assert found == {}


def test_the_page_has_no_folder_called_pages() -> None:
    assert not (ROOT / "dashboard" / "pages").exists(), (
        "Streamlit would take it for navigation of its own"
    )
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
    assert set(imported(source)) <= set(sys.stdlib_module_names)


def test_an_old_python_is_told_what_would_do(house: ModuleType) -> None:
    assert house.too_old((3, 11, 0), []) is None
    assert house.too_old((3, 14, 1), []) is None
    assert "this is Python 3.9.18" in house.too_old((3, 9, 18), [])
    assert "`python3.12 run.py`" in house.too_old((3, 9, 18), ["python3.12"])


PIP = {
    "disk full": "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device",
    "certificate": "WARNING: Retrying after connection broken by 'SSLError(SSLCertVerificationError(1, 'CERTIFICATE_VERIFY_FAILED'))'\n"
    "ERROR: No matching distribution found for torch==2.14.1",
    "no network": "WARNING: Retrying after connection broken by 'NewConnectionError: Temporary failure in name resolution'\n"
    "ERROR: Could not find a version that satisfies the requirement torch==2.14.1 (from versions: none)\n"
    "ERROR: No matching distribution found for torch==2.14.1",
    "no match": "ERROR: Could not find a version that satisfies the requirement torch==2.14.1 (from versions: 2.2.2)\n"
    "ERROR: No matching distribution found for torch==2.14.1",
    "not allowed": "ERROR: Could not install packages due to an OSError: [Errno 13] Permission denied: 'x'",
    "build": "error: subprocess-exited-with-error",
    "other": "something odd\nERROR: the moon is in the wrong phase",
}


@pytest.mark.parametrize("kind", PIP)
def test_what_stopped_pip_is_told_apart(house: ModuleType, kind: str) -> None:
    found, sentence = house.explain(PIP[kind], 1)
    assert found == kind
    assert "start again" in sentence.lower() or "Python 3.11" in sentence
    assert ("torch==2.14.1" in sentence) == (kind == "no match")
    assert ("the wrong phase" in sentence) == (kind == "other")


@pytest.mark.parametrize("code", [-9, 137, -signal.SIGTERM])
def test_a_killed_pip_is_not_mistaken_for_a_failure_of_the_network(
    house: ModuleType, code: int
) -> None:
    assert house.explain(PIP["no network"], code)[0] == "killed"


def test_debian_without_venv_is_told_the_package(house: ModuleType) -> None:
    said = (
        "The virtual environment was not created successfully because ensurepip is not available."
    )
    assert f"python3.{sys.version_info[1]}-venv" in house.why_no_venv(said, 1)
    assert "disk is full" in house.why_no_venv("OSError: [Errno 28] No space left on device", 1)


def test_the_disk_is_looked_at_first(house: ModuleType) -> None:
    refusal, _ = house.short_of_disk(1.0, False)
    assert "Only 1.0 GB are free" in refusal
    assert "make room" in refusal
    assert house.short_of_disk(house.LEAST + 0.1, False)[0] is None
    assert house.short_of_disk(house.LEAST + 0.1, False)[1] is not None
    assert house.short_of_disk(1000.0, False) == (None, None)
    assert house.short_of_disk(1.0, True) == (None, None)


def test_a_full_disk_stops_before_anything_is_fetched(
    house: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.VENV.mkdir()
    monkeypatch.setattr(
        house.shutil, "disk_usage", lambda _: type("Usage", (), {"free": int(2e9), "used": 0})()
    )
    monkeypatch.setattr(house.subprocess, "Popen", lambda *_, **__: pytest.fail("started pip"))
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

    monkeypatch.setattr(
        house, "make_venv", lambda: (house.VENV.mkdir(exist_ok=True), house.PYTHON.touch())
    )
    monkeypatch.setattr(house, "install", interrupted)
    with pytest.raises(KeyboardInterrupt):
        house.ensure(house.APP)
    assert not house.ready(house.APP)
    house.STAMP.write_text('{"requirements.txt": ')
    assert not house.ready(house.APP)
    monkeypatch.setattr(house, "install", calls.append)
    house.ensure(house.APP)
    assert house.ready(house.APP)
    house.PYTHON.unlink()  # the Python it was made from is gone
    assert not house.ready(house.APP)


def test_a_taken_port_gives_the_next(house: ModuleType) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        taken = holder.getsockname()[1]
        assert house.free_port("127.0.0.1", taken) > taken
        with pytest.raises(house.Trouble, match="--port"):
            house.free_port("127.0.0.1", taken, tries=1)
    assert house.free_port("127.0.0.1", taken) == taken


def test_pips_talk_is_cut_to_what_helps(house: ModuleType) -> None:
    assert (
        house.worth_showing("Collecting torch==2.14.1 (from -r requirements.txt (line 2))")
        == "Collecting torch==2.14.1"
    )
    assert (
        house.worth_showing("  Downloading torch-2.14.1.whl (554.6 MB)")
        == "Downloading torch-2.14.1.whl (554.6 MB)"
    )
    assert (
        house.worth_showing("Installing collected packages: a, b, c")
        == "Unpacking 3 packages; this is the slow part"
    )
    assert house.worth_showing("Successfully installed a-1 b-2") == "Installed 2 packages"
    assert house.worth_showing("Requirement already satisfied: numpy") is None


def test_a_browser_opens_only_where_somebody_looks(
    house: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house, "LINUX", True)
    assert house.has_screen({"DISPLAY": ":0"})
    assert not house.has_screen({})
    assert not house.has_screen({"DISPLAY": ":0", "CI": "true"})


def test_any_failing_check_fails_the_whole_and_pytest_comes_last(
    house: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran: list[str] = []
    codes = {"ruff": 1, "mypy": 0, "pytest": 0}

    def done(command: list[str], **_: object) -> object:
        ran.append(command[2])
        return type("Done", (), {"returncode": codes[command[2]]})()

    monkeypatch.setattr(house, "ensure", lambda _: None)
    monkeypatch.setattr(house.subprocess, "run", done)
    assert house.test([]) == 1
    assert ran == ["ruff", "mypy", "pytest"]
    codes.update(ruff=0, pytest=2)
    assert house.test([]) == 2
    codes.update(pytest=0)
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
    house._replace(house.STAMP, json.dumps({"a": "b"}))
    assert house.installed() == {"a": "b"}
    assert [path.name for path in house.VENV.iterdir()] == ["installed.json"]
