"""The Class page: what its teacher sees and asks for, what members get, and what a board counts."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from dashboard import access, app, board, example, jobs, rooms, state, visitors
from dashboard.board import Try, ranked
from dashboard.components import wait
from dashboard.rooms import BEST, SMALLEST, Member, Rule
from dashboard.views import _recipe_panel as prune_parts
from pruning.events import Finished
from pruning.metrics import Accuracy
from pruning.recipe import Recipe
from pruning.runs.store import Store
from tests.pages import figures, opened, texts

OWNER, ANNA, BEN = "f" * 32, "a" * 32, "b" * 32
TEACHER = "c" * 32
RECIPE = Recipe(model="digits-mlp", sparsity=0.75)


@pytest.fixture
def looks(home: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, str]]:
    """The cookies of whoever looks, on a server that others can reach."""
    cookies: dict[str, str] = {}
    monkeypatch.setenv(visitors.OWNER, OWNER)
    monkeypatch.setattr(visitors, "cookies", lambda: cookies)
    monkeypatch.setattr(rooms, "_tries", access.Tries(time.monotonic))
    yield cookies
    rooms._connection.cache_clear()


LESSON = """
title = "Half"
question = "What does half cost?"
minutes = 5

[results.half]
recipe = {model = "digits-mlp", sparsity = 0.5}

[[step]]
title = "One"
text = "First."
page = "classroom"

[[step]]
title = "Two"
text = "Second."
page = "classroom"
recipe = "half"
lock = ["criterion"]

[step.predict]
question = "How accurate will it be?"
figure = "half.accuracy"
"""


@pytest.fixture
def lesson(home: Path) -> str:
    """Its name; it stands on the Class page, which is drawn fastest."""
    folder = home / "lessons"
    folder.mkdir(parents=True)
    (folder / "half.toml").write_text(LESSON)
    return "half"


def come(looks: dict[str, str], token: str) -> str:
    """Somebody else looks; who they are to the room."""
    looks.clear()
    looks[visitors.COOKIE] = token
    if token == TEACHER:
        looks[visitors.OWNER_COOKIE] = OWNER
    me = visitors.me()
    assert me is not None
    return me


def opened_class(looks: dict[str, str], *people: tuple[str, str]) -> rooms.Room:
    """By the server's owner; with these members: (token, name)."""
    room = rooms.open_room(come(looks, TEACHER))
    for token, name in people:
        rooms.join(room.code, name, come(looks, token), "192.0.2.7")
    return room


def on_class(**address: str) -> AppTest:
    """The Class page, without another one before it."""
    return opened(room="classroom", **address)


def questions(page: AppTest) -> list[dict[str, str]]:
    """What the page asks the server to be told of: of each question its names and states."""
    protos = [element.proto for element in page.get("bidi_component")]
    data = [json.loads(proto.json or proto.mixed.json or "null") for proto in protos]
    asked = [one["question"] for one in data if one and one.get("question")]
    return [wait.asked(one.partition("=")[2].replace("%3A", ":")) for one in asked]


def shown(page: AppTest) -> str:
    assert not page.exception
    return texts(page)


# ---------------------------------------------------------------- the way in


def test_who_started_the_server_opens_a_class_and_others_do_not(looks: dict[str, str]) -> None:
    come(looks, ANNA)
    page = on_class()
    assert not page.exception and "class-open" not in [button.key for button in page.button]
    come(looks, TEACHER)
    page = on_class()
    page.button(key="class-open").click().run()
    room = rooms.current()
    assert room is not None
    metrics = {metric.label: metric.value for metric in page.metric}
    assert metrics["Code"] == room.code and "Nobody has joined yet." in shown(page)
    assert "Passphrase" not in metrics, "this server asks for none"


def test_a_member_joins_by_code_and_name_which_is_shown_as_text(looks: dict[str, str]) -> None:
    room = opened_class(looks)
    me = come(looks, ANNA)
    page = opened(**{state.CODE: room.code})
    assert page.text_input(key="class-code").value == room.code
    assert state.CODE not in page.query_params, "no link that is copied has it"
    page.text_input(key="class-name").set_value("**Anna** :red[x]")
    page.button(key="class-enter").click().run()
    assert r"\*\*Anna\*\*" in shown(page)
    member = rooms.me(me)
    assert member is not None and member.name == "**Anna** :red[x]"
    assert {**rooms.orders(room), **rooms.offers(room)} == {
        name: known for question in questions(page) for name, known in question.items()
    }
    page.button(key="class-leave").click().run()
    assert rooms.me(me) is None and "class-enter" in [button.key for button in page.button]


