#!/usr/bin/env python3
"""Set up and start the workbench. Standard library only.

    python3 run.py                     make .venv, install what is pinned, open the page
    python3 run.py test [pytest's own arguments]
    python3 run.py bench [NAME ...]    measure; without a name, everything in tests/bench

The file keeps to grammar that Python 3.6 reads, so that an old Python can be told in words what is wrong.
"""

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import webbrowser
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "installed.json"
SCRATCH = VENV / "unpacking"
APP = ("requirements.txt",)
ALL = ("requirements.txt", "requirements-dev.txt")
OLDEST = (3, 11)
COMMANDS = ("app", "test", "bench")

# Gigabytes: what the packages take, what must be free for that, what downloading beside it may take, and pip's cache on top.
LINUX = sys.platform.startswith("linux")
SIZE, LEAST, AMPLE, WITH_CACHE = (6.5, 7.0, 10.0, 13.0) if LINUX else (2.0, 2.5, 4.0, 5.0)


class Trouble(Exception):
    """What stopped the set-up, in words for the person who started it."""


# ---------------------------------------------------------------- the machine


def too_old(version: Tuple[int, ...], newer: List[str]) -> Optional[str]:
    """Why this Python will not do and what will, or None. newer: commands on this machine that would do."""
    if tuple(version[:2]) >= OLDEST:
        return None
    said = "The workbench needs Python 3.11 or newer, and this is Python %s. " % ".".join(
        str(part) for part in version[:3]
    )
    if newer:
        return said + "This machine also has %s: start it with `%s run.py`." % (newer[0], newer[0])
    return (
        said
        + "Install a newer one (from python.org or your system's packages), then start it with that."
    )


def newer_pythons() -> List[str]:
    names = ["python3.%d" % minor for minor in (13, 12, 11, 14)]
    return [name for name in names if shutil.which(name) and _works([name, "-c", ""])]


def short_of_disk(free: float, have_torch: bool) -> Tuple[Optional[str], Optional[str]]:
    """(why it cannot start, what to look out for), each or None. free: gigabytes. With torch in place only small things are missing."""
    if have_torch:
        return (
            "Only %.1f GB are free on this disk: make room for 1 GB, then start again." % free
            if free < 0.5
            else None
        ), None
    if free < LEAST:
        said = (
            "Only %.1f GB are free on this disk, and the packages take %.1f GB, most of it PyTorch: "
            % (free, SIZE)
        )
        return said + "make room for %.0f GB, then start again." % AMPLE, None
    if free < AMPLE:
        return (
            None,
            "%.1f GB are free; the packages take %.1f GB, and downloading them may need %.0f GB for a while."
            % (free, SIZE, AMPLE),
        )
    return None, None


def free_port(host: str, wanted: int, tries: int = 50) -> int:
    """`wanted`, or the next port nobody holds."""
    for port in range(wanted, min(wanted + tries, 65536)):
        if _port_is_free(host, port):
            return port
    raise Trouble(
        "Ports %d to %d are all taken: give another with --port." % (wanted, wanted + tries - 1)
    )


def _port_is_free(host: str, port: int) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name != "nt":  # as the server does: a port still cooling down is free
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


# ---------------------------------------------------------------- the environment

TROUBLES = (
    (
        "disk full",
        r"No space left on device|Errno 28|Disk quota exceeded|not enough space on the disk",
        "The disk is full: make room for {ample:.0f} GB, then start again; what is already installed is kept.",
    ),
    (
        "certificate",
        r"CERTIFICATE_VERIFY_FAILED|SSLCertVerificationError|SSLError",
        "The connection to the package index is not trusted (a proxy that inspects traffic is the usual reason): "
        "set PIP_CERT to your organisation's certificate file, then start again.",
    ),
    (
        "no network",
        r"NewConnectionError|NameResolutionError|name resolution|getaddrinfo failed|nodename nor servname|Max retries exceeded"
        r"|Network is unreachable|Connection refused|ConnectionResetError|Connection aborted|Read timed out|ReadTimeoutError"
        r"|ConnectTimeoutError|ProxyError|IncompleteRead|Remote end closed",
        "The package index could not be reached: check the network (or PIP_INDEX_URL and HTTPS_PROXY, if you use them), "
        "then start again; only what is missing is fetched.",
    ),
    (
        "no match",
        r"(?:No matching distribution found for|Could not find a version that satisfies the requirement) ([^\s;]+)",
        "There is no build of {what} for Python {python} on this machine: use Python 3.11, 3.12 or 3.13 "
        "on 64-bit Linux, Windows or a Mac with Apple silicon.",
    ),
    (
        "not allowed",
        r"Permission denied|Errno 13|Access is denied",
        "A file in {venv} may not be written: make sure the folder belongs to you, then start again.",
    ),
    (
        "build",
        r"subprocess-exited-with-error|Failed building wheel|Failed to build",
        "A package had to be built here and that failed; the lines above say why. Python 3.11 has ready builds of everything.",
    ),
)


