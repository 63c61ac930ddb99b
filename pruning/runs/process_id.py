"""Process identity: the owner of a lease, named so that others can tell whether it lives."""

from __future__ import annotations

import os
import socket
from pathlib import Path


def host() -> str:
    return socket.gethostname()


def me() -> str:
    """host:pid:start of this process."""
    return name(os.getpid())


def name(pid: int) -> str:
    """host:pid:start of a process on this machine.

    start: clock ticks since boot, so that a recycled pid is another name.
    """
    return f"{host()}:{pid}:{_start(pid)}"


def dead(owner: str) -> bool:
    """Whether the owner was a process on this machine and has ended."""
    machine, pid, start = owner.rsplit(":", 2)
    # Of other machines' processes nothing is known here: only their lease tells.
    if machine != host():
        return False
    try:
        os.kill(int(pid), 0)  # signal 0 only asks whether the process exists
    except ProcessLookupError:
        return True
    except PermissionError:
        pass  # it lives, under another user
    return _start(int(pid)) != start


def _start(pid: int) -> str:
    """Clock ticks; empty for a zombie, which is as good as ended, and where there is no /proc."""
    try:
        # The second field, the program's name in brackets, may itself hold spaces and brackets.
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return ""
    return "" if fields[0] in "ZX" else fields[19]
