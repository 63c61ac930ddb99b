"""Parts of a page that are drawn anew alone, where a change concerns nothing else on it.

A change of the recipe draws the whole page anew, which is simple and always right. The slider's
share is changed so often that what follows it is drawn alone: each of these parts is a fragment of
that key. Whatever else on a page depends on the share reads the recipe when it is used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import streamlit as st
from streamlit.errors import StreamlitAPIException

from dashboard import state

SENTENCE = "recipe-sentence"
HISTORY = "recipe-history"
SHARE = "recipe-share"
AT_ONCE = "recipe-at-once"
KEPT = "recipe-kept"
KEPT_TABLE = "recipe-kept-table"
OFFER = "class-offer-notice"

FOLLOW_SHARE = (SENTENCE, SHARE, AT_ONCE, KEPT)
"""Parts that show the share, or what it keeps. A new one that does is added here."""

FOLDED = (KEPT_TABLE,)
"""Popovers that show it too: drawn only while they are open."""


def content(key: str) -> str:
    """The part that is the content of a popover."""
    return f"{key}-content"


def part(key: str, draw: Callable[..., Any], *args: Any) -> None:
    """Draw a part here, now and whenever it is named to `draw_anew`."""
    st.fragment(draw, key=key)(*args)


def share_changed() -> None:
    """Call it last in the callback of what changed the share alone: it does not return.

    Draws anew what follows the share; the whole page where more than that changed.
    """
    shown, now = state.shown(), state.standing()
    if shown is None or state.has_warnings() or shown.adjustment != now.adjustment:
        st.rerun()
    keys = [*FOLLOW_SHARE, *(content(key) for key in FOLDED if state.is_open(key))]
    if shown.history != now.history:
        keys.append(HISTORY)
    state.note_shown()
    draw_anew(*keys)


def draw_anew(*keys: str) -> None:
    """From a callback: draw only these parts anew. The whole page where one was never drawn."""
    try:
        st.rerun(keys)
    except StreamlitAPIException:
        st.rerun()
