"""Lessons: each asks one question of pruning, and answers it with runs on the live pages."""

from __future__ import annotations

import streamlit as st

from dashboard import lesson, state, words
from dashboard.lesson import Lesson
from dashboard.views import _frame, _lesson_panel
from pruning.errors import PruningError


def page() -> None:
    _frame.question("What would you like to find out?")
    st.markdown(
        "Each lesson takes some minutes beside the live pages: you predict, you try, you see what "
        "was measured. Nothing has to be trained: every result comes with the lesson, and *Run it "
        "yourself* does it again here."
    )
    now = state.place()
    if now is not None:
        here(now)
    with st.grid(min_column_width=300, border=True, vertical_alignment="top"):
        for number, name in enumerate(lesson.names(), 1):
            with st.container(), _frame.guarded():
                one(name, number)
    st.caption(
        "A lesson is one text file: the README shows how to write one, under “Write a lesson”."
    )


def here(now: state.Place) -> None:
    """The lesson that this tab is in."""
    try:
        shown = lesson.find(now.lesson)
    except PruningError as error:
        st.error(words.plain(str(error)), icon=":material/error:")
        _lesson_panel.leave_button()
        return
    with st.container(horizontal=True, vertical_alignment="center", border=True):
        at = f"step {now.step} of {len(shown.steps)}"
        st.markdown(f"You are in **{words.plain(shown.title)}**, at {at}.", width="stretch")
        st.button(
            "Continue",
            type="primary",
            icon=":material/play_arrow:",
            on_click=_lesson_panel.again,
            args=(now.lesson, now.step),
            key="lesson-continue",
        )
        _lesson_panel.leave_button()


def one(name: str, number: int) -> None:
    """A lesson: what it asks, how long it takes, and the way in."""
    shown = lesson.find(name)
    st.markdown(f"## {number} · {words.plain(shown.title)}")
    st.markdown(words.plain(shown.question))
    at = state.reached(name)
    st.caption(standing(shown, at))
    with st.container(horizontal=True):
        first = 1 if at in (0, len(shown.steps)) else at
        st.button(
            "Start" if not at else "Again" if first == 1 and at > 1 else "Continue",
            icon=":material/play_arrow:",
            on_click=_lesson_panel.enter,
            args=(name, first),
            key=f"lesson-start-{name}",
        )


def standing(shown: Lesson, at: int) -> str:
    """`6 minutes · 5 steps · you were at step 3`."""
    parts = [words.plural(shown.minutes, "minute"), words.plural(len(shown.steps), "step")]
    if at == len(shown.steps):
        parts.append("you saw it to its end")
    elif at:
        parts.append(f"you were at step {at}")
    return " · ".join(parts)


with _frame.guarded():
    page()
