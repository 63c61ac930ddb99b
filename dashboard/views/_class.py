"""What a class adds to every page: its teacher's orders, and the way into it."""

from __future__ import annotations

from dataclasses import replace

import streamlit as st

from dashboard import parts, rooms, state, visitors, words
from dashboard.components.wait import wait
from dashboard.rooms import Room
from dashboard.state import Followed
from dashboard.views import _frame
from pruning.errors import PruningError
from pruning.recipe import Recipe

ENDED = (
    "The class has ended: its names, answers and board were deleted. Your recipe and your runs "
    "stay yours."
)
DIRECTLY = "Who teaches the class handed this recipe to everybody."
UNUSABLE = "The recipe that was handed out cannot be followed: {error}"


def follow_orders() -> None:
    """Do what was asked for since this tab looked last. Before anything is drawn."""
    room = state.room()
    if room is None:
        return
    before = state.followed_orders()
    if before is None or before.room != room.id:
        me = rooms.me(visitors.me())
        if me is None:
            return
        # A new tab of somebody who has followed in another one.
        before = Followed(room.id, me.pushes, me.starts, me.resets)
        place = state.place()
        if place is not None:  # somebody who joined in the middle of a lesson
            rooms.note_step(visitors.me(), place.lesson, place.step)
    now = before
    if room.resets > before.resets:
        state.start_over()
        now = replace(now, resets=room.resets)
    if room.starts > before.starts:
        _start_lesson(room)
        now = replace(now, starts=room.starts)
    recipe = handed(room)
    if recipe is not None and room.directly and room.pushes > before.pushes:
        state.take_handed(recipe)
        state.note_adjustment(DIRECTLY)
        now = replace(now, pushes=room.pushes)
    if now != before:
        _remember(now)
    else:
        state.note_followed(now)


def _start_lesson(room: Room) -> None:
    """Everybody goes to the step that was started for all; out of the lesson where it was ended."""
    if room.lesson is None:
        state.leave_lesson()
        return
    try:
        state.enter(room.lesson, room.step)
    except PruningError as error:  # its file was edited since
        state.warn(str(error))


def _remember(now: Followed) -> None:
    """In this tab, and for the browser's next one."""
    state.note_followed(now)
    for what in ("pushes", "starts", "resets"):
        rooms.follow_up(visitors.me(), what, getattr(now, what))


def handed(room: Room) -> Recipe | None:
    """The recipe that was handed to all; None without one."""
    if room.recipe is None:
        return None
    try:
        return Recipe.from_dict(room.recipe)
    except PruningError as error:
        state.warn(UNUSABLE.format(error=error))
        return None


def notices() -> None:
    """At the top of the page: that the class ended, a recipe to take, the way into a class."""
    if state.class_has_ended() and state.room() is None:
        st.info(ENDED, icon=":material/school:")
    if state.room() is None:
        _invite()
    else:
        parts.part(parts.OFFER, _offer)


def _offer() -> None:
    """A recipe to take, in a part of its own: thirty pages that are drawn anew for one line would
    keep everybody waiting.
    """
    with _frame.guarded():
        state.look_into_room()
        room, before = state.room(), state.followed_orders()
        if room is None or before is None:  # the class has ended: the page is told of it as well
            return
        # Asked before it is drawn: what comes meanwhile is told at once.
        wait(rooms.offers(room), _nothing, key="class-offers")
        recipe = handed(room)
        if recipe is not None and not room.directly and room.pushes > before.pushes:
            _notice(recipe, replace(before, pushes=room.pushes))


def _nothing() -> None:
    """Nothing is changed: what was handed out shows when the part is drawn."""


def _notice(recipe: Recipe, done: Followed) -> None:
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        sentence = words.plain(words.sentence(recipe))
        st.info(f"Handed to the class: {sentence}", icon=":material/school:", width="stretch")
        st.button(
            "Use this recipe",
            on_click=_take,
            args=(recipe, done),
            key="class-take",
            type="primary",
        )
        st.button("Not now", on_click=_remember, args=(done,), key="class-dismiss", type="tertiary")


def _take(recipe: Recipe, done: Followed) -> None:
    state.take_handed(recipe)
    _remember(done)
    st.rerun()  # the whole page: a press alone draws the notice anew


def _invite() -> None:
    """Where a class is in progress: for those who are in this server and not yet in it."""
    title = state.page_title()
    current = rooms.current()
    if current is None or title == "Class" or rooms.room_of_teacher(visitors.me()) is not None:
        return
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.caption("A class is in progress on this server.", width="content")
        st.page_link(_frame.page_path("classroom"), label="Join it", icon=":material/school:")


def side() -> None:
    """At the side: in which class somebody is, and as whom."""
    me = rooms.me(visitors.me()) if state.room() is not None else None
    if me is None:
        return
    st.divider()
    st.caption("THE CLASS")
    st.markdown(words.plain(me.name))
