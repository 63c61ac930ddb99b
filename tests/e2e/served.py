"""The real page, served in a process of its own on a fresh workspace: for end-to-end tests and
benchmarks."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
READY = '[data-testid="stApp"][data-test-script-state="notRunning"]'


def missing() -> str | None:
    """Why there is no browser to drive, or None."""
    if not CHROMIUM.exists():
        return f"{CHROMIUM} is absent: `apt-get install chromium` brings it"
    return None


def environment(home: Path) -> dict[str, str]:
    """Of a server on this workspace; its workers take the tests' own settings for threads, too."""
    return {
        **os.environ,
        "PRUNING_HOME": str(home),
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }


@dataclass
class Served:
    """A running page. url: without a slash at the end; home: its workspace; log: the server's."""

    url: str
    home: Path
    process: subprocess.Popen[bytes]
    log: Path

    def end(self) -> None:
        """End the server, then the worker pool it started; both were started here."""
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        stop = [sys.executable, "-m", "pruning.runs.pool", "--stop"]
        subprocess.run(stop, cwd=ROOT, env=environment(self.home), check=False, timeout=30)

    def imports_torch(self) -> bool:
        """Whether the web process has mapped torch's libraries (Linux)."""
        return "libtorch" in Path(f"/proc/{self.process.pid}/maps").read_text()


def serve(home: Path, **variables: str) -> Served:
    """Start the page on a free port and wait until it answers.

    variables: of its environment, beside those of every server. Raises RuntimeError, with its log,
    when it does not.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home.mkdir(parents=True, exist_ok=True)
    log = home / "server.log"
    command = [sys.executable, "-m", "streamlit", "run", "dashboard/app.py"]
    command += ["--server.headless", "true", "--server.port", str(port)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment(home) | variables,
            stdout=out,
            stderr=subprocess.STDOUT,
        )
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        if process.poll() is not None:
            break
        try:
            urllib.request.urlopen(f"{url}/_stcore/health", timeout=2).close()
        except OSError:
            time.sleep(0.1)
        else:
            return Served(url, home, process, log)
    process.kill()
    raise RuntimeError(f"The page did not start:\n{log.read_text(errors='replace')[-4000:]}")
