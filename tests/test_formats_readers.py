"""The reading processes: how many, in which order, what they may reach, what they leave behind."""

from __future__ import annotations

import errno
import importlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import streamlit as st
from pages import opened

from dashboard.views import _model_picker, _uploading
from pruning import formats
from pruning.errors import FileRefused
from pruning.formats import architecture, limits, sandbox
from pruning.formats.turns import Turns
from pruning.formats.types import Expected

# The package has a function of the same name.
uploads = importlib.import_module("pruning.formats.uploads")
SHAPES = Expected({"weight": (2, 3)}, frozenset())


# ---------------------------------------------------------------- in turn


def test_two_are_read_at_a_time_and_the_others_know_their_place() -> None:
    turns = Turns(2)
    with turns.turn() as first, turns.turn() as second:
        with turns.turn() as third, turns.turn() as fourth:
            places = [turn.place for turn in (first, second, third, fourth)]
            assert places == [0, 0, 1, 2]
        # Somebody closed the tab while it waited.
        with turns.turn() as fifth:
            assert fifth.place == 1
    with turns.turn() as sixth:
        assert sixth.place == 0
        sixth.wait(60)  # it is its turn: nothing to wait for


def test_one_that_was_interrupted_has_its_place_again() -> None:
    turns = Turns(1)
    with turns.turn() as first, turns.turn() as second, turns.turn(second.since - 1e-9) as again:
        assert [turn.place for turn in (first, again, second)] == [0, 1, 2]
    with turns.turn() as late, turns.turn(0.0) as early:
        assert (late.place, early.place) == (0, 1)  # nobody's turn is taken from him


def test_whoever_waits_goes_on_when_a_turn_ends() -> None:
    turns = Turns(1)
    done = threading.Event()

    def wait() -> None:
        with turns.turn() as turn:
            while turn.place:
                turn.wait(60)
            done.set()

    with turns.turn():
        thread = threading.Thread(target=wait)
        thread.start()
        assert not done.is_set()
    thread.join(60)
    assert done.is_set()