def explain(output: str, code: int) -> Tuple[str, str]:
    """(kind, sentence) for a pip that ended with `code` after saying `output`."""
    if code in (-signal.SIGTERM, 128 + 9, -9):
        return (
            "killed",
            "The installation was ended from outside, most often for want of memory: close other programs, then start again.",
        )
    for kind, pattern, sentence in TROUBLES:
        found = re.search(pattern, output, re.IGNORECASE)
        if found:
            what = found.group(1) if found.groups() else "one of the packages"
            python = "%d.%d" % sys.version_info[:2]
            return kind, sentence.format(ample=AMPLE, what=what, python=python, venv=VENV.name)
    last = (
        [line for line in output.splitlines() if "ERROR" in line]
        or output.strip().splitlines()[-1:]
        or ["no reason given"]
    )
    return (
        "other",
        "The installation failed: %s. Start again; if it stays, delete the folder %s first."
        % (last[-1].strip(), VENV.name),
    )


def fingerprint(files: Tuple[str, ...]) -> Dict[str, str]:
    return {name: hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in files}


def installed() -> Dict[str, str]:
    """What the stamp says is in .venv; nothing when there is none or it is torn."""
    try:
        found = json.loads(STAMP.read_text())
        return dict(found) if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def ready(files: Tuple[str, ...]) -> bool:
    have = installed()
    return PYTHON.exists() and all(
        have.get(name) == digest for name, digest in fingerprint(files).items()
    )


def ensure(files: Tuple[str, ...]) -> None:
    """Make .venv hold exactly what `files` pin; at once when it already does."""
    if ready(files):
        return
    before = installed()
    changed = [
        name for name, digest in fingerprint(files).items() if before.get(name, digest) != digest
    ]
    if changed:
        print("%s changed: installing the difference." % " and ".join(changed), flush=True)
    make_venv()
    install(files)
    _replace(STAMP, json.dumps({**before, **fingerprint(files)}))


def make_venv() -> None:
    """A working .venv with pip; one that an interruption or a moved Python left broken is made again."""
    sound = "import sys; sys.exit(sys.version_info < (3, 11))"
    if PYTHON.exists() and _works([str(PYTHON), "-c", sound]):
        if not _works([str(PYTHON), "-c", "import pip._internal"]):
            subprocess.run(
                [str(PYTHON), "-m", "ensurepip", "--upgrade"],
                check=False,
                stdout=subprocess.DEVNULL,
            )
        if _works([str(PYTHON), "-c", "import pip._internal"]):
            return
    print("Making the environment in %s ..." % VENV.name, flush=True)
    command = [sys.executable, "-m", "venv", "--clear", str(VENV)]
    made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False)
    if made.returncode:
        raise Trouble(why_no_venv(made.stdout.decode(errors="replace"), made.returncode))


def why_no_venv(output: str, code: int) -> str:
    if "ensurepip" in output or "No module named venv" in output:
        minor = "%d.%d" % sys.version_info[:2]
        return (
            "This Python cannot make environments. On Debian or Ubuntu: `sudo apt install python%s-venv`, then start again."
            % minor
        )
    return explain(output, code)[1]


