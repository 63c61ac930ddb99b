"""The class room: who is in it, what a code is worth, and that its end leaves nothing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from dashboard import access, rooms

ANNA, BEN, TEACHER = "anna-token", "ben-token", "teacher-token"
HERE = "192.0.2.7"


@pytest.fixture(autouse=True)
def fresh(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(rooms, "_tries", access.Tries(time.monotonic))
    rooms._own.clear()
    yield
    rooms._connection.cache_clear()


def opened(*people: tuple[str, str]) -> rooms.Room:
    """A room with these members: (visitor, name)."""
    room = rooms.open_room(TEACHER)
    for visitor, name in people:
        rooms.join(room.code, name, visitor, HERE)
    return room


def names(room: rooms.Room) -> list[str]:
    return [member.name for member in rooms.members(room.id)]


# ---------------------------------------------------------------- who is in it


def test_without_a_room_there_is_no_file_and_everything_is_quiet(home: Path) -> None:
    rooms.note_step(ANNA, "why", 1)
    rooms.note_run(ANNA, "run")
    assert rooms.room_of(ANNA) is None and rooms.current() is None
    assert rooms.predictions(ANNA, "why", 1) == []
    assert not (home / rooms.FILE).exists()


def test_predictions_without_a_room_are_ones_own_and_not_on_disk(home: Path) -> None:
    rooms.note_prediction(ANNA, "why", 1, 0.9)
    rooms.note_prediction(ANNA, "why", 1, 0.8)
    rooms.note_prediction(BEN, "why", 1, 0.1)
    rooms.note_prediction(None, "why", 1, 0.1)
    assert rooms.predictions(ANNA, "why", 1) == [0.8]
    assert rooms.predictions(None, "why", 1) == []
    assert not (home / rooms.FILE).exists()


def test_only_members_see_the_room_and_its_answers() -> None:
    room = opened((ANNA, "Anna"), (BEN, "Ben"))
    rooms.note_prediction(ANNA, "why", 2, 0.9)
    rooms.note_prediction(BEN, "why", 2, 0.4)
    rooms.note_prediction(BEN, "why", 2, float("nan"))
    joined = rooms.room_of(ANNA)
    assert joined is not None and joined.code == room.code
    assert rooms.predictions(ANNA, "why", 2) == rooms.predictions(BEN, "why", 2) == [0.4, 0.9]
    assert rooms.predictions(TEACHER, "why", 2) == [0.4, 0.9]
    assert rooms.room_of("carl") is None and rooms.predictions("carl", "why", 2) == []
    assert rooms.room_of(None) is None and rooms.room_of(TEACHER) is None
    assert rooms.predicted_steps(room.id) == [("why", 2)]
