"""Two visitors of one server: each has their own runs, and turns; links open the others'."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient
from streamlit.testing.v1 import AppTest

from dashboard import jobs, launch, visitors, words
from pruning.errors import RunError
from pruning.recipe import Recipe
from pruning.runs.store import Store
from pruning.runs.waits import wait_of
from tests.pages import opened, settled

OWNER = "f" * 32
ANNA, BEN = "a" * 32, "b" * 32
RUN = Recipe(model="digits-mlp", sparsity=0.5).to_dict()


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The cookies of whoever looks, on a server that others can reach."""
    cookies: dict[str, str] = {}
    monkeypatch.setenv(visitors.OWNER, OWNER)
    monkeypatch.setattr(visitors, "cookies", lambda: cookies)
    return cookies


def come(looks: dict[str, str], token: str) -> str:
    """Somebody else looks; who they are to the store."""
    looks.clear()
    looks[visitors.COOKIE] = token
    me = visitors.me()
    assert me is not None
    return me


# ---------------------------------------------------------------- turns


def test_people_take_turns_whoever_asked_for_many(home: Path) -> None:
    store = Store()
    many = [store.submit("run", {**RUN, "seed": n}, visitor="anna") for n in range(4)]
    one, two = (store.submit("run", {**RUN, "seed": n}, visitor="ben") for n in (10, 11))
    nobody = store.submit("run", RUN)
    order = [one_of.id for _ in range(7) if (one_of := store.claim())]
    assert order == [many[0], one, nobody, many[1], two, many[2], many[3]]


def test_with_one_worker_the_next_turn_is_of_who_waited_longest(home: Path) -> None:
    store = Store()
    many = [store.submit("run", {**RUN, "seed": n}, visitor="anna") for n in range(3)]
    order = []
    for _ in range(3):
        job = store.claim()
        assert job is not None
        if not order:  # comes when the first is at work
            late = store.submit("run", RUN, visitor="ben")
        order.append(job.id)
        store.finish(job, "stopped")
    assert order == [many[0], late, many[1]]


def test_the_place_that_is_shown_is_the_turn_that_comes(home: Path) -> None:
    store = Store()
    ids = [store.submit("run", {**RUN, "seed": n}, visitor="anna") for n in range(3)]
    ids += [store.submit("run", {**RUN, "seed": n}, visitor="ben") for n in range(2)]
    store.submit("run", RUN, visitor="ben", priority=-1)
    working = store.claim()
    assert working is not None and working.id == ids[0]
    waiting = ids[1:]
    places = {id: wait_of(store, store.job(id), slots=1).place for id in waiting}
    claimed = [job.id for _ in range(4) if (job := store.claim())]
    assert sorted(waiting, key=lambda id: places[id] or 0) == claimed
    assert sorted(places.values()) == [1, 2, 3, 4]


def test_equal_presses_of_two_people_are_two_runs(home: Path) -> None:
    store = Store()
    runs = [store.submit("run", RUN, within=10, visitor=who) for who in ("anna", "anna", "ben")]
    assert runs[0] == runs[1] != runs[2]


# ---------------------------------------------------------------- whose a run is


def test_stop_and_delete_are_for_ones_own_alone(home: Path, looks: dict[str, str]) -> None:
    come(looks, ANNA)
    run = jobs.start(Recipe(model="digits-mlp"))
    come(looks, BEN)
    for refused in (jobs.stop, jobs.delete):
        with pytest.raises(RunError, match="somebody else"):
            jobs._check_own(run)
        refused(run)
        assert jobs.job(run).state == "queued"
    looks[visitors.OWNER_COOKIE] = OWNER
    jobs.stop(run)
    assert jobs.job(run).state == "stopped"
    come(looks, ANNA)
    jobs.delete(run)
    assert not jobs.exists(run)


def test_lists_have_ones_own_and_what_is_shipped(home: Path, looks: dict[str, str]) -> None:
    come(looks, ANNA)
    page = opened()  # records the example
    assert not page.exception
    run = jobs.start(Recipe(model="digits-mlp"))
    assert [job.id for job in jobs.live()] == [run]
    come(looks, BEN)
    assert jobs.live() == [] and len(jobs.finished()) == 1
    assert jobs.runs() == jobs.finished(), "the example"
    looks[visitors.OWNER_COOKIE] = OWNER
    assert [job.id for job in jobs.live()] == [run]
    looks.clear()
    assert jobs.live() == [] and visitors.me() is None, "who keeps no cookies has no runs here"


