"""A process that ends when the one that started it does, however that ends."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time

PARENT = "PRUNING_PARENT"
"""The variable by which a process is told the number of the one that started it."""

DEATH_SIGNAL = 1
"""Of prctl(2): PR_SET_PDEATHSIG."""


def end_with_parent() -> None:
    """End this process with the one in PARENT; without that variable, nothing.

    Otherwise a server that is killed would leave its readers at work for their whole minute.
    """
    parent = int(os.environ.get(PARENT, "0"))
    if not parent:
        return
    if sys.platform.startswith("linux"):
        # The kernel does it, whatever this process is in the middle of.
        ctypes.CDLL(None).prctl(DEATH_SIGNAL, signal.SIGKILL)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before this line
        os._exit(1)


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)
