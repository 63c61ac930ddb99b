"""Done once for a server, not for each tab: worker pool, example run, garbage collection."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import plotly.io
import streamlit as st
from starlette.requests import Request
from starlette.responses import RedirectResponse

from dashboard import example, jobs
from pruning.storage import default_workspace

Asgi = Callable[..., Awaitable[None]]
COLLECT_EVERY = 60.0  # seconds
STYLE = Path(__file__).parent / "page.css"


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


class StyleMiddleware:
    """Puts page.css into the head of the start page.

    Drawn by the script it would come after the first picture, too late for what it is for: to hold
    places that Streamlit's client fills a second later.

    lengths: in pixels, by the names of the variables that page.css reads.
    """

    def __init__(self, app: Asgi, lengths: Mapping[str, int]) -> None:
        self.app = app
        values = "".join(f"--{name}: {pixels}px; " for name, pixels in lengths.items())
        style = f":root {{ {values}}}\n{STYLE.read_text(encoding='utf-8')}"
        self.style = f"<style>{style}</style></head>".encode()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "GET" or scope["path"] != "/":
            await self.app(scope, receive, send)
            return
        # Without these the answer is neither compressed nor "not modified": its text is changed.
        left_out = (b"accept-encoding", b"if-none-match", b"if-modified-since", b"range")
        headers = [(name, value) for name, value in scope["headers"] if name not in left_out]
        start: dict[str, Any] = {}
        body = bytearray()

        async def keep(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            body.extend(message.get("body", b""))
            if message.get("more_body"):
                return
            page = bytes(body).replace(b"</head>", self.style, 1)
            kept = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
            start["headers"] = [*kept, (b"content-length", str(len(page)).encode())]
            await send(start)
            await send({"type": "http.response.body", "body": page})

        await self.app({**scope, "headers": headers}, receive, keep)
