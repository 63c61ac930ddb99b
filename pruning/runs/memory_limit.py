"""A limit of memory for a part of a worker's work, by the system's own account (Linux)."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pruning.errors import RunError

try:
    import resource
except ImportError:  # Windows: there is no limit
    resource = None  # type: ignore[assignment]

LEAST = 2 << 30
"""Bytes that a study may take in any case: a large model's scores need them."""

TOO_MUCH = (
    "This needs more than the {gib:.1f} GiB of memory that a study may take here: ask for less, "
    "such as fewer examples or units, or take a smaller model."
)


def study_memory() -> int:
    """Bytes that a study may take: half of the machine's, which others work on too."""
    try:
        total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return LEAST
    return max(LEAST, total // 2)


@contextmanager
def limited_memory(room: int) -> Iterator[None]:
    """Within the block this process may take `room` bytes more than it has now.

    Raises RunError where the block asks for more. Where the system has no such limit there is none.
    """
    now = _data_bytes()
    if now is None or resource is None:
        yield
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = now + room
    # A limit that is set already, by whoever runs this, is not to be widened.
    ends = [limit for limit in (soft, hard) if limit != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([wanted, *ends]), hard))
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not _is_about_memory(error):
            raise
        raise RunError(TOO_MUCH.format(gib=room / (1 << 30))) from error
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _is_about_memory(error: BaseException) -> bool:
    # torch reports too little memory as a RuntimeError, in these words.
    words = ("allocate memory", "not enough memory", "bad_alloc")
    return isinstance(error, MemoryError) or any(word in str(error) for word in words)


def _data_bytes() -> int | None:
    """What the limit counts: private memory that may be written. None where it is not known."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return None
    match = re.search(r"^VmData:\s+(\d+) kB", status, re.MULTILINE)
    return int(match.group(1)) * 1024 if match else None
