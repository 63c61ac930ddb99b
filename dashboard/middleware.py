"""What every request to the server passes: old addresses, styles, scripts, questions about jobs.

Imports nothing heavy: the server answers before the pages are loaded.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from dashboard.components import base, wait

Asgi = Callable[..., Awaitable[None]]
PATIENCE = 25.0  # seconds until a question is answered in any case: proxies end silent ones
SOON = 1.0  # seconds within which a job may begin without an answer
FIRST_PAUSE, LONGEST_PAUSE = 0.03, 0.5  # seconds between two looks at the store for a question
APART, FARTHEST = 0.6, 5.0  # seconds between two answers to a tab that say how far a run came
SHARED = 0.25  # seconds for which all tabs that follow a run share one look at the store
DRAWINGS = 6.0  # such answers a second, to all tabs together: each draws a part of a page anew
STYLE = Path(__file__).parent / "page.css"


class ScriptMiddleware:
    """Serves the scripts of components, which a browser keeps: their names change with them."""

    def __init__(self, app: Asgi) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(base.PATH):
            await self.app(scope, receive, send)
            return
        text = base.served(scope["path"])
        keep = {"cache-control": "public, max-age=31536000, immutable"}
        answer = Response(status_code=404)
        if text is not None:
            answer = Response(text, media_type="text/javascript", headers=keep)
        await answer(scope, receive, send)


class ChangedMiddleware:
    """Answers a page that waits for jobs once one of them is in another state.

    states: ids -> their states. 200: something changed; 204: nothing did in a while, ask again.
    Where a state is `<state>.<how far>`, another state is told at once, and how far it came in
    turn: the more tabs follow a run, the farther apart, so that they cost the others nothing.
    """

    def __init__(self, app: Asgi, states: Callable[[Iterable[str]], dict[str, str]]) -> None:
        self.app, self.states = app, states
        self.followers = 0
        # Name of what is followed -> (its state, when that was seen, in monotonic seconds).
        self.seen: dict[str, tuple[str, float]] = {}
        self.lock = asyncio.Lock()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["path"] != wait.PATH:
            await self.app(scope, receive, send)
            return
        known = wait.asked(Request(scope).query_params.get(wait.JOBS, ""))
        changed = await self._changed(known, receive)
        if changed is not None:
            await Response(status_code=200 if changed else 204)(scope, receive, send)

    async def _changed(self, known: dict[str, str], receive: Any) -> bool | None:
        """Whether a job's state changed in time; None when the browser went away."""
        away = asyncio.ensure_future(_disconnected(receive))
        follows = any("." in state for state in known.values())
        self.followers += follows
        pause, begin = LONGEST_PAUSE if follows else FIRST_PAUSE, time.monotonic()
        soon, until = begin + SOON, begin + PATIENCE
        turn = begin + self._apart() if follows else begin
        try:
            while time.monotonic() < until:
                look = self._shared_look if follows else self._look
                now = await look(known)
                if time.monotonic() < soon:
                    # A worker took it at once, which is what the page says of it already.
                    known = {id: _begun(known[id], state) for id, state in now.items()}
                early = time.monotonic() < turn
                if any(_differ(known[id], state, early) for id, state in now.items()):
                    return True
                if (await asyncio.wait([away], timeout=pause))[0]:
                    return None
                pause = min(LONGEST_PAUSE, 1.1 * pause)
            return False
        finally:
            self.followers -= follows
            away.cancel()

    async def _look(self, ids: Iterable[str]) -> dict[str, str]:
        return await asyncio.to_thread(self.states, ids)

    async def _shared_look(self, ids: Iterable[str]) -> dict[str, str]:
        """What all tabs that follow work saw of it a moment ago: it is looked at once for them."""
        async with self.lock:
            since = time.monotonic() - SHARED
            old = [id for id in ids if self.seen.get(id, ("", 0.0))[1] < since]
            if old:
                self.seen = {id: pair for id, pair in self.seen.items() if pair[1] >= since}
                now = await self._look(old)
                self.seen |= {id: (state, time.monotonic()) for id, state in now.items()}
            return {id: self.seen[id][0] for id in ids}

    def _apart(self) -> float:
        """Seconds until a tab is told how far a run came."""
        return min(FARTHEST, max(APART, self.followers / DRAWINGS))


def _differ(known: str, now: str, early: bool) -> bool:
    """early: how far it came does not count yet."""
    if early:
        known, now = known.partition(".")[0], now.partition(".")[0]
    return known != now


def _begun(known: str, now: str) -> str:
    """The state that counts as known: that a job begins soon is nothing to draw a page anew for."""
    return now if (known, now) == ("queued", "running") else known


async def _disconnected(receive: Any) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


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
        self.head = f"<style>{style}</style></head>".encode()

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
            page = bytes(body).replace(b"</head>", self.head, 1)
            kept = [pair for pair in start["headers"] if pair[0].lower() != b"content-length"]
            start["headers"] = [*kept, (b"content-length", str(len(page)).encode())]
            await send(start)
            await send({"type": "http.response.body", "body": page})

        await self.app({**scope, "headers": headers}, receive, keep)
