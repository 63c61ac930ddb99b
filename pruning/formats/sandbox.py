"""The parent's side of reading: a fresh process for each file, which may die; whatever it does becomes an answer or a FileRefused."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO

from pruning.errors import FileRefused
from pruning.formats import guard, limits
from pruning.formats.types import file_name

ROOT = Path(__file__).resolve().parents[2]
OVERTIME = tuple(-getattr(signal, name) for name in ("SIGALRM", "SIGXCPU") if hasattr(signal, name))
"""Exit codes of a process that its own limits of time ended."""


def opened(path: Path, name: str) -> BinaryIO:
    """A plain file, open for reading; FileRefused for folders, pipes and what is not there."""
    with guard.guarded(name):
        try:
            if not stat.S_ISREG(path.stat().st_mode):  # before opening: a pipe would wait for ever
                raise FileRefused("is not a plain file: choose a file of weights.")
            return path.open("rb")
        except FileNotFoundError:
            raise FileRefused("is not there: check the path.") from None
    raise AssertionError("guarded either returns or raises")


def ask(file: BinaryIO, name: str, folder: Path, question: dict[str, Any]) -> dict[str, Any]:
    """What the reading process answers about `file`; see child.py for the question. Its output, if any, lies in `folder`."""
    with guard.guarded(name):
        (folder / "ask.json").write_text(json.dumps(question))
        file.seek(0)
        code = _run(
            [
                sys.executable,
                "-m",
                "pruning.formats.reader_process",
                str(folder.resolve()),
                file_name(name),
            ],
            file,
        )
        if code is None or code in OVERTIME:
            raise FileRefused(
                f"took longer to read than the {limits.WALL:.0f} seconds it may: save only the model's state_dict()."
            )
        return _answer(folder / "answer.json")
    raise AssertionError("guarded either returns or raises")


def _run(command: list[str], file: BinaryIO) -> int | None:
    """The process's exit code, None when its time was over. It sees the file, the project and nothing of our environment."""
    kept = {
        name: os.environ[name]
        for name in ("PATH", "SYSTEMROOT", "TMPDIR", "TEMP")
        if name in os.environ
    }
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(
        command,
        stdin=file,
        stdout=quiet,
        stderr=quiet,
        cwd=ROOT,
        env=kept | threads,
        start_new_session=True,
    )
    try:
        return process.wait(limits.WALL)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """The process and whatever it may have started, gone."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()


def _answer(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise FileRefused(guard.OUT_OF_MEMORY)
    if path.stat().st_size > limits.REPORT:
        raise FileRefused("describes too much to list: save only the model's state_dict().")
    answer = json.loads(path.read_bytes())
    if not isinstance(answer, dict):
        raise TypeError("an answer is a table")
    return answer
