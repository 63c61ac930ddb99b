"""Class: the room of a workshop. Its teacher sees who is where and asks for things; others join."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from dashboard import (
    access,
    board,
    jobs,
    learning,
    lesson,
    locks,
    models,
    qr,
    rooms,
    state,
    visitors,
    words,
)
from dashboard.board import Place
from dashboard.charts import lesson as charts
from dashboard.components.wait import wait
from dashboard.figures import FIGURES
from dashboard.lesson import Lesson, Predict
from dashboard.rooms import BEST, Room, Rule
from dashboard.views import _frame
from pruning.errors import PruningError

QR_WIDTH = 260  # pixels
ROWS = 16  # of the table of people, before it scrolls
ROW = 35  # pixels
PRIVATE = (
    "Enter a name that is not your own if you like: who teaches sees it beside the lesson you are "
    "at, others see it only on the leader board, and when the class ends it is deleted with all "
    "answers."
)
THIS_MACHINE = (
    "This server answers this machine alone. For a class, start it with `python3 run.py --class`: "
    "that prints an address that the others reach, a passphrase and the code."
)
END = "Everybody's names, answers and places on the board are deleted at once, and for good."
RESET = "Everybody returns to the first recipe; answers, locks and the board are deleted."


def page() -> None:
    me = visitors.me()
    teaches = rooms.room_of_teacher(me)
    room = state.room()
    if teaches is not None:
        _frame.question("Where is everybody, and what do they expect?")
        teacher(teaches)
    elif room is not None:
        _frame.question("What does the class do now?")
        member(room)
    else:
        _frame.question("Is there a class to join?")
        join()
        if visitors.is_owner() and rooms.current() is None:
            begin()


def follow(news: Mapping[str, str]) -> None:
    """Draw the page anew when there is news of the room.

    All of it and not a part: the teacher's own press is news as well, so that a part would be
    drawn in the middle of a page that is being drawn.
    """
    wait(news, _nothing, key="news-class")


def _nothing() -> None:
    """Nothing is changed: what was waited for shows when the page is drawn."""


# ---------------------------------------------------------------- joining


def join() -> None:
    """The form, whether or not a class is in progress: its code alone says so."""
    with st.form("class-join", border=True):
        left, right = st.columns(2, gap="medium")
        code = left.text_input(
            "Code", state.class_code(), max_chars=20, key="class-code", autocomplete="off"
        )
        name = right.text_input(
            "Name", max_chars=rooms.LONGEST_NAME, key="class-name", autocomplete="off"
        )
        pressed = st.form_submit_button("Join", type="primary", key="class-enter")
        st.caption(PRIVATE)
    if not pressed:
        return
    try:
        rooms.join(code, name, visitors.me(), visitors.address())
    except PruningError as error:
        st.error(words.plain(str(error)), icon=":material/error:")
        return
    st.rerun()  # with what the teacher asked for, on the whole page


def begin() -> None:
    """For the owner of the server."""
    st.header("Teach one", anchor=False)
    if not visitors.shared():
        st.caption(THIS_MACHINE)
    st.button(
        "Open a class",
        on_click=_open,
        icon=":material/school:",
        key="class-open",
        help="Makes a code by which others join. One class at a time on a server.",
    )


def _open() -> None:
    _try(partial(rooms.open_room, visitors.me()))


def _try(change: Callable[[], Any]) -> None:
    """For buttons: why something could not be done is a warning."""
    try:
        change()
    except PruningError as error:
        state.warn(str(error))


# ---------------------------------------------------------------- members


def member(room: Room) -> None:
    me = rooms.me(visitors.me())
    if me is None:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.markdown(f"You are **{words.plain(me.name)}** in this class.", width="stretch")
        st.button(
            "Leave",
            on_click=_leave,
            key="class-leave",
            type="tertiary",
            help="Deletes your name, answers and place on the board at once.",
        )
    if room.recipe is None and room.rule is None:
        st.caption(
            "Nothing was handed out yet. Every page is yours; what who teaches asks for shows on "
            "the page that you are on."
        )
    if room.rule is not None:
        st.toggle(
            "Show me on the leader board",
            value=me.listed,
            on_change=_be_listed,
            key=state.CLASS_LISTED,
            help="Your name and your best run of the class, for all in it to see.",
        )
        leader_board(room)
        follow(_board_news(room))


def _leave() -> None:
    _try(partial(rooms.leave, visitors.me()))


def _be_listed() -> None:
    listed = bool(state.widget_value(state.CLASS_LISTED))
    _try(partial(rooms.be_listed, visitors.me(), listed))


# ---------------------------------------------------------------- the leader board


def _board_news(room: Room) -> Mapping[str, str]:
    """Of the room as it was when the page began: what came meanwhile is news at once."""
    if room.rule is None:
        return {}
    return {**jobs.states(board.live(room)), **rooms.board_news(room)}


def leader_board(room: Room) -> None:
    if room.rule is None:
        return
    st.header("Leader board", anchor=False)
    st.markdown(words.plain(board.sentence(room.rule)))
    places = board.places(room, visitors.me())
    if not places:
        st.caption("Nobody has asked to be on it yet.")
        return
    st.dataframe(
        board_table(places),
        hide_index=True,
        key="class-board-table",
        alt=f"Leader board: {board.sentence(room.rule)}",
    )
    worth = board.caution(places)
    if worth:
        st.caption(words.plain(worth))


def board_table(places: Sequence[Place]) -> pd.DataFrame:
    rows = [
        {
            "place": "" if place.number is None else str(place.number),
            "name": f"{place.name} (you)" if place.mine else place.name,
            "test accuracy": words.percent(place.best.accuracy) if place.best else "no run counts",
            "pruned": words.percent(place.best.sparsity) if place.best else "",
            "bytes": words.size(place.best.bytes) if place.best else "",
            "tries": place.tries,
        }
        for place in places
    ]
    return pd.DataFrame(rows)


# ---------------------------------------------------------------- the teacher


def teacher(room: Room) -> None:
    way_in(room)
    people(room)
    left, right = st.columns(2, gap="large")
    with left, _frame.guarded():
        start(room)
        hand_out(room)
        controls(room)
    with right, _frame.guarded():
        rule(room)
        dismissing(room)
        over(room)
    follow({**_board_news(room), **rooms.reports(room)})


def address(code: str) -> str:
    """The link by which others join: the page asks them for the passphrase first."""
    origin = os.environ.get(rooms.ADDRESS) or (st.context.url or "").split("?")[0]
    return f"{origin.rstrip('/')}/?{state.CODE}={code}"


def way_in(room: Room) -> None:
    """What people in the room read from the projector."""
    text, picture = st.columns([3, 1], gap="large", vertical_alignment="center")
    link = address(room.code)
    passphrase = os.environ.get(access.PASSPHRASE, "")
    lines = {"Open": link.partition("/?")[0], "Passphrase": passphrase, "Code": room.code}
    with text, st.container(gap="xsmall"):
        for name, value in lines.items():
            if value:
                st.metric(name, words.plain(value))
    with picture:
        st.image(qr.svg(link), width=QR_WIDTH, alt=f"QR code of {link}")
        st.caption("Opens with the code filled in.")


def people(room: Room) -> None:
    """Who is at which step; and what they expect of it."""
    members = rooms.members(room.id)
    left, right = st.columns(2, gap="large")
    with left:
        st.header(words.plural(len(members), "person").replace("persons", "people"), anchor=False)
        if not members:
            st.caption("Nobody has joined yet.")
        else:
            rows = [
                {
                    "name": one.name,
                    "lesson": lesson_title(one.lesson) if one.lesson else "",
                    "step": str(one.step or ""),
                }
                for one in members
            ]
            st.dataframe(
                pd.DataFrame(rows),
                hide_index=True,
                height=ROW * (min(len(rows), ROWS) + 1) + 3,
                key="class-table",
                alt="Who is in the class, and at which step.",
            )
    with right:
        answers(room)


def dismissing(room: Room) -> None:
    names = {one.visitor: one.name for one in rooms.members(room.id)}
    with st.popover("Take somebody out", key="class-dismiss-open"):
        who = st.selectbox("Who", list(names), format_func=names.__getitem__, key="class-who")
        st.button(
            "Take out",
            on_click=_dismiss,
            args=(who,),
            disabled=who is None,
            key="class-dismiss-one",
            help="Deletes their name and answers. They may join again under another name.",
        )


def _dismiss(visitor: str) -> None:
    room = rooms.room_of_teacher(visitors.me())
    if room is not None:
        _try(partial(rooms.dismiss, room.id, visitor))


def answers(room: Room) -> None:
    st.header("What they predict", anchor=False)
    steps = rooms.predicted_steps(room.id)
    if not steps:
        st.caption("Nobody has predicted anything yet: a lesson's steps ask before the run.")
        return
    name, number = st.selectbox(
        "Step",
        steps[::-1],  # the one that was answered last
        format_func=lambda pair: f"{lesson_title(pair[0])}, step {pair[1]}",
        key=f"class-step-{len(steps)}",
        label_visibility="collapsed",
    )
    shown = lesson.find(name)
    asked = shown.steps[number - 1].predict if number <= len(shown.steps) else None
    if asked is not None:
        histogram(shown, number, asked)


def histogram(shown: Lesson, number: int, asked: Predict) -> None:
    """What was measured stands in it only when the teacher says so: this may be on a projector."""
    values = rooms.predictions(visitors.me(), shown.name, number)
    measured = learning.means(learning.results(shown))
    st.caption(words.plain(lesson.fill(asked.question, measured)))
    reveal = st.toggle("Show what was measured", key=f"class-reveal-{shown.name}-{number}")
    value = lesson.value_of(asked.figure, measured) if reveal else None
    figure = asked.figure.partition(".")[2]
    share = FIGURES[figure].share
    chart = charts.predictions(values, value, None, share=share, dark=state.dark())
    takeaway = charts.title(values, value, share)
    _frame.chart(chart, alt=f"{takeaway}.", name="class-predictions")


def lesson_title(name: str) -> str:
    try:
        return lesson.find(name).title
    except PruningError:  # its file was renamed or broken since
        return name


# ---------------------------------------------------------------- what the teacher asks for


def start(room: Room) -> None:
    """A lesson for all, at a step: everybody goes there, wherever they are."""
    st.header("Start a lesson", anchor=False)
    names = lesson.names()
    if not names:
        st.caption("There is no lesson here.")
        return
    left, right = st.columns([4, 1], gap="small")
    name = left.selectbox("Lesson", names, format_func=lesson_title, key=state.CLASS_LESSON)
    most = len(lesson.find(name).steps)
    right.number_input("Step", 1, most, 1, key=f"{state.CLASS_STEP}-{name}")
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button("Start for all", on_click=_start, args=(room,), key="class-start")
        if room.lesson is not None:
            st.button(
                "Leave it, all",
                on_click=_end_lesson,
                args=(room,),
                key="class-start-none",
                type="tertiary",
            )
            title = words.plain(lesson_title(room.lesson))
            st.caption(f"Started for all: {title}, step {room.step}.")


def _start(room: Room) -> None:
    """What the controls hold now, which may be newer than the button."""
    name = state.widget_value(state.CLASS_LESSON)
    step = state.widget_value(f"{state.CLASS_STEP}-{name}", 1)
    _try(partial(rooms.start_lesson, room.id, name, int(step)))


def _end_lesson(room: Room) -> None:
    _try(partial(rooms.start_lesson, room.id, None))


def hand_out(room: Room) -> None:
    st.header("Hand out a recipe", anchor=False)
    st.markdown(words.plain(words.sentence(state.recipe())))
    with st.container(horizontal=True, gap="small"):
        st.button(
            "Offer it to all",
            on_click=_push,
            args=(room, False),
            key="class-offer",
            help="A line on top of everybody's page, with one click to take it.",
        )
        st.button(
            "Set it for all",
            on_click=_push,
            args=(room, True),
            key="class-set",
            help="Everybody has it at once; Undo takes it back.",
        )
    if room.recipe is not None:
        how = "set" if room.directly else "offered"
        st.caption(f"{words.plural(room.pushes, 'recipe')} handed out; the last was {how}.")


def _push(room: Room, directly: bool) -> None:
    _try(partial(rooms.push, room.id, state.recipe().to_dict(), directly))


def controls(room: Room) -> None:
    st.header("Lock or hide controls", anchor=False)
    for key, label, kept in (
        (state.CLASS_LOCKED, "Locked", room.locks),
        (state.CLASS_HIDDEN, "Hidden", room.hidden),
    ):
        st.multiselect(
            label,
            list(locks.CONTROLS),
            default=sorted(kept & set(locks.CONTROLS)),
            format_func=words.control,
            on_change=_restrict,
            args=(room,),
            placeholder="none",
            key=_key(key, room),
        )


def _key(key: str, room: Room) -> str:
    """Another one once they were reset: a widget keeps what was picked in it."""
    return f"{key}-{room.id}-{room.resets}"


def _restrict(room: Room) -> None:
    locked, hidden = (
        state.widget_value(_key(key, room), []) for key in (state.CLASS_LOCKED, state.CLASS_HIDDEN)
    )
    _try(partial(rooms.restrict, room.id, locked, hidden))


def rule(room: Room) -> None:
    """One rule, which stays until the board is closed."""
    if room.rule is not None:
        leader_board(room)
        st.button("Close the board", on_click=_close_board, args=(room,), key="class-board-close")
        return
    st.header("Leader board", anchor=False)
    kind = st.segmented_control(
        "Rule",
        list(board.KINDS),
        default=BEST,
        required=True,
        format_func=board.KINDS.__getitem__,
        key=state.CLASS_RULE,
    )
    of = "of the weights pruned" if kind == BEST else "of the test examples right"
    least = st.number_input(
        f"At least, % {of}", 0.0, 100.0, 90.0, 1.0, format="%.1f", key=f"{state.CLASS_LEAST}-{kind}"
    )
    wanted = Rule(str(kind), least / 100, state.recipe().model)
    st.caption(words.plain(board.sentence(wanted)))
    st.button(
        "Open the board",
        on_click=_open_board,
        args=(room,),
        key="class-board-open",
        help="Who wants to stand on it says so. What runs measured counts, nothing that is typed.",
    )
    if models.facts(wanted.model) is None:
        st.caption("The model is still loading.")


def _open_board(room: Room) -> None:
    kind = state.widget_value(state.CLASS_RULE, BEST)
    least = state.widget_value(f"{state.CLASS_LEAST}-{kind}", 90.0)
    wanted = Rule(str(kind), float(least) / 100, state.recipe().model)
    _try(partial(rooms.open_board, room.id, wanted))


def _close_board(room: Room) -> None:
    _try(partial(rooms.close_board, room.id))


def over(room: Room) -> None:
    st.header("Begin anew, or end", anchor=False)
    with st.container(horizontal=True, gap="small"):
        # A popover stays open while reports of learners draw the page anew; a dialog would close.
        with st.popover("Reset", key="class-reset-open"):
            st.markdown(RESET)
            st.button("Reset the class", on_click=_reset, args=(room,), key="class-reset")
        with st.popover("End", key="class-end-open"):
            st.markdown(END)
            st.button("End the class", on_click=_end, args=(room,), key="class-end")


def _reset(room: Room) -> None:
    _try(partial(rooms.reset, room.id))


def _end(room: Room) -> None:
    _try(partial(rooms.end, room.id))


page()
