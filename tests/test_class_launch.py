"""`run.py --class`: what it prints, what it tells the server, and that nothing outlives it."""

from __future__ import annotations

import os
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest

from dashboard import access, launch, qr, rooms, state, visitors

ROOT = Path(__file__).parents[1]
PLACE = launch.Place(Path(sys.executable), ROOT)


class Started:
    """What a server would have been started with."""

    command: list[str]
    env: dict[str, str]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch, home: Path) -> Started:
    kept = Started()

    def start(command: list[str], cwd: Any, env: dict[str, str]) -> None:
        kept.command, kept.env = command, env

    monkeypatch.setattr(launch.subprocess, "Popen", start)
    monkeypatch.setattr(launch, "_wait_for", lambda server: 0)
    monkeypatch.setattr(launch, "free_port", lambda host, wanted: wanted)
    # Drawing it takes a process; what it draws is asked below.
    monkeypatch.setattr(launch, "picture", lambda link, place: f"<QR of {link}>")
    monkeypatch.delenv(access.PASSPHRASE, raising=False)
    monkeypatch.delenv(visitors.OWNER, raising=False)
    return kept


def run(*words: str) -> int:
    return launch.main(["--class", "--no-browser", *words], folder=ROOT)


def test_a_class_prints_all_that_the_room_needs(
    started: Started, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "lan_address", lambda: "192.168.7.5")
    assert run() == 0
    shown = capsys.readouterr().out
    env, address = started.env, "http://192.168.7.5:8501"
    code, passphrase = env[rooms.CODE], env[access.PASSPHRASE]
    assert len(code) == launch.CODE_LENGTH and len(passphrase) >= launch.SHORTEST
    assert re.search(rf"open +{address}\n +passphrase +{passphrase}\n +code +{code}\n", shown)
    assert f"<QR of {address}/?{state.CODE}={code}>" in shown
    assert f"{address}/?owner={env[visitors.OWNER]}" in shown
    assert env[rooms.ADDRESS] == address
    at = started.command.index("--server.address")
    assert started.command[at + 1] == "192.168.7.5", "that network and no other"


def test_what_is_given_is_used(
    started: Started, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(launch, "lan_address", lambda: "192.168.7.5")
    words = ("--host", "0.0.0.0", "--passphrase", "a long one", "--code", "k7m-2qx")
    assert run(*words) == 0
    assert "http://192.168.7.5:8501" in capsys.readouterr().out, "nobody can open 0.0.0.0"
    assert started.env[rooms.CODE] == "K7M2QX"
    assert started.env[access.PASSPHRASE] == "a long one"
    assert started.command[started.command.index("--server.address") + 1] == "0.0.0.0"
    # A proxy asks who people are: no passphrase is made up beside it.
    assert run("--host", "127.0.0.1", "--behind-proxy", "nginx") == 0
    assert started.env[access.PASSPHRASE] == ""
    assert "passphrase " not in capsys.readouterr().out


def test_two_classes_share_neither_code_nor_passphrase() -> None:
    assert len({launch.new_code() for _ in range(50)}) == 50
    made = {launch.new_passphrase() for _ in range(50)}
    assert len(made) == 50 and all(word.isalpha() and word.islower() for word in made)


def test_without_a_class_nothing_is_opened(started: Started) -> None:
    assert launch.main(["--no-browser"], folder=ROOT) == 0
    assert rooms.CODE not in started.env and visitors.OWNER not in started.env
    assert started.command[started.command.index("--server.address") + 1] == "127.0.0.1"


@pytest.mark.parametrize("words", [("--code", "K7M2QX"), ("--class", "--code", "K7M2")])
def test_a_code_that_is_none_is_refused(
    words: tuple[str, ...], started: Started, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch.main(["--no-browser", "--host", "127.0.0.1", *words], folder=ROOT) == 1
    assert not hasattr(started, "env")
    said = capsys.readouterr().err
    assert "--class" in said or "6 of the letters and digits" in said


def test_a_machine_without_a_network_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Nowhere(socket.socket):
        def connect(self, address: Any) -> None:
            raise OSError("Network is unreachable")

    monkeypatch.setattr(launch.socket, "socket", Nowhere)
    with pytest.raises(launch.Trouble, match="--host"):
        launch.lan_address()


def test_the_address_is_one_of_this_machines() -> None:
    try:
        address = launch.lan_address()
    except launch.Trouble:
        pytest.skip("this machine is in no network")
    assert not launch.is_loopback(address)
    with socket.socket() as probe:
        probe.bind((address, 0))


def test_names_and_answers_do_not_outlive_the_server(
    started: Started, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However it ended: what the teacher did not end, who started it does."""
    room = rooms.open_room(None, "K7M2QX")
    rooms.join(room.code, "Anna", "anna", "192.0.2.7")
    assert Path(os.environ["PRUNING_HOME"]) == home and (home / launch.ROOM_FILE).exists()
    assert run("--host", "127.0.0.1") == 0
    assert not (home / launch.ROOM_FILE).exists() and rooms.current() is None


def test_names_that_two_processes_share_are_spelled_alike() -> None:
    assert launch.CLASS == rooms.CODE and launch.ADDRESS == rooms.ADDRESS
    assert launch.ROOM_FILE == rooms.FILE
    link = "http://192.168.7.5:8501/?class=K7M2QX"
    assert f"/?{state.CODE}=" in link


def test_the_picture_is_of_the_link() -> None:
    link = "http://192.168.7.5:8501/?class=K7M2QX"
    drawn = launch.picture(link, PLACE)
    assert drawn == qr.terminal(link).rstrip()
    assert drawn != qr.terminal(f"{link}Y").rstrip()
    assert len(set(map(len, drawn.splitlines()))) == 1, "a square"
