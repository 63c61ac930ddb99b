"""Done once for a server, not for each tab: worker pool, example run, garbage collection."""

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
    gc.freeze()  # modules and classes live as long as the server: no collection visits them again
    threading.Thread(target=_collect, name="collector", daemon=True).start()
    return True


@st.cache_resource(max_entries=4)
def _open(place: str) -> bool:
    """The workspace, with something in it."""
    example.ensure(jobs.store())
    return True


def _collect() -> None:
    """Collect now and then.

    Streamlit's own collection after each run is off (config.toml): it costs the reader 100 ms.
    """
    while True:
        time.sleep(COLLECT_EVERY)
        gc.collect()


class RedirectMiddleware:
    """Redirects a page that is opened by its own path to the start page, which opens it.

    Opened at /inspect, Streamlit's client looks for its server below /inspect first, and each try
    ends as an error in the browser's console. Opened at /?room=inspect, it finds it at once.
    """

    def __init__(self, app: Asgi, pages: tuple[str, ...]) -> None:
        self.app, self.pages = app, pages

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        page = scope.get("path", "").strip("/")
        if scope["type"] == "http" and scope["method"] == "GET" and page in self.pages:
            url = Request(scope).url.replace(path="/").include_query_params(room=page)
            await RedirectResponse(f"/?{url.query}", status_code=307)(scope, receive, send)
        else:
            await self.app(scope, receive, send)
