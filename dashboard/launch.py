"""Start the page's server: what `pruning-workbench` does, and run.py when the packages are there.

Standard library only, because run.py asks for it before anything is installed.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

APP = Path(__file__).resolve().parent / "app.py"
PASSPHRASE = "PRUNING_PASSPHRASE"  # as dashboard/access.py has it
OWNER = "PRUNING_OWNER"  # as dashboard/visitors.py has it
CLASS, ADDRESS = "PRUNING_CLASS", "PRUNING_ADDRESS"  # as dashboard/rooms.py has them
ROOM_FILE = "room.sqlite"  # as dashboard/rooms.py has it
SHORTEST = 8  # characters of a passphrase
PORT = 8501
TLS = ("ca", "certificate", "key")  # as pruning/runs/engines.py has them
LINUX = sys.platform.startswith("linux")


class Trouble(Exception):
    """What stopped the start, in words for the person who started it."""


@dataclass(frozen=True)
class Place:
    """python: that has the packages; folder: in which it runs, None for the current one."""

    python: Path
    folder: Path | None

    def command(self, *words: str) -> list[str]:
        """`python -m WORDS`."""
        # Installed, our packages are on the path already, and a folder or file in the current one
        # that happens to be called `dashboard` must not stand in their way.
        isolated = [] if self.folder else ["-P"]
        return [str(self.python), *isolated, "-m", *words]


def main(
    words: Sequence[str] | None = None,
    *,
    prog: str = "pruning-workbench",
    also: str | None = None,
    python: Path | None = None,
    folder: Path | None = None,
    prepare: Callable[[], None] = lambda: None,
) -> int:
    """Open the page and wait until it ends; returns the exit code.

    words: the command's arguments, None for the process's own; prog, also: its name and the last
    line of its help; python, folder: as in Place, None for this Python and the current folder;
    prepare: what has to be there before the first of our processes starts.
    """
    options = _parser(prog, also).parse_args(words)
    place = Place(python or Path(sys.executable), folder)
    try:
        return _serve(options, place, prepare)
    except Trouble as trouble:
        print(f"\n{trouble}", file=sys.stderr)
        return 1


def _parser(prog: str, also: str | None) -> argparse.ArgumentParser:
    description = "Open the Pruning Workbench."
    parser = argparse.ArgumentParser(prog=prog, description=description, epilog=also)
    port = f"where to listen; the next free one when taken ({PORT})"
    parser.add_argument("--port", type=int, default=PORT, help=port)
    host = "127.0.0.1 (this machine only), for a class this machine's address in its network"
    parser.add_argument("--host", help=host)
    room = "open a class: prints an address that the room reaches, a passphrase, a code and a QR"
    parser.add_argument("--class", dest="room", action="store_true", help=room)
    code = "the code of the class, 6 letters and digits; the same one continues after a crash"
    parser.add_argument("--code", metavar="CODE", help=code)
    data = "examples to offer: a folder or zip of images by class, an npz, a CSV; repeatable"
    parser.add_argument("--data", action="append", default=[], metavar="PATH", help=data)
    parser.add_argument("--no-browser", action="store_true", help="only print the address")
    passphrase = f"what visitors must enter; ${PASSPHRASE} does the same, out of sight"
    parser.add_argument("--passphrase", metavar="WORD", help=passphrase)
    proxy = "what stands in front of it and asks who visitors are: nginx, a tunnel ..."
    parser.add_argument("--behind-proxy", metavar="NAME", help=proxy)
    model = (
        "a model of yours: my_file.py:build, my_package.my_file:build, hf:FOLDER, a file "
        "(net.onnx, net.keras, weights.pt) or ARCHITECTURE=weights.pt; again for more. Code is run "
        "by everybody who can open the page"
    )
    parser.add_argument("--model", action="append", default=[], metavar="MODEL", help=model)
    device = "where runs and maps are computed: cpu, cuda, cuda:1, mps, or auto for the best (cpu)"
    parser.add_argument("--device", default="cpu", metavar="DEVICE", help=device)
    engine = "who works on runs: a Dask scheduler, dask://HOST:PORT or tls://HOST:PORT (local)"
    parser.add_argument("--engine", default="local", metavar="ADDRESS", help=engine)
    for name in TLS:
        tls = f"of a tls:// engine, where Dask's own configuration names no {name}"
        parser.add_argument(f"--engine-{name}", metavar="FILE", help=tls)
    return parser


def _serve(options: argparse.Namespace, place: Place, prepare: Callable[[], None]) -> int:
    if options.code and not options.room:
        raise Trouble("--code is of a class: give --class as well.")
    listen = options.host or (lan_address() if options.room else "127.0.0.1")
    passphrase = options.passphrase or os.environ.get(PASSPHRASE, "")
    if options.room and not passphrase and not options.behind_proxy:
        passphrase = new_passphrase()
    guard = guarded_by(listen, passphrase, options.behind_proxy)
    code = class_code(options.code) if options.room else ""
    prepare()
    env = {**os.environ, PASSPHRASE: passphrase, **own_models(options.model, place)}
    env.update(device(options.device, place))
    files = {name: getattr(options, f"engine_{name}") or "" for name in TLS}
    env.update(engine(options.engine, files, place))
    port = free_port(listen, options.port)
    if port != options.port:
        print(f"Port {options.port} is taken; using {port}.")
    address = f"http://{_reached_at(listen, options.room)}:{port}"
    print(f"Pruning Workbench at {address} (Ctrl+C ends it)", flush=True)
    if guard:
        print(guard, flush=True)
    command = place.command("streamlit", "run", str(APP), "--server.headless", "true")
    command += ["--server.address", listen, "--server.port", str(port)]
    if options.behind_proxy or not is_loopback(listen):
        command += ["--server.allowedHosts", "*"]  # by which names it is opened is not known here
    if options.data:
        ids = [_read_data(path, place) for path in options.data]
        env["PRUNING_OFFERED_DATA"] = ",".join(ids)
    owner = ""
    if guard or options.room:
        env[OWNER] = env.get(OWNER) or secrets.token_hex(16)
        owner = f"?owner={env[OWNER]}"
        print(f"Yours, to see, stop and delete everything: {address}/{owner}", flush=True)
    if options.room:
        env.update({CLASS: code, ADDRESS: address})
        print(joining(address, passphrase, code, place), flush=True)
        owner += "&room=classroom"
    server = subprocess.Popen(command, cwd=place.folder, env=env)
    if not options.no_browser and has_screen(os.environ):
        # Who starts a class teaches it.
        opened = f"{address}/{owner}" if options.room else address
        threading.Thread(target=_open_browser, args=(address, opened), daemon=True).start()
    try:
        return _wait_for(server)
    finally:
        if options.room:
            end_class(Path(place.folder or Path.cwd()))


# ---------------------------------------------------------------- the machine


def free_port(host: str, wanted: int, tries: int = 50) -> int:
    """`wanted`, or the next port that nobody listens on."""
    for port in range(wanted, min(wanted + tries, 65536)):
        if _port_is_free(host, port):
            return port
    last = wanted + tries - 1
    raise Trouble(f"Ports {wanted} to {last} are all taken: give another with --port.")


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


def has_screen(env: Mapping[str, str]) -> bool:
    """Whether opening a browser makes sense here."""
    display = env.get("DISPLAY") or env.get("WAYLAND_DISPLAY")
    return not env.get("CI") and (not LINUX or bool(display))


# ---------------------------------------------------------------- who may reach it


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address."""
    return host in ("localhost", "::1") or host.startswith("127.")


