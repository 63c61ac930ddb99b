"""What the reading process gives up before it reads: network, other files and other processes.

Linux takes each of them from a process that asks for it (user namespaces, Landlock, seccomp). Where
a system does not have them, or forbids them, the limits of `reader_process.bind` are all there is.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import sys
from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path

NEW_USER, NEW_NETWORK = 0x10000000, 0x40000000
"""Of unshare(2)."""

NO_NEW_PRIVILEGES = 38
"""Of prctl(2): without it an unprivileged process may not confine itself."""

CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
"""Landlock's system calls, the same on every architecture."""

ABI_QUESTION = 1
PATH_BENEATH = 1
READ = 1 << 0 | 1 << 2 | 1 << 3
"""Landlock's rights to execute and read files, and to list folders."""

FILES_BY_ABI = {1: 13, 2: 14, 3: 15, 5: 16}
"""Version of Landlock -> how many rights to files it knows."""

TCP = 1 << 0 | 1 << 1
"""To bind, and to connect; from version 4 on."""

SCOPES = 1 << 0 | 1 << 1
"""Abstract sockets and signals of processes outside; from version 6 on."""


FORBIDDEN = {
    "x86_64": (0xC000003E, (41, 53, 56, 57, 58, 59, 101, 322, 435)),
    "aarch64": (0xC00000B7, (198, 199, 117, 220, 221, 281, 435)),
}
"""Machine -> seccomp's number of it, and those of socket, socketpair, clone, fork, vfork, execve,
ptrace, execveat and clone3 there."""

SECOND_TABLE = 0x40000000
"""Numbers from here on are the same calls again, for 32-bit programs on x86."""

SET_SECCOMP, FILTER = 22, 2
"""Of prctl(2)."""

LOAD, EQUAL, AT_LEAST, ANSWER = 0x20, 0x15, 0x35, 0x06
ALLOW, REFUSE = 0x7FFF0000, 0x00050001
"""Of classic BPF; REFUSE is "not permitted"."""


def confine(writable: Path, readable: Iterable[Path] = ()) -> list[str]:
    """Confine this process, which must have one thread; what that took from it, for tests.

    It may read Python and its packages and what is `readable`, and read and write in `writable`.
    Files that it has open stay open.
    """
    if not sys.platform.startswith("linux"):
        return []
    libc = ctypes.CDLL(None, use_errno=True)
    taken = []
    if libc.unshare(NEW_USER | NEW_NETWORK) == 0:
        taken.append("network")
    if _restrict_files(libc, writable, readable):
        taken.append("files")
    if _restrict_calls(libc):
        taken.append("processes")
    return taken


def _restrict_files(libc: ctypes.CDLL, writable: Path, readable: Iterable[Path]) -> bool:
    version = libc.syscall(CREATE_RULESET, None, ctypes.c_size_t(0), ABI_QUESTION)
    if version < 1 or libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return False
    files = (1 << max(count for abi, count in FILES_BY_ABI.items() if abi <= version)) - 1
    attributes = struct.pack("=Q", files)
    if version >= 4:
        attributes += struct.pack("=Q", TCP)
    if version >= 6:
        attributes += struct.pack("=Q", SCOPES)
    ruleset = libc.syscall(CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    if ruleset < 0:
        return False
    try:
        _allow(libc, ruleset, [writable], files)
        _allow(libc, ruleset, [*_pythons_own(), *readable], READ)
        return bool(libc.syscall(RESTRICT_SELF, ruleset, 0) == 0)
    finally:
        os.close(ruleset)


def _restrict_calls(libc: ctypes.CDLL) -> bool:
    """Let the calls of FORBIDDEN fail: a limit on processes does not hold for root."""
    known = FORBIDDEN.get(platform.machine())
    if known is None or libc.prctl(NO_NEW_PRIVILEGES, 1, 0, 0, 0) != 0:
        return False
    machine, numbers = known
    # Classic BPF over (number: 4 bytes, machine: 4 bytes, ...): (code, instructions to skip where
    # it holds, and where it does not, value).
    end = len(numbers) + 1  # instructions from the first comparison of a number to "allow"
    program = [
        (LOAD, 0, 0, 4),
        (EQUAL, 0, end + 2, machine),
        (LOAD, 0, 0, 0),
        (AT_LEAST, end, 0, SECOND_TABLE),
        *((EQUAL, end - 1 - i, 0, number) for i, number in enumerate(numbers)),
        (ANSWER, 0, 0, ALLOW),
        (ANSWER, 0, 0, REFUSE),
    ]
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("@HP", len(program), ctypes.addressof(buffer))
    return bool(libc.prctl(SET_SECCOMP, FILTER, header, 0, 0) == 0)


def _allow(libc: ctypes.CDLL, ruleset: int, folders: Iterable[Path], rights: int) -> None:
    for folder in folders:
        if not folder.is_dir():
            continue
        descriptor = os.open(folder, os.O_PATH | os.O_CLOEXEC)
        try:
            rule = struct.pack("=Qi", rights, descriptor)
            libc.syscall(ADD_RULE, ruleset, PATH_BENEATH, rule, 0)
        finally:
            os.close(descriptor)


def _pythons_own() -> list[Path]:
    """Where modules and the libraries that they load lie; not the project, which has workspaces."""
    package = Path(__file__).resolve().parents[1]
    system = [Path("/usr"), Path("/lib"), Path("/lib64")]
    return [package, *_packages(), Path(sys.prefix), Path(sys.base_prefix), *system]


def _packages() -> list[Path]:
    """Where numpy lies, and so the others: outside of Python's own folders, installed for one user.

    It is looked for without being imported, which would start its threads.
    """
    numpy = find_spec("numpy")
    return [Path(numpy.origin).resolve().parents[1]] if numpy and numpy.origin else []