def test_on_a_server_for_one_machine_everybody_is_its_owner(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(visitors.OWNER, raising=False)
    run = Store().submit("run", RUN, visitor="anybody")
    assert [job.id for job in jobs.live()] == [run]
    jobs.stop(run)
    assert jobs.job(run).state == "stopped"


def stops(page: AppTest) -> list[str]:
    return [button.label for button in page.button if button.label in ("Stop", "Stopping")]


def test_a_link_opens_the_run_of_somebody_else_to_read(home: Path, looks: dict[str, str]) -> None:
    come(looks, ANNA)
    run = jobs.start(Recipe(model="digits-mlp", epochs=1))
    assert stops(settled("prune", run=run)), "her own"
    visitors.set_name("  Anna   Lee ")
    come(looks, BEN)
    page = settled("prune", run=run)
    assert not page.exception and not stops(page)
    text = " ".join(element.value for element in page.markdown)
    assert run[:6] in text and "Anna Lee" in text
    # Who comes without the link is not greeted by it.
    text = " ".join(element.value for element in settled("prune").markdown)
    assert run[:6] not in text and not stops(settled("prune"))


def test_a_name_stands_beside_ones_runs_and_is_text_of_a_stranger(
    home: Path, looks: dict[str, str]
) -> None:
    me = come(looks, ANNA)
    assert visitors.who(me) == "you" and visitors.by_another(me) == ""
    page = opened("runs")
    nasty = "<b>A</b>nna\u202e [x](http://x) " + "y" * 90
    page.text_input(key="your-name").set_value(nasty).run()
    assert not page.exception
    kept = visitors.name_of(me)
    cut = nasty[: visitors.LONGEST_NAME]  # by the field
    assert kept == " ".join(cut.replace("\u202e", " ").split())
    jobs.start(Recipe(model="digits-mlp"))
    come(looks, BEN)
    page = opened("runs")
    assert "who" not in page.dataframe[0].value, "one's own alone"
    looks[visitors.OWNER_COOKIE] = OWNER
    page = opened("runs")
    assert set(page.dataframe[0].value["who"]) == {kept, ""}  # the example is nobody's
    strip = next(text.value for text in page.markdown if " · by " in text.value)
    assert words.plain(f"by {kept}") in strip
    come(looks, ANNA)
    page = opened("runs")
    assert page.text_input(key="your-name").value == kept
    page.text_input(key="your-name").set_value("  ").run()
    assert visitors.name_of(me) == ""
    come(looks, BEN)
    assert visitors.by_another(me) == f"by visitor {me[:4]}"


def test_on_a_server_for_one_machine_nobody_is_asked_for_a_name(home: Path) -> None:
    page = opened("runs")
    assert not [field for field in page.text_input if field.key == "your-name"]


# ---------------------------------------------------------------- cookies


def browser(owner: str = OWNER) -> TestClient:
    start = Route("/", lambda request: PlainTextResponse("the page"))
    other = Route("/other", lambda request: PlainTextResponse("a file"))
    ours = [Middleware(visitors.VisitorMiddleware, owner=owner)]
    return TestClient(Starlette(routes=[start, other], middleware=ours))


def test_each_browser_gets_a_token_once() -> None:
    anna, ben = browser(), browser()
    first = anna.get("/")
    cookie = first.headers["set-cookie"]
    assert "HttpOnly" in cookie and "SameSite=Lax" in cookie and "Secure" not in cookie
    assert visitors.TOKEN.fullmatch(anna.cookies[visitors.COOKIE])
    assert "set-cookie" not in anna.get("/").headers
    ben.get("/")
    assert ben.cookies[visitors.COOKIE] != anna.cookies[visitors.COOKIE]
    assert "set-cookie" not in browser().get("/other").headers
    forged = browser().get("/", headers={"cookie": f"{visitors.COOKIE}=anna"})
    assert re.search(rf"{visitors.COOKIE}=[0-9a-f]{{32}};", forged.headers["set-cookie"])


def test_the_owners_link_makes_an_owner_and_leaves_the_address() -> None:
    client = browser()
    answer = client.get(f"/?owner={OWNER}&run=abc", follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (303, "/?run=abc")
    assert client.cookies[visitors.OWNER_COOKIE] == OWNER
    for owner, token in ((OWNER, "0" * 32), ("", "")):
        other = browser(owner)
        other.get(f"/?owner={token}")
        assert visitors.OWNER_COOKIE not in other.cookies


def test_run_py_and_the_page_mean_the_same_variable() -> None:
    assert launch.OWNER == visitors.OWNER