def guarded_by(host: str, passphrase: str, proxy: str | None) -> str | None:
    """What an address that others can reach means, in a sentence; None for this machine alone.

    Stops where nobody would ask those others who they are.
    """
    if passphrase and len(passphrase) < SHORTEST:
        raise Trouble(f"A passphrase of under {SHORTEST} characters is soon guessed.")
    if is_loopback(host) and not proxy:
        return None
    others = f"Everybody who reaches this machine at {host}"
    if proxy:
        return f"{others} is let in by {proxy}; the workbench asks nobody itself."
    if not passphrase:
        raise Trouble(
            f"{others} could read and start everything here. Give --passphrase WORD, "
            "which visitors must enter, or --behind-proxy NAME if something in front of it asks "
            "who they are."
        )
    return (
        f"{others} and knows the passphrase can start runs here, open others' by their links, and "
        "stop and delete their own. What passes is not encrypted: on a network that is not yours, "
        "put a proxy with TLS in front."
    )


# ---------------------------------------------------------------- a class


ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
"""Of codes: without what is read as something else (0 and O, 1 and I and L)."""

CODE_LENGTH = 6
SYLLABLES = 5
"""Of a passphrase that is made here: one in a billion, and ten letters to type."""


def lan_address() -> str:
    """This machine's address in the network that it is in. Raises Trouble without one."""
    # Asking for a way to an address sends nothing; the answer says which of ours it begins at.
    # None of these needs to be there: the first is for documentation, the others are private.
    for target in ("192.0.2.1", "10.255.255.255", "192.168.255.255"):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            try:
                probe.connect((target, 9))
            except OSError:  # no way there
                continue
            address = str(probe.getsockname()[0])
        if not is_loopback(address) and address != "0.0.0.0":
            return address
    raise Trouble(
        "This machine is in no network that a class could reach it by: join one, or name an "
        "address of this machine with --host."
    )


def _reached_at(listen: str, room: bool) -> str:
    """What a browser opens: it cannot open 0.0.0.0, which means every address of this machine."""
    if listen != "0.0.0.0":
        return listen
    return lan_address() if room else "127.0.0.1"


def new_passphrase() -> str:
    """One that is easily told, read and typed: `bakomirute`."""
    consonants, vowels = "bdfgkmnprstvz", "aeiou"
    pairs = [secrets.choice(consonants) + secrets.choice(vowels) for _ in range(SYLLABLES)]
    return "".join(pairs)


def new_code() -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(CODE_LENGTH))


