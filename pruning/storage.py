"""Files that are whole or not there at all."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pruning.errors import RunError


def default_workspace() -> Path:
    """The folder of runs, uploads and maps: $PRUNING_HOME, else `workspace` in the current one."""
    return Path(os.environ.get("PRUNING_HOME") or "workspace").resolve()


@contextmanager
def whole(file: Path) -> Iterator[Path]:
    """A name to write under; what is written there appears under `file` when the block ends well, and not otherwise.

    The temporary file lies in the same folder, is on the disk before it takes the name, and the name is on the disk
    before this returns. Raises RunError when the disk is full or the folder cannot be written.
    """
    draft = file.with_name(f".{os.getpid()}-{file.name}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        yield draft
        _sync(draft)
        os.replace(draft, file)
        _sync(file.parent)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise RunError(
                f"The disk is full: {file.name} could not be written. Free some space and start again."
            ) from error
        raise RunError(
            f"{file} could not be written ({error.strerror or error}): check the folder and its permissions."
        ) from error
    finally:
        draft.unlink(missing_ok=True)


def write_json(file: Path, data: Any) -> None:
    """Plain data as JSON, whole or not at all."""
    with whole(file) as draft:
        draft.write_text(json.dumps(data), encoding="utf-8")


def _sync(path: Path) -> None:
    held = os.open(path, os.O_RDONLY)
    try:
        os.fsync(held)
    finally:
        os.close(held)
