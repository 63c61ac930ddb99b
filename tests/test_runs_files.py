"""The files of the job store and of its jobs: shared, damaged, newer, older, on a full disk."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from pruning import metrics, storage
from pruning.errors import RunError
from pruning.events import Accuracy, Finished, Measurement, Size
from pruning.runs import results, schema
from pruning.runs.store import Store

ROOT = Path(__file__).resolve().parents[1]
SPEC = {"model": "digits-cnn", "sparsity": 0.9}
MEASURED = Measurement(Accuracy(9, 10), 0.1, 100, 50, 110, 1000, 500, Size(480, 300, 200), None)
FINISHED = Finished(0.5, MEASURED, None, MEASURED, 1.5)


@pytest.fixture
def store(home: Path) -> Store:
    return Store()


# ---------------------------------------------------------------- the file


def test_threads_share_a_store(store: Store) -> None:
    ids: list[str] = []

    def submit() -> None:
        for _ in range(20):
            ids.append(store.submit("run", SPEC))

    threads = [threading.Thread(target=submit) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(ids)) == 160 == len(store.jobs())


def test_a_newer_workspace_is_refused_with_the_way_out(store: Store) -> None:
    with sqlite3.connect(store.file) as db:
        db.execute(f"PRAGMA user_version = {len(schema.MIGRATIONS) + 1}")
    with pytest.raises(RunError, match="update the workbench"):
        Store(store.workspace)


def test_an_older_workspace_is_brought_up_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    id = store.submit("run", SPEC)
    monkeypatch.setattr(
        schema,
        "MIGRATIONS",
        (*schema.MIGRATIONS, "ALTER TABLE jobs ADD COLUMN colour TEXT; -- for the test"),
    )
    assert Store(store.workspace).job(id).spec == SPEC
    Store(store.workspace)
    with sqlite3.connect(store.file) as db:
        assert [row[1] for row in db.execute("PRAGMA table_info(jobs)")].count("colour") == 1


def test_a_damaged_file_is_named_with_the_way_out(home: Path) -> None:
    home.mkdir()
    (home / "runs.sqlite").write_bytes(b"this is no database" * 100)
    with pytest.raises(RunError, match="move it aside"):
        Store()


def test_a_full_disk_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    script = """
import resource, signal, sys
from pathlib import Path
from pruning.errors import RunError
from pruning.storage import whole
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with whole(Path(sys.argv[1]) / "final.npz") as draft:
        draft.write_bytes(b"x" * 5000)
except RunError as error:
    print(error)
"""
    process = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "disk is full: final.npz" in process.stdout
    assert list(tmp_path.iterdir()) == []


def test_what_fails_halfway_leaves_the_old_file_whole(tmp_path: Path) -> None:
    storage.write_json(tmp_path / "study.json", {"a": 1})
    with pytest.raises(ZeroDivisionError), storage.whole(tmp_path / "study.json") as draft:
        draft.write_text("{half")
        raise ZeroDivisionError
    assert json.loads((tmp_path / "study.json").read_text()) == {"a": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["study.json"]


# ---------------------------------------------------------------- what jobs leave


def test_masks_and_histograms_come_back(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    masks = {"a.weight": generator.random((7, 3, 3)) > 0.5, "b": np.zeros((5,), bool)}
    dense = generator.normal(size=1000)
    bins = metrics.bin_edges(dense)
    assert (
        bins[0] == -bins[-1] and len(bins) == 257 and metrics.bin_counts(dense, bins).sum() == 1000
    )
    results.save_masks(tmp_path, masks)
    results.save_histograms(
        tmp_path,
        {
            "a.weight": metrics.Histogram(
                bins, metrics.bin_counts(dense, bins), metrics.bin_counts(dense[:9], bins)
            )
        },
    )
    results.save_result(tmp_path, FINISHED)
    result = results.load_run(tmp_path)
    assert result.finished == FINISHED
    loaded = result.masks()
    assert list(loaded) == list(masks) and all(
        np.array_equal(loaded[name], masks[name]) for name in masks
    )
    assert result.histograms["a.weight"].final.sum() == 9 and np.array_equal(
        result.histograms["a.weight"].edges, bins
    )


@pytest.mark.parametrize("name", ["result.json", "histograms.npz"])
def test_a_damaged_result_is_one_sentence(tmp_path: Path, name: str) -> None:
    with pytest.raises(RunError, match=r"has no result\.json"):
        results.load_run(tmp_path)
    results.save_result(tmp_path, FINISHED)
    (tmp_path / name).write_bytes(b"PK\x03\x04 torn")
    with pytest.raises(RunError, match="start it again"):
        _ = results.load_run(tmp_path).histograms


def test_an_all_zero_layer_has_bins_too() -> None:
    bins = metrics.bin_edges(np.zeros(4))
    assert (np.diff(bins) > 0).all() and metrics.bin_counts(np.zeros(4), bins).sum() == 4