def plain_code(text: str) -> str:
    """A code as people type it: small letters, spaces and dashes are theirs."""
    return "".join(char for char in text.upper()[:100] if char in ALPHABET)


def class_code(wanted: str | None) -> str:
    """The code that somebody wants, or a new one."""
    if wanted is None:
        return new_code()
    code = plain_code(wanted)
    if len(code) != CODE_LENGTH:
        raise Trouble(
            f"The code {wanted!r} is not one: it takes {CODE_LENGTH} of the letters and digits "
            f"{ALPHABET}, so that it is not soon guessed and nothing is misread."
        )
    return code


def joining(address: str, passphrase: str, code: str, place: Place) -> str:
    """What people in the room need, for the terminal."""
    lines = [picture(f"{address}/?class={code}", place), "", "Join the class"]
    lines.append(f"  open        {address}")
    if passphrase:
        lines.append(f"  passphrase  {passphrase}")
    return "\n".join([*lines, f"  code        {code}", ""])


def picture(link: str, place: Place) -> str:
    """A QR code of block characters; "" where it cannot be made: the lines below it serve."""
    command = place.command("dashboard.qr", link)
    env = {**os.environ, "PYTHONIOENCODING": "utf-8"}
    made = subprocess.run(command, cwd=place.folder, env=env, check=False, capture_output=True)
    return made.stdout.decode("utf-8").rstrip()


def end_class(folder: Path) -> None:
    """What the server did not come to: names and answers do not outlive it."""
    home = Path(folder, os.environ.get("PRUNING_HOME") or "workspace")
    with suppress(OSError):
        (home / f"{ROOM_FILE}-journal").unlink(missing_ok=True)
        (home / ROOM_FILE).unlink()
        print("The class has ended: its names and answers were deleted.", flush=True)


# ---------------------------------------------------------------- what is offered


def own_models(names: Sequence[str], place: Place) -> dict[str, str]:
    """The variable that tells every process which models of somebody's own may be used."""
    if not names:
        return {}
    command = place.command("pruning.runs.own_files", os.getcwd(), *names)
    asked = subprocess.run(command, cwd=place.folder, check=False, capture_output=True)
    if asked.returncode:
        raise Trouble(asked.stderr.decode("utf-8", "replace").strip().splitlines()[-1])
    return {"PRUNING_MODELS": asked.stdout.decode("utf-8").strip()}


def device(name: str, place: Place) -> dict[str, str]:
    """The variables that tell every process where to compute. torch is asked, which takes seconds;
    nothing for the CPU, which every machine has.
    """
    if name == "cpu":
        return {"PRUNING_DEVICE": "", "PRUNING_DEVICE_TITLE": ""}
    command = place.command("pruning.devices", name)
    asked = subprocess.run(command, cwd=place.folder, check=False, capture_output=True)
    if asked.returncode:
        raise Trouble(asked.stderr.decode("utf-8", "replace").strip().splitlines()[-1])
    known = json.loads(asked.stdout.decode("utf-8"))
    print(f"Runs and maps are computed on {known['device']} {known['title']}".rstrip(), flush=True)
    return {"PRUNING_DEVICE": known["device"], "PRUNING_DEVICE_TITLE": known["title"]}


def engine(address: str, files: Mapping[str, str], place: Place) -> dict[str, str]:
    """The variable that tells the pool where runs are worked on."""
    if address == "local" and not any(files.values()):
        return {"PRUNING_ENGINE": ""}
    words = [f"{name}={os.path.abspath(file)}" for name, file in files.items() if file]
    command = place.command("pruning.runs.engines", address, *words)
    asked = subprocess.run(command, cwd=place.folder, check=False, capture_output=True)
    if asked.returncode:
        raise Trouble(asked.stderr.decode("utf-8", "replace").strip().splitlines()[-1])
    known = asked.stdout.decode("utf-8").strip()
    if known:
        print(f"Runs are worked on at {address}", flush=True)
    return {"PRUNING_ENGINE": known}


def _read_data(path: str, place: Place) -> str:
    """Read a data set once, before the page opens; the id that it is kept under."""
    print(f"Reading {path} ...", flush=True)
    command = place.command("pruning", "data", str(Path(path).absolute()), "--json")
    done = subprocess.run(command, cwd=place.folder, stdout=subprocess.PIPE, check=False)
    if done.returncode:
        raise Trouble(f"{path} is not offered: the line above says why.")
    return str(json.loads(done.stdout.decode("utf-8"))["id"])


# ---------------------------------------------------------------- the server


def _open_browser(address: str, opened: str) -> None:
    """Open a page of the server once it answers."""
    for _ in range(300):
        try:
            urllib.request.urlopen(f"{address}/_stcore/health", timeout=2).close()
        except OSError:
            time.sleep(0.2)
        else:
            webbrowser.open(opened)
            return


def _wait_for(server: subprocess.Popen[bytes]) -> int:
    """Wait for the server; end it when we are ended."""
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    while True:
        try:
            code = server.wait()
            return 0 if code in (-signal.SIGTERM, -signal.SIGINT) else code
        except KeyboardInterrupt:
            continue  # the server got it too, and is closing
