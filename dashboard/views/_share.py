"""The dialog "Share": a link with locks and its QR code, the handout, projector and layout."""

from __future__ import annotations

import platform
from collections.abc import Callable
from importlib.metadata import version
from urllib.parse import urlsplit

import segno
import streamlit as st

from dashboard import handout, locks, qr, state, words
from dashboard.handout import Handout

LOCKABLE = ("model", "criterion", "granularity", "scope", "sparsity", "schedule", "epochs", "run")
"""What the dialog offers to lock: any other control's name can be added to the address."""

HERE_ALONE = ("localhost", "127.0.0.1", "::1", "")
WIDEST_QR = 220  # pixels


def when_asked() -> None:
    """Open the dialog in the run of the script after somebody asked for it."""
    made = state.take_handout()
    if state.take_share() or made is not None:
        dialog(made)


def finish_handout() -> None:
    """Write what was noted while the page was drawn, if it was, and show the page as it was."""
    if not state.recording():
        return
    machine = f"torch {version('torch')}, {platform.processor() or platform.machine()}"
    recipe = state.recipe()
    sentence = f"{words.sentence(recipe)} Seed {recipe.seed}."
    title = state.question() or state.page_title()
    state.end_handout(handout.made(title, sentence, machine, waits=bool(state.expected())))
    st.rerun()


@st.dialog("Share", width="medium")
def dialog(made: Handout | None) -> None:
    left, right = st.columns([3, 2], gap="medium")
    with left:
        chosen = _choices()
    link = state.link(leave_out=("lock", "view", "chart", "layout"), **chosen)
    with right:
        _code(link)
    st.markdown("**Link**: opens exactly what the page shows now")
    st.code(link, language=None, wrap_lines=True)
    if (urlsplit(link).hostname or "") in HERE_ALONE:
        st.caption(
            "It opens on this machine alone: others reach the page once it is started with "
            "--host or --class."
        )
    st.markdown("**Handout**: what the page shows now as one HTML file, which opens offline")
    _handout(made)
    st.markdown("**View**")
    _views()


def _choices() -> dict[str, str]:
    """What the link adds: keys of the address -> values."""
    st.markdown("**Locked for whoever opens it**")
    locked = state.address_locks().locked
    names = []
    with st.grid(2, min_column_width=120, gap="small") as places:
        for name in LOCKABLE:
            with places.cell():
                names += [name] * _lock(name, name in locked)
    # Locks of other controls came with the address that this page was opened by.
    names += sorted(locked - set(LOCKABLE))
    chosen = {"lock": ",".join(sorted(names))} if names else {}
    with st.container(horizontal=True, gap="medium"):
        if st.checkbox("In the simple layout", state.simple(), key="share-simple"):
            chosen["layout"] = state.SIMPLE
        elif state.simple():
            chosen["layout"] = state.FULL
        if st.checkbox("As the projector shows it", state.projector(), key="share-projector"):
            chosen["view"] = state.PROJECTOR
    return chosen


def _lock(name: str, locked: bool) -> bool:
    label = "Run" if name == locks.RUN else words.capitalized(words.control(name))
    return st.checkbox(label, locked, key=f"share-lock-{name}")


def _code(link: str) -> None:
    try:
        picture = qr.svg(link)
    except segno.DataOverflowError:
        st.caption("The link is too long for a QR code: many ratios by layer, or many runs.")
        return
    st.image(picture, width=WIDEST_QR, alt="QR code of the link")


def _handout(made: Handout | None) -> None:
    """Made when somebody asks: the page is drawn once more for it."""
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        if made is None:
            text = ""
            _button("Make a handout", ":material/description:", state.ask_handout, "share-handout")
        else:
            st.download_button(
                "Download the handout",
                made.html,  # written when it is asked for, and kept for no session
                made.file,
                "text/html",
                icon=":material/download:",
                on_click="ignore",
                key="share-download",
            )
            text = f"{made.title}: {words.plural(made.charts, 'picture')}."
        if text:
            st.caption(words.plain(text), width="stretch")


def _views() -> None:
    to = "Full layout" if state.simple() else "Simple layout"
    with st.container(horizontal=True, gap="small"):
        _button("Projector view", ":material/present_to_all:", _project, "share-project")
        _button(to, ":material/view_agenda:", _other_layout, "share-layout")


def _project() -> None:
    state.set_projector(True)


def _other_layout() -> None:
    state.set_layout(not state.simple())


def _button(label: str, icon: str, action: Callable[[], None], key: str) -> None:
    """A button that draws the whole page anew: by itself it would draw the dialog alone."""
    if st.button(label, icon=icon, on_click=action, key=key):
        st.rerun()
