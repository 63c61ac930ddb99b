"""What is done once for a server, not for each tab: the worker pool, the example, the collection of garbage."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import plotly.io
import streamlit as st
from starlette.requests import Request
from starlette.responses import RedirectResponse

from dashboard import example, jobs
from pruning.storage import default_workspace

Asgi = Callable[..., Awaitable[None]]
COLLECT_EVERY = 60.0  # seconds


def ensure() -> None:
    """Cheap after the first call."""
    _start()
    _open(str(default_workspace()))
    jobs.ensure()


@st.cache_resource
def _start() -> bool:
    plotly.io.json.config.default_engine = "orjson"
    gc.collect()
    gc.freeze()  # modules and classes live as long as the server: no collection has to walk them again
    threading.Thread(target=_collect, name="collector", daemon=True).start()
    return True


@st.cache_resource(max_entries=4)
def _open(place: str) -> bool:
    """The workspace, with something in it."""
    example.ensure(jobs.store())
    return True


def _collect() -> None:
    """Streamlit's own collection after each run is switched off (config.toml), for it costs the reader 100 ms."""
    while True:
        time.sleep(COLLECT_EVERY)
        gc.collect()


class RedirectMiddleware:
    """Sends a page opened by its own address in by the front door, which then leads there.

    Opened at /inspect, Streamlit's client first asks for its server below /inspect, and each asking ends as an error in the
    browser's console. Opened at /?room=inspect, it finds the server at once.
    """

    def __init__(self, app: Asgi, rooms: tuple[str, ...]) -> None:
        self.app, self.rooms = app, rooms

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        room = scope.get("path", "").strip("/")
        if scope["type"] == "http" and scope["method"] == "GET" and room in self.rooms:
            url = Request(scope).url.replace(path="/").include_query_params(room=room)
            await RedirectResponse(f"/?{url.query}", status_code=307)(scope, receive, send)
        else:
            await self.app(scope, receive, send)