def test_a_wrong_code_is_an_error_and_a_limit(
    looks: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rooms, "_tries", access.Tries(lambda: 0.0))
    opened_class(looks)
    come(looks, ANNA)
    page = on_class()
    page.text_input(key="class-code").set_value("222222")
    page.text_input(key="class-name").set_value("Anna")
    for _ in range(access.FREE_TRIES + 1):
        page.button(key="class-enter").click().run()
    assert "Too many wrong codes" in shown(page)


def test_without_a_class_a_page_waits_for_nothing(looks: dict[str, str]) -> None:
    come(looks, ANNA)
    assert questions(on_class()) == []


def test_others_on_the_server_are_shown_the_way(looks: dict[str, str]) -> None:
    opened_class(looks)
    come(looks, ANNA)
    assert "A class is in progress" in shown(opened(room="runs"))
    come(looks, TEACHER)
    assert "A class is in progress" not in shown(opened(room="runs"))


# ---------------------------------------------------------------- what the teacher asks for


def test_an_offered_recipe_is_taken_by_a_click(looks: dict[str, str]) -> None:
    room = opened_class(looks, (ANNA, "Anna"))
    rooms.push(room.id, RECIPE.to_dict(), directly=False)
    come(looks, ANNA)
    page = on_class()
    assert page.session_state["recipe"] == state.HOME and "Handed to the class" in shown(page)
    page.button(key="class-take").click().run()
    assert page.session_state["recipe"] == RECIPE
    assert "Handed to the class" not in shown(page)
    assert "Handed to the class" not in shown(on_class()), "nor in the next tab"
    page.button(key="step-Undo").click().run()
    assert page.session_state["recipe"] == state.HOME


def test_a_recipe_that_is_set_is_everybodys_also_who_comes_late(looks: dict[str, str]) -> None:
    room = opened_class(looks, (ANNA, "Anna"))
    come(looks, ANNA)
    page = on_class()
    come(looks, TEACHER)
    teaches = on_class(r=state.encode(RECIPE))
    teaches.button(key="class-set").click().run()
    assert not teaches.exception
    come(looks, ANNA)
    page.run()
    assert page.session_state["recipe"] == RECIPE and "to everybody" in shown(page)
    page.button(key="step-Undo").click().run()
    page.run()
    assert page.session_state["recipe"] == state.HOME, "once, and theirs from then on"
    rooms.join(room.code, "Ben", come(looks, BEN), "192.0.2.8")
    assert on_class().session_state["recipe"] == RECIPE


def test_what_is_restricted_is_restricted_for_members_alone(looks: dict[str, str]) -> None:
    room = opened_class(looks, (ANNA, "Anna"))
    come(looks, TEACHER)
    page = on_class()
    key = f"{state.CLASS_LOCKED}-{room.id}-0"
    page.multiselect(key=key).set_value(["criterion", "sparsity"]).run()
    assert not page.exception and page.session_state["room"] is None
    come(looks, ANNA)
    page = on_class(r=state.encode(replace(state.HOME, sparsity=0.3, epochs=7)))
    recipe = page.session_state["recipe"]
    assert (recipe.sparsity, recipe.epochs) == (state.HOME.sparsity, 7)
    page.button(key="step-Reset").click().run()
    assert page.session_state["recipe"].epochs == state.HOME.epochs


def test_the_teacher_sees_who_is_where_and_what_they_predict(
    looks: dict[str, str], lesson: str
) -> None:
    room = opened_class(looks, (ANNA, "Anna"), (BEN, "Ben"))
    for token, value in ((ANNA, 0.90), (BEN, 0.97)):
        me = come(looks, token)
        rooms.note_step(me, lesson, 2)
        rooms.note_prediction(me, lesson, 2, value)
    come(looks, TEACHER)
    page = on_class()
    table = page.dataframe[0].value
    assert list(table["name"]) == ["Anna", "Ben"] and list(table["step"]) == ["2", "2"]
    assert list(table["lesson"]) == ["Half", "Half"]
    figure = figures(page)["2 predictions"]
    assert not figure["layout"].get("shapes"), (
        "what was measured is not shown before it is asked for"
    )
    assert sum(figure["data"][0]["y"]) == 2 and "Anna" not in json.dumps(figure)
    assert rooms.reports(room).keys() == {name for asked in questions(page) for name in asked}


def test_a_lesson_starts_for_all_also_for_who_comes_late(
    looks: dict[str, str], lesson: str
) -> None:
    room = opened_class(looks, (ANNA, "Anna"))
    me = come(looks, ANNA)
    page = on_class()
    come(looks, TEACHER)
    teaches = on_class()
    teaches.selectbox(key=state.CLASS_LESSON).set_value(lesson).run()
    teaches.number_input(key=f"{state.CLASS_STEP}-{lesson}").set_value(2)
    teaches.button(key="class-start").click().run()
    assert not teaches.exception and teaches.session_state["place"] is None
    come(looks, ANNA)
    page.run()
    recipe = page.session_state["recipe"]
    assert (recipe.model, recipe.sparsity) == ("digits-mlp", 0.5) and "Second." in shown(page)
    at = rooms.me(me)
    assert at is not None and (at.lesson, at.step) == (lesson, 2)
    page.button(key="lesson-leave").click().run()
    assert page.run().session_state["place"] is None, "it was started once"
    rooms.join(room.code, "Ben", come(looks, BEN), "192.0.2.8")
    assert "Second." in shown(on_class())


