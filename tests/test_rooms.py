"""The class room: who is in it, what a code is worth, and that its end leaves nothing."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from dashboard import access, launch, rooms
from dashboard.rooms import BEST, SMALLEST, Refused, Rule
from pruning.errors import StoreError
from pruning.recipe import Recipe

ANNA, BEN, TEACHER = "anna-token", "ben-token", "teacher-token"
HERE = "192.0.2.7"
RECIPE = Recipe(model="digits-mlp", sparsity=0.5).to_dict()


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


def now() -> rooms.Room:
    room = rooms.current()
    assert room is not None
    return room


def names(room: rooms.Room) -> list[str]:
    return [member.name for member in rooms.members(room.id)]


# ---------------------------------------------------------------- who is in it


def test_without_a_room_there_is_no_file_and_everything_is_quiet(home: Path) -> None:
    rooms.note_step(ANNA, "why", 1)
    rooms.note_run(ANNA, "run")
    rooms.be_listed(ANNA, True)
    rooms.leave(ANNA)
    rooms.end("none")
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


def test_only_members_and_the_teacher_see_the_room_and_its_answers() -> None:
    room = opened((ANNA, "Anna"), (BEN, "Ben"))
    rooms.note_prediction(ANNA, "why", 2, 0.9)
    rooms.note_prediction(BEN, "why", 2, 0.3)
    rooms.note_prediction(BEN, "why", 2, 0.4)  # thought better of it
    rooms.note_prediction(BEN, "why", 2, float("nan"))
    joined = rooms.room_of(ANNA)
    assert joined is not None and joined.code == room.code
    assert rooms.predictions(ANNA, "why", 2) == rooms.predictions(BEN, "why", 2) == [0.4, 0.9]
    assert rooms.predictions(TEACHER, "why", 2) == [0.4, 0.9]
    assert rooms.room_of("carl") is None and rooms.predictions("carl", "why", 2) == []
    assert rooms.room_of(None) is None and rooms.room_of(TEACHER) is None
    assert rooms.predicted_steps(room.id) == [("why", 2)]


def test_a_room_that_members_see_names_nobody() -> None:
    opened((ANNA, "Anna"))
    rooms.note_prediction(ANNA, "why", 1, 0.5)
    assert "Anna" not in repr(rooms.room_of(ANNA)) and ANNA not in repr(rooms.room_of(ANNA))


def test_there_is_one_room_at_a_time_and_it_outlives_the_server() -> None:
    room = opened((ANNA, "Anna"))
    with pytest.raises(Refused, match="in progress"):
        rooms.open_room(BEN)
    rooms._connection.cache_clear()  # another process
    assert rooms.current() == now() and names(room) == ["Anna"]


def test_a_server_goes_on_with_the_room_of_its_code_and_ends_another(home: Path) -> None:
    rooms.begin("")
    assert rooms.current() is None
    rooms.begin("K7M2QX")
    rooms.join("k7m-2qx", "Anna", ANNA, HERE)
    rooms.begin("K7M2QX")
    rooms.begin("")
    assert names(now()) == ["Anna"]
    rooms.begin("ABCDEF")
    assert now().code == "ABCDEF" and names(now()) == []
    assert b"Anna" not in (home / rooms.FILE).read_bytes()


def test_a_room_that_nobody_ended_is_over_by_its_age(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened((ANNA, "Anna"))
    late = time.time() + 3600 * rooms.HOURS + 1
    monkeypatch.setattr(rooms.time, "time", lambda: late)
    assert rooms.current() is None
    assert not (home / rooms.FILE).exists()


# ---------------------------------------------------------------- what a code is worth


def test_a_code_is_one_of_many_and_is_read_as_people_type_it() -> None:
    codes = {launch.new_code() for _ in range(200)}
    assert len(codes) == 200
    assert len(launch.ALPHABET) ** launch.CODE_LENGTH > 8e8
    room = opened()
    typed = f" {room.code[:3].lower()}-{room.code[3:].lower()} "
    assert rooms.join(typed, "Anna", ANNA, HERE).id == room.id


def test_codes_cannot_be_guessed_by_trying(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(rooms, "_tries", access.Tries(lambda: clock[0]))
    room = opened()
    tried, refused = 0, 0
    for _ in range(1000):
        try:
            rooms.join("222222", "Eve", "eve", HERE)
        except Refused as error:
            tried += "No class has this code" in str(error)
            refused += "Too many" in str(error)
        clock[0] += 0.1
    assert tried < 10 and refused > 980, "100 seconds of trying ten times a second"
    with pytest.raises(Refused, match="Too many"):
        rooms.join(room.code, "Eve", "eve", HERE)
    with pytest.raises(Refused, match="Too many"):  # whoever else tries from there
        rooms.join(room.code, "Eve", "another cookie", HERE)
    rooms.join(room.code, "Anna", ANNA, "192.0.2.8")
    clock[0] += access.LONGEST_WAIT
    rooms.join(room.code, "Eve", "eve", HERE)


def test_a_wrong_code_says_the_same_whether_or_not_there_is_a_room() -> None:
    with pytest.raises(Refused) as without:
        rooms.join("222222", "Eve", "eve", HERE)
    opened()
    with pytest.raises(Refused) as beside:
        rooms.join("222222", "Eve", "eve", HERE)
    assert str(without.value) == str(beside.value)


def test_news_of_a_room_are_not_asked_for_by_its_code() -> None:
    """Anybody may ask the server for them: the answer must not tell which codes there are."""
    room = opened()
    for asked in (rooms.orders, rooms.offers, rooms.reports, rooms.board_news):
        news = asked(room)
        (name,) = news
        assert room.code not in name and room.id in name
        assert rooms.states(news) == news
    guessed = [f"{rooms.NEWS}orders-{room.code}", f"{rooms.NEWS}orders-222222"]
    assert set(rooms.states(guessed).values()) == {"ended"}


def test_a_browser_without_cookies_is_told_why_it_cannot_join() -> None:
    with pytest.raises(Refused, match="cookies"):
        rooms.join(opened().code, "Anna", None, HERE)


# ---------------------------------------------------------------- names


def test_equal_names_are_told_apart() -> None:
    long = "x" * rooms.LONGEST_NAME
    room = opened((ANNA, "Ben"), (BEN, "ben"), ("c", "Ｂｅｎ"), ("d", long), ("e", long + "y"))
    assert names(room) == ["Ben", "ben 2", "Ben 3", long, long[:-2] + " 2"]
    rooms.join(room.code, "Ben", ANNA, HERE)
    assert names(room)[0] == "Ben", "one's own name is not taken"
    rooms.join(room.code, "Anna", ANNA, HERE)
    assert names(room)[0] == "Anna"


@settings(max_examples=30)
@given(st.text(max_size=80))
@example("\u202egnp.exe\u0000\n<script>")
@example("a" + "\u0301" * 50)
@example("\u3164 \u200b")
def test_a_name_is_one_short_readable_line_or_refused(text: str) -> None:
    try:
        name = rooms.plain_name(text)
    except Refused:
        return
    assert 0 < len(name) <= rooms.LONGEST_NAME
    assert name.isprintable() and name == " ".join(name.split())
    assert rooms.plain_name(name) == name


def test_what_is_no_name_is_refused_with_the_way_out() -> None:
    for text in ("", "  ", "\u200b\u202e", "???"):
        with pytest.raises(Refused, match="letter or digit"):
            rooms.plain_name(text)


def test_a_room_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "MOST_MEMBERS", 2)
    room = opened((ANNA, "Anna"), (BEN, "Ben"))
    with pytest.raises(Refused, match="2 people"):
        rooms.join(room.code, "Carl", "carl", HERE)
    rooms.join(room.code, "Anna B", ANNA, HERE)  # who is in it may still change their name


# ---------------------------------------------------------------- what the teacher asks for


def test_every_order_is_news_to_members_and_every_answer_to_the_teacher() -> None:
    room = opened((ANNA, "Anna"))

    def seen() -> tuple[int, int]:
        return now().orders, now().reports

    before = seen()
    for order in (
        lambda: rooms.push(room.id, RECIPE, directly=True),
        lambda: rooms.restrict(room.id, ["scope", "criterion"], ["seed"]),
        lambda: rooms.start_lesson(room.id, "why", 2),
        lambda: rooms.open_board(room.id, Rule(BEST, 0.9, "digits-mlp")),
    ):
        order()
        assert seen() == (before[0] + 1, before[1] + 1)
        before = seen()
    after = rooms.room_of(ANNA)
    assert after is not None and after.recipe == RECIPE and after.directly and after.pushes == 1
    offers = rooms.offers(now())
    rooms.push(room.id, RECIPE, directly=False)
    assert seen() == (before[0], before[1] + 1), "an offer concerns the notice of a page alone"
    assert rooms.states(offers) == rooms.offers(now()) != offers
    before = seen()
    assert after.locks == {"scope", "criterion"} and after.hidden == {"seed"}
    assert (after.lesson, after.step, after.starts) == ("why", 2, 1)
    for report in (
        lambda: rooms.note_step(ANNA, "why", 2),
        lambda: rooms.note_prediction(ANNA, "why", 2, 0.5),
    ):
        report()
        assert seen() == (before[0], before[1] + 1)
        before = seen()
    rooms.note_step(ANNA, "why", 2)
    assert seen() == before, "what is known is no news"


def test_the_rule_of_a_board_stays_until_it_is_closed() -> None:
    room = opened((ANNA, "Anna"))
    rooms.open_board(room.id, Rule(BEST, 0.9, "digits-mlp"))
    rooms.open_board(room.id, Rule(SMALLEST, 0.5, "digits-mlp"))
    assert now().rule == Rule(BEST, 0.9, "digits-mlp")
    rooms.be_listed(ANNA, True)
    rooms.close_board(room.id)
    member = rooms.me(ANNA)
    assert now().rule is None and member is not None and not member.listed


def test_a_reset_keeps_people_and_deletes_what_they_answered(home: Path) -> None:
    room = opened((ANNA, "Anna"))
    rooms.note_step(ANNA, "secret-lesson", 3)
    rooms.note_prediction(ANNA, "secret-lesson", 3, 0.5)
    rooms.note_run(ANNA, "secret-run")
    rooms.push(room.id, RECIPE, directly=False)
    rooms.restrict(room.id, ["scope"], [])
    rooms.reset(room.id)
    after = now()
    assert names(after) == ["Anna"] and after.code == room.code and after.resets == 1
    assert after.recipe is None and not after.locks
    assert rooms.predictions(ANNA, "secret-lesson", 3) == [] and rooms.runs_of(ANNA) == []
    assert b"secret-" not in (home / rooms.FILE).read_bytes()


def test_who_is_taken_out_or_leaves_is_forgotten(home: Path) -> None:
    room = opened((ANNA, "Rude-Name"), (BEN, "Ben-Name"))
    rooms.note_prediction(ANNA, "why", 1, 0.5)
    rooms.dismiss(room.id, ANNA)
    assert rooms.room_of(ANNA) is None and rooms.predictions(BEN, "why", 1) == []
    rooms.leave(BEN)
    assert names(room) == []
    data = (home / rooms.FILE).read_bytes()
    assert b"Rude" not in data and b"Ben-" not in data and ANNA.encode() not in data


# ---------------------------------------------------------------- its end


def test_the_end_leaves_nothing_on_the_disk(home: Path) -> None:
    """Not in freed pages either: the file is looked at before it is removed."""
    room = opened(*[(f"token-{n}", f"Secret-{n}") for n in range(60)])
    for n in range(60):
        rooms.note_step(f"token-{n}", f"secret-lesson-{n}", n)
        rooms.note_prediction(f"token-{n}", f"secret-lesson-{n}", 1, 0.5)
        rooms.note_run(f"token-{n}", f"secret-run-{n}")
    for n in range(0, 60, 2):  # pages that are half empty, and free ones
        rooms.leave(f"token-{n}")
    other = sqlite3.connect(home / rooms.FILE)  # somebody who has it open, and another room in it
    with other:
        other.execute("INSERT INTO rooms (id, code, opened) VALUES ('other', '222222', 0)")
    held = (home / rooms.FILE).open("rb")
    assert b"Secret-1" in held.read()
    other.close()
    rooms.end(room.id)
    held.seek(0)
    data = held.read()
    for word in (b"Secret", b"secret", b"token", room.id.encode(), room.code.encode()):
        assert word not in data, word
    rooms.end("other")
    assert not [file.name for file in home.glob(f"{rooms.FILE}*")]
    assert rooms.room_of("token-1") is None


def test_nothing_beside_the_file_holds_a_name(home: Path) -> None:
    """No journal and no log outlives a transaction."""
    opened((ANNA, "Secret-Anna"))
    rooms.note_prediction(ANNA, "why", 1, 0.5)
    rooms.leave(ANNA)
    beside = [file for file in home.rglob("*") if file.is_file()]
    assert beside == [home / rooms.FILE] and b"Secret" not in beside[0].read_bytes()


def test_the_file_is_its_owners_alone(home: Path) -> None:
    opened()
    assert (home / rooms.FILE).stat().st_mode & 0o077 == 0


def test_a_file_that_is_no_room_is_a_sentence_and_stops_no_page(home: Path) -> None:
    home.mkdir(exist_ok=True)
    (home / rooms.FILE).write_bytes(b"not a database" * 100)
    assert rooms.current() is None and rooms.room_of(ANNA) is None
    rooms.note_step(ANNA, "why", 1)
    with pytest.raises(StoreError, match="class room"):
        rooms.open_room(TEACHER)


def test_a_class_that_answers_at_once_loses_nothing() -> None:
    people = [(f"token-{n}", "Same") for n in range(16)]
    room = rooms.open_room(TEACHER)

    def learn(visitor: str, name: str) -> None:
        rooms.join(room.code, name, visitor, HERE)
        for step in range(5):
            rooms.note_step(visitor, "why", step)
            rooms.note_prediction(visitor, "why", step, step)

    threads = [threading.Thread(target=learn, args=one) for one in people]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(names(room))) == 16
    assert [len(rooms.predictions(TEACHER, "why", step)) for step in range(5)] == [16] * 5