def test_ten_first_uses_build_an_architecture_once(home: Path, monkeypatch) -> None:
    """Each imported torch: eight of ten sound files were refused after two minutes."""
    built: list[str] = []

    def answered(module: str, model: str) -> dict[str, Any]:
        built.append(model)
        time.sleep(0.05)  # long enough for all to be there
        return SHAPES.to_json()

    without_torch = {name: module for name, module in sys.modules.items() if name != "torch"}
    monkeypatch.setattr(architecture.sys, "modules", without_torch)
    monkeypatch.setattr(architecture, "answered", answered)
    monkeypatch.setattr(architecture, "_cache", {})
    assert not architecture.ready("digits-mlp")
    threads = [
        threading.Thread(target=architecture.expected, args=("digits-mlp",)) for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built == ["digits-mlp"]
    # Nor does another server of this workspace, or this one once it is started again.
    monkeypatch.setattr(architecture, "_cache", {})
    assert architecture.ready("digits-mlp")
    assert architecture.expected("digits-mlp") == SHAPES
    assert built == ["digits-mlp"]


# ---------------------------------------------------------------- confined

TRIED = """
import json, os, socket, sys
from pathlib import Path
from pruning.formats import reader_process
from pruning.formats.confine import confine
folder = Path(sys.argv[1])
tries = {
    "network": lambda: socket.create_connection(("127.0.0.1", int(sys.argv[3])), 5),
    "files": lambda: Path(sys.argv[2]).read_text(),
    "written": lambda: Path(sys.argv[2]).write_text("x"),
    "processes": os.fork,
    "signals": lambda: os.kill(os.getppid(), 0),
}
reader_process.bind()
taken = confine(folder)
possible = []
for name, attempt in tries.items():
    try:
        result = attempt()
    except OSError:
        continue
    if name == "processes" and result == 0:
        os._exit(0)
    possible.append(name)
handles = []
try:
    while len(handles) < 1000:
        handles.append(os.dup(0))
except OSError:
    pass
print(json.dumps([taken, possible, len(handles)]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Linux alone can say it")
def test_a_reader_reaches_no_network_no_other_file_and_no_process(tmp_path: Path) -> None:
    import socket

    own = tmp_path / "own"
    own.mkdir()
    other = tmp_path / "other"
    other.write_text("of somebody else")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        command = [sys.executable, "-c", TRIED, str(own), str(other)]
        port = str(listener.getsockname()[1])
        done = subprocess.run(
            [*command, port], cwd=sandbox.ROOT, check=True, timeout=60, capture_output=True
        )
    taken, possible, many = json.loads(done.stdout)
    if taken != ["network", "files", "processes"]:
        pytest.skip(f"this system takes only {taken} from a process that asks for it")
    assert possible == []
    assert many < limits.FILES
    assert other.read_text() == "of somebody else"


# ---------------------------------------------------------------- nothing stays


def test_an_uploads_bytes_leave_the_memory_before_it_waits(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    file = io.BytesIO(b"some weights")
    spooled = formats.Spooled(file.getbuffer(), "C:\\x\\My Model.PT")
    file.close()  # no view of its buffer remains, which would make this an error
    assert spooled.path.name == "weights.pt"
    assert spooled.path.read_bytes() == b"some weights"
    spooled.remove()
    assert list(tmp_path.iterdir()) == []
    spooled = formats.Spooled(b"of a tab that is closed before its turn", "a.pt")
    assert spooled.path.exists()
    with pytest.warns(ResourceWarning):
        del spooled
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_refuses_an_upload_and_leaves_nothing(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))

    def full(path: Path, data: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(FileRefused, match="the disk is full"):
        formats.Spooled(b"weights", "a.pt")
    assert list(tmp_path.iterdir()) == []


def test_a_page_drawn_anew_while_a_file_waits_goes_on_with_it(tmp_path: Path, monkeypatch) -> None:
    """Its bytes have left the memory by then: only the copy on the disk is left of it."""
    cut = [True]
    real = _model_picker.judge

    def judge(paths: list[Path], names: list[str], model: str) -> None:
        if cut and cut.pop():
            st.rerun()  # as when a study that the page waits for ends
        real(paths, names, model)

    monkeypatch.setattr(_model_picker, "judge", judge)
    page = opened()
    page.segmented_control(key="way").set_value("Your own weights").run()
    page.file_uploader[0].upload("model.pt", b"no weights at all").run()
    page.run()
    assert not cut and not page.exception
    assert any("refused" in error.value and "model.pt" in error.value for error in page.error)


def test_a_judged_file_leaves_streamlits_memory(home: Path, monkeypatch) -> None:
    from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
    from streamlit.runtime.uploaded_file_manager import UploadedFile, UploadedFileRec

    class Context:
        session_id = "tab"
        uploaded_file_mgr = MemoryUploadedFileManager("/upload")

    record = UploadedFileRec("1", "a.pt", "", b"x" * 1000)
    Context.uploaded_file_mgr.add_file("tab", record)
    monkeypatch.setattr(_uploading, "get_script_run_ctx", Context)
    file = UploadedFile(record, None)  # type: ignore[arg-type]
    _uploading.drop(file)
    assert file.closed
    assert Context.uploaded_file_mgr.get_files("tab", ["1"]) == []
    _uploading.drop(file)  # it may have been dropped before it was refused


def test_what_a_killed_process_left_is_swept(home: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    base = home / "uploads"
    kept, swept = [], []
    for kind, place in ((uploads.SPOOL, tmp_path), (uploads.READING, base)):
        own = uploads._prefix(kind)
        dead = own.replace(f"-{os.getpid()}-", f"-{ended.pid}-")
        kept += [place / f"{own}a", place / f"{kind}another-machine-{ended.pid}-b"]
        swept += [place / f"{dead}c", place / f"{own}long-ago"]
    kept += [base / "0123456789abcdef", tmp_path / "upload-of-another-program"]
    for folder in (*kept, *swept):
        folder.mkdir(parents=True)
        (folder / "weights.pt").touch()
    for folder in swept:
        if folder.name.endswith("long-ago"):
            os.utime(folder, (0, time.time() - 2 * uploads.HOUR))
    formats.sweep()
    assert all(folder.exists() for folder in kept)
    assert not any(folder.exists() for folder in swept)
