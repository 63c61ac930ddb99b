#!/usr/bin/env python3
"""Set up and start the workbench. Standard library only.

    python3 run.py                     make .venv, install what is pinned, open the page
    python3 run.py --model FILE.py:F   the same with a model of yours: what the function F returns
    python3 run.py --model FILE        the same with a file of weights, an ONNX or a Keras network
    python3 run.py test [pytest's own arguments]
    python3 run.py bench [NAME ...]    measure; without a name, everything in tests/bench
    python3 run.py faults [NAME ...]   kill processes, fill disks, break stores; what is outlived

The file keeps to grammar that Python 3.6 reads, so that an old Python can say in words what is
wrong instead of raising a SyntaxError.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path
from typing import Dict, List, Optional, Tuple

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "installed.json"  # the digests of the requirements that .venv satisfies
SCRATCH = VENV / "unpacking"
APP = ("requirements.txt",)
ALL = ("requirements.txt", "requirements-dev.txt")
OLDEST = (3, 11)

# Gigabytes: what the packages take, what must be free to begin, what downloading beside them may
# take for a while, and that with pip's cache on top. On Linux PyTorch brings CUDA's libraries.
LINUX = sys.platform.startswith("linux")
SIZE, LEAST, AMPLE, WITH_CACHE = (6.5, 7.0, 10.0, 13.0) if LINUX else (2.0, 2.5, 4.0, 5.0)


class Trouble(Exception):
    """What stopped the set-up, in words for the person who started it."""


# ---------------------------------------------------------------- the machine


def too_old(version: Tuple[int, ...], newer: List[str]) -> Optional[str]:
    """Why this Python will not do and what will, or None. newer: commands here that would do."""
    if tuple(version[:2]) >= OLDEST:
        return None
    number = ".".join(str(part) for part in version[:3])
    problem = "The workbench needs Python 3.11 or newer, and this is Python %s. " % number
    if newer:
        names = (newer[0], newer[0])
        return problem + "This machine also has %s: start it with `%s run.py`." % names
    return problem + (
        "Install a newer one (from python.org or your system's packages), then start it with that."
    )


def newer_pythons() -> List[str]:
    names = ["python3.%d" % minor for minor in (13, 12, 11, 14)]
    return [name for name in names if works([name, "-c", ""])]


def works(command: List[str]) -> bool:
    try:
        silent = subprocess.DEVNULL
        return subprocess.run(command, stdout=silent, stderr=silent, check=False).returncode == 0
    except OSError:
        return False


def check_disk(free: float, have_torch: bool) -> None:
    """Stop before a download that cannot fit. free: gigabytes."""
    # With torch in place, only small packages can be missing.
    least, room = (0.5, 1.0) if have_torch else (LEAST, AMPLE)
    if free < least:
        raise Trouble(
            "Only %.1f GB are free on this disk, and the packages take %.1f GB, most of it "
            "PyTorch: make room for %.0f GB, then start again." % (free, SIZE, room)
        )


# ---------------------------------------------------------------- the environment


def fingerprint(files: Tuple[str, ...]) -> Dict[str, str]:
    return {name: hashlib.sha256((ROOT / name).read_bytes()).hexdigest() for name in files}


def installed() -> Dict[str, str]:
    """The stamp: requirements file -> digest. Empty when there is none or it is torn."""
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def ready(files: Tuple[str, ...]) -> bool:
    stamp = installed()
    current = fingerprint(files)
    return PYTHON.exists() and all(stamp.get(name) == current[name] for name in files)


def ensure(files: Tuple[str, ...]) -> None:
    """Make .venv hold exactly what `files` pin; at once when it already does."""
    if ready(files):
        return
    before = installed()
    current = fingerprint(files)
    changed = [name for name in files if before.get(name, current[name]) != current[name]]
    if changed:
        print("%s changed: installing the difference." % " and ".join(changed), flush=True)
    make_venv()
    install(files)
    before.update(current)
    replace(STAMP, json.dumps(before))


def replace(path: Path, text: str) -> None:
    """Write a whole file or nothing: an interruption leaves the old one."""
    part = path.with_suffix(".part")
    part.write_text(text)
    os.replace(str(part), str(path))


def make_venv() -> None:
    """A working .venv with pip; one that an interruption or a moved Python broke is made again."""
    new_enough = "import sys; sys.exit(sys.version_info < (3, 11))"
    if works([str(PYTHON), "-c", new_enough]):
        has_pip = [str(PYTHON), "-c", "import pip._internal"]
        if works(has_pip):
            return
        if works([str(PYTHON), "-m", "ensurepip", "--upgrade"]) and works(has_pip):
            return
    print("Making the environment in %s ..." % VENV.name, flush=True)
    command = [sys.executable, "-m", "venv", "--clear", str(VENV)]
    if subprocess.run(command, check=False).returncode:
        raise Trouble(
            "This Python could not make an environment; the lines above say why. On Debian or "
            "Ubuntu: `sudo apt install python%d.%d-venv`, then start again." % sys.version_info[:2]
        )


def install(files: Tuple[str, ...]) -> None:
    """Run pip, whose own lines are shown as they come."""
    have_torch = bool(list(VENV.glob("lib*/**/site-packages/torch/version.py")))
    shutil.rmtree(str(SCRATCH), ignore_errors=True)  # from an interrupted start
    free = shutil.disk_usage(str(VENV)).free / 1e9
    check_disk(free, have_torch)
    names = " and ".join(files)
    if have_torch:
        print("Installing %s." % names, flush=True)
    else:
        wait = "%.1f GB, two to ten minutes; pip unpacks without a word" % SIZE
        print("Installing %s (%s)." % (names, wait), flush=True)
    pip = [str(PYTHON), "-m", "pip", "install", "--disable-pip-version-check", "--no-input"]
    pip += ["--prefer-binary"]
    if free < WITH_CACHE and not have_torch:
        pip += ["--no-cache-dir"]
    for name in files:
        pip += ["-r", name]
    SCRATCH.mkdir()
    try:
        code = subprocess.run(pip, cwd=str(ROOT), env=pip_env(), check=False).returncode
    finally:
        shutil.rmtree(str(SCRATCH), ignore_errors=True)
    if code:
        raise Trouble(
            "pip stopped with code %d; its last lines, above, say why. Most often the disk is full "
            "(make room for %.0f GB), the network or its proxy is down (see PIP_INDEX_URL, "
            "HTTPS_PROXY, PIP_CERT), memory ran out, or this machine has no ready builds (use "
            "Python 3.11 to 3.13 on 64-bit Linux, Windows or a Mac with Apple silicon). "
            "Start again when that is put right: what is already installed is kept." % (code, AMPLE)
        )


def pip_env() -> Dict[str, str]:
    """Without what would send packages elsewhere, and unpacking on the disk that was looked at."""
    elsewhere = ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PYTHONHOME", "PYTHONPATH")
    env = {key: value for key, value in os.environ.items() if key not in elsewhere}
    # /tmp is often in memory, and torch does not fit there.
    env.update({name: str(SCRATCH) for name in ("TMPDIR", "TEMP", "TMP")})
    env["PYTHONNOUSERSITE"] = "1"
    return env


# ---------------------------------------------------------------- the commands


def app(words: List[str]) -> int:
    # Here, not on top: the file is for Pythons that are new enough, as main knows by now.
    from dashboard import launch

    return launch.main(
        words,
        prog="run.py",
        also="Also: run.py test, run.py bench, run.py faults.",
        python=PYTHON,
        folder=ROOT,
        prepare=lambda: ensure(APP),
    )


def test(words: List[str]) -> int:
    """ruff, pytest and, beside it, mypy; pytest's summary comes last, any failure fails the whole.

    tests/conftest.py says before that summary how the others went.
    """
    import tempfile

    ensure(ALL)
    codes = {"ruff": check("ruff", "check", ".")}
    # Tests start a hundred processes, and each would compile all that it imports.
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryDirectory() as folder:
        results = Path(folder) / "checks.json"
        env["WORKBENCH_CHECKS"] = str(results)
        # While pages are tested, half of a core waits for them.
        mypy = subprocess.Popen(
            [str(PYTHON), "-m", "mypy"],
            cwd=str(ROOT),
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )

        def note() -> None:
            text = mypy.communicate()[0].decode("utf-8", "replace")
            codes["mypy"] = mypy.returncode
            replace(results, json.dumps({"codes": codes, "mypy": text}))

        types = threading.Thread(target=note, daemon=True)
        types.start()
        # Both cores, unless the caller says how many or wants to step through in the debugger.
        alone = any(word.startswith("-n") or word == "--pdb" for word in words)
        workers = [] if alone else ["-n", "2"]
        print("\n== pytest", flush=True)
        pytest = [str(PYTHON), "-m", "pytest", *workers, *words]
        try:
            code = subprocess.run(pytest, cwd=str(ROOT), env=env, check=False).returncode
            types.join()
        finally:
            mypy.kill()  # where somebody interrupts the tests
    return code or max(codes.values())


def check(name: str, *options: str) -> int:
    print("\n== %s" % name, flush=True)
    command = [str(PYTHON), "-m", name, *options]
    return subprocess.run(command, cwd=str(ROOT), check=False).returncode


def bench(words: List[str]) -> int:
    """Each of tests/bench by its file's name, or all; one over its limit fails the whole."""
    known = sorted(file.stem for file in (ROOT / "tests" / "bench").glob("[!_]*.py"))
    unknown = [word for word in words if word not in known]
    if unknown:
        names = (", ".join(unknown), ", ".join(known))
        raise Trouble("There is no benchmark called %s: known are %s." % names)
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


def faults(words: List[str]) -> int:
    """tests/faults, with its own arguments."""
    ensure(ALL)
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    command = [str(PYTHON), "-m", "faults", *words]
    return subprocess.run(command, cwd=str(ROOT), env=env, check=False).returncode


COMMANDS = {"app": app, "test": test, "bench": bench, "faults": faults}


def main(words: List[str]) -> int:
    name, rest = "app", words
    if words and not words[0].startswith("-"):
        name, rest = words[0], words[1:]
    try:
        if name not in COMMANDS:
            raise Trouble("There is no command %r: known are %s." % (name, ", ".join(COMMANDS)))
        newer = [] if sys.version_info >= OLDEST else newer_pythons()
        refusal = too_old(sys.version_info[:3], newer)
        if refusal:
            raise Trouble(refusal)
        return COMMANDS[name](rest)
    except Trouble as trouble:
        print("\n%s" % trouble, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted; starting again continues from here.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
