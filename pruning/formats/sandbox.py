"""The parent's side of reading: a fresh process for each file, which may die.

Whatever it does becomes an answer or a FileRefused.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any, BinaryIO

from pruning.errors import FileRefused
from pruning.formats import guard, limits, parent
from pruning.formats.types import file_name

ROOT = Path(__file__).resolve().parents[2]
OVERTIME = tuple(-getattr(signal, name) for name in ("SIGALRM", "SIGXCPU") if hasattr(signal, name))
"""Exit codes of a process that its own limits of time ended."""

ENVIRONMENT = ("PATH", "SYSTEMROOT", "TMPDIR", "TEMP")
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


def opened(path: Path, name: str) -> BinaryIO:
    """A plain file, open for reading; FileRefused for folders, pipes and what is not there."""
    with guard.guarded(name):
        try:
            # Before opening: a pipe would wait for ever.
            if not stat.S_ISREG(path.stat().st_mode):
                raise FileRefused("is not a plain file: choose a file of weights.")
            return path.open("rb")
        except FileNotFoundError:
            raise FileRefused("is not there: check the path.") from None
    raise AssertionError("guarded either returns or raises")


def ask(
    file: BinaryIO,
    name: str,
    folder: Path,
    question: dict[str, Any],
    *,
    module: str = "pruning.formats.reader_process",
    wall: float | None = None,
    less: str = guard.LESS,
) -> dict[str, Any]:
    """The reading process's answer about `file`; its output, if any, lies in `folder`.

    See reader_process.py for the question and the answer. module: that is run in the process;
    wall: seconds that it may take, None: limits.WALL; less: what to do where that is too little.
    """
    wall = limits.WALL if wall is None else wall
    with guard.guarded(name):
        (folder / "ask.json").write_text(json.dumps(question))
        file.seek(0)
        # A process of its own: what a hostile file does to its memory ends with it.
        reader = [sys.executable, "-m", module]
        code = _run([*reader, str(folder.resolve()), file_name(name)], file, wall)
        if code is None or code in OVERTIME:
            raise FileRefused(f"took longer to read than the {wall:,.0f} seconds it may: {less}.")
        if code in (errno.ENOSPC, errno.EDQUOT):
            raise FileRefused(guard.DISK_FULL)
        return _answer(folder / "answer.json", less)
    raise AssertionError("guarded either returns or raises")


def _run(command: list[str], file: BinaryIO, wall: float) -> int | None:
    """The process's exit code, None when its time was over.

    It sees the file and the project, and of our environment only what a process needs to start.
    """
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    process = subprocess.Popen(
        command,
        stdin=file,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        cwd=ROOT,
        env=environment | dict.fromkeys(THREADS, "1") | {parent.PARENT: str(os.getpid())},
        start_new_session=True,
    )
    try:
        return process.wait(wall)
    except subprocess.TimeoutExpired:
        return None
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End the process and whatever it may have started."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            # It leads a session of its own, so its group is what it started.
            if hasattr(os, "killpg"):
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
        process.wait()


def _answer(path: Path, less: str) -> dict[str, Any]:
    # No answer: it was killed, most likely for its memory.
    if not path.is_file():
        raise FileRefused(f"{guard.TOO_MUCH_MEMORY}: {less}.")
    if path.stat().st_size > limits.REPORT:
        raise FileRefused(f"describes too much to list: {less}.")
    answer = json.loads(path.read_bytes())
    if not isinstance(answer, dict):
        raise TypeError("an answer is a table")
    return answer
