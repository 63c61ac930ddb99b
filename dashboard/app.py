"""Navigation on top, the current model at the side, the page, and running work at the bottom.

`streamlit run` imports this file for the server, and runs it as `__main__` for each tab.
"""

from __future__ import annotations

import os

import streamlit as st
from starlette.middleware import Middleware

from dashboard import access, jobs, refit, server, state
from dashboard.components.fold import fold
from dashboard.views import _frame

if __name__ == "__main__":
    st.set_page_config(
        page_title="Pruning Workbench",
        page_icon=str(_frame.MARKS / "mark.svg"),
        layout="wide",
        menu_items={"About": _frame.ABOUT},
    )
    state.set_trouble(server.ensure())
    state.take_address()  # before anything is drawn: all of it follows from the address
    with _frame.guarded():
        refit.check()
    page = st.navigation(_frame.pages(), position="top")
    state.set_page_title(page.title)
    with _frame.guarded():
        _frame.go_to(state.requested_page())
    if page.url_path != "prune":
        state.watch(None)  # whoever comes back later has not just seen the run end
    _frame.wordmark()
    _frame.troubles()
    _frame.warnings()
    with st.sidebar, _frame.guarded():
        _frame.current_model()
        fold()
    with _frame.guarded():
        page.run()
    _frame.help_asked_for()
    with _frame.guarded():
        _frame.follow()  # late: only now it is known what the page waits for
    state.note_shown()
else:
    redirect = Middleware(server.RedirectMiddleware, pages=(*_frame.PAGE_NAMES, *_frame.RENAMED))
    style = Middleware(server.StyleMiddleware, lengths=_frame.LENGTHS)
    changed = Middleware(server.ChangedMiddleware, states=jobs.states)
    scripts = Middleware(server.ScriptMiddleware)
    hosts = Middleware(access.HostMiddleware)
    word = os.environ.get(access.PASSPHRASE, "")
    passphrase = Middleware(access.PassphraseMiddleware, passphrase=word, secret=access.secret)
    ours = [hosts, passphrase, scripts, changed, redirect, style]
    app = st.App(__file__, middleware=ours)
