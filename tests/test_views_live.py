"""A run that works, as thirty tabs look at it: read once, told in turn, and sent in small."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest
from pages import awaited, opened
from streamlit.proto.NewSession_pb2 import CustomThemeConfig
from streamlit.runtime import app_session

from dashboard import jobs, middleware, server
from dashboard.charts import prune
from dashboard.components import wait
from pruning import events
from pruning.events import Epoch, Halted, Point, Started
from pruning.recipe import Recipe
from pruning.runs.store import Job, Store
from tests.test_views_waits import answered

RECIPE = Recipe(model="digits-mlp", sparsity=0.5, epochs=9)


def epoch(number: int) -> Epoch:
    return Epoch(0, number, 9, 0.1, 0.2, None, 0.5, 0.02, 1.0)


def working(store: Store, kind: str = "run") -> Job:
    spec = RECIPE.to_dict() if kind == "run" else {"what": "card", "model": "tiny"}
    store.submit(kind, spec)
    job = store.claim(queues=(kind,))
    assert job is not None
    return job


# ---------------------------------------------------------------- read once


def test_each_event_is_parsed_once_however_often_it_is_looked_at(home: Path, monkeypatch) -> None:
    parsed: list[str] = []
    real = events.from_json
    monkeypatch.setattr(events, "from_json", lambda text: parsed.append(text) or real(text))
    store = Store()
    job = working(store)
    written: list[events.Event] = [Started(RECIPE.to_dict(), {}, 9)]
    store.append(job, written[0])
    for number in range(1, 8):
        written.append(epoch(number))
        store.append(job, written[-1])
        for _ in range(5):  # five tabs
            shown = jobs.history(job)
    assert len(parsed) == len(written)
    assert shown == prune.history(written)


def test_what_a_tab_draws_from_does_not_grow_under_it(home: Path) -> None:
    store = Store()
    job = working(store)
    store.append(job, epoch(1))
    before = jobs.history(job)
    store.append(job, epoch(2))
    assert (before.done, jobs.history(job).done) == (1, 2)
    store.append(job, Point("a", 0.5, 10, 5, "estimate", None, 1.0, 1.0))
    points = jobs.points(job)
    store.append(job, Point("a", 0.5, 10, 5, "exact", None, 1.1, 1.0))
    assert [point.tier for point in (*points, *jobs.points(job))] == ["estimate", "exact"]


def test_a_second_attempt_is_read_from_its_own_first_event(home: Path) -> None:
    store = Store()
    first = working(store, "study")
    for number in range(1, 4):
        store.append(first, epoch(number))
    assert jobs.history(first).done == 3
    store.release(first)
    second = store.claim(queues=("study",))
    assert second is not None and second.attempt == 2
    store.append(second, epoch(1))
    assert (jobs.history(second).done, jobs.history(first).done) == (1, 3)


# ---------------------------------------------------------------- told in turn


def test_news_tell_states_from_progress(home: Path) -> None:
    store = Store()
    job = working(store)
    asked = [job.id, jobs.WORK]
    names = [f"{jobs.FOLLOWED}{job.id}", jobs.WORK]

    def look() -> list[tuple[str, str]]:
        news = jobs.news(asked)
        assert list(news) == names
        # They survive the address that carries them.
        question = parse_qs(wait.question(news).partition("?")[2])[wait.JOBS][0]
        assert wait.asked(question) == news == jobs.states(news)
        return [(state, reached) for state, _, reached in map(_parts, news.values())]

    first = look()
    store.append(job, epoch(1))
    second = look()
    assert all(a[0] == b[0] and a[1] != b[1] for a, b in zip(first, second, strict=True))
    store.stop(job.id)
    third = look()
    assert all(a[0] != b[0] for a, b in zip(second, third, strict=True))
    store.finish(job, "stopped", "Stopped.", Halted(0, 1))
    assert all(a[0] != b[0] for a, b in zip(third, look(), strict=True))
    assert jobs.news(["nowhere"]) == {f"{jobs.FOLLOWED}nowhere": "deleted"}


def _parts(value: str) -> tuple[str, str, str]:
    return value.partition(".")


def test_another_state_is_told_at_once_and_progress_in_turn(monkeypatch) -> None:
    monkeypatch.setattr(middleware, "LONGEST_PAUSE", 0.0)
    monkeypatch.setattr(middleware, "SHARED", 0.0)
    monkeypatch.setattr(middleware, "APART", 60.0)
    looks = iter([{"a": "s.2"}] * 5 + [{"a": "t.2"}, {"a": "never asked"}])
    assert answered({"a": "s.1"}, lambda _: next(looks)) == 200
    assert next(looks) == {"a": "never asked"}
    monkeypatch.setattr(middleware, "APART", 0.0)
    monkeypatch.setattr(middleware, "DRAWINGS", 1e9)
    looks = iter([{"a": "s.1"}, {"a": "s.2"}, {"a": "never asked"}])
    assert answered({"a": "s.1"}, lambda _: next(looks)) == 200
    assert next(looks) == {"a": "never asked"}


def before_no_app(
    states: Callable[[Iterable[str]], dict[str, str]],
) -> middleware.ChangedMiddleware:
    """What answers questions alone: nothing is passed on."""

    async def nothing(*_: object) -> None:
        return None

    return middleware.ChangedMiddleware(nothing, states)


def wait_together(changed: middleware.ChangedMiddleware, known: dict[str, str], count: int) -> None:
    """So many tabs ask this question at once, until they are answered."""

    async def all_tabs() -> None:
        receive = asyncio.Event().wait
        await asyncio.gather(*(changed._changed(dict(known), receive) for _ in range(count)))

    awaited(all_tabs())


def test_many_tabs_share_a_look_and_wait_for_their_turn(monkeypatch) -> None:
    monkeypatch.setattr(middleware, "PATIENCE", 0.3)
    asked: list[list[str]] = []

    def states(ids: Iterable[str]) -> dict[str, str]:
        asked.append(list(ids))
        return dict.fromkeys(asked[-1], "s.1")

    changed = before_no_app(states)
    wait_together(changed, {"a": "s.1", "b": "s.1"}, 30)
    assert 1 <= len(asked) <= 3 and all(ids == ["a", "b"] for ids in asked)
    changed = before_no_app(states)
    apart = []
    for changed.followers in (1, 12, 30, 300):
        apart.append(changed._apart())
    assert apart == [
        middleware.APART,
        12 / middleware.DRAWINGS,
        30 / middleware.DRAWINGS,
        middleware.FARTHEST,
    ]


def test_a_class_is_told_one_after_the_other(monkeypatch) -> None:
    """All of a class that draw at once would keep each other, and whoever presses, waiting."""
    looks: list[list[str]] = []

    def states(ids: Iterable[str]) -> dict[str, str]:
        looks.append(list(ids))
        return dict.fromkeys(looks[-1], "2")

    changed = before_no_app(states)
    turns = [changed._turn(["orders"], 100.0) for _ in range(middleware.CLASS)]
    apart = middleware.SPREAD / middleware.CLASS
    assert turns == pytest.approx([100.0 + i * apart for i in range(middleware.CLASS)])
    assert changed._turn(["a run of one's own"], 100.0) == 100.0
    assert changed._turn(["orders"], 200.0) == 200.0

    monkeypatch.setattr(middleware, "SPREAD", 0.1)
    wait_together(changed, {"orders": "1"}, 20)
    assert looks == [["orders"]] and not changed.questions and not changed.followers


def test_a_store_that_fails_is_told_to_each_page(monkeypatch) -> None:
    monkeypatch.setattr(middleware, "PATIENCE", 5.0)

    def states(ids: Iterable[str]) -> dict[str, str]:
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        answered({"a": "running"}, states)


def test_a_page_asks_for_news_of_runs_and_ticks_no_more(home: Path) -> None:
    store = Store()
    job = working(store)
    store.append(job, Started(RECIPE.to_dict(), {}, 9))
    page = opened("prune", run=job.id)
    components = [element.proto for element in page.get("bidi_component")]
    data = [json.loads(component.json or "null") or {} for component in components]
    questions = [one.get("question") for one in data if isinstance(one, dict)]
    followed = [
        wait.asked(parse_qs(one.partition("?")[2])[wait.JOBS][0]) for one in questions if one
    ]
    names = {name for known in followed for name in known}
    assert {f"{jobs.FOLLOWED}{job.id}", jobs.WORK} <= names


# ---------------------------------------------------------------- sent in small


def test_the_theme_is_looked_up_once(monkeypatch) -> None:
    """And is what Streamlit makes of it each time: nothing where nothing is set."""
    own = getattr(app_session, server.WRITE_THEME)
    write = getattr(own, "__wrapped__", own)
    monkeypatch.setattr(app_session, server.WRITE_THEME, write)
    server.write_theme_once.__wrapped__()
    asked: list[str] = []

    def options(section: str) -> dict[str, object]:
        asked.append(section)
        colour = "#00639C" if section == "theme" else None
        return {"primaryColor": colour, "base": None}

    monkeypatch.setattr(app_session.config, "get_options_for_section", options)
    sections = ("theme", "theme.dark") * 3
    made = []
    for section in sections:
        message = CustomThemeConfig()
        getattr(app_session, server.WRITE_THEME)(message, section)
        made.append(message)
    assert asked == ["theme", "theme.dark"]
    for message, section in zip(made, sections, strict=True):
        expected = CustomThemeConfig()
        write(expected, section)
        assert message == expected
    assert made[0].primary_color == "#00639C" and not made[1].ByteSize()


@pytest.mark.parametrize("count", [0, 1, 2, prune.MOST_POINTS, prune.MOST_POINTS + 1, 5000])
def test_a_curve_of_many_epochs_is_drawn_through_some(count: int) -> None:
    trained: list[Any] = [(number, epoch(number)) for number in range(1, count + 1)]
    shown = prune._points_shown(trained)
    assert len(shown) <= prune.MOST_POINTS + 1
    assert shown[:1] == trained[:1] and shown[-1:] == trained[-1:]
    if count <= prune.MOST_POINTS:
        assert shown == trained
    # As the run goes on, points are added at its end, and others are left out: none comes between.
    longer = prune._points_shown([*trained, (count + 1, epoch(count + 1))])
    assert set(longer[:-1]) <= set(shown)
