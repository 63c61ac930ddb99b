"""The page's frame: navigation on top, what is on the bench at the side, the page, and work in progress at the bottom."""

from __future__ import annotations

import streamlit as st

from dashboard import server, state
from dashboard.views import frame

ICON = str(frame.MARKS / "mark.svg")
st.set_page_config(page_title="Pruning Workbench", page_icon=ICON, layout="wide", menu_items={"About": frame.ABOUT})
server.ensure()
state.take_address()
page = st.navigation(frame.pages(), position="top")
frame.wordmark()
frame.warnings()
with st.sidebar, frame.guarded():
    frame.bench()
with frame.guarded():
    page.run()
frame.follow()
