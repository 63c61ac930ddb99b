"""The pool's log. A line that cannot be written is kept in memory until there is room for it."""

from __future__ import annotations

import os
import sys
import time
from collections import deque

MOST = 200
"""Lines that are kept while none can be written."""

_unwritten: deque[str] = deque(maxlen=MOST)


def log(line: str) -> None:
    """A line with time and process, on the standard error output. Never raises.

    A full disk must not end who reports it: the pool once died of its own line about one.
    """
    stamp = time.strftime("%Y-%m-%d %H:%M:%S")
    _unwritten.append(f"{stamp} [{os.getpid()}] {line}\n")
    write_waiting()


def write_waiting() -> None:
    """Write the lines that wait for room, as far as there is some. Never raises."""
    while _unwritten:
        try:
            # Without Python's own buffer, which would keep what failed and write it a second time.
            os.write(sys.stderr.fileno(), _unwritten[0].encode())
        except (OSError, ValueError):  # no room, or no output at all
            return
        _unwritten.popleft()
