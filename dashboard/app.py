"""The server: what every request passes, and `tab.py` for each tab.

`streamlit run` imports this file and listens. The pages load beside that, while the first browser
loads its own part.
"""

from __future__ import annotations

import importlib
import os
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import streamlit as st
from starlette.middleware import Middleware

from dashboard import access, arrivals, middleware, pages, rooms, unsent, visitors
from pruning.errors import StoreError

HERE = Path(__file__).parent
PATIENCE = 4.0
"""Seconds until workers are started that nobody asked for: they load PyTorch, which takes a core
for as long, and the first page needs none of them."""


def load_pages() -> None:
    """Import what the first page needs, and start the workers once it has been drawn."""
    with suppress(StoreError):  # the page of the class says what is wrong
        rooms.begin(os.environ.get(rooms.CODE, ""))
    for name in ("views._frame", "refit", "server"):
        importlib.import_module(f"dashboard.{name}")
    warm_up = importlib.import_module("dashboard.server").warm_up
    timer = threading.Timer(PATIENCE, warm_up)
    timer.daemon = True
    timer.start()


def states(ids: Iterable[str]) -> dict[str, str]:
    """States of jobs and of rooms. Asked once a page is open, when jobs are loaded long since."""
    ours, others = rooms.parted(ids)
    known: dict[str, str] = rooms.states(ours)
    return known | (importlib.import_module("dashboard.jobs").states(others) if others else {})


unsent.keep()
threading.Thread(target=load_pages, name="loading", daemon=True).start()
ours = [
    Middleware(access.HostMiddleware),
    Middleware(
        access.PassphraseMiddleware,
        passphrase=os.environ.get(access.PASSPHRASE, ""),
        secret=access.secret,
    ),
    Middleware(
        arrivals.UploadMiddleware, largest=st.get_option("server.maxUploadSize") * arrivals.MB
    ),
    Middleware(middleware.ScriptMiddleware),
    Middleware(middleware.ChangedMiddleware, states=states),
    Middleware(middleware.RedirectMiddleware, pages=(*pages.PAGE_NAMES, *pages.RENAMED)),
    Middleware(visitors.VisitorMiddleware, owner=os.environ.get(visitors.OWNER, "")),
    Middleware(middleware.StyleMiddleware, lengths=pages.LENGTHS),
]
app = st.App(HERE / "tab.py", middleware=ours)