def install(files: Tuple[str, ...]) -> None:
    have_torch = bool(list(VENV.glob("lib*/**/site-packages/torch/version.py")))
    shutil.rmtree(str(SCRATCH), ignore_errors=True)  # from an interrupted start
    free = shutil.disk_usage(str(VENV)).free / 1e9
    refusal, warning = short_of_disk(free, have_torch)
    if refusal:
        raise Trouble(refusal)
    print(
        warning
        or "Installing %s%s."
        % (" and ".join(files), "" if have_torch else " (%.1f GB, two to ten minutes)" % SIZE),
        flush=True,
    )
    pip = [
        str(PYTHON),
        "-m",
        "pip",
        "install",
        "--disable-pip-version-check",
        "--no-input",
        "--prefer-binary",
        "--progress-bar",
        "off",
    ]
    pip += [] if have_torch or free > WITH_CACHE else ["--no-cache-dir"]
    for name in files:
        pip += ["-r", name]
    SCRATCH.mkdir()
    try:
        _follow(pip, quiet=have_torch)
    finally:
        shutil.rmtree(str(SCRATCH), ignore_errors=True)


def _follow(pip: List[str], quiet: bool) -> None:
    """Run pip, show what it does and how much has arrived; Trouble in words when it fails."""
    settings = {
        "TMPDIR": str(SCRATCH),
        "TEMP": str(SCRATCH),
        "TMP": str(SCRATCH),
        "PYTHONUNBUFFERED": "1",
        "PYTHONNOUSERSITE": "1",
    }
    strange = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PYTHONHOME", "PYTHONPATH")
    env = {**{key: value for key, value in os.environ.items() if key not in strange}, **settings}
    said = []  # type: List[str]
    over = threading.Event()
    process = subprocess.Popen(
        pip, cwd=str(ROOT), env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    ticker = threading.Thread(target=_tick, args=(over,), daemon=True)
    if not quiet:
        ticker.start()
    try:
        for raw in process.stdout or ():
            line = raw.decode(errors="replace").rstrip()
            said.append(line)
            shown = worth_showing(line)
            if shown:
                print("\r  " + shown.ljust(76), flush=True)
        code = process.wait()
    except KeyboardInterrupt:
        process.terminate()
        process.wait()
        raise
    finally:
        over.set()
    if code:
        raise Trouble(explain("\n".join(said), code)[1])


def worth_showing(line: str) -> Optional[str]:
    """What of pip's talk helps the person waiting."""
    if line.startswith("Installing collected packages:"):
        return "Unpacking %d packages; this is the slow part" % len(line.split(","))
    if line.startswith("Successfully installed"):
        return "Installed %d packages" % (len(line.split()) - 2)
    if line.startswith("WARNING: Retrying"):
        return "The connection failed; trying again"
    if line.startswith(("Collecting", "Downloading", "  Downloading", "ERROR")):
        return re.sub(r" \(from .*", "", line.strip())
    return None


def _tick(over: threading.Event) -> None:
    """How much has arrived, until `over`: on one line of a terminal, or a line now and then in a log."""
    start, used = time.monotonic(), shutil.disk_usage(str(ROOT)).used
    terminal = sys.stdout.isatty()
    while not over.wait(1 if terminal else 20):
        gigabytes = max(0.0, (shutil.disk_usage(str(ROOT)).used - used) / 1e9)
        text = "  %.1f of about %.1f GB on disk, %d s" % (gigabytes, SIZE, time.monotonic() - start)
        print("\r" + text.ljust(60) if terminal else text, end="" if terminal else "\n", flush=True)


def _works(command: List[str]) -> bool:
    try:
        return (
            subprocess.run(
                command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False
            ).returncode
            == 0
        )
    except OSError:
        return False


def _replace(path: Path, text: str) -> None:
    part = path.with_suffix(".part")
    part.write_text(text)
    os.replace(str(part), str(path))


# ---------------------------------------------------------------- the commands


def app(words: List[str]) -> int:
    asked = argparse.ArgumentParser(
        prog="run.py",
        description="Open the Pruning Workbench.",
        epilog="Also: run.py test, run.py bench.",
    )
    asked.add_argument(
        "--port",
        type=int,
        default=8501,
        help="where to listen; the next free one when taken (8501)",
    )
    asked.add_argument(
        "--host", default="127.0.0.1", help="127.0.0.1 (this machine only) unless told otherwise"
    )
    asked.add_argument("--no-browser", action="store_true", help="only print the address")
    chosen = asked.parse_args(words)
    ensure(APP)
    port = free_port(chosen.host, chosen.port)
    if port != chosen.port:
        print("Port %d is taken; using %d." % (chosen.port, port))
    place = "http://%s:%d" % ("127.0.0.1" if chosen.host == "0.0.0.0" else chosen.host, port)
    print("Pruning Workbench at %s (Ctrl+C ends it)" % place, flush=True)
    command = [
        str(PYTHON),
        "-m",
        "streamlit",
        "run",
        "dashboard/app.py",
        "--server.headless",
        "true",
    ]
    command += ["--server.address", chosen.host, "--server.port", str(port)]
    server = subprocess.Popen(command, cwd=str(ROOT))
    if not chosen.no_browser and has_screen(dict(os.environ)):
        threading.Thread(target=_open, args=(place,), daemon=True).start()
    return _attend(server)


def has_screen(env: Dict[str, str]) -> bool:
    """Whether opening a browser makes sense here."""
    return not env.get("CI") and (
        not LINUX or bool(env.get("DISPLAY") or env.get("WAYLAND_DISPLAY"))
    )


def _open(place: str) -> None:
    """Open the page once it answers."""
    for _ in range(300):
        try:
            urllib.request.urlopen(place + "/_stcore/health", timeout=2).close()
        except OSError:
            time.sleep(0.2)
        else:
            webbrowser.open(place)
            return


def _attend(server: Any) -> int:
    """Wait for the server; end it when we are ended."""
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    while True:
        try:
            code = server.wait()
            return 0 if code in (-signal.SIGTERM, -signal.SIGINT) else code
        except KeyboardInterrupt:
            continue  # the server got it too, and is closing


def test(words: List[str]) -> int:
    """ruff, mypy, pytest; pytest's summary comes last, and any failure fails the whole."""
    ensure(ALL)
    checks = [("ruff", ["check", "."]), ("mypy", [])]  # type: List[Tuple[str, List[str]]]
    results = {name: _check(name, options) for name, options in checks}
    found = ", ".join(
        "%s %s" % (name, "failed" if code else "passed") for name, code in results.items()
    )
    together = (
        []
        if any(word.startswith("-n") or word == "--pdb" for word in words)
        else ["-n", "2", "--dist", "loadgroup"]
    )
    env = {**os.environ, "WORKBENCH_CHECKS": found}
    print("\n== pytest", flush=True)
    tests = subprocess.run(
        [str(PYTHON), "-m", "pytest", *together, *words], cwd=str(ROOT), env=env, check=False
    ).returncode
    return tests or max(results.values())


def _check(name: str, options: List[str]) -> int:
    print("\n== %s" % name, flush=True)
    return subprocess.run(
        [str(PYTHON), "-m", name, *options], cwd=str(ROOT), check=False
    ).returncode


def bench(words: List[str]) -> int:
    """Each of tests/bench by its file's name; all of them without a name. One over its limit fails the whole."""
    known = sorted(file.stem for file in (ROOT / "tests" / "bench").glob("[!_]*.py"))
    strange = [word for word in words if word not in known]
    if strange:
        raise Trouble(
            "There is no benchmark called %s: known are %s."
            % (", ".join(strange), ", ".join(known))
        )
    if not words:
        print("Benchmarks: %s" % (", ".join(known) or "none yet, in tests/bench"), flush=True)
    ensure(ALL)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    codes = []
    for name in words or known:
        print("\n== %s" % name, flush=True)
        command = [str(PYTHON), "tests/bench/%s.py" % name]
        codes.append(subprocess.run(command, cwd=str(ROOT), env=env, check=False).returncode)
    return max(codes, default=0)


def main(words: List[str]) -> int:
    command = words[0] if words and not words[0].startswith("-") else "app"
    rest = words[1:] if words and not words[0].startswith("-") else words
    try:
        if command not in COMMANDS:
            raise Trouble("There is no command %r: known are %s." % (command, ", ".join(COMMANDS)))
        refusal = too_old(
            sys.version_info[:3], [] if sys.version_info >= OLDEST else newer_pythons()
        )
        if refusal:
            raise Trouble(refusal)
        return {"app": app, "test": test, "bench": bench}[command](rest)
    except Trouble as trouble:
        print("\n%s" % trouble, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; starting again goes on from here.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