def test_the_end_tells_members_and_deletes_all(
    looks: dict[str, str], home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened_class(looks, (ANNA, "Anna"))
    come(looks, ANNA)
    page = on_class()
    come(looks, TEACHER)
    teaches = on_class()
    teaches.button(key="class-end").click().run()
    assert not teaches.exception and not (home / rooms.FILE).exists()
    come(looks, ANNA)
    assert "The class has ended" in shown(page.run())
    monkeypatch.setattr(state, "NEWS", 0.0)
    assert "The class has ended" not in shown(page.run())
    assert questions(page) == []


def test_a_reset_sends_everybody_back(looks: dict[str, str]) -> None:
    opened_class(looks, (ANNA, "Anna"))
    come(looks, ANNA)
    page = on_class(r=state.encode(RECIPE))
    assert page.session_state["recipe"] == RECIPE
    come(looks, TEACHER)
    teaches = on_class()
    teaches.button(key="class-reset").click().run()
    come(looks, ANNA)
    assert page.run().session_state["recipe"] == state.HOME


def test_the_servers_answer_to_waiting_pages_knows_rooms_and_jobs(looks: dict[str, str]) -> None:
    room = opened_class(looks, (ANNA, "Anna"))
    run = Store().submit("run", RECIPE.to_dict())
    before = app.states([*rooms.orders(room), run])
    assert before == {**rooms.orders(room), run: "queued"}
    rooms.push(room.id, RECIPE.to_dict(), directly=False)
    assert app.states(rooms.orders(room)) != rooms.orders(room)
    rooms.end(room.id)
    assert set(app.states(rooms.orders(room)).values()) == {"ended"}


# ---------------------------------------------------------------- equal recipes


def test_equal_recipes_of_a_class_are_one_run_that_each_sees(looks: dict[str, str]) -> None:
    opened_class(looks, (ANNA, "Anna"), (BEN, "Ben"))
    come(looks, ANNA)
    run = jobs.start(RECIPE)
    come(looks, BEN)
    assert jobs.live() == []
    assert jobs.start(RECIPE) == run and jobs.start(replace(RECIPE, seed=1)) != run
    assert run in [job.id for job in jobs.live()]
    come(looks, "d" * 32)  # in no class: a press is a run of its own
    assert jobs.start(RECIPE) != run


def test_a_run_that_ends_while_the_page_is_drawn_is_shown_ended(
    looks: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An equal run of somebody else's may be about to end when Run is pressed."""
    opened_class(looks, (ANNA, "Anna"), (BEN, "Ben"))
    come(looks, ANNA)
    page = opened(room="prune", r=state.encode(RECIPE))
    draw = prune_parts.schedule

    def end_meanwhile(recipe: Recipe) -> None:
        draw(recipe)
        for run in jobs.live():
            jobs.store().stop(run.id)

    monkeypatch.setattr(prune_parts, "schedule", end_meanwhile)
    page.button(key="run-now").click().run()
    run = page.session_state["run"]
    assert jobs.job(run).state == "stopped" and f"**Run `{run[:6]}`" in shown(page)


def test_a_run_that_others_want_too_is_the_teachers_to_stop(looks: dict[str, str]) -> None:
    opened_class(looks, (ANNA, "Anna"), (BEN, "Ben"))
    come(looks, ANNA)
    run = jobs.start(RECIPE)
    assert jobs.may_change(jobs.job(run))
    come(looks, BEN)
    jobs.start(RECIPE)
    assert not jobs.may_change(jobs.job(run))
    come(looks, ANNA)
    jobs.stop(run)
    assert jobs.job(run).state == "queued" and not jobs.may_change(jobs.job(run))
    rooms.leave(come(looks, BEN))
    come(looks, ANNA)
    assert jobs.may_change(jobs.job(run)), "hers alone again"
    come(looks, BEN)
    rooms.join(str(rooms.current().code), "Ben", visitors.me(), "192.0.2.7")  # type: ignore[union-attr]
    jobs.start(RECIPE)
    come(looks, TEACHER)
    jobs.stop(run)
    assert jobs.job(run).state == "stopped"


def test_equal_sets_of_a_class_are_one(looks: dict[str, str]) -> None:
    opened_class(looks, (ANNA, "Anna"), (BEN, "Ben"))
    recipes = [replace(RECIPE, seed=seed) for seed in range(3)]
    come(looks, ANNA)
    batch = jobs.start_set(recipes)
    come(looks, BEN)
    assert jobs.start_set(recipes) == batch and jobs.start_set(recipes[:2]) != batch
    jobs.store().stop(jobs.runs_of_set(batch)[0].id)
    assert jobs.start_set(recipes) != batch, "one of it will not finish"


# ---------------------------------------------------------------- the board


def test_the_board_shows_what_was_measured_of_who_asked_to_be_on_it(
    looks: dict[str, str],
) -> None:
    room = opened_class(looks, (ANNA, "Anna"), (BEN, "Ben"))
    shipped = jobs.job(finished())
    end = jobs.result(shipped)
    assert end is not None
    rooms.open_board(room.id, Rule(BEST, 0.5, "digits-cnn"))
    for token in (ANNA, BEN):
        come(looks, token)
        assert jobs.start(jobs.recipe_of(shipped)) == shipped.id, "it is there already"
    page = on_class()
    assert "Nobody has asked to be on it" in shown(page)
    page.toggle(key=state.CLASS_LISTED).set_value(True).run()
    (table,) = [frame.value for frame in page.dataframe if "place" in frame.value]
    (row,) = table.to_dict("records")
    assert (row["place"], row["name"], row["tries"]) == ("1", "Ben (you)", 1)
    measured = end.deliverable.accuracy
    assert measured is not None and f"{100 * measured.value:.1f}" in row["test accuracy"]
    page.toggle(key=state.CLASS_LISTED).set_value(False).run()
    assert "Nobody has asked to be on it" in shown(page)


def finished() -> str:
    """A run of the shipped example's results, by the recipe that this version makes of it."""
    store = Store()
    example.ensure(store)
    (shipped,) = store.jobs("run")
    id = store.submit("run", jobs.recipe_of(shipped).to_dict())
    job = store.claim(queues=("run",))
    assert job is not None and job.id == id
    shutil.copytree(shipped.folder, job.folder)
    store.finish(job, "finished", event=store.last(shipped.id, Finished))
    return id


def member(name: str) -> Member:
    return Member(name, name, None, None, True, 0, 0, 0)


def attempt(correct: int, sparsity: float = 0.9, bytes: int = 1000) -> Try:
    return Try(f"{correct}-{sparsity}-{bytes}", Accuracy(correct, 360), sparsity, bytes)


def test_a_place_is_of_the_best_try_that_keeps_the_rule_and_equal_ones_share_it() -> None:
    rule = Rule(BEST, 0.9, "digits-cnn")
    judged = [
        (member("Zoe"), [attempt(350)]),
        (member("Anna"), [attempt(340), attempt(350), attempt(359, sparsity=0.89)]),
        (member("Ben"), [attempt(351, sparsity=0.8996)]),  # 90.0 %, as it is shown
        (member("Carl"), [attempt(360, sparsity=0.5)]),
        (member("Dora"), []),
        (member("Eve"), [attempt(100)]),
    ]
    places = ranked(rule, judged, "Anna")
    assert [(place.number, place.name, place.tries) for place in places] == [
        (1, "Ben", 1),
        (2, "Anna", 3),
        (2, "Zoe", 1),
        (4, "Eve", 1),
        (None, "Carl", 1),
        (None, "Dora", 0),
    ]
    assert [place.name for place in places if place.mine] == ["Anna"]
    best = places[1].best
    assert best is not None and best.accuracy.correct == 350


def test_fewest_bytes_count_from_an_accuracy_on() -> None:
    rule = Rule(SMALLEST, 0.95, "digits-cnn")
    judged = [
        (member("Anna"), [attempt(342, bytes=900), attempt(341, bytes=100)]),
        (member("Ben"), [attempt(360, bytes=901)]),
        (member("Carl"), [attempt(341, bytes=1)]),
    ]
    places = ranked(rule, judged, None)
    assert [(one.number, one.name) for one in places] == [(1, "Anna"), (2, "Ben"), (None, "Carl")]
    assert "95 % of the test examples right" in board.sentence(rule)


def test_runs_of_another_model_unfinished_or_deleted_do_not_count(looks: dict[str, str]) -> None:
    opened_class(looks, (ANNA, "Anna"))
    example.ensure(jobs.store())
    (shipped,) = jobs.finished()
    waiting = Store().submit("run", shipped.spec)
    every = [shipped.id, waiting, "deleted"]
    assert [one.run for one in board.tries(Rule(BEST, 0.1, "digits-cnn"), every)] == [shipped.id]
    assert board.tries(Rule(BEST, 0.1, "digits-mlp"), every) == []
