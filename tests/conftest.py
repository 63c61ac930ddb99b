"""For every test: a workspace of its own, one thread, and the same examples each time."""

from __future__ import annotations

import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.error import URLError

import pytest
from few_passes import few_passes
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from pruning import Workpiece

# Before anything imports torch or the job store: they read these once. One thread, since two tests
# run at once on two cores, and since the same thread count gives the same bits.
for variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[variable] = "1"
WORKSPACE = Path(tempfile.mkdtemp(prefix="pruning-tests-"))
os.environ["PRUNING_HOME"] = str(WORKSPACE)

FIRST = (
    "e2e",
    "tests/test_structure_zoo.py",
    "tests/test_runs_worker.py",
    "tests/test_export_source.py",
    "tests/test_cluster.py",
    "tests/test_describe.py",
    "tests/test_input_sizes.py",
    "tests/test_graph_files.py",
    "tests/test_measure_exported.py",
    "tests/test_house_words.py",
)
"""What takes longer than the number of its tests lets one expect."""

quiet = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("here", deadline=None, suppress_health_check=quiet)
settings.register_profile(
    "ci", deadline=None, suppress_health_check=quiet, derandomize=True, print_blob=True
)
settings.register_profile("short", parent=settings.get_profile("here"), max_examples=40)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """All browser tests on one worker, since they share a server, and those of any other file.

    What a file makes once, and what it has captured and scored before, was made on both workers.
    The browser's tests come first, since they are the longest of all, then files with few tests
    that take long, then those with many tests, as xdist has it: what is done at the end is short,
    so that neither worker has long to wait for the other.
    Groups by mark, xdist's own way, have no effect: this pytest keeps the ids that they change
    elsewhere, and each worker had a server and a browser of its own.
    """
    from xdist.scheduler import LoadScopeScheduling

    class FilesTogether(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "e2e" if nodeid.startswith("tests/e2e/") else nodeid.partition("::")[0]

        def _assign_work_unit(self, node: Any) -> None:
            for scope in reversed(FIRST):
                if scope in self.workqueue:
                    self.workqueue.move_to_end(scope, last=False)
            super()._assign_work_unit(node)

    return FilesTogether(config, log)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also tests that are marked `long`")


def pytest_configure(config: pytest.Config) -> None:
    """Where a law names no number of examples, it has Hypothesis's own hundred with `--long`."""
    here = "here" if config.getoption("--long") else "short"
    settings.load_profile("ci" if os.environ.get("CI") else here)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    long = [item for item in items if item.get_closest_marker("long")]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if not item.get_closest_marker("long")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say how ruff and mypy went, which `run.py test` runs: pytest's own line comes last."""
    results = os.environ.get("WORKBENCH_CHECKS")
    if not results:
        return
    until = time.monotonic() + 600
    while not Path(results).exists() and time.monotonic() < until:
        time.sleep(0.2)  # mypy may take longer than a few tests
    data = json.loads(Path(results).read_text(encoding="utf-8"))
    terminalreporter.section("mypy")
    terminalreporter.write_line(data["mypy"].rstrip())
    each = [f"{name} {'failed' if code else 'passed'}" for name, code in data["codes"].items()]
    terminalreporter.write_line(", ".join(each))


def pytest_sessionfinish() -> None:
    end_pool(WORKSPACE)
    shutil.rmtree(WORKSPACE, ignore_errors=True)


def end_pool(workspace: Path) -> None:
    """End the workspace's pool and its workers, also one that has only just been started."""
    from pruning.runs import pool

    if workspace not in pool._started:
        return
    pool.release(workspace)
    process = pool._started.pop(workspace).process
    process.terminate()
    process.wait(pool.STOPPING)


def pytest_collection_finish() -> None:
    """Networks of many files are followed once by each worker; the product remembers fewer."""
    graphs = sys.modules.get("pruning.structure.dependency_graph")
    if graphs is not None:
        graphs.REMEMBERED = 400  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def few_timed_passes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs and measurements time five passes of each model instead of a second of them.

    Two thirds of a toy's run went into its timings, and only tests of speed look at those.
    """
    if request.module.__name__.rpartition(".")[2] != "test_measure_speed":
        few_passes(monkeypatch)


@pytest.fixture(autouse=True)
def no_news() -> None:
    """What one test's workspace gave reason to say is no news in another's."""
    jobs = sys.modules.get("dashboard.jobs")
    if jobs is not None:
        jobs._notices.clear()


@pytest.fixture(autouse=True)
def no_pool(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages start no worker pool, but where a test is marked `pool`: tests do the studies.

    Each pool has a worker that imports PyTorch, for seconds, and may be quicker than the test.
    """
    if not request.node.get_closest_marker("pool"):
        from pruning.runs import pool

        monkeypatch.setattr(pool, "ensure", lambda *_: False)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty workspace for this test alone. A pool that was started for it ends with it."""
    workspace = tmp_path / "workspace"
    monkeypatch.setenv("PRUNING_HOME", str(workspace))
    yield workspace
    end_pool(workspace)


@pytest.fixture
def tiny() -> Workpiece:
    """A two-layer network, 4·8 + 8·2 = 48 weights, on 64 points that a reader can picture.

    The class is the larger of two coordinates.
    """
    import torch
    from torch import nn

    from pruning.types import Batches, Workpiece

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 4, generator=generator)
    data = Batches(x, (x[:, 0] > x[:, 1]).long(), batch=16)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    classes = ("second", "first")
    return Workpiece("tiny", model, data, data, data, example=x[:1], classes=classes)


@pytest.fixture
def read_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are read in this process: that reading has one of its own is test_formats_readers' and
    test_formats_hostile's to hold.
    """
    from pruning.formats import reader_process, sandbox

    def ask(file: BinaryIO, name: str, folder: Path, question: dict[str, Any]) -> Any:
        (folder / "ask.json").write_text(json.dumps(question))
        file.seek(0)
        return json.loads(json.dumps(reader_process.answer(file, name, folder)))

    monkeypatch.setattr(sandbox, "ask", ask)


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A machine with no data, no weights of others and no network."""

    def offline(*_args: object, **_options: object) -> None:
        raise URLError("no network")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PRUNING_DATA", str(tmp_path / "data-dir"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", offline)
    monkeypatch.setattr("torch.hub.download_url_to_file", offline)
    yield tmp_path

    from sample_models import data

    data._idx.cache_clear()


@pytest.fixture(autouse=True)
def no_models_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verb that a test calls names its models for the process: the next test has none of them."""
    monkeypatch.setenv("PRUNING_MODELS", "[]")
