"""What runs for each tab: navigation on top, the current model at the side, the page, and running
work at the bottom."""

from __future__ import annotations

import streamlit as st

from dashboard import refit, server, state
from dashboard.components.fold import fold
from dashboard.pages import FIRST
from dashboard.views import _class, _frame, _lesson_panel, _projector, _share

st.set_page_config(
    page_title="Pruning Workbench",
    page_icon=str(_frame.MARKS / "mark.svg"),
    layout="wide",
    menu_items={"About": _frame.ABOUT},
)
state.set_trouble(server.ensure())
state.take_address()  # before anything is drawn: all of it follows from the address
with _frame.guarded():
    _class.follow_orders()
with _frame.guarded():
    refit.check()
projector = state.projector()
page = st.navigation(_frame.pages(), position="hidden" if projector else "top")
state.set_page_title(page.title)
with _frame.guarded():
    wanted = state.take_wanted_page()
    _frame.go_to(state.requested_page() or wanted, at=page.url_path or FIRST)
if page.url_path != "prune":
    state.watch(None)  # whoever comes back later has not just seen the run end
if not projector:
    _frame.wordmark()
_frame.troubles()
_frame.warnings()
if projector:
    with _projector.begin(), _frame.guarded():
        page.run()
    _projector.end()
else:
    with _frame.guarded():
        _class.notices()
    with st.sidebar, _frame.guarded():
        _frame.current_model()
        _class.side()
        fold(lesson=state.place() is not None)
    with _lesson_panel.beside(page.url_path or FIRST), _frame.guarded():
        page.run()
_share.finish_handout()
_share.when_asked()
_frame.help_asked_for()
with _frame.guarded():
    _frame.follow()  # late: only now it is known what the page waits for
state.note_shown()
